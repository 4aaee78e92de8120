"""Batches made on the device: crops, looks, frames and their distribution are those of the pipeline of CPU workers.

Photographs are those that come with scikit-image: an astronaut, a cat, a cup of coffee.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from ebmtrack.data import augment, crops, device_crops, device_draws, device_look, pipeline
from ebmtrack.data import on_device as on_device_module
from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.on_device import DeviceBatches, DeviceFrames
from ebmtrack.data.packing import PackSettings, write_pack
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.prepare import (
    PrepareSettings,
    frames_in_memory,
    frames_of_packs,
    open_named,
    prepare,
    prepared_frame,
)
from ebmtrack.data.sampling import Sampler, causal_frames, dimp_frames
from ebmtrack.data.store import PackedSource
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.studies.bench_data import bench_device, bench_files
from ebmtrack.training.plan import Data, Network, Plan
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.source import Source

PHOTOGRAPHS = {"astronaut": skimage.data.astronaut(), "cat": skimage.data.chelsea(), "coffee": skimage.data.coffee()}
WHOLE = PrepareSettings(context=100, target_px=10_000, quality=0)  # every picture as it is
LOOK = Look(grey=0.2, flip=0.2, brightness=0.3, contrast=0.3, saturation=0.4, blur=0.3, motion_blur=0.3, noise=0.3)
JITTERS = {"train_jitter": Jitter(3.0, 0.25, 0.1), "test_jitter": Jitter(4.5, 0.5, 0.2)}
CROPS = CropSettings(output=64, **JITTERS, look=LOOK, still_look=Look(flip=0.5))


class Views(Source):
    """Targets in views of photographs: videos of 24 frames in which the camera moves, or photographs of one frame."""

    def __init__(self, name: str, is_video: bool, targets: int = 9):
        self.name, self.is_video, self._length = name, is_video, targets

    def __len__(self):
        return self._length

    def target_name(self, index):
        return f"{self.name} {index}"

    def boxes_xywh(self, index):
        rng = np.random.default_rng((7, index, self.is_video))
        size = rng.uniform(18, 50, 2)
        start = rng.uniform(60, 120, 2)
        return np.array([[*(start + [3 * t, 2 * t % 9]), *(size * (1 + 0.01 * t))] for t in range(self.frames)])

    @property
    def frames(self):
        return 24 if self.is_video else 1

    def visible(self, index):
        return (np.arange(self.frames) + index) % 7 != 3 if self.is_video else np.ones(1, bool)

    def frame(self, index, frame):
        photograph = list(PHOTOGRAPHS.values())[index % 3]
        x, y = 20 * (index // 3) + 2 * frame, 10 * (index // 3)
        return np.ascontiguousarray(photograph[y : y + 230, x : x + 300])

    def weights(self):
        return np.linspace(1, 2, len(self))


@pytest.fixture(scope="module")
def sources():
    return {"video": Views("video", True), "stills": Views("stills", False)}


@pytest.fixture(scope="module")
def frames(sources):
    return frames_in_memory(sources, WHOLE)


def batches(frames, settings=CROPS, **changes) -> DeviceBatches:
    arguments = {"shares": {"video": 0.6, "stills": 0.4}, "train_frames": 2, "test_frames": 2, "max_gap": 10, "seed": 3}
    return DeviceBatches(frames, settings, **{**arguments, **changes})


def one_picture(picture: np.ndarray) -> DeviceFrames:
    """Frames that hold one picture."""
    one = np.ones(1, np.int64)
    tracks = device_draws.Tracks(one, one, 0 * one, one == 0, np.ones(1), 0 * one)
    images_wh = np.array([picture.shape[1::-1]])
    pixels = torch.from_numpy(np.array(picture)).reshape(-1, 3)
    return DeviceFrames(["one"], tracks, np.array([[0, 0, 9.0, 9]]), 0 * one, np.zeros((1, 4), bool), images_wh, pixels)


def on_device(picture, windows, output, mirror=False, rule="exact") -> np.ndarray:
    """Crops (n, output, output, 3) of one picture, cut as the device pipeline does."""
    n = len(windows)
    cut = one_picture(picture).cut_windows
    return cut(np.zeros(n, int), np.array(windows, float), output, np.full(n, mirror), rule).permute(0, 2, 3, 1).numpy()


def some_windows(picture, shrink, output, count=6):
    """Windows of about `shrink` picture pixels per crop pixel, a third of which may stick out, slightly stretched."""
    rng, side = np.random.default_rng(int(10 * shrink)), shrink * output
    for _ in range(count):
        stretch = math.exp(0.05 * rng.normal())
        corner = rng.uniform(-0.3 * side, np.array(picture.shape[1::-1]) - 0.7 * side)
        yield (*corner, side * stretch, side / stretch)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("shrink", [0.3, 0.8, 1.0, 1.35])
def test_crops_are_those_of_the_cpu_to_rounding_where_nothing_is_averaged(name, shrink):
    """Both interpolate between the same four pixels; some versions of OpenCV place them to 1/32 pixel only."""
    picture = PHOTOGRAPHS[name]
    windows = list(some_windows(picture, shrink, 96))
    expected = np.stack([crops.crop_window(picture, window, 96) for window in windows]).astype(float)
    difference = np.abs(on_device(picture, windows, 96) - expected)
    assert difference.mean() < 0.1 and np.quantile(difference, 0.999) <= 1 and difference.max() <= 6


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("shrink", [1.45, 1.6, 2.3, 3.0, 3.9, 4.5])
def test_averaged_crops_are_those_of_the_cpu_within_a_quarter_of_a_grey_level(name, shrink):
    """OpenCV rounds to whole levels twice, here once, so a mean difference of about 1/6 is to be expected.

    Where contrast is high, OpenCV's 1/32 pixel adds to that: 99.9 % of the values are at most 2 levels apart.
    """
    picture = PHOTOGRAPHS[name]
    windows = list(some_windows(picture, shrink, 96))
    expected = np.stack([crops.crop_window(picture, window, 96) for window in windows]).astype(float)
    difference = np.abs(on_device(picture, windows, 96) - expected)
    assert difference.mean() < 0.25 and np.quantile(difference, 0.999) <= 2 and difference.max() < 12


@pytest.mark.parametrize("border", ["replicate", "inside_major"])
def test_whole_windows_are_cut_as_dimp_does(border):
    picture, rng = PHOTOGRAPHS["coffee"], np.random.default_rng(0)
    regions = [(*rng.uniform(-300, 400, 2), side, side) for side in rng.integers(40, 900, 12)]
    size = np.array([picture.shape[1::-1]] * 12)
    windows = device_draws.whole_windows(np.array(regions, float), size, border, 1.5)
    expected = [crops.whole_window(region, picture.shape[1::-1], border, 1.5) for region in regions]
    assert windows.tolist() == [list(map(float, window)) for window in expected]
    patches = np.stack([crops.crop_whole_window(picture, window, 96) for window in expected]).astype(float)
    assert np.abs(on_device(picture, windows, 96, rule="dimp") - patches).max() <= 1


def test_a_mirrored_crop_is_the_crop_in_a_mirror():
    picture = PHOTOGRAPHS["cat"]
    windows = [*some_windows(picture, 0.7, 64, 3), *some_windows(picture, 2.3, 64, 3)]
    difference = np.abs(on_device(picture, windows, 64, mirror=True) - on_device(picture, windows, 64)[:, :, ::-1])
    assert difference.max() <= 1 and difference.mean() < 1e-3


def test_windows_beside_the_picture_and_of_nearly_no_size_repeat_its_edge():
    picture = PHOTOGRAPHS["cat"]
    windows = [(-500, -500, 100, 100), (5000, 40, 50, 50), (10.2, 20.7, 0.1, 0.1), (-4000, -4000, 9000, 9000)]
    expected = np.stack([crops.crop_window(picture, window, 32) for window in windows[:3]]).astype(float)
    got = on_device(picture, windows, 32)
    assert np.abs(got[:3] - expected).max() <= 1
    assert (got[3][0, 0] == picture[0, 0]).all() and (got[3][-1, -1] == picture[-1, -1]).all()


def replayed(look: Look, grey: bool, seed: int) -> device_draws.LookDraws:
    """What `change_look` draws from a generator with this seed, in its order; without the noise."""
    rng, values = np.random.default_rng(seed), collections.defaultdict(float)
    values["saturation"] = 0.0 if grey else 1 + look.saturation * (2 * rng.random() - 1)
    values["contrast"] = 1 + look.contrast * (2 * rng.random() - 1)
    values["brightness"] = 1 + look.brightness * (2 * rng.random() - 1)
    if rng.random() < look.blur:
        values["blur"] = rng.uniform(0.3, 2.0)
    if rng.random() < look.motion_blur:
        values["motion"], values["angle"] = int(rng.integers(3, 10)), rng.uniform(0, math.pi)
    fields = ("saturation", "contrast", "brightness", "blur", "motion", "angle", "noise")
    return device_draws.LookDraws(*(np.array([values[name]]) for name in fields), np.zeros(1, np.int64))


@pytest.mark.parametrize("seed", range(12))
def test_looks_are_those_of_the_cpu(seed):
    """The same factors and kernels give the same picture; a value cut down to whole levels may fall the other way."""
    picture, grey = PHOTOGRAPHS["astronaut"][100:196, 180:270], seed % 4 == 0
    look = Look(brightness=0.3, contrast=0.3, saturation=0.4, blur=0.5, motion_blur=0.5)
    expected = augment.change_look(picture, look, grey, np.random.default_rng(seed)).astype(float)
    patch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    got = device_look.change_looks(patch, replayed(look, grey, seed))[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() <= 1 and np.abs(got - expected).mean() < 0.02


@pytest.mark.parametrize("size", [12, 40])
def test_blur_matrices_are_those_of_opencv(size):
    picture = np.random.default_rng(0).uniform(0, 255, (size, size)).astype(np.float32)
    for sigma in (0.3, 0.9, 2.0):
        matrix = device_look.blur_matrix(torch.tensor([sigma]), size)[0].numpy()
        assert np.allclose(matrix @ picture @ matrix.T, cv2.GaussianBlur(picture, (0, 0), sigma), atol=2e-3)


def test_motion_kernels_are_those_of_the_cpu_about_the_same_anchor():
    rng = np.random.default_rng(0)
    lengths, angles = rng.integers(3, 10, 60), rng.uniform(0, math.pi, 60)
    for kernel, length, angle in zip(device_look.motion_kernels(lengths, angles), lengths.tolist(), angles):
        first = 4 - length // 2
        inner = kernel[first : first + length, first : first + length]
        assert np.array_equal(inner, augment._motion_kernel(length, angle)) and kernel.sum() == pytest.approx(1)


def test_pixel_noise_is_normal_independent_and_repeatable():
    """40,000 numbers: the mean has the deviation 0.005, the variance 0.007, a correlation 0.005; 68 % are within 1."""
    noise = device_look.pixel_noise(torch.tensor([1, 2, -9]), 39_999)
    assert noise.shape == (3, 39_999) and torch.equal(noise[1:2], device_look.pixel_noise(torch.tensor([2]), 39_999))
    assert noise.mean(dim=1).abs().max() < 0.02 and (noise.var(dim=1) - 1).abs().max() < 0.03
    assert ((noise.abs() < 1).float().mean(dim=1) - 0.6827).abs().max() < 0.01
    shifted = [noise[:1].roll(places, 1) for places in (1, 20_000)]
    assert torch.corrcoef(torch.cat([noise, *shifted])).triu(1).abs().max() < 0.02


def test_random_numbers_follow_splitmix64():
    """The first outputs for seed 0 that the authors' C code prints, and its torch twin."""
    counters = np.arange(1, 4, dtype=np.uint64) * np.uint64(device_draws.GOLDEN)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert device_draws.mix(counters).tolist() == expected
    assert device_look._mix(torch.from_numpy(counters.view(np.int64))).numpy().view(np.uint64).tolist() == expected


def test_random_numbers_are_uniform_normal_and_differ_by_seed_sample_and_topic():
    """30,000 numbers: a uniform mean has the deviation 0.0017, a normal one 0.006."""
    rng = device_draws.SampleRandom.of(3, np.arange(30_000))
    uniform, normal = rng.uniform("a"), rng.normal("a")
    assert abs(uniform.mean() - 0.5) < 0.007 and abs(uniform.var() - 1 / 12) < 0.003
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    assert abs(normal.mean()) < 0.025 and abs(normal.std() - 1) < 0.02
    others = [uniform[1:], rng.uniform("b"), device_draws.SampleRandom.of(4, np.arange(30_000)).uniform("a")]
    others += [rng.uniform("a", 2)[:, 1]]
    assert all(abs(np.corrcoef(uniform[: len(other)], other)[0, 1]) < 0.025 for other in others)
    assert np.array_equal(rng.part(np.array([7])).uniform("c", 2, 3)[0], rng.uniform("c", 2, 3)[7])


def test_windows_of_whole_batches_are_those_of_single_ones():
    rng = np.random.default_rng(2)
    for _ in range(200):
        box, size = np.array([*rng.uniform(0, 200, 2), *rng.uniform(10, 60, 2)]), rng.integers(120, 400, 2)
        window = augment.jittered_window(box, Jitter(4.5, 0.5, 0.2), 5.0, rng)
        centre = box[:2] + box[2:] / 2
        cut = np.concatenate([centre, size - centre]) >= 0.8 * 3 * math.sqrt(box[2] * box[3])
        expected = augment.keep_off_cut_edges(window, box, tuple(size), 3.0)
        got = device_draws.keep_off(np.array([window]), size[None], cut[None])
        assert np.allclose(got[0], expected)
        assert device_draws.scene_fracs(got, size[None])[0] == pytest.approx(augment.scene_frac(expected, tuple(size)))
        boxes = device_draws.boxes_in_windows(box[None], got, 288)
        assert np.allclose(boxes[0], crops.box_in_window(box, expected, 288))


def track(visible: np.ndarray) -> device_draws.Tracks:
    """One video."""
    numbers = np.flatnonzero(visible)
    one = np.ones(1, np.int64)
    return device_draws.Tracks(one * len(numbers), one * len(visible), 0 * one, one == 1, np.ones(1), numbers)


VISIBLE = {
    "all": np.ones(25, bool),
    "gaps": np.arange(40) % 9 > 3,
    "lonely": np.isin(np.arange(60), [2, 30, 58, 59]),
    "one": np.isin(np.arange(8), [5]),
    "two": np.isin(np.arange(8), [1, 6]),
    "six": np.ones(6, bool),
}


@pytest.mark.parametrize("name", VISIBLE)
@pytest.mark.parametrize("max_gap", [2, 5, 30])
@pytest.mark.parametrize("rule", ["any", "dimp"])
def test_frames_are_drawn_as_one_by_one(name, max_gap, rule):
    """How often each frame comes at each place: 3,000 draws against 3,000; the deviation of a difference is < 0.013."""
    visible, rng, n = VISIBLE[name], np.random.default_rng(0), 3000
    picker = device_draws.FramePicker(track(visible), 2, 2, max_gap, rule)
    if rule == "dimp" and not picker.usable[0]:
        assert visible.sum() <= 8 or len(visible) < 20
        return
    ranks = picker.draw(np.zeros(n, int), device_draws.SampleRandom.of(1, np.arange(n)))
    got = np.flatnonzero(visible)[ranks]
    draw = causal_frames if rule == "any" else dimp_frames
    expected = np.array([[*train, *test] for train, test in (draw(visible, 2, 2, max_gap, rng) for _ in range(n))])
    for place in range(4):
        counts = [np.bincount(numbers[:, place], minlength=len(visible)) for numbers in (got, expected)]
        assert np.abs(counts[0] - counts[1]).max() < 0.055 * n
        assert set(np.flatnonzero(counts[0])) >= set(np.flatnonzero(counts[1] > 12))
        assert set(np.flatnonzero(counts[1])) >= set(np.flatnonzero(counts[0] > 12))


def test_samples_depend_on_seed_and_number_alone(frames):
    data = batches(frames)
    whole, again = data.batch(range(12)), batches(frames, chunk=5).batch([9, 4])
    assert whole["crops"].shape == (12, 4, 64, 64, 3) and whole["crops"].dtype == torch.uint8
    assert whole["boxes_xywh"].shape == (12, 4, 4) and whole["boxes_xywh"].dtype == torch.float32
    for place, number in enumerate((9, 4)):
        assert torch.equal(whole["boxes_xywh"][number], again["boxes_xywh"][place])
        assert (whole["crops"][number].int() - again["crops"][place]).abs().max() <= 1
        assert torch.equal(data[number]["boxes_xywh"], again["boxes_xywh"][place])
    assert not torch.equal(whole["boxes_xywh"], batches(frames, seed=4).batch(range(12))["boxes_xywh"])


@pytest.mark.parametrize("rule", ["exact", "dimp"])
def test_boxes_follow_the_picture(rule):
    """A bright square on a dark ground: its bright pixels fill the box and nothing else, mirrored or not."""
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[80:104, 100:130] = 220
    alone = one_picture(picture)
    alone.boxes_xywh[0] = [100, 80, 30, 24]
    jitter = Jitter(2.0, 0.3, 0.3 if rule == "exact" else 0.0)
    settings = CropSettings(output=144, test_jitter=jitter, still_look=Look(flip=0.5, brightness=0), rule=rule)
    batch = DeviceBatches(alone, settings, {"one": 1.0}, 2, 2, 10).batch(range(10))
    checked = 0
    for crop, box in zip(batch["crops"].flatten(0, 1).numpy(), batch["boxes_xywh"].flatten(0, 1).numpy()):
        bright = crop[..., 0] > 130
        if (box[:2] > 2).all() and (box[:2] + box[2:] < 142).all():
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            seen = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            assert np.allclose(seen, box, atol=1.6)
            checked += 1
    assert checked > 10


def places(boxes: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared between boxes (n, 4) of both pipelines, (n,) each."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    size, aspect = np.log(boxes[:, 2] * boxes[:, 3]) / 2, np.log(boxes[:, 2] / boxes[:, 3])
    return {"size": size, "aspect": aspect, "x": centres[:, 0], "y": centres[:, 1]}


def appearance(crop: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared between crops (n, H, W, 3) of both pipelines, (n,) each."""
    x = crop.astype(np.float32)
    luma = x @ augment.GREY
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "saturation": np.ptp(x, axis=3).mean(axis=(1, 2)),
        "sharpness": np.log(1 + np.abs(np.diff(luma, 2, axis=2)).mean(axis=(1, 2))),
    }


def kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference between the distribution functions of two samples."""
    at = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(values), at, side="right") / len(values) for values in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.fixture
def cut_pair(sources):
    """Both pipelines over frames that count as cut, with windows that are drawn again, by rule."""
    settings = dataclasses.replace(CROPS, least_scene_frac=0.5, cut_at={"video": 1.5})
    cut = frames_in_memory(sources, dataclasses.replace(WHOLE, cut_at={"video": 1.5}))

    def make(rule: str, samples: int) -> tuple[TrainingSet, DeviceBatches]:
        sampler = Sampler(list(sources.values()), [0.6, 0.4], 2, 2, 10, 0, rule)
        return TrainingSet(sampler, settings, samples), batches(cut, settings, rule=rule)

    return make


@pytest.mark.parametrize("rule", ["any", "dimp"])
def test_targets_lie_in_crops_as_on_the_cpu(cut_pair, rule, monkeypatch):
    """2,000 samples each: distribution functions differ by over 0.062 once in 1,000 trials (Kolmogorov and Smirnov).

    Quantiles of size then agree within 5 %, those of the centre within 5 of 64 pixels.
    """
    monkeypatch.setattr(pipeline, "crop_window", lambda *_: np.zeros((2, 2, 3), np.uint8))
    monkeypatch.setattr(pipeline, "change_look", lambda patch, *_: patch)
    data, device = cut_pair(rule, 2000)
    boxes = np.stack([data[number]["boxes_xywh"].numpy() for number in range(2000)])
    drawn = device.draw(range(2000)).boxes_xywh.reshape(2000, 4, 4)
    tolerances = {"size": 0.05, "aspect": 0.1, "x": 5.0, "y": 5.0}
    for frame in (0, 3):
        got, expected = places(drawn[:, frame]), places(boxes[:, frame])
        distances = {key: kolmogorov(got[key], expected[key]) for key in got}
        assert max(distances.values()) < 0.062, distances
        for key, tolerance in tolerances.items():
            quantiles = [np.quantile(own[key], [0.1, 0.25, 0.5, 0.75, 0.9]) for own in (got, expected)]
            assert np.abs(quantiles[0] - quantiles[1]).max() < tolerance, key


def test_looks_are_distributed_as_on_the_cpu():
    """1,000 changes of a picture each: differences of over 0.087 come once in 1,000 trials; means agree in 3 levels."""
    patch, rng, n = PHOTOGRAPHS["astronaut"][100:132, 180:212], np.random.default_rng(0), 1000
    own = device_draws.SampleRandom.of(1, np.arange(n))
    expected = appearance(np.stack([augment.change_look(patch, LOOK, rng.random() < LOOK.grey, rng) for _ in range(n)]))
    changes, _ = device_draws.draw_looks((LOOK, Look()), np.ones(n, bool), 1, own)
    patches = torch.from_numpy(patch.copy()).permute(2, 0, 1).float().repeat(n, 1, 1, 1)
    got = appearance(device_look.change_looks(patches, changes).permute(0, 2, 3, 1).numpy())
    distances = {key: kolmogorov(got[key], expected[key]) for key in got}
    assert max(distances.values()) < 0.087, distances
    assert all(abs(got[key].mean() - expected[key].mean()) < 3 for key in got)


def test_whole_samples_look_alike(cut_pair):
    """The chain as a whole: 480 crops of 120 samples each, which differ by over 0.126 once in 1,000 trials if they were
    independent; four to a sample share its picture, so 0.2 is allowed."""
    data, device = cut_pair("any", 120)
    expected = appearance(np.concatenate([data[number]["crops"].numpy() for number in range(120)]))
    got = appearance(device.batch(range(120))["crops"].flatten(0, 1).numpy())
    distances = {key: kolmogorov(got[key], expected[key]) for key in got}
    assert max(distances.values()) < 0.2, distances


def test_targets_flips_and_gaps_are_as_often_as_on_the_cpu(sources, frames):
    """4,000 samples before pixels; a frequency of one half has the deviation 0.008, the mean gap one of about 0.1."""
    sampler, n = Sampler(list(sources.values()), [0.6, 0.4], 2, 2, 10, 0, "any"), 4000
    choices = [sampler.choose(sampler.rng(number)) for number in range(n)]
    drawn = batches(frames).draw(range(n))
    names = [(choice.source.name == "stills") * 9 + choice.target for choice in choices]
    counts = [np.bincount(own, minlength=18) for own in (names, drawn.target)]
    assert np.abs(counts[0] - counts[1]).max() < 0.03 * n
    numbers = frames.tracks.number[drawn.frames].reshape(n, 4)
    expected = np.array([[*choice.train_frames, *choice.test_frames] for choice in choices])
    for first, second in ((0, 1), (1, 2), (2, 3)):
        gaps = [own[:, second] - own[:, first] for own in (numbers, expected)]
        assert abs(gaps[0].mean() - gaps[1].mean()) < 0.3 and kolmogorov(*gaps) < 0.05
    video = frames.tracks.is_video[drawn.target]
    mirrored = drawn.mirrored.reshape(n, 4)
    differ = (mirrored[:, 0] != mirrored[:, 1])[video].mean(), (mirrored[:, 0] != mirrored[:, 1])[~video].mean()
    assert abs(mirrored.mean() - 0.5) < 0.03 and np.allclose(differ, [2 * 0.2 * 0.8, 0.5], atol=0.05)


def test_prepared_frames_come_back(sources, frames, tmp_path):
    """PNG keeps every pixel; photographs with several targets are stored once; shards stay below their limit."""
    limited = dataclasses.replace(WHOLE, shard_mib=6.0)
    manifest = prepare(sources, tmp_path, limited)
    assert len(manifest["shards"]) > 2 and all(shard["bytes"] <= 6 * 2**20 for shard in manifest["shards"])
    assert {path.name for path in tmp_path.iterdir()} == {"prepared.json", *(s["file"] for s in manifest["shards"])}
    loaded = DeviceFrames.load(tmp_path)
    assert loaded.sources == ["video", "stills"] and len(loaded) == len(frames) == manifest["sources"][0]["frames"] + 9
    assert np.array_equal(loaded.boxes_xywh, frames.boxes_xywh) and np.array_equal(loaded.cut, frames.cut)
    same = [batches(own).batch(range(6)) for own in (loaded, frames)]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
    with pytest.raises(ConfigError, match="already holds"):
        prepare(sources, tmp_path, limited)


def test_a_photograph_with_several_targets_is_stored_once():
    class Twice(Views):
        def frame(self, index, frame):
            return PHOTOGRAPHS["cat"]

    frames = frames_in_memory({"stills": Twice("stills", False, 5)}, WHOLE)
    assert len(frames) == 5 and len(frames.images_wh) == 1 and len(frames.pixels) == 300 * 451


def test_a_prepared_picture_reaches_as_far_as_asked_and_says_where_the_scene_goes_on():
    """A box of 20 x 20 at (100, 20): six sizes to each side end inside the picture at the left and below; above and on
    the right it is the picture's own end."""
    picture, box = PHOTOGRAPHS["cat"][:200, :210], np.array([130.0, 20, 20, 20])
    cut_out, own, cut = prepared_frame(picture, box, PrepareSettings(context=12, target_px=80))
    assert cut_out.shape == (150, 190, 3) and own.tolist() == [110, 20, 20, 20]
    assert cut.tolist() == [True, False, False, True]
    assert prepared_frame(picture, box, PrepareSettings(), cut_at=4.0)[2].tolist() == [True, False, True, True]
    small, own, _ = prepared_frame(picture, box, PrepareSettings(context=12, target_px=10))
    assert small.shape == (75, 95, 3) and np.allclose(own, [55, 10, 10, 10])


def test_packs_go_to_the_device_as_they_are(sources, tmp_path):
    """Frames of a pack equal those prepared from the pack, which says itself where its pictures were cut.

    Prepared ones go by the distance of the edge, and count some of the pictures' own ends as cut.
    """
    packs = {}
    for name, source in sources.items():
        write_pack(source, tmp_path / name, PackSettings(context=6, output=96, png=True), threads=1)
        packs[name] = PackedSource(tmp_path / name)
    direct, prepared = frames_of_packs(packs), frames_in_memory(packs, WHOLE)
    assert len(direct) == len(prepared) and np.array_equal(direct.boxes_xywh, prepared.boxes_xywh)
    assert np.array_equal(direct.tracks.number, prepared.tracks.number) and 0.2 < direct.cut.mean() < 1
    assert not (direct.cut & ~prepared.cut).any() and (direct.cut == prepared.cut).mean() > 0.8
    frames, whole = np.arange(len(direct)), np.tile([0.0, 0.0, 96.0, 96.0], (len(direct), 1))
    crops = [own.cut_windows(frames, whole, 96, frames < 0) for own in (direct, prepared)]
    assert torch.equal(*crops)


def test_windows_stay_inside_where_the_scene_goes_on(sources):
    near = frames_in_memory(sources, PrepareSettings(context=3, target_px=40, quality=0))
    drawn = batches(near).draw(range(200))
    size, cut = near.images_wh[near.image[drawn.frames]], near.cut[drawn.frames]
    assert cut.mean() > 0.5
    assert (drawn.windows_xywh[:, :2][cut[:, :2]] > -1e-9).all()
    assert ((drawn.windows_xywh[:, :2] + drawn.windows_xywh[:, 2:] - size)[cut[:, 2:]] < 1e-9).all()


def test_a_video_can_be_thinned_and_a_source_cut_short(sources, tmp_path):
    settings = PrepareSettings(most_frames=5, most_targets={"stills": 2}, quality=80)
    manifest = prepare(sources, tmp_path, settings)
    assert [(s["targets"], s["frames"]) for s in manifest["sources"]] == [(9, 45), (2, 2)]
    numbers = DeviceFrames.load(tmp_path).tracks.number[:5]
    assert numbers[0] == 0 and numbers[-1] == 23 and sorted(numbers) == numbers.tolist()


def test_damage_is_a_dataset_error_that_names_the_file(sources, tmp_path):
    with pytest.raises(DatasetError, match="ebmtrack prepare"):
        DeviceFrames.load(tmp_path)
    prepare(sources, tmp_path, PrepareSettings(context=3, target_px=30, most_targets={"video": 1, "stills": 2}))
    shard, rng = tmp_path / "shard-0000.npz", np.random.default_rng(0)
    sound = shard.read_bytes()
    for trial in range(60):
        broken = bytearray(sound)
        at = int(rng.integers(len(sound)))
        if trial % 2:
            broken[at] ^= int(rng.integers(1, 256))
        else:
            del broken[at:]
        shard.write_bytes(bytes(broken))
        try:
            DeviceFrames.load(tmp_path)
        except DatasetError as error:
            assert "shard-0000.npz" in str(error)
        else:
            assert trial % 2
    shard.unlink()
    with pytest.raises(DatasetError, match="shard-0000"):
        DeviceFrames.load(tmp_path)
    manifest = tmp_path / "prepared.json"
    for content in ("", "[]", '{"format": 1}', json.dumps({"format": 9, "sources": [], "shards": []})):
        manifest.write_text(content)
        with pytest.raises(DatasetError, match="prepared.json"):
            DeviceFrames.load(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"shares": {"audio": 1.0}}, {"rule": "odd"}, {"train_frames": 0}, {"shares": {}}, {"max_gap": 1}]
)
def test_what_cannot_be_drawn_is_a_config_error(frames, changes):
    with pytest.raises(ConfigError):
        batches(frames, **changes)


@pytest.mark.parametrize("changes", [{"context": 1}, {"target_px": 2}, {"quality": 101}, {"most_frames": -1}])
def test_odd_settings_of_preparing_are_config_errors(changes):
    with pytest.raises(ConfigError):
        PrepareSettings(**changes)


@pytest.mark.parametrize("named", [[], ["pool"], ["odd=/nowhere"], ["pool="]])
def test_sources_are_named_with_their_folders(named):
    with pytest.raises(ConfigError):
        open_named(named)


def test_a_target_that_fits_in_no_shard_is_a_config_error(sources, tmp_path):
    with pytest.raises(ConfigError, match="most_frames"):
        prepare(sources, tmp_path, PrepareSettings(shard_mib=0.01))


def test_a_run_trains_on_batches_of_the_device(frames, tmp_path):
    """Six steps equal three and three more, and the samples are those with the numbers of the run."""
    seen = []

    def plan(steps):
        torch.manual_seed(0)
        net = nn.Linear(3, 1)

        def objective(net, batch, generator, share):
            seen.append(batch["boxes_xywh"])
            colour = batch["crops"].float().mean(dim=(1, 2, 3)) / 255
            return (net(colour) - batch["boxes_xywh"][:, 0, 2:].mean(1) / 64).square().mean(), {}

        groups = [{"params": list(net.parameters()), "lr": 0.1}]
        return Plan(Network(net, groups), Data(batches(frames, length=24)), objective)

    def run(out, steps):
        settings = RunSettings(out=tmp_path / out, steps=steps, batch=4, checkpoint_every=3, warmup=0)
        return train(plan(steps), settings).weight.detach()

    run("whole", 6)
    assert torch.equal(torch.cat(seen), batches(frames).batch(range(24))["boxes_xywh"])


def test_the_bench_accounts_for_the_time_and_leaves_no_trace(sources, frames):
    functions = device_crops._read, on_device_module.change_looks, pipeline.crop_window
    sampler = Sampler(list(sources.values()), [0.6, 0.4], 2, 2, 10, 0, "any")
    rates = bench_device(batches(frames), 24, 8), bench_files(TrainingSet(sampler, CROPS, 40), 20)
    for rate, samples in zip(rates, (24, 20)):
        assert rate.samples == samples and 0 < sum(rate.parts_s.values()) < 1.05 * rate.seconds
        assert "samples/s (" in rate.line() and "look" in rate.line()
    assert functions == (device_crops._read, on_device_module.change_looks, pipeline.crop_window)


def test_training_needs_torch_torchvision_and_numpy_alone(sources, tmp_path):
    prepare(sources, tmp_path, PrepareSettings(context=6, target_px=30, most_targets={"video": 2, "stills": 2}))
    code = """
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("cv2", "safetensors", "lmdb", "skimage", "scipy", "got10k", "tyro", "six"):
                    raise ImportError("blocked: " + name)

        sys.meta_path.insert(0, Blocked())
        from types import SimpleNamespace as Plain
        from ebmtrack.data.on_device import DeviceBatches, DeviceFrames

        look = Plain(grey=0.5, joint_flip=0.5, flip=0.1, brightness=0.2, contrast=0.2, saturation=0.2, blur=0.5,
                     motion_blur=0.5, noise=0.5)
        jitter = Plain(centre=3.0, scale=0.25, stretch=0.1)
        settings = Plain(output=64, search_factor=5.0, train_jitter=jitter, test_jitter=jitter, look=look,
                         still_look=look, least_scene_frac=0.6, rule="exact")
        shares = {"video": 1.0, "stills": 1.0}
        batch = DeviceBatches(DeviceFrames.load(sys.argv[1]), settings, shares, 1, 1).batch([0, 1])
        print(tuple(batch["crops"].shape))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "(2, 2, 64, 64, 3)", done.stderr
