"""Training batches made on the device: frames stay in its memory, whole batches are cut, mirrored and coloured there.

`prepare` (ebmtrack/data/prepare.py) writes the frames; this file reads them and needs nothing but torch, torchvision
and NumPy. Samples have the distribution of `pipeline.TrainingSet`; sample i depends on the seed and i alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ebmtrack.data import device_draws as draws
from ebmtrack.data.device_crops import mirrored, plan_axis, resample
from ebmtrack.data.device_look import change_looks
from ebmtrack.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from ebmtrack.data.pipeline import CropSettings

MANIFEST = "prepared.json"
FORMAT = 1
TARGET_KEYS = {"count": np.int64, "length": np.int64, "source": np.int64, "weight": np.float64}
FRAME_KEYS = {"number": np.int64, "image": np.int64, "boxes_xywh": np.float64, "cut": np.bool_}
IMAGE_KEYS = {"end": np.int64, "images_wh": np.int64}
KINDS = {**TARGET_KEYS, **FRAME_KEYS}


class DeviceFrames:
    """Visible frames of many targets as uint8 pixels in the memory of one device, with their boxes.

    pixels: (P, 3) uint8 RGB on the device, the images one after another, each row by row; a photograph with several
    targets is there once. On the host: sources (names), tracks (targets and frame numbers), boxes_xywh (v, 4) float64,
    image (v,) int64 and cut (v, 4) bool (left, top, right, bottom: the scene goes on there) of each visible frame, and
    images_wh (i, 2) int64. Frames in which the target is not visible are left out.
    """

    def __init__(
        self,
        sources: Sequence[str],
        tracks: draws.Tracks,
        boxes_xywh: np.ndarray,
        image: np.ndarray,
        cut: np.ndarray,
        images_wh: np.ndarray,
        pixels: Tensor,
    ):
        self.sources, self.tracks = list(sources), tracks
        self.boxes_xywh, self.image, self.cut, self.images_wh, self.pixels = boxes_xywh, image, cut, images_wh, pixels
        areas = images_wh.prod(axis=1)
        if areas.sum() != len(pixels) or len(image) != len(boxes_xywh) or tracks.count.sum() != len(image):
            raise DatasetError("prepared frames: pixels, images and boxes do not fit together; prepare them again")
        self.starts = torch.from_numpy(np.cumsum(areas) - areas).to(pixels.device)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu", threads: int | None = None) -> DeviceFrames:
        """Read what `prepare` wrote to `folder`, decode it with `threads` threads (all cores) and move it to `device`.

        DatasetError where a file is missing or damaged.
        """
        facts = read_manifest(folder)
        shards = [_read_shard(Path(folder) / entry["file"], len(facts["sources"])) for entry in facts["shards"]]
        columns = {key: np.concatenate([shard[key] for shard in shards]) for key in (*KINDS, "images_wh")}
        counts = np.array([len(shard["end"]) for shard in shards])
        image = columns["image"] + np.repeat(np.cumsum(counts) - counts, [len(shard["image"]) for shard in shards])
        is_video = np.array([source["is_video"] for source in facts["sources"]], bool)[columns["source"]]
        own = [columns[key] for key in ("count", "length", "source")]
        tracks = draws.Tracks(*own, is_video, columns["weight"], columns["number"])
        pixels = torch.empty(int(columns["images_wh"].prod(axis=1).sum()), 3, dtype=torch.uint8, device=device)
        _fill(pixels, shards, threads or os.cpu_count() or 1)
        names = [source["name"] for source in facts["sources"]]
        return cls(names, tracks, columns["boxes_xywh"], image, columns["cut"], columns["images_wh"], pixels)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    def __len__(self) -> int:
        """Number of visible frames."""
        return len(self.image)

    def cut_windows(
        self, frames: np.ndarray, windows_xywh: np.ndarray, output: int, mirror: np.ndarray, rule: str = "exact"
    ) -> Tensor:
        """Windows (n, 4) of frames (n,) as crops (n, 3, output, output) float32 of whole grey levels.

        mirror: (n,) bool. rule "exact" cuts as `crops.crop_window`, "dimp" as `crops.crop_whole_window`.
        """
        images = self.image[frames]
        rows, columns = self._plans(images, windows_xywh, output, rule)
        offset = self.starts[torch.from_numpy(images).to(self.device)]
        width = self.images_wh[images, 0]
        return resample(self.pixels, offset, width, rows, mirrored(columns, mirror, output), output)

    def _plans(self, images: np.ndarray, windows_xywh: np.ndarray, output: int, rule: str):
        shrink = windows_xywh[:, 2:].max(axis=1) / output
        images_wh = self.images_wh[images]
        if rule == "dimp":
            shrink, images_wh = np.zeros(len(images)), np.maximum(images_wh - 1, 1)
        return tuple(
            plan_axis(windows_xywh[:, axis], windows_xywh[:, axis + 2], shrink, images_wh[:, axis], output)
            for axis in (1, 0)
        )


@dataclasses.dataclass(frozen=True)
class BatchDraws:
    """What is random about a batch of s samples with f frames, arrays (s * f, ...), sample by sample.

    target: (s,). frames: ranks. windows_xywh: in pixels of the frames' images. boxes_xywh: in crop pixels, mirrored.
    """

    target: np.ndarray
    frames: np.ndarray
    windows_xywh: np.ndarray
    boxes_xywh: np.ndarray
    mirrored: np.ndarray
    looks: draws.LookDraws


class DeviceBatches(Dataset):
    """Samples by number, whole batches at once: `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4) float32.

    Train frames come first; both are on the frames' device. The training loop finds `batch` and takes batches from it.
    """

    def __init__(
        self,
        frames: DeviceFrames,
        crops: CropSettings,
        shares: Mapping[str, float],
        train_frames: int = 3,
        test_frames: int = 3,
        max_gap: int = 200,
        seed: int = 0,
        rule: str = "any",
        length: int = 10**9,
        chunk: int | None = None,
    ):
        """Draw samples from `frames`, cut and coloured as `crops` says; length: samples that there are.

        shares, train_frames, test_frames, max_gap, seed and rule: as for `sampling.Sampler`. chunk: crops made at once,
        which bounds the memory that it takes (64 on a GPU need about 1 GB). ConfigError for shares of unknown sources.
        """
        unknown = [name for name, share in shares.items() if share and name not in frames.sources]
        if unknown or rule not in ("any", "dimp") or min(train_frames, test_frames) < 1 or max_gap < 2:
            raise ConfigError(
                f"batches on the device: no prepared source {unknown}, rule {rule!r}, {train_frames} + {test_frames} "
                f"frames or gap {max_gap}: there are {frames.sources}, the rules any and dimp, and gaps of at least 2"
            )
        self.frames, self.settings, self.length, self.seed = frames, crops, length, seed
        self.chunk = chunk or (64 if frames.device.type == "cuda" else 16)
        self.picker = draws.FramePicker(frames.tracks, train_frames, test_frames, max_gap, rule)
        own_shares = np.array([shares.get(name, 0.0) for name in frames.sources])
        self.odds = draws.target_odds(frames.tracks, own_shares, self._acceptance(), self.picker.usable, rule)
        self.jitters = [crops.train_jitter] * train_frames + [crops.test_jitter] * test_frames

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """One sample, `crops` (f, H, W, 3) and `boxes_xywh` (f, 4), the same as in any batch."""
        return {key: value[0] for key, value in self.batch([number]).items()}

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The samples with these numbers; each depends on the seed and its number alone."""
        drawn, shape = self.draw(numbers), (len(numbers), len(self.jitters))
        boxes = torch.from_numpy(drawn.boxes_xywh.astype(np.float32)).to(self.frames.device)
        crops = self._crops(drawn).permute(0, 2, 3, 1)
        return {"crops": crops.unflatten(0, shape), "boxes_xywh": boxes.unflatten(0, shape)}

    def draw(self, numbers: Sequence[int]) -> BatchDraws:
        """All that is random about the samples with these numbers, before any pixel is read."""
        rng = draws.SampleRandom.of(self.seed, np.asarray(numbers))
        target = np.searchsorted(self.odds, rng.uniform("target"), side="right")
        ranks = self.picker.draw(target, rng)
        windows, frames = self._windows(ranks, rng).reshape(-1, 4), ranks.reshape(-1)
        looks, is_video = (self.settings.look, self.settings.still_look), self.frames.tracks.is_video[target]
        changes, mirror = draws.draw_looks(looks, is_video, len(self.jitters), rng)
        boxes = draws.boxes_in_windows(self.frames.boxes_xywh[frames], windows, self.settings.output)
        width = self.settings.output - (self.settings.rule == "dimp")
        boxes[mirror, 0] = width - boxes[mirror, 0] - boxes[mirror, 2]
        return BatchDraws(target, frames, windows, boxes, mirror, changes)

    def _windows(self, ranks: np.ndarray, rng: draws.SampleRandom) -> np.ndarray:
        """Search regions (s, f, 4): the first of five tries with enough of the scene in it, else the fifth."""
        settings, boxes = self.settings, self.frames.boxes_xywh[ranks]
        images_wh, cut = self.frames.images_wh[self.frames.image[ranks]], self.frames.cut[ranks]
        windows, left = np.zeros((*ranks.shape, 4)), np.ones(ranks.shape, bool)
        for attempt in range(5):
            drawn = draws.jittered_windows(boxes, self.jitters, settings.search_factor, rng, attempt)
            drawn = draws.keep_off(drawn, images_wh, cut)
            windows[left] = drawn[left]
            left &= draws.scene_fracs(drawn, images_wh) < settings.least_scene_frac
        if settings.rule == "exact":
            return windows
        return draws.whole_windows(windows, images_wh, settings.border, settings.max_scale_change)

    def _acceptance(self) -> np.ndarray:
        """How often a target (t,), once drawn, is taken: see `TrainingSet.scene_share`."""
        frames, tracks = self.frames, self.frames.tracks
        if self.settings.least_scene_frac == 0:
            return np.ones(len(tracks.count))
        region = self.settings.search_factor**2 * frames.boxes_xywh[tracks.first, 2:].prod(axis=1)
        area = frames.images_wh[frames.image[tracks.first]].prod(axis=1)
        return np.where(tracks.is_video, 1.0, np.minimum(1.0, area / region))

    def _crops(self, drawn: BatchDraws) -> Tensor:
        """Crops (n, 3, H, W) uint8 of a batch's frames, in chunks that read parts of like size."""
        output, device = self.settings.output, self.frames.device
        crops = torch.empty(len(drawn.frames), 3, output, output, dtype=torch.uint8, device=device)
        images_wh = self.frames.images_wh[self.frames.image[drawn.frames]]
        order = np.argsort(np.minimum(drawn.windows_xywh[:, 2:], images_wh).prod(axis=1), kind="stable")
        for first in range(0, len(order), self.chunk):
            some = order[first : first + self.chunk]
            own = drawn.frames[some], drawn.windows_xywh[some], output, drawn.mirrored[some], self.settings.rule
            patches = change_looks(self.frames.cut_windows(*own), drawn.looks.part(some))
            crops.index_copy_(0, torch.from_numpy(some).to(device), patches)
        return crops


def read_manifest(folder: str | Path) -> dict:
    """The manifest of prepared frames; DatasetError where it is missing, damaged or of another version."""
    path = Path(folder) / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        usable = facts["format"] == FORMAT and all({"name", "is_video"} <= set(s) for s in facts["sources"])
        usable = usable and all(Path(shard["file"]).name == shard["file"] for shard in facts["shards"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: no prepared frames ({error}); write them with `ebmtrack prepare`") from error
    if not usable or not facts["shards"]:
        raise DatasetError(f"{path}: not prepared frames of format {FORMAT}; write them again with `ebmtrack prepare`")
    return facts


def _read_shard(path: Path, sources: int) -> dict:
    """The arrays of one shard, checked; DatasetError with its path."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            kinds = {"encoded": np.uint8, **IMAGE_KEYS, **KINDS}
            shard = {key: file[key].astype(kind, copy=False) for key, kind in kinds.items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: missing or damaged ({error}); copy or prepare it again") from error
    if not _fits(shard, sources):
        raise DatasetError(f"{path}: its arrays do not fit together; prepare it again")
    return {**shard, "path": path}


def _fits(shard: dict, sources: int) -> bool:
    """Whether the arrays of a shard belong together."""
    targets, frames, images = len(shard["count"]), int(shard["count"].sum()), len(shard["end"])
    shapes = {key: (targets,) for key in TARGET_KEYS} | {key: (frames,) for key in FRAME_KEYS}
    shapes |= {"boxes_xywh": (frames, 4), "cut": (frames, 4), "images_wh": (images, 2), "end": (images,)}
    if any(shard[key].shape != shape for key, shape in shapes.items()):
        return False
    ranges = ((shard["count"], 1, frames + 1), (shard["image"], 0, images), (shard["source"], 0, sources))
    ranges += ((shard["images_wh"], 1, 2**15), (np.diff(shard["end"], prepend=0), 1, len(shard["encoded"]) + 1))
    within = all(((low <= values) & (values < high)).all() for values, low, high in ranges)
    return bool(within and shard["end"][-1:].sum() == len(shard["encoded"]) and np.isfinite(shard["boxes_xywh"]).all())


def _fill(pixels: Tensor, shards: list[dict], threads: int) -> None:
    """Decode the images of all shards into `pixels` (P, 3), each to its place."""
    ends = np.cumsum(np.concatenate([shard["images_wh"] for shard in shards]).prod(axis=1)).tolist()
    jobs = [(shard, number) for shard in shards for number in range(len(shard["end"]))]

    def fill(job: tuple[dict, int], start: int, end: int) -> None:
        shard, number = job
        image = _decode(shard, number)
        pixels[start:end] = image.reshape(-1, 3).to(pixels.device)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, jobs, [0, *ends[:-1]], ends):
            pass


def _decode(shard: dict, number: int) -> Tensor:
    """One image (h, w, 3) uint8 RGB of a shard; DatasetError that says where."""
    start, end = np.append(0, shard["end"])[number : number + 2]
    width, height = shard["images_wh"][number].tolist()
    try:
        image = _decoder()(shard["encoded"][start:end])
        if tuple(image.shape) != (height, width, 3):
            raise RuntimeError(f"shape {tuple(image.shape)} instead of {(height, width, 3)}")
        return image
    except RuntimeError as error:
        message = f"{shard['path']}, image {number}: cannot be decoded ({error}); prepare it again"
        raise DatasetError(message) from error


@functools.cache
def _decoder() -> Callable[[np.ndarray], Tensor]:
    """OpenCV where it is installed, else torchvision; RuntimeError for what is no image."""
    try:
        from cv2 import COLOR_BGR2RGB, IMREAD_COLOR, cvtColor, imdecode
    except ImportError:
        from torchvision.io import ImageReadMode, decode_image

        return lambda encoded: decode_image(torch.from_numpy(encoded), ImageReadMode.RGB).permute(1, 2, 0)

    def decode(encoded: np.ndarray) -> Tensor:
        image = imdecode(encoded, IMREAD_COLOR) if len(encoded) else None
        if image is None:
            raise RuntimeError("no JPEG or PNG image")
        return torch.from_numpy(cvtColor(image, COLOR_BGR2RGB))

    return decode
