"""TColor-128 (Liang, Blasch and Ling, TIP 2015): `<root>/<name>/{img, <name>_gt.txt, <name>_frames.txt}`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.videos.otb import ATTRIBUTES
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, read_attributes, visible_paths
from ebmtrack.videos.text import read_boxes, read_table

SIZE = 128


def find(root: Path) -> DataSet:
    """Find the sequences under `root`. `<name>_frames.txt` holds the numbers of the first and the last frame."""
    annotations = [
        path
        for folder in visible_paths(existing_folder(root).iterdir())
        for path in visible_paths(folder.glob("*_gt.txt"))
    ]
    loaders = {path.parent.name: partial(load, path) for path in annotations}
    return DataSet("tcolor128", root, loaders, (), SIZE, "pytracking")


def load(annotation: Path) -> Sequence:
    """Read one sequence from its file of boxes. Raises DatasetError if the frames are not as many as the boxes."""
    stem, boxes = annotation.name[: -len("_gt.txt")], read_boxes(annotation, (4,))
    first, last = _range(annotation.with_name(f"{stem}_frames.txt"))
    if last - first + 1 != len(boxes):
        raise DatasetError(f"{annotation}: {len(boxes)} boxes for the frames {first} to {last}")
    attributes = read_attributes((annotation.parent,), f"{stem}_att", ATTRIBUTES)
    frames, name = Frames(annotation.parent / "img", first, last), annotation.parent.name
    return Sequence(name, "tcolor128", boxes, frames, attributes=attributes, annotation=annotation)


def _range(path: Path) -> tuple[int, int]:
    numbers = read_table(path, (1, 2)).reshape(-1)
    if len(numbers) != 2 or not np.isfinite(numbers).all() or (numbers % 1).any() or not 0 <= numbers[0] <= numbers[1]:
        raise DatasetError(f"{path}: expected the first and the last frame, got {numbers[:4].tolist()}")
    return int(numbers[0]), int(numbers[1])
