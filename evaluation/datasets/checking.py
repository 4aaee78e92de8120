"""What `ebmtrack datasets check` says: of a benchmark, of a training source, or of both where one name is both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.checking import NAMES, Finding, check_source
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.datasets import DATASETS, locate, open_dataset
from ebmtrack.evaluation.runner import read_rgb


def check(name: str, path: Path | None = None, every_frame: bool = False) -> Iterator[Finding]:
    """Findings about a data set in `path`, by default where the settings say; ConfigError for an unknown name."""
    if name in NAMES:
        if path is None and name in DATASETS:
            path = locate(name, None)
        yield from check_source(name, path, every_frame)
        if name != "trackingnet" or path is None or not (path / "TEST").is_dir():
            return
    elif name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}: choose one of {', '.join(sorted({*NAMES, *DATASETS}))}")
    yield from check_benchmark(name, locate(name, path), every_frame)


def check_benchmark(name: str, root: Path, every_frame: bool = False) -> Iterator[Finding]:
    """Findings about a benchmark: how many sequences, which are missing, which cannot be read, which lack frames.

    The first and last frame of each are decoded, or all of them; the first box must lie in the first frame.
    """
    try:
        found = open_dataset(name, root)
    except DatasetError as error:
        yield Finding(str(error), damage=True)
        return
    frames = 0
    for sequence in found.names:
        try:
            loaded = found.load(sequence)
            paths = loaded.frame_paths()
        except DatasetError as error:
            yield Finding(str(error), damage=True)
            continue
        frames += len(paths)
        yield from _check_frames(paths if every_frame else paths[:1] + paths[1:][-1:], loaded.boxes_xywh[0])
    yield Finding(f"{name} benchmark: {len(found)} of {found.expected or len(found)} sequences, {frames} frames")
    if found.shortfall():
        yield Finding(f"{name} benchmark: {found.shortfall()}", damage=True)
    if not len(found):
        yield Finding(f"{found.root}: no sequence of {name}", damage=True)


def _check_frames(paths: list[Path], first_box_xywh: np.ndarray) -> Iterator[Finding]:
    """Damage to the frames at `paths`, and a first box that lies outside of the first of them."""
    for number, path in enumerate(paths):
        try:
            height, width = read_rgb(path).shape[:2]
        except DatasetError as error:
            yield Finding(str(error), damage=True)
            continue
        x, y, w, h = first_box_xywh
        if number == 0 and (x >= width or y >= height or x + w <= 0 or y + h <= 0):
            text = f"{path}: the first box ({x:g}, {y:g}, {w:g}, {h:g}) lies outside of it, which is {width} x {height}"
            yield Finding(text, damage=True)
