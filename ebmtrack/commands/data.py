"""Verbs about data on disk: datasets, paths, pack, cut-outs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ebmtrack.commands.options import Flat, Positional
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.errors import ConfigError
from ebmtrack.names import match_spelling, plain
from ebmtrack.words import counted

if TYPE_CHECKING:
    from ebmtrack.videos.source import Source


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """List the benchmarks found below a folder, or check one data set: counts, what is missing, what is damaged.

    Attributes:
        action: list benchmarks, or check a data set; what is damaged gives exit code 1.
        name: The data set to check: folder (any directory of sequences), lasot, got10k, trackingnet, coco, pool, pack,
            a benchmark such as otb100, or one of labelled images: utkface, utkface-h5, biwi, steering, cell200.
        path: Its folder; by default that which `ebmtrack paths` says.
        root: A folder that holds data sets, to be listed, or to check one of them; by default that in EBMTRACK_DATA.
        every_frame: Read every frame when checking, not only the first and the last of a sequence.
    """

    action: Positional[Literal["list", "check"]] = "list"
    name: Annotated[Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    path: Annotated[Positional[Path | None], tyro.conf.arg(metavar="PATH")] = None
    root: Path | None = None
    every_frame: bool = False

    def run(self) -> int:
        """List or check; return 1 if the data set is damaged."""
        return self._check() if self.action == "check" else self._list()

    def _list(self) -> int:
        """Print the benchmarks below the folder."""
        from ebmtrack.videos.opening import describe_datasets
        from ebmtrack.videos.paths import data_root

        place = None if self.root else data_root()
        root = self.root or (place.path if place else None)
        if root is None:
            raise ConfigError("give --root, or set EBMTRACK_DATA to the folder that holds your data sets")
        print(describe_datasets(root), end="")
        return 0

    def _check(self) -> int:
        """Print the findings about a data set."""
        from ebmtrack.data.checking import check
        from ebmtrack.regression.examples import LAYOUTS

        if self.path is not None and self.root is not None:
            raise ConfigError("the folder is given twice: leave out PATH or --root")
        if self.name is None:
            raise ConfigError("which data set? For example: ebmtrack datasets check got10k /data/got10k")
        if (name := match_spelling(self.name, LAYOUTS)) in LAYOUTS:
            return self._check_labelled_images(name)
        damaged = 0
        for finding in check(self.name, self._folder(self.name), self.every_frame):
            damaged += finding.kind != "info"
            print(finding.line)
        print(counted(damaged, "fault") if damaged else "no fault found")
        return 1 if damaged else 0

    def _folder(self, name: str) -> Path | None:
        """Return the folder of a data set: PATH, or its place in --root; None if neither is given."""
        from ebmtrack.videos.opening import home_below

        return home_below(name, self.root) if self.path is None and self.root is not None else self.path

    def _check_labelled_images(self, name: str) -> int:
        """Print the findings about a data set of regression, all of whose images are read."""
        from ebmtrack.errors import DatasetError
        from ebmtrack.regression.examples import findings
        from ebmtrack.videos.opening import folders_called

        folder = self.path
        if folder is None and self.root is not None:
            inside = folders_called({plain(name)}, self.root) if self.root.is_dir() else []
            folder = (inside or [self.root])[0]
        if folder is None:
            raise ConfigError(f"where is it? For example: ebmtrack datasets check {name} /data/{name}")
        try:
            for line in findings(name, folder):
                print(line)
        except DatasetError as error:
            print(f"DAMAGED  {error}\n1 fault")
            return 1
        print("no fault found")
        return 0


@dataclass(frozen=True)
class Paths:
    """Show the folder that each data set would be read from, who says so, and whether it is there."""

    def run(self) -> None:
        """Print the table."""
        from ebmtrack.videos.paths import describe_paths

        print(describe_paths())


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Write a training source into a pack: target-centred crops with boxes; interrupted, it goes on where it was.

    Attributes:
        name: lasot, got10k, trackingnet, coco, synthetic, pack, pool (a training folder: a pack of each kind), or the
            file of a data set.
        path: Folder of the source.
        out: Folder of the pack.
        split: train, val, test or all; of COCO train2017 or val2017; of TrackingNet its sets, such as 0-3.
        exclude: File of sequences to leave out.
        part: Of a pool: what is trained on, what is held back, or all.
        clips: Number of the pool's compositions.
        seed: Seed of the compositions.
        threads: Threads that read and cut.
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="SOURCE")]
    path: Annotated[Positional[Path], tyro.conf.arg(metavar="PATH")]
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")]
    kept: Flat[PackSettings] = field(default_factory=PackSettings)
    split: str | None = None
    exclude: Path | None = None
    part: Literal["train", "validation", "all"] = "train"
    clips: int = 2000
    seed: int = 0
    threads: int | None = None

    def run(self) -> None:
        """Write the packs and print what they hold."""
        from ebmtrack.data.packing import write_pack

        exclude = str(self.exclude) if self.exclude else None
        origin = {"path": str(self.path.resolve()), "split": self.split, "exclude": exclude}
        for place, source in self._sources().items():
            out = self.out / place
            facts = write_pack(source, out, self.kept, self.threads, progress=True, origin=origin)
            megabytes = facts["bytes"] / 1e6
            print(f"{facts['frames']} crops of {facts['targets']} targets, {megabytes:.1f} MB, are in {out}")
            for line in facts["left_out"]:
                print(f"left out: {line}")

    def _sources(self) -> Mapping[str, Source]:
        """Return the sources to pack, each with its folder below `out`."""
        from ebmtrack.data.catalogue import open_source
        from ebmtrack.data.pool import open_training_folder

        if self.name == "pool":
            return open_training_folder(self.path, self.part, seed=self.seed, clips=self.clips)
        return {"": open_source(self.name, self.path, self.split, self.exclude)}


@dataclass(frozen=True, kw_only=True)
class CutOuts:
    """Cut objects out of a pool's photographs and video by their boxes, as material for compositions.

    Attributes:
        path: Folder of the pool, or of own sequences.
        out: Folder of the cut-outs; by default PATH/cutouts. Files that are there stay.
        least_side: Of a box, in pixels.
        frames: Frames of a video that are tried.
    """

    path: Annotated[Positional[Path], tyro.conf.arg(metavar="PATH")]
    out: Path | None = None
    least_side: float = 48.0
    frames: int = 2

    def run(self) -> None:
        """Write the cut-outs and print their number."""
        from ebmtrack.data.cutouts import write_cutouts
        from ebmtrack.data.pool import open_training_folder
        from ebmtrack.progress import progress_bar

        out, tried, kept = self.out or self.path / "cutouts", 0, 0
        for name, source in open_training_folder(self.path, kinds=("video", "stills")).items():
            files = write_cutouts(source, out, self.least_side, self.frames)
            for file in progress_bar(files, name, unit=" boxes"):
                tried, kept = tried + 1, kept + (file is not None)
        print(f"{kept} cut-outs of {tried} boxes" + (f" are in {out}" if kept else ": nothing was written"))
