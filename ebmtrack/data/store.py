"""Packs as a source: target-centred crops with their boxes from LMDB shards, and all of them as one array."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ebmtrack.data.shards import Shard
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import decode_rgb
from ebmtrack.videos.image_store import LimitedCache, read_bytes
from ebmtrack.videos.source import Source

PACK_FILE, FORMAT = "pack.json", 1
INDEX_KEY = b"index"
COLUMNS = ("counts", "stored", "boxes_xywh", "windows_xywh", "scenes_xywh", "weights")


@dataclasses.dataclass(frozen=True)
class PackedPixels:
    """Many crops of a pack in one array, one after the other, each row by row: crop i is image(i).

    pixels: (P, 3) uint8 RGB. offsets: (n,) int64, the first pixel of each. sizes_hw: (n, 2) int64.
    boxes_xywh: (n, 4) float64 in crop pixels. cut: (n, 4) bool, left, top, right, bottom: there the picture goes on
    beyond the crop. targets, frames: (n,) int64, the source's numbers, in order.
    """

    pixels: np.ndarray
    offsets: np.ndarray
    sizes_hw: np.ndarray
    boxes_xywh: np.ndarray
    cut: np.ndarray
    targets: np.ndarray
    frames: np.ndarray

    def image(self, row: int) -> np.ndarray:
        """Crop number `row`, a view (h, w, 3)."""
        height, width = self.sizes_hw[row]
        return self.pixels[self.offsets[row] : self.offsets[row] + height * width].reshape(height, width, 3)


def frame_key(target: int, frame: int) -> bytes:
    """The key of a crop in its shard."""
    return f"{target:08d}/{frame:08d}".encode()


class PackedSource(Source):
    """A pack that `ebmtrack pack` wrote: same targets and frame numbers as its source, boxes in crop pixels.

    `visible` is true for the frames that the pack holds: the others have boxes of NaN, and cannot be read.
    `facts` is what pack.json says; `cut_at` is how many target sizes of the picture lie around the target's centre,
    for `CropSettings.cut_at`.
    """

    def __init__(self, root: str | Path, name: str | None = None, decoded_limit: int = 0) -> None:
        """Open the folder `root`; decoded crops are kept up to `decoded_limit` bytes per process.

        DatasetError where it is no pack, a half-written or a damaged one.
        """
        self.root, self.facts = Path(root), read_facts(Path(root))
        self.name, self.is_video = name or self.facts["source"], self.facts["is_video"]
        self.cut_at = self.facts["settings"]["context"] / 2
        self.side = self.facts["settings"]["output"]
        self._shards = [Shard(self.root / each["name"], each) for each in self.facts["shards"]]
        self._first = np.array([each["first"] for each in self.facts["shards"]], np.int64)
        self._decoded = LimitedCache(decoded_limit)
        self._read_indices()

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        return self._names[index]

    def boxes_xywh(self, index: int) -> np.ndarray:
        """Boxes (n, 4) float64 in crop pixels; NaN for frames that are not in the pack."""
        return self._columns["boxes_xywh"][self._rows(index)].astype(np.float64)

    def visible(self, index: int) -> np.ndarray:
        """(n,) bool: the frames in the pack."""
        return self._columns["stored"][self._rows(index)]

    def windows_xywh(self, index: int) -> np.ndarray:
        """(n, 4) int32: where each crop was cut from its frame, in the frame's pixels; zero where there is none."""
        return self._columns["scenes_xywh"][self._rows(index)]

    def weights(self) -> np.ndarray:
        """The sampling weights that the source had when it was packed."""
        return self._columns["weights"].copy()

    def frame(self, index: int, frame: int) -> np.ndarray:
        """The crop (h, w, 3) uint8 RGB, both sides at most `side`; read-only."""
        stored = self.visible(index)
        if not 0 <= frame < len(stored) or not stored[frame]:
            raise DatasetError(f"{self.root}: target {self._names[index]!r} has no frame {frame} in the pack")
        return self._decoded.get((index, frame), lambda: self._decode(index, frame), lambda image: image.nbytes)

    def stored_frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Target and frame numbers (n,), (n,) int64 of all crops, in order."""
        targets = np.repeat(np.arange(len(self)), self._columns["counts"])
        frames = np.arange(len(targets)) - np.repeat(self._starts[:-1], self._columns["counts"])
        stored = self._columns["stored"]
        return targets[stored], frames[stored]

    def read_pixels(
        self, targets: Sequence[int] | None = None, threads: int = 4, out: np.ndarray | None = None
    ) -> PackedPixels:
        """All crops of some targets (of all by default) as one array: what a device keeps in its memory.

        `out` (P, 3) uint8, for example pinned memory, takes the pixels instead of a new array; `count_pixels` says P.
        """
        numbers, frames, rows = self._chosen(targets)
        sizes = self._sizes_hw(rows)
        ends = np.cumsum(sizes.prod(axis=1))
        offsets, total = ends - sizes.prod(axis=1), int(ends[-1]) if len(ends) else 0
        pixels = np.empty((total, 3), np.uint8) if out is None else out
        if pixels.shape != (total, 3) or pixels.dtype != np.uint8:
            shape = f"{pixels.dtype} {pixels.shape}"
            raise ConfigError(f"{self.root}: `out` must be uint8 of shape ({total}, 3), not {shape}")
        boxes = self._columns["boxes_xywh"][rows].astype(np.float64)
        found = PackedPixels(pixels, offsets, sizes, boxes, self._cut(rows), numbers, frames)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for _ in pool.map(lambda row: self._copy(found, row), range(len(rows))):
                pass
        return found

    def count_pixels(self, targets: Sequence[int] | None = None) -> int:
        """How many pixels `read_pixels` returns, without reading any."""
        return int(self._sizes_hw(self._chosen(targets)[2]).prod(axis=1).sum())

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """A line for each record whose checksum does not fit; `every_frame` decodes the crops as well."""
        for index, frame in zip(*self.stored_frames(), strict=True):
            try:
                if every_frame:
                    self._decode(int(index), int(frame))
                else:
                    self._shard_of(int(index))[frame_key(int(index), int(frame))]
            except DatasetError as error:
                yield str(error)

    def _rows(self, index: int) -> slice:
        index = range(len(self))[index]
        return slice(self._starts[index], self._starts[index + 1])

    def _shard_of(self, index: int) -> Shard:
        return self._shards[int(np.searchsorted(self._first, index, side="right")) - 1]

    def _decode(self, index: int, frame: int) -> np.ndarray:
        shard, key = self._shard_of(index), frame_key(index, frame)
        image = decode_rgb(shard[key], f"{shard.path}, key {key.decode()!r}")
        image.setflags(write=False)
        return image

    def _copy(self, found: PackedPixels, row: int) -> None:
        """Decode one crop into its place."""
        index, frame = int(found.targets[row]), int(found.frames[row])
        image = self._decode(index, frame)
        if image.shape[:2] != tuple(found.sizes_hw[row]):
            raise DatasetError(
                f"{self._shard_of(index).path}, key {frame_key(index, frame).decode()!r}: a crop of "
                f"{image.shape[:2]} pixels where {found.sizes_hw[row].tolist()} are noted; write the pack again"
            )
        found.image(row)[:] = image

    def _chosen(self, targets: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Target and frame numbers of the crops of some targets, and their rows in the columns."""
        numbers, frames = self.stored_frames()
        if targets is not None:
            chosen = np.isin(numbers, np.asarray(targets, np.int64))
            numbers, frames = numbers[chosen], frames[chosen]
        return numbers, frames, self._starts[numbers] + frames

    def _sizes_hw(self, rows: np.ndarray) -> np.ndarray:
        windows, scenes = self._columns["windows_xywh"][rows], self._columns["scenes_xywh"][rows]
        return crop_size(windows, scenes, self.side)[:, ::-1]

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        """(n, 4) bool: edges where a crop ends as its window does, not as the picture."""
        windows, scenes = self._columns["windows_xywh"][rows], self._columns["scenes_xywh"][rows]
        ends = [columns[:, :2] + columns[:, 2:] for columns in (windows, scenes)]
        return np.concatenate([windows[:, :2] == scenes[:, :2], ends[0] == ends[1]], axis=1)

    def _read_indices(self) -> None:
        """Names and columns of all shards, one after the other."""
        names, columns = [], {key: [] for key in COLUMNS}
        for shard, facts in zip(self._shards, self.facts["shards"], strict=True):
            with np.load(io.BytesIO(shard[INDEX_KEY]), allow_pickle=False) as index:
                own = json.loads(index["names"].tobytes())
                if len(own) != facts["targets"] or len(names) != facts["first"]:
                    raise DatasetError(f"{shard.path}: does not fit {self.root / PACK_FILE}; write the pack again")
                names += own
                for key in COLUMNS:
                    columns[key].append(index[key])
        self._names = names
        self._columns = {key: np.concatenate(parts) for key, parts in columns.items()}
        for column in self._columns.values():
            column.setflags(write=False)
        self._starts = np.concatenate([[0], np.cumsum(self._columns["counts"])])


def crop_size(windows_xywh: np.ndarray, scenes_xywh: np.ndarray, side: int) -> np.ndarray:
    """(n, 2) int64: width and height of crops whose square windows (n, 4) are cut to the scenes (n, 4).

    A window larger than `side` is scaled down to it, a smaller one stays as it is.
    """
    scale = np.minimum(1, side / np.maximum(windows_xywh[:, 2:].max(axis=1, initial=1), 1))[:, None]
    return np.clip(np.round(scenes_xywh[:, 2:] * scale), 1, side).astype(np.int64)


def read_facts(root: Path) -> dict:
    """The content of a pack's pack.json; DatasetError where there is no complete pack."""
    path = root / PACK_FILE
    if not path.is_file():
        begun = (root / "packing.json").is_file()
        state = "a half-written pack: run the same `ebmtrack pack` again to complete it" if begun else "no pack"
        raise DatasetError(f"{root}: {state} ({PACK_FILE} is missing)")
    try:
        facts = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); write the pack again") from error
    fault = _fault(facts)
    if fault:
        raise DatasetError(f"{path}: {fault}; write the pack again with this version of ebmtrack")
    return facts


def _fault(facts: object) -> str | None:
    """What is wrong with the content of a pack.json."""
    if not isinstance(facts, dict) or facts.get("format") != f"ebmtrack pack {FORMAT}":
        return f"is not 'ebmtrack pack {FORMAT}'"
    try:
        whole = all(type(each[key]) is int for each in facts["shards"] for key in ("first", "targets", "bytes", "page"))
        plain = all(Path(each["name"]).name == each["name"] for each in facts["shards"])
        runs = [run for each in facts["shards"] for run in each["tree"]]
        right = all(type(a) is int and type(n) is int and 0 <= a < 2**40 and 0 < n < 2**24 for a, n in runs)
        sizes = 1 <= facts["settings"]["output"] <= 4096 and 1 <= float(facts["settings"]["context"]) <= 100
        named = isinstance(facts["source"], str) and type(facts["is_video"]) is bool
        crcs = all(type(each["tree_crc"]) is int and each["page"] > 0 for each in facts["shards"])
        whole = whole and type(facts["settings"]["output"]) is int and len(facts["shards"]) > 0
    except (KeyError, TypeError, ValueError) as error:
        return f"lacks a field, or has one of a wrong kind ({error!r})"
    return None if whole and plain and right and sizes and named and crcs else "has a field of a wrong kind or size"
