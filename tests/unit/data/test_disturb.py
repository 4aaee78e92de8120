"""Disturbed crops: what changes, what stays, and that the draws decide everything."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack.data.disturb import Disturbance, SampleDisturbance, disturb, draw_sample_disturbance

BOX = np.array([100.0, 110.0, 60.0, 50.0])


class Grey:
    """A store whose cut-outs and photographs have one grey level."""

    def draw_cutout(self, rng):
        return np.full((40, 40, 4), 255, np.uint8)

    def draw_photograph(self, rng):
        return np.full((300, 300, 3), 255, np.uint8)


@pytest.fixture
def patch():
    return np.random.default_rng(0).integers(0, 200, (288, 288, 3), dtype=np.uint8)


def inside(changed, box):
    x, y, w, h = box.astype(int)
    return changed[y : y + h, x : x + w]


def test_occluders_cover_a_part_of_the_target_from_one_side(patch):
    """Between 10 and 60 % of the box become white; the input is not written into."""
    before, calm = patch.copy(), SampleDisturbance(None, 1.0)
    for seed in range(60):
        out = disturb(patch, BOX, calm, 1.0, Grey(), np.random.default_rng(seed))
        covered = inside((out == 255).all(-1), BOX).mean()
        assert 0.05 < covered < 0.6
    assert np.array_equal(patch, before)


def test_look_alikes_leave_the_target_mostly_alone_and_differ_in_colour(patch):
    """A copy is pasted beside the box: pixels change outside, at most a quarter of those inside."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shared = draw_sample_disturbance(Disturbance(look_alike=1.0), patch, BOX, rng)
        changed = (disturb(patch, BOX, shared, 0.0, None, rng) != patch).any(-1)
        assert changed.sum() > 300 and inside(changed, BOX).mean() < 0.25


def test_low_resolution_takes_fine_detail_away(patch):
    """Targets get 10 to 35 pixels: the second difference of neighbours falls, the mean stays."""
    shared = draw_sample_disturbance(Disturbance(low_resolution=1.0), patch, BOX, np.random.default_rng(1))
    assert 10 / 55 < shared.reduction < 35 / 54
    out = disturb(patch, BOX, shared, 0.0, None, np.random.default_rng(2)).astype(float)
    assert np.abs(np.diff(out, 2, axis=0)).mean() < 0.3 * np.abs(np.diff(patch.astype(float), 2, axis=0)).mean()
    assert out.mean() == pytest.approx(patch.mean(), abs=1)


def test_the_generator_decides_everything_and_targets_of_few_pixels_have_no_look_alike(patch):
    settings = Disturbance(0.5, 0.5, 0.5, 0.5)
    outs = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        shared = draw_sample_disturbance(settings, patch, BOX, rng)
        outs.append(disturb(patch, BOX, shared, 0.5, Grey(), rng))
    assert np.array_equal(*outs)
    tiny = np.array([10.0, 10.0, 5.0, 5.0])
    assert (
        draw_sample_disturbance(Disturbance(look_alike=1.0), patch, tiny, np.random.default_rng(0)).look_alike is None
    )
