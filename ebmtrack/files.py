"""Files: written so that a reader never sees half of one (temporary file, fsync, rename), and their names in order."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from ebmtrack.errors import DatasetError

OPEN_FILE = "it is a file that is open already; give its own name"
DECIMAL = re.compile(r"(.*?\d)([.,])(\d+)(\D*)")  # a name such as 1700000000.25 or 12:00:00.5Z


def as_json(value: Any) -> Any:
    """Return settings as JSON values: dataclasses become dicts, tuples lists, paths and the like texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def expand_home(path: str | os.PathLike) -> Path:
    """Return a path that a user gave with ~ or ~name at its beginning replaced by the home folder, if there is one.

    A folder that is really called ~ is named by its absolute path: pathlib drops the dot of ./~.
    """
    return Path(os.path.expanduser(path))


def is_open_file(path: Path) -> bool:
    """Return whether a path names a file that a process has open, such as /dev/stdout of a command with `> file`.

    To replace it is to replace the link: who may write in /dev would lose /dev/stdout for the whole machine.
    """
    while path.is_file():
        folder = path.parent.resolve()
        if folder.is_relative_to("/proc") or folder.is_relative_to("/dev/fd"):
            return True
        if not path.is_symlink():
            return False
        path = folder / os.readlink(path)
    return False


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on error it is removed.

    The directory is created if it is missing. The temporary name keeps the suffix of `path`, because several
    writers (OpenCV, matplotlib) choose their format by it. What is no file (/dev/stdout, a pipe) is written into.
    Raises OSError for /dev/stdout and the like if they are files.
    """
    path = expand_home(path)
    if is_open_file(path):
        raise OSError(errno.EINVAL, OPEN_FILE)
    if path.exists() and not path.is_file() and not path.is_dir():
        with _copy_into(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _create_beside(path)
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


def in_frame_order(paths: Iterable[Path]) -> list[Path]:
    """Return the files of frames in the order in which they were taken, by their names.

    Numbers inside names count as numbers; a copy, "x (1).png", comes after "x.png"; decimal fractions of time stamps
    (1700000000.25, 12:00:00.5) count as fractions; equally long hexadecimal numbers (09, 0a, 10) are known. Raises
    DatasetError, which names two files, if that is ambiguous.
    """
    paths = list(paths)
    _check_signs(paths)
    if _are_hexadecimal([path.stem for path in paths]):
        keys: dict[Path, Any] = {path: path.stem.lower() for path in paths}
    else:
        fractions = _are_fractions(paths)
        keys = {path: _frame_key(path.stem, fractions) for path in paths}
    ordered = sorted(paths, key=lambda path: (keys[path], path.name))
    for before, after in zip(ordered, ordered[1:]):
        if keys[before] == keys[after]:
            raise DatasetError(
                f"{before.parent}: which comes first, {before.name} or {after.name}? Both have the same number; "
                "rename or remove one of them"
            )
    return ordered


def _are_hexadecimal(stems: list[str]) -> bool:
    """Return whether names are equally long hexadecimal numbers after a common beginning, as in frame_0a."""
    common = re.sub(r"[0-9A-Za-z]*$", "", os.path.commonprefix(stems))
    rests = [stem[len(common) :].lower() for stem in stems]
    digits = all(re.fullmatch(r"[0-9a-f]+", rest) for rest in rests)
    return digits and len({len(rest) for rest in rests}) == 1 and not all(rest.isdecimal() for rest in rests)


def _check_signs(paths: list[Path]) -> None:
    """Raise DatasetError if the same beginning has numbers with and without a hyphen, which may be a minus."""
    plain = {match[1]: path for path in paths if (match := re.fullmatch(r"(.*\D|)\d+", path.stem))}
    for path in paths:
        match = re.fullmatch(r"(.*[^\d-]|)-\d+", path.stem)
        if match and match[1] in plain:
            raise DatasetError(
                f"{path.parent}: which comes first, {path.name} or {plain[match[1]].name}? The hyphen may be a minus; "
                "rename the files so that all numbers count from 0"
            )


def _frame_key(stem: str, fractions: bool) -> list[tuple[int, Fraction, str]]:
    """Return a sorting key of a file's name without its ending; with `fractions` the last number is one."""
    parts = DECIMAL.fullmatch(stem) if fractions else None
    if parts is None:
        return [(kind, Fraction(number), "" if kind == 0 else text) for kind, number, text in natural_key(stem)]
    whole = [(kind, Fraction(number), "" if kind == 0 else text) for kind, number, text in natural_key(parts[1])]
    whole[-1] = (0, whole[-1][1] + Fraction(int(parts[3]), 10 ** len(parts[3])), "")
    return whole + [(1, Fraction(0), parts[4].lower())] * bool(parts[4])


def _are_fractions(paths: list[Path]) -> bool:
    """Return whether names such as 17.25 hold decimal fractions, rather than two counters; DatasetError if unclear."""
    found = [(path, match) for path in paths if (match := DECIMAL.fullmatch(path.stem))]
    if len({len(match[3]) for _, match in found}) < 2:  # both readings give the same order, or nearly all are whole
        return bool(found) and len(found) < len(paths)
    texts = [match[3] for _, match in found]
    leading_zero = any(text[0] == "0" and len(text) > 1 for text in texts)
    trailing_zero = any(text[-1] == "0" and len(text) > 1 for text in texts)
    stems = [match[1] for _, match in found]
    if leading_zero or any(len(re.findall(r"\d+", stem)[-1]) >= 9 or ":" in stem or "T" in stem for stem in stems):
        return True
    if trailing_zero:
        return False
    groups: dict[str, list[int]] = {}
    for _, match in found:
        groups.setdefault(match[1], []).append(int(match[3]))
    if all(sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers))) for numbers in groups.values()):
        return False
    by_counter, by_fraction = (
        sorted((path for path, _ in found), key=lambda path: _frame_key(path.stem, fractions))
        for fractions in (False, True)
    )
    for one, other in zip(by_counter, by_fraction):
        if one != other:
            raise DatasetError(
                f"{one.parent}: which comes first, {one.name} or {other.name}? The number after the dot may be a "
                "fraction or a counter; rename the files with equally many digits there"
            )
    return False


@contextmanager
def _copy_into(path: Path) -> Iterator[Path]:
    """Return a temporary path elsewhere, whose content goes into a device or pipe on success."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"file{path.suffix}"
        yield temporary
        with open(path, "wb") as pipe:
            pipe.write(temporary.read_bytes())


def _create_beside(path: Path) -> Path:
    """Return the path of a new, empty file beside `path`, with ordinary permissions.

    The system applies the umask: to ask for it is to change it, for all threads.
    """
    while True:
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        try:
            temporary.touch(exist_ok=False)
            return temporary
        except FileExistsError:
            continue


def _publish(temporary: Path, path: Path) -> None:
    """Sync `temporary` to disk and rename it to `path`."""
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
