"""Candidate boxes and the average of the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ebmtrack.engines.base import Ascent
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.refine import ascent_of, average_box, candidate_boxes, usable_boxes

PARAMS = TrackerParams()
BOXES = np.array(
    [
        [0.0, 8, 20, 20],
        [1, 1, 20, 26],
        [2, 9, 26, 20],
        [3, 4, 23, 20],
        [4, 4, 80, 12],
        [5, 5, 12, 80],
        [6, 0, 72, 12],
        [7, 0, 12, 72],
        [8, 0, 40, 10],
    ],
    np.float32,
)


@pytest.mark.parametrize("seed", [0, 3])
def test_candidates_start_with_the_box_and_stay_large_enough(seed):
    """A third of the shorter side is 4; with seed 3 a side would be smaller without that limit."""
    box = np.array([10.0, 20, 90, 12], np.float32)
    boxes = candidate_boxes(box, PARAMS, RandomNumbers(seed))
    assert boxes.shape == (10, 4) and boxes.dtype == np.float32
    assert np.array_equal(boxes[0], box) and boxes[:, 2:].min() >= 4
    assert (boxes[:, 2:] == 4).any() == (seed == 3)
    reach = math.sqrt(90 * 12)
    centres = boxes[:, :2] + boxes[:, 2:] / 2 - (box[:2] + box[2:] / 2)
    assert (np.abs(centres) <= 0.05 * reach + 1e-4).all() and len(np.unique(boxes, axis=0)) == 10


def test_random_numbers_are_drawn_as_pytracking_draws_them():
    """torch.rand(9, 4) of a generator with the same seed explains the candidates."""
    box = np.array([10.0, 20, 30, 40], np.float32)
    boxes = candidate_boxes(box, PARAMS, RandomNumbers(5))
    drawn = (torch.rand(9, 4, generator=torch.Generator().manual_seed(5)).numpy() - 0.5) * math.sqrt(1200)
    assert np.allclose(boxes[1:, 2:], (box[2:] + 0.5 * drawn[:, 2:]).clip(min=10), atol=1e-4)


@pytest.mark.parametrize(
    "energies, count, chosen",
    [
        ([5, 1, 4, 6, 0, 0, 0, 0, 0], 3, [3, 0, 2]),
        ([1, 6, 2, 5, 0, 0, 0, 0, 4], 3, [1, 3, 8]),
        ([5, 1, 4, 6, 0, 0, 0, 0, 0], 1, [3]),
        ([5, 1, 4, 6, 9, 9, 0, 0, 0], 3, [3, 0, 2]),  # 80 x 12 is too flat, 12 x 80 too thin
        ([5, 1, 4, 6, 0, 0, 9, 9, 0], 3, [3, 0, 2]),  # 72 x 12 as well: six times is too much already
        ([5, 1, 4, np.inf, 0, 0, 0, 0, 2], 3, [0, 2, 8]),
        ([np.nan, 1, 4, -5, 9, 9, 9, 9, 2], 3, [2, 8, 1]),
        ([np.nan, 1, np.nan, np.nan, 9, 9, 9, 9, 2], 3, [8, 1]),  # fewer than three are left
        ([np.nan, np.nan, np.nan, np.nan, 9, 9, 9, 9, np.nan], 3, []),
    ],
    ids=str,
)
def test_the_best_boxes_are_averaged(energies, count, chosen):
    energies = np.array(energies, np.float32)
    best, own = usable_boxes(BOXES, energies, PARAMS.max_aspect)
    assert np.array_equal(best[:count], BOXES[chosen]) and np.array_equal(own[:count], energies[chosen])
    average = average_box(BOXES, energies, PARAMS.replace(average_best=count))
    assert np.array_equal(average, BOXES[chosen].mean(axis=0)) if chosen else average is None


def test_boxes_that_are_not_finite_are_never_taken_and_sides_are_at_least_a_pixel():
    boxes = np.array([[0, 0, np.inf, np.inf], [np.nan, 0, 5, 5], [1, 2, 0.1, 3], [0, 0, 5, np.inf]], np.float32)
    assert usable_boxes(boxes, np.zeros(4, np.float32), PARAMS.max_aspect)[0].tolist() == [[1, 2, 1, 3]]


def averaged(energies: list[float], temperature: float) -> np.ndarray:
    """Return the average of the first boxes at a temperature."""
    params = PARAMS.replace(average_temperature=temperature)
    average = average_box(BOXES[: len(energies)], np.array(energies, np.float32), params)
    assert average is not None
    return average


def test_boxes_are_averaged_with_weights_exp_f_over_t():
    """A constant added to f changes nothing; at low T the best box is left, at high T all of them count alike."""
    energies = [5.0, 1, 4, 6]
    weights = np.exp(np.array(energies) / 2)
    assert averaged(energies, 2.0) == pytest.approx(weights / weights.sum() @ BOXES[:4], rel=1e-5)
    assert averaged([e + 900 for e in energies], 2.0) == pytest.approx(averaged(energies, 2.0), rel=1e-5)
    for low in (1e-3, 1e-300):  # which is 0 in float32
        assert averaged(energies, low) == pytest.approx(BOXES[3], rel=1e-5)
    assert averaged(energies, 1e6) == pytest.approx(BOXES[:4].mean(axis=0), rel=1e-5)
    assert averaged([np.nan, 1, np.inf, -1e30], 1.0) == pytest.approx(BOXES[1], rel=1e-5)


def test_the_climb_is_that_of_the_set_up():
    params = PARAMS.replace(ascent_steps=7, position_step=0.1, size_step=0.2, relative_space=False, ascent_momentum=0.3)
    assert ascent_of(params) == Ascent(7, 0.1, 0.2, False, None, 0.3)
