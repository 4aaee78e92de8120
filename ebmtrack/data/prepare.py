"""Preparing frames for `on_device`: any source as target-centred pictures with boxes, in shards that are easy to move.

A folder of prepared frames holds prepared.json and shards (NumPy .npz), each below a size. Reading them needs neither
OpenCV nor the source.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ebmtrack.data.catalogue import open_source
from ebmtrack.data.device_draws import Tracks
from ebmtrack.data.on_device import FORMAT, FRAME_KEYS, MANIFEST, TARGET_KEYS, DeviceFrames
from ebmtrack.data.pool import open_pool
from ebmtrack.data.store import PackedSource
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import replacing, write_text
from ebmtrack.videos.image_store import MEBIBYTE
from ebmtrack.videos.source import Source

POOL_CUT_AT = {"video": 5.0}  # frames of the small pool's video were cut ten target sizes wide
PER_FRAME, PER_TARGET, HEADERS = 80, 40, 4096  # bytes of a frame's and a target's figures, and of a shard's headers


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What is kept of each frame.

    context: target sizes sqrt(w h) around the target's middle, half to each side. target_px: larger targets are scaled
    down to this size; a search region of five target sizes in 288 pixels shows them at 58. quality: of JPEG, 1 to 100;
    0 is PNG, without loss. most_frames: of a video, evenly spread; 0 keeps all. most_targets: source name -> the first
    so many targets. cut_at: as in `CropSettings`, for sources whose frames were cut before; packs know their own.
    shard_mib: limit of a file.
    """

    context: float = 12.0
    target_px: float = 96.0
    quality: int = 90
    most_frames: int = 0
    most_targets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    cut_at: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shard_mib: float = 56.0

    def __post_init__(self) -> None:
        fits = self.context >= 2 and self.target_px >= 8 and 0 <= self.quality <= 100
        if not fits or self.most_frames < 0 or self.shard_mib <= 0:
            raise ConfigError(
                "preparing frames needs a context of at least 2, targets of at least 8 pixels, a quality of 0 to 100, "
                f"most_frames of at least 0 and a positive shard_mib, got {self}"
            )


@dataclasses.dataclass(frozen=True)
class PreparedTarget:
    """Visible frames of one target: encoded pictures and their sizes_wh, boxes_xywh (n, 4), cut (n, 4), number (n,).

    length: frames of the whole video; weight: among the targets of its source.
    """

    pictures: list[bytes]
    sizes_wh: list[tuple[int, int]]
    boxes_xywh: np.ndarray
    cut: np.ndarray
    number: np.ndarray
    length: int
    weight: float

    @property
    def bytes(self) -> int:
        """What it takes in a file, at most."""
        return PER_TARGET + sum(len(picture) + PER_FRAME for picture in self.pictures)


def prepared_frame(
    image: np.ndarray, box_xywh: np.ndarray, settings: PrepareSettings, cut_at: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture around a target (h, w, 3), the target's box in it (4,), and where the scene goes on beyond it (4,).

    The scene goes on at left, top, right or bottom where the picture ends before the image does, or where the image
    itself was cut, which is so at least 0.8 * cut_at target sizes from the target (`augment.keep_off_cut_edges`).
    """
    size = math.sqrt(box_xywh[2] * box_xywh[3])
    centre, image_wh = box_xywh[:2] + box_xywh[2:] / 2, np.array(image.shape[1::-1])
    reach = size * settings.context / 2
    low = np.clip(np.floor(centre - reach), 0, image_wh - 2).astype(int)
    high = np.clip(np.ceil(centre + reach), low + 2, image_wh).astype(int)
    cut = np.concatenate([low > 0, high < image_wh])
    if cut_at is not None:
        cut |= np.concatenate([centre, image_wh - centre]) >= 0.8 * cut_at * size
    picture = image[low[1] : high[1], low[0] : high[0]]
    box = np.concatenate([box_xywh[:2] - low, box_xywh[2:]])
    if size > settings.target_px:
        wh = np.maximum(2, np.rint((high - low) * settings.target_px / size)).astype(int)
        picture = cv2.resize(picture, (int(wh[0]), int(wh[1])), interpolation=cv2.INTER_AREA)
        box = box * np.tile(wh / (high - low), 2)
    return np.ascontiguousarray(picture), box, cut


def prepared_targets(
    source: Source, settings: PrepareSettings, encode: Callable[[np.ndarray], bytes]
) -> Iterator[PreparedTarget]:
    """The targets of a source that are visible somewhere, in order."""
    weights = source.weights()
    for index in range(min(len(source), settings.most_targets.get(source.name, len(source)))):
        visible, boxes = source.visible(index), source.boxes_xywh(index)
        numbers = np.flatnonzero(visible)
        if settings.most_frames and len(numbers) > settings.most_frames:
            numbers = numbers[np.linspace(0, len(numbers) - 1, settings.most_frames).round().astype(int)]
        if len(numbers) == 0 or not weights[index] > 0:
            continue
        cut_at = _cut_at(source, settings)
        frames = [prepared_frame(source.frame(index, int(f)), boxes[f], settings, cut_at) for f in numbers]
        images, own_boxes, cut = zip(*frames)
        facts = np.stack(own_boxes), np.stack(cut), numbers, len(visible), float(weights[index])
        yield PreparedTarget([encode(p) for p in images], [(p.shape[1], p.shape[0]) for p in images], *facts)


def _cut_at(source: Source, settings: PrepareSettings) -> float | None:
    """How many target sizes of the picture lie around the targets of a source whose frames were cut before."""
    return settings.cut_at.get(source.name, getattr(source, "cut_at", None))


def frames_in_memory(
    sources: Mapping[str, Source], settings: PrepareSettings = PrepareSettings(), device: torch.device | str = "cpu"
) -> DeviceFrames:
    """Prepared frames without files, for sources that fit in memory."""
    shard = Shard()
    for number, source in enumerate(sources.values()):
        for target in prepared_targets(source, settings, np.ndarray.tobytes):
            shard.add(target, number)
    arrays = shard.arrays()
    is_video = np.array([source.is_video for source in sources.values()])[arrays["source"]]
    own = [arrays[key] for key in ("count", "length", "source")]
    tracks = Tracks(*own, is_video, arrays["weight"], arrays["number"])
    pixels = torch.from_numpy(arrays["encoded"].reshape(-1, 3)).to(device)
    frames = arrays["boxes_xywh"], arrays["image"], arrays["cut"], shard.images_wh
    return DeviceFrames(list(sources), tracks, *frames, pixels)


def frames_of_packs(packs: Mapping[str, PackedSource], device: torch.device | str = "cpu") -> DeviceFrames:
    """All crops of packs (`ebmtrack pack`, name -> source) in the memory of a device, without preparing them."""
    parts = [_packed_columns(pack, number) for number, pack in enumerate(packs.values())]
    pixels = torch.cat([torch.from_numpy(part.pop("pixels")).to(device) for part in parts])
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    tracks = Tracks(**{field.name: columns[field.name] for field in dataclasses.fields(Tracks)})
    own = columns["boxes_xywh"], np.arange(len(columns["number"])), columns["cut"], columns["images_wh"]
    return DeviceFrames(list(packs), tracks, *own, pixels)


def _packed_columns(pack: PackedSource, number: int) -> dict[str, np.ndarray]:
    """What `DeviceFrames` needs of a pack that is source `number`."""
    weights = pack.weights()
    used = [index for index in range(len(pack)) if weights[index] > 0 and pack.visible(index).any()]
    read = pack.read_pixels(used)
    return {
        "count": np.bincount(read.targets, minlength=len(pack))[used],
        "length": np.array([len(pack.visible(index)) for index in used], np.int64),
        "source": np.full(len(used), number),
        "is_video": np.full(len(used), pack.is_video),
        "weight": weights[used],
        "number": read.frames,
        "boxes_xywh": read.boxes_xywh,
        "cut": read.cut,
        "images_wh": read.sizes_hw[:, ::-1],
        "pixels": read.pixels,
    }


def prepare(
    sources: Mapping[str, Source],
    out: str | Path,
    settings: PrepareSettings = PrepareSettings(),
    progress: bool = False,
) -> dict:
    """Write the frames of `sources` (name -> source) to the folder `out` and return its manifest.

    ConfigError where `out` already holds prepared frames; DatasetError where a source is damaged or has no target.
    """
    out = Path(out)
    if (out / MANIFEST).exists():
        raise ConfigError(f"{out} already holds prepared frames: choose another folder, or remove it first")
    writer = _Writer(out, settings)
    facts = [_prepare_source(*item, number, writer, settings, progress) for number, item in enumerate(sources.items())]
    writer.close()
    kept = dataclasses.asdict(settings)
    manifest = {"format": FORMAT, "sources": facts, "shards": writer.shards, "settings": kept}
    write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def open_named(named: Sequence[str], part: str = "train", clips: int = 2000, seed: int = 0) -> dict[str, Source]:
    """Sources to prepare, from NAME=FOLDER: a name of `open_source`, or pool for the three of the small pool.

    part: of the pool, train, validation or all; clips, seed: of its compositions. A name may come once.
    """
    sources: dict[str, Source] = {}
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise ConfigError(f"source {text!r}: write it as NAME=FOLDER, for example pool=/data/pool")
        pool = name == "pool"
        found = open_pool(folder, part, seed=seed, clips=clips) if pool else {name: open_source(name, folder)}
        if set(found) & set(sources):
            raise ConfigError(f"source {text!r}: there is one of that name already ({', '.join(sources)})")
        sources |= found
    if not sources:
        raise ConfigError("nothing to prepare: give sources as NAME=FOLDER, for example pool=/data/pool")
    return sources


def _prepare_source(
    name: str, source: Source, number: int, writer: _Writer, settings: PrepareSettings, progress: bool
) -> dict:
    targets = frames = 0
    total = min(len(source), settings.most_targets.get(source.name, len(source)))
    encode = functools.partial(encoded_picture, quality=settings.quality)
    for target in tqdm(prepared_targets(source, settings, encode), name, total, unit="target", disable=not progress):
        writer.add(target, number)
        targets, frames = targets + 1, frames + len(target.pictures)
    if not targets:
        raise DatasetError(f"source {name}: no target is visible in any frame, there is nothing to prepare")
    cut_at = _cut_at(source, settings)
    context = settings.context if cut_at is None else min(settings.context, 2 * cut_at)
    return {"name": name, "is_video": source.is_video, "targets": targets, "frames": frames, "context": context}


class Shard:
    """Targets of one file while it grows; a picture that several targets share is kept once."""

    def __init__(self) -> None:
        self.bytes = 0
        self.columns: dict[str, list[np.ndarray]] = {key: [] for key in (*TARGET_KEYS, *FRAME_KEYS)}
        self._known: dict[tuple[bytes, tuple[int, int]], int] = {}

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._known)

    def add(self, target: PreparedTarget, source: int) -> None:
        """Add a target of source number `source`."""
        images = [self._known.setdefault(key, len(self._known)) for key in zip(target.pictures, target.sizes_wh)]
        own = {"count": [len(images)], "length": [target.length], "source": [source], "weight": [target.weight]}
        own |= {"number": target.number, "image": images, "boxes_xywh": target.boxes_xywh, "cut": target.cut}
        for key, values in own.items():
            self.columns[key].append(np.asarray(values))
        self.bytes += target.bytes

    @property
    def images_wh(self) -> np.ndarray:
        """Sizes (i, 2) int64 of the pictures."""
        return np.array([size_wh for _, size_wh in self._known], np.int64).reshape(-1, 2)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the file holds; `end` is where each picture ends in `encoded`."""
        kinds = {**TARGET_KEYS, **FRAME_KEYS}
        arrays = {key: np.concatenate(parts).astype(kinds[key]) for key, parts in self.columns.items()}
        pictures = [picture for picture, _ in self._known]
        arrays["images_wh"] = self.images_wh
        arrays["end"] = np.cumsum([len(picture) for picture in pictures])
        arrays["encoded"] = np.frombuffer(b"".join(pictures), np.uint8).copy()
        return arrays


class _Writer:
    """Shards on disk, each closed before it grows beyond the limit."""

    def __init__(self, out: Path, settings: PrepareSettings):
        self.out, self.settings = out, settings
        self.limit = int(settings.shard_mib * MEBIBYTE) - HEADERS
        self.shard, self.shards = Shard(), []

    def add(self, target: PreparedTarget, source: int) -> None:
        """Add a target to the file that grows, or to a new one."""
        if target.bytes > self.limit:
            raise ConfigError(
                f"a target of {len(target.pictures)} frames does not fit in a shard of {self.settings.shard_mib} MiB: "
                "keep fewer frames of each video (most_frames) or allow larger shards"
            )
        if self.shard.bytes + target.bytes > self.limit:
            self.close()
        self.shard.add(target, source)

    def close(self) -> None:
        """Write the file that grows."""
        if not len(self.shard):
            return
        name = f"shard-{len(self.shards):04d}.npz"
        with replacing(self.out / name) as temporary:
            np.savez(temporary, **self.shard.arrays())
        counts = {"targets": len(self.shard.columns["count"]), "images": len(self.shard)}
        self.shards.append({"file": name, **counts, "bytes": (self.out / name).stat().st_size})
        self.shard = Shard()


def encoded_picture(picture: np.ndarray, quality: int) -> bytes:
    """JPEG of the given quality, or PNG where that is 0, of an RGB picture (h, w, 3) uint8."""
    kind, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]) if quality else (".png", [])
    done, data = cv2.imencode(kind, np.ascontiguousarray(picture[..., ::-1]), options)
    if not done:
        raise DatasetError(f"a picture of shape {picture.shape} cannot be encoded as {kind}: is its box sound?")
    return data.tobytes()
