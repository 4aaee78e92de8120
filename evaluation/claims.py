"""Who computes what, when several processes on several machines share a folder of results.

A claim on `name` is the file `.claims/<name>.<generation>` in the result folder; the owner is the process in
the file of the highest generation. A file is created by a hard link, which exactly one process wins. An
owner that died (same machine: the process is gone; other machine: no sign of life for two minutes, by the
clock of the disk) is followed by whoever creates the next generation. Nothing relies on clocks of machines
agreeing or on locks of network disks.

What a claim does not promise: an owner that was frozen for two minutes and comes back may compute a sequence
a second time. Results are then written twice, with the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SILENT_S = 120.0  # an owner on another machine that did not touch its claim for so long is taken for dead


@dataclass(frozen=True)
class Claim:
    """The right to compute one sequence. Touch it now and then; release it when done, or when giving up."""

    folder: Path
    name: str
    generation: int

    @property
    def path(self) -> Path:
        """The file that stands for this claim."""
        return _path(self.folder, self.name, self.generation)

    def touch(self) -> None:
        """Give a sign of life to processes on other machines."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return  # a successor took us for dead and has already finished

    def release(self) -> None:
        """Give the claim back, with the claims of dead owners before it."""
        for generation in _generations(self.folder, self.name):
            if generation <= self.generation:
                _path(self.folder, self.name, generation).unlink(missing_ok=True)


def claim(folder: Path, name: str) -> Claim | None:
    """Claim `name` for this process, or None while another living process has it."""
    (folder / ".claims").mkdir(parents=True, exist_ok=True)
    generations = _generations(folder, name)
    if generations and _alive(_path(folder, name, generations[-1])):
        return None
    if generations and not _path(folder, name, generations[-1]).exists():
        return None  # released between listing and reading: its successor, if any, may begin at 0 again
    mine = Claim(folder, name, generations[-1] + 1 if generations else 0)
    if not _create(mine.path):
        return None
    if _generations(folder, name)[-1:] != [mine.generation]:
        mine.path.unlink(missing_ok=True)  # somebody went ahead between listing and creating
        return None
    return mine


def sweep(folder: Path) -> None:
    """Remove what dead processes left: their claims, and files that they were about to make claims of."""
    if not (folder / ".claims").is_dir():
        return
    for path in [Path(entry.path) for entry in os.scandir(folder / ".claims")]:
        if path.name.startswith("."):
            if not _alive(path):
                path.unlink(missing_ok=True)
        elif (mine := claim(folder, path.name[:-7])) is not None:
            mine.release()


def busy(folder: Path, mine: Claim) -> bool:
    """Whether a living process has a claim in the folder, `mine` not counted."""
    paths = [Path(entry.path) for entry in os.scandir(folder / ".claims")]
    return any(path != mine.path and not path.name.startswith(".") and _alive(path) for path in paths)


def disk_time(folder: Path) -> float:
    """The time in seconds by the clock that stamps files in `folder`, from a file without a name: a process that is
    killed here leaves nothing."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        os.utime(probe.fileno())
        return os.fstat(probe.fileno()).st_mtime


def _path(folder: Path, name: str, generation: int) -> Path:
    return folder / ".claims" / f"{name}.{generation:06d}"


def _generations(folder: Path, name: str) -> list[int]:
    """Generations of the claims on `name`, in order."""
    start = f"{name}."
    tails = [e.name[len(start) :] for e in os.scandir(folder / ".claims") if e.name.startswith(start)]
    return sorted(int(tail) for tail in tails if len(tail) == 6 and tail.isdigit())


def _create(path: Path) -> bool:
    """Create the claim file with its content in one step; False where it exists."""
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    temporary.write_text(json.dumps(_identity(os.getpid())))
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        return _create_without_links(path, temporary.read_text())
    finally:
        temporary.unlink(missing_ok=True)


def _create_without_links(path: Path, text: str) -> bool:
    """The same in two steps; a reader between them sees an empty file and waits for its signs of life."""
    try:
        with open(path, "x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _alive(path: Path) -> bool:
    """Whether the process behind a claim still runs, as far as can be told from here."""
    try:
        owner = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except (ValueError, RecursionError):  # damaged: only its signs of life are left
        owner = None
    here = _identity(os.getpid())
    pid = owner.get("pid") if isinstance(owner, dict) and owner.get("machine") == here["machine"] else None
    if isinstance(pid, int) and 0 < pid < 1 << 31:
        return _identity(pid) == owner
    return not silent(path)


def silent(path: Path) -> bool:
    """Whether a file is gone, or was not touched for so long that its writer must be dead."""
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return True
    return disk_time(path.parent) - touched >= SILENT_S


def _identity(pid: int) -> dict[str, object]:
    """A process for all time: machine (and container), process id, and when the process began; {} where it
    is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        if fields[0] in "ZX":  # dead, and waiting for its parent to notice
            return {}
        return {"machine": _machine(), "pid": pid, "started": fields[19]}
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between opening and reading
        if os.path.isdir("/proc/self"):
            return {}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return {}
    except PermissionError:
        pass  # it exists and belongs to somebody else
    return {"machine": _machine(), "pid": pid, "started": ""}


@lru_cache(maxsize=1)
def _machine() -> str:
    """A name for this machine since its last start, and for this container on it."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return " ".join(parts)
