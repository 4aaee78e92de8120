"""Training sources by name: `open_source("got10k", "/data/got10k", split="train")`."""

from __future__ import annotations

from pathlib import Path

from ebmtrack.data.store import PackedSource
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.image_store import MEBIBYTE, ImageStore
from ebmtrack.videos.paths import data_path, homes
from ebmtrack.videos.registry import DataSetInfo, datasets, find_info, register
from ebmtrack.videos.sequence import DataSet, existing_folder
from ebmtrack.videos.source import Source, VideoSource
from ebmtrack.videos.text import read_names


def open_source(
    name: str, path: str | Path | None = None, split: str | None = None, exclude: str | Path | None = None
) -> Source:
    """Open a training source.

    Args:
        name: A data set of the registry, such as lasot, got10k, trackingnet, coco or pack, a benchmark, or the path
            of a file that registers a data set.
        path: Its folder; by default that of `data_path`.
        split: lasot train, test, extension or all; got10k train, val, test, vottrain or votval; trackingnet its sets,
            such as 0-3 or 0,5 (by default those that are there); coco train2017, val2017, train2014 or val2014.
        exclude: A file of names of sequences to leave out, one a line.

    Raises:
        ConfigError: For an unknown name or split, and if nothing says where the data are.
        DatasetError: If data are missing or malformed.
    """
    info = find_info(name)
    if path is None and info.name not in homes():
        raise ConfigError(f"give the folder of the {info.name} source")
    root = existing_folder(Path(path) if path is not None else data_path(info.name))
    store = ImageStore(decoded_limit=128 * MEBIBYTE)
    if info.open_targets is not None:
        if exclude is not None:
            raise ConfigError(f"{info.name} has no sequences to leave out; give `exclude` for data sets of video alone")
        return info.open_targets(root, split, store)
    found = _sequences(info, root, split)
    if exclude is not None:
        found = found.without(read_names(Path(exclude)))
    if info.complete and found.missing:
        raise DatasetError(f"{root}: {found.shortfall(8)}; a list names them. Add them, or leave them out (exclude)")
    return VideoSource(found, info.name, store)


def _sequences(info: DataSetInfo, root: Path, split: str | None) -> DataSet:
    """Return the sequences of a split; those of the benchmark if training has no reader of its own."""
    if info.training is not None:
        return info.training(root, split or (info.splits[0] if info.splits else ""))
    if info.benchmark is None or split is not None:
        raise ConfigError(f"data set {info.name!r} cannot be trained on" + (" by splits" if info.benchmark else ""))
    return info.benchmark(root)


def _open_pack(root: Path, split: str | None, store: ImageStore) -> Source:
    if split is not None:
        raise ConfigError(f"a pack has no splits, got {split!r}; leave it out")
    return PackedSource(root)


if "pack" not in datasets():
    register(DataSetInfo("pack", open_targets=_open_pack))
