"""Training batches made on the device: frames stay in its memory, whole batches are cut, mirrored and coloured there.

What is random about a sample is drawn on the host by the same functions as for CPU workers (`sampling`, `augment`,
`pipeline.draw_region`), so that sample i depends on the seed and i alone and has the same law. The pixels are batches:
one `grid_sample` cuts all crops; a window that is larger than its crop is sampled several times for each pixel, which
averages instead of aliasing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ebmtrack.data.augment import LUMA, LookDraws, blur_kernel, draw_look, flip_box, motion_kernel
from ebmtrack.data.contexts import with_cut_at
from ebmtrack.data.disturb import Disturbance
from ebmtrack.data.pipeline import CropSettings, draw_accepted, draw_region
from ebmtrack.data.sampling import Sampler, SamplingSettings, make_sampler
from ebmtrack.data.store import open_packs
from ebmtrack.errors import ConfigError
from ebmtrack.videos.source import Source

LEAST_SHRINK = 1.5  # image pixels per crop pixel above which a window is averaged down, as in crops.crop_window
MOST_SAMPLES = 4  # samples per crop pixel and axis at most, as in crops.crop_window
KERNEL = 17  # side of the largest blur


class DeviceFrames:
    """Visible frames of some sources as uint8 pixels in the memory of one device.

    pixels: (P, 3) RGB, images one after another, row by row. starts: (i,) int64 first pixel of each image, on the host;
    images_wh: (i, 2) int64.
    """

    def __init__(
        self, sources: Mapping[str, Source], device: torch.device | str = "cpu", threads: int | None = None
    ) -> None:
        """Decode all visible frames of `sources` with `threads` threads (8 at most by default) and keep them.

        Packs (`store.PackedSource`) are meant; any source that fits will do.
        """
        self._keys: dict[str, np.ndarray] = {}
        self._first: dict[str, int] = {}
        jobs: list[tuple[Source, int, int]] = []
        for source in sources.values():
            own = [(t, int(f)) for t in range(len(source)) for f in np.flatnonzero(source.visible(t))]
            self._first[source.name] = len(jobs)
            self._keys[source.name] = np.array([(t << 32) + f for t, f in own], np.int64)
            jobs += [(source, *each) for each in own]
        self.images_wh = np.array([source.frame_size_wh(t, f) for source, t, f in jobs], np.int64).reshape(-1, 2)
        ends = np.cumsum(self.images_wh.prod(axis=1))
        self.starts = ends - self.images_wh.prod(axis=1)
        self.pixels = torch.empty(int(ends[-1]) if len(ends) else 0, 3, dtype=torch.uint8, device=device)

        def fill(job: tuple[Source, int, int], start: int, end: int) -> None:
            image = torch.from_numpy(np.array(job[0].frame(*job[1:])).reshape(-1, 3))
            self.pixels[start:end] = image.to(self.pixels.device)

        with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(fill, jobs, self.starts.tolist(), ends.tolist()):
                pass

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.images_wh)

    @property
    def device(self) -> torch.device:
        """The device of the pixels."""
        return self.pixels.device

    def row(self, source: str, target: int, frame: int) -> int:
        """Return the number of the image of a visible frame."""
        return self._first[source] + int(np.searchsorted(self._keys[source], (target << 32) + frame))

    def cut(
        self, rows: np.ndarray, windows_xywh: np.ndarray, output: int, mirrored: np.ndarray, rule: str = "exact"
    ) -> Tensor:
        """Cut windows out of images and resample them.

        Args:
            rows: (n,) numbers of images.
            windows_xywh: (n, 4) in the images' pixels.
            output: Side of the crops in pixels.
            mirrored: (n,) bool, crops that are mirrored left to right.
            rule: "exact" as `crops.crop_window`, "dimp" and "atom" as `crops.crop_whole_window`.

        Returns:
            Crops (n, 3, output, output) float32 of whole grey levels.
        """
        crops = torch.empty(len(rows), 3, output, output, device=self.device)
        shrink = windows_xywh[:, 2:].max(axis=1) / output
        samples = np.where((shrink > LEAST_SHRINK) & (rule == "exact"), np.ceil(np.minimum(shrink, MOST_SAMPLES)), 1)
        for count in np.unique(samples).astype(int).tolist():
            some = np.flatnonzero(samples == count)
            part = self._sample_crops(rows[some], windows_xywh[some], output, mirrored[some], rule, count)
            crops[torch.from_numpy(some).to(self.device)] = part
        return crops.round_().clamp_(0, 255)

    def _sample_crops(
        self, rows: np.ndarray, windows_xywh: np.ndarray, output: int, mirrored: np.ndarray, rule: str, count: int
    ) -> Tensor:
        """Return crops (n, 3, output, output); each pixel is the mean of `count` x `count` samples."""
        images_wh = self.images_wh[rows] if rule == "exact" else np.maximum(self.images_wh[rows] - 1, 1)
        low = np.clip(np.floor(windows_xywh[:, :2]), 0, images_wh - 1)
        ends = np.maximum(np.ceil(windows_xywh[:, :2] + windows_xywh[:, 2:]), np.floor(windows_xywh[:, :2]) + 2)
        high = np.clip(ends, low + 1, images_wh)  # (n, 2), exclusive
        canvas = self._read(rows, low.astype(np.int64), high.astype(np.int64))  # (n, 3, h, w)
        size = np.array(canvas.shape[:1:-1])  # w, h
        at = (np.arange(output * count) + 0.5) / (output * count)  # of the window's side
        places = windows_xywh[:, None, :2] + at[:, None] * windows_xywh[:, None, 2:] - 0.5
        places = np.clip(places, low[:, None], high[:, None] - 1) - low[:, None]  # (n, output * count, 2)
        places = 2 * places / np.maximum(size - 1, 1) - 1
        places[mirrored, :, 0] = places[mirrored, ::-1, 0]
        x, y = torch.from_numpy(places.astype(np.float32)).to(self.device).unbind(2)
        n, side = x.shape
        grid = torch.stack([x[:, None].expand(n, side, side), y[:, :, None].expand(n, side, side)], dim=3)
        found = F.grid_sample(canvas, grid, mode="bilinear", padding_mode="border", align_corners=True)
        return F.avg_pool2d(found, count) if count > 1 else found

    def _read(self, rows: np.ndarray, low_xy: np.ndarray, high_xy: np.ndarray) -> Tensor:
        """Return parts low..high (n, 2) of images, (n, 3, h, w) float32; h, w fit the largest, the rest is filler."""
        extents = np.concatenate([low_xy, high_xy - 1, self.images_wh[rows, :1], self.starts[rows, None]], axis=1)
        left, top, right, bottom, width, start = torch.from_numpy(extents).to(self.device).T[..., None]
        breadth, height = (high_xy - low_xy).max(axis=0).tolist()
        y = torch.minimum(top + torch.arange(height, device=self.device), bottom)  # (n, h)
        x = torch.minimum(left + torch.arange(breadth, device=self.device), right)  # (n, w)
        found = self.pixels[(start + y * width)[:, :, None] + x[:, None]]  # (n, h, w, 3)
        return found.permute(0, 3, 1, 2).to(torch.float32)


@dataclasses.dataclass(frozen=True)
class FrameDraw:
    """The random part of one crop: image, window, the target's box in the crop, mirroring, look."""

    row: int
    window_xywh: tuple[float, float, float, float]
    box_xywh: np.ndarray
    mirrored: bool
    look: LookDraws


class DeviceBatches(Dataset):
    """Samples by number, whole batches at once: `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4) float32.

    Train frames come first; both are on the frames' device. The training loop finds `batch` and takes batches from it.
    """

    def __init__(
        self, frames: DeviceFrames, sampler: Sampler, settings: CropSettings, length: int, chunk: int | None = None
    ) -> None:
        """Draw samples with `sampler`, whose sources `frames` holds.

        Args:
            frames: The pixels.
            sampler: Chooses sources, targets and frames.
            settings: How crops are cut and changed.
            length: The number of samples.
            chunk: Crops that are made at once, which bounds the memory (64 on a GPU need about 1 GB).

        Raises:
            ConfigError: For disturbed crops, which CPU workers alone can make.
        """
        if settings.disturbance != Disturbance():
            raise ConfigError("crops.disturbance: batches on the device cannot be disturbed; train from files or packs")
        self.frames, self.sampler, self.settings, self.length = frames, sampler, settings, length
        self.chunk = chunk or (64 if frames.device.type == "cuda" else 16)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return one sample, `crops` (f, H, W, 3) and `boxes_xywh` (f, 4), the same as in any batch."""
        return {key: value[0] for key, value in self.batch([number]).items()}

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the samples with these numbers; each depends on the seed and its number alone."""
        drawn = [self.draw(number) for number in numbers]
        shape, device = (len(numbers), len(drawn[0])), self.frames.device
        flat = [each for sample in drawn for each in sample]
        boxes = torch.from_numpy(np.stack([each.box_xywh for each in flat]).astype(np.float32)).to(device)
        crops = self._crops(flat).permute(0, 2, 3, 1)
        return {"crops": crops.unflatten(0, shape), "boxes_xywh": boxes.unflatten(0, shape)}

    def draw(self, number: int) -> list[FrameDraw]:
        """Draw all that is random about a sample, before any pixel is read."""
        rng, settings = self.sampler.rng(number), self.settings
        choice = draw_accepted(self.sampler, settings, rng)
        look = settings.look if choice.source.is_video else settings.still_look
        grey, mirrored = rng.random() < look.grey, rng.random() < look.joint_flip
        boxes, drawn = choice.source.boxes_xywh(choice.target), []
        for frame, jitter in settings.jitters(choice):
            row, box = self.frames.row(choice.source.name, choice.target, frame), boxes[frame]
            width, height = self.frames.images_wh[row].tolist()
            region = draw_region(choice.source.name, box, (width, height), jitter, settings, rng)
            window = settings.window_of(region, (width, height))
            flipped, box = mirrored != (rng.random() < look.flip), settings.box_in_crop(box, region, window)
            box = flip_box(box, settings.mirrored_width) if flipped else box
            drawn.append(FrameDraw(row, window, box, flipped, draw_look(look, grey, rng)))
        return drawn

    def _crops(self, drawn: list[FrameDraw]) -> Tensor:
        """Return crops (n, 3, H, W) uint8, made in chunks that read parts of similar size."""
        output = self.settings.output
        crops = torch.empty(len(drawn), 3, output, output, dtype=torch.uint8, device=self.frames.device)
        rows, mirrored = np.array([each.row for each in drawn]), np.array([each.mirrored for each in drawn])
        windows = np.array([each.window_xywh for each in drawn], np.float64)
        order = np.argsort(np.minimum(windows[:, 2:], self.frames.images_wh[rows]).prod(axis=1), kind="stable")
        for first in range(0, len(order), self.chunk):
            some = order[first : first + self.chunk]
            patches = self.frames.cut(rows[some], windows[some], output, mirrored[some], self.settings.rule)
            changed = change_looks(patches, [drawn[i].look for i in some])
            crops.index_copy_(0, torch.from_numpy(some).to(self.frames.device), changed)
        return crops


def batches_from_packs(
    folder: str | Path,
    device: torch.device | str,
    sampling: SamplingSettings,
    crops: CropSettings,
    seed: int,
    length: int,
) -> DeviceBatches:
    """Load the packs of a folder into a device's memory and make batches of them.

    Args:
        folder: Packs, named as the shares of `sampling`; those without a share are left out.
        device: Where pixels and batches are.
        sampling: How samples are drawn.
        crops: How they are cut; edges at which packs were cut are kept off.
        seed: Of the samples.
        length: The number of samples.

    Raises:
        ConfigError: If packs and shares do not fit.
        DatasetError: If there is no pack, or a damaged one.
    """
    packs = {name: pack for name, pack in open_packs(folder).items() if sampling.shares.get(name)}
    sampler, frames = make_sampler(packs, sampling, seed), DeviceFrames(packs, device)
    return DeviceBatches(frames, sampler, with_cut_at(crops, packs), length)


def change_looks(patches: Tensor, draws: Sequence[LookDraws]) -> Tensor:
    """Change light, colour, blur and noise of whole batches by the laws of `augment.apply_look`.

    Args:
        patches: (n, 3, H, W) float32 of whole grey levels.
        draws: What was drawn for each.

    Returns:
        (n, 3, H, W) uint8.
    """
    table = torch.tensor([(each.saturation, each.contrast, each.brightness) for each in draws]).to(patches)
    saturation, contrast, brightness = table.T[..., None, None, None]
    luma = torch.einsum("nchw,c->nhw", patches, patches.new_tensor(LUMA))[:, None]
    x = luma + (patches - luma) * saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * contrast) * brightness
    for wanted, kernel in (
        ([each.blur > 0 for each in draws], lambda each: blur_kernel(each.blur)),
        ([each.motion > 0 for each in draws], lambda each: motion_kernel(each.motion, each.angle)),
    ):
        some = [number for number, is_wanted in enumerate(wanted) if is_wanted]
        if some:
            x[some] = _correlate(x[some], np.stack([_centre_kernel(kernel(draws[i])) for i in some]))
    for number, each in enumerate(draws):
        if each.noise > 0:
            place = x.device if x.is_cuda else torch.device("cpu")
            generator = torch.Generator(place).manual_seed(each.noise_seed)
            x[number] += each.noise * torch.randn(x[number].shape, generator=generator, device=place).to(x)
    return x.clamp_(0, 255).to(torch.uint8)


def _centre_kernel(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel (k, k) in a field of `KERNEL` x `KERNEL`, its anchor, which is element k // 2, in the middle."""
    field, start = np.zeros((KERNEL, KERNEL), np.float32), KERNEL // 2 - len(kernel) // 2
    field[start : start + len(kernel), start : start + len(kernel)] = kernel
    return field


def _correlate(x: Tensor, kernels: np.ndarray) -> Tensor:
    """Correlate pictures (n, 3, H, W) with a kernel (n, k, k) each, mirrored at their edges as OpenCV does."""
    n, channels, height, width = x.shape
    padded = F.pad(x, [KERNEL // 2] * 4, mode="reflect").flatten(0, 1)[None]
    weights = torch.from_numpy(kernels).to(x).repeat_interleave(channels, dim=0)[:, None]
    return F.conv2d(padded, weights, groups=n * channels).view(n, channels, height, width)
