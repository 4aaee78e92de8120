"""The training sources by name: `open_source("got10k", "/data/got10k", split="train")`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ebmtrack.data.paths import data_path
from ebmtrack.data.sources.base import MEBIBYTE, ImageStore, Source
from ebmtrack.data.sources.coco import CocoSource
from ebmtrack.data.sources.got10k import GOT10kSource
from ebmtrack.data.sources.lasot import LaSOTSource
from ebmtrack.data.sources.packed import PackedSource
from ebmtrack.data.sources.synthetic import SyntheticSource
from ebmtrack.data.sources.trackingnet import ALL_SETS, TrackingNetSource
from ebmtrack.errors import ConfigError, DatasetError


def open_source(
    name: str, path: str | Path | None = None, split: str | None = None, exclude: str | Path | None = None
) -> Source:
    """Open a training source: lasot, got10k, trackingnet, coco, synthetic (cut-outs over backgrounds) or pack.

    path: its folder; by default that of `data_path`. split: lasot train, test or all; got10k train, val or test;
    trackingnet its sets, such as 0-3 or 0,5 (by default those that are there); coco train2017 or val2017.
    exclude: a file of sequences of GOT-10k to leave out. ConfigError, DatasetError.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown training source {name!r}: choose one of {', '.join(SOURCES)}")
    if exclude is not None and name != "got10k":
        raise ConfigError(f"only got10k leaves out sequences by a file, not {name}")
    if path is None and name in ("synthetic", "pack"):
        raise ConfigError(f"give the folder of the {name} source")
    root = Path(path) if path is not None else data_path(name)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    store = ImageStore(decoded_limit=128 * MEBIBYTE)
    if name == "got10k":
        return _got10k(root, split or "train", store, exclude)
    return SOURCES[name](root, split, store)


def _got10k(root: Path, split: str, store: ImageStore, exclude: str | Path | None) -> Source:
    """One split, in its folder or in `root` itself."""
    if split not in ("train", "val", "test"):
        raise ConfigError(f"GOT-10k has no split {split!r}; there are train, val, test")
    folder = root / split if (root / split).is_dir() else root
    return GOT10kSource(folder, store=store, exclude=Path(exclude) if exclude is not None else ())


def _lasot(root: Path, split: str | None, store: ImageStore) -> Source:
    return LaSOTSource(root, split or "train", store=store)


def sets_there(root: Path) -> list[int]:
    """The sets of TrackingNet that lie in `root`."""
    return [number for number in ALL_SETS if (root / f"TRAIN_{number}").is_dir()]


def _trackingnet(root: Path, split: str | None, store: ImageStore) -> Source:
    present = sets_there(root)
    if split is None and not present:
        raise DatasetError(f"{root}: no folder TRAIN_0 ... TRAIN_11; give the folder that holds them")
    return TrackingNetSource(root, _numbers(split) if split else present, store=store)


def _numbers(text: str) -> list[int]:
    """Sets from a text such as 0-3 or 0,5,7-9."""
    if not re.fullmatch(r"\d{1,2}(-\d{1,2})?(,\d{1,2}(-\d{1,2})?)*", text):
        raise ConfigError(f"sets {text!r}: write them as 0-3 or 0,5,7-9")
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    numbers = sorted({number for part in ends for number in range(part[0], part[-1] + 1)})
    if not numbers or numbers[-1] not in ALL_SETS:
        raise ConfigError(f"sets {text!r}: TrackingNet has the sets 0 to {ALL_SETS[-1]}")
    return numbers


def _coco(root: Path, split: str | None, store: ImageStore) -> Source:
    return CocoSource(root, split or "train2017", store=store)


def _synthetic(root: Path, split: str | None, store: ImageStore) -> Source:
    return SyntheticSource(root / "cutouts", root / "backgrounds", store=store)


def _pack(root: Path, split: str | None, store: ImageStore) -> Source:
    return PackedSource(root)


SOURCES: Mapping[str, Callable[..., Source]] = {
    "lasot": _lasot,
    "got10k": _got10k,
    "trackingnet": _trackingnet,
    "coco": _coco,
    "synthetic": _synthetic,
    "pack": _pack,
}
