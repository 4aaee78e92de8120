"""`folder`: any directory of sequences, `<root>/<NAME>/` with images and a ground-truth file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.evaluation.datasets.base import IMAGE_SUFFIXES, DataSet, Frames, Sequence, read_annotation, seen

ANNOTATIONS = ("groundtruth_rect.txt", "groundtruth.txt")
IMAGE_FOLDERS = ("img", "imgs", "images", "color", "frames")


def find(root: Path) -> DataSet:
    """The sequences below `root` (or `root` itself, if it is one), by name.

    A sequence is a folder with `groundtruth_rect.txt` or `groundtruth.txt`; its images lie beside that file
    or in a folder `img`. Raises DatasetError where there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    if root.name in ("", ".."):  # `.` and `a/..` have no name of their own; a link keeps the one by which it is called
        root = root.resolve()
    candidates = [root] if _annotation(root) else [p for p in seen(root.iterdir()) if p.is_dir() and _annotation(p)]
    if not candidates:
        raise DatasetError(f"{root}: no folders with {' or '.join(ANNOTATIONS)} in them")
    return DataSet("folder", root, {path.name: partial(load, path) for path in candidates})


def load(path: Path, dataset: str = "folder") -> Sequence:
    """Read the sequence in one folder.

    One annotated box for many frames means that only the start is known: the other rows are NaN.
    """
    annotation = _annotation(path)
    if annotation is None:
        raise DatasetError(f"{path}: has no {' or '.join(ANNOTATIONS)}")
    boxes, frames = read_annotation(annotation), Frames(image_folder(path))
    if len(boxes) == 1:
        count = len(frames.paths())
        boxes = np.concatenate([boxes, np.full((count - 1, 4), np.nan)])
    return Sequence(path.name, dataset, boxes, frames)


def image_folder(path: Path) -> Path:
    """Where the images of a sequence lie: a folder `img` or the like, or the sequence's own folder."""
    for name in IMAGE_FOLDERS:
        if (path / name).is_dir():
            return path / name
    if any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
        return path
    raise DatasetError(f"{path}: has neither images nor a folder {', '.join(IMAGE_FOLDERS)}")


def _annotation(path: Path) -> Path | None:
    return next((path / name for name in ANNOTATIONS if (path / name).is_file()), None)
