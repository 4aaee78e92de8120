"""The map between an image and a crop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebmtrack.data.crops import CropMap, box_in_window, crop_around

NUMBERS = st.floats(-500, 500)


@given(st.tuples(NUMBERS, NUMBERS), st.tuples(st.floats(1, 400), st.floats(1, 400)), st.floats(0.1, 9.0))
def test_there_and_back_is_exact(position, size, scale):
    crop_map = CropMap(np.array([120.5, 77.0]), scale, 288)
    back, sides = crop_map.to_image(crop_map.to_crop(np.array(position), np.array(size)))
    assert back == pytest.approx(np.array(position), abs=1e-9) and sides == pytest.approx(np.array(size))


@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_a_shift_goes_too_far_by_pixels_of_the_crop(scale):
    crop_map = CropMap(np.array([104.0, 97.0]), scale, 288, shift=0.5)
    back, _ = crop_map.to_image(crop_map.to_crop(np.array([100.0, 110.0]), np.array([64.0, 36.0])))
    assert back == pytest.approx(np.array([100.0, 110.0]) + 0.5 * scale)


def test_the_middle_of_the_crop_is_its_centre():
    box = CropMap(np.array([50.0, 60.0]), 2.0, 100).to_crop(np.array([50.0, 60.0]), np.array([20.0, 40.0]))
    assert box.tolist() == [40, 45, 20, 10]


def test_several_boxes_are_mapped_as_each_alone():
    crop_map, positions = CropMap(np.array([50.0, 60.0]), 2.0, 100), np.arange(12.0).reshape(3, 2, 2)
    boxes = crop_map.to_crop(positions, positions + 1)
    assert boxes.shape == (3, 2, 4)
    assert np.array_equal(boxes[1, 0], crop_map.to_crop(positions[1, 0], positions[1, 0] + 1))
    back, sizes = crop_map.to_image(boxes)
    assert np.allclose(back, positions) and np.allclose(sizes, positions + 1)


def test_the_map_of_a_crop_finds_what_is_in_its_patch():
    """A white square of 20 pixels at (70, 40), in a crop of half the size around (80, 50)."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:60, 70:90] = 255
    crop = crop_around(image, (50.0, 80.0), (64.0, 64.0), (32, 32), rule="pre2022")
    crop_map = CropMap(crop.centre_yx, crop.scale, 32)
    x, y, w, h = crop_map.to_crop(np.array([49.5, 79.5]), np.array([20.0, 20.0]))
    rows, columns = np.nonzero(crop.patch[..., 0] > 127)
    assert (w, h) == (10, 10)
    assert (x, y) == pytest.approx((columns.min(), rows.min()), abs=0.51)
    assert (x + w, y + h) == pytest.approx((columns.max() + 1, rows.max() + 1), abs=0.51)


@given(st.tuples(NUMBERS, NUMBERS, st.floats(1, 400), st.floats(1, 400)))
def test_a_window_may_have_its_own_scale_per_axis(box):
    """A window of 100 x 50 pixels at (10, 20) in a crop of 200: twice as wide, four times as high."""
    x, y, w, h = box
    assert box_in_window(np.array(box), (10, 20, 100, 50), 200) == pytest.approx(
        [2 * (x - 10), 4 * (y - 20), 2 * w, 4 * h], abs=1e-9
    )
    crop_map = CropMap.of_window((10, 20, 100, 50), 200)
    position, size = crop_map.to_image(box_in_window(np.array(box), (10, 20, 100, 50), 200))
    assert position == pytest.approx([y + (h - 1) / 2, x + (w - 1) / 2], abs=1e-9) and size == pytest.approx([h, w])
