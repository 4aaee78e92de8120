"""Shards of a pack: LMDB files of checked records, written once, read by many processes, safe against damage.

A record is four bytes of CRC-32 and its content. LMDB itself checks nothing and can crash the process on a damaged
tree of pages, so the length of the file and a checksum of those pages are compared before LMDB sees it. They are few:
content of more than half a page lies in pages of its own, which the records' checksums cover.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path

import lmdb

from ebmtrack.errors import DatasetError

FIRST_MAP_BYTES = 2**24
OVERFLOW_PAGE = 0x04  # P_OVERFLOW of LMDB's page header: page number (a word), 2 bytes, flags, then the count of pages
_OPENED: weakref.WeakValueDictionary[str, _Opened] = weakref.WeakValueDictionary()
_OPENED_LOCK = threading.Lock()


def seal(content: bytes) -> bytes:
    """The record of some content: its CRC-32, then the content."""
    return zlib.crc32(content).to_bytes(4, "big") + content


def unseal(record: bytes, where: str) -> bytes:
    """The content of a record; DatasetError, which begins with `where`, if a byte of it has changed."""
    if len(record) < 4 or zlib.crc32(record[4:]) != int.from_bytes(record[:4], "big"):
        raise DatasetError(f"{where}: the record is damaged; write the pack again (`ebmtrack pack`)")
    return record[4:]


def write_shard(path: Path, batches) -> dict:
    """Write batches of {key: content} into a new LMDB file and sync it; the facts that `Shard` checks it by."""
    env = lmdb.open(str(path), subdir=False, lock=False, sync=False, metasync=False, map_size=FIRST_MAP_BYTES)
    try:
        for batch in batches:
            _put(env, batch)
        env.sync(True)
        page = env.stat()["psize"]
    finally:
        env.close()
    runs = _tree_runs(path, page)
    return {"bytes": path.stat().st_size, "page": page, "tree": runs, "tree_crc": _tree_crc(path, page, runs)}


def _put(env: lmdb.Environment, batch: Mapping[bytes, bytes]) -> None:
    """Add a batch in one transaction; the map grows as far as is needed."""
    while True:
        try:
            with env.begin(write=True) as transaction:
                for key, content in batch.items():
                    transaction.put(key, seal(content))
            return
        except lmdb.MapFullError:
            env.set_mapsize(2 * env.info()["map_size"])


def _tree_runs(path: Path, page: int) -> list[list[int]]:
    """The pages [first, count] that hold no content of their own: LMDB's tree and its two heads."""
    word, total, runs, number = struct.calcsize("P"), path.stat().st_size // page, [], 0
    with open(path, "rb") as file:
        while number < total:
            file.seek(number * page)
            flags, count = struct.unpack_from("=HI", file.read(word + 8), word + 2)
            if flags & OVERFLOW_PAGE and number >= 2:
                number += max(count, 1)
                continue
            if runs and sum(runs[-1]) == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1])
            number += 1
    return runs


def _tree_crc(path: Path, page: int, runs: list[list[int]]) -> int:
    """CRC-32 over the pages of `runs`, one after the other."""
    crc = 0
    with open(path, "rb") as file:
        for first, count in runs:
            file.seek(first * page)
            crc = zlib.crc32(file.read(count * page), crc)
    return crc


class Shard:
    """One LMDB file, open once in each process; pickles as its path."""

    def __init__(self, path: Path, facts: Mapping) -> None:
        """Check `path` against the facts of `write_shard`; DatasetError where it is missing, cut or damaged."""
        self.path = Path(path)
        try:
            sound = self.path.stat().st_size == facts["bytes"]
            sound = sound and _tree_crc(self.path, facts["page"], facts["tree"]) == facts["tree_crc"]
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error}); copy the whole pack again") from error
        if not sound:
            raise DatasetError(f"{path}: cut short or damaged; copy it again, or write the pack again")
        self._opened = _opened(self.path, fresh=True)

    def __getstate__(self) -> dict:
        return {"path": self.path, "_opened": None}

    def __getitem__(self, key: bytes) -> bytes:
        """The content at `key`; DatasetError with path and key where it is missing or damaged."""
        if self._opened is None or self._opened.pid != os.getpid():
            self._opened = _opened(self.path)
        where = f"{self.path}, key {key.decode()!r}"
        try:
            with self._opened.env.begin() as transaction:
                record = transaction.get(key)
        except lmdb.Error as error:
            raise DatasetError(f"{where}: cannot be read ({error}); open the pack again, or write it again") from error
        if record is None:
            raise DatasetError(f"{where}: there is no such record; write the pack again")
        return unseal(record, where)


class _Opened:
    """An LMDB environment and the process that opened it; a forked process must open its own."""

    def __init__(self, path: Path) -> None:
        self.pid, self.file = os.getpid(), _identity(path)
        self.env = lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=16
        )


def _opened(path: Path, fresh: bool = False) -> _Opened:
    """This process's environment of a file, which LMDB allows one of; `fresh` looks whether the file was replaced."""
    key = os.path.realpath(path)
    with _OPENED_LOCK:
        found = _OPENED.get(key)
        if found is not None and (found.pid != os.getpid() or (fresh and found.file != _identity(path))):
            found.env.close()
            found = None
        try:
            found = found or _Opened(path)
        except (OSError, lmdb.Error) as error:
            raise DatasetError(f"{path}: LMDB cannot open it ({error}); copy the pack again") from error
        _OPENED[key] = found
        return found


def _identity(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
