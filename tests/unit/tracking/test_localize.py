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
