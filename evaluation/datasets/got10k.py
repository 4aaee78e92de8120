"""GOT-10k val and test (Huang, Zhao and Huang, PAMI 2019) and TrackingNet test (Mueller et al., ECCV 2018).

GOT-10k: `<root>/<val or test>/<sequence>/{00000001.jpg, groundtruth.txt, cover.label, meta_info.ini}` and
`list.txt`; `cover` is the visible share in eighths. TrackingNet: `<root>/TEST/{frames/<sequence>/0.jpg,
anno/<sequence>.txt}`. Of both test sets only the first box is public: the other rows are NaN, and scores come
from the benchmarks' servers.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.evaluation.datasets.base import (
    DataSet,
    Frames,
    Sequence,
    read_annotation,
    read_names,
    seen,
    split_found,
)
from ebmtrack.evaluation.tables import read_table, read_text

SIZE = {"val": 180, "test": 180}
TRACKINGNET_SIZE = 511


def find(root: Path, subset: str = "val") -> DataSet:
    """The sequences that `list.txt` names (without it, the folders), in the folder of the subset or in `root`
    itself."""
    folder = root / subset if (root / subset).is_dir() else root
    if not folder.is_dir():
        raise DatasetError(f"{root}: no such folder")
    names = tuple(f"GOT-10k_{subset.capitalize()}_{i:06d}" for i in range(1, SIZE[subset] + 1))
    if (folder / "list.txt").is_file():
        names = read_names(folder / "list.txt")
    found, missing = split_found(names, lambda name: (folder / name / "groundtruth.txt").is_file())
    loaders = {name: partial(load, folder / name, f"got10k_{subset}") for name in found}
    return DataSet(f"got10k_{subset}", root, loaders, missing, SIZE[subset], "got10k")


def load(folder: Path, dataset: str = "got10k_val") -> Sequence:
    """Read one sequence, with the image size from `meta_info.ini` and visibility from `cover.label`."""
    boxes, frames = read_annotation(folder / "groundtruth.txt", (4,)), Frames(folder)
    if len(boxes) == 1:
        boxes = only_first(boxes, frames)
    visible = None
    if (folder / "cover.label").is_file():
        cover = read_table(folder / "cover.label", (1,), DatasetError)[:, 0]
        if len(cover) != len(boxes):
            raise DatasetError(f"{folder / 'cover.label'}: {len(cover)} rows for {len(boxes)} boxes")
        visible = cover > 0
    return Sequence(folder.name, dataset, boxes, frames, visible, size_wh=_size(folder / "meta_info.ini"))


def find_trackingnet(root: Path) -> DataSet:
    """The sequences with an annotation below `TEST/anno`; those without frames are missing, and so are those that lack
    for the benchmark's number, without a name."""
    folder = root / "TEST" if (root / "TEST").is_dir() else root
    if not (folder / "anno").is_dir():
        raise DatasetError(f"{folder}: has no folder anno; TrackingNet's test set is TEST/anno and TEST/frames")
    names = [path.stem for path in seen((folder / "anno").glob("*.txt"))]
    found, missing = split_found(names, lambda name: (folder / "frames" / name).is_dir())
    loaders = {name: partial(load_trackingnet, folder, name) for name in found}
    return DataSet("trackingnet", root, loaders, missing, TRACKINGNET_SIZE, "trackingnet")


def load_trackingnet(folder: Path, name: str) -> Sequence:
    """Read one sequence of TrackingNet's test set."""
    boxes, frames = read_annotation(folder / "anno" / f"{name}.txt", (4,)), Frames(folder / "frames" / name)
    if len(boxes) == 1:
        boxes = only_first(boxes, frames)
    return Sequence(name, "trackingnet", boxes, frames)


def only_first(boxes_xywh: np.ndarray, frames: Frames) -> np.ndarray:
    """The first box, and NaN for every other frame on disk."""
    return np.concatenate([boxes_xywh, np.full((len(frames.paths()) - 1, 4), np.nan)])


def _size(meta: Path) -> tuple[float, float] | None:
    """Width and height from a line `resolution: (1920, 1080)`; None where the file or the line is missing."""
    if not meta.is_file():
        return None
    match = re.search(r"resolution:\s*\((\d{1,6}),\s*(\d{1,6})\)", read_text(meta, DatasetError))
    return (float(match[1]), float(match[2])) if match else None
