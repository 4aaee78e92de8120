"""The findings of `ebmtrack datasets check`: how much of a data set is there, what is missing, what is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebmtrack.data.catalogue import open_source
from ebmtrack.data.pool import FOLDERS_OF_KINDS, kinds_in, no_box
from ebmtrack.data.store import PackedSource
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import turned_note
from ebmtrack.videos import folder, got10k, lasot, trackingnet
from ebmtrack.videos.coco import splits_in
from ebmtrack.videos.image_store import ImageStore
from ebmtrack.videos.opening import locate, open_dataset
from ebmtrack.videos.paths import data_path, homes
from ebmtrack.videos.registry import find_info
from ebmtrack.videos.sequence import Sequence
from ebmtrack.videos.source import Source, VideoSource
from ebmtrack.videos.synthetic import SyntheticSource
from ebmtrack.videos.text import read_names
from ebmtrack.words import counted


@dataclass(frozen=True)
class Finding:
    """A line about a data set, and its kind: information, something that is not there, or damage."""

    text: str
    kind: str = "info"  # info, incomplete or damage

    @property
    def line(self) -> str:
        """The line that `ebmtrack datasets check` prints."""
        return {"info": "", "incomplete": "incomplete  ", "damage": "DAMAGED  "}[self.kind] + self.text


def check(name: str, path: Path | None = None, every_frame: bool = False) -> Iterator[Finding]:
    """Yield findings about a data set: as a training source, as a benchmark, or as both if one name is both.

    Annotations and the first and last frame of each sequence are read, and that all others exist is looked up.

    Args:
        name: Its name.
        path: Its folder; by default where the settings say.
        every_frame: Decode every frame.

    Raises:
        ConfigError: For an unknown name.
    """
    info = find_info(name)
    if info.name not in _CHECKS:
        root = locate(info.name, path, "which folder? ebmtrack datasets check folder PATH")
        yield from check_benchmark(info.name, root, every_frame)
        return
    if path is None and info.benchmark is not None:
        path = locate(info.name, None)
    yield from check_source(info.name, path, every_frame)
    if info.name == "trackingnet" and path is not None and (path / "TEST").is_dir():
        yield from check_benchmark(info.name, path, every_frame)


def check_source(name: str, path: str | Path | None = None, every_frame: bool = False) -> Iterator[Finding]:
    """Yield findings about a training source in `path` (by default its `data_path`): all splits that are there.

    Args:
        name: A training source.
        path: Its folder.
        every_frame: Decode every frame.

    Raises:
        ConfigError: If nothing says where it is.
    """
    if path is None and name not in homes():
        raise ConfigError(f"give the folder of the {name} data")
    root = Path(path) if path is not None else data_path(name)
    if not root.is_dir():
        yield Finding(f"{root}: no such folder", "damage")
        return
    try:
        yield from _CHECKS[name](root, every_frame)
    except DatasetError as error:
        yield Finding(str(error), "damage")


def check_benchmark(name: str, root: Path, every_frame: bool = False) -> Iterator[Finding]:
    """Yield findings about a benchmark: its number of sequences, those that are missing, damaged, or lack frames.

    The first and last frame of each are decoded, or all of them; the first box must be inside the first frame. Rows
    without a target are counted.

    Args:
        name: A benchmark.
        root: Its folder.
        every_frame: Decode every frame.
    """
    try:
        found = open_dataset(name, root)
    except DatasetError as error:
        yield Finding(str(error), "damage")
        return
    frames = 0
    for sequence in found.names:
        try:
            loaded = found.load(sequence)
            paths = loaded.frame_paths()
        except DatasetError as error:
            yield Finding(str(error), "damage")
            continue
        frames += len(paths)
        yield from _check_rows(loaded)
        yield from _check_frames(paths if every_frame else paths[:1] + paths[1:][-1:], loaded.boxes_xywh[0])
    yield Finding(f"{found.name} benchmark: {len(found)} of {found.expected or len(found)} sequences, {frames} frames")
    if found.shortfall():
        yield Finding(f"{found.name} benchmark: {found.shortfall()}", "incomplete")
    if not len(found):
        yield Finding(f"{found.root}: no sequence of {found.name}", "damage")
    if found.name == "folder":
        yield from _left_out(found.root)


def _left_out(root: Path, but: Collection[str] = ()) -> Iterator[Finding]:
    """Yield a line for each folder of pictures without labels beside own sequences."""
    yield from (Finding(line, "incomplete") for line in folder.left_out(root, but))


def _check_rows(sequence: Sequence) -> Iterator[Finding]:
    """Yield a line that counts the rows with zero or negative sizes, which mean "no target"."""
    with np.errstate(invalid="ignore"):
        negative = (sequence.boxes_xywh[:, 2:] < 0).any(axis=1)
        empty = (sequence.boxes_xywh[:, 2:] == 0).any(axis=1) & ~negative
    counts = [(negative, "a negative size"), (empty, "a size of zero")]
    parts = [
        f"{counted(int(rows.sum()), 'row')} with {what} (the first in line {int(rows.argmax()) + 1})"
        for rows, what in counts
        if rows.any()
    ]
    if parts:
        where = sequence.annotation or sequence.name
        yield Finding(f"{where}: {' and '.join(parts)}; they count as not annotated under our own protocol, `ope`")


def _check_frames(paths: list[Path], first_box_xywh: np.ndarray) -> Iterator[Finding]:
    """Yield damage to the frames at `paths`, and a first box that is outside of the first of them."""
    store = ImageStore()
    for number, path in enumerate(paths):
        try:
            height, width = store.rgb(path).shape[:2]
        except DatasetError as error:
            yield Finding(str(error), "damage")
            continue
        if number == 0:
            yield from _check_box(str(path), (width, height), first_box_xywh)


def _check_box(path: str, size_wh: tuple[int, int], box_xywh: np.ndarray) -> Iterator[Finding]:
    """Yield damage if the first box of a sequence is outside of its frame at `path`."""
    (x, y, w, h), (width, height) = box_xywh, size_wh
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        text = f"{path}: the first box ({x:g}, {y:g}, {w:g}, {h:g}) is outside of it, which is {width} x {height}"
        yield Finding("; ".join(filter(None, [text, turned_note(path)])), "damage")


def _check_first_boxes(source: VideoSource) -> Iterator[Finding]:
    """Yield damage for each target whose first visible box is outside of its frame."""
    for index in range(len(source)):
        with contextlib.suppress(DatasetError):  # reported by `faults`
            for frame in np.flatnonzero(source.visible(index))[:1].tolist():
                size_wh, box = source.frame_size_wh(index, frame), source.boxes_xywh(index)[frame]
                yield from _check_box(source.frame_file(index, frame), size_wh, box)


def _check(title: str, source: Source, every_frame: bool) -> Iterator[Finding]:
    """Yield counts, then faults."""
    frames, visible, hidden = 0, 0, []
    for index in range(len(source)):
        try:
            is_visible = source.visible(index)
        except DatasetError:  # reported below
            continue
        frames, visible = frames + len(is_visible), visible + int(is_visible.sum())
        if isinstance(source, VideoSource) and not is_visible.any():
            hidden.append(f"{source.dataset.root}, {source.target_name(index)}: visible in none of its frames")
    counts = f"{counted(len(source), 'target')}, {counted(frames, 'frame')}"
    yield Finding(f"{title}: {counts}, the target visible in {visible}")
    for text in hidden:
        yield Finding(f"{text}, by its boxes and labels: correct these, or take it out", "damage")
    for fault in source.faults(every_frame):
        yield Finding(fault, "damage")


def _check_got10k(root: Path, every_frame: bool) -> Iterator[Finding]:
    splits = [split for split in ("train", "val", "test") if (root / split).is_dir()]
    for split in splits or ["train"]:
        place = root / split if splits else root
        title = f"got10k {split}" if splits else "got10k"
        try:
            found = got10k.find(place, split)
            listed = read_names(place / "list.txt") if (place / "list.txt").is_file() else found.names
            if splits and len(listed) != got10k.SIZES[split]:
                yield Finding(f"{title}: {len(listed)} sequences, {got10k.SIZES[split]} were published")
            lost = [name for name in listed if not (place / name).is_dir()]
            if lost:
                text = f"{place}: {len(lost)} sequences that list.txt names are missing: {_few(lost)}"
                yield Finding(text, "incomplete")
            yield from _check(title, VideoSource(found.without(lost)), every_frame)
        except DatasetError as error:
            yield Finding(str(error), "damage")


def _check_lasot(root: Path, every_frame: bool) -> Iterator[Finding]:
    source = VideoSource(lasot.find(root, "all"))
    present = {source.target_name(index) for index in range(len(source))}
    testing = set(lasot.NAMES["test"])
    classes = {name.rpartition("-")[0] for name in present}
    whole = {f"{kind}-{number}" for kind in classes for number in range(1, lasot.IN_CLASS + 1)}
    absent = {name.rpartition("-")[0] for name in testing} - classes
    if absent:
        yield Finding(f"lasot: {len(absent)} classes are not there: {_few(absent)}")
    if whole - present:
        lost = whole - present
        yield Finding(f"lasot: {len(lost)} sequences of the classes that are there are not: {_few(lost)}")
    tested = len(present & testing)
    yield Finding(f"lasot: {len(present) - tested} sequences to train on, {tested} to test on")
    yield from _check("lasot", source, every_frame)


def _check_trackingnet(root: Path, every_frame: bool) -> Iterator[Finding]:
    there = trackingnet.sets_in(root)
    if len(there) < len(trackingnet.ALL_SETS):
        lost = {f"TRAIN_{number}" for number in trackingnet.ALL_SETS if number not in there}
        yield Finding(f"trackingnet: {len(lost)} of {len(trackingnet.ALL_SETS)} sets are not there: {_few(lost)}")
    if not there and not (root / "TEST").is_dir():
        yield Finding(f"{root}: no set of TrackingNet; give the folder that holds TRAIN_0", "damage")
    for number in there:
        try:
            yield from _check(f"trackingnet {number}", open_source("trackingnet", root, str(number)), every_frame)
        except DatasetError as error:
            yield Finding(str(error), "damage")


def _check_coco(root: Path, every_frame: bool) -> Iterator[Finding]:
    for split in splits_in(root) or ["train2017"]:
        try:
            yield from _check(f"coco {split}", open_source("coco", root, split), every_frame)
        except DatasetError as error:
            yield Finding(str(error), "damage")


def _check_synthetic(root: Path, every_frame: bool) -> Iterator[Finding]:
    source = SyntheticSource(root / "cutouts", root / "backgrounds")
    cutouts, backgrounds = source.files
    yield Finding(f"synthetic: {len(cutouts)} cut-outs, {len(backgrounds)} backgrounds")
    yield from (Finding(fault, "damage") for fault in source.faults(every_frame))


def _check_pack(root: Path, every_frame: bool) -> Iterator[Finding]:
    yield from _check("pack", PackedSource(root, verify=True), every_frame)


def _check_pool(root: Path, every_frame: bool) -> Iterator[Finding]:
    """Yield findings about each kind of data in a training folder (`pool.kinds_in`)."""
    for kind, open_kind in kinds_in(root).items():
        try:
            if kind == "synthetic":
                yield from _check_synthetic(root, every_frame)
            else:
                source = open_kind()
                yield from _check(kind, source, every_frame)
                if not len(source):
                    yield Finding(no_box(root), "damage")
                if isinstance(source, VideoSource):
                    yield from _check_first_boxes(source)
                    if not (root / "got10k").is_dir():
                        yield from _left_out(root, FOLDERS_OF_KINDS)
        except DatasetError as error:
            yield Finding(str(error), "damage")


def _few(names: Collection[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


_CHECKS: Mapping[str, Callable[[Path, bool], Iterator[Finding]]] = {
    "lasot": _check_lasot,
    "got10k": _check_got10k,
    "trackingnet": _check_trackingnet,
    "coco": _check_coco,
    "synthetic": _check_synthetic,
    "pack": _check_pack,
    "pool": _check_pool,
}
