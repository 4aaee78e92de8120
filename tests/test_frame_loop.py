"""What a target does in a frame, step by step and by hand: DiMP's tracker to the number (pytracking; BMVC 2020, S2)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden import dimp18, image

from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking import glance, refine, target
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.tracking.target import Target
from ebmtrack.tracking.tracker import Tracker

SIZE_YX = np.array([40.0, 20.0])


def bare(**changes) -> Target:
    """A target of 40 x 20 pixels at (50, 60) without a network, in its first frame; SuperDiMP's parameters."""
    one = object.__new__(Target)
    values = dict(
        params=TrackerParams(), frame=1, lost_for=0, position=np.array([50.0, 60.0]), size=SIZE_YX.copy(), scale=2.0,
        base_area=200.0, log_excess_hw=np.zeros(2), first_log_aspect=math.log(2), view=None, energy=None, glances=0,
    )  # fmt: skip
    one.__dict__.update({**values, **changes})
    return one


def view(scale=2.0, centre_yx=(50.0, 60.0)):
    return SimpleNamespace(scale=scale, centre_yx=np.array(centre_yx), features=torch.zeros(1, 2, 3, 3))


# Learning


def learned(verdicts):
    """(frame, filter iterations) of all updates, and the rates at which frames are remembered."""
    updates, rates, net = [], [], SimpleNamespace(classifier=SimpleNamespace())
    net.classifier.filter_optimizer = lambda w, x, boxes, weights, n: updates.append((one.frame, n)) or [w, w]
    memory = SimpleNamespace(add=lambda x, box, rate: rates.append(rate), stored=lambda: (None,) * 3)
    one = bare(net=net, memory=memory, filter=None, view=view())
    for frame, verdict in enumerate(verdicts, 2):
        one.frame, one.found = frame, Localization(np.zeros(2), 0.9, verdict)
        one.learn()
    return updates, rates


def test_the_filter_learns_every_twenty_frames_and_from_hard_negatives_at_once():
    """Two iterations where (frame - 1) % 20 is 0, one on a hard negative, also there; it is remembered at 0.02."""
    verdicts = ["normal"] * 50
    assert learned(verdicts) == ([(21, 2), (41, 2)], [None] * 50)
    verdicts[5] = verdicts[19] = "hard_negative"
    updates, rates = learned(verdicts)
    assert updates == [(7, 1), (21, 1), (41, 2)]
    assert {number for number, rate in enumerate(rates) if rate == 0.02} == {5, 19}


@pytest.mark.parametrize("verdict, learns, moves", [
    ("normal", True, True), ("hard_negative", True, True), ("uncertain", False, True), ("not_found", False, False),
])  # fmt: skip
def test_what_is_done_with_each_verdict(verdict, learns, moves, monkeypatch):
    """Uncertain frames are refined and not learned; where the target is not found the box stays."""
    frames, box = [image("walk", 120, 160), image("walk2", 120, 160)], (60.0, 40.0, 34.0, 42.0)
    tracker = Tracker(InferenceNet(dimp18(), precision="float32"), load_params("dimp18").replace(sample_size=144))
    tracker.init(frames[0], box)
    calls = []
    monkeypatch.setattr(target, "localize", lambda *_: Localization(np.array([1.0, -1.0]), 0.9, verdict))
    monkeypatch.setattr(Target, "learn", lambda self: calls.append(self.frame))
    result = tracker.update(frames[1])
    assert (result.verdict, bool(calls), result.box_xywh != box) == (verdict, learns, moves)


def test_dropped_channels_are_made_up_for():
    """The last two of the first frame's samples are the first one without a fifth of its channels, times 1.25."""
    tracker = Tracker(InferenceNet(dimp18(), precision="float32"), load_params("dimp18").replace(sample_size=144))
    tracker.init(image("walk", 120, 160), (60.0, 40.0, 34.0, 42.0))
    stored = tracker._target.memory.stored()[0][:, 0]
    assert len(stored) == 15
    for copy in stored[-2:]:
        kept = copy.abs().sum(dim=(1, 2)) > 0
        assert 0.7 < kept.float().mean() < 0.9
        assert torch.allclose(copy[kept], 1.25 * stored[0][kept], rtol=1e-6)


def slow_weights(rates, initial, size, least):
    """The rule of pytracking in words: see SampleMemory; returns the weights after each new sample."""
    weights, last, history = [1 / initial] * initial, None, []
    for rate in rates:
        if len(weights) < size:
            slot = len(weights)
            weights.append(0.0)
        else:
            slot = min(range(initial, size), key=lambda k: weights[k])
        if last is None:
            weights = [w / (1 - rate) for w in weights]
            weights[slot] = rate
        else:
            weights[slot] = weights[last] / (1 - rate)
        total = sum(weights)
        weights = [w / total for w in weights]
        if sum(weights[:initial]) < least:
            rest = sum(weights[initial:])
            weights = [least / initial] * initial + [w / (least + rest) for w in weights[initial:]]
        last = slot
        history.append(list(weights))
    return history


def test_memory_weights_follow_a_slow_reference_until_the_first_frame_holds_its_least_weight():
    rates = [0.04 if frame % 7 == 0 else 0.02 for frame in range(200)]
    memory = SampleMemory(torch.zeros(3, 1, 1, 1), torch.zeros(3, 4), 60, 0.02, 0.25)
    expected = slow_weights(rates, 3, 60, 0.25)
    for rate, weights in zip(rates, expected):
        memory.add(torch.zeros(1, 1, 1), torch.zeros(4), rate)
        assert memory.stored()[2][:, 0].tolist() == pytest.approx(weights, rel=1e-5)
    assert sum(expected[-1]) > 1.001 and sum(expected[-1][:3]) == pytest.approx(0.25)  # as pytracking's


# Moving


@pytest.mark.parametrize("late, y, x", [(False, 112.0, 212.0), (True, 113.0, 213.0)])
def test_a_refined_box_sets_position_size_and_the_scale_of_the_next_search(late, y, x):
    """By hand: a region of 288 pixels at scale 2 around (100, 200); box 20 x 40 around (150, 150) of it."""
    params = TrackerParams(sample_size=288, half_pixel_late=late)
    one = bare(params=params, view=view(2.0, (100.0, 200.0)))
    one.move_to(torch.tensor([140.0, 130.0, 20.0, 40.0]))
    assert one.position.tolist() == [y, x] and one.size.tolist() == [80.0, 40.0]
    assert one.scale == pytest.approx(math.sqrt(80 * 40 / 200.0))
    assert one.box_xywh == (x - 39 / 2, y - 79 / 2, 40.0, 80.0)


def test_no_refined_box_keeps_size_and_scale():
    one = bare(view=view())
    one.move_to(None)
    assert (one.scale, one.size.tolist(), one.box_xywh) == (2.0, [40.0, 20.0], (60 - 19 / 2, 50 - 39 / 2, 20.0, 40.0))


@pytest.mark.parametrize("cells, position", [((-9, 0), (-12, 60)), ((9, 9), (112, 206)), ((0.5, -0.25), (66, 52))])
def test_a_fifth_of_the_target_stays_in_the_image(cells, position, monkeypatch):
    """Cells of 32 pixels, an image of 100 x 200: centres may lie 0.3 sizes, 12 and 6 pixels, outside."""
    found = Localization(np.array(cells, float), 0.9, "normal")
    one = bare()
    monkeypatch.setattr(Target, "_judge", lambda self, view: (view, None, found))
    one.localise([view()], (100, 200, 3))
    assert one.position.tolist() == pytest.approx(position) and one.frame == 2


def test_peaks_are_judged_by_where_the_target_was(monkeypatch):
    """In cells of 32 pixels from the middle of the region, which lies (16, -8) pixels from the target."""
    seen = []
    monkeypatch.setattr(target, "localize", lambda scores, size, previous, params: seen.append((size, previous)))
    monkeypatch.setattr(Target, "_scores", lambda self, features: None)
    bare()._judge(view(2.0, (34.0, 68.0)))
    ((size, previous),) = seen
    assert previous.tolist() == [0.5, -0.25] and size.tolist() == [40 / 32, 20 / 32]


# Looking around


def looked(first, *others):
    """The target after a frame whose views give these (score, verdict), and the view that it took."""
    views = [view(centre_yx=(50.0, 60.0 + 10 * number)) for number in range(1 + len(others))]
    found = [Localization(np.zeros(2), *one) for one in (first, *others)]
    one = bare(params=TrackerParams(looks_around=2, clear_score=0.4))
    number = lambda seen: next(k for k, each in enumerate(views) if each is seen)  # noqa: E731
    one._judge = lambda seen: (seen, None, found[number(seen)])
    one.localise(views, (100, 200, 3))
    return one, number(one.view)


def test_the_clearest_view_is_taken_where_the_usual_one_is_empty():
    one, taken = looked((0.1, "not_found"), (0.5, "normal"), (0.7, "normal"))
    assert taken == 2 and one.found.verdict == "uncertain" and one.lost_for == 0  # refined, but not learned
    assert one.position.tolist() == [50.0, 80.0]


@pytest.mark.parametrize("other", [(0.39, "normal"), (0.9, "hard_negative"), (0.9, "uncertain"), (0.1, "not_found")])
def test_what_is_not_clear_leaves_the_target_lost(other):
    one, taken = looked((0.1, "not_found"), other)
    assert taken == 0 and one.found.verdict == "not_found" and one.lost_for == 1
    assert one.position.tolist() == [50.0, 60.0]


def test_the_usual_view_goes_first():
    one, taken = looked((0.3, "normal"), (0.9, "normal"))
    assert taken == 0 and one.found.verdict == "normal"


def test_only_lost_targets_look_around():
    frame = np.zeros((100, 200, 3), np.uint8)
    params = TrackerParams(sample_size=16, looks_around=2)
    counts = [len(bare(params=params, lost_for=frames).search(frame)) for frames in (0, 1, 7)]
    assert counts == [1, 3, 3]
    assert len(bare(params=params.replace(looks_around=0), lost_for=3).search(frame)) == 1


# Refining, glancing


def test_the_best_three_boxes_are_averaged():
    boxes = torch.tensor([[k, 2.0 * k, 10.0 + k, 20.0] for k in range(10)])
    f = torch.tensor([0.0, 9, 1, 8, 2, 7, 3, 4, 5, 6])
    best = refine._average_of_the_best(boxes, f, TrackerParams())
    assert torch.equal(best, boxes[[1, 3, 5]].mean(0))


@pytest.mark.parametrize("size, scale, calm", [(180.0, 2.0, True), (200.0, 2.0, False), (95.0, 1.0, True)])
def test_a_target_is_glanced_at_where_it_fills_at_most_half_of_the_glance(size, scale, calm):
    """Of 288 pixels a glance sees 192: half of them are 96 pixels of the region."""
    found = Localization(np.zeros(2), 0.9, "normal")
    params = TrackerParams(sample_size=288)
    one = bare(params=params, glances=4, phase=0, frame=2, found=found, inner_power=torch.ones(()), scale=scale)
    one.size = np.array([size, size / 2])
    assert glance.suffices(one) == calm


def test_frames_without_the_target_are_counted():
    verdicts = iter(["not_found", "not_found", "normal", "not_found"])
    one, counts = bare(), []
    one._judge = lambda seen: (seen, None, Localization(np.zeros(2), 0.9, next(verdicts)))
    for _ in range(4):
        one.localise([view()], (100, 200, 3))
        counts.append(one.lost_for)
    assert counts == [1, 2, 0, 1]
