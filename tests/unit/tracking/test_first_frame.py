"""The first frame: views of the target, dropout, and the size that the energy prefers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebmtrack.tracking.first_frame import augmented_views, blur, crop_centre, rotate, start_target
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.tracking.random_numbers import RandomNumbers
from tests.support.golden import image
from tests.support.scripted_engine import ScriptedEngine

PARAMS = load_params("dimp18")
PICTURE = image("walk", 200, 260)
PLAIN = TrackerParams(sample_size=288, shift_fracs=(), flip=False, blur_sigmas=(), rotations_deg=())
BOX = np.array([92.5, 68.5, 36.0, 64.0])  # 288 pixels are six times the root of its area


def started(**changes) -> ScriptedEngine:
    """Return the engine after a first frame."""
    engine = ScriptedEngine()
    start_target(engine, PLAIN.replace(**changes), np.zeros((400, 400, 3), np.uint8), BOX, seed=0)
    return engine


def test_dropout_keeps_the_mean_of_the_features():
    """Each copy has for each of 64 channels 0 or 1 / 0.8, as torch's dropout does; no two copies are alike."""
    (first,) = started(dropout=0.2, dropout_copies=3).first
    assert first.channel_factors.shape == (3, 64) and first.iterations == 10 and len(first.patches) == 1
    assert set(first.channel_factors.ravel().tolist()) == {0.0, 1.25}
    dropped = first.channel_factors == 0
    assert 0 < dropped.sum() < 3 * 32 and (dropped[0] != dropped[1]).any()


def test_boxes_of_the_first_frame_move_with_the_content():
    """0.6 of 144 is 86 pixels: down and to the left. In the middle of 288 pixels, 36 x 64 begin at (126, 112)."""
    (first,) = started(shift_fracs=((0.6, -0.6),)).first
    assert first.boxes_xyxy.tolist() == [[126, 112, 162, 176], [126 - 86, 112 + 86, 162 - 86, 176 + 86]]


@pytest.mark.parametrize("size, capacity", [(50, 50), (2, 3)])
def test_there_is_room_for_all_samples_of_the_first_frame(size, capacity):
    assert started(memory_size=size).first[0].capacity == capacity


def test_views_have_the_set_and_order_of_dimp():
    patches, shifts, turns, crop_map = augmented_views(PICTURE, np.array([90.0, 110.0]), 0.8, PARAMS, RandomNumbers(0))
    assert patches.shape == (13, 288, 288, 3) and patches.dtype == np.float32
    assert shifts[:5].tolist() == [[0, 0], [86, 86], [-86, 86], [86, -86], [-86, -86]]  # 0.6 * 144 = 86.4
    drawn = (torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 288 / 3
    assert shifts[5:].tolist() == drawn.trunc().long().tolist()
    assert np.array_equal(patches[1][86:, 86:], patches[0][:-86, :-86])


def test_transforms():
    patch = np.random.default_rng(0).uniform(0, 255, (40, 40, 3)).astype(np.float32)
    assert np.array_equal(crop_centre(patch, 20, (0, 0)), patch[10:30, 10:30])
    assert np.array_equal(crop_centre(patch, 20, (3, -2)), patch[7:27, 12:32])
    assert np.array_equal(crop_centre(patch, 20, (15, 0))[:5], np.repeat(patch[:1, 10:30], 5, axis=0))
    assert np.allclose(rotate(rotate(patch, 0), 0), patch)
    assert np.allclose(rotate(patch, 90)[5:35, 5:35], np.rot90(patch)[5:35, 5:35], atol=0.5)
    constant = np.full((40, 40, 3), 100, np.float32)
    assert np.allclose(blur(constant, (2, 2))[8:32, 8:32], 100) and blur(constant, (2, 2))[0, 0, 0] < 50
    impulse = np.zeros((41, 41, 3), np.float32)
    impulse[20, 20] = 1
    spread = blur(impulse, (3, 1))[..., 0]
    assert (spread[:, 20] > 0).sum() == 13 and (spread[20] > 0).sum() == 5  # radius ceil(2 sigma): 6 and 2


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_excess_is_a_share_of_the_first_frames_difference_and_limited(share):
    """The energy of the script likes boxes of 54 x 320, for one of 36 x 64: 1.5 and 5 times; at most e^0.5. It likes
    them 12 pixels to the right, a third of the width, and 64 pixels higher, a whole height; at most a quarter."""
    engine, centre = ScriptedEngine(), np.array([144 + 12, 144 - 64], np.float32)
    size = np.array([54, 320], np.float32)
    engine.arrive = lambda boxes: np.full_like(boxes, 1) * np.concatenate([centre - size / 2, size])
    params = PLAIN.replace(calibration=share, centre_calibration=(share / 2, share))
    state = start_target(engine, params, np.zeros((400, 400, 3), np.uint8), BOX, seed=0)
    assert state.log_excess_hw == pytest.approx([0.5 * share, np.log(1.5) * share], rel=5e-3)  # whole pixels are cut
    assert state.excess_yx == pytest.approx([-0.25 * share / 2, 0.25 * share], rel=1e-4)
    assert len(engine.climbed) == (3 if share else 0)


@pytest.mark.parametrize("size, centre", [(1.0, (0.0, 0.0)), (0.0, (0.0, 1.0)), (0.0, (1.0, 0.0))])
def test_size_and_centre_are_calibrated_each_for_itself(size, centre):
    """What is asked for alone is measured; the rest is 0."""
    engine = ScriptedEngine()
    engine.arrive = lambda boxes: boxes * np.array([1, 1, 1.1, 1.2], np.float32) + np.array([3, 2, 0, 0], np.float32)
    params = PLAIN.replace(calibration=size, centre_calibration=centre)
    state = start_target(engine, params, np.zeros((400, 400, 3), np.uint8), BOX, seed=0)
    assert len(engine.climbed) == 3
    assert state.log_excess_hw.all() == bool(size) == state.log_excess_hw.any()
    assert state.excess_yx.astype(bool).tolist() == [bool(share) for share in centre]
