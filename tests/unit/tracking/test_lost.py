"""A lost target that returns elsewhere is found again by looking around."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.boxes import iou_xywh
from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from ebmtrack.viewers.demo_sequence import demo_sequence
from tests.support.golden import FEW_VIEWS

PARAMS = load_params("dimp18_nce_plus").replace(**FEW_VIEWS)
HERE, THERE = (60, 40), (430, 290)  # where the target is seen first, and where it returns (x, y)
GONE = 3  # frames without it
FRAMES_OF_A_ROUND = 12  # and more, in which all places of the picture have their turn


@pytest.fixture(scope="module")
def engine():
    net = InferenceNet(load_checkpoint(resolve_weights(None)), precision="float32")
    return TorchEngine(net)


@pytest.fixture(scope="module")
def film():
    """Frames of 560 x 400: the demo's cup on a plain wall, then nothing, then the cup in the other corner."""
    sequence = demo_sequence()
    x, y, w, h = (round(v) for v in sequence.boxes_xywh[0])
    cup = cv2.resize(sequence.frames[0][y : y + h, x : x + w], (w // 3, h // 3), interpolation=cv2.INTER_AREA)
    h, w = cup.shape[:2]
    wall = cv2.GaussianBlur(np.random.default_rng(0).integers(60, 200, (400, 560, 3), dtype=np.uint8), (0, 0), 9)

    def frame(place):
        picture = wall.copy()
        if place is not None:
            picture[place[1] : place[1] + h, place[0] : place[0] + w] = cup
        return picture

    frames = [frame(HERE)] * 3 + [frame(None)] * GONE + [frame(THERE)] * FRAMES_OF_A_ROUND
    return frames, (*HERE, w, h), (*THERE, w, h)


def results_of(engine, film, count=None, **changes):
    """Return the results of `count` frames, or up to the one in which the target is found again."""
    frames, box, _ = film
    tracker = Tracker(engine, PARAMS.replace(**changes))
    tracker.init(frames[0], box)
    results = [tracker.update(frame) for frame in frames[1 : 3 + GONE]]
    assert [result.verdict for result in results[2:]] == ["not_found"] * GONE
    for frame in frames[3 + GONE : count]:
        results.append(tracker.update(frame))
        if count is None and results[-1].found:
            break
    return results


@pytest.fixture(scope="module")
def found(engine, film):
    return results_of(engine, film, looks_around=2)


def test_a_target_that_returns_elsewhere_is_found_by_looking_around(engine, film, found):
    assert found[-1].verdict == "uncertain"
    assert iou_xywh(*torch.tensor([found[-1].box_xywh, film[2]])).item() > 0.6
    assert not results_of(engine, film, count=len(found) + 1, looks_around=0)[-1].found


def test_what_is_not_clear_is_not_taken(engine, film, found):
    assert not results_of(engine, film, count=len(found) + 1, looks_around=2, clear_score=10.0)[-1].found


def test_several_lost_targets_are_found_as_each_alone(engine, film):
    """To the bit, in the first two frames after the target's return: the looks of both go through the network
    together."""
    frames, box = film[0][2 : 3 + GONE + 2], film[1]
    other = (box[0] + 4.0, box[1] + 3.0, box[2] - 8.0, box[3] - 6.0)
    several = MultiTracker(engine, PARAMS, inner_looks=0)
    ids = [several.add(frames[0], one) for one in (box, other)]
    together = [several.update(frame) for frame in frames[1:]]
    for target, one in zip(ids, (box, other)):
        alone = Tracker(engine, PARAMS)
        alone.init(frames[0], one)
        for frame, results in zip(frames[1:], together):
            assert alone.update(frame).box_xywh == results[target].box_xywh
    assert not any(result.found for result in together[0].values())
