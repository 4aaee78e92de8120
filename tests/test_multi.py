"""Several targets at once: the boxes of separate trackers, whatever is added and removed in between."""

from __future__ import annotations

import numpy as np
import pytest
from golden import dimp18, image

from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.multi import MultiTracker
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker

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
    tracker = MultiTracker(net, PARAMS)
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
