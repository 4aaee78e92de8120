"""Packs: target-centred crops with their boxes in LMDB files, written once (`packing`), read by many processes.

A record is four bytes of CRC-32 and its content, so that damage of a crop is found when it is read. LMDB checks nothing
itself, and may crash on damage of its own pages: the length of each file is compared when a pack is opened, and the
checksum of each file if that is asked for (`ebmtrack datasets check pack FOLDER`).
"""

from __future__ import annotations

import io
import json
import os
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ebmtrack.errors import DatasetError, missing_extra
from ebmtrack.files import expand_home
from ebmtrack.images import decode_rgb
from ebmtrack.videos.image_store import LimitedCache, read_bytes
from ebmtrack.videos.source import Source

if TYPE_CHECKING:
    import lmdb

PACK_FILE, FORMAT = "pack.json", 2
INDEX_KEY = b"index"
COLUMNS = ("counts", "stored", "boxes_xywh", "windows_xywh", "scenes_xywh", "weights")
CHUNK_BYTES = 2**24
_OPENED: weakref.WeakValueDictionary[str, _Opened] = weakref.WeakValueDictionary()
_OPENED_LOCK = threading.Lock()


class PackedSource(Source):
    """A pack that `ebmtrack pack` wrote: same targets and frame numbers as its source, boxes in crop pixels.

    `visible` is true for the frames that the pack holds: the others have boxes of NaN, and cannot be read. `facts` is
    the content of pack.json; `cut_at` is how many target sizes of the picture surround the target's centre, for
    `CropSettings.cut_at`.
    """

    def __init__(self, root: str | Path, name: str | None = None, decoded_limit: int = 0, verify: bool = False) -> None:
        """Open a pack.

        Args:
            root: Its folder.
            name: What samplers call it; by default the name of its source.
            decoded_limit: Bytes of decoded crops to keep, per process.
            verify: Whether to read all files and to compare their checksums first.

        Raises:
            DatasetError: If it is no pack, a half-written or a damaged one.
        """
        self.root = expand_home(root)
        self.facts = read_facts(self.root)
        self.name, self.is_video = name or self.facts["source"], self.facts["is_video"]
        own, before = self.facts["settings"]["context"] / 2, self.facts.get("cut_at")
        self.cut_at: float | None = own if before is None else min(own, before)
        self.side = self.facts["settings"]["output"]
        if verify:
            _verify(self.root, self.facts)
        self._shards = [PackShard(self.root / each["name"], each["bytes"]) for each in self.facts["shards"]]
        self._first = np.array([each["first"] for each in self.facts["shards"]], np.int64)
        self._decoded = LimitedCache(decoded_limit)
        self._read_indices()

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        return self._names[index]

    def boxes_xywh(self, index: int) -> np.ndarray:
        """Return boxes (n, 4) float64 in crop pixels; NaN for frames that are not in the pack."""
        return self._columns["boxes_xywh"][self._rows(index)].astype(np.float64)

    def visible(self, index: int) -> np.ndarray:
        """Return (n,) bool: the frames in the pack."""
        return self._columns["stored"][self._rows(index)]

    def windows_xywh(self, index: int) -> np.ndarray:
        """Return (n, 4) int32: where each crop was cut from its frame, in the frame's pixels; zero if there is none."""
        return self._columns["scenes_xywh"][self._rows(index)]

    def weights(self) -> np.ndarray:
        """Return the sampling weights that the source had when it was packed."""
        return self._columns["weights"].copy()

    def frame(self, index: int, frame: int) -> np.ndarray:
        """Return the crop (h, w, 3) uint8 RGB, both sides at most `side`; read-only."""
        stored = self.visible(index)
        if not 0 <= frame < len(stored) or not stored[frame]:
            raise DatasetError(f"{self.root}: target {self._names[index]!r} has no frame {frame} in the pack")
        return self._decoded.get((index, frame), lambda: self._decode(index, frame), lambda image: image.nbytes)

    def frame_size_wh(self, index: int, frame: int) -> tuple[int, int]:
        row = self._rows(index).start + frame
        windows, scenes = (self._columns[key][row : row + 1] for key in ("windows_xywh", "scenes_xywh"))
        width, height = crop_size(windows, scenes, self.side)[0].tolist()
        return width, height

    def stored_frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Return target and frame numbers (n,), (n,) int64 of all crops, in order."""
        targets = np.repeat(np.arange(len(self)), self._columns["counts"])
        frames = np.arange(len(targets)) - np.repeat(self._starts[:-1], self._columns["counts"])
        stored = self._columns["stored"]
        return targets[stored], frames[stored]

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """Yield a line for each record whose checksum does not fit.

        Args:
            every_frame: Decode the crops as well.
        """
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
        return slice(int(self._starts[index]), int(self._starts[index + 1]))

    def _shard_of(self, index: int) -> PackShard:
        return self._shards[int(np.searchsorted(self._first, index, side="right")) - 1]

    def _decode(self, index: int, frame: int) -> np.ndarray:
        shard, key = self._shard_of(index), frame_key(index, frame)
        where = f"{shard.path}, key {key.decode()!r}"
        image = decode_rgb(shard[key], where)
        if image.shape[1::-1] != self.frame_size_wh(index, frame):
            noted = self.frame_size_wh(index, frame)
            raise DatasetError(f"{where}: {image.shape[1::-1]} pixels instead of {noted}; write the pack again")
        image.setflags(write=False)
        return image

    def _read_indices(self) -> None:
        """Read names and columns of all shards, one after the other."""
        names: list[str] = []
        columns: dict[str, list[np.ndarray]] = {key: [] for key in COLUMNS}
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


def open_packs(folder: str | Path) -> dict[str, PackedSource]:
    """Open all packs in a folder by the folders' names, or the folder itself if it is one pack.

    Raises:
        DatasetError: If there is no pack, or a damaged one.
    """
    root = Path(folder)
    inside = sorted(path.parent for path in root.glob(f"*/{PACK_FILE}") if not path.parent.name.startswith("."))
    if inside and not (root / PACK_FILE).is_file():
        return {path.name: PackedSource(path, path.name) for path in inside}
    pack = PackedSource(root)
    return {pack.name: pack}


def frame_key(target: int, frame: int) -> bytes:
    """Return the key of a crop in its shard."""
    return f"{target:08d}/{frame:08d}".encode()


def crop_size(windows_xywh: np.ndarray, scenes_xywh: np.ndarray, side: int) -> np.ndarray:
    """Return (n, 2) int64: width and height of crops whose square windows (n, 4) are cut to the scenes (n, 4).

    A window larger than `side` is scaled down to it, a smaller one stays as it is.
    """
    scale = np.minimum(1, side / np.maximum(windows_xywh[:, 2:].max(axis=1, initial=1), 1))[:, None]
    return np.clip(np.round(scenes_xywh[:, 2:] * scale), 1, side).astype(np.int64)


def read_facts(root: Path) -> dict[str, Any]:
    """Return the content of a pack's pack.json; DatasetError if there is no complete pack."""
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
    """Return what is wrong with the content of a pack.json."""
    if not isinstance(facts, dict) or facts.get("format") != f"ebmtrack pack {FORMAT}":
        return f"is not 'ebmtrack pack {FORMAT}'"
    try:
        shards, settings = list(facts["shards"]), facts["settings"]
        sound = {
            "source": isinstance(facts["source"], str),
            "is_video": type(facts["is_video"]) is bool,
            "settings.output": type(settings["output"]) is int and 1 <= settings["output"] <= 4096,
            "settings.context": 1 <= float(settings["context"]) <= 100,
            "cut_at": facts.get("cut_at") is None or 0 < float(facts["cut_at"]) < 1000,
            "shards": len(shards) > 0,
            "shards' names": all(Path(each["name"]).name == each["name"] for each in shards),
            "shards' numbers": all(
                type(each[key]) is int for each in shards for key in ("first", "targets", "bytes", "crc")
            ),
        }
    except (KeyError, TypeError, ValueError) as error:
        return f"lacks a field, or has one of a wrong kind ({error!r})"
    wrong = next((name for name, is_sound in sound.items() if not is_sound), None)
    return f"{wrong}: a wrong kind or size" if wrong else None


def _verify(root: Path, facts: dict[str, Any]) -> None:
    """Raise DatasetError that names the files whose checksum is not that of pack.json."""
    damaged = [each["name"] for each in facts["shards"] if file_crc(root / each["name"]) != each["crc"]]
    if damaged:
        names = ", ".join(str(root / name) for name in damaged)
        raise DatasetError(f"{names}: cut short or damaged; copy them again, or write the pack again")


def seal(content: bytes) -> bytes:
    """Return the record of some content: its CRC-32, then the content."""
    return zlib.crc32(content).to_bytes(4, "big") + content


def unseal(record: bytes, where: str) -> bytes:
    """Return the content of a record; DatasetError, which begins with `where`, if a byte of it has changed."""
    if len(record) < 4 or zlib.crc32(record[4:]) != int.from_bytes(record[:4], "big"):
        raise DatasetError(f"{where}: the record is damaged; write the pack again (`ebmtrack pack`)")
    return record[4:]


def file_crc(path: Path) -> int:
    """Return the CRC-32 of a file; DatasetError if it cannot be read."""
    crc = 0
    try:
        with open(path, "rb") as file:
            while part := file.read(CHUNK_BYTES):
                crc = zlib.crc32(part, crc)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); copy the whole pack again") from error
    return crc


class PackShard:
    """An LMDB file of a pack, open once in each process; pickles as its path."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Open `path`. DatasetError if it is missing or has another size than it was written with."""
        self.path = Path(path)
        try:
            whole = self.path.stat().st_size == size_bytes
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error}); copy the whole pack again") from error
        if not whole:
            raise DatasetError(f"{path}: cut short or damaged; copy it again, or write the pack again")
        self._opened: _Opened | None = _open_environment(self.path, fresh=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def __getitem__(self, key: bytes) -> bytes:
        """Return the content at `key`; DatasetError with path and key if it is missing or damaged."""
        if self._opened is None or self._opened.pid != os.getpid():
            self._opened = _open_environment(self.path)
        where = f"{self.path}, key {key.decode()!r}"
        try:
            with self._opened.env.begin() as transaction:
                record = transaction.get(key)
        except load_lmdb().Error as error:
            raise DatasetError(f"{where}: cannot be read ({error}); open the pack again, or write it again") from error
        if record is None:
            raise DatasetError(f"{where}: there is no such record; write the pack again")
        return unseal(record, where)


def load_lmdb() -> Any:
    """Return the package lmdb. ConfigError that names the extra if it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise missing_extra("lmdb", "a pack") from error
    return lmdb


class _Opened:
    """An LMDB environment and the process that opened it; a forked process must open its own."""

    def __init__(self, path: Path) -> None:
        self.pid, self.file = os.getpid(), _identity(path)
        self.env: lmdb.Environment = load_lmdb().open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=16
        )


def _open_environment(path: Path, fresh: bool = False) -> _Opened:
    """Return this process's environment of a file, of which LMDB allows one; `fresh` looks if the file was replaced."""
    key = os.path.realpath(path)
    with _OPENED_LOCK:
        found = _OPENED.get(key)
        if found is not None and (found.pid != os.getpid() or (fresh and found.file != _identity(path))):
            found.env.close()
            found = None
        try:
            found = found or _Opened(path)
        except (OSError, load_lmdb().Error) as error:
            raise DatasetError(f"{path}: LMDB cannot open it ({error}); copy the pack again") from error
        _OPENED[key] = found
        return found


def _identity(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
