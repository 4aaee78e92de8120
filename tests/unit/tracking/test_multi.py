"""Several targets at once: the boxes of separate trackers, whatever is added and removed in between."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.studies import bench_tracker as bench
from ebmtrack.tracking import glance
from ebmtrack.tracking.multi import MultiTracker
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.viewers.track_video import track
from tests.support.golden import dimp18, image

PARAMS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(5)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0), (150.0, 100.0, 30.0, 40.0)]


@pytest.fixture(scope="module")
def net():
    return InferenceNet(dimp18(), precision="float32")


def boxes_of(net, box, seed, frames=FRAMES) -> np.ndarray:
    tracker = Tracker(net, PARAMS)
    tracker.init(frames[0], box, seed)
    return np.array([tracker.update(frame).box_xywh for frame in frames[1:]])


def test_boxes_equal_those_of_separate_trackers(net):
    """The third target comes two frames later, the second one leaves; the others do not notice."""
    tracker = MultiTracker(net, PARAMS, glances=0)
    ids = [tracker.add(FRAMES[0], box, seed) for seed, box in enumerate(BOXES[:2])]
    results = [tracker.update(frame) for frame in FRAMES[1:3]]
    ids.append(tracker.add(FRAMES[2], BOXES[2], 2))
    tracker.remove(ids[1])
    results += [tracker.update(frame) for frame in FRAMES[3:]]
    assert [tuple(result) for result in results] == [(0, 1), (0, 1), (0, 2), (0, 2)]
    expected = [boxes_of(net, BOXES[0], 0), boxes_of(net, BOXES[1], 1), boxes_of(net, BOXES[2], 2, FRAMES[2:])]
    for target, boxes in zip(ids, expected):
        got = [result[target].box_xywh for result in results if target in result]
        assert np.array_equal(got, boxes[: len(got)])


def test_no_targets_no_results(net):
    assert MultiTracker(net, PARAMS).update(FRAMES[0]) == {}


def test_ids_are_not_used_again_and_unknown_ones_refused(net):
    tracker = MultiTracker(net, PARAMS)
    first = tracker.add(FRAMES[0], BOXES[0])
    tracker.remove(first)
    assert tracker.targets == ()
    with pytest.raises(ConfigError, match="no target 0"):
        tracker.remove(first)
    assert tracker.add(FRAMES[0], BOXES[0]) == first + 1


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img").mkdir()
    for number, frame in enumerate(FRAMES[:3]):
        assert cv2.imwrite(str(tmp_path / "img" / f"{number:03d}.png"), frame[..., ::-1])
    return tmp_path / "img"


INITS = {"two": ["90,60,44,52", "10,20,90,33"], "one text": "90,60,44,52; 10,20,90,33"}


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
def test_track_writes_a_file_for_each_target(net, folder, tmp_path, init, capsys, monkeypatch):
    """The boxes, to three decimals, are those of a run for each target (none is calm); pictures show both boxes."""
    monkeypatch.setattr(glance, "CALM_MOTION", -1.0)
    save = tmp_path / "out.avi"
    result = track(folder, lambda: Tracker(net, PARAMS), init, boxes=tmp_path / "b.txt", save=save)
    assert result.files == [save, tmp_path / "b_1.txt", tmp_path / "b_2.txt"]
    assert "2 targets, 3 frames" in capsys.readouterr().out
    for number in (1, 2):
        boxes = np.loadtxt(tmp_path / f"b_{number}.txt", delimiter=",")
        seen = boxes_of(net, BOXES[number - 1], None, FRAMES[:3])
        assert np.allclose(boxes, [BOXES[number - 1], *seen], atol=6e-4)


def test_track_names_the_target_whose_box_is_wrong(net, folder, tmp_path):
    with pytest.raises(ConfigError, match="target 2: box .* lies outside"):
        track(folder, lambda: Tracker(net, PARAMS), ["1,2,30,40", "900,2,30,40"], boxes=tmp_path / "b.txt")


def test_visdom_shows_one_target(folder):
    with pytest.raises(ConfigError, match="one target"):
        track(folder, lambda: pytest.fail("loaded"), ["1,2,3,4", "5,6,7,8"], visdom="http://localhost:1", boxes="b.txt")


def test_bench_compares_several_targets_with_one(net, monkeypatch):
    monkeypatch.setattr(bench, "WARMUP", 1)
    report = bench.measure_targets(net, PARAMS, 2, 30, 1, (160, 120))
    for name in ("usual", "exact"):
        ratio = report[f"{name}_ms"]["cpu"] / report["one_ms"]["cpu"]
        assert report[f"{name}_ratio"]["cpu"] == pytest.approx(ratio, rel=0.1)
    setup = {"params": "p", "device_name": "d", "threads": 1, "precision": "float32"}
    table = bench.as_table({"targets": 2, "by_side": [report], "setup": setup})
    assert f"{report['exact_ratio']['wall']:.2f}" in table and "targets of 30 pixels" in table
    images, boxes = bench.moving_squares(3, (160, 120), 4, 30)
    assert boxes.shape == (3, 4, 4) and len({tuple(box) for box in boxes[0]}) == 4 and images[0].shape == (120, 160, 3)


@pytest.mark.parametrize("glances", [0, 4])
def test_one_target_is_tracked_as_alone(net, glances):
    tracker = MultiTracker(net, PARAMS, glances)
    tracker.add(FRAMES[0], BOXES[0], 5)
    got = [tracker.update(frame)[0].box_xywh for frame in FRAMES[1:3]]
    assert np.array_equal(got, boxes_of(net, BOXES[0], 5, FRAMES[:3]))
