"""Any folder of sequences: `<root>/<NAME>/` with images and a ground-truth file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ebmtrack.errors import DatasetError
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, image_files, only_first, shown
from ebmtrack.videos.text import read_boxes

ANNOTATIONS = ("groundtruth_rect.txt", "groundtruth.txt")
IMAGE_FOLDERS = ("img", "imgs", "images", "color", "frames")


def find(root: Path) -> DataSet:
    """Find the sequences below `root` (or `root` itself, if it is one), by name.

    A sequence is a folder with `groundtruth_rect.txt` or `groundtruth.txt`; its images are beside that file or in a
    folder `img`. Raises DatasetError if there is none.
    """
    return DataSet("folder", Path(root), {name: partial(load, place) for name, place in places(root).items()})


def places(root: Path) -> dict[str, Path]:
    """Return the folders of the sequences below `root` (or `root` itself), by name. DatasetError if there are none."""
    root = existing_folder(Path(root))
    if root.name in ("", ".."):  # `.` and `a/..` have no name of their own; a link keeps the one by which it is called
        root = root.resolve()
    found = [root] if _annotation(root) else [p for p in shown(root.iterdir()) if p.is_dir() and _annotation(p)]
    if not found:
        raise DatasetError(f"{root}: no folders with {' or '.join(ANNOTATIONS)} in them; see docs/data.md")
    return {path.name: path for path in found}


def load(path: Path, dataset: str = "folder") -> Sequence:
    """Read the sequence in one folder.

    One annotated box for many frames means that only the start is known: the other rows become NaN.
    """
    annotation = _annotation(path)
    if annotation is None:
        raise DatasetError(f"{path}: has no {' or '.join(ANNOTATIONS)}, so no box to start from")
    boxes, frames = read_boxes(annotation), Frames(image_folder(path))
    if len(boxes) == 1:
        boxes = only_first(boxes, frames)
    return Sequence(path.name, dataset, boxes, frames, annotation=annotation)


def image_folder(path: Path) -> Path:
    """Return the folder of a sequence's images: a folder `img` or the like, or the sequence's own."""
    for name in IMAGE_FOLDERS:
        if (path / name).is_dir():
            return path / name
    if image_files(path):
        return path
    raise DatasetError(f"{path}: has neither images nor a folder {', '.join(IMAGE_FOLDERS)}; put the frames there")


def _annotation(path: Path) -> Path | None:
    return next((path / name for name in ANNOTATIONS if (path / name).is_file()), None)
