"""Readers of benchmark sequences, by name: `open_dataset("otb100", root)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ebmtrack.data import paths
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.datasets import folder, got10k, lasot, nfs, otb, small, uav, vot
from ebmtrack.evaluation.datasets.base import DataSet, Frames, Sequence, with_attributes

__all__ = [
    "DATASETS",
    "DataSet",
    "Found",
    "Frames",
    "Sequence",
    "find_datasets",
    "open_dataset",
    "print_datasets",
]

DATASETS: Mapping[str, Callable[[Path], DataSet]] = {
    "otb100": partial(otb.find, version="otb100"),
    "otb50": partial(otb.find, version="otb50"),
    "otb2013": partial(otb.find, version="otb2013"),
    "uav123": partial(uav.find, version="uav123"),
    "uav20l": partial(uav.find, version="uav20l"),
    "nfs30": partial(nfs.find, fps=30),
    "nfs240": partial(nfs.find, fps=240),
    "lasot": partial(lasot.find, version="lasot"),
    "lasot_ext": partial(lasot.find, version="lasot_ext"),
    "trackingnet": got10k.find_trackingnet,
    "got10k_val": partial(got10k.find, subset="val"),
    "got10k_test": partial(got10k.find, subset="test"),
    "tcolor128": small.find_tcolor128,
    "dtb70": small.find_dtb70,
    "vot": vot.find,
    "folder": folder.find,
}


@dataclass(frozen=True)
class Found:
    """One line of `ebmtrack datasets`: where a data set lies, how much of it, and what is missing."""

    name: str
    root: Path
    count: int
    expected: int | None
    missing: tuple[str, ...]


def open_dataset(name: str, root: str | os.PathLike) -> DataSet:
    """The data set of that name in `root`, or in a folder below it with the data set's usual name.

    A table `attributes.csv` beside the sequences (`base.read_attribute_table`) replaces their attributes. Raises
    ConfigError for an unknown name, DatasetError where nothing of it is found.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    best = max((_try(name, place) for place in _places(name, root)), key=len)
    if not len(best):
        return DATASETS[name](root)  # raises, or says that everything is missing
    table = best.root / "attributes.csv"
    return with_attributes(best, table) if table.is_file() else best


def find_datasets(root: str | os.PathLike) -> list[Found]:
    """Every data set of which something lies below `root`, with counts. Raises DatasetError where `root` is
    missing."""
    if not Path(root).is_dir():
        raise DatasetError(f"{root}: no such folder; set the root of your data sets")
    rows = []
    for name in DATASETS:
        best = max((_try(name, place) for place in _places(name, Path(root))), key=len)
        if len(best) and (name != "folder" or not rows):
            rows.append(Found(name, best.root, len(best), best.expected, best.missing))
    return rows


def locate(name: str, root: str | os.PathLike | None) -> Path:
    """Where a data set lies: `root` itself if given, else where EBMTRACK_<NAME> or the file of paths says, else its
    place below the folder of data sets (EBMTRACK_DATA, or `data` in the file).

    Raises ConfigError where nobody says or what is said is not there, DatasetError where nothing of it lies below.
    """
    if root is not None:
        return Path(root)
    place = paths.said_place(name) if name in paths.HOMES else None
    if place is not None:
        return paths.existing(name, place)
    below = paths.data_root()
    if below is None:
        raise ConfigError(
            f"where is {name}? Give --root, or set EBMTRACK_DATA to the folder that holds your data sets (see "
            "`ebmtrack paths`)"
        )
    for row in find_datasets(below.path):
        if row.name == name:
            return row.root
    raise DatasetError(f"{below.path} ({below.said_by}): nothing of the data set {name!r} lies below it")


def print_datasets(root: str | os.PathLike) -> str:
    """What `ebmtrack datasets` prints: a line per data set with its count, and the names of what is
    missing."""
    rows = find_datasets(root)
    if not rows:
        return f"no known data set below {root}; known are: {', '.join(DATASETS)}\n"
    lines = []
    for row in rows:
        lines.append(f"{row.name:12} {row.count:5} of {row.expected or row.count:<5} {row.root}")
        if row.missing:
            lines.append(f"{'':12} missing: {', '.join(row.missing)}")
    return "\n".join(lines) + "\n"


def _places(name: str, root: Path) -> list[Path]:
    """`root` itself and its folders with a usual name of the data set."""
    homes = paths.HOMES.get(name, ())
    inside = [p for p in sorted(root.iterdir()) if p.is_dir() and _plain(p.name) in homes]
    return [root, *inside]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _try(name: str, place: Path) -> DataSet:
    """The data set in one place, empty where there is none."""
    try:
        return DATASETS[name](place)
    except DatasetError:  # not here; the caller raises if it is nowhere
        return DataSet(name, place, {})
