"""The climb of boxes on energies that are known."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from ebmtrack.engines.base import Ascent, AspectPrior
from ebmtrack.engines.box_ascent import DefaultSpace, RelativeSpace, climb_boxes, corners


class KnownEnergies:
    """Energies that depend on x alone, by a table; slopes in x by a table, elsewhere flat."""

    def __init__(self, table: dict[int, float], slopes: dict[int, float]):
        self.table, self.slopes = table, slopes

    def gradient(self, boxes_xyxy):
        slope = np.zeros_like(boxes_xyxy)
        slope[..., 0] = [[self.slopes.get(round(float(x)), 0.0) for x in row] for row in boxes_xyxy[..., 0]]
        return slope

    def look_at(self, boxes_xyxy):
        """Need nothing: all energies are known."""

    def value_and_gradient(self, boxes_xyxy):
        values = [[self.table[round(float(x))] for x in row] for row in boxes_xyxy[..., 0]]
        return np.array(values, np.float32), self.gradient(boxes_xyxy)


@pytest.mark.parametrize("steps, arrived, before", [(0, 4, 1), (1, 10, 1), (2, 10, 9)])
def test_energies_are_those_before_the_last_step(steps, arrived, before):
    """The box at x = 4 climbs from 1 to 9, to x = 10, and stays there; the one at x = 12 stays at 2."""
    energies = KnownEnergies({4: 1.0, 10: 9.0, 12: 2.0}, {4: 6.0})
    boxes = np.array([[[4.0, 0, 10, 10], [12, 0, 10, 10]]], np.float32)  # a step of 0.1, in units of the size, is 1
    climb = climb_boxes(energies, boxes, Ascent(steps, 0.1, 0.1, False))
    assert climb.boxes_xywh[0, :, 0] == pytest.approx([arrived, 12])
    assert climb.energies.tolist() == [[before, 2]]


def test_steps_follow_the_chain_rule_in_both_spaces():
    """df/dx = gx0 + gx1 and df/dw = gx1 for x, y, w, h, times the size in DiMP's space; in relative coordinates
    df/dv = w0 (gx0 + gx1) with x + w / 2 = w0 v, and df/dlog w = w (gx1 - gx0) / 2."""
    of_corners, boxes = np.array([[[0.0] * 4, [1.0, 2.0, 10.0, 20.0]]]), np.array([[[0, 0, 7, 8], [5.0, 6, 3, 4]]])
    space = DefaultSpace(boxes, Ascent(1, 0.1, 0.01, False), np.exp, np.log)
    space.move(of_corners)
    assert (space.boxes() - boxes)[0, 1] == pytest.approx([11 * 0.3, 22 * 0.4, 10 * 0.03, 20 * 0.04])
    relative = RelativeSpace(boxes, Ascent(1, 0.1, 0.01, True), np.exp, np.log)
    relative.corners()
    relative.move(of_corners)
    moved = relative.boxes()[0]
    assert moved[0] == pytest.approx(boxes[0, 0])
    assert moved[1, 2:] == pytest.approx([3 * np.exp(0.01 * 3 * 9 / 2), 4 * np.exp(0.01 * 4 * 18 / 2)])
    assert moved[1, :2] + moved[1, 2:] / 2 == pytest.approx([6.5 + 0.1 * 7 * 7 * 11, 8 + 0.1 * 8 * 8 * 22])


@pytest.mark.parametrize("space", [RelativeSpace, DefaultSpace])
def test_momentum_makes_a_share_of_each_step_again(space):
    """On a constant slope the n-th step is (1 + b + ... + b^(n-1)) times the first one, in each coordinate."""
    boxes = np.array([[[0.0, 0, 10, 20], [3.0, 1, 8, 8]]])
    ascent = Ascent(5, 0.01, 0.02, space is RelativeSpace, momentum=0.4)
    made = space(boxes, ascent, np.exp, np.log)
    slope, places = np.array([[[1.0, -2, 3, 0.5]] * 2]), []
    for _ in range(5):
        size = made.boxes()[..., 2:]
        places.append(coordinates(made.boxes(), space))
        made.corners()
        made.move(slope / np.concatenate([size, size], axis=-1) if space is DefaultSpace else along(size))
    steps = np.diff(np.stack([*places, coordinates(made.boxes(), space)]), axis=0)
    growth = np.cumsum(0.4 ** np.arange(5))
    assert (steps[0] != 0).all() and np.allclose(steps, steps[0] * growth[:, None, None, None])


def coordinates(boxes, space):
    """Return what a space steps in, but for constant factors: centres and log sizes, or x, y, w, h."""
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    return np.concatenate([centres, np.log(boxes[..., 2:])], axis=-1) if space is RelativeSpace else boxes


def along(size):
    """Return a gradient by x0, y0, x1, y1 whose slope by centre and log size is the same for all sizes."""
    return np.concatenate([0.7 - 0.5 / size, 0.7 + 0.5 / size], axis=-1)


@pytest.mark.parametrize("space", [RelativeSpace, DefaultSpace])
def test_coordinates_there_and_back(space):
    boxes = np.array([[[5.0, 6.0, 4.0, 8.0], [1.0, 2.0, 10.0, 20.0]]])
    made = space(boxes, Ascent(1, 0.1, 0.1, True), np.exp, np.log)
    assert np.allclose(made.boxes(), boxes)
    assert np.allclose(made.corners(), corners(boxes))
    assert corners(boxes)[0, 0].tolist() == [5, 6, 9, 14]


def test_the_aspect_prior_is_student_t_and_its_gradient_is_its_slope():
    """Against SciPy's closed form for two degrees of freedom, (1 + t^2 / 2)^(-3/2), and central differences."""
    prior = AspectPrior(np.array([0.2, -1.0]), 0.5)
    boxes = np.abs(np.random.default_rng(0).normal(30, 9, (2, 5, 4))) + 1
    value, slope = prior.value(boxes), prior.gradient(np.log(boxes[..., 2] / boxes[..., 3]))
    change = (np.log(boxes[..., 2] / boxes[..., 3]) - [[0.2], [-1.0]]) / 0.5
    assert np.allclose(np.exp(value), (1 + change**2 / 2) ** -1.5)
    wider, higher = (boxes * [1, 1, np.exp(a), np.exp(-a)] for a in (5e-5, -5e-5))
    difference = prior.value(wider) - prior.value(higher)
    assert np.allclose(difference / 2e-4, slope, atol=1e-6)


@pytest.mark.parametrize("relative", [True, False])
def test_boxes_climb_and_are_ranked_by_energy_plus_prior(relative):
    """On a flat energy boxes go to the prior's aspect ratio, keep their area, and the nearest ranks first."""
    flat = KnownEnergies(defaultdict(float), {})
    boxes = np.array([[[0.0, 0, 10, 10], [0.0, 0, 20, 10]]], np.float32)
    prior = AspectPrior(np.array([np.log(2.0)]), 0.5)
    start = climb_boxes(flat, boxes, Ascent(0, 0, 0, relative, prior))
    assert start.energies[0, 0] < start.energies[0, 1] == pytest.approx(0, abs=1e-6)
    end = climb_boxes(flat, boxes, Ascent(99, 0.0, 0.05 if relative else 1.0, relative, prior)).boxes_xywh[0]
    assert np.allclose(end[:, 2] / end[:, 3], 2, rtol=1e-2)
    if relative:
        assert np.allclose(end[:, 2] * end[:, 3], [100, 200], rtol=1e-3)
