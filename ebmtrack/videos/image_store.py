"""A store of pictures: read from files or archives, decoded, and kept in memory up to a limit."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.images import decode_rgb, decode_rgb_as_stored, decode_rgba, turned_note

MEBIBYTE = 2**20
Value = TypeVar("Value")


class LimitedCache:
    """The most recently used values, up to a number of bytes; shared by threads, empty in a pickle."""

    def __init__(self, limit_bytes: int) -> None:
        """Keep at most `limit_bytes`; 0 keeps nothing."""
        self._limit, self._used = limit_bytes, 0
        self._values: OrderedDict[object, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return LimitedCache, (self._limit,)

    def get(self, key: object, make: Callable[[], Value], size_of: Callable[[Value], int]) -> Value:
        """Return the value of `key`.

        Args:
            key: Anything hashable.
            make: Makes the value if it is not kept.
            size_of: Says a value's size in bytes.
        """
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
    """A reader of image files that keeps encoded bytes and decoded images in memory, each up to a limit."""

    def __init__(self, encoded_limit: int = 0, decoded_limit: int = 0) -> None:
        """Limits are bytes per process; 0 keeps nothing."""
        self._encoded, self._decoded = LimitedCache(encoded_limit), LimitedCache(decoded_limit)

    def rgb(self, path: str | os.PathLike) -> np.ndarray:
        """Return the image at `path`, (H, W, 3) uint8 RGB, read-only, turned as its EXIF data say."""
        return self._image(path, decode_rgb)

    def rgb_as_stored(self, path: str | os.PathLike) -> np.ndarray:
        """Return the image at `path` as `rgb` does, but with the pixels as they are stored, whatever EXIF data say."""
        return self._image(path, decode_rgb_as_stored)

    def rgba(self, path: str | os.PathLike) -> np.ndarray:
        """Return the image with alpha at `path`, (H, W, 4) uint8 RGBA, read-only; DatasetError without alpha."""
        return self._image(path, decode_rgba)

    def preload(self, paths: Sequence[str | os.PathLike]) -> None:
        """Read the encoded bytes of `paths` now, for example before worker processes are forked."""
        for path in paths:
            self._bytes(str(path))

    def _image(self, path: str | os.PathLike, decode: Callable[[bytes, str], np.ndarray]) -> np.ndarray:
        path = str(path)
        key = (path, decode.__name__)
        return self._decoded.get(key, lambda: _frozen(decode(self._bytes(path), path)), _size_in_bytes)

    def _bytes(self, path: str) -> bytes:
        return self._encoded.get(path, lambda: read_bytes(path), len)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a data set's file; DatasetError if it cannot be read.

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


def wrong_size(
    path: str | os.PathLike, size_wh: Sequence[int], annotated_wh: Sequence[int], annotation: str
) -> DatasetError:
    """Return the error for a picture of another size than that for which its boxes were made in `annotation`."""
    note = turned_note(path) if tuple(annotated_wh) == tuple(size_wh)[::-1] else ""
    return DatasetError(
        f"{path}: {size_wh[0]} x {size_wh[1]} pixels, but it was annotated as {annotated_wh[0]} x {annotated_wh[1]}, "
        "so that its boxes are elsewhere; "
        + (note or f"use the picture that was annotated, or change sizes and boxes in {annotation}")
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    """Return the same array, read-only, so that no user of the cache changes it."""
    array.setflags(write=False)
    return array


def _size_in_bytes(array: np.ndarray) -> int:
    return array.nbytes
