"""Windows and boxes of training crops against 300 random cases of pytracking (HEAD) in each of its two modes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.data.crops import box_in_window, whole_window
from ebmtrack.ltr_settings import dimp18_nce_plus, dimp50_nce_plus, prdimp18

GOLDEN = Path(__file__).parents[2] / "data" / "training_crops.npz"


def search_region(extract_xywh: np.ndarray, factor: float) -> tuple[float, float, float, float]:
    """Return the square region of `factor` target sizes around a jittered box."""
    x, y, w, h = extract_xywh.astype(np.float64).tolist()
    side = math.ceil(math.sqrt(w * h) * factor)
    return x + w / 2 - side / 2, y + h / 2 - side / 2, side, side


@pytest.mark.parametrize("mode, border", [("replicate", "inside"), ("inside_major", "inside_major")])
def test_windows_and_boxes_are_pytrackings(mode: str, border: str) -> None:
    """Every window equals the host's to the pixel, and every box to a thousandth of a pixel."""
    golden = np.load(GOLDEN)
    factor, output = golden[f"{mode}_factor_out"].tolist()
    keys = ("hw", "extract_xywh", "box_xywh", "window_xywh", "box_in_crop_xywh")
    columns = [golden[f"{mode}_{key}"] for key in keys]
    for hw, extract, box, window, box_in_crop in zip(*columns, strict=True):
        found = whole_window(search_region(extract, factor), (int(hw[1]), int(hw[0])), border)
        assert found == tuple(window.astype(int).tolist())
        np.testing.assert_allclose(box_in_window(box.astype(np.float64), found, int(output)), box_in_crop, atol=1e-3)


def test_windows_that_are_padded_differ_where_they_leave_the_image() -> None:
    """The mode of 2019 equals today's in those 65 of the 300 cases whose window is inside, and in no other."""
    golden, same = np.load(GOLDEN), 0
    factor = float(golden["replicate_factor_out"][0])
    columns = [golden[f"replicate_{key}"] for key in ("hw", "extract_xywh", "window_xywh")]
    for hw, extract, window in zip(*columns, strict=True):
        padded = whole_window(search_region(extract, factor), (int(hw[1]), int(hw[0])), "replicate")
        inside = min(padded[:2]) >= 0 and padded[0] + padded[2] <= hw[1] and padded[1] + padded[3] <= hw[0]
        equal = padded == tuple(window.astype(int).tolist())
        assert equal == inside
        same += equal
    assert same == 65


def test_training_files_take_the_rule_of_their_year() -> None:
    """PrDiMP and the runs of BMVC 2020 began after pytracking's change of April 2020."""
    assert prdimp18.CROPS.border == dimp18_nce_plus.CROPS.border == "inside"
    assert dimp50_nce_plus.CROPS.border == "inside_major"
