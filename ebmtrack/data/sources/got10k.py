"""GOT-10k: one target a sequence, boxes x,y,w,h, labels of absence and cover, as on the authors' disk."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.annotations import read_boxes, read_labels, read_meta, read_names
from ebmtrack.data.sources.base import ImageStore, well_formed
from ebmtrack.data.sources.video_folders import VideoFolders, existing_folder
from ebmtrack.errors import DatasetError

LEAST_COVER = 3  # of 8: cover.label counts visible eighths; with less, the box shows the occluder


class GOT10kSource(VideoFolders):
    """The sequences that list.txt names, under a folder such as got10k/train or got10k/val."""

    def __init__(
        self,
        root: str | Path,
        name: str = "got10k",
        store: ImageStore | None = None,
        exclude: Collection[str] | str | Path = (),
    ) -> None:
        """Open `root`: checks that each sequence of list.txt has a folder.

        `exclude` are sequences to leave out, names or a file of names: for VOT challenges, the list of
        sequences not to be trained on, which the authors of GOT-10k publish.
        """
        self.root = Path(root)
        excluded = read_names(Path(exclude)) if isinstance(exclude, (str, Path)) else exclude
        super().__init__(name, _listed_sequences(self.root, set(excluded)), store)

    def read_annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Visible: not absent, at least `LEAST_COVER` eighths uncovered, a box of at least one pixel.

        Either label file may be missing, as in the test split.
        """
        folder = self.root / self._names[index]
        boxes = read_boxes(folder / "groundtruth.txt")
        visible = well_formed(boxes)
        if (folder / "absence.label").is_file():
            visible &= read_labels(folder / "absence.label", len(boxes), 1) == 0
        if (folder / "cover.label").is_file():
            visible &= read_labels(folder / "cover.label", len(boxes), 8) >= LEAST_COVER
        return boxes, visible

    def annotation_files(self, index: int) -> tuple[str, ...]:
        folder = os.path.join(self.root, self._names[index])
        return tuple(os.path.join(folder, name) for name in ("groundtruth.txt", "absence.label", "cover.label"))

    def frame_file(self, index: int, frame: int) -> str:
        """Frames are counted from 1 on disk."""
        return str(self.root / self._names[index] / f"{frame + 1:08d}.jpg")

    def meta(self, index: int) -> dict[str, str]:
        """The entries of meta_info.ini (object_class, motion_class, ...); empty where the file is absent."""
        path = self.root / self._names[index] / "meta_info.ini"
        return read_meta(path) if path.is_file() else {}


def _listed_sequences(root: Path, excluded: set[str]) -> list[str]:
    """The names in list.txt without the excluded ones; each must be a folder."""
    path = existing_folder(root, "the folder of sequences") / "list.txt"
    if not path.is_file():
        raise DatasetError(f"{path}: missing; give the folder that holds list.txt, such as got10k/train")
    names = read_names(path)
    for number, name in enumerate(names, start=1):
        if name not in excluded and not (root / name).is_dir():
            raise DatasetError(f"{path}, line {number}: there is no folder {name!r} beside the list")
    names = [name for name in names if name not in excluded]
    if not names:
        raise DatasetError(f"{path}, line 1: names no sequence to use")
    return names
