"""The runner: the same results however it is run, killed and resumed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ebmtrack.device import pick_devices
from ebmtrack.errors import CheckpointError, ConfigError, DatasetError, ResultError
from ebmtrack.evaluation import evaluate, jobs, locks, runner, worker
from ebmtrack.evaluation.foreign import find_results
from ebmtrack.evaluation.results import read_result
from ebmtrack.files import as_json
from ebmtrack.tracking.params import load_params
from tests.support.evaluation_stub import StubFactory, make_sequences


def run(root: Path, out: Path, workers: int = 0, **changes: Any) -> tuple[evaluate.Evaluation, str]:
    """Evaluate the stub on `root`, and what was printed."""
    stream, factory = io.StringIO(), changes.pop("factory", StubFactory())
    evaluation = evaluate.evaluate(
        ["stub"],
        "folder",
        root,
        workers=workers,
        device=changes.pop("device", "cpu"),
        out=out,
        factory=factory,
        stream=stream,
        **changes,
    )
    return evaluation, stream.getvalue()


def contents(out: Path) -> dict[str, bytes]:
    """Every result file by name; times differ between runs by nature."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and not p.name.endswith(("_time.txt", "_stages.txt")))
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short sequences."""
    return make_sequences(tmp_path_factory.mktemp("sequences"))


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two runs, uninterrupted, in one process."""
    out = tmp_path_factory.mktemp("reference")
    assert run(root, out, runs=2)[0].complete
    return contents(out)


def test_results_do_not_depend_on_the_number_of_workers(root: Path, tmp_path: Path, reference: dict) -> None:
    """Three processes write byte for byte what one does, and leave no claims or temporary files."""
    evaluation, text = run(root, tmp_path, workers=3, runs=2)
    assert contents(tmp_path) == reference
    assert evaluation.complete and evaluation.exit_code == 0
    assert "[8/8]" in text and "frames/s" in text and "AUC over 2 runs" in text


def test_seeds_differ_between_runs_and_sequences(root: Path, tmp_path: Path) -> None:
    """Each (run, sequence) has a seed of its own; the base seed changes all of them."""
    seeds = {jobs.seed_of(b, r, s) for b in (0, 1) for r in (0, 1) for s in ("seq0", "seq1")}
    assert len(seeds) == 8
    run(root, tmp_path, runs=2, sequences=["seq0"])
    first, second = (read_result(tmp_path / "folder" / f"stub_00{r}", "seq0") for r in (0, 1))
    assert (first.boxes_xywh[1:, :2] != second.boxes_xywh[1:, :2]).all()


def test_resuming_runs_only_what_is_missing(root: Path, tmp_path: Path, reference: dict) -> None:
    """Without a marker, or with boxes that do not fit it, a sequence is run again; everything else is
    kept."""
    log = tmp_path / "log"
    factory = StubFactory(log=str(log))
    run(root, tmp_path / "out", runs=2, factory=factory)
    assert len(log.read_text().splitlines()) == 8
    folder = tmp_path / "out" / "folder" / "stub_001"
    (folder / "seq1.json").unlink()
    (folder / "seq2.txt").write_text("1\t2\t3\t4\n")
    (folder / "seq3.json").write_text("{half a mark")
    (folder / ".seq1-abcd1234.txt").write_text("a writer was killed here")
    run(root, tmp_path / "out", runs=2, factory=factory)
    assert len(log.read_text().splitlines()) == 8 + 3
    assert contents(tmp_path / "out") == reference


def test_progress_counts_what_was_done_before(root: Path, tmp_path: Path) -> None:
    """Six of eight are done: the seventh is called 7/8."""
    run(root, tmp_path, runs=2)
    for name in ("seq1", "seq2"):
        (tmp_path / "folder" / "stub_001" / f"{name}.json").unlink()
    text = run(root, tmp_path, runs=2)[1]
    assert "6 of 8 are done already\n[7/8] stub run 1 seq1" in text and "[8/8]" in text
    assert re.search(r"frames/s \(\d+ s left\)\n", text)
    assert "done already" not in run(root, tmp_path, runs=2)[1]


def test_results_of_something_else_are_not_mixed(root: Path, tmp_path: Path) -> None:
    """Other weights or another seed on the same folder are refused, unless the results may be overwritten."""
    run(root, tmp_path)
    for changes, words in (({"factory": StubFactory(weights="new")}, "weights;"), ({"seed": 1}, r"seed \(0, now 1\);")):
        with pytest.raises(ResultError, match=f"made with other {words}"):
            run(root, tmp_path, **changes)
    run(root, tmp_path, seed=1, overwrite=True)
    assert read_result(tmp_path / "folder" / "stub_000", "seq0").made_by["seed"] == 1


@pytest.mark.parametrize("old, new, words", [
    ({"interval_samples": 0}, {"interval_samples": 32}, "made without --intervals; choose another folder"),
    ({}, {"interval_samples": 32}, "made without --intervals; "),
    ({"interval_samples": 32}, {"interval_samples": 0}, "made with --intervals; "),
    ({"interval_samples": 32}, {"interval_samples": 16}, r"other params \(interval_samples 32, now 16\); "),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, r"made with other params \(b 2, now 3; c unknown, now 4\); "),
    (dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 2), r"\(a 1, now 2; b 1, now 2; c 1, now 2; 2 more\)"),
])  # fmt: skip
def test_what_differs_from_old_results_is_told(old: dict, new: dict, words: str, root: Path, tmp_path: Path) -> None:
    """A set-up has the same name with and without --intervals."""
    run(root, tmp_path, factory=StubFactory(parameters=tuple(old.items())))
    with pytest.raises(ResultError, match=words):
        run(root, tmp_path, factory=StubFactory(parameters=tuple(new.items())))


@pytest.mark.parametrize("set_up, frames", [("dimp18_nce_plus_paper", 0), ("dimp18_nce_plus", 20)])
def test_results_from_before_a_parameter_are_those_of_its_default(
    set_up: str, frames: int, root: Path, tmp_path: Path
) -> None:
    """They are taken where the set-up behaves as before, and refused with the difference where it does not."""
    new = as_json(load_params(set_up))
    old = {name: value for name, value in new.items() if name not in ("doubtful_frames", "shift_fracs")}
    run(root, tmp_path, factory=StubFactory(parameters=tuple(old.items())))
    again = StubFactory(parameters=tuple(new.items()))
    if frames == 0:
        assert "/4] stub" not in run(root, tmp_path, factory=again)[1]  # nothing is run again
        return
    with pytest.raises(ResultError, match=rf"made with other params \(doubtful_frames 0, now {frames}\); choose"):
        run(root, tmp_path, factory=again)


def test_results_of_two_engines_are_not_mixed(root: Path, tmp_path: Path) -> None:
    """Neither are those from before engines were written down."""
    run(root, tmp_path / "unknown")
    run(root, tmp_path / "torch", factory=StubFactory(engine="torch", weights="torch's file"))
    for engine in ("unknown", "torch"):
        with pytest.raises(ResultError, match=rf"made with other engine \({engine}, now onnx\); choose another folder"):
            run(root, tmp_path / engine, factory=StubFactory(engine="onnx", weights="exported"))
    again = run(root, tmp_path / "torch", factory=StubFactory(engine="torch", weights="torch's file"))
    assert "[" not in again[1]  # nothing is run again


def test_results_of_other_machines_have_the_engine_of_their_devices(root: Path, tmp_path: Path) -> None:
    """A cluster's jobs may have GPUs, which the machine that waits for them has not; on CPUs it knows the engine."""
    there, here = StubFactory(engine="torch", precision="bfloat16", weights="a"), StubFactory(engine="onnx")

    def compute(left: Any) -> list[str]:
        run(root, tmp_path, factory=there)
        return []

    for _ in range(2):
        assert run(root, tmp_path, factory=here, elsewhere=compute, device="auto")[0].complete
    with pytest.raises(ResultError, match=r"made with other engine \(torch, now onnx\)"):
        run(root, tmp_path, factory=here, elsewhere=compute, device="cpu")


def test_a_job_that_ended_early_is_not_said_to_have_failed_as_before(root: Path, tmp_path: Path) -> None:
    """Reports of an earlier command say nothing about this one."""
    run(root, tmp_path, factory=StubFactory(trouble="raise", trouble_width=41))
    for report in tmp_path.rglob("*.error"):
        os.utime(report, (0, 0))
    found = run(root, tmp_path, elsewhere=lambda left: ["out of time"], factory=StubFactory())[0]
    assert found.failed and set(found.failed.values()) == {"not computed: out of time"}


def test_results_of_two_precisions_are_not_mixed(root: Path, tmp_path: Path) -> None:
    """Nor are those of "auto", which was written down before it was what it meant."""
    for precision in ("auto", "bfloat16"):
        run(root, tmp_path / precision, factory=StubFactory(engine="torch", precision=precision))
        with pytest.raises(ResultError, match=rf"made with other precision \({precision}, now float32\)"):
            run(root, tmp_path / precision, factory=StubFactory(engine="torch", precision="float32"))


def test_nothing_old_is_left_where_overwriting_fails(root: Path, tmp_path: Path) -> None:
    """New weights fail at one of four sequences: neither boxes nor side files of the old ones pass for the new."""
    run(root, tmp_path, factory=StubFactory(weights="old"))
    factory = StubFactory(weights="new", trouble="raise", trouble_width=41)
    assert [t.sequence for t in run(root, tmp_path, factory=factory, overwrite=True)[0].failed] == ["seq1"]
    assert [p.name for p in (tmp_path / "folder" / "stub_000").glob("seq1*")] == ["seq1.error"]
    found = find_results(tmp_path / "folder" / "stub")
    assert set(found.files) == {"seq0", "seq2", "seq3"}
    assert {found.read(name).made_by["weights"] for name in found.files} == {"new"}


def test_overwriting_is_refused_beside_another_runner(root: Path, tmp_path: Path) -> None:
    """A runner that overwrites and comes while another is at work says so, and takes nothing from it."""
    refused = []

    def second(task: jobs.Task, score: float) -> None:
        with pytest.raises(ConfigError, match="another runner is at work"):
            run(root, tmp_path, overwrite=True)
        refused.append(task.sequence)

    assert run(root, tmp_path, on_score=second)[0].complete and len(refused) == 4
    assert not list((tmp_path / "folder" / "stub_000" / ".claims").iterdir())
    assert run(root, tmp_path, overwrite=True)[0].complete  # the first has ended


@pytest.mark.parametrize("trouble, text", [("raise", "the stub was told to fail"), ("nan", "which is no box")])
def test_a_sequence_that_fails(root: Path, tmp_path: Path, trouble: str, text: str) -> None:
    """The rest is run, the reason is reported (of a bug the traceback), the mean is marked partial, and a later
    start tries again."""
    evaluation, printed = run(root, tmp_path, factory=StubFactory(trouble=trouble, trouble_width=41))
    assert [task.sequence for task in evaluation.failed] == ["seq1"]
    assert evaluation.exit_code == 1 and not evaluation.complete
    assert text in printed and ("Traceback" in printed) == (trouble == "raise") and "mean PARTIAL" in printed
    assert (tmp_path / "folder" / "stub_000" / "seq1.error").is_file()
    evaluation, printed = run(root, tmp_path)
    assert evaluation.complete and "PARTIAL" not in printed
    assert not (tmp_path / "folder" / "stub_000" / "seq1.error").exists()


def test_a_malformed_annotation_is_one_failure(tmp_path: Path) -> None:
    """The other sequences are run and scored; the report says which file and line."""
    root = make_sequences(tmp_path / "data", 3)
    (root / "seq1" / "groundtruth_rect.txt").write_text("1,2,3\n")
    evaluation, printed = run(root, tmp_path / "out")
    assert evaluation.exit_code == 1 and set(evaluation.scores["stub"][0]) == {"seq0", "seq2"}
    assert "groundtruth_rect.txt, line 1: 3 numbers" in printed and "mean PARTIAL" in printed


def test_annotations_that_a_protocol_cannot_use(tmp_path: Path) -> None:
    """NaN under `pytracking` is refused with the annotation's name before anything is tracked."""
    root, log = make_sequences(tmp_path / "data", 2), tmp_path / "log"
    path = root / "seq1" / "groundtruth_rect.txt"
    path.write_text(path.read_text().replace("7,6,10,12", "nan,nan,nan,nan"))
    with pytest.raises(DatasetError, match=r"seq1/groundtruth_rect\.txt, frame 2 \(from 0\): .*--protocol ope"):
        run(root, tmp_path / "out", protocol="pytracking", factory=StubFactory(log=str(log)))
    assert not log.exists() and not (tmp_path / "out").exists()
    assert run(root, tmp_path / "out", protocol="ope")[0].complete


def test_a_tracker_that_failed_is_made_anew(root: Path, tmp_path: Path) -> None:
    """Its state is unknown after an exception: the next sequence gets another tracker, and results are the same."""

    class Counting(StubFactory):
        made = 0

        def __call__(self, params: str, device: str) -> Any:
            Counting.made += 1
            return super().__call__(params, device)

    evaluation, _ = run(root, tmp_path, factory=Counting(trouble="raise", trouble_width=41))
    assert [task.sequence for task in evaluation.failed] == ["seq1"] and Counting.made == 2


def test_other_sequences_of_the_same_names(root: Path, tmp_path: Path) -> None:
    """Results of `car` in one folder of sequences are not taken for those of `car` in another."""
    run(root, tmp_path / "out")
    shutil.copytree(root / "seq0", tmp_path / "moved" / "seq0")
    path = tmp_path / "moved" / "seq0" / "groundtruth_rect.txt"
    path.write_text(path.read_text().replace("5,6,", "5.5,6,", 1))
    longer = make_sequences(tmp_path / "longer", 1, frames=7)
    for other in (tmp_path / "moved", longer):
        with pytest.raises(ResultError, match="seq0.txt: made from another sequence of that name"):
            run(other, tmp_path / "out")
    assert run(longer, tmp_path / "out", overwrite=True)[0].complete
    with pytest.raises(ResultError, match="seq0.txt: made from another sequence of that name"):
        run(root, tmp_path / "out")


def test_a_worker_that_dies(root: Path, tmp_path: Path) -> None:
    """A sequence that kills its worker three times is given up and reported; the others are computed."""
    evaluation, printed = run(root, tmp_path, 2, factory=StubFactory(trouble="die", trouble_width=42))
    assert [task.sequence for task in evaluation.failed] == ["seq2"]
    assert "killed by signal 9" in printed
    assert sum(len(r) for r in evaluation.scores["stub"]) == 3


@pytest.mark.parametrize("other", ["b/mine.py", "mine"])
def test_set_ups_of_one_name_are_refused(root: Path, tmp_path: Path, other: str) -> None:
    """Their results would be in one folder, and those of the second in the way of the first."""
    with pytest.raises(ConfigError, match=rf"a/mine\.py and {other}: results of both are called mine"):
        evaluate.evaluate(["a/mine.py", other], "folder", root, device="cpu", out=tmp_path, factory=StubFactory())
    assert not list(tmp_path.iterdir())


def test_missing_images_name_the_folder(root: Path, tmp_path: Path) -> None:
    """A sequence with fewer frames than boxes fails with both counts; the others are run."""
    broken = make_sequences(tmp_path / "data", 2)
    (broken / "seq1" / "img" / "0006.jpg").unlink()
    evaluation, printed = run(broken, tmp_path / "out")
    assert evaluation.exit_code == 1
    assert "5 frames, but 6 annotated boxes for 'seq1'" in printed


def test_arguments_that_make_no_sense(root: Path, tmp_path: Path) -> None:
    """Each is refused with the class of error that says whose fault it is."""
    for name, count, least in (("runs", 0, 1), ("batch", 0, 1), ("threads", -2, 1)):
        with pytest.raises(ConfigError, match=f"^--{name} {count}: give a number from {least} up$"):
            run(root, tmp_path, **{name: count})
    with pytest.raises(ConfigError, match="^--workers -1: give a number from 0 up$"):
        run(root, tmp_path, workers=-1)
    with pytest.raises(DatasetError, match="no sequence 'seq9'"):
        run(root, tmp_path, sequences=["seq9"])
    with pytest.raises(ConfigError, match="unknown data set"):
        evaluate.evaluate(["stub"], "imagenet", root, out=tmp_path, factory=StubFactory())
    with pytest.raises(ConfigError, match="unknown tracker set-up 'nothing'"):
        evaluate.evaluate(["nothing"], "folder", root, out=tmp_path, device="cpu")
    (tmp_path / "a file").touch()
    with pytest.raises(ConfigError, match="a file: results cannot be written there"):
        run(root, tmp_path / "a file")
    with pytest.raises(DatasetError, match="no folders"):
        run(tmp_path, tmp_path / "out")


def test_the_marker_says_what_made_the_result(root: Path, tmp_path: Path) -> None:
    """Parameters, weights, seed, versions and device stand in it; nothing that changes from run to run."""
    run(root, tmp_path, sequences=["seq0"])
    marker = json.loads((tmp_path / "folder" / "stub_000" / "seq0.json").read_text())
    assert set(marker) == {"frames", "made_by", "sha256"}
    keys = {"params", "weights", "seed", "ebmtrack", "python", "numpy", "opencv", "device", "threads"}
    assert set(marker["made_by"]) - {"torch", "onnxruntime", "openvino"} == keys


def test_deaths_between_sequences_do_not_count(tmp_path: Path) -> None:
    """A worker that began something and was killed later has done its part; three that never began are an error."""
    notes: list[tuple] = []
    nothing: Any = SimpleNamespace(exitcode=-9)
    crew = runner._Crew(nothing, notes.append)
    dead = runner._Worker(nothing, nothing, "cpu", began=True)
    for _ in range(5):
        crew.count_death(dead)
    assert notes == [("died", None, "was killed by signal 9")] * 5
    dead.began = False
    with pytest.raises(ResultError, match="before their first sequence"):
        for _ in range(3):
            crew.count_death(dead)


def test_times_cover_every_frame(root: Path, tmp_path: Path) -> None:
    """One time and one score per frame; five updates of 10 ms or more, of which frames/s and the stages tell."""
    run(root, tmp_path, sequences=["seq0"], factory=StubFactory(frame_s=0.01))
    result = read_result(tmp_path / "folder" / "stub_000", "seq0")
    assert len(result.times_s) == len(result.scores) == len(result.boxes_xywh) == 6
    later_s = result.times_s[1:].sum()
    assert result.frames_per_s == pytest.approx(5 / later_s) and result.frames_per_s <= 100
    assert 0.05 <= result.stages_s["walk"] <= later_s + 1e-5  # written to microseconds
    np.testing.assert_array_equal(result.boxes_xywh[0], [5, 6, 10, 12])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are taken as given; `cuda` means all GPUs, or under torchrun the one of this process."""
    torch = pytest.importorskip("torch")
    assert pick_devices("cuda:0, cuda:2") == ("cuda:0", "cuda:2") and pick_devices("openvino") == ("openvino",)
    for name in ("tpu", "cuda:", "cpu,", ""):
        with pytest.raises(ConfigError, match="unknown device"):
            pick_devices(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert pick_devices("auto") == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert pick_devices("cuda") == ("cuda:2",)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_devices("auto") == ("cpu",)
    with pytest.raises(ConfigError, match="has no device 'cuda'"):
        pick_devices("cuda")


def test_what_killed_processes_left_is_removed(root: Path, tmp_path: Path, reference: dict) -> None:
    """Locks that nobody holds and errors beside good results go; locks of the living stay."""
    run(root, tmp_path, runs=2)
    folder = tmp_path / "folder" / "stub_001"
    (folder / ".claims" / "seq1.lock").touch()
    (folder / ".claims" / "runner-0123.lock").touch()
    (folder / "seq2.error").write_text("Traceback of an attempt before the one that succeeded")
    living = locks.claim(folder, "seq3")
    assert living is not None
    assert run(root, tmp_path, runs=2)[0].complete
    assert [p.name for p in (folder / ".claims").iterdir()] == ["seq3.lock"]
    living.release()
    assert run(root, tmp_path, runs=2, overwrite=True)[0].complete
    assert contents(tmp_path) == reference


def test_a_task_that_another_process_did_meanwhile(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the disk and the claim another runner finishes the sequence: it is not computed again."""
    run(root, tmp_path / "done")
    log, moved = tmp_path / "log", []

    def claim(folder: Path, name: str):
        if not name.startswith("runner") and name not in moved:
            for path in (tmp_path / "done" / "folder" / "stub_000").glob(f"{name}*"):
                shutil.copy(path, folder)
            moved.append(name)
        return claim_for_real(folder, name)

    claim_for_real = locks.claim
    monkeypatch.setattr(locks, "claim", claim)
    assert run(root, tmp_path / "out", factory=StubFactory(log=str(log)))[0].complete
    assert len(moved) == 4 and not log.exists()


def test_a_report_being_written_is_no_leftover(tmp_path: Path) -> None:
    """A worker that claims a sequence clears what killed writers of results left, but not a report of a failure, which
    a parent writes without a claim."""
    for name in (".seq2-reportss.error", ".seq2-resultss.txt", ".seq2_time-timesssss.txt", ".seq2-markerrr.json"):
        (tmp_path / name).write_text("half")
    worker._remove_leftovers(tmp_path, "seq2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".seq2-reportss.error", ".seq2_time-timesssss.txt"]


def test_versions_are_those_of_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV may be installed as opencv-python-headless, and torch not at all."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert evaluate.versions("cpu", 1)["opencv"] == cv2.__version__ and "torch" not in evaluate.versions("cpu", 1)


def test_defaults_keep_to_the_allowed_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 64 cores are allowed: two workers on the CPU, two threads beside a GPU; without limits all count."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 7}, raising=False)
    assert evaluate._default_workers(("cpu",)) == 2
    assert evaluate._default_threads(("cuda:0",), 1) == 2 and evaluate._default_threads(("cuda:0",), 8) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert evaluate._default_workers(("cpu",)) == 64 and evaluate._default_threads(("cuda:0",), 8) == 8


@pytest.mark.parametrize("engine, kind", [("torch", "TorchEngine"), ("onnx", "OnnxEngine")])
def test_the_engine_that_is_asked_for_runs_and_is_written_down(engine: str, kind: str) -> None:
    pytest.importorskip("torch")
    factory = evaluate.ParamsFactory(engine=engine)
    assert factory.describe("dimp18_nce_plus")["engine"] == engine
    tracker: Any = factory("dimp18_nce_plus", "cpu")
    assert type(tracker.engine).__name__ == kind


def test_a_network_that_ships_is_given_by_its_name(root: Path, tmp_path: Path) -> None:
    """As `track` takes it; a path is absolute."""
    job = evaluate._job(["lite_nce_plus"], "folder", root, _with_weights("ebm_lite"), ("cpu",), 1, None)
    assert job.factory == evaluate.ParamsFactory("ebm_lite", device="cpu")
    with pytest.raises(CheckpointError, match=f"^{Path('nowhere/x.safetensors').absolute()}: no such file"):
        evaluate._job(["lite_nce_plus"], "folder", root, _with_weights("nowhere/x.safetensors"), ("cpu",), 1, None)


def _with_weights(weights: str) -> evaluate.EvaluateOptions:
    return evaluate.EvaluateOptions(weights=weights, device="cpu")


def test_pictures_without_labels_are_left_out_with_a_line(tmp_path: Path) -> None:
    """Unless sequences are named."""
    root = make_sequences(tmp_path / "data", 2)
    (root / "seq1" / "groundtruth_rect.txt").rename(root / "seq1" / "groundtruth.csv")
    with pytest.warns(UserWarning, match=r"seq1: has pictures but no labels .*it is left out"):
        assert run(root, tmp_path / "out")[0].complete
    run(root, tmp_path / "out", sequences=["seq0"])  # a warning would be an error
