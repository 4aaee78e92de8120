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


# An object that was seen beside the target in the last frame; places (y, x) from the middle (9, 9), size 3 cells.

REMEMBERING = TrackerParams(distractor_share=0.25)
HIGHER_BESIDE = scores((9, 13, 0.9), (9, 9, 0.6))


def place(y: float, x: float) -> np.ndarray:
    return np.array([y, x], float)


def test_a_higher_peak_where_another_object_was_is_not_the_target():
    found = localize(HIGHER_BESIDE, SIZE, place(0, 0), REMEMBERING, place(0, 4))
    assert found.verdict == "hard_negative" and found.score == np.float32(0.6)
    assert found.displacement_yx.tolist() == [0, 0] and found.distractor_yx.tolist() == [0, 4]


def test_the_objects_may_have_moved_by_less_than_the_targets_size():
    """Its size is the root of its area: 8 x 2 cells are 4."""
    maps = scores((9, 15, 0.9), (9, 9, 0.6))
    for target, distractor, size, expected in (
        (place(2.9, 0), place(0, 8.9), (3, 3), 0),
        (place(0, 3.1), place(0, 6), (3, 3), 6),
        (place(0, 0), place(0, 9.1), (3, 3), 6),
        (place(0, 0), place(0, 9.1), (8, 2), 0),
    ):
        found = localize(maps, np.array(size, float), target, REMEMBERING, distractor)
        assert found.displacement_yx.tolist() == [0, expected]


def test_both_objects_together_move_as_little_as_they_can():
    """The target at 2.5 and the other one at 1.5: going on to 4 and 0 is a move of 3 cells, changing places of 5."""
    assert localize(HIGHER_BESIDE, SIZE, place(0, 2.5), REMEMBERING, place(0, 1.5)).displacement_yx.tolist() == [0, 4]
    assert localize(HIGHER_BESIDE, SIZE, place(0, 1.5), REMEMBERING, place(0, 2.5)).displacement_yx.tolist() == [0, 0]


@pytest.mark.parametrize("second, least", [(0.45, 0.25), (0.6, 0.61)], ids=["half", "least score"])
def test_a_second_peak_that_is_no_hard_negative_is_not_taken(second, least):
    """Of at most half the first one's height, or too low for a target that is found."""
    maps = scores((9, 13, 0.9), (9, 9, second))
    params = REMEMBERING.replace(not_found_threshold=least)
    assert localize(maps, SIZE, place(0, 0), params, place(0, 4)).displacement_yx.tolist() == [0, 4]


@pytest.mark.parametrize(
    "maps, previous, verdict, distractor",
    [
        (scores((9, 9, 0.8), (9, 14, 0.21)), (0, 0), "normal", (0, 5)),
        (scores((9, 9, 0.8), (9, 14, 0.2)), (0, 0), "normal", None),
        (scores((9, 9, 0.9), (2, 2, 0.5)), (0, 0), "hard_negative", (-7, -7)),
        (scores((9, 9, 0.9), (13, 9, 0.8)), (0, 0), "uncertain", (4, 0)),
        (scores((18, 18, 0.9), (9, 9, 0.8)), (0, 0), "hard_negative", (9, 9)),
        (scores((9, 9, 0.2), (2, 2, 0.19)), (0, 0), "not_found", None),
    ],
    ids=["above a quarter", "a quarter", "hard", "both near", "rival near", "not found"],
)
def test_the_other_peak_is_remembered(maps, previous, verdict, distractor):
    """Above a quarter of the score; if the nearer of two rivals is followed, the higher one."""
    found = localize(maps, SIZE, place(*previous), REMEMBERING)
    assert found.verdict == verdict
    assert (None if found.distractor_yx is None else tuple(found.distractor_yx)) == distractor
    assert localize(maps, SIZE, place(*previous), TrackerParams()).distractor_yx is None
