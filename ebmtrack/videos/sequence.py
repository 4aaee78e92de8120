"""Named sequences, each with its frames on disk and its annotated boxes: what training and evaluation both read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.files import expand_home, in_frame_order
from ebmtrack.videos.spelling import canonical
from ebmtrack.videos.text import read_flags, read_text, split_lines

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Frames:
    """Image files of a folder: all of them in natural order (frame2 before frame10), or a range of numbers.

    first, last: the frames to take by the last number in their names, both ends included; all are taken without
    `first`, as many as there are boxes without `last`. pattern: the name of frame number n if the data set has fixed
    names, such as "{:08d}.jpg"; single frames are then found without listing the folder. start: the number of the first
    frame in such names.
    """

    folder: Path
    first: int | None = None
    last: int | None = None
    pattern: str | None = None
    start: int = 1

    def paths(self, count: int | None = None) -> list[Path]:
        """Return the frames in order.

        If the wanted numbers are not all there, but the folder holds exactly `count` images, numbered without a gap
        from 0 or 1, it is a copy that was cut and renumbered, and all are taken.

        Raises:
            DatasetError: For a missing folder, no images, missing frames, or two images with one number.
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
        raise DatasetError(
            f"{self.folder}: frame {lost} is missing (needed: {self.first} to {last}); fetch the sequence again"
        )

    def file(self, index: int) -> str | None:
        """Return the path of frame `index` (from 0) by the pattern, there or not; None without a pattern."""
        if self.pattern is None:
            return None
        return os.path.join(self.folder, self.pattern.format(index + self.start))

    def _listing(self) -> list[Path]:
        """Return the images in natural order."""
        if not self.folder.is_dir():
            raise DatasetError(f"{self.folder}: no such folder of frames; is the data set complete?")
        files = image_files(self.folder)
        if not files:
            raise DatasetError(f"{self.folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
        return in_frame_order(files)


@dataclass(frozen=True)
class Sequence:
    """One video with one target.

    boxes_xywh (N, 4): annotated boxes in pixels, x and y of the top left corner, NaN if not annotated. visible (N,):
    False in frames that the benchmark's protocol leaves out because the target is absent; None if the data set does not
    say. attributes: names of the challenges that the data set lists. rule: which of pytracking's rules judges it. skip:
    frames at the start that are on disk and have no box. size_wh: image size, if a protocol needs it. absent (N,): True
    in frames that training leaves out beyond `visible`. annotation: the file of the boxes. early_rows: its rows
    before the first frame of the sequence, which are left out.
    """

    name: str
    dataset: str
    boxes_xywh: np.ndarray
    frames: Frames
    visible: np.ndarray | None = None
    attributes: tuple[str, ...] = ()
    rule: str = "otb"
    skip: int = 0
    size_wh: tuple[float, float] | None = None
    absent: np.ndarray | None = None
    annotation: Path | None = None
    early_rows: int = 0

    def __len__(self) -> int:
        return len(self.boxes_xywh)

    @property
    def usable(self) -> np.ndarray:
        """The frames (N,) bool that training may use: visible, with a box of at least one pixel."""
        usable = well_formed(self.boxes_xywh)
        if self.visible is not None:
            usable &= self.visible
        return usable if self.absent is None else usable & ~self.absent

    def frame_paths(self) -> list[Path]:
        """Return one image file per annotated box. Raises DatasetError if the numbers differ."""
        paths = self.frames.paths(len(self) + self.skip)[self.skip :]
        if len(paths) != len(self):
            raise DatasetError(
                f"{self.frames.folder}: {len(paths)} frames, but {len(self)} annotated boxes for {self.name!r}"
            )
        return paths

    def check_start(self) -> None:
        """Raise DatasetError unless the first box can start a tracker: finite, with a positive size."""
        if not len(self) or not (self.boxes_xywh[0, 2:] > 0).all() or np.isnan(self.boxes_xywh[0]).any():
            first = self.boxes_xywh[0].tolist() if len(self) else "nothing"
            where = self.annotation or f"{self.dataset}, sequence {self.name!r}"
            raise DatasetError(f"{where}, line 1: {first} is no box to start from; it needs a positive size")


@dataclass(frozen=True)
class DataSet:
    """Sequences found under a root; each is read when it is asked for, once, and then remembered.

    loaders: sequence name -> function that reads it. missing: names that should be there and are not, if names are
    known. expected: how many sequences the benchmark has, None if that is not fixed. protocol: the name of the protocol
    by which it is usually judged. annotation_files, frames_of: sequence name -> all files of its annotation, there or
    not, and its frames. With both, training keeps an index of the annotations and loads no sequence.
    """

    name: str
    root: Path
    loaders: Mapping[str, Callable[[], Sequence]]
    missing: tuple[str, ...] = ()
    expected: int | None = None
    protocol: str = "ope"
    annotation_files: Callable[[str], tuple[str, ...]] | None = None
    frames_of: Callable[[str], Frames] | None = None
    opened_by: tuple[Callable[..., DataSet], tuple[Any, ...]] | None = None
    _read: dict[str, Sequence] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle without what was read; a data set of a file of the user's is opened anew."""
        if self.opened_by is not None:
            return self.opened_by
        return _restore, ({key: value for key, value in self.__dict__.items() if key != "_read"},)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sequences that were found, in order."""
        return tuple(self.loaders)

    def __len__(self) -> int:
        return len(self.loaders)

    def shortfall(self, most: int | None = None) -> str:
        """Describe what the whole benchmark lacks: a count and at most `most` names; empty if nothing is missing."""
        size = max(self.expected or 0, len(self) + len(self.missing))
        lacking = size - len(self)
        joint = ": " if lacking == len(self.missing) else ", among them "
        named = joint + few(self.missing, most or len(self.missing)) if self.missing else ""
        return f"{lacking} of {size} sequences are missing{named}" if lacking else ""

    def resolve(self, name: str) -> str:
        """Return the sequence's own name for one that may differ in case, `-`, `.`, `_` or a toolkit's prefix.

        Raises:
            DatasetError: For a name that is missing or unknown.
        """
        if name in self.loaders:
            return name
        for own in (*self.loaders, *self.missing):
            if canonical(own) == canonical(name):
                if own in self.loaders:
                    return own
                raise DatasetError(f"{self.name}: sequence {own!r} is not under {self.root}")
        raise DatasetError(f"{self.name}: no sequence {name!r}; it has {few(self.names)}")

    def read(self, name: str) -> Sequence:
        """Return one sequence, parsed the first time. Raises DatasetError if it is missing, unknown or malformed."""
        own = self.resolve(name)
        if own not in self._read:
            self._read[own] = self.loaders[own]()
        return self._read[own]

    def load(self, name: str) -> Sequence:
        """Return one sequence to track. Raises DatasetError as `read`, and if its first box cannot start a tracker."""
        sequence = self.read(name)
        sequence.check_start()
        return sequence

    def select(self, names: Items[str] = (), allow_missing: bool = False) -> tuple[str, ...]:
        """Return the names to run: all, or the given ones.

        Raises:
            DatasetError: For unknown names, and for missing sequences unless they are allowed.
        """
        if names:
            return tuple(dict.fromkeys(self.resolve(name) for name in names))
        if not self.loaders and not self.missing:
            raise DatasetError(f"{self.name} under {self.root}: no sequences found; give the folder that holds them")
        if not allow_missing and (lacking := self.shortfall(12)):
            raise DatasetError(
                f"{self.name} under {self.root}: {lacking}. Add them, or give --allow-missing to use the rest"
            )
        if not self.loaders:
            raise DatasetError(f"{self.name} under {self.root}: no sequences found; give the folder that holds them")
        return self.names

    def without(self, names: Iterable[str]) -> DataSet:
        """Return the data set without some sequences."""
        left_out = set(names)
        loaders = {name: load for name, load in self.loaders.items() if name not in left_out}
        missing = tuple(name for name in self.missing if name not in left_out)
        return replace(self, loaders=loaders, missing=missing)


def _restore(values: dict[str, Any]) -> DataSet:
    return DataSet(**values)


def well_formed(boxes_xywh: np.ndarray) -> np.ndarray:
    """Return (n,) bool: boxes (n, 4) that are finite, with both sides at least a pixel."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes_xywh).all(axis=1) & (boxes_xywh[:, 2:] >= 1).all(axis=1)


def read_attributes(folders: Items[Path], sequence: str, names: Items[str]) -> tuple[str, ...]:
    """Read which attributes a sequence has from its file of 0 and 1, in the first folder that has such a file.

    Args:
        folders: Where to look.
        sequence: The sequence's name; case, `-`, `.` and `_` in the file's name do not matter.
        names: The attributes, in the order of the file.

    Returns:
        The attributes whose flag is 1; none without a file.

    Raises:
        DatasetError: For a file of another length, or with other values.
    """
    for folder in folders:
        for path in visible_paths(folder.glob("*.txt")):
            if canonical(path.stem) == canonical(sequence):
                flags = read_flags(path, len(names), "attributes")
                return tuple(name for name, flag in zip(names, flags, strict=True) if flag)
    return ()


def read_attribute_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Read attributes by sequence from a table: a head `sequence,OCC,FM ..`, then rows of a name and flags 0 or 1.

    Raises:
        DatasetError: With the line, for anything else.
    """
    rows = [[word.strip() for word in line.split(",")] for line in split_lines(read_text(path))]
    head = rows[0][1:] if rows else []
    if not head or not all(head) or len(set(head)) < len(head):
        raise DatasetError(f"{path}, line 1: expected a head such as 'sequence,OCC,FM'")
    table: dict[str, tuple[str, ...]] = {}
    for number, (name, *flags) in enumerate(rows[1:], 2):
        if len(flags) != len(head) or not set(flags) <= {"0", "1"}:
            raise DatasetError(f"{path}, line {number}: expected a name and {len(head)} flags of 0 or 1")
        if name in table:
            raise DatasetError(f"{path}, line {number}: {name[:80]!r} is listed twice")
        table[name] = tuple(attribute for attribute, flag in zip(head, flags, strict=True) if flag == "1")
    return table


def with_attributes(dataset: DataSet, path: Path) -> DataSet:
    """Return the data set with the attributes of a table (`read_attribute_table`) instead of its own.

    Sequences that the table does not name keep theirs.

    Raises:
        DatasetError: For a name that the data set does not have.
    """
    chosen = {}
    for name, attributes in read_attribute_table(path).items():
        own = next((n for n in (*dataset.loaders, *dataset.missing) if canonical(n) == canonical(name)), None)
        if own is None:
            raise DatasetError(f"{path}: {name[:80]!r} is no sequence of {dataset.name}; it has {few(dataset.names)}")
        chosen[own] = attributes
    loaders = {
        name: partial(_load_with, load, chosen[name]) if name in chosen else load
        for name, load in dataset.loaders.items()
    }
    return replace(dataset, loaders=loaders)


def _load_with(load: Callable[[], Sequence], attributes: tuple[str, ...]) -> Sequence:
    return replace(load(), attributes=attributes)


def visible_paths(paths: Iterable[Path]) -> list[Path]:
    """Return paths in order without hidden ones, such as the `._name` that macOS puts beside files on foreign disks."""
    return sorted(path for path in paths if not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in no order, without hidden ones."""
    return [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]


def folders_by_name(root: Path) -> dict[str, Path]:
    """Return the folders in `root` by their canonical name, so that case, `-` and `_` do not matter."""
    return {canonical(path.name): path for path in visible_paths(existing_folder(root).iterdir()) if path.is_dir()}


def existing_folder(path: Path, what: str = "no such folder") -> Path:
    """Return `path`, with ~ expanded, if it is a folder; otherwise raise a DatasetError that says `what`."""
    path = expand_home(path)
    if not path.is_dir():
        raise DatasetError(f"{path}: {what}")
    return path


def split_found(wanted: Iterable[str], present: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide names into those that are present and those that are missing."""
    found: list[str] = []
    missing: list[str] = []
    for name in wanted:
        (found if present(name) else missing).append(name)
    return tuple(found), tuple(missing)


def few(names: Items[str], most: int = 12) -> str:
    """Return at most `most` names, with a count of the others."""
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def only_first(boxes_xywh: np.ndarray, frames: Frames) -> np.ndarray:
    """Return the first box, and NaN for every other frame on disk."""
    return np.concatenate([boxes_xywh, np.full((len(frames.paths()) - 1, 4), np.nan)])


def _by_number(files: Items[Path]) -> dict[int, Path]:
    """Return files by the last number in their names, without those that have none."""
    numbered: dict[int, Path] = {}
    for path in files:
        digits = re.findall(r"\d+", path.stem)
        if digits and (other := numbered.setdefault(int(digits[-1]), path)) != path:
            raise DatasetError(
                f"{path.parent}: {other.name} and {path.name} both have the number {int(digits[-1])}; frames are told "
                "apart by the last number in their names: rename the images, or remove the one too many"
            )
    return numbered
