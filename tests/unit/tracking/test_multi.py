"""Several targets at once: the boxes of separate trackers, whatever is added and removed in between."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.boxes import iou_xywh
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.studies import bench_tracker as bench
from ebmtrack.studies.bench_tracker import moving_squares
from ebmtrack.tracking import regions
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import INNER_LOOKS, MultiTracker, Tracker
from ebmtrack.viewers.track_video import track
from tests.support.golden import FEW_VIEWS, dimp18, image

PARAMS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0, **FEW_VIEWS)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(5)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0), (150.0, 100.0, 30.0, 40.0)]


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def boxes_of(engine, box, seed, frames=FRAMES) -> np.ndarray:
    tracker = Tracker(engine, PARAMS)
    tracker.init(frames[0], box, seed)
    return np.array([tracker.update(frame).box_xywh for frame in frames[1:]])


def test_boxes_equal_those_of_separate_trackers(engine):
    """The third target comes two frames later, the second one leaves; the others do not notice."""
    tracker = MultiTracker(engine, PARAMS, inner_looks=0)
    ids = [tracker.add(FRAMES[0], box, seed) for seed, box in enumerate(BOXES[:2])]
    results = [tracker.update(frame) for frame in FRAMES[1:3]]
    ids.append(tracker.add(FRAMES[2], BOXES[2], 2))
    tracker.remove(ids[1])
    results += [tracker.update(frame) for frame in FRAMES[3:]]
    assert [tuple(result) for result in results] == [(0, 1), (0, 1), (0, 2), (0, 2)]
    expected = [boxes_of(engine, BOXES[0], 0), boxes_of(engine, BOXES[1], 1), boxes_of(engine, BOXES[2], 2, FRAMES[2:])]
    for target, boxes in zip(ids, expected):
        got = [result[target].box_xywh for result in results if target in result]
        assert np.array_equal(got, boxes[: len(got)])


@pytest.mark.parametrize("inner_looks, phases", [(0, [0, 0]), (4, [0, 1])])
def test_targets_take_turns_with_inner_looks_alone(engine, inner_looks, phases):
    """Without them checks of the size come in the same frames as those of a separate tracker."""
    tracker = MultiTracker(engine, PARAMS, inner_looks=inner_looks)
    ids = [tracker.add(FRAMES[0], box) for box in BOXES[:2]]
    assert [tracker._states[target].phase for target in ids] == phases


def test_intervals_can_be_switched_while_tracking(engine):
    """Targets that are there and later ones have them from the next frame on; no box moves by it."""
    tracker = MultiTracker(engine, PARAMS, inner_looks=0)
    first, results = tracker.add(FRAMES[0], BOXES[0], 0), []
    for wanted, frame in zip((False, True, True, False), FRAMES[1:]):
        tracker.show_intervals(wanted)
        results.append(tracker.update(frame)[first])
        assert (results[-1].density is not None) == wanted
    assert np.array_equal([result.box_xywh for result in results], boxes_of(engine, BOXES[0], 0))


def test_a_set_ups_own_intervals_are_switched_off_first_and_come_back(engine):
    """One switch takes them away, the next brings the same number of samples back; without own ones there are 32."""
    own = MultiTracker(engine, PARAMS.replace(interval_samples=16))
    plain, found = MultiTracker(engine, PARAMS), []
    for _ in range(3):
        own.show_intervals()
        plain.show_intervals()
        found.append((own.params.interval_samples, plain.params.interval_samples))
    assert found == [(0, 32), (16, 0), (0, 32)]


def test_no_targets_no_results(engine):
    assert MultiTracker(engine, PARAMS).update(FRAMES[0]) == {}


def test_ids_are_not_used_again_and_unknown_ones_refused(engine):
    tracker = MultiTracker(engine, PARAMS)
    first = tracker.add(FRAMES[0], BOXES[0])
    tracker.remove(first)
    assert tracker.targets == ()
    with pytest.raises(ConfigError, match="there is no target 0; there are none$"):
        tracker.remove(first)
    assert tracker.add(FRAMES[0], BOXES[0]) == first + 1
    with pytest.raises(ConfigError, match="there is no target 0; there are 1$"):
        tracker.remove(first)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img").mkdir()
    for number, frame in enumerate(FRAMES[:3]):
        assert cv2.imwrite(str(tmp_path / "img" / f"{number:03d}.png"), frame[..., ::-1])
    return tmp_path / "img"


INITS = {"two": ["90,60,44,52", "10,20,90,33"], "one text": "90,60,44,52; 10,20,90,33"}


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
def test_track_writes_a_file_for_each_target(engine, folder, tmp_path, init, capsys, monkeypatch):
    """The boxes, to three decimals, are those of a run for each target (none is calm); pictures show both boxes."""
    monkeypatch.setattr(regions, "CALM_MOTION", -1.0)
    save = tmp_path / "out.avi"
    result = track(folder, lambda: Tracker(engine, PARAMS), init, boxes=tmp_path / "b.txt", save=save)
    assert result.files == [save, tmp_path / "b_1.txt", tmp_path / "b_2.txt"]
    assert "2 targets, 3 frames" in capsys.readouterr().out
    for number in (1, 2):
        boxes = np.loadtxt(tmp_path / f"b_{number}.txt", delimiter=",")
        seen = boxes_of(engine, BOXES[number - 1], None, FRAMES[:3])
        assert np.allclose(boxes, [BOXES[number - 1], *seen], atol=6e-4)


def test_track_names_the_target_whose_box_is_wrong(engine, folder, tmp_path):
    with pytest.raises(ConfigError, match="target 2: box .* is outside"):
        track(folder, lambda: Tracker(engine, PARAMS), ["1,2,30,40", "900,2,30,40"], boxes=tmp_path / "b.txt")


def test_visdom_shows_one_target(folder):
    with pytest.raises(ConfigError, match="one target"):
        track(folder, lambda: pytest.fail("loaded"), ["1,2,3,4", "5,6,7,8"], visdom="http://localhost:1", boxes="b.txt")


def test_bench_compares_several_targets_with_one(engine, monkeypatch):
    monkeypatch.setattr(bench, "WARMUP", 1)
    report = bench.measure_targets(engine, PARAMS, 2, 30, 1, (160, 120))
    for name in ("usual", "exact"):
        ratio = report[f"{name}_ms"]["cpu"] / report["one_ms"]["cpu"]
        assert report[f"{name}_ratio"]["cpu"] == pytest.approx(ratio, rel=0.1)
    setup = {"params": "p", "processor": "d", "threads": 1}
    table = bench.as_table({"targets": 2, "by_side": [report], "setup": setup})
    assert f"{report['exact_ratio']['wall']:.2f}" in table and "targets of 30 pixels" in table
    images, boxes = bench.moving_squares(3, (160, 120), 4, 30)
    assert boxes.shape == (3, 4, 4) and len({tuple(box) for box in boxes[0]}) == 4 and images[0].shape == (120, 160, 3)


@pytest.mark.parametrize("inner_looks", [0, 4])
def test_one_target_is_tracked_as_alone(engine, inner_looks):
    tracker = MultiTracker(engine, PARAMS, inner_looks)
    tracker.add(FRAMES[0], BOXES[0], 5)
    got = [tracker.update(frame)[0].box_xywh for frame in FRAMES[1:3]]
    assert np.array_equal(got, boxes_of(engine, BOXES[0], 5, FRAMES[:3]))


# Inner looks with the network that ships.


@pytest.fixture(scope="module")
def shipped() -> Tracker:
    return Tracker.from_pretrained(load_params("dimp18_nce_plus").replace(**FEW_VIEWS))


def test_boxes_stay_near_those_without_inner_looks(shipped, monkeypatch):
    """The network that ships, two calm squares: the same targets, nearly the same boxes, and inner looks were taken."""
    images, truth = moving_squares(8, (320, 240), 2, 48)
    taken = []
    use_inner = regions.can_use_inner_crop
    monkeypatch.setattr(regions, "can_use_inner_crop", lambda *one: taken.append(use_inner(*one)) or taken[-1])
    found = []
    for looks in (INNER_LOOKS, 0):
        tracker = MultiTracker(shipped.engine, shipped.params, looks)
        for box in truth[0]:
            tracker.add(images[0], box)
        found.append([list(tracker.update(frame).values()) for frame in images[1:]])
    assert any(taken[: len(taken) // 2]) and not any(taken[len(taken) // 2 :])
    for some, others in zip(*found):
        for one, other in zip(some, others):
            assert one.found and one.score_map.shape == other.score_map.shape == (18, 18)
            assert one.score == pytest.approx(other.score, rel=0.4)
            assert iou_xywh(torch.tensor(one.box_xywh), torch.tensor(other.box_xywh)) > 0.7


def test_the_fast_set_up_has_inner_looks_and_repeats_itself(shipped):
    """It differs from the usual one in the inner looks alone; the same seed gives the same boxes."""
    usual, fast = load_params("dimp18_nce_plus"), load_params("dimp18_nce_plus_fast")
    assert fast == dataclasses.replace(usual, inner_looks=4)
    images, truth = moving_squares(5, (320, 240), 1, 48)
    runs = []
    for _ in range(2):
        tracker = Tracker(shipped.engine, fast.replace(**FEW_VIEWS))
        tracker.init(images[0], truth[0, 0])
        runs.append([tracker.update(frame).box_xywh for frame in images[1:]])
    assert runs[0] == runs[1]
