"""VOT-style folders: `<root>/list.txt`, `<root>/<name>/{color/00000001.jpg or 00000001.jpg, groundtruth.txt}`.

A row of the ground truth is a box x, y, w, h, a polygon, or (since 2020) a mask `m x0,y0,w,h,run,run,..`, whose runs
count pixels outside and inside by turns, row by row. The box of a mask or polygon is the one around it. Files
`<tag>.tag` or `<tag>.label` flag frames; a sequence has the attribute `<tag>` if a frame is flagged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.videos.folder import image_folder
from ebmtrack.videos.sequence import (
    DataSet,
    Frames,
    Sequence,
    existing_folder,
    split_found,
    visible_paths,
)
from ebmtrack.videos.text import (
    finite_boxes,
    polygon_to_xywh,
    read_flags,
    read_names,
    read_text,
    split_lines,
    split_words,
    to_numbers,
    with_decimal_points,
)

MOST_PIXELS = 1 << 26


def find(root: Path) -> DataSet:
    """Find the sequences that `list.txt` names, in `root` or in `root/sequences`; without a list, the folders."""
    base = existing_folder(root / "sequences" if (root / "sequences").is_dir() else root)
    if (base / "list.txt").is_file():
        names = read_names(base / "list.txt")
    else:
        names = tuple(p.name for p in visible_paths(base.iterdir()) if (p / "groundtruth.txt").is_file())
    found, missing = split_found(names, lambda name: (base / name / "groundtruth.txt").is_file())
    loaders = {name: partial(load, base / name) for name in found}
    return DataSet("vot", root, loaders, missing, len(names), "ope")


def load(folder: Path) -> Sequence:
    """Read one sequence."""
    boxes = read_regions(folder / "groundtruth.txt")
    tags = [p for p in visible_paths(folder.iterdir()) if p.suffix in (".tag", ".label")]
    attributes = tuple(tag.stem for tag in tags if tag.stat().st_size and read_flags(tag).any())
    frames, annotation = Frames(image_folder(folder)), folder / "groundtruth.txt"
    return Sequence(folder.name, "vot", boxes, frames, attributes=attributes, annotation=annotation)


def read_regions(path: Path) -> np.ndarray:
    """Read the boxes (N, 4) around the regions of a VOT file. Raises DatasetError naming file and line."""
    lines = split_lines(read_text(path))
    if not lines:
        raise DatasetError(f"{path}: is empty")
    lines = with_decimal_points(lines, lambda count: count == 4 or (count >= 6 and count % 2 == 0), path)
    return finite_boxes(np.stack([_region(line, path, i) for i, line in enumerate(lines, 1)]), path)


def _region(line: str, path: Path, number: int) -> np.ndarray:
    """Return the box (4,) around one region."""
    words = split_words(line.strip().removeprefix("m"))
    values = to_numbers([words], path, first_line=number)
    if line.strip().startswith("m"):
        return _mask_box(values[0], f"{path}, line {number}")
    if values.shape[1] == 4:
        return values[0]
    if values.shape[1] < 6 or values.shape[1] % 2:
        raise DatasetError(f"{path}, line {number}: {values.shape[1]} numbers are neither a box nor a polygon")
    return polygon_to_xywh(values)[0]


def _mask_box(values: np.ndarray, where: str) -> np.ndarray:
    """Return the box around a run-length coded mask; NaN for an empty one."""
    if len(values) < 4 or not np.isfinite(values).all() or (values % 1).any() or (values[2:] < 0).any():
        raise DatasetError(f"{where}: a mask is x0, y0, width, height and runs, all whole numbers")
    (x0, y0), (width, height) = values[:2], (int(v) for v in values[2:4])
    runs = values[4:]
    if width * height > MOST_PIXELS or np.minimum(runs, 2.0 * MOST_PIXELS).sum() > width * height:
        raise DatasetError(f"{where}: runs do not fit into a mask of {width} x {height}")
    ends = np.cumsum(runs).astype(np.int64)
    starts = ends - runs.astype(np.int64)
    first, last = starts[1::2][runs[1::2] > 0], ends[1::2][runs[1::2] > 0] - 1
    if not len(first):
        return np.full(4, np.nan)
    top, bottom = first // width, last // width
    left = np.where(top < bottom, 0, first % width).min()  # a run that goes on in the next row touches both sides
    right = np.where(top < bottom, width - 1, last % width).max()
    return np.array([left + x0, top.min() + y0, right - left + 1, bottom.max() - top.min() + 1], np.float64)
