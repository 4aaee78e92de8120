"""The climb of boxes on energies that are known."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack.engines.base import Ascent
from ebmtrack.engines.box_ascent import DefaultSpace, RelativeSpace, climb_boxes, corners


class KnownEnergies:
    """Energies that depend on x alone, by a table; slopes in x by a table, elsewhere flat."""

    def __init__(self, table: dict[int, float], slopes: dict[int, float]):
        self.table, self.slopes = table, slopes

    def gradient(self, boxes_xyxy):
        slope = np.zeros_like(boxes_xyxy)
        slope[..., 0] = [[self.slopes.get(round(float(x)), 0.0) for x in row] for row in boxes_xyxy[..., 0]]
        return slope

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


def test_gradients_follow_the_chain_rule_in_both_spaces():
    """df/dx = gx0 + gx1 and df/dw = gx1 for x, y, w, h, times the size in DiMP's space; in relative coordinates
    df/dv = w0 (gx0 + gx1) and df/dlog w = w (gx1 - gx0) / 2."""
    of_corners, box = np.array([[[1.0, 2.0, 10.0, 20.0]]]), np.array([[[5.0, 6.0, 3.0, 4.0]]])
    assert DefaultSpace().gradient(of_corners, box).tolist() == [[[11 * 3, 22 * 4, 10 * 3, 20 * 4]]]
    space = RelativeSpace(np.array([[[0.0, 0.0, 7.0, 8.0]]]), np.exp)
    assert space.gradient(of_corners, box).tolist() == [[[11 * 7, 22 * 8, 3 * 9 / 2, 4 * 18 / 2]]]


def test_relative_coordinates_there_and_back():
    """Positions are relative to the size of the first box."""
    boxes = np.array([[[5.0, 6.0, 4.0, 8.0], [1.0, 2.0, 10.0, 20.0]]])
    space = RelativeSpace(boxes, np.exp)
    y = space.start(boxes, np.log)
    assert y[0, 1] == pytest.approx([6 / 4, 12 / 8, np.log(10), np.log(20)])
    assert np.allclose(space.boxes(y), boxes)
    assert corners(boxes)[0, 0].tolist() == [5, 6, 9, 14]
