"""GOT-10k (Huang, Zhao and Huang, PAMI 2019): `<root>/<train, val or test>/<sequence>/` and `list.txt`.

A sequence holds 00000001.jpg .., groundtruth.txt, absence.label, cover.label (the visible share in eighths) and
meta_info.ini. Of the test set only the first box is public: the other rows become NaN, and scores come from the
benchmark's server.

pytracking trains on `vottrain` and validates on `votval`: 7,086 and 1,249 of the 9,335 training sequences, without
those that VOT's challenges exclude. The two lists are not part of the data set. Put pytracking's files, or any files of
names or of numbers of lines of list.txt (from 0), beside list.txt under one of the names in `LISTS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence as Items
from functools import partial
from pathlib import Path

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, only_first, split_found, visible_paths
from ebmtrack.videos.text import read_boxes, read_labels, read_names, read_text

SIZES = {"train": 9335, "val": 180, "test": 180, "vottrain": 7086, "votval": 1249}  # the last two: pytracking
LISTS = {
    "vottrain": ("vottrain.txt", "got10k_vot_train_split.txt"),
    "votval": ("votval.txt", "got10k_vot_val_split.txt"),
}
ANNOTATION = ("groundtruth.txt", "absence.label", "cover.label")


def find(root: Path, split: str = "val", least_cover: int = 1) -> DataSet:
    """Find the sequences of a split, in its folder under `root` or in `root` itself.

    Args:
        root: The data set's folder, or the split's.
        split: train, val, test, vottrain or votval.
        least_cover: Visible eighths from which on a target counts as visible; pytracking and the toolkit take 1.

    Returns:
        The sequences that `list.txt` names; without a list the folders for train, the published names for val and test.

    Raises:
        ConfigError: For another split.
        DatasetError: If there is neither a list nor a sequence, or a list names what list.txt does not.
    """
    if split not in SIZES:
        raise ConfigError(f"GOT-10k has no split {split!r}; there are {', '.join(SIZES)}")
    part = "train" if split in LISTS else split
    folder = existing_folder(root / part if (root / part).is_dir() else root)
    names = _read_list(folder, split)
    if split in LISTS:
        names = _select(names, _list_file(root, folder, split), split)
    found, missing = split_found(names, lambda name: (folder / name).is_dir())
    if part != "train":
        found, missing = split_found(names, lambda name: (folder / name / "groundtruth.txt").is_file())
    name = f"got10k_{split}"
    loaders = {each: partial(load, folder / each, name, least_cover) for each in found}
    size = SIZES[split] if part != "train" else None
    return DataSet(name, root, loaders, missing, size, "got10k", partial(_files, folder), partial(_frames, folder))


def is_known(name: str) -> bool:
    """Return whether a sequence of GOT-10k has this name."""
    return re.fullmatch(r"GOT-10k_(Train|Val|Test)_\d{6}", name) is not None


def load(folder: Path, dataset: str = "got10k_val", least_cover: int = 1) -> Sequence:
    """Read one sequence: visible are frames with a cover of `least_cover`, absent those that absence.label marks.

    Raises:
        DatasetError: For a malformed file, and for labels that are not as many as the boxes.
    """
    boxes, frames = read_boxes(folder / ANNOTATION[0], (4,)), _frames(folder.parent, folder.name)
    if len(boxes) == 1 and dataset == "got10k_test":
        boxes = only_first(boxes, frames)
    absent = visible = None
    if (folder / "absence.label").is_file():
        absent = read_labels(folder / "absence.label", len(boxes), 1) == 1
    if (folder / "cover.label").is_file():
        visible = read_labels(folder / "cover.label", len(boxes), 8) >= least_cover
    size_wh, annotation = _size(folder / "meta_info.ini"), folder / ANNOTATION[0]
    return Sequence(folder.name, dataset, boxes, frames, visible, size_wh=size_wh, absent=absent, annotation=annotation)


def _read_list(folder: Path, split: str) -> tuple[str, ...]:
    """Return the names in list.txt; without it the published ones, for train those of the folders."""
    if (folder / "list.txt").is_file():
        names = read_names(folder / "list.txt")
        if names:
            return names
        raise DatasetError(f"{folder / 'list.txt'}, line 1: names no sequence to use")
    if split in LISTS:
        raise DatasetError(f"{folder / 'list.txt'}: missing, and the split {split!r} is a part of it; fetch it again")
    if split == "train":
        found = tuple(p.name for p in visible_paths(folder.iterdir()) if (p / ANNOTATION[0]).is_file())
        if not found:
            raise DatasetError(f"{folder}: no list.txt and no NAME/{ANNOTATION[0]}; give a folder such as got10k/train")
        return found
    return tuple(f"GOT-10k_{split.capitalize()}_{number:06d}" for number in range(1, SIZES[split] + 1))


def _list_file(root: Path, folder: Path, split: str) -> Path:
    """Return the file of a split that is not part of the data set."""
    choices = [place / name for place in (folder, root) for name in LISTS[split]]
    found = next((path for path in choices if path.is_file()), None)
    if found is None:
        raise DatasetError(
            f"{folder}: the split {split!r} needs its list of {SIZES[split]:,} sequences, which is not part of the "
            f"data set; put it there as {' or '.join(LISTS[split])} (pytracking's file, or one name a line)"
        )
    return found


def _select(names: Items[str], path: Path, split: str) -> tuple[str, ...]:
    """Return the names that a list selects, by name or by number of the line in list.txt (from 0)."""
    chosen = read_names(path)
    if all(re.fullmatch(r"\d{1,6}", word) for word in chosen):
        outside = next((word for word in chosen if int(word) >= len(names)), None)
        if outside is not None:
            raise DatasetError(f"{path}: number {outside} is beyond the {len(names)} sequences of list.txt (from 0)")
        chosen = tuple(names[int(word)] for word in chosen)
    known = set(names)
    unknown = next((name for name in chosen if name not in known), None)
    if unknown is not None:
        raise DatasetError(f"{path}: {unknown!r} is not in list.txt; is it the list of another data set?")
    if len(names) == SIZES["train"] and len(chosen) != SIZES[split] and path.name in LISTS[split][1:]:
        raise DatasetError(f"{path}: {len(chosen)} sequences instead of {SIZES[split]}; fetch the file again")
    return chosen


def _files(folder: Path, name: str) -> tuple[str, ...]:
    return tuple(os.path.join(folder, name, file) for file in ANNOTATION)


def _frames(folder: Path, name: str) -> Frames:
    return Frames(folder / name, pattern="{:08d}.jpg")


def _size(path: Path) -> tuple[float, float] | None:
    """Return width and height from a line `resolution: (1920, 1080)`; None if the file or the line is missing."""
    if not path.is_file():
        return None
    match = re.search(r"resolution:\s*\((\d{1,6}),\s*(\d{1,6})\)", read_text(path))
    return (float(match[1]), float(match[2])) if match else None
