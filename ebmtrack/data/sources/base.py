"""What a source of training targets offers, selections of sources, and a store of images."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError

MEBIBYTE = 2**20


class Source(ABC):
    """A list of annotated targets: a target is one object in one video, or one box of one photograph."""

    name: str
    is_video: bool

    @abstractmethod
    def __len__(self) -> int:
        """Number of targets."""

    @abstractmethod
    def target_name(self, index: int) -> str:
        """A name that stays the same when files are added; validation targets are chosen by it."""

    @abstractmethod
    def boxes_xywh(self, index: int) -> np.ndarray:
        """Boxes (n, 4) float64 of target `index` in its n frames, 0-based pixels. Photographs have n = 1."""

    @abstractmethod
    def visible(self, index: int) -> np.ndarray:
        """(n,) bool: False where the target is absent, mostly covered, or its box is degenerate."""

    @abstractmethod
    def frame(self, index: int, frame: int) -> np.ndarray:
        """Frame number `frame` of target `index`: (H, W, 3) uint8 RGB, contiguous, not to be written into."""

    def weights(self) -> np.ndarray:
        """Sampling weights (len,) float64, not normalised; all one unless a selection sets them."""
        return np.ones(len(self))

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """What is wrong with the data, a line for each fault: annotations, and first and last visible frame.

        `every_frame` reads all visible frames instead of two.
        """
        for index in range(len(self)):
            try:
                visible = np.flatnonzero(self.visible(index))
                for frame in visible if every_frame else visible[:1].tolist() + visible[1:][-1:].tolist():
                    self.frame(index, int(frame))
            except DatasetError as error:
                yield str(error)

    def subset(self, keep: Callable[[str], bool]) -> Selection:
        """The targets whose name satisfies `keep`, with their weights."""
        return Selection(self, [i for i in range(len(self)) if keep(self.target_name(i))])

    def weighted(self, weights: np.ndarray) -> Selection:
        """All targets, drawn with `weights` (len,), finite and not negative."""
        return Selection(self, range(len(self)), weights)


class Selection(Source):
    """Some targets of a source, in a given order, with their own sampling weights."""

    def __init__(self, source: Source, indices: Sequence[int], weights: np.ndarray | None = None) -> None:
        """Take targets `indices` of `source`; `weights` (len(indices),) replace the source's own."""
        self.name, self.is_video = source.name, source.is_video
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        self._weights = source.weights()[self._indices] if weights is None else np.array(weights, np.float64)
        if self._weights.shape != self._indices.shape or not np.all(np.isfinite(self._weights)):
            raise ConfigError(f"source {self.name}: weights must be {len(self._indices)} finite numbers")
        if np.any(self._weights < 0):
            raise ConfigError(f"source {self.name}: sampling weights must not be negative")

    def __len__(self) -> int:
        return len(self._indices)

    def target_name(self, index: int) -> str:
        return self._source.target_name(int(self._indices[index]))

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._source.boxes_xywh(int(self._indices[index]))

    def visible(self, index: int) -> np.ndarray:
        return self._source.visible(int(self._indices[index]))

    def frame(self, index: int, frame: int) -> np.ndarray:
        return self._source.frame(int(self._indices[index]), frame)

    def weights(self) -> np.ndarray:
        return self._weights.copy()


class LimitedCache:
    """The most recently used values, up to a number of bytes; shared by threads, empty in a pickle."""

    def __init__(self, limit_bytes: int) -> None:
        """Keep at most `limit_bytes`; 0 keeps nothing."""
        self._limit, self._used = limit_bytes, 0
        self._values: OrderedDict[object, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return LimitedCache, (self._limit,)

    def get(self, key: object, make: Callable[[], object], size_of: Callable[[object], int]) -> object:
        """The value of `key`, made by `make` where it is not kept; `size_of(value)` is its size in bytes."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        with self._lock:
            self._keep(key, value, size_of(value))
        return value

    def _keep(self, key: object, value: object, size: int) -> None:
        if size > self._limit or key in self._values:
            return
        self._values[key] = (value, size)
        self._used += size
        while self._used > self._limit:
            self._used -= self._values.popitem(last=False)[1][1]


class ImageStore:
    """Reads image files, keeps encoded bytes and decoded images in memory, each up to a limit."""

    def __init__(self, encoded_limit: int = 0, decoded_limit: int = 0) -> None:
        """Limits are bytes per process; 0 keeps nothing."""
        self._encoded, self._decoded = LimitedCache(encoded_limit), LimitedCache(decoded_limit)

    def rgb(self, path: str | os.PathLike) -> np.ndarray:
        """The image at `path`, (H, W, 3) uint8 RGB, read-only."""
        return self._image(path, cv2.IMREAD_COLOR, _as_rgb)

    def rgba(self, path: str | os.PathLike) -> np.ndarray:
        """The image with alpha at `path`, (H, W, 4) uint8 RGBA, read-only; without alpha a DatasetError."""
        return self._image(path, cv2.IMREAD_UNCHANGED, _as_rgba)

    def preload(self, paths: Sequence[str | os.PathLike]) -> None:
        """Read the encoded bytes of `paths` now, for example before worker processes are forked."""
        for path in paths:
            self._bytes(str(path))

    def _image(self, path: str | os.PathLike, flags: int, convert: Callable) -> np.ndarray:
        path = str(path)
        return self._decoded.get(path, lambda: convert(self._decode(path, flags), path), _size_in_bytes)

    def _decode(self, path: str, flags: int) -> np.ndarray:
        data = self._bytes(path)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise DatasetError(f"{path}: not a readable image (empty, truncated or of another type): fetch it again")
        return image

    def _bytes(self, path: str) -> bytes:
        return self._encoded.get(path, lambda: read_bytes(path), len)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a data set file; DatasetError where it cannot be read.

    "folder/archive.zip!name" is the member `name` of an archive.
    """
    archive, separator, member = str(path).partition(".zip!")
    try:
        if separator:
            with zipfile.ZipFile(archive + ".zip") as opened:
                return opened.read(member)
        return Path(path).read_bytes()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); is the data set complete?") from error


def read_text(path: str | os.PathLike) -> str:
    """The content of a text file in UTF-8; DatasetError with the line where it is something else."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; the file is damaged") from error


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file without white space at their ends; empty lines at the end are dropped."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def well_formed(boxes_xywh: np.ndarray, least_side: float = 1.0) -> np.ndarray:
    """(n,) bool: boxes (n, 4) that are finite, with both sides at least `least_side` pixels."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes_xywh).all(axis=1) & (boxes_xywh[:, 2:] >= least_side).all(axis=1)


def _as_rgb(bgr: np.ndarray, path: str) -> np.ndarray:
    """RGB, read-only, of an image decoded as BGR."""
    return _frozen(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _as_rgba(bgra: np.ndarray, path: str) -> np.ndarray:
    """RGBA, read-only, of an image decoded as BGRA."""
    if bgra.ndim != 3 or bgra.shape[2] != 4 or bgra.dtype != np.uint8:
        raise DatasetError(f"{path}: shape {bgra.shape}, {bgra.dtype}: a cut-out needs 8 bits and an alpha channel")
    return _frozen(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA))


def _frozen(array: np.ndarray) -> np.ndarray:
    """The same array, read-only, so that no user of the cache changes it."""
    array.setflags(write=False)
    return array


def _size_in_bytes(array: np.ndarray) -> int:
    return array.nbytes
