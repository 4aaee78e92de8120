"""The intervals of the tracker's box: laws of the density, of the tracker that gives it, and of both engines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ebmtrack.energy.proposals import importance
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from ebmtrack.tracking.uncertainty import (
    REACH,
    BoxDensity,
    displaced_boxes,
    importance_weights,
    lost_probability,
    relative_offsets,
    student_reach,
)
from tests.support import REPOSITORY
from tests.support.golden import FEW_VIEWS, dimp18, image

PARAMS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0, **FEW_VIEWS)
SURE = PARAMS.replace(interval_samples=32)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(4)]
BOX = (90.0, 60.0, 44.0, 52.0)
DENSITY = BoxDensity(np.array([10.0, 20, 50, 90]), np.zeros(4), np.ones(4), np.array([1.0, 2, 3, 4]), 5.0, 0.5)


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def results_of(engine, params, frames=FRAMES, box=BOX):
    tracker = Tracker(engine, params)
    tracker.init(frames[0], box, seed=3)
    return [tracker.update(frame) for frame in frames[1:]]


def test_intervals_contain_the_side_and_widen_with_p():
    levels = (1e-6, 0.1, 0.5, 0.9, 0.999999)
    intervals = np.stack([DENSITY.interval(p) for p in levels])
    low, high = intervals[..., 0], intervals[..., 1]
    assert (low <= DENSITY.box_xyxy).all() and (high >= DENSITY.box_xyxy).all()
    assert (np.diff(high - low, axis=0) > 0).all()
    assert np.allclose((high - low) / (high - low)[:, :1], DENSITY.scale_xyxy)


def test_intervals_move_with_the_box():
    shift = np.array([7.0, -3, 7, -3])
    moved = dataclasses.replace(DENSITY, box_xyxy=DENSITY.box_xyxy + shift)
    assert np.allclose(moved.interval(0.8), DENSITY.interval(0.8) + shift[:, None])


@pytest.mark.parametrize("probability", [0, 1, -0.1, 1.5, float("nan")])
def test_a_probability_is_between_0_and_1(probability):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        DENSITY.interval(probability)


def test_student_reach_is_the_quantile_of_samples():
    samples = np.abs(np.random.default_rng(0).standard_t(2, 200_000))
    for p in (0.5, 0.8, 0.95):
        assert (samples < student_reach(p)).mean() == pytest.approx(p, abs=0.005)


def test_offsets_begin_at_the_box_and_stay_within_reach():
    offsets, log_q = relative_offsets(32)
    assert offsets.shape == (32, 4) and not offsets[0].any() and log_q[0] == log_q.max()
    boxes = displaced_boxes(np.array([5.0, 6, 40, 80]), offsets)
    assert np.allclose(boxes[0], [5, 6, 40, 80])
    sides = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - [5, 6, 45, 86]
    assert (np.abs(sides) <= REACH * np.array([40, 80, 40, 80]) + 1e-9).all()
    assert len(np.unique(offsets, axis=0)) == 32 and np.abs(offsets.mean(axis=0)).max() < 0.02


def test_weights_are_those_of_the_proposals():
    """The same numbers as energy/proposals.py; adding a constant to f changes nothing; NaN weighs nothing."""
    random = np.random.default_rng(1)
    f, log_q = 5 * random.standard_normal(20), random.standard_normal(20)
    weights = importance_weights(f, log_q)
    assert np.allclose(weights, importance(torch.tensor(f), torch.tensor(log_q)).log_w.exp().numpy())
    assert np.allclose(importance_weights(f + 1000, log_q), weights)
    f[3] = np.nan
    assert importance_weights(f, log_q)[3] == 0 and importance_weights(f, log_q).sum() == pytest.approx(1)
    assert np.allclose(importance_weights(np.full(20, np.nan), log_q), 1 / 20)


def test_boxes_are_the_same_to_the_bit_with_and_without(engine):
    plain, sure = results_of(engine, PARAMS), results_of(engine, SURE)
    assert [one.box_xywh for one in plain] == [one.box_xywh for one in sure]
    assert all(np.array_equal(one.score_map, other.score_map) for one, other in zip(plain, sure))
    assert all(one.density is None for one in plain)
    for one in sure:
        x, y, w, h = one.box_xywh
        assert one.interval(0.5).mean(axis=1) == pytest.approx([x, y, x + w, y + h])
        assert (one.density.deviation_xyxy > 0).all() and 0 < one.density.effective_frac <= 1


def test_a_shifted_video_has_shifted_intervals(engine):
    """By a whole number of pixels, far from the image's edges: the crops are the same."""
    canvas = [np.pad(frame, ((320, 320), (320, 320), (0, 0)), mode="edge") for frame in FRAMES]
    shifted = [np.roll(frame, (8, 16), (0, 1)) for frame in canvas]
    here = results_of(engine, SURE, canvas, (410.0, 380.0, 44.0, 52.0))[0]
    there = results_of(engine, SURE, shifted, (426.0, 388.0, 44.0, 52.0))[0]
    shift = np.array([16, 8, 16, 8])[:, None]
    assert np.allclose(there.interval(0.9), here.interval(0.9) + shift, atol=1e-3)


def test_several_targets_have_the_intervals_of_each_alone(engine):
    tracker = MultiTracker(engine, SURE, inner_looks=0)
    ids = [tracker.add(FRAMES[0], box, seed=3) for box in (BOX, (30.0, 90.0, 40.0, 40.0))]
    together = tracker.update(FRAMES[1])
    alone = results_of(engine, SURE, FRAMES[:2])[0]
    assert np.allclose(together[ids[0]].interval(0.9), alone.interval(0.9), atol=1e-3)


def test_without_the_setting_or_the_target_there_is_no_interval(engine):
    with pytest.raises(ConfigError, match="interval_samples"):
        results_of(engine, PARAMS)[0].interval(0.9)
    lost = results_of(engine, SURE.replace(not_found_threshold=1e9))[0]
    assert lost.verdict == "not_found" and np.isnan(lost.interval(0.9)).all()
    with pytest.raises(ConfigError, match="above 0 and below 1, got 1.5"):
        lost.interval(1.5)
    with pytest.raises(ConfigError, match="interval_samples=7: take 0"):
        SURE.replace(interval_samples=7)
    assert SURE.replace(interval_samples=8).interval_samples == 8


def test_both_engines_agree():
    """The network that ships, in float32 and exported (float16 weights), without the climb's differences."""
    found = []
    for engine, precision in (("torch", "float32"), ("onnx", "auto")):
        params = SURE.replace(sample_size=288, ascent_steps=0, size_jitter=0.0, position_jitter=0.0, calibration=0.0)
        tracker = Tracker.from_pretrained(params, device="cpu", precision=precision, engine=engine)
        tracker.init(FRAMES[0], BOX, seed=3)
        found.append(tracker.update(FRAMES[1]).density)
    torch_density, onnx_density = found
    assert onnx_density.interval(0.9) == pytest.approx(torch_density.interval(0.9), abs=0.2)
    assert onnx_density.deviation_xyxy == pytest.approx(torch_density.deviation_xyxy, rel=0.02)
    assert onnx_density.energy == pytest.approx(torch_density.energy, abs=0.05)


def test_a_lower_score_is_more_likely_a_loss(engine):
    chances = [lost_probability(score, PARAMS) for score in (-1e9, 0.0, 0.3, 1.0, 1e9)]
    assert chances == sorted(chances, reverse=True) and 0 < chances[-1] and chances[0] < 1
    assert lost_probability(0.3, PARAMS.replace(lost_logit=None)) is None
    result = results_of(engine, PARAMS, FRAMES[:2])[0]
    assert result.lost_probability == lost_probability(result.score, PARAMS)


def test_the_page_on_uncertainty_runs_as_written(capsys):
    """The tracker's example in docs/uncertainty.md, of twenty lines."""
    page = (REPOSITORY / "docs" / "uncertainty.md").read_text("utf-8")
    (block,) = (part for part in page.split("```python\n") if "from ebmtrack import Tracker" in part)
    code = block.split("```")[0]
    assert len(code.strip().splitlines()) <= 20
    exec(compile(code, "uncertainty.md", "exec"), {})


def test_shipped_set_ups_are_calibrated_and_others_not():
    for name in ("dimp18_nce_plus", "lite_nce_plus"):
        assert load_params(name).lost_logit is not None and load_params(name).interval_scale[1] > 0
    assert load_params("dimp50_nce_plus").lost_logit is None and load_params("lite_nce_plus") != PARAMS
