"""Any folder of sequences: `<root>/<NAME>/` with images and a ground-truth file, or labels of several targets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from ebmtrack.errors import DatasetError
from ebmtrack.videos.labels import FILES, find_labels, load_target, read_labels
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, image_files, only_first, visible_paths
from ebmtrack.videos.text import read_boxes

ANNOTATIONS = ("groundtruth_rect.txt", "groundtruth.txt")
IMAGE_FOLDERS = ("img", "imgs", "images", "color", "frames", "img1")


def find(root: Path, but: Collection[str] = ()) -> DataSet:
    """Find the sequences below `root` (or `root` itself, if it is one), by name.

    A sequence is a folder with `groundtruth_rect.txt` or `groundtruth.txt`; its images are beside that file or in a
    folder `img`. Of a folder with labels (`labels.FILES`) each target is a sequence, NAME or NAME#1, NAME#2.
    Folders below `root` of the names in `but` hold other data.

    Raises:
        DatasetError: If there is none.
    """
    loaders: dict[str, Callable[[], Sequence]] = {}
    for name, place in places(root, but).items():
        labels = find_labels(place) if _annotation(place) is None else None
        if labels is None:
            loaders[name] = partial(load, place)
            continue
        images = image_folder(place)
        targets = sorted(read_labels(labels, Frames(images).paths()).tracks)
        for target in targets:
            own = name if len(targets) == 1 else f"{name}#{target}"
            loaders[own] = partial(load_target, own, labels, images, target)
    return DataSet("folder", Path(root), loaders)


def places(root: Path, but: Collection[str] = ()) -> dict[str, Path]:
    """Return the folders of the sequences below `root` (or `root` itself), by name. DatasetError if there are none."""
    root = existing_folder(Path(root))
    if root.name in ("", ".."):  # `.` and `a/..` have no name of their own; a link keeps the one by which it is called
        root = root.resolve()
    found = _labelled(root, but)
    if not found:
        raise DatasetError(f"{root}: no folders with {' or '.join(ANNOTATIONS)} or labels in them; see docs/data.md")
    return {path.name: path for path in found}


def has_sequences(root: Path, but: Collection[str] = ()) -> bool:
    """Return whether there are sequences below `root`, or it is one."""
    return root.is_dir() and bool(_labelled(root, but))


def _labelled(root: Path, but: Collection[str] = ()) -> list[Path]:
    """Return the folders of the sequences below `root`, or `root` itself."""
    if _is_labelled(root):
        return [root]
    return [path for path in _below(root, but) if _is_labelled(path)]


def left_out(root: Path, but: Collection[str] = ()) -> list[str]:
    """Return a line for each folder below `root` with pictures but no labels; none if `root` itself is a sequence."""
    unlabelled = [] if _is_labelled(root) else [path for path in _below(root, but) if not _is_labelled(path)]
    return [
        f"{path}: has pictures but no labels ({', '.join((*ANNOTATIONS, *FILES))} or labels/); it is left out"
        for path in unlabelled
        if any(image_files(place) for place in (path, *(path / name for name in IMAGE_FOLDERS)) if place.is_dir())
    ]


def _below(root: Path, but: Collection[str]) -> list[Path]:
    """Return the folders in `root` without those of the names in `but`."""
    return [path for path in visible_paths(root.iterdir()) if path.name not in but and path.is_dir()]


def _is_labelled(place: Path) -> bool:
    """Return whether a folder is a sequence: with an annotation of one target, or labels beside its frames."""
    return _annotation(place) is not None or find_labels(place) is not None


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
