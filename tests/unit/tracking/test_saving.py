"""The state of a tracker in a file: it goes on in another process as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights, save_checkpoint
from ebmtrack.engines import load_engine
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import as_json
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from tests.support.golden import FEW_VIEWS, image

PARAMS = load_params("dimp18_nce_plus").replace(
    sample_size=144, interval_samples=8, looks_around=0, update_every=2, **FEW_VIEWS
)
ATOM = PARAMS.replace(classifier="atom", initial_iterations=2)
BOX, OTHER = (90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0)
NAMES = ("torch", "onnx", "atom")
SAVED, COUNT = 4, 6  # frame 3 is learned from; what is saved then goes on with frame 4, and learns from frame 5

GO_ON = """
import sys
import numpy as np
from ebmtrack.tracking.tracker import Tracker
from tests.unit.tracking import test_saving as test

for name in test.NAMES:
    params = test.ATOM if name == "atom" else test.PARAMS
    tracker = Tracker.from_pretrained(params, device="cpu", engine="onnx" if name == "onnx" else "torch")
    tracker.load_state(f"{sys.argv[1]}/{name}")
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


@pytest.fixture(scope="module")
def saved(engines, tmp_path_factory):
    """Return the file of a tracker after a few frames."""
    path = tmp_path_factory.mktemp("saved") / "state.npz"
    started(engines["onnx"]).save_state(path)
    return path


def started(engine, params=PARAMS) -> Tracker:
    """Return a tracker after a few frames."""
    tracker = Tracker(engine, params)
    tracker.init(frame(0), BOX, seed=3)
    for number in range(1, 4):
        tracker.update(frame(number))
    return tracker


def test_a_memory_that_grew_for_the_views_of_the_first_frame_is_read_again(engines, tmp_path):
    few = load_params("dimp18_nce_plus").replace(sample_size=144, memory_size=2, initial_iterations=1)
    few = few.replace(blur_sigmas=(), rotations_deg=())
    tracker, other = started(engines["onnx"], few), Tracker(engines["onnx"], few)
    tracker.save_state(tmp_path / "state")
    other.load_state(tmp_path / "state")
    assert other.update(frame(2)).box_xywh == tracker.update(frame(2)).box_xywh


def test_a_doubt_is_kept(engines, tmp_path):
    """The place before is looked at as well after loading, so that boxes and verdicts are the same."""
    several = MultiTracker(engines["onnx"], PARAMS)
    target = several.add(frame(0), BOX, 3)
    state = several._states[target]
    several._states[target] = dataclasses.replace(state.move(state.position_yx + 3, state.size_hw), doubt=5)
    several.save_state(tmp_path / "state")
    again = MultiTracker(engines["onnx"], PARAMS)
    again.load_state(tmp_path / "state")
    assert again._states[target].doubt == 5
    for number in (1, 2):
        (expected,), (result,) = (some.update(frame(number)).values() for some in (several, again))
        assert result.verdict == "uncertain" and result.box_xywh == expected.box_xywh
        assert again._states[target].doubt == 5 - number


def test_another_process_goes_on_to_the_bit(engines, tmp_path):
    expected = []
    for name in NAMES:
        engine = load_engine(None, "cpu", classifier="atom") if name == "atom" else engines[name]
        tracker = Tracker(engine, ATOM if name == "atom" else PARAMS)
        tracker.init(frame(0), BOX, seed=3)
        for number in range(1, SAVED):
            tracker.update(frame(number))
        tracker.save_state(tmp_path / name)
        expected += [tracker.update(frame(number)) for number in range(SAVED, COUNT)]
    done = subprocess.run([sys.executable, "-c", GO_ON, str(tmp_path)], capture_output=True, text=True, timeout=300)
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
    both = {"onnx": engines["onnx"], "torch": load_engine(None, "cpu", "float32", "torch")}
    for first, second in (("torch", "onnx"), ("onnx", "torch")):
        tracker, other = started(both[first]), Tracker(both[second], PARAMS)
        tracker.save_state(tmp_path / "state")
        other.load_state(tmp_path / "state")
        for number in (4, 5):
            found, expected = (np.array(one.update(frame(number)).box_xywh) for one in (other, tracker))
            assert np.abs(found - expected).max() < 0.2  # the scene moves by 2 pixels


def rewritten(path, change) -> None:
    """Change the JSON and the arrays of a file in place."""
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays.pop("about")))
    change(about, arrays)
    with open(path, "wb") as out:
        np.savez(out, about=np.array(json.dumps(about)), **arrays)


def numbers(group=None, **values):
    """Return a change of numbers of the first target, in one group of them or none."""

    def change(about, arrays):
        facts = about["targets"]["0"]
        (facts[group] if group else facts).update(values)

    return change


def array(name, values_of):
    """Return a change of an array of the first target."""
    return lambda about, arrays: arrays.update({f"0/{name}": values_of(arrays[f"0/{name}"])})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda about, arrays: about.update(format_version=9), "format version 9"),
        (
            lambda about, arrays: about["params"].update(ascent_steps=3, lost_logit=[1, 2]),
            r"\(ascent_steps 3, here 7\): open the tracker with the set-up of the file$",
        ),
        (lambda about, arrays: about["params"].pop("candidates"), "candidates unknown, here 10"),
        (lambda about, arrays: about.pop("next_id"), "lacks next_id"),
        (lambda about, arrays: about.update(next_id=0), "next_id is 0"),
        (lambda about, arrays: about.update(targets={}), "targets has the ids"),
        (lambda about, arrays: about.update(targets={"x": about["targets"]["0"]}), "targets has the ids"),
        (lambda about, arrays: about.update(targets=[]), "targets is"),
        (lambda about, arrays: about.update(network="0" * 64), "saved with another network"),
        (lambda about, arrays: arrays.pop("0/samples"), "target 0: lacks the array samples"),
        (lambda about, arrays: arrays.update({"0/network": -arrays["0/network"]}), "saved with another network"),
        (numbers(scale="x"), "target 0: scale is 'x'"),
        (numbers(scale=0.0), "target 0: scale is out of range"),
        (numbers(scale=1e300), "target 0: scale is out of range"),
        (numbers(scale=float("nan")), "target 0: scale is nan"),
        (numbers(frame="x"), "target 0: frame is 'x'"),
        (numbers(frame=0), "target 0: frame is out of range"),
        (numbers(phase=None), "target 0: phase is None"),
        (numbers(is_calm=1), "target 0: is_calm is 1"),
        (numbers(lost_frames=-1), "lost_frames is out of range"),
        (numbers(doubt=-1), "doubt is out of range"),
        (numbers(doubt=PARAMS.doubtful_frames + 1), "doubt is out of range"),
        (numbers(first_scale=0.0), "first_scale is out of range"),
        (numbers(first_scale=2e7), "first_scale is out of range"),
        (numbers(base_area=1.0), "base_area is out of range"),
        (numbers("memory", count=999), "memory: count is out of range"),
        (numbers("memory", initial=2), "memory: initial is out of range"),
        (numbers("memory", last=999), "memory: last is out of range"),
        (numbers("random", position=99999), "random: position is out of range"),
        (numbers("random", position=-1), "random: position is out of range"),
        (numbers("random", position=1.5), "random: position is 1.5"),
        (array("random", lambda values: values[:5]), r"random is uint32 \(5,\), expected uint32 \(624,\)"),
        (array("random", lambda values: values.astype(np.int64)), "random is int64"),
        (array("samples", lambda values: values[:3]), r"samples is float32 \(3,"),
        (array("samples", lambda values: values * np.nan), "samples holds numbers that are not finite"),
        (array("filter", lambda values: values[:5]), r"filter is float32 \(5,"),
        (array("filter", lambda values: values.astype(np.float64)), "filter is float64"),
        (array("layer2", lambda values: values[:5]), r"layer2 is float32 \(5,"),
        (array("vector8", lambda values: values[:5]), r"vector8 is float32 \(5,"),
        (array("box_xywh", lambda values: values[:3]), r"box_xywh is float64 \(3,\)"),
        (array("position_yx", lambda values: values[:1]), r"position_yx is float64 \(1,\)"),
        (array("position_yx", lambda values: values * np.nan), "position_yx holds numbers that are not finite"),
        (array("position_yx", lambda values: values + 1e30), "position_yx is out of range"),
        (array("size_hw", lambda values: values * 0), "size_hw, box_xywh or found_hw is out of range"),
        (array("log_excess_hw", lambda values: values - 1e5), "log_excess_hw is out of range"),
        (array("excess_yx", lambda values: values + 0.2), "excess_yx is out of range"),
        (array("last_layer", lambda values: values[:5]), r"last_layer is float32 \(5,"),
        (array("last_layer", lambda values: values + 1e3), "last_layer is out of range"),
        (array("sample_weights", lambda values: -values), "sample_weights is out of range"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(engines, saved, tmp_path, change, message):
    tracker = Tracker(engines["onnx"], PARAMS)
    shutil.copy(saved, tmp_path / "state.npz")
    rewritten(tmp_path / "state.npz", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        tracker.load_state(tmp_path / "state.npz")
    assert "state.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_the_last_layer_of_the_mirror_image_is_checked_as_well(engines, tmp_path):
    tracker = Tracker(engines["onnx"], PARAMS.replace(mirrored=True))
    tracker.init(frame(0), BOX)
    tracker.save_state(tmp_path / "state.npz")
    rewritten(tmp_path / "state.npz", array("mirrored_last_layer", lambda values: values + 1e3))
    with pytest.raises(CheckpointError, match="last_layer is out of range"):
        tracker.load_state(tmp_path / "state.npz")


def test_another_set_up_is_named(engines, saved, tmp_path):
    """That of the file and that of the tracker, if they are in tracker_params, and what to call."""

    def lite(about, arrays):
        about["params"] = json.loads(json.dumps(as_json(load_params("lite_nce_plus").replace(seed=7))))

    def refused(params, change):
        shutil.copy(saved, tmp_path / "state.npz")
        rewritten(tmp_path / "state.npz", change)
        with pytest.raises(CheckpointError) as caught:
            Tracker(engines["onnx"], params).load_state(tmp_path / "state.npz")
        return str(caught.value).removeprefix(f"{tmp_path / 'state.npz'}: ")

    own = load_params("dimp18_nce_plus")
    message = refused(own.replace(interval_samples=8), lite)
    assert message.startswith(
        "was saved with lite_nce_plus, this tracker is dimp18_nce_plus (sample_size 256, here 272; "
    )
    assert message.endswith('search_factor 4.5, here 4.75): open the tracker with from_pretrained("lite_nce_plus")')
    assert refused(PARAMS, lite).startswith("was saved with lite_nce_plus, this tracker has another set-up (")
    assert refused(own, lambda about, arrays: None).startswith(
        "was saved with another set-up, this tracker is dimp18_nce"
    )


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
    with pytest.raises(CheckpointError, match=r"or damaged \(it holds something else than arrays\)$"):
        tracker.load_state(tmp_path / "text")
    several = MultiTracker(engines["onnx"], PARAMS)
    for box in (BOX, OTHER):
        several.add(frame(0), box)
    several.save_state(whole)
    with pytest.raises(CheckpointError, match="has 2 targets; load it with MultiTracker"):
        tracker.load_state(whole)


def test_damaged_bytes_are_refused_in_one_line(engines, saved, tmp_path):
    tracker, content, draw = Tracker(engines["onnx"], PARAMS), saved.read_bytes(), random.Random(0)
    with zipfile.ZipFile(saved) as archive:
        starts, directory = [entry.header_offset for entry in archive.infolist()], archive.start_dir
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(3):
            place = draw.choice([draw.choice(starts) + draw.randrange(260), draw.randrange(directory, len(content))])
            damaged[place] = draw.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            tracker.load_state(tmp_path / "damaged")
        except CheckpointError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 30  # a byte of a date or a name in the archive's second list does no harm


def test_other_weights_of_the_same_architecture_are_refused(tmp_path, saved):
    net = load_checkpoint(resolve_weights(None))
    with torch.no_grad():
        next(net.classifier.parameters()).mul_(1.01)  # the energy stays as it was
    save_checkpoint(tmp_path / "other.safetensors", net, run={})
    other = Tracker(load_engine(tmp_path / "other.safetensors", "cpu", "float32"), PARAMS)
    with pytest.raises(CheckpointError, match="saved with another network"):
        other.load_state(saved)


def test_what_moves_no_box_may_differ(engines, saved):
    free = {"interval_scale": (1.0, 1.0, 0.0, 0.0), "interval_temperature": 2.0, "lost_logit": (1.0, -5.0), "seed": 5}
    results = []
    for params in (PARAMS, PARAMS.replace(**free, interval_samples=0)):
        tracker = Tracker(engines["onnx"], params)
        tracker.load_state(saved)
        results.append(tracker.update(frame(4)))
    assert results[0].box_xywh == results[1].box_xywh
    assert results[0].lost_probability != results[1].lost_probability


def test_a_file_that_cannot_be_written_is_an_error_in_one_line(engines, tmp_path, saved):
    tracker = Tracker(engines["onnx"], PARAMS)
    tracker.load_state(saved)
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "state"):
        with pytest.raises(ConfigError, match="cannot write it") as caught:
            tracker.save_state(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_random_numbers_take_no_foreign_state():
    numbers_of_seed = RandomNumbers(0)
    key, position = numbers_of_seed.state
    for state in ((key, 625), (key, -1), (key[:5], 0), (key.astype(np.int64), 0)):
        with pytest.raises(ValueError, match="no state of a Mersenne twister"):
            numbers_of_seed.state = state
    numbers_of_seed.state = key, position
    assert (numbers_of_seed.uniform(3) == RandomNumbers(0).uniform(3)).all()
