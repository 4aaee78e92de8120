"""The plugin inside a miniature of pytracking: its gate, its workers, its images, and errors that it hides."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ebmtrack
from ebmtrack.checkpoints.native import save_checkpoint
from ebmtrack.commands import main as cli
from ebmtrack.engines.atom_engine import AtomEngine
from ebmtrack.engines.mirrored import MirroredEngine
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.plugins import hook as _hook
from ebmtrack.plugins import pytracking as plugin
from ebmtrack.plugins import pytracking_setup as setup
from ebmtrack.tracking.params import TrackerParams, list_params, load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.golden import dimp18, image
from tests.support.miniature_host import TINY, make_host, write_sequence

FRAMES = [np.roll(image("walk", 120, 160), (2 * t, 3 * t), (0, 1)) for t in range(4)]
BOX, OTHER_BOX = (60.0, 40.0, 34.0, 42.0), (20.0, 30.0, 40.0, 30.0)
OURS = Path(ebmtrack.__file__).parent
LAUNCH = (sys.executable, "-m", "ebmtrack.plugins.launch")


@pytest.fixture(autouse=True)
def own_environment():
    """Take back the folders of data sets that a training run of the host has set for its process."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with a network of random weights and two short sequences."""
    root = make_host(tmp_path_factory.mktemp("checkout"))
    save_checkpoint(root / "networks/random.safetensors", dimp18(), run={}, dtype=torch.float16)
    write_sequence(root, "Deer", FRAMES, BOX)
    write_sequence(root, "Fish", FRAMES[::-1], OTHER_BOX)
    return root


@pytest.fixture
def host(checkout, monkeypatch):
    """The checkout on sys.path, its modules and the hook; all gone afterwards."""
    forget()
    monkeypatch.syspath_prepend(str(checkout))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    _hook.install()
    names = ("tracker", "running", "datasets", "multi_object_wrapper")
    yield SimpleNamespace(**{name: importlib.import_module(f"pytracking.evaluation.{name}") for name in names})
    forget()


def forget():
    """Take the miniature's modules out of this process."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("pytracking", "ltr")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter in whose site folder ebmtrack counts as installed, beside all that this one has."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=os.name == "posix", with_pip=False)
    executable = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site_folder = Path(run(executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    paths = [path for path in [str(OURS.parent), *sys.path] if os.path.isdir(path) and "site-packages" not in path]
    lines = [f"import site; site.addsitedir({path!r})" for path in sys.path if "site-packages" in path]
    (site_folder / "aaa_parent.pth").write_text("\n".join([*paths, *lines]) + "\n")
    metadata = site_folder / "ebmtrack-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: ebmtrack\nVersion: 0\n")
    return executable


def run(executable, *args, **options):
    """A command with one thread; its output is text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.run(
        [str(executable), *map(str, args)], capture_output=True, text=True, timeout=200, env=environment, **options
    )


def call(executable, function):
    """Print what a function of pytracking_setup returns, in another interpreter."""
    return run(executable, "-c", f"from ebmtrack.plugins.pytracking_setup import *; print({function})")


@pytest.fixture(scope="module")
def boxes_by_hand(checkout):
    """A function that returns the boxes (frames, 4) of the tracker without any host; each call is computed once."""

    @cache
    def boxes(box, seed=0, order=1) -> np.ndarray:
        params = load_params("dimp18_nce_plus").replace(**TINY)
        tracker = Tracker.from_pretrained(params, checkout / "networks/random.safetensors")
        first, *others = FRAMES[::order]
        tracker.init(first, box, seed=seed)
        return np.array([box, *(tracker.update(frame).box_xywh for frame in others)])

    return boxes


def test_the_gate(host):
    """Ours is found without a folder in the checkout; the host's own tracker and unknown names are as before."""
    assert host.tracker.Tracker("ebmtrack", "tiny").tracker_class is plugin.HostTracker
    assert host.tracker.Tracker("other", "default").tracker_class.__name__ == "Other"
    assert host.tracker.Tracker("nobody", "default").tracker_class is None


def test_without_the_hook_the_gate_is_shut(host, monkeypatch):
    """The miniature is as strict as the host: this is why the hook is needed."""
    forget()
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not getattr(f, "for_pytracking", False)])
    assert importlib.import_module("pytracking.evaluation.tracker").Tracker("ebmtrack", "tiny").tracker_class is None


def test_installing_twice_changes_nothing(host):
    before, init = list(sys.meta_path), host.tracker.Tracker.__init__
    _hook.install()
    assert sys.meta_path == before and host.tracker.Tracker.__init__ is init


def test_a_host_that_is_loaded_already_is_completed(host, monkeypatch):
    forget()
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not getattr(f, "for_pytracking", False)])
    late = importlib.import_module("pytracking.evaluation.tracker").Tracker
    _hook.install()
    assert late("ebmtrack", "tiny").tracker_class is plugin.HostTracker


@pytest.mark.parametrize("name", list_params())
def test_every_set_up_is_there_for_the_host(host, name):
    params = host.tracker.Tracker("ebmtrack", name).get_parameters()
    assert plugin._tracker_params(params) == load_params(name)
    assert params.get("object_presence_score_threshold", 0.55) == load_params(name).not_found_threshold


def test_unknown_set_up_names_the_nearest(host, capsys):
    with pytest.raises(ConfigError, match="did you mean 'dimp18_nce_plus'"):
        host.tracker.Tracker("ebmtrack", "dimp18_nceplus").get_parameters()
    assert "ebmtrack: error when the parameters 'dimp18_nceplus' were looked up: ConfigError" in capsys.readouterr().err


def test_the_bag_is_the_hosts_to_write_on():
    """A field changed in the bag reaches the tracker; what the host adds does not; TrackerParams stays frozen."""
    bag = plugin.parameters_of("super_dimp", weights="mine", device="cpu")
    bag.visualization, bag.debug, bag.tracker_name, bag.ascent_steps = False, 0, "ebmtrack", 7
    assert plugin._tracker_params(bag) == load_params("super_dimp").replace(weights="mine", ascent_steps=7)
    assert bag.get("debug") == 0 and bag.get("nothing", 3) == 3 and bag.has("seed") and not bag.has("nothing")
    bag.set_default_values({"debug": 5, "new": 6})
    assert (bag.debug, bag.new) == (0, 6)
    assert vars(copy.deepcopy(bag)) == vars(bag)
    with pytest.raises(AttributeError):
        bag.get("nothing")
    with pytest.raises(ConfigError, match="one default"):
        bag.get("a", 1, 2)
    with pytest.raises(ConfigError, match="did you mean 'ascent_steps'"):
        plugin.parameters_of("super_dimp", ascent_step=3)


def test_a_plain_bag_gives_the_defaults():
    """A parameter object of the host's own kind, without our fields, means TrackerParams()."""
    assert plugin._tracker_params(SimpleNamespace(debug=1, seed=4)) == TrackerParams(seed=4)


def test_data_set(host, checkout, capsys, boxes_by_hand):
    """The files hold the boxes of the tracker itself, cut to integers by the host; 1 and then the presence."""
    tracker = host.tracker.Tracker("ebmtrack", "tiny", 0)
    deer = [seq for seq in host.datasets.get_dataset("otb") if seq.name == "Deer"]
    host.running.run_dataset(deer, [tracker])
    folder = Path(tracker.results_dir)
    stored = np.loadtxt(folder / "Deer.txt", delimiter="\t")
    assert np.array_equal(stored, boxes_by_hand(BOX).astype(int))
    presence = np.loadtxt(folder / "Deer_object_presence_scores.txt")
    assert presence.shape == (4,) and presence[0] == 1 and ((presence >= 0) & (presence <= 1)).all()
    assert capsys.readouterr().err == ""


def test_every_frame_has_a_float_box_and_its_presence(host):
    tracker = host.tracker.Tracker("ebmtrack", "tiny")
    ours = tracker.create_tracker(tracker.get_parameters())
    outputs = [ours.initialize(FRAMES[0], {"init_bbox": [np.float64(v) for v in BOX]})]
    outputs += [ours.track(frame, {"previous_output": outputs[0]}) for frame in FRAMES[1:3]] + [ours.track(FRAMES[3])]
    for output in outputs:
        assert set(output) == {"target_bbox", "object_presence_score"}
        assert type(output["object_presence_score"]) is float and 0 <= output["object_presence_score"] <= 1
        assert [type(value) for value in output["target_bbox"]] == [float] * 4
    assert ours.predicts_segmentation_mask() is False and ours.initialize_features() is None


def test_runs_with_other_ids_have_other_seeds(host, checkout, boxes_by_hand):
    """Run 3 is the tracker with seed 3."""
    params = host.tracker.Tracker("ebmtrack", "tiny").get_parameters()
    params.run_id = 3
    ours = plugin.HostTracker(params)
    ours.initialize(FRAMES[0], {"init_bbox": BOX})
    box = ours.track(FRAMES[1])["target_bbox"]
    assert np.array_equal(box, boxes_by_hand(BOX, seed=3)[1])
    assert not np.array_equal(box, boxes_by_hand(BOX)[1])


def test_video_is_bgr_and_objects_share_the_network(host, checkout, tmp_path, boxes_by_hand):
    """Two objects in a video give what each gives alone on RGB frames; one network serves both and later runs."""
    write_sequence(tmp_path, "Video", FRAMES, BOX)
    tracker = host.tracker.Tracker("ebmtrack", "tiny")
    tracker.run_video_generic(str(tmp_path / "otb/Video/img/%04d.png"), [list(BOX), list(OTHER_BOX)], save_results=True)
    for key, box in enumerate((BOX, OTHER_BOX), 1):
        stored = np.loadtxt(f"{tracker.results_dir}/video_%04d_{key}.txt", delimiter="\t")
        assert np.array_equal(stored, boxes_by_hand(box).astype(int))
        assert tracker.drawn[key] == 4
    first, second = tracker.wrapper.trackers.values()
    assert isinstance(first.tracker.engine, TorchEngine) and first.tracker.engine is second.tracker.engine
    assert plugin.HostTracker(tracker.get_parameters()).tracker.engine is first.tracker.engine
    assert not tracker.get_parameters().frames_are_bgr


def test_a_video_that_the_host_converts_stays_as_it_is(host):
    """Should the host turn its frames to RGB one day, they are not turned a second time."""
    seen = []

    class Tracker:
        def __init__(self, name):
            self.name, self.tracker_class = name, plugin.HostTracker

        def get_parameters(self):
            return SimpleNamespace()

        def run_video(self):
            seen.append(self.get_parameters().frames_are_bgr)

        def run_webcam(self):
            seen.append(self.get_parameters().frames_are_bgr or "cv.COLOR_BGR2RGB")

    _hook.complete(SimpleNamespace(Tracker=Tracker))
    Tracker("ebmtrack").run_video()
    Tracker("ebmtrack").run_webcam()
    assert seen == [True, "cv.COLOR_BGR2RGB"]
    assert not hasattr(Tracker("other").get_parameters(), "frames_are_bgr")


@pytest.mark.parametrize("frame, what", [(1, "a box must be at least"), (3, "an image must be a numpy array")])
def test_errors_are_seen_although_the_host_hides_them(host, checkout, monkeypatch, capsys, frame, what):
    """One line on stderr with frame, kind, cause and place; the host's own single line stays, and it goes on."""
    deer = host.datasets.get_dataset("otb")[0]
    box = BOX if frame == 3 else (60.0, 40.0, 0.0, 9.0)
    what = what if frame == 3 else "must be at least one pixel"
    broken = host.datasets.Sequence("Broken", [*deer.frames[:2], "no file"] if frame == 3 else deer.frames, [box] * 4)
    monkeypatch.setattr(host.tracker.Tracker, "_read_image", lambda self, path: read_or_none(path))
    host.running.run_dataset([broken], [host.tracker.Tracker("ebmtrack", "tiny")])
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ebmtrack: error in frame {frame}: ConfigError: ") and captured.err.count("\n") == 1
    assert what in captured.err and "tracker.py, line " in captured.err and what in captured.out
    assert not (checkout / "results/ebmtrack/tiny/Broken.txt").exists()


def read_or_none(path):
    """RGB, or None as OpenCV gives for a file that is not there."""
    import cv2

    frame = cv2.imread(path) if os.path.exists(path) else None
    return None if frame is None else frame[:, :, ::-1]


def test_missing_weights_name_the_places_that_were_searched(host, checkout, capsys):
    params = plugin.parameters_of("dimp50_nce_plus", weights="nowhere")
    with pytest.raises(CheckpointError, match="network_path"):
        plugin.HostTracker(params)
    error = capsys.readouterr().err
    assert error.startswith("ebmtrack: error when the tracker was made: CheckpointError: no weights 'nowhere'")
    assert str(checkout / "networks") in error


def test_weights_of_another_kind_are_refused(host, capsys):
    with pytest.raises(ConfigError, match="another kind of classifier"):
        plugin.HostTracker(plugin.parameters_of("prdimp18", weights="random", device="cpu"))


def test_the_classifier_is_the_set_ups(host, checkout):
    """An ATOM set-up is tracked by ATOM's classifier, as the library does; the same file serves DiMP's beside it."""
    atom = plugin.parameters_of("atom_energy", "cpu", weights="random", sample_size=144, not_found_threshold=-10.0)
    ours = plugin.HostTracker(atom)
    assert type(ours.tracker.engine) is AtomEngine
    ours.initialize(FRAMES[0], {"init_bbox": BOX})
    library = Tracker.from_pretrained(plugin._tracker_params(atom), checkout / "networks/random.safetensors", "cpu")
    library.init(FRAMES[0], BOX)
    assert ours.track(FRAMES[1])["target_bbox"] == list(library.update(FRAMES[1]).box_xywh)
    dimp = plugin.HostTracker(plugin.parameters_of("dimp18_nce_plus", "cpu", weights="random"))
    assert type(dimp.tracker.engine) is TorchEngine


def test_other_search_regions_than_in_training_are_warned_of(host, checkout):
    """As the library warns; the set-up that the network was trained for gives no warning, which would be an error."""
    path = checkout / "networks/settled.safetensors"
    save_checkpoint(path, dimp18(), run={}, settings={"sample_size": 288, "search_factor": 5.0}, dtype=torch.float16)
    plugin.HostTracker(plugin.parameters_of("dimp18_nce_plus", "cpu", weights="settled"))
    with pytest.warns(UserWarning, match="searches regions of 144 pixels at 3 .*trained on 288 pixels at 5"):
        other = {"sample_size": 144, "search_factor": 3.0}
        plugin.HostTracker(plugin.parameters_of("dimp18_nce_plus", "cpu", weights="settled", **other))


def test_mirrored_regions_are_the_set_ups(host, checkout):
    save_checkpoint(checkout / "networks/mirrored.safetensors", dimp18(), run={}, dtype=torch.float16)
    for mirrored in (True, False):
        params = plugin.parameters_of("dimp18_nce_plus", "cpu", weights="mirrored", mirrored=mirrored)
        assert isinstance(plugin.HostTracker(params).tracker.engine, MirroredEngine) == mirrored


def test_hosts_own_networks_are_found_and_read(host, checkout):
    """dimp18.pth in network_path, as pytracking stores it, is the network of the set-up dimp18."""
    from ebmtrack.checkpoints.pytracking import export_pytracking

    path = checkout / "networks/dimp18.pth"
    export_pytracking(path, dimp18())
    assert plugin.find_weights("dimp18") == path
    net = plugin.HostTracker(plugin.parameters_of("dimp18", device="cpu")).tracker.engine.net
    assert net.config.filter_optimizer == "dimp"


class Screen:
    """Takes what is registered with visdom."""

    def __init__(self):
        self.shown = []

    def register(self, data, mode, debug_level, title):
        self.shown.append((mode, title, data))

    def __deepcopy__(self, memo):
        raise TypeError("a connection cannot be copied")


def test_visdom(host):
    """A copy for another object shares the screen; boxes come alone, in a list or in a dict."""
    ours = plugin.HostTracker(host.tracker.Tracker("ebmtrack", "tiny").get_parameters())
    ours.visdom = Screen()
    twin = copy.deepcopy(ours)
    twin.initialize(FRAMES[0], {"init_bbox": BOX})
    twin.track(FRAMES[1])
    for boxes in (list(BOX), [list(BOX)], {1: list(BOX)}):
        twin.visdom_draw_tracking(FRAMES[1], boxes, None)
    shown = ours.visdom.shown
    assert [mode for mode, _, _ in shown] == ["heatmap", "info_dict", "Tracking", "Tracking", "Tracking"]
    assert shown[0][2].shape == (10, 10) and shown[1][2]["verdict"] in ("normal", "hard_negative", "uncertain")
    assert all(data[1:] == (list(BOX),) for _, _, data in shown[2:])


def test_training(host, checkout, monkeypatch):
    """The host's runner hands over its folders; the common folder of its data sets is where the data are."""
    from ebmtrack.training import command

    asked = []
    monkeypatch.setattr(command, "train_named", lambda name, settings: asked.append((name, settings)))
    runner = importlib.import_module("ltr.run_training")
    runner.run_training("ebmtrack", "ebm18_small")
    ((name, settings),) = asked
    assert name == "ebm18_small" and settings.data == checkout / "data"
    assert settings.out == checkout / "workspace/checkpoints/ltr/ebmtrack/ebm18_small"


def test_training_takes_the_folders_of_the_host(host, checkout, tmp_path, monkeypatch, capsys):
    """The four folders and a backbone file of local.py reach the run and are said; own variables count more."""
    from ebmtrack.training import command

    asked = []
    monkeypatch.setattr(command, "train_named", lambda name, settings: asked.append(settings))
    for name in ("LASOT", "GOT10K", "TRACKINGNET", "COCO"):
        monkeypatch.delenv(f"EBMTRACK_{name}", raising=False)
    folders = {name: tmp_path / "host" / name for name in ("lasot", "got10k", "coco", "networks")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["networks"] / "resnet18-f37072fd.pth").touch()
    (folders["networks"] / "resnet50-0676ba61.pth").touch()
    monkeypatch.setenv("EBMTRACK_COCO", str(tmp_path))
    env = SimpleNamespace(
        workspace_dir=str(checkout),
        lasot_dir=str(folders["lasot"]),
        got10k_dir=str(folders["got10k"]),
        coco_dir=str(folders["coco"]),
        trackingnet_dir=str(tmp_path / "is not there"),
        pretrained_networks=str(folders["networks"]),
    )
    plugin.train("dimp50_nce_plus", SimpleNamespace(env=env, use_gpu=False))
    shown = capsys.readouterr().out
    assert os.environ["EBMTRACK_LASOT"] == str(folders["lasot"]) and f"lasot from {folders['lasot']}" in shown
    assert os.environ["EBMTRACK_GOT10K"] == str(folders["got10k"])
    assert os.environ["EBMTRACK_COCO"] == str(tmp_path) and "EBMTRACK_TRACKINGNET" not in os.environ
    assert asked[0].backbone == str(folders["networks"] / "resnet50-0676ba61.pth") and "backbone from" in shown


def test_runs_of_a_data_set_have_seeds_of_their_own(host, checkout, boxes_by_hand):
    """Runs 0 and 1 of a data set equal trackers with the seeds 0 and 1; the host sets no run_id there itself."""
    deer = host.datasets.get_dataset("otb")[0]
    runs = [host.tracker.Tracker("ebmtrack", "tiny", run).run_sequence(deer)["target_bbox"] for run in (0, 1)]
    for run, boxes in enumerate(runs):
        assert np.allclose(boxes, boxes_by_hand(BOX, seed=run))
    assert not np.allclose(*runs)


def test_training_without_data_says_where_to_name_it(host, checkout):
    env = SimpleNamespace(workspace_dir=str(checkout), got10k_dir="")
    with pytest.raises(ConfigError, match="ebmtrack_dir"):
        plugin.train("ebm18_small", SimpleNamespace(env=env))


def test_unknown_training_run(host):
    with pytest.raises(ConfigError, match="did you mean 'ebm18_small'"):
        importlib.import_module("ltr.run_training").run_training("ebmtrack", "ebm18_smal")


def test_a_pickled_tracker_brings_the_hook(host):
    """Whoever unpickles it loads the hook first; a tracker of the host's own is pickled as ever."""
    ours, other = host.tracker.Tracker("ebmtrack", "tiny", 3), host.tracker.Tracker("other", "default")
    assert vars(pickle.loads(pickle.dumps(ours))) == vars(copy.deepcopy(ours)) == vars(ours)
    assert vars(pickle.loads(pickle.dumps(other))) == vars(other)
    assert pickle.dumps(ours).index(b"ebmtrack.plugins.hook") < pickle.dumps(ours).index(b"pytracking.evaluation")
    assert b"ebmtrack.plugins.hook" not in pickle.dumps(other)


def test_the_hook_is_light():
    """Neither torch nor numpy nor inspect, and nothing printed where pytracking is absent."""
    code = (
        "import sys; before = set(sys.modules); import ebmtrack.plugins.hook;"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('ebmtrack')));"
        "import importlib.util as u; print(u.find_spec('json').name)"
    )
    done = run(sys.executable, "-S", "-c", code, env={"PYTHONPATH": str(OURS.parent)})
    assert done.stdout == "['__future__']\njson\n" and done.stderr == ""


def test_enable_status_disable(python):
    """Each can be repeated; a fresh interpreter has the hook exactly while it is enabled."""
    loaded = ("-c", "import sys; print('ebmtrack.plugins.hook' in sys.modules, 'torch' in sys.modules)")
    assert "not enabled" in call(python, "status()").stdout
    path = Path(call(python, "enable()").stdout.strip())
    assert path.name == setup.FILE and call(python, "enable()").stdout.strip() == str(path)
    assert run(python, *loaded).stdout == "True False\n"
    assert f"by {path}" in call(python, "status()").stdout
    assert str(path) in call(python, "disable()").stdout and call(python, "disable()").stdout == "[]\n"
    assert run(python, *loaded).stdout == "False False\n" and not path.exists()


def test_a_line_left_behind_by_an_uninstall_is_silent(tmp_path):
    """Without ebmtrack it does nothing; with one that is broken it speaks."""
    code = f"exec({setup.LINE!r}); print('on it goes')"
    (tmp_path / "empty").mkdir()
    done = run(sys.executable, "-S", "-c", code, cwd=tmp_path / "empty", env={"PYTHONPATH": ""})
    assert done.stdout == "on it goes\n" and done.stderr == ""
    (tmp_path / "ebmtrack").mkdir()
    (tmp_path / "ebmtrack/__init__.py").write_text("import no_such_thing\n")
    done = run(sys.executable, "-S", "-c", code, cwd=tmp_path, env={"PYTHONPATH": ""})
    assert "No module named 'no_such_thing'" in done.stderr


def test_enable_where_it_cannot_be(monkeypatch, tmp_path):
    """Not installed; not writable (a file in the folder's place); .pth files not read there, which leaves none."""
    monkeypatch.setattr(setup, "site_folders", lambda: [tmp_path])
    with pytest.raises(ConfigError, match="is not installed"):
        setup.enable()
    monkeypatch.setattr(setup, "install_folder", lambda: tmp_path / "file")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write .* as the owner .*plugins.launch"):
        setup.enable()
    monkeypatch.setattr(setup, "install_folder", lambda: tmp_path)
    monkeypatch.setattr(setup, "_active", lambda: False)
    with pytest.raises(ConfigError, match="does not run .pth files"):
        setup.enable()
    assert not (tmp_path / setup.FILE).exists()


def test_workers_find_it_by_the_pth_file(python, checkout, boxes_by_hand):
    """The host's own command, two spawned workers, nothing but the .pth file (one sequence, to save time)."""
    assert call(python, "enable()").returncode == 0
    command = ("run_tracker.py", "ebmtrack", "tiny", "--runid", "7", "--sequence", "Deer", "--threads", "2")
    done = run(python, *command, cwd=checkout / "pytracking")
    assert done.returncode == 0 and done.stderr == ""
    stored = np.loadtxt(checkout / "results/ebmtrack/tiny_007/Deer.txt", delimiter="\t")
    assert np.array_equal(stored, boxes_by_hand(BOX, seed=7).astype(int))
    assert call(python, "disable()").returncode == 0


@pytest.mark.slow
def test_workers_find_it_by_the_launcher(checkout, boxes_by_hand):
    """No .pth file: the workers get the hook when they unpickle the host's Tracker."""
    command = ("pytracking/run_tracker.py", "ebmtrack", "tiny", "--runid", "8", "--threads", "2")
    done = run(*LAUNCH, *command, cwd=checkout, env={"PYTHONPATH": str(OURS.parent)})
    assert done.returncode == 0 and done.stderr == ""
    for name, box, order in (("Deer", BOX, 1), ("Fish", OTHER_BOX, -1)):
        stored = np.loadtxt(checkout / f"results/ebmtrack/tiny_008/{name}.txt", delimiter="\t")
        assert np.array_equal(stored, boxes_by_hand(box, seed=8, order=order).astype(int))


def test_a_launched_script_is_like_any_other(tmp_path):
    """Its arguments, its folder first on sys.path, its name, its exit code; and the hook. No script: code 2."""
    script = tmp_path / "it.py"
    shown = "sys.argv[1:], sys.path[0], __name__, 'ebmtrack.plugins.hook' in sys.modules"
    script.write_text(f"import sys; print({shown}); sys.exit(5)")
    done = run(*LAUNCH, script, "-x", "--debug", "1", env={"PYTHONPATH": str(OURS.parent)})
    assert done.stdout == f"['-x', '--debug', '1'] {tmp_path} __main__ True\n" and done.returncode == 5
    missing = run(*LAUNCH, tmp_path / "none.py", env={"PYTHONPATH": str(OURS.parent)})
    assert missing.returncode == 2 and missing.stderr.startswith("ebmtrack: error: no script")
    assert run(*LAUNCH, env={"PYTHONPATH": str(OURS.parent)}).returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the processor time of one child is asked for as POSIX has it")
def test_start_of_python_costs_less_than_3_ms_more(python, tmp_path):
    """Processor time, which other programs lengthen little: median over 40 pairs of runs, with and without.

    Compiled files are kept, as pip makes them when it installs; the first pair writes them.
    """
    path = Path(call(python, "enable()").stdout.strip())
    spare = path.with_suffix(".spare")
    differences = []
    for _ in range(40):
        with_hook = start_up_s(python, tmp_path)
        path.rename(spare)
        differences.append(with_hook - start_up_s(python, tmp_path))
        spare.rename(path)
    call(python, "disable()")
    print(f"median {1000 * np.median(differences):.2f} ms")
    assert np.median(differences) < 3e-3


def start_up_s(python, compiled) -> float:
    """Processor time of an empty program; compiled files are kept in a folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    process = subprocess.Popen([str(python), "-c", "pass"], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def test_the_verb(monkeypatch, capsys, tmp_path):
    """Each action says what it did; nothing is written but where ebmtrack is installed."""
    monkeypatch.setattr(setup, "site_folders", lambda: [tmp_path])
    monkeypatch.setattr(setup, "install_folder", lambda: tmp_path)
    monkeypatch.setattr(setup, "_active", lambda: (tmp_path / setup.FILE).exists())
    for action, said in (
        ("disable", "it was not enabled"),
        ("status", "not enabled for"),
        ("enable", f"enabled by {tmp_path / setup.FILE}"),
        ("status", f"by {tmp_path / setup.FILE}"),
        ("disable", f"removed {tmp_path / setup.FILE}"),
    ):
        assert cli.main(["pytracking", action]) == 0
        assert said in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
