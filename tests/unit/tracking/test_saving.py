"""The state of a tracker in a file: it goes on in another process as if it had never stopped."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from ebmtrack.engines import load_engine
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from tests.support.golden import image

PARAMS = load_params("dimp18_nce_plus").replace(interval_samples=8, looks_around=0)
ATOM = PARAMS.replace(classifier="atom", initial_iterations=2)
BOX, OTHER = (90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0)
SAVED, COUNT = 22, 26  # frame 21 is learned from, frame 22 is saved

GO_ON = """
import sys
import numpy as np
from ebmtrack.tracking.tracker import Tracker
from tests.unit.tracking import test_saving as test

params = test.ATOM if sys.argv[2] == "atom" else test.PARAMS
tracker = Tracker.from_pretrained(params, device="cpu", engine="onnx" if sys.argv[2] == "onnx" else "torch")
tracker.load_state(sys.argv[1])
for number in range(test.SAVED, test.COUNT):
    result = tracker.update(test.frame(number))
    print(*result.box_xywh, result.score, *result.interval().ravel())
"""


def frame(number: int) -> np.ndarray:
    """Return a frame of a scene that moves."""
    return np.roll(image("walk", 200, 260), (number, 2 * number), (0, 1))


@pytest.fixture(scope="module")
def engines():
    return {name: load_engine(None, "cpu", engine=name) for name in ("torch", "onnx")}


def started(engine, params=PARAMS) -> Tracker:
    """Return a tracker after a few frames."""
    tracker = Tracker(engine, params)
    tracker.init(frame(0), BOX, seed=3)
    for number in range(1, 4):
        tracker.update(frame(number))
    return tracker


@pytest.mark.parametrize("name", ["torch", "onnx", "atom"])
def test_another_process_goes_on_to_the_bit(engines, tmp_path, name):
    params = ATOM if name == "atom" else PARAMS
    engine = load_engine(None, "cpu", classifier="atom") if name == "atom" else engines[name]
    tracker = Tracker(engine, params)
    tracker.init(frame(0), BOX, seed=3)
    for number in range(1, SAVED):
        tracker.update(frame(number))
    tracker.save_state(tmp_path / "state")
    expected = [tracker.update(frame(number)) for number in range(SAVED, COUNT)]
    program = [sys.executable, "-c", GO_ON, str(tmp_path / "state"), name]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [[*result.box_xywh, result.score, *result.interval().ravel()] for result in expected]
    assert [list(map(float, line.split())) for line in done.stdout.splitlines()] == lines


def test_inner_looks_and_several_targets_go_on_as_well(engines, tmp_path):
    several = MultiTracker(engines["onnx"], PARAMS)
    several.remove(several.add(frame(0), BOX))
    ids = [several.add(frame(0), box, seed) for seed, box in enumerate((BOX, OTHER))]
    for number in range(1, 4):
        several.update(frame(number))
    several.save_state(tmp_path / "state.npz")
    again = MultiTracker(engines["onnx"], PARAMS)
    again.load_state(tmp_path / "state.npz")
    assert again.targets == tuple(ids) and again.candidates(ids[0])[0].shape == (0, 4)
    for number in range(4, 8):
        assert again.update(frame(number)) == several.update(frame(number))
    assert again.add(frame(8), OTHER) == ids[-1] + 1  # an id is never used again


def test_another_engine_of_the_network_takes_over(engines, tmp_path):
    for first, second in (("torch", "onnx"), ("onnx", "torch")):
        tracker, other = started(engines[first]), Tracker(engines[second], PARAMS)
        tracker.save_state(tmp_path / "state")
        other.load_state(tmp_path / "state")
        found, expected = (np.array(one.update(frame(4)).box_xywh) for one in (other, tracker))
        assert np.abs(found - expected).max() < 3  # bfloat16 and float32


def rewritten(path, change) -> None:
    """Change the JSON and the arrays of a file in place."""
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays.pop("about")))
    change(about, arrays)
    with open(path, "wb") as out:
        np.savez(out, about=np.array(json.dumps(about)), **arrays)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda about, arrays: about.update(format_version=9), "format version 9"),
        (lambda about, arrays: about["params"].update(ascent_steps=3), "ascent_steps 3 instead of 10"),
        (lambda about, arrays: about.pop("next_id"), "no complete file"),
        (lambda about, arrays: arrays.pop("0/samples"), "no complete file"),
        (lambda about, arrays: arrays.update({"0/network": -arrays["0/network"]}), "saved with another network"),
        (lambda about, arrays: arrays.update({"0/random": arrays["0/random"][:5]}), "no complete file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(engines, tmp_path, change, message):
    tracker = started(engines["onnx"])
    tracker.save_state(tmp_path / "state.npz")
    rewritten(tmp_path / "state.npz", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        tracker.load_state(tmp_path / "state.npz")
    assert "state.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_states(engines, tmp_path):
    tracker = Tracker(engines["onnx"], PARAMS)
    with pytest.raises(ConfigError, match=r"save_state\(\) before init\(\)"):
        tracker.save_state(tmp_path / "state")
    with pytest.raises(ConfigError, match="add one first"):
        MultiTracker(engines["onnx"], PARAMS).save_state(tmp_path / "state")
    with pytest.raises(CheckpointError, match="no such file"):
        tracker.load_state(tmp_path / "state")
    (tmp_path / "text").write_text("no archive")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    whole = tmp_path / "whole"
    started(engines["onnx"]).save_state(whole)
    (tmp_path / "half").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for name in ("text", "one.npy", "other.npz", "half"):
        with pytest.raises(CheckpointError, match=r"is no file of save_state\(\)"):
            tracker.load_state(tmp_path / name)
    several = MultiTracker(engines["onnx"], PARAMS)
    for box in (BOX, OTHER):
        several.add(frame(0), box)
    several.save_state(whole)
    with pytest.raises(CheckpointError, match="has 2 targets; load it with MultiTracker"):
        tracker.load_state(whole)
