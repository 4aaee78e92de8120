"""Readers of benchmark sequences, by name: `open_dataset("otb100", root)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ebmtrack.evaluation.datasets import folder
from ebmtrack.evaluation.datasets.base import DataSet, Frames, Sequence

from ebmtrack.errors import ConfigError

__all__ = ["DATASETS", "DataSet", "Frames", "Sequence", "open_dataset"]

DATASETS: Mapping[str, Callable[[Path], DataSet]] = {
    "folder": folder.find,
}


def open_dataset(name: str, root: str | os.PathLike) -> DataSet:
    """The data set of that name under `root`. Raises ConfigError for an unknown name, DatasetError for the
    rest."""
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name](Path(root))
