"""The verdicts of localisation."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack.tracking.localize import localize
from ebmtrack.tracking.params import TrackerParams
from tests.support.scripted_engine import scores

SIZE = np.array([3.0, 3.0])
CASES = {
    "low": (scores((9, 9, 0.2)), (0, 0), "not_found", (0, 0)),
    "one": (scores((8, 11, 0.9)), (0, 0), "normal", (-1, 2)),
    "second is weak": (scores((9, 9, 0.9), (2, 2, 0.4)), (0, 0), "normal", (0, 0)),
    "second is strong": (scores((9, 9, 0.9), (2, 2, 0.5)), (0, 0), "hard_negative", (0, 0)),
    "within the neighbourhood": (scores((9, 9, 0.9), (10, 12, 0.85)), (0, 0), "normal", (0, 0)),
    "rival far, first near": (scores((9, 9, 0.9), (18, 18, 0.8)), (0, 0), "hard_negative", (0, 0)),
    "rival near, first far": (scores((18, 18, 0.9), (9, 9, 0.8)), (0, 0), "hard_negative", (0, 0)),
    "both near": (scores((9, 9, 0.9), (13, 9, 0.8)), (0, 0), "uncertain", (0, 0)),
    "both far": (scores((0, 0, 0.9), (0, 18, 0.8)), (9, 0), "uncertain", (-9, -9)),
}


@pytest.mark.parametrize("scores, previous, verdict, displacement", CASES.values(), ids=CASES)
def test_verdicts(scores, previous, verdict, displacement):
    """19 x 19 map: near means within 0.8 * 19 / 2 = 7.6 cells of the last position; neighbourhood 2.2 * 3 cells."""
    found = localize(scores, SIZE, np.array(previous, float), TrackerParams())
    assert found.verdict == verdict and np.array_equal(found.displacement_yx, displacement)


BETWEEN = TrackerParams(between_cells=True)


def peaked(centre_yx: tuple[float, float], height: float = 0.9, size: int = 19) -> np.ndarray:
    """Return a map (size, size) that falls off as a parabola around a place, down to zero."""
    y, x = np.mgrid[:size, :size]
    return np.maximum(height - 0.1 * ((y - centre_yx[0]) ** 2 + (x - centre_yx[1]) ** 2), 0).astype(np.float32)


@pytest.mark.parametrize("place", [(9.0, 9.0), (9.3, 8.6), (8.51, 10.49), (3.2, 14.8)], ids=str)
def test_a_peak_between_cells_is_found(place):
    found = localize(peaked(place), SIZE, np.zeros(2), BETWEEN)
    assert found.displacement_yx == pytest.approx(np.array(place) - 9, abs=1e-5)
    coarse = localize(peaked(place), SIZE, np.zeros(2), TrackerParams())
    assert coarse.displacement_yx.tolist() == np.round(np.array(place) - 9).tolist()
    assert (found.score, found.verdict) == (coarse.score, coarse.verdict)


def test_the_rival_that_is_followed_is_placed_between_cells():
    near, far = (9.2, 8.7), (1.0, 17.0)
    found = localize(np.maximum(peaked(near, 0.8), peaked(far)), SIZE, np.zeros(2), BETWEEN)
    assert found.verdict == "hard_negative" and found.displacement_yx == pytest.approx([0.2, -0.3], abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_peak_is_never_moved_out_of_its_cell_or_at_the_edge(seed):
    """In any map, a plateau included."""
    rng = np.random.default_rng(seed)
    for some in (rng.normal(size=(7, 7)), np.ones((7, 7)), np.eye(7) + 1):
        found = localize(some.astype(np.float32), SIZE, np.zeros(2), BETWEEN)
        coarse = localize(some.astype(np.float32), SIZE, np.zeros(2), BETWEEN.replace(between_cells=False))
        shift = found.displacement_yx - coarse.displacement_yx
        assert (np.abs(shift) <= 0.5).all() and (shift[np.abs(coarse.displacement_yx) == 3] == 0).all()
