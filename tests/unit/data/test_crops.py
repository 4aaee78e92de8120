"""Crops: pytracking's patches to a grey level, its coordinates exactly, and laws of the two cutting rules."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebmtrack.data.crops import box_in_window, crop_around, crop_window, search_side, take_every
from ebmtrack.errors import ConfigError
from tests.support.golden import DATA, image

FRAME = image("frame", 240, 320)


def golden_cases():
    with np.load(DATA / "golden_common.npz") as file:
        cases = json.loads(str(file["crop/cases.json"]))
        return [(c, file[f"crop/{i}/coords"][0], file[f"crop/{i}/patch_sub8"]) for i, c in enumerate(cases)]


@pytest.mark.parametrize("case, coords, patch", golden_cases())
def test_golden_patches(case, coords, patch):
    position, side, output, border, change = case
    crop = crop_around(FRAME, position, side, output, border, change or 1.5)
    assert np.array_equal([*crop.top_left_yx, *crop.bottom_right_yx], coords)
    assert np.abs(crop.patch[::8, ::8].transpose(2, 0, 1).astype(float) - patch).max() <= 1.0


def test_the_two_rules_on_an_even_side():
    """Side 288 at (240, 320) inside a larger image: 289 pixels from 96.5 today, 288 pixels from 97 before May 2022."""
    frame = image("large", 600, 700)
    head = crop_around(frame, (240, 320), (288, 288), (289, 289))
    old = crop_around(frame, (240, 320), (288, 288), (288, 288), rule="pre2022")
    assert head.top_left_yx == (96.5, 176.5) and head.bottom_right_yx == (385, 465)
    assert np.array_equal(head.patch, frame[96:385, 176:465])
    assert old.top_left_yx == (97, 177) and np.array_equal(old.patch, frame[97:385, 177:465]) and old.scale == 1


@pytest.mark.parametrize("centre", [(120, 160), (3, 5), (-20, 100), (260, 400)])
@pytest.mark.parametrize("side", [31, 181, 301])
def test_odd_sides_are_equal_under_both_rules(centre, side):
    crops = [crop_around(FRAME, centre, (side, side), (side, side), rule=rule) for rule in ("head", "pre2022")]
    rows = np.clip(np.arange(centre[0] - side // 2, centre[0] + side // 2 + 1), 0, 239)
    columns = np.clip(np.arange(centre[1] - side // 2, centre[1] + side // 2 + 1), 0, 319)
    for crop in crops:
        assert np.array_equal(crop.patch, FRAME[rows][:, columns])
        assert np.allclose(crop.centre_yx, centre, atol=0.5)


@pytest.mark.parametrize("rule", ["head", "pre2022"])
@pytest.mark.parametrize("centre, row, column", [((5e4, 5e4), -1, -1), ((100, 5e4), 100, -1), ((5e4, 200), -1, 200)])
def test_a_step_that_leads_beyond_the_image_keeps_its_edge(centre, row, column, rule):
    """Every 3,472nd row and column of 480 x 640, in step with the centre: one pixel, the edge's where none is met."""
    frame = image("edge", 480, 640)
    patch = crop_around(frame, centre, (1e6, 1e6), (288, 288), rule=rule).patch
    assert patch.shape == (288, 288, 3) and (patch == frame[row, column]).all()


def test_inside_major_stays_inside_where_it_fits():
    for centre in [(0, 0), (239, 319), (120, 10)]:
        crop = crop_around(FRAME, centre, (101, 101), (64, 64), "inside_major")
        assert min(crop.top_left_yx) >= 0 and np.all(np.less_equal(crop.bottom_right_yx, (240, 320)))


@pytest.mark.parametrize("window", [(40.0, 30.0, 96.0, 96.0), (-30.5, 10.25, 120.0, 90.0), (250, 200, 400.0, 500.0)])
def test_a_marked_point_lands_where_the_box_says(window):
    """A bright dot of 9 x 9 pixels: its centre of mass in the patch is the centre of its box in the patch."""
    frame = np.zeros((240, 320, 3), np.uint8)
    box = np.array([max(window[0], 0) + 40.0, max(window[1], 0) + 20.0, 9, 9])
    x, y = int(box[0]), int(box[1])
    frame[y : y + 9, x : x + 9] = 255
    patch = crop_window(frame, window, 96).astype(float)[..., 0]
    expected = box_in_window(np.array([x, y, 9, 9]), window, 96)
    mass = patch / patch.sum()
    yy, xx = np.mgrid[0:96, 0:96]
    centre = [(mass * xx).sum() + 0.5, (mass * yy).sum() + 0.5]  # pixel i of the patch covers [i, i + 1)
    assert np.allclose(centre, expected[:2] + expected[2:] / 2, atol=0.25)


def test_unknown_border_is_refused():
    with pytest.raises(ConfigError, match="inside_major"):
        crop_around(FRAME, (1, 1), (9, 9), (9, 9), border="mirror")


@pytest.mark.parametrize("side, output", [(60, 24), (301, 100), (433.3, 288), (500.7, 288), (100.5, 288)])
def test_windows_are_resampled_where_they_lie(side, output):
    """On a ramp, whose value is its column, every crop pixel holds the column of its centre to a tenth of a pixel:
    x + (i + 1/2) w / n - 1/2, also where the window is averaged down."""
    ramp = np.tile(np.arange(600, dtype=np.float32)[None, :, None], (600, 1, 3))
    patch = crop_window(ramp, (10.3, 10.3, side, side), output)
    expected = 10.3 + (np.arange(output) + 0.5) * side / output - 0.5
    np.testing.assert_allclose(patch[output // 2, 2:-2, 0], expected[2:-2], atol=0.1)


@pytest.mark.parametrize("side, rows_skipped", [(105, False), (107, False), (111, True)])
def test_rows_are_skipped_from_a_ratio_of_two_and_a_tenth(side, rows_skipped):
    """pytracking's factor is int(side / output - 0.1): an image of stripes one pixel wide keeps both of its values."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[1::2] = 255
    patch = crop_around(stripes, (200, 200), (side, side), (51, 51)).patch
    assert (len(np.unique(patch)) == 1) == rows_skipped


@pytest.mark.parametrize("rule", ["head", "pre2022"])
def test_a_crop_of_skipped_rows_moves_with_its_centre(rule):
    """Rows are taken in step with the centre: an image moved by a pixel with its centre gives the same patch."""
    frame = image("step", 400, 400)
    still, moved = (
        crop_around(np.roll(frame, by, axis=(0, 1)), (200 + by, 200 + by), (212, 212), (100, 100), rule=rule).patch
        for by in (0, 1)
    )
    assert (still == moved).all()


def test_the_search_side_is_rounded_up():
    assert [search_side(size, 5.0) for size in ((4.0, 4.0), (3.0, 3.5))] == [20, 17]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_every_nth_pixel_is_taken(height, width, stride, top, left):
    """Also of a part of an image, whose rows are not side by side in memory."""
    image = np.random.default_rng(0).integers(0, 256, (height + top, width + left, 3), dtype=np.uint8)[top:, left:]
    assert np.array_equal(take_every(image, stride), image[::stride, ::stride])


@pytest.mark.parametrize("side", [2**15 - 1, 2**15, 40_000])
def test_every_nth_pixel_of_a_wide_image_is_taken(side):
    image = np.random.default_rng(0).integers(0, 256, (3, side, 3), dtype=np.uint8)
    assert np.array_equal(take_every(image, 7), image[::7, ::7])


@pytest.mark.parametrize("stride", [2, 3, 7, 49, 93, 123])
def test_every_nth_pixel_of_whole_multiples_is_taken(stride):
    image = np.random.default_rng(0).integers(0, 256, (5 * stride, 57 * stride, 3), dtype=np.uint8)
    assert np.array_equal(take_every(image, stride), image[::stride, ::stride])
