"""TColor-128 (Liang, Blasch and Ling, TIP 2015) and DTB70 (Li and Yeung, AAAI 2017)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.evaluation.datasets import folder as plain
from ebmtrack.evaluation.datasets.base import DataSet, Frames, Sequence, read_annotation, read_attributes, seen
from ebmtrack.evaluation.datasets.otb import ATTRIBUTES
from ebmtrack.evaluation.tables import read_table

TCOLOR_SIZE = 128
DTB_SIZE = 70


def find_tcolor128(root: Path) -> DataSet:
    """Folders `<root>/<name>/` with `<name>_gt.txt` and `<name>_frames.txt`, which holds the first and last
    frame."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    annotations = [path for folder in seen(root.iterdir()) for path in seen(folder.glob("*_gt.txt"))]
    loaders = {path.parent.name: partial(load_tcolor128, path) for path in annotations}
    return DataSet("tcolor128", root, loaders, (), TCOLOR_SIZE, "pytracking")


def load_tcolor128(annotation: Path) -> Sequence:
    """Read one sequence of TColor-128."""
    stem, boxes = annotation.name[: -len("_gt.txt")], read_annotation(annotation, (4,))
    first, last = _range(annotation.with_name(f"{stem}_frames.txt"))
    if last - first + 1 != len(boxes):
        raise DatasetError(f"{annotation}: {len(boxes)} boxes for the frames {first} to {last}")
    attributes = read_attributes((annotation.parent,), f"{stem}_att", ATTRIBUTES)
    frames = Frames(annotation.parent / "img", first, last)
    return Sequence(annotation.parent.name, "tcolor128", boxes, frames, attributes=attributes)


def find_dtb70(root: Path) -> DataSet:
    """Folders `<root>/<name>/` with `img` and `groundtruth_rect.txt`."""
    found = plain.find(root)
    loaders = {name: partial(load, dataset="dtb70") for name, load in found.loaders.items()}
    return DataSet("dtb70", root, loaders, (), DTB_SIZE, "pytracking")


def _range(path: Path) -> tuple[int, int]:
    numbers = read_table(path, (1, 2), DatasetError).reshape(-1)
    if len(numbers) != 2 or not np.isfinite(numbers).all() or (numbers % 1).any() or not 0 <= numbers[0] <= numbers[1]:
        raise DatasetError(f"{path}: expected the first and the last frame, got {numbers[:4].tolist()}")
    return int(numbers[0]), int(numbers[1])
