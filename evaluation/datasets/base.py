"""What a benchmark is here: named sequences, each with its frames on disk and its annotated boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.evaluation.results import canonical
from ebmtrack.evaluation.tables import polygon_to_xywh, read_table, read_text, split_lines
from ebmtrack.files import natural_key

Array = np.ndarray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Frames:
    """Image files of a folder: all of them in natural order (frame2 before frame10), or a range of numbers.

    first, last: the frames to take by the last number in their names, both ends included; without `first` all are
    taken, without `last` as many as there are boxes.
    """

    folder: Path
    first: int | None = None
    last: int | None = None

    def paths(self, count: int | None = None) -> list[Path]:
        """The frames in order.

        Where the wanted numbers are not all there but the folder holds exactly `count` images, numbered without a gap
        from 0 or 1, it is a copy that was cut and renumbered, and all are taken. Raises DatasetError for a missing
        folder, no images, missing frames, or two images with one number.
        """
        files = self._listing()
        if self.first is None:
            return files
        by_number = _by_number(files)
        last = self.last if self.last is not None else self.first + (count or 1) - 1
        wanted = range(self.first, last + 1)
        lost = next((n for n in wanted if n not in by_number), None)
        if lost is None:
            return [by_number[n] for n in wanted]
        if count == len(files) and sorted(by_number) in (list(range(count)), list(range(1, count + 1))):
            return [by_number[n] for n in sorted(by_number)]
        raise DatasetError(f"{self.folder}: frame {lost} is missing (needed: {self.first} to {last})")

    def _listing(self) -> list[Path]:
        """The images in natural order."""
        if not self.folder.is_dir():
            raise DatasetError(f"{self.folder}: no such folder of frames")
        files = [p for p in self.folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        if not files:
            raise DatasetError(f"{self.folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
        return sorted(files, key=lambda path: (natural_key(path.name), path.name))


@dataclass(frozen=True)
class Sequence:
    """One video with one target.

    boxes_xywh (N, 4): annotated boxes in pixels, x and y of the top left corner, NaN where not annotated;
    the first row starts the tracker. visible (N,): False where the target is absent; None where the data set
    does not say. attributes: names of the challenges that the data set lists. rule: which of pytracking's
    rules judges it. skip: frames at the start that are on disk and have no box. size_wh: image size, where a
    protocol needs it.
    """

    name: str
    dataset: str
    boxes_xywh: Array
    frames: Frames
    visible: Array | None = None
    attributes: tuple[str, ...] = ()
    rule: str = "otb"
    skip: int = 0
    size_wh: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.boxes_xywh)

    def frame_paths(self) -> list[Path]:
        """One image file per annotated box. Raises DatasetError where the numbers differ."""
        paths = self.frames.paths(len(self) + self.skip)[self.skip :]
        if len(paths) != len(self):
            raise DatasetError(
                f"{self.frames.folder}: {len(paths)} frames, but {len(self)} annotated boxes for {self.name!r}"
            )
        return paths


@dataclass(frozen=True)
class DataSet:
    """Sequences found under a root; each is read when asked for.

    loaders: sequence name -> function that reads it. missing: names that should be there and are not, where names are
    known. expected: how many sequences the benchmark has, None where that is not fixed.
    protocol: the name of the protocol by which it is usually judged.
    """

    name: str
    root: Path
    loaders: Mapping[str, Callable[[], Sequence]]
    missing: tuple[str, ...] = ()
    expected: int | None = None
    protocol: str = "ope"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sequences that were found, in order."""
        return tuple(self.loaders)

    def __len__(self) -> int:
        return len(self.loaders)

    def shortfall(self, most: int | None = None) -> str:
        """What lacks for the whole benchmark, in words; empty where nothing does.

        A count, and the names that are known: all, or at most so many.
        """
        size = max(self.expected or 0, len(self) + len(self.missing))
        lacking = size - len(self)
        joint = ": " if lacking == len(self.missing) else ", among them "
        named = joint + _few(self.missing, most or len(self.missing)) if self.missing else ""
        return f"{lacking} of {size} sequences are missing{named}" if lacking else ""

    def resolve(self, name: str) -> str:
        """The sequence's own name for one that may differ in case, `-`, `.`, `_` or a toolkit's prefix.

        Raises DatasetError for a name that is missing or unknown, and says which.
        """
        if name in self.loaders:
            return name
        for own in (*self.loaders, *self.missing):
            if canonical(own) == canonical(name):
                if own in self.loaders:
                    return own
                raise DatasetError(f"{self.name}: sequence {own!r} is not under {self.root}")
        raise DatasetError(f"{self.name}: no sequence {name!r}; it has {_few(self.names)}")

    def load(self, name: str) -> Sequence:
        """Read one sequence. Raises DatasetError where it is missing, unknown or malformed."""
        return self.loaders[self.resolve(name)]()

    def select(self, names: Items[str] = (), allow_missing: bool = False) -> tuple[str, ...]:
        """Names to run: all, or the given ones. Raises DatasetError that names missing ones unless they are
        allowed."""
        if names:
            return tuple(dict.fromkeys(self.resolve(name) for name in names))
        if not self.loaders and not self.missing:
            raise DatasetError(f"{self.name} under {self.root}: no sequences found")
        if not allow_missing and (lacking := self.shortfall(12)):
            raise DatasetError(
                f"{self.name} under {self.root}: {lacking}. Add them, or give --allow-missing to use the rest"
            )
        if not self.loaders:
            raise DatasetError(f"{self.name} under {self.root}: no sequences found")
        return self.names


def read_annotation(path: Path, columns: tuple[int, ...] = (4, 8)) -> Array:
    """Boxes (N, 4) from an annotation file: x, y, w, h or polygons, any separators, NaN where not annotated.

    The first box must be a finite one of positive size, because it starts the tracker. Raises DatasetError.
    """
    table = read_table(path, columns, DatasetError)
    boxes = polygon_to_xywh(table) if table.shape[1] == 8 else table[:, :4]
    return check_boxes(boxes, path)


def check_boxes(boxes_xywh: Array, path: Path) -> Array:
    """The same boxes, if none is infinite and the first can start a tracker; else a DatasetError with the
    line."""
    infinite = np.isinf(boxes_xywh).any(axis=1)
    if infinite.any():
        raise DatasetError(f"{path}, line {int(infinite.argmax()) + 1}: an infinite number")
    if not len(boxes_xywh) or not (boxes_xywh[0, 2:] > 0).all() or np.isnan(boxes_xywh[0]).any():
        first = boxes_xywh[0].tolist() if len(boxes_xywh) else "nothing"
        raise DatasetError(f"{path}, line 1: {first} is no box to start from; it needs a positive size")
    return boxes_xywh


def read_flags(path: Path, count: int | None = None, what: str = "frames") -> Array:
    """Flags (N,) of 0 and 1, one per line or all in one line separated by commas -> bool.

    Raises DatasetError for other numbers, or a count that differs from `count`; what: things that are counted.
    """
    values = read_table(path, range(1, 200_000), DatasetError)
    if values.shape[0] > 1 and values.shape[1] > 1:
        raise DatasetError(f"{path}: expected one flag per line, or all in one line")
    flags = values.reshape(-1)
    if not np.isin(flags, (0, 1)).all():
        raise DatasetError(f"{path}, flag {int((~np.isin(flags, (0, 1))).argmax()) + 1}: is neither 0 nor 1")
    if count is not None and len(flags) != count:
        raise DatasetError(f"{path}: {len(flags)} flags for {count} {what}")
    return flags.astype(bool)


def read_attributes(folders: Items[Path], sequence: str, names: Items[str]) -> tuple[str, ...]:
    """Those of `names` whose flag is 1 in the sequence's file of 0 and 1, in the first folder that has such a file.

    Case, `-`, `.` and `_` in the file's name do not matter. Nothing where there is no file. Raises DatasetError.
    """
    for folder in folders:
        for path in seen(folder.glob("*.txt")):
            if canonical(path.stem) == canonical(sequence):
                flags = read_flags(path, len(names), "attributes")
                return tuple(name for name, flag in zip(names, flags, strict=True) if flag)
    return ()


def read_names(path: Path) -> tuple[str, ...]:
    """Names of sequences from a list, one per line; blank lines and repetitions do not count.

    Raises DatasetError naming the line for a name that cannot be that of a folder, so that a list never leads outside
    the data set.
    """
    names = [line.strip() for line in split_lines(read_text(path, DatasetError))]
    for number, name in enumerate(names, 1):
        if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable() or len(name.encode()) > 200:
            raise DatasetError(f"{path}, line {number}: {name[:80]!r} cannot be the name of a sequence's folder")
    return tuple(dict.fromkeys(name for name in names if name))


def read_attribute_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Attributes by sequence from a table: a head `sequence,OCC,FM ..`, then rows of a name and flags 0 or 1.

    Raises DatasetError naming the line for anything else.
    """
    rows = [[word.strip() for word in line.split(",")] for line in split_lines(read_text(path, DatasetError))]
    head = rows[0][1:] if rows else []
    if not head or not all(head) or len(set(head)) < len(head):
        raise DatasetError(f"{path}, line 1: expected a head such as 'sequence,OCC,FM'")
    table: dict[str, tuple[str, ...]] = {}
    for number, (name, *flags) in enumerate(rows[1:], 2):
        if len(flags) != len(head) or not set(flags) <= {"0", "1"}:
            raise DatasetError(f"{path}, line {number}: expected a name and {len(head)} flags of 0 or 1")
        if name in table:
            raise DatasetError(f"{path}, line {number}: {name[:80]!r} stands here twice")
        table[name] = tuple(attribute for attribute, flag in zip(head, flags, strict=True) if flag == "1")
    return table


def with_attributes(dataset: DataSet, path: Path) -> DataSet:
    """The data set with the attributes of a table (`read_attribute_table`) instead of its own.

    Sequences that the table does not name keep theirs. Raises DatasetError for a name that the data set does not have.
    """
    chosen = {}
    for name, attributes in read_attribute_table(path).items():
        own = next((n for n in (*dataset.loaders, *dataset.missing) if canonical(n) == canonical(name)), None)
        if own is None:
            raise DatasetError(f"{path}: {name[:80]!r} is no sequence of {dataset.name}; it has {_few(dataset.names)}")
        chosen[own] = attributes
    loaders = {
        name: partial(_load_with, load, chosen[name]) if name in chosen else load
        for name, load in dataset.loaders.items()
    }
    return replace(dataset, loaders=loaders)


def _load_with(load: Callable[[], Sequence], attributes: tuple[str, ...]) -> Sequence:
    return replace(load(), attributes=attributes)


def seen(paths: Iterable[Path]) -> list[Path]:
    """Paths in order, without hidden ones, such as the `._name` that macOS puts beside every file on foreign disks."""
    return sorted(path for path in paths if not path.name.startswith("."))


def folders_by_name(root: Path) -> dict[str, Path]:
    """Folders in `root` by their canonical name, so that case, `-` and `_` do not matter. Raises
    DatasetError."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    return {canonical(path.name): path for path in seen(root.iterdir()) if path.is_dir()}


def split_found(wanted: Iterable[str], present: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names divided into those present and those missing."""
    found, missing = [], []
    for name in wanted:
        (found if present(name) else missing).append(name)
    return tuple(found), tuple(missing)


def _by_number(files: Items[Path]) -> dict[int, Path]:
    """Files by the last number in their names, those without one left out. Raises DatasetError where two share it."""
    numbered: dict[int, Path] = {}
    for path in files:
        digits = re.findall(r"\d+", path.stem)
        if digits and (other := numbered.setdefault(int(digits[-1]), path)) != path:
            raise DatasetError(
                f"{path.parent}: {other.name} and {path.name} both have the number {int(digits[-1])}; frames are told "
                "apart by the last number in their names: rename the images, or remove the one too many"
            )
    return numbered


def _few(names: Items[str], most: int = 12) -> str:
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
