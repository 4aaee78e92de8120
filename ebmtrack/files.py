"""Files: written so that a reader never sees half of one (temporary file, fsync, rename), and their names in order."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on error it is removed.

    The directory is created if it is missing. The temporary name keeps the suffix of `path`, because several
    writers (OpenCV, matplotlib) choose their format by it. What is no file (/dev/stdout, a pipe) is written into.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with _copied_into(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with newlines as given."""
    write_bytes(path, text.encode("utf-8"))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sorting key under which numbers inside names count as numbers: frame2 comes before frame10."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece.lower()) for piece in pieces]


@contextmanager
def _copied_into(path: Path) -> Iterator[Path]:
    """Return a temporary path elsewhere, whose content goes into a device or pipe on success."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"file{path.suffix}"
        yield temporary
        with open(path, "wb") as pipe:
            pipe.write(temporary.read_bytes())


def _publish(temporary: Path, path: Path) -> None:
    """Sync `temporary` to disk, give it ordinary permissions and rename it to `path`."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    with open(temporary, "r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "nt":  # folders cannot be opened there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
