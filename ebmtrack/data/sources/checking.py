"""What `ebmtrack datasets check` says of a training source: how much is there, what is missing, what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ebmtrack.data.paths import HOMES, data_path
from ebmtrack.data.sources.annotations import read_names
from ebmtrack.data.sources.base import Source
from ebmtrack.data.sources.catalogue import open_source, sets_there
from ebmtrack.data.sources.coco import CocoSource
from ebmtrack.data.sources.got10k import GOT10kSource
from ebmtrack.data.sources.lasot import LaSOTSource
from ebmtrack.data.sources.packed import PackedSource
from ebmtrack.data.sources.pool import STILLS
from ebmtrack.data.sources.synthetic import SyntheticSource
from ebmtrack.data.sources.trackingnet import ALL_SETS
from ebmtrack.errors import ConfigError, DatasetError

LASOT_IN_CLASS = 20  # sequences of each class (Fan et al., CVPR 2019)
PUBLISHED = {"got10k train": 9335, "got10k val": 180, "got10k test": 180}  # sequences (Huang et al., PAMI 2019)


@dataclass(frozen=True)
class Finding:
    """A line about a data set, and whether it tells of damage."""

    text: str
    damage: bool = False


def check_source(name: str, path: str | Path | None = None, every_frame: bool = False) -> Iterator[Finding]:
    """Findings about the training source `name` in `path` (by default its `data_path`): all splits that are there.

    Annotations and the first and last frame of each sequence are read, and that all others exist is looked up;
    `every_frame` reads all. ConfigError for an unknown name.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown training source {name!r}: choose one of {', '.join(NAMES)}")
    if path is None and name not in HOMES:
        raise ConfigError(f"give the folder of the {name} data")
    root = Path(path) if path is not None else data_path(name)
    if not root.is_dir():
        yield Finding(f"{root}: no such folder", damage=True)
        return
    try:
        yield from _CHECKS[name](root, every_frame)
    except DatasetError as error:
        yield Finding(str(error), damage=True)


def _check(title: str, source: Source, every_frame: bool) -> Iterator[Finding]:
    """Counts, then faults."""
    frames = visible = 0
    for index in range(len(source)):
        try:
            shown = source.visible(index)
        except DatasetError:  # told below
            continue
        frames, visible = frames + len(shown), visible + int(shown.sum())
    yield Finding(f"{title}: {len(source)} targets, {frames} frames, the target visible in {visible}")
    for fault in source.faults(every_frame):
        yield Finding(fault, damage=True)


def _check_got10k(root: Path, every_frame: bool) -> Iterator[Finding]:
    splits = {f"got10k {split}": root / split for split in ("train", "val", "test") if (root / split).is_dir()}
    for title, folder in (splits or {"got10k": root}).items():
        lost = set()
        if (folder / "list.txt").is_file():
            listed = read_names(folder / "list.txt")
            lost = {name for name in listed if not (folder / name).is_dir()}
            if title in PUBLISHED and len(listed) != PUBLISHED[title]:
                yield Finding(f"{title}: list.txt names {len(listed)} sequences, {PUBLISHED[title]} were published")
        if lost:
            yield Finding(f"{folder}: {len(lost)} sequences that list.txt names are missing: {_few(lost)}", damage=True)
        try:
            yield from _check(title, GOT10kSource(folder, exclude=lost), every_frame)
        except DatasetError as error:
            yield Finding(str(error), damage=True)


def _check_lasot(root: Path, every_frame: bool) -> Iterator[Finding]:
    testing = read_names(root / "testing_set.txt") if (root / "testing_set.txt").is_file() else []
    if not testing:
        yield Finding(f"{root / 'testing_set.txt'}: missing, so training sequences cannot be told", damage=True)
    source = LaSOTSource(root, "all")
    present = {source.target_name(index) for index in range(len(source))}
    classes = {name.rpartition("-")[0] for name in present}
    whole = {f"{kind}-{number}" for kind in classes for number in range(1, LASOT_IN_CLASS + 1)}
    absent = {name.rpartition("-")[0] for name in testing} - classes
    if absent:
        yield Finding(f"lasot: {len(absent)} classes are not there: {_few(absent)}")
    if whole - present:
        yield Finding(
            f"lasot: {len(whole - present)} sequences of the classes that are there are not: {_few(whole - present)}"
        )
    tested = len(present & set(testing))
    yield Finding(f"lasot: {len(present) - tested} sequences to train on, {tested} to test on")
    yield from _check("lasot", source, every_frame)


def _check_trackingnet(root: Path, every_frame: bool) -> Iterator[Finding]:
    there = sets_there(root)
    if len(there) < len(ALL_SETS):
        lost = {f"TRAIN_{number}" for number in ALL_SETS if number not in there}
        yield Finding(f"trackingnet: {len(lost)} of {len(ALL_SETS)} sets are not there: {_few(lost)}")
    if not there and not (root / "TEST").is_dir():
        yield Finding(f"{root}: no set of TrackingNet; give the folder that holds TRAIN_0", damage=True)
    for number in there:
        try:
            yield from _check(f"trackingnet {number}", open_source("trackingnet", root, str(number)), every_frame)
        except DatasetError as error:
            yield Finding(str(error), damage=True)


def _check_coco(root: Path, every_frame: bool) -> Iterator[Finding]:
    splits = [
        split
        for split in ("train2017", "val2017")
        if (root / split).is_dir() or (root / "annotations" / f"instances_{split}.json").is_file()
    ]
    for split in splits or ["train2017"]:
        try:
            yield from _check(f"coco {split}", open_source("coco", root, split), every_frame)
        except DatasetError as error:
            yield Finding(str(error), damage=True)


def _check_synthetic(root: Path, every_frame: bool) -> Iterator[Finding]:
    source = SyntheticSource(root / "cutouts", root / "backgrounds")
    cutouts, backgrounds = source.material
    yield Finding(f"synthetic: {cutouts} cut-outs, {backgrounds} backgrounds")
    yield from (Finding(fault, damage=True) for fault in source.faults(every_frame))


def _check_pack(root: Path, every_frame: bool) -> Iterator[Finding]:
    yield from _check("pack", PackedSource(root), every_frame)


def _check_pool(root: Path, every_frame: bool) -> Iterator[Finding]:
    """The three parts of the small pool (`pool.open_pool`)."""
    yield from _check("video", GOT10kSource(root / "got10k" / "train"), every_frame)
    yield from _check("stills", CocoSource(root / "coco", **STILLS), every_frame)
    yield from _check_synthetic(root, every_frame)


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
NAMES = tuple(_CHECKS)
