"""The command line: verbs, exit codes, one-line errors, and how quickly it is there."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import cv2
import numpy as np
import pytest

from ebmtrack import __version__
from ebmtrack import weights as packaged
from ebmtrack.commands import main as cli
from ebmtrack.commands.evaluate import Evaluate
from ebmtrack.commands.options import DatasetOptions, Group, TrackerOptions, flatten
from ebmtrack.commands.track import Demo, Track
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.errors import CheckpointError
from ebmtrack.tracking.params import load_params
from tests.support import REPOSITORY
from tests.support.trees import got10k_tree


class Still:
    """A tracker that answers with the box it began with, after a pause."""

    def __init__(self, pause_s=0.0):
        self.pause_s = pause_s

    def init(self, image, box_xywh):
        self.box_xywh, self.score, self.found = box_xywh, 1.0, True

    def update(self, image):
        if self.pause_s:
            print("busy", flush=True)
            time.sleep(self.pause_s)
        return self


@pytest.fixture
def folder(tmp_path):
    """Five pictures."""
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((20, 30, 3), np.uint8))
    return tmp_path


@pytest.fixture
def still(monkeypatch):
    """What the commands ask of the tracker's loader, which gives a still one."""
    asked = []
    monkeypatch.setattr(TrackerOptions, "load", lambda options: asked.append(options) or Still())
    return asked


def python(code, *args, **more):
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, *code, *args], capture_output=True, text=True, timeout=240, **more)


@pytest.mark.parametrize(
    "own, expected", [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_that_wait_leave_the_cores_to_others(own, expected):
    """Set before PyTorch is loaded, unless the user has chosen."""
    ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    code = "import os, sys; from ebmtrack import Tracker; print('torch' in sys.modules)"
    done = python(["-c", code + "; print(os.environ.get('GOMP_SPINCOUNT'))"], env={**environment, **own})
    assert done.stdout.split()[-2:] == ["False", str(expected)]


@pytest.mark.parametrize("own, expected", [({}, "1"), ({"OPENBLAS_NUM_THREADS": "4"}, "4")])
def test_products_of_a_few_boxes_take_one_thread(own, expected):
    """NumPy's BLAS would let the second one spin; who has chosen a number keeps it."""
    program = "import os; import ebmtrack; ebmtrack.Tracker; print(os.environ['OPENBLAS_NUM_THREADS'])"
    left = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**left, **own})
    assert done.stdout.split() == [expected], done.stderr


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ebmtrack {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["track", "--help"], ["demo", "--help"]])
def test_help(argv, capsys):
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "usage: ebmtrack" in out
    assert all(verb in out for verb in cli.VERBS) or argv[:1] in (["track"], ["demo"])


def test_each_verb_has_one_paragraph_in_the_list_of_verbs():
    """A second paragraph of a verb's docstring would be shown there, too."""
    verbs = [*cli.VERBS.values()]
    verbs += [below for verb in verbs if issubclass(verb, Group) for below in verb.verbs.values()]
    for verb in verbs:
        paragraphs = inspect.getdoc(verb).split("\n\n")
        assert len(paragraphs) == 1 or paragraphs[1].startswith("Attributes:"), verb


@pytest.mark.parametrize(
    "line, advice",
    [
        ("export-network ebm_lite", "the verb is `ebmtrack export` now"),
        ("export --dataset otb100 --layout pytracking", "did you mean `ebmtrack export-results`?"),
        ("export --dataset=otb100", "did you mean `ebmtrack export-results`?"),
    ],
)
def test_former_spellings_are_answered_with_the_present_ones(line, advice, capsys):
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err == f"ebmtrack: error: {advice}\n"


@pytest.mark.parametrize(
    "line", ["fly", "track", "track x.mp4 --foo", "track x.mp4 --max-frames many", "pack pool a b --shard-frames 9"]
)
def test_wrong_options_are_code_2(line, capsys):
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "line, advice",
    [
        ("trak x", "unknown ebmtrack verb 'trak'; did you mean 'track'?"),
        ("detect trian", "unknown ebmtrack detect verb 'trian'; did you mean 'train'?"),
        ("study 2d", "unknown ebmtrack study verb '2d'; known are 1d, proposals-1d, regression, boxes, detection, "),
        ("--device cpu track", "--device: a verb comes first; see `ebmtrack --help`"),
        ("track w.mp4 --init 80 60 60 44", "without blanks: --init 80,60,60,44; see `ebmtrack track --help`"),
        ("track w.mp4 --init 80, 60, -60, 4.5 --show", "--init 80,60,-60,4.5; see `ebmtrack track --help`"),
        ("webcam --init=80 60", "without blanks: --init x,y,w,h; see `ebmtrack webcam --help`"),
        ("report --dataset folder --out res", "has no --out: there the folder of results is --results FOLDER"),
        ("study intervals --dataset x --out=res", "has no --out: there the folder of results is --results FOLDER"),
        ("eval --dataset folder --results res", "has no --results: there the folder of results is --out FOLDER"),
    ],
)
def test_a_mistake_is_answered_with_what_to_type(line, advice, capsys):
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert advice in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "line, meant, others",
    [
        ("report --dataset folder --reslts res", "--results", ["--result-"]),
        ("export-results --dataset x --layout got10k --ot res", "--out", ["exported)", "study"]),
        ("track x.mp4 --intt 1,2,3,4", "--init", ["webcam", "bench"]),
        ("study 1d --otu x", "--out", ["boxes3d", "detection"]),
    ],
)
def test_an_unknown_option_shows_options_of_its_verb_alone(line, meant, others, capsys):
    """The verb's help is named, not that of all verbs."""
    assert cli.main(line.split()) == 2
    error = " ".join(capsys.readouterr().err.split())
    program = " ".join(word for word in line.split()[:2] if not word.startswith("-") and "." not in word)
    assert f"{meant} " in error and f"run ebmtrack {program} --help" in error
    assert not any(other in error for other in others)


def test_verbs_have_the_spellings_of_tyro():
    assert cli.parse("export_results --dataset folder --layout got10k".split()).layout == "got10k"
    assert cli.parse(["track", "0", "--init", "80,60,60,44", "--every", "2"]).options.init == ("80,60,60,44",)
    assert cli.parse(["track", "--init", "1:80,60,60,44", "0"]).source == "0"


def all_verbs(verbs=cli.VERBS):
    """Return the classes of all verbs, those of groups as well."""
    for verb in verbs.values():
        yield from all_verbs(verb.verbs) if issubclass(verb, Group) else [verb]


def options_of(verb):
    """Return the fields of a verb and of its groups of options."""
    hints = typing.get_type_hints(verb)
    for each in dataclasses.fields(verb):
        yield from options_of(hints[each.name]) if dataclasses.is_dataclass(hints[each.name]) else [each]


def kinds_of(options):
    """Return a verb's options by name, those of its groups as well: the field, and its type without annotations."""
    hints, found = typing.get_type_hints(options), {}
    for each in dataclasses.fields(options):
        kind = hints[each.name]
        found |= kinds_of(kind) if dataclasses.is_dataclass(kind) else {each.name: (each, kind)}
    return found


def path_lines(verbs=cli.VERBS, before=()):
    """Yield command lines whose paths begin with ~: what a verb asks for, alone and with each of its other options."""
    for name, verb in verbs.items():
        if issubclass(verb, Group):
            yield from path_lines(verb.verbs, (*before, name))
            continue
        words, more = [*before, name], []
        for option, (each, kind) in kinds_of(verb).items():
            flag, is_asked_for = f"--{option.replace('_', '-')}", each.default is each.default_factory
            if is_asked_for:
                value = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Literal else "~/x"
                words += [value] if "Positional" in each.type else [f"{flag}={value}"]
            elif kind in (Path, Path | None, str, str | None) and "Positional" not in each.type:
                more.append(f"{flag}=~/x")
        yield from ([*words, *option] for option in ([], *([option] for option in more)))


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in path_lines()])
def test_the_home_folder_is_known_in_every_path(words, monkeypatch):
    """Shells expand ~ only where a word begins with it, unquoted: not in --boxes=~/x.csv."""
    monkeypatch.setenv("HOME", "/home/me")
    text = repr(cli.parse(words))
    assert "~" not in text and text.count("/home/me/x") == " ".join(words).count("~/x")


@pytest.mark.parametrize(
    "word, expanded",
    [
        ("~/x", "/home/me/x"),
        ("--set=kept=~/x", "--set=kept=/home/me/x"),
        ("kept=~", "kept=/home/me"),
        ("onnx:float32@~/x", "onnx:float32@/home/me/x"),
        ("~nobody.mp4", "~nobody.mp4"),
        ("a/~/x", "a/~/x"),
        ("http://a.b/?c=~/x", "http://a.b/?c=~/x"),
        ("2@1.5s:1,2,3,4", "2@1.5s:1,2,3,4"),
    ],
)
def test_the_home_folder_is_known_after_an_option_and_a_key(word, expanded, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert cli._expand_home(word) == expanded


def test_every_flag_is_off_by_default():
    """What is shown is then the flag that the help is about: not --no-pages beside "write pages"."""
    options = [option for verb in all_verbs() for option in options_of(verb)]
    assert len(options) > 100 and not [option.name for option in options if option.default is True]


def test_no_pages_leaves_them_out(capsys):
    assert cli.main(["report", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--no-pages Leave out the pages of single sequences" in text
    assert cli.parse("report --dataset folder --no-pages".split()).no_pages


def test_every_verb_says_what_it_does():
    """Help is made of docstrings: each verb has a sentence, and a line for each of its options."""
    assert all(verb.__doc__ for verb in cli.VERBS.values())
    for verb in all_verbs():
        options = [field.name for field in dataclasses.fields(verb) if not field.type.startswith("Flat[")]
        assert verb.__doc__ and all(f"{option}: " in verb.__doc__ for option in options)


def test_options_are_not_forwarded_by_position():
    """Each verb can be made from Python, with the defaults of the command line."""
    assert cli.parse(["track", "a.mp4", "--device", "cpu"]) == Track(
        source="a.mp4", tracker=TrackerOptions(device="cpu")
    )
    assert cli.parse(["demo"]) == Demo()
    assert cli.parse(["eval", "--dataset", "folder"]) == Evaluate(data=DatasetOptions("folder"))
    exports = cli.parse(["export"]), cli.parse(["export-results", "--dataset", "folder", "--layout", "got10k"])
    assert [str(verb.out) for verb in exports] == ["exported", "exported_results"]
    assert cli.parse("pack pool a b --every 3 --png".split()).kept == PackSettings(every=3, png=True)


@pytest.mark.parametrize("init", [["--init", "1,2,3,4", "--init", "5,6,7,8"], ["--init", "1,2,3,4;5,6,7,8"]])
def test_webcam_takes_several_targets_as_track_does(init, monkeypatch):
    from ebmtrack.live import webcam
    from ebmtrack.viewers import selection

    asked = []
    monkeypatch.setattr(webcam, "webcam", lambda load, options, *_, **more: asked.append(options.init))
    assert cli.main(["webcam", *init]) == 0
    assert selection.parse_boxes(asked[0]) == [(1, 2, 3, 4), (5, 6, 7, 8)]


def test_track(folder, still, capsys):
    out = folder / "b.txt"
    argv = ["track", str(folder), "--init", "1,2,3,4", "--boxes", str(out)]
    assert cli.main([*argv, "--max-frames", "3", "--device", "cpu"]) == 0
    assert out.read_text() == "1.000,2.000,3.000,4.000\n" * 3
    assert still == [TrackerOptions(device="cpu")] and "3 frames" in capsys.readouterr().out


def test_bench_prints_json(monkeypatch, capsys):
    from ebmtrack.studies import bench_tracker as study

    asked = []
    monkeypatch.setattr(study, "bench", lambda options: asked.append(options) or {"rows": []})
    assert cli.main(["bench", "onnx", "torch:float32", "--threads", "1", "--json"]) == 0
    assert asked == [study.BenchOptions(contenders=("onnx", "torch:float32"), threads=1)]
    assert json.loads(capsys.readouterr().out) == {"rows": []}


def test_an_error_is_one_line_and_code_2(tmp_path, capsys):
    assert cli.main(["track", str(tmp_path / "none.mp4"), "--init", "1,2,3,4"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ebmtrack: error: ") and captured.err.count("\n") == 1
    assert "none.mp4: no such file" in captured.err


def test_an_error_of_many_lines_is_made_one(monkeypatch, folder, capsys):
    def refuse(*_):
        raise CheckpointError("first line\n  second line")

    monkeypatch.setattr(TrackerOptions, "load", refuse)
    assert cli.main(["track", str(folder), "--init", "1,2,3,4", "--boxes", str(folder / "b.txt")]) == 2
    assert capsys.readouterr().err == "ebmtrack: error: first line second line\n"


@pytest.mark.parametrize("module, extra", [("torch.nn", "train"), ("onnx", "export"), ("av", "video")])
def test_a_verb_that_needs_an_extra_names_it(module, extra, monkeypatch, capsys):
    def run(verb):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(Demo, "run", run)
    assert cli.main(["demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`ebmtrack demo` needs" in line and f"pip install 'ebmtrack[{extra}]'" in line


def test_a_module_that_no_extra_brings_is_a_bug(monkeypatch):
    def run(verb):
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr(Demo, "run", run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["demo"])


def test_ctrl_c_is_code_130(monkeypatch, folder, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrackerOptions, "load", interrupt)
    assert cli.main(["track", str(folder), "--init", "1,2,3,4", "--boxes", str(folder / "b.txt")]) == 130


def test_as_a_module_with_a_camera_that_is_not_there(tmp_path):
    """From a shell: one line on stderr, nothing of OpenCV's own talk, code 2."""
    done = python(["-m", "ebmtrack"], "track", "96", "--init", "1,2,3,4", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "ebmtrack: error: no camera number 96: is it plugged in, and free?\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOTDIR])
def test_a_place_that_cannot_be_written_is_one_line(number, monkeypatch, capsys):
    def refused(*_):
        raise OSError(number, os.strerror(number), "/data/out.safetensors")

    monkeypatch.setattr(TrackerOptions, "load", refused)
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == f"ebmtrack: error: /data/out.safetensors: {os.strerror(number)}\n"


@pytest.mark.parametrize(
    "line",
    [
        "convert {shipped} {place}/x.pth.tar",
        "convert {shipped} {place}.pth.tar",
        "study 1d --out {place}",
        "stress --root {root} --changes none --out {place}",
    ],
)
def test_a_file_in_the_place_of_a_folder_is_one_line(line, tmp_path, capsys):
    """And a folder in the place of a file."""
    (tmp_path / "place").write_text("")
    (tmp_path / "place.pth.tar").mkdir()
    got10k_tree(tmp_path / "root", ("cat",))
    shipped = Path(packaged.__file__).parent / "ebm18_small.safetensors"
    names = {"shipped": shipped, "place": tmp_path / "place", "root": tmp_path / "root"}
    assert cli.main([word.format(**names) for word in line.split()]) == 2
    assert capsys.readouterr().err.startswith(f"ebmtrack: error: {tmp_path / 'place'}")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_can_complete_verbs_and_those_below_them(shell, capsys):
    assert cli.main(["--tyro-print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("cut-outs", "--peers", "proposals-1d", "export-results"))


@pytest.mark.skipif(os.name != "posix", reason="the shell closes a stream")
@pytest.mark.parametrize("line, code", [("paths >&-", 0), ("paths >&- 2>&-", 0), ("fly >&-", 2), ("--version >&-", 0)])
def test_a_closed_stdout_is_no_error(line, code):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m ebmtrack {line}', sys.executable], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == code and done.stdout == "" and ("verb 'fly'" in done.stderr) == (code == 2)


def test_tracking_with_a_closed_stdout_writes_the_boxes(folder, still, monkeypatch):
    out = folder / "b.txt"
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        code = cli.main(["track", str(folder), "--init", "1,2,3,4", "--boxes", str(out)])
        sys.stdout.close()
    assert code == 0 and out.read_text() == "1.000,2.000,3.000,4.000\n" * 5


def test_a_reader_that_leaves_is_no_error():
    """As in `ebmtrack paths | head -0`."""
    command = [sys.executable, "-m", "ebmtrack", "paths"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=240) == 141


def test_a_broken_pipe_elsewhere_is_not_hidden(tmp_path):
    program = "import ebmtrack.studies.bench_tracker as b\n"
    program += "def fails(_): raise BrokenPipeError('a server')\nb.bench = fails"
    done = python(["-c", f"{program}\nfrom ebmtrack.commands.main import main; main(['bench'])"])
    assert done.returncode == 1 and "BrokenPipeError: a server" in done.stderr


def test_help_does_not_load_what_is_heavy():
    """Neither torch nor OpenCV: help is there at once."""
    code = "import sys, ebmtrack.commands.main as c; c.main(['--help']); print({'torch', 'cv2'} & set(sys.modules))"
    assert python(["-c", code]).stdout.endswith("set()\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX systems know them")
@pytest.mark.parametrize("name, again", [("SIGINT", 0), ("SIGTERM", 0), ("SIGHUP", 0), ("SIGHUP", 1)])
def test_signals_from_outside_keep_the_boxes(folder, name, again):
    """Ctrl-C, `kill` or `timeout`, a closed terminal, while the second frame is tracked: the first box is on disk.

    Also if the signal comes again while it is written: a terminal and its shell both send one.
    """
    code = (
        "import signal, ebmtrack.viewers.partial_files as t; write = t.write_results;"
        f"send = lambda: [signal.raise_signal(signal.{name}) for _ in range({again})];"
        "t.write_results = lambda *args: (send(), write(*args))[1];"
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from tests.unit.commands.test_main import Still, TrackerOptions, cli;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # jobs in the background inherit none
        "TrackerOptions.load = lambda _: Still(120.0); sys.exit(cli.main())"
    )
    out = folder / "b.txt"
    argv = ["track", str(folder), "--init", "1,2,3,4", "--boxes", str(out)]
    command = [sys.executable, "-c", code, str(REPOSITORY), *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(getattr(signal, name))
        printed, errors = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in errors
    assert out.read_text() == "1.000,2.000,3.000,4.000\n" and "kept what was tracked: 1 frame," in printed


@pytest.mark.parametrize(
    "line, option, values",
    [
        ("eval --dataset folder --params a b --params c", "params", ("a", "b", "c")),
        ("eval --dataset folder --sequences x --sequences y z", "sequences", ("x", "y", "z")),
        ("stress --root x --changes grey --changes noise", "changes", ("grey", "noise")),
        ("export-results --dataset folder --layout got10k --params a --params b", "params", ("a", "b")),
        ("study 1d --samples 1 4 --samples 16", "samples", (1, 4, 16)),
        ("train ebm18 --set a=1 --set b=2 c=3", "set", ("a=1", "b=2", "c=3")),
    ],
)
def test_options_that_are_given_again_add_up(line, option, values):
    """None of them replaces the first in silence."""
    assert flatten(getattr(cli.parse(line.split()), option)) == values


def test_other_trackers_add_up():
    """Names and folders of all --others."""
    report = cli.parse("report --dataset folder --others A p --others B q C r".split())
    assert [dict(group) for group in report.others] == [{"A": Path("p")}, {"B": Path("q"), "C": Path("r")}]


def test_the_seed_of_track_is_kept_in_its_file(folder, monkeypatch, capsys):
    """The set-up's own by default; one that is none is refused."""

    class Seeded(Still):
        params = load_params("dimp18_nce_plus")

    monkeypatch.setattr(TrackerOptions, "load", lambda options: Seeded())
    for words, seed in ([], Seeded.params.seed), (["--seed", "7"], 7):
        argv = ["track", str(folder), "--init", "1,2,3,4", "--boxes", str(folder / "b.json"), *words]
        assert cli.main(argv) == 0
        assert json.loads((folder / "b.json").read_text())["seed"] == seed
    assert cli.main([*argv[:-1], "-1"]) == 2
    assert "seed" in capsys.readouterr().err


def test_a_new_folder_for_boxes_is_told(folder, still, capsys, tmp_path):
    """A mistyped folder is made, but not in silence."""
    out = tmp_path / "nwe" / "folder" / "x.csv"
    assert cli.main(["track", str(folder), "--init", "1,2,3,4", "--boxes", str(out)]) == 0
    assert f"note: {out.parent} is not there yet; it is made for x.csv" in capsys.readouterr().out
    assert cli.main(["track", str(folder), "--init", "1,2,3,4", "--boxes", str(out)]) == 0
    assert "is made" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, text", [("a.safetensors", "'ebmtrack[train]' it is used as it is"), ("b.safetensors", "no such file of")]
)
def test_weights_for_pytorch_without_it(folder, monkeypatch, capsys, tmp_path, name, text):
    """The line says what to install, or that the file is missing."""
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    monkeypatch.setattr("ebmtrack.engines.has_torch", lambda: False)
    argv = ["track", str(folder), "--init", "1,2,3,4", "--boxes", str(tmp_path / "b.txt")]
    assert cli.main([*argv, "--weights", str(tmp_path / name)]) == 2
    assert text in capsys.readouterr().err
