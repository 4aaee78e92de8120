"""Training crops by DiMP's rule: windows of whole pixels, borders, mirrors, and the spread of the search region."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import pytest

from ebmtrack.data.augment import Jitter, Look, draw_window
from ebmtrack.data.crops import box_in_window, crop_whole_window, whole_window
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.errors import ConfigError
from ebmtrack.videos.source import Source
from tests.support.golden import image

PICTURE = image("picture", 100, 200)


def square(cx: float, cy: float, side: float) -> tuple[float, float, float, float]:
    return cx - side / 2, cy - side / 2, side, side


@pytest.mark.parametrize(
    "window, expected",
    [
        (square(20, 50, 60), (0, 20, 60, 60)),  # fits: moved inside on the left
        (square(195, 98, 60), (140, 40, 60, 60)),  # moved inside in both axes
        (square(100, 50, 150), (25, -25, 150, 150)),  # fits in x only: no shrinking; y: (150 - 100) // 2 = 25 outside
        (square(20, 50, 240), (0, -50, 200, 200)),  # ratios 1.2 and 2.4: shrunk by 1.2
        (square(50, 80, 400), (-33, -83, 266, 266)),  # ratios 2 and 4: by 1.5 to floor(266.7); 66 // 2, 166 // 2 out
        (square(50, 50, 101), (0, -1, 101, 101)),  # 1 // 2 = 0 of the excess is shared: it stays at the top
    ],
)
def test_inside_major_windows(window, expected):
    """An image of 200 x 100."""
    assert whole_window(window, (200, 100), "inside_major") == expected


def test_replicate_windows_stay_where_they_are():
    """round(20.3 - 30.5) = -10; the side is kept."""
    assert whole_window(square(20.3, 120.0, 61), (200, 100)) == (-10, round(120 - 30.5), 61, 61)
    with pytest.raises(ConfigError, match="border"):
        whole_window(square(20, 20, 20), (200, 100), "mirror")


@pytest.mark.parametrize("seed", range(20))
def test_inside_major_windows_lie_inside_wherever_they_can(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(50, 300, 2)
    x, y, w, h = whole_window(square(*rng.uniform(-100, 400, 2), math.ceil(rng.uniform(20, 500))), size, "inside_major")
    for low, side, length in ((x, w, size[0]), (y, h, size[1])):
        if side <= length:
            assert low >= 0 and low + side <= length
        else:
            assert low <= 0 and low + side >= length and abs((low + side - length) + low) <= 1


def test_atoms_boxes_are_measured_from_the_region_before_rounding():
    """A target in the middle of its region is at 143.5 - w / 2, wherever the region's corner is between pixels."""
    atom, dimp = CropSettings(rule="atom"), CropSettings(rule="dimp")
    found = []
    for shift in np.linspace(0, 1, 11)[:-1]:
        region = square(60 + shift, 50 + shift, 72)
        box = np.array([60 + shift - 9, 50 + shift - 6, 18, 12])
        window = atom.window_of(region, (200, 100))
        assert window == dimp.window_of(region, (200, 100))
        in_crop = atom.box_in_crop(box, region, window)
        np.testing.assert_allclose(in_crop, [143.5 - 36, 143.5 - 24, 72, 48])  # 288 / 72 = 4 crop pixels each
        found.append(in_crop - dimp.box_in_crop(box, region, window))
    np.testing.assert_allclose(np.mean(found, axis=0)[2:], 0)
    np.testing.assert_allclose(np.mean(found, axis=0)[:2], -0.5, atol=0.21)  # ten places sample the rounding's mean
    with pytest.raises(ConfigError, match="border"):
        CropSettings(rule="atom", border="inside")


def test_a_whole_window_inside_is_a_plain_cut_and_resize():
    patch = crop_whole_window(PICTURE, (30, 20, 60, 60), 60)
    assert np.array_equal(patch, PICTURE[20:80, 30:90])
    half = crop_whole_window(PICTURE, (30, 20, 60, 60), 30)
    assert np.array_equal(half, cv2.resize(PICTURE[20:80, 30:90].copy(), (30, 30)))


def test_a_window_at_the_end_loses_its_last_column_and_row():
    """Columns 196 .. 199 become 196, 197, 198, 198; one that ends a pixel earlier is whole."""
    patch = crop_whole_window(PICTURE, (196, 96, 4, 4), 4)
    rows, columns = np.array([96, 97, 98, 98]), np.array([196, 197, 198, 198])
    assert np.array_equal(patch, PICTURE[rows][:, columns])
    assert np.array_equal(crop_whole_window(PICTURE, (195, 95, 4, 4), 4), PICTURE[95:99, 195:199])


def test_a_window_beyond_the_image_repeats_the_border():
    patch = crop_whole_window(PICTURE, (-2, -3, 6, 6), 6)
    assert np.array_equal(patch, PICTURE[[0, 0, 0, 0, 1, 2]][:, [0, 0, 0, 1, 2, 3]])


@pytest.mark.parametrize("scale", [0.25, 0.5])
def test_jitter_per_side(scale):
    """Width and height times exp(N(0, scale^2)), each on its own: the deviation of log sqrt(w h) is scale / sqrt(2).
    Its estimate from 4,000 windows has a relative deviation of 1 / sqrt(8000) = 1.1 %; sides are around 500."""
    rng, box = np.random.default_rng(0), np.array([300.0, 300, 120, 80])
    sides = [draw_window(box, Jitter.per_side(3.0, scale), 5.0, rng)[2] for _ in range(4000)]
    assert np.std(np.log(sides)) == pytest.approx(scale / math.sqrt(2), rel=0.05)
    assert np.mean(np.log(sides)) == pytest.approx(math.log(5 * math.sqrt(120 * 80)), abs=0.03)


class Block(Source):
    """A bright block of 30 x 24 that moves over a dark ground; 24 frames."""

    name, is_video = "block", True

    def __len__(self):
        return 2

    def target_name(self, index):
        return f"block{index}"

    def boxes_xywh(self, index):
        return np.array([[60 + 5 * f, 60 + 20 * index + 2 * f, 30, 24] for f in range(24)], float)

    def visible(self, index):
        return np.ones(24, bool)

    def frame(self, index, frame):
        picture = np.full((240, 320, 3), 40, np.uint8)
        x, y, w, h = self.boxes_xywh(index)[frame].astype(int)
        picture[y : y + h, x : x + w] = 220
        return picture


def block_set(border: Literal["replicate", "inside", "inside_major"], flip: float = 0.0) -> TrainingSet:
    look = Look(grey=0, joint_flip=0, flip=flip, brightness=0)
    train, test = Jitter.per_side(3.0, 0.25), Jitter.per_side(4.5, 0.3)
    settings = CropSettings(288, 5.0, train, test, look, look, rule="dimp", border=border)
    return TrainingSet(make_sampler({"block": Block()}, SamplingSettings({"block": 1.0}), 3), settings, 100)


@pytest.mark.parametrize("border, flip", [("replicate", 0.0), ("inside_major", 0.0), ("inside_major", 1.0)])
def test_boxes_follow_the_picture(border, flip):
    """Where the box says, there is the bright block; mirrored, one pixel to the left of it, as (W - 1) - x says."""
    data, shifts = block_set(border, flip), []
    for index in range(12):
        sample = data[index]
        assert sample["crops"].shape == (6, 288, 288, 3)
        for crop, box in zip(sample["crops"].numpy(), sample["boxes_xywh"].numpy()):
            if box[:2].min() > 2 and (box[:2] + box[2:]).max() < 286:
                bright = crop[..., 0] > 130
                rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
                seen = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
                assert np.allclose(seen[1:], box[1:], atol=1.6)
                shifts.append(seen[0] + seen[2] / 2 - box[0] - box[2] / 2)
    assert len(shifts) > 40 and np.mean(shifts) == pytest.approx(flip, abs=0.2)


def test_mirrored_boxes_are_the_others_mirrored():
    """The same sample with and without a flip: x becomes (W - 1) - x - w, and the picture is the mirror image."""
    plain, mirrored = block_set("replicate", 0.0)[1], block_set("replicate", 1.0)[1]
    assert np.array_equal(plain["crops"].numpy()[:, :, ::-1], mirrored["crops"].numpy())
    x, y, w, h = plain["boxes_xywh"].numpy().T
    assert np.allclose(mirrored["boxes_xywh"].numpy().T, [287 - x - w, y, w, h], atol=1e-3)


def test_scale_and_origin_of_a_box_in_a_whole_window():
    """(xy - crop_xy) * scale, wh * scale: a window of 100 pixels at (10, 20), 288 out."""
    got = box_in_window(np.array([35.0, 40, 20, 10]), (10, 20, 100, 100), 288)
    assert np.allclose(got, np.array([25, 20, 20, 10]) * 2.88)


@pytest.mark.parametrize(
    "values, why",
    [
        ({"rule": "dim"}, "rule"),
        ({"border": "inside_major"}, "needs the rule 'dimp'"),
        ({"output": 0}, "at least 16"),
        ({"max_scale_change": 0.5}, "at least 1"),
    ],
)
def test_crop_settings_that_cannot_be_are_refused(values, why):
    with pytest.raises(ConfigError, match=why):
        CropSettings(**values)
