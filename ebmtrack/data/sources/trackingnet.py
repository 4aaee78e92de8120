"""TrackingNet: sets TRAIN_0 .. TRAIN_11 of annotation files and frames, unpacked or still zipped."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.annotations import read_boxes
from ebmtrack.data.sources.base import ImageStore, LimitedCache, well_formed
from ebmtrack.data.sources.video_folders import VideoFolders, existing_folder
from ebmtrack.errors import DatasetError

ALL_SETS = tuple(range(12))
MEMBERS_LIMIT = 32 * 2**20  # bytes of archives' lists of contents to keep


class TrackingNetSource(VideoFolders):
    """Sequences root/TRAIN_<set>/anno/<name>.txt and frames/<name>/<n>.jpg or zips/<name>.zip."""

    def __init__(
        self,
        root: str | Path,
        sets: Sequence[int] = ALL_SETS,
        name: str = "trackingnet",
        store: ImageStore | None = None,
    ) -> None:
        """Open the given sets under `root`; sets 0 to 3 are what DiMP and its kin train on."""
        self.root = existing_folder(Path(root), "the folder of sets")
        self._sequences = [(number, each) for number in sets for each in _names_in(self.root, number)]
        self._members = LimitedCache(MEMBERS_LIMIT)
        super().__init__(name, [each for _, each in self._sequences], store)

    def read_annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Visible: a box of at least one pixel; the data set has no other marks."""
        boxes = read_boxes(Path(self.annotation_files(index)[0]))
        return boxes, well_formed(boxes)

    def annotation_files(self, index: int) -> tuple[str, ...]:
        return (os.path.join(self._set_folder(index), "anno", f"{self._names[index]}.txt"),)

    def frame_file(self, index: int, frame: int) -> str:
        """Frames are counted from 0 on disk."""
        name = self._names[index]
        folder = self._set_folder(index) / "frames" / name
        archive = self._set_folder(index) / "zips" / f"{name}.zip"
        if folder.is_dir() or not archive.is_file():
            return str(folder / f"{frame}.jpg")
        members = self._members.get(archive, lambda: _members(archive), lambda found: 200 * len(found))
        return f"{archive}!{members.get(f'{frame}.jpg', f'{frame}.jpg')}"

    def _set_folder(self, index: int) -> Path:
        return self.root / f"TRAIN_{self._sequences[index][0]}"


def _names_in(root: Path, number: int) -> list[str]:
    """Names of the sequences annotated in one set."""
    folder = existing_folder(root / f"TRAIN_{number}" / "anno", f"the annotation of set {number}")
    names = sorted(path.stem for path in folder.glob("*.txt"))
    if not names:
        raise DatasetError(f"{folder}: no annotation file")
    return names


def _members(archive: Path) -> dict[str, str]:
    """Full name of each file in an archive by its last part; some archives hold a folder."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return {name.rpartition("/")[2]: name for name in opened.namelist()}
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DatasetError(f"{archive}: not a readable archive ({error}); fetch it again") from error
