"""What `ebmtrack datasets check` says: of a benchmark, of a training source, or of both where one name is both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ebmtrack.data.sources.checking import NAMES, Finding, check_source
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.datasets import DATASETS, locate, open_dataset


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
    yield from check_benchmark(name, locate(name, path))


def check_benchmark(name: str, root: Path) -> Iterator[Finding]:
    """Findings about a benchmark: how many sequences, which are missing, which cannot be read, which lack frames."""
    try:
        found = open_dataset(name, root)
    except DatasetError as error:
        yield Finding(str(error), damage=True)
        return
    frames = 0
    for sequence in found.names:
        try:
            frames += len(found.load(sequence).frame_paths())
        except DatasetError as error:
            yield Finding(str(error), damage=True)
    yield Finding(f"{name} benchmark: {len(found)} of {found.expected or len(found)} sequences, {frames} frames")
    if found.shortfall():
        yield Finding(f"{name} benchmark: {found.shortfall()}", damage=True)
    if not len(found):
        yield Finding(f"{found.root}: no sequence of {name}", damage=True)
