"""Parsed annotations of data sets, kept in the user's cache directory until a file of them changes.

A cache file is the SHA-256 of the rest, then arrays as .npz. It is used only if the checksum fits, the same code made
it from the same files, and every annotation file has the size and the times (changed, and changed in its directory
entry) that it had then. A file that was written less than two seconds ago may change once more without a change of its
times: it is read, and not kept. A damaged cache file counts as missing; one that cannot be written does no harm.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.files import expand_home, write_bytes
from ebmtrack.progress import progress_bar

DIGEST_BYTES = 32
SETTLED_NS = 2 * 10**9  # the coarsest clock of file systems in use (FAT) has steps of two seconds
MISSING = (-1, -1, -1)


def cache_dir() -> Path:
    """Return the folder of caches: EBMTRACK_CACHE, else ebmtrack in the user's cache directory of this system."""
    if os.environ.get("EBMTRACK_CACHE"):
        return expand_home(os.environ["EBMTRACK_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "ebmtrack"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ebmtrack" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "ebmtrack"


def stamp(path: str | os.PathLike) -> tuple[int, int, int]:
    """Return size and times of a file, in bytes and nanoseconds; `MISSING` if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return MISSING
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_settled(stamps: np.ndarray, now_ns: int) -> np.ndarray:
    """Return which of stamps (..., 3) are too old at `now_ns` for a later change to go unseen, (...) bool."""
    return stamps[..., 1:].max(axis=-1) < now_ns - SETTLED_NS


def code_digest(module: str) -> str:
    """Return a checksum of the code that reads, whose rules may change: the file of a module and those it shares."""
    names = (module, __name__, "ebmtrack.videos.text", "ebmtrack.videos.sequence")
    files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    digest = hashlib.sha256()
    for file in files:
        if file and os.path.isfile(file):
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def load(key: Sequence[object], version: Sequence[object]) -> dict[str, np.ndarray] | None:
    """Return the arrays last stored for `key` with the same `version`; None if there are none, or damaged ones.

    Args:
        key: Anything that JSON can hold.
        version: Likewise.
    """
    try:
        data = _file(key).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
        return None
    with np.load(io.BytesIO(data[DIGEST_BYTES:]), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return found if found.pop("made_for").tobytes() == _as_bytes([key, version]) else None


def store(key: Sequence[object], version: Sequence[object], arrays: dict[str, np.ndarray]) -> bool:
    """Keep `arrays` in place of those that were stored for `key`, atomically; return whether that was possible."""
    file = io.BytesIO()
    contents: dict[str, Any] = {"made_for": np.frombuffer(_as_bytes([key, version]), np.uint8), **arrays}
    np.savez(file, **contents)
    data = file.getvalue()
    try:
        write_bytes(_file(key), hashlib.sha256(data).digest() + data)
    except OSError:  # read-only or full: the index is made again next time
        return False
    return True


def _as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def _file(key: Sequence[object]) -> Path:
    return cache_dir() / "index" / f"{hashlib.sha256(_as_bytes(key)).hexdigest()[:24]}.bin"


@dataclass(frozen=True)
class AnnotationIndex:
    """Boxes and visibility of many sequences in two arrays; sequence i has the rows starts[i] to starts[i + 1].

    known: (n,) bool, False for sequences whose files could not be read: these are read when they are asked for.
    """

    boxes_xywh: np.ndarray
    visible: np.ndarray
    starts: np.ndarray
    known: np.ndarray

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return boxes (m, 4) and visibility (m,) of a sequence, read-only; None if it is not known."""
        if not self.known[index]:
            return None
        rows = slice(self.starts[index], self.starts[index + 1])
        return self.boxes_xywh[rows], self.visible[rows]


def annotation_index(
    reader: Sequence[str], files: Sequence[Sequence[str]], read: Callable[[int], tuple[np.ndarray, np.ndarray]]
) -> AnnotationIndex:
    """Return the index of sequences; only those that have changed since the last time are read.

    Args:
        reader: Module, function and settings that read; the module's code counts as one of the files.
        files: The annotation files of each sequence, as many for every one.
        read: Sequence number -> boxes (n, 4) and visibility (n,).
    """
    now = time.time_ns()
    listed = hashlib.sha256("\n".join(os.path.abspath(file) for own in files for file in own).encode())
    key, version = (*reader, listed.hexdigest()), (code_digest(reader[0]),)
    stamps = np.array([[stamp(file) for file in own] for own in files], np.int64).reshape(len(files), -1, 3)
    old, same = _find_unchanged(load(key, version), stamps)
    if old is not None and same.all():
        return old
    numbers = progress_bar(
        range(len(files)), "reading annotations", unit="sequence", delay=3, disable=None, leave=False
    )
    parts = [old.get(i) if old is not None and same[i] else _read(read, i) for i in numbers]
    index = _join(parts)
    sure = is_settled(stamps, now).all(axis=1) & index.known
    if (sure & ~same).any():
        kept = _join([part if sure[i] else None for i, part in enumerate(parts)])
        store(key, version, {name: getattr(kept, name) for name in _COLUMNS} | {"stamps": stamps})
    return index


def _find_unchanged(
    found: dict[str, np.ndarray] | None, stamps: np.ndarray
) -> tuple[AnnotationIndex | None, np.ndarray]:
    """Return a stored index, and which of its sequences (n,) can still be taken from it."""
    if found is None:
        return None, np.zeros(len(stamps), bool)
    index = AnnotationIndex(*(_frozen(found[name]) for name in _COLUMNS))
    return index, index.known & (found["stamps"] == stamps).all(axis=(1, 2))


_COLUMNS = ("boxes_xywh", "visible", "starts", "known")


def _read(read: Callable[[int], tuple[np.ndarray, np.ndarray]], index: int) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        return read(index)
    except DatasetError:  # raised again, with its file and line, when the sequence is asked for
        return None


def _join(parts: Sequence[tuple[np.ndarray, np.ndarray] | None]) -> AnnotationIndex:
    boxes = [part[0] for part in parts if part is not None]
    visible = [part[1] for part in parts if part is not None]
    counts = [0 if part is None else len(part[0]) for part in parts]
    return AnnotationIndex(
        _frozen(np.concatenate([np.empty((0, 4)), *boxes])),
        _frozen(np.concatenate([np.empty(0, bool), *visible])),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([part is not None for part in parts], bool),
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
