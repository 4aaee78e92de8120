"""Claims on tasks, for several processes on several machines that share a folder of results.

A claim on a name is the operating system's lock (`filelock`) on `.claims/<name>.lock` in the folder. The system
releases it when its process ends, however it ends, so nobody waits for a dead owner and no clocks are compared. On a
network disk this needs working file locks (NFS 4 has them); without them a sequence may be computed
twice, with the same bytes.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".claims"
_RETRY_S = 0.01


def claim(folder: Path, name: str) -> FileLock | None:
    """Claim a name for this process, or return None while another process has it; `release` the lock when done.

    Args:
        folder: Folder of results.
        name: Name of the task, such as a sequence; it becomes part of a file's name.
    """
    path = folder / FOLDER / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if path.exists():
        return lock
    lock.release()  # `sweep` removed the file after we had opened it: this lock would exclude nobody
    return None


def sweep(folder: Path) -> None:
    """Remove the files of claims that nobody has."""
    for path in (folder / FOLDER).glob("*.lock"):
        lock = claim(folder, path.stem)
        if lock is not None:
            with suppress(PermissionError):  # Windows keeps a file that is open: an empty file is left
                path.unlink(missing_ok=True)
            lock.release()


@contextmanager
def show_runner(folders: Iterable[Path]) -> Iterator[str]:
    """Show other runners that this one is at work in some folders while the block runs; yields the runner's name."""
    name, mine = f"runner-{uuid.uuid4().hex}", []
    folders = list(folders)
    try:
        for folder in folders:
            while (lock := claim(folder, name)) is None:  # another runner's `sweep` has it for a moment
                time.sleep(_RETRY_S)
            mine.append(lock)
        yield name
    finally:
        for lock in mine:
            lock.release()
        for folder in folders:
            sweep(folder)


def has_other_runner(folder: Path, name: str) -> bool:
    """Return whether a runner other than the one called `name` is at work in a folder."""
    for path in (folder / FOLDER).glob("runner-*.lock"):
        lock = claim(folder, path.stem) if path.stem != name else None
        if lock is not None:
            lock.release()
        elif path.stem != name:
            return True
    return False


def disk_time(folder: Path) -> float:
    """Return the time in seconds by the clock that stamps new files in a folder; nothing is left there."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime
