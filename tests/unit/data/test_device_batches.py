"""Batches of the device are the samples of CPU workers: the same draws, and pixels that differ by rounding."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.data.augment import Jitter, Look, LookDraws, apply_look, blur_kernel
from ebmtrack.data.crops import crop_whole_window, crop_window
from ebmtrack.data.device_batches import DeviceBatches, DeviceFrames, batches_from_packs, change_looks
from ebmtrack.data.disturb import Disturbance
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.packing import write_pack
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import Sampler, SamplingSettings
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.studies.bench_data import bench_device, bench_files
from ebmtrack.training.plan import Data, Network, Plan
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.source import Source

LOOK = Look(grey=0.2, flip=0.2, brightness=0.3, contrast=0.3, saturation=0.4, blur=0.3, motion_blur=0.3)
TRAIN_JITTER, TEST_JITTER = Jitter(2.0, 0.2, 0.1), Jitter(3.0, 0.3, 0.2)
CROPS = CropSettings(64, 5.0, TRAIN_JITTER, TEST_JITTER, look=LOOK, still_look=Look(flip=0.5))


def picture(seed: int, height: int = 230, width: int = 300) -> np.ndarray:
    """Return a picture with detail of every size, (height, width, 3) uint8."""
    rng, x = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for cells in (3, 6, 12, 24, 48, 96):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        detail = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        x += np.asarray(detail, np.float32) * (60 / math.sqrt(cells))
    return np.clip(127 + 2 * x, 0, 255).astype(np.uint8)


class Views(Source):
    """Videos of 24 frames in which the camera moves over a picture, or photographs of one frame."""

    def __init__(self, name: str, is_video: bool, targets: int = 9):
        self.name, self.is_video, self._length = name, is_video, targets
        self._pictures = [picture(seed, 280, 360) for seed in range(3)]

    def __len__(self):
        return self._length

    def target_name(self, index):
        return f"{self.name} {index}"

    @property
    def frames(self):
        return 24 if self.is_video else 1

    def boxes_xywh(self, index):
        rng = np.random.default_rng((7, index, self.is_video))
        size, start = rng.uniform(18, 40, 2), rng.uniform(60, 120, 2)
        return np.array([[*(start + [3 * t, 2 * t % 9]), *(size * (1 + 0.01 * t))] for t in range(self.frames)])

    def visible(self, index):
        return (np.arange(self.frames) + index) % 7 != 3 if self.is_video else np.ones(1, bool)

    def frame(self, index, frame):
        x, y = 2 * frame + index, index
        return np.ascontiguousarray(self._pictures[index % 3][y : y + 230, x : x + 300])

    def weights(self):
        return np.linspace(1, 2, len(self))


@pytest.fixture(scope="module")
def sources():
    return {"video": Views("video", True), "stills": Views("stills", False)}


@pytest.fixture(scope="module")
def frames(sources):
    return DeviceFrames(sources)


def sampler_of(sources, seed=3, rule="any") -> Sampler:
    return Sampler(list(sources.values()), [0.6, 0.4], 2, 2, 10, seed, rule)


def cut(image: np.ndarray, windows, output: int, mirrored: bool = False, rule: str = "exact") -> np.ndarray:
    """Return crops (n, output, output, 3) of one picture, cut as batches are."""

    class One(Views):
        def visible(self, index):
            return np.ones(1, bool)

        def frame(self, index, frame):
            return image

    own, n = DeviceFrames({"one": One("one", False, 1)}), len(windows)
    crops = own.cut(np.zeros(n, int), np.array(windows, float), output, np.full(n, mirrored), rule)
    return crops.permute(0, 2, 3, 1).numpy()


def some_windows(image: np.ndarray, shrink: float, output: int, count: int = 6):
    """Yield windows of about `shrink` picture pixels per crop pixel, of which some reach beyond the picture."""
    rng, side = np.random.default_rng(int(10 * shrink)), shrink * output
    for _ in range(count):
        stretch = math.exp(0.05 * rng.normal())
        corner = rng.uniform(-0.3 * side, np.array(image.shape[1::-1]) - 0.7 * side)
        yield (*corner, side * stretch, side / stretch)


# --- pixels


@pytest.mark.parametrize("shrink", [0.3, 0.8, 1.0, 1.4])
def test_crops_are_those_of_the_cpu_to_rounding_if_nothing_is_averaged(shrink):
    """Both interpolate between the same four pixels; some versions of OpenCV place them to 1/32 pixel only."""
    image = picture(0)
    windows = list(some_windows(image, shrink, 96))
    expected = np.stack([crop_window(image, window, 96) for window in windows]).astype(float)
    difference = np.abs(cut(image, windows, 96) - expected)
    assert difference.mean() < 0.25 and np.quantile(difference, 0.999) <= 5


@pytest.mark.parametrize("shrink", [1.6, 2.0, 2.9, 4.0])
def test_larger_windows_are_averaged_as_on_the_cpu(shrink):
    """The mean difference is at most 0.2 grey levels, less than half of what one sample a pixel has."""
    found, plain = [], []
    for seed in range(3):
        image = picture(seed, 500, 600)
        windows = list(some_windows(image, shrink, 96))
        exact = [cv2.resize(crop_window(image, w, 96 * 4), (96, 96), interpolation=cv2.INTER_AREA) for w in windows]
        found.append(np.abs(cut(image, windows, 96) - np.stack(exact)).mean())
        plain.append(np.abs(cut(image, windows, 96, rule="dimp") - np.stack(exact)).mean())
    assert np.mean(found) < min(0.2, np.mean(plain) / 2)


def test_fine_stripes_do_not_alias():
    """Stripes of two pixels become grey at 2.67 pixels a crop pixel; one sample a pixel leaves strong waves."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::2] = 255
    window = [(20.3, 20.0, 8 / 3 * 96, 8 / 3 * 96)]
    assert cut(image, window, 96)[0].std() < 25 < 60 < cut(image, window, 96, rule="dimp")[0].std()


@pytest.mark.parametrize(
    "window", [(10, 20, 200, 200), (-30, -20, 150, 150), (150, 100, 170, 170), (-50, -50, 400, 400)]
)
def test_whole_windows_are_cut_as_dimp_does(window):
    """Bilinear, without averaging; the last row and column of the picture are lost."""
    image = picture(1)
    expected = crop_whole_window(image, window, 128).astype(float)
    difference = np.abs(cut(image, [window], 128, rule="dimp")[0] - expected)
    assert difference.mean() < 0.3 and difference.max() <= 2


def test_a_mirrored_crop_is_the_crop_in_a_mirror():
    image = picture(2)
    for shrink in (0.7, 2.5):
        windows = list(some_windows(image, shrink, 50))
        plain, mirrored = (cut(image, windows, 50, mirror) for mirror in (False, True))
        assert np.abs(plain[:, :, ::-1] - mirrored).max() <= 1


def test_windows_beside_the_picture_and_of_nearly_no_size_repeat_its_edge():
    image = picture(0)
    beside = cut(image, [(-500.0, 40.0, 60.0, 60.0)], 16)[0]
    assert np.ptp(beside, axis=1).max() <= 1
    assert np.ptp(cut(image, [(100.2, 50.4, 1e-3, 1e-3)], 16)[0], axis=(0, 1)).max() <= 2


def test_chunks_and_batches_do_not_matter(sources, frames):
    """A sample is the same alone, in a batch, and whatever the number of crops that are made at once."""
    crops = dataclasses.replace(CROPS, look=dataclasses.replace(LOOK, noise=0.5))
    whole = DeviceBatches(frames, sampler_of(sources), crops, 100).batch(range(8))
    small = DeviceBatches(frames, sampler_of(sources), crops, 100, chunk=3)
    for number in (0, 5, 7):
        alone = small[number]
        assert torch.equal(alone["boxes_xywh"], whole["boxes_xywh"][number])
        assert (alone["crops"].int() - whole["crops"][number].int()).abs().max() <= 1
    assert whole["crops"].shape == (8, 4, 64, 64, 3) and whole["crops"].dtype == torch.uint8
    other = DeviceBatches(frames, sampler_of(sources, seed=4), crops, 100).batch(range(8))
    assert not torch.equal(other["boxes_xywh"], whole["boxes_xywh"])


# --- looks


def test_looks_are_those_of_the_cpu():
    """For the same draws: light, colour, blur and motion blur to a grey level."""
    rng, images = np.random.default_rng(0), [picture(seed, 60, 60) for seed in range(12)]
    draws = [
        LookDraws(
            *rng.uniform(0.5, 1.5, 3).tolist(), blur=float(blur), motion=int(motion), angle=float(rng.uniform(0, 3))
        )
        for blur, motion in zip([0, 0.3, 0.7, 1.2, 2.0, 0] * 2, [0, 0, 0, 0, 3, 4, 5, 6, 7, 8, 9, 0])
    ]
    draws[0] = dataclasses.replace(draws[0], saturation=0.0)
    patches = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    found = change_looks(patches, draws).permute(0, 2, 3, 1).numpy()
    for number, (image, drawn) in enumerate(zip(images, draws)):
        assert np.abs(found[number].astype(int) - apply_look(image, drawn)).max() <= 1


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.9])
def test_blur_kernels_are_those_of_opencv(sigma):
    point = np.zeros((33, 33), np.float32)
    point[16, 16] = 1
    expected, reach = cv2.GaussianBlur(point, (0, 0), sigma), len(blur_kernel(sigma)) // 2
    own = blur_kernel(sigma)
    assert np.abs(expected[16 - reach : 17 + reach, 16 - reach : 17 + reach] - own).max() < 1e-6
    assert expected.sum() == pytest.approx(own.sum(), abs=1e-5)


def test_noise_has_its_deviation_and_follows_from_its_seed():
    patches = torch.full((3, 3, 64, 64), 128.0)
    draws = [LookDraws(noise=6.0, noise_seed=1), LookDraws(noise=6.0, noise_seed=2), LookDraws(noise=6.0, noise_seed=1)]
    found = change_looks(patches, draws).float()
    assert found[0].std() == pytest.approx(6.0, rel=0.05) and found[0].mean() == pytest.approx(127.5, abs=0.2)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


# --- samples


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rule": "dimp", "border": "replicate"},
        {"rule": "dimp", "border": "inside"},
        {"rule": "dimp", "border": "inside_major"},
        {"least_scene_frac": 0.7},
        {"cut_at": {"video": 1.5}},
    ],
)
def test_samples_are_those_of_the_workers(sources, frames, changes):
    """Without pixel noise, whose draws differ: the same targets, frames, windows and boxes, nearly the same pixels."""
    crops = dataclasses.replace(CROPS, **changes)
    workers = TrainingSet(sampler_of(sources), crops, 100)
    device = DeviceBatches(frames, sampler_of(sources), crops, 100)
    batch, differences = device.batch(range(20)), []
    for number in range(20):
        sample = workers[number]
        torch.testing.assert_close(batch["boxes_xywh"][number], sample["boxes_xywh"])
        differences.append((batch["crops"][number].int() - sample["crops"].int()).abs().float().mean().item())
    assert np.mean(differences) < 1.5 and np.max(differences) < 4.0


def test_a_run_of_dimps_rule_uses_long_videos_alone(sources, frames):
    batch = DeviceBatches(frames, sampler_of(sources, rule="dimp"), CROPS, 10).batch(range(10))
    assert torch.isfinite(batch["boxes_xywh"]).all()


def test_disturbed_crops_are_refused(sources, frames):
    crops = dataclasses.replace(CROPS, disturbance=Disturbance(look_alike=0.5))
    with pytest.raises(ConfigError, match="crops.disturbance"):
        DeviceBatches(frames, sampler_of(sources), crops, 10)


# --- packs


def packed(sources, root: Path) -> Path:
    for name, source in sources.items():
        write_pack(source, root / name, PackSettings(context=12.0, output=800, png=True))
    return root


def test_packs_in_memory_give_the_samples_of_the_packs(tmp_path):
    """A folder of packs, opened by the names of its folders; search regions keep off edges where pictures were cut."""
    root = packed({"video": Views("video", True, 2), "stills": Views("stills", False, 3)}, tmp_path / "packs")
    sampling = SamplingSettings({"video": 0.6, "stills": 0.4, "other": 0.0}, 2, 2, 10, "any")
    data = batches_from_packs(root, "cpu", sampling, CROPS, seed=3, length=50)
    assert data.settings.cut_at == {"video": 6.0, "stills": 6.0} and len(data) == 50
    workers = TrainingSet(data.sampler, data.settings, 50)
    for number in range(4):
        torch.testing.assert_close(data[number]["boxes_xywh"], workers[number]["boxes_xywh"])
    alone = batches_from_packs(root / "video", "cpu", SamplingSettings({"video": 1.0}, 2, 2, 10, "any"), CROPS, 3, 5)
    assert alone[0]["crops"].shape == (4, 64, 64, 3)
    with pytest.raises(ConfigError, match="they must match"):
        batches_from_packs(root, "cpu", SamplingSettings({"lasot": 1.0}), CROPS, 3, 5)
    with pytest.raises(DatasetError, match="no pack"):
        batches_from_packs(tmp_path, "cpu", sampling, CROPS, 3, 5)


def test_a_run_trains_on_batches_of_the_device(sources, frames, tmp_path):
    """The samples of six steps are those with the numbers of the run."""
    seen = []

    def objective(net, batch, generator, share):
        seen.append(batch["boxes_xywh"])
        colour = batch["crops"].float().mean(dim=(1, 2, 3)) / 255
        return (net(colour) - batch["boxes_xywh"][:, 0, 2:].mean(1) / 64).square().mean(), {}

    net = torch.nn.Linear(3, 1)
    data = DeviceBatches(frames, sampler_of(sources), CROPS, 24)
    plan = Plan(Network(net, [{"params": list(net.parameters()), "lr": 0.1}]), Data(data), objective)
    train(plan, RunSettings(out=tmp_path, steps=6, batch=4, checkpoint_every=3, warmup=0, device="cpu"))
    assert torch.equal(torch.cat(seen), data.batch(range(24))["boxes_xywh"])


def test_the_bench_accounts_for_the_time(sources, frames):
    """Shares of the parts are at most the whole, and the functions are as before."""
    data = DeviceBatches(frames, sampler_of(sources), CROPS, 100)
    before = data.draw
    for rate in (bench_device(data, 4, 2), bench_files(TrainingSet(sampler_of(sources), CROPS, 10), 4)):
        assert rate.samples == 4 and rate.seconds > 0 and "samples/s" in rate.line()
        assert sum(rate.parts_s.values()) < 3 * rate.seconds
    assert data.draw.__func__ is before.__func__
