"""TrackingNet (Mueller et al., ECCV 2018): sets TRAIN_0 .. TRAIN_11 and TEST of annotation files and frames.

`<root>/TRAIN_<set>/{anno/<name>.txt, frames/<name>/0.jpg ..}`; frames of the training sets may still be zipped, as
zips/<name>.zip. Of the test set only the first box is public: the other rows become NaN, and scores come from the
benchmark's server.
"""

from __future__ import annotations

import functools
import os
import re
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, only_first, split_found, visible_paths
from ebmtrack.videos.text import read_boxes

ALL_SETS = tuple(range(12))
TEST_SIZE = 511


def find(root: Path, split: str = "") -> DataSet:
    """Find the sequences of some training sets, such as "0-3" or "0,5,7-9"; by default of those that are there.

    Raises:
        ConfigError: For sets that cannot be.
        DatasetError: If a set is missing.
    """
    sets = numbers(split) if split else sets_in(root)
    if not sets:
        raise DatasetError(f"{root}: no folder TRAIN_0 ... TRAIN_11; give the folder that holds them")
    places: dict[str, Path] = {}
    for number in sets:
        anno = existing_folder(root / f"TRAIN_{number}" / "anno", f"the annotation of set {number} is missing")
        names = [path.stem for path in visible_paths(anno.glob("*.txt"))]
        if not names:
            raise DatasetError(f"{anno}: no annotation file; fetch the set's archive again")
        twice = next((name for name in names if name in places), None)
        if twice is not None:
            raise DatasetError(f"{anno / twice}.txt: set {places[twice].name} has a sequence of that name, too")
        places |= dict.fromkeys(names, anno.parent)
    loaders = {name: partial(load, folder, name) for name, folder in places.items()}
    own_files, own_frames = partial(_annotation_files, places), partial(_frames_of, places)
    return DataSet("trackingnet", root, loaders, annotation_files=own_files, frames_of=own_frames)


def find_test(root: Path) -> DataSet:
    """Find the sequences with an annotation below `TEST/anno`.

    Those without frames are missing, and so are those that lack for the benchmark's number, without a name.
    """
    folder = root / "TEST" if (root / "TEST").is_dir() else root
    anno = existing_folder(folder / "anno", "missing; TrackingNet's test set is TEST/anno and TEST/frames")
    names = [path.stem for path in visible_paths(anno.glob("*.txt"))]
    found, missing = split_found(names, lambda name: (folder / "frames" / name).is_dir())
    loaders = {name: partial(load, folder, name) for name in found}
    return DataSet("trackingnet", root, loaders, missing, TEST_SIZE, "trackingnet")


def is_known(name: str) -> bool:
    """Return whether a sequence can have this name: a video's 11 letters on YouTube and the target's number."""
    return re.fullmatch(r"[A-Za-z0-9_-]{11}_\d+", name) is not None


def load(folder: Path, name: str) -> Sequence:
    """Read one sequence of the set in `folder`."""
    path = folder / "anno" / f"{name}.txt"
    boxes, frames = read_boxes(path, (4,)), _frames(folder, name)
    if len(boxes) == 1 and folder.name == "TEST":
        boxes = only_first(boxes, frames)
    return Sequence(name, "trackingnet", boxes, frames, annotation=path)


def sets_in(root: Path) -> list[int]:
    """Return the numbers of the training sets in `root`."""
    return [number for number in ALL_SETS if (root / f"TRAIN_{number}").is_dir()]


def numbers(text: str) -> list[int]:
    """Return the sets that a text such as 0-3 or 0,5,7-9 names. Raises ConfigError."""
    if not re.fullmatch(r"\d{1,2}(-\d{1,2})?(,\d{1,2}(-\d{1,2})?)*", text):
        raise ConfigError(f"sets {text!r}: write them as 0-3 or 0,5,7-9")
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    found = sorted({number for part in ends for number in range(part[0], part[-1] + 1)})
    if not found or found[-1] not in ALL_SETS:
        raise ConfigError(f"sets {text!r}: TrackingNet has the sets 0 to {ALL_SETS[-1]}")
    return found


@dataclass(frozen=True)
class MaybeZippedFrames(Frames):
    """Frames of a folder that may still be in an archive: single ones are then read from it."""

    archive: Path = Path()

    def file(self, index: int) -> str | None:
        """Return the path of frame `index`, "archive.zip!member" while the folder is not there."""
        if self.folder.is_dir() or not self.archive.is_file():
            return super().file(index)
        name = f"{index + self.start}.jpg"
        return f"{self.archive}!{_members(self.archive).get(name, name)}"


def _annotation_files(places: dict[str, Path], name: str) -> tuple[str, ...]:
    return (os.path.join(places[name], "anno", f"{name}.txt"),)


def _frames_of(places: dict[str, Path], name: str) -> Frames:
    return _frames(places[name], name)


def _frames(folder: Path, name: str) -> Frames:
    archive = folder / "zips" / f"{name}.zip"
    return MaybeZippedFrames(folder / "frames" / name, pattern="{}.jpg", start=0, archive=archive)


@functools.lru_cache(maxsize=500)
def _members(archive: Path) -> dict[str, str]:
    """Return the full name of each file in an archive by its last part; some archives hold a folder."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return {name.rpartition("/")[2]: name for name in opened.namelist() if "__MACOSX" not in name}
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DatasetError(f"{archive}: not a readable archive ({error}); fetch it again") from error
