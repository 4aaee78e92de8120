"""Benchmarks by name: `open_dataset("otb100", root)`, what of them is below a folder, and where they are."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.names import is_unicode, plain
from ebmtrack.videos import paths
from ebmtrack.videos.registry import DataSetInfo, benchmarks, datasets, find_info
from ebmtrack.videos.sequence import DataSet, existing_folder, with_attributes


@dataclass(frozen=True)
class Found:
    """One line of `ebmtrack datasets`: where a data set is, how much of it, and what is missing."""

    name: str
    root: Path
    count: int
    expected: int | None
    missing: tuple[str, ...]


def open_dataset(name: str, root: str | os.PathLike) -> DataSet:
    """Open a benchmark.

    A table `attributes.csv` beside the sequences (`sequence.read_attribute_table`) replaces their attributes.

    Args:
        name: Its name, or the path of a file that registers it.
        root: Its folder, or one in which it has a folder with its usual name.

    Raises:
        ConfigError: For an unknown name.
        DatasetError: If nothing of it is found.
    """
    info, folder = find_info(name, benchmark=True), existing_folder(Path(root))
    best = max((_try(info, place) for place in _places(info, folder)), key=len)
    if not len(best):
        return _benchmark(info, folder)  # raises, or says that everything is missing
    table = best.root / "attributes.csv"
    found = with_attributes(best, table) if table.is_file() else best
    if not name.endswith(".py"):
        return found
    return replace(found, opened_by=(open_dataset, (str(Path(name).resolve()), str(folder.resolve()))))


def find_datasets(root: str | os.PathLike) -> list[Found]:
    """Return every data set of which something is below `root`, with counts.

    A benchmark is there if a sequence has one of its names, or, of those whose names are not known here, if the folder
    is called like it. Sequences in `root` itself that belong to no benchmark are one row, `folder`.

    Raises:
        DatasetError: If `root` is missing.
    """
    folder = existing_folder(Path(root), "no such folder; set the root of your data sets")
    rows: list[Found] = []
    for name in benchmarks():
        info = datasets()[name]
        found = [_try(info, place) for place in _places(info, folder)]
        best = max((one for one in found if _is_of(info, one)), key=len, default=None)
        if best is not None and (name != "folder" or all(row.root != best.root for row in rows)):
            rows.append(Found(name, best.root, len(best), best.expected, best.missing))
    return rows


def locate(name: str, root: str | os.PathLike | None, no_folder: str = "--dataset folder needs --root FOLDER") -> Path:
    """Return the folder of a data set.

    It is `root` if that is given, else what EBMTRACK_<NAME> or the file of paths says, else the data set's place below
    the folder of data sets (EBMTRACK_DATA, or `data` in the file).

    Args:
        name: Its name.
        root: Its folder, or None.
        no_folder: What the error says if `folder`, which has no place of its own, is nowhere.

    Raises:
        ConfigError: If nothing says where it is, or what says so is wrong.
        DatasetError: If nothing of it is below the folder of data sets.
    """
    if root is not None:
        return Path(root)
    info = find_info(name, benchmark=True)
    place = paths.said_place(info.name) if info.name in paths.homes() else None
    if place is not None:
        return paths.existing(info.name, place)
    below = paths.data_root()
    rows = [row for row in find_datasets(below.path) if row.name == info.name] if below else []
    if rows:
        return rows[0].root
    if info.name == "folder":
        raise ConfigError(no_folder)
    if below is None:
        raise ConfigError(
            f"where is {name}? Give --root, or set EBMTRACK_DATA to the folder that holds your data sets (see "
            "`ebmtrack paths`)"
        )
    raise DatasetError(f"{below.path} ({below.said_by}): holds nothing of the data set {name!r}")


def home_below(name: str, root: str | os.PathLike) -> Path:
    """Return the folder below `root` with a usual name of the data set, or else `root` itself."""
    return _places(find_info(name), existing_folder(Path(root)))[-1]


def describe_datasets(root: str | os.PathLike) -> str:
    """Return what `ebmtrack datasets` prints: a line per data set with its count, and the names of what is missing."""
    rows = find_datasets(root)
    if not rows:
        return f"no known data set below {root}; known are: {', '.join(benchmarks())}\n"
    lines = []
    for row in rows:
        lines.append(f"{row.name:12} {row.count:5} of {row.expected or row.count:<5} {row.root}")
        if row.missing:
            lines.append(f"{'':12} missing: {', '.join(row.missing)}")
    return "\n".join(lines) + "\n"


def _places(info: DataSetInfo, root: Path) -> list[Path]:
    """Return `root` itself and its folders with a usual name of the data set."""
    return [root, *folders_called(info.homes, root)]


def folders_called(names: Collection[str], root: Path) -> list[Path]:
    """Return the folders in `root` with one of these names, in small letters without `-`, `_` and blanks."""
    return [place for place in sorted(root.iterdir()) if place.is_dir() and plain(place.name) in names]


def _try(info: DataSetInfo, place: Path) -> DataSet:
    """Return the data set in one place, empty if there is none."""
    try:
        return _benchmark(info, place)
    except DatasetError:  # not here; the caller raises if it is nowhere
        return DataSet(info.name, place, {})


def _is_of(info: DataSetInfo, found: DataSet) -> bool:
    """Return whether sequences that were found are those of the data set, by their names or their folder's."""
    if info.at_home and plain(found.root.resolve().name) not in info.homes:
        return False
    return any(info.is_known is None or info.is_known(name) for name in found.names)


def _benchmark(info: DataSetInfo, place: Path) -> DataSet:
    if info.benchmark is None:
        raise ConfigError(f"data set {info.name!r} is for training alone; evaluate on {', '.join(benchmarks())}")
    found = info.benchmark(place)
    for name in found.names:
        if not is_unicode(name):
            raise DatasetError(f"{place}: the name of sequence {name!r} is no Unicode: rename its folder")
    return found
