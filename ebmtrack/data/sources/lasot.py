"""LaSOT: long sequences in folders by class, with marks of full occlusion and of leaving the view."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.annotations import read_boxes, read_labels, read_names
from ebmtrack.data.sources.base import ImageStore, well_formed
from ebmtrack.data.sources.video_folders import VideoFolders, existing_folder
from ebmtrack.errors import ConfigError, DatasetError

ANNOTATION = ("groundtruth.txt", "full_occlusion.txt", "out_of_view.txt")
SPLITS = ("train", "test", "all")


class LaSOTSource(VideoFolders):
    """The sequences <class>-<number> under root/<class>/; boxes are used as the files give them."""

    def __init__(
        self, root: str | Path, split: str = "train", name: str = "lasot", store: ImageStore | None = None
    ) -> None:
        """Open `root`; "train" is what testing_set.txt, which comes with the data, does not name."""
        if split not in SPLITS:
            raise ConfigError(f"LaSOT has no split {split!r}; there are {', '.join(SPLITS)}")
        self.root = existing_folder(Path(root), "the folder of classes")
        super().__init__(name, _split_names(self.root, split), store)

    def read_annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Visible: neither fully occluded nor out of view, and a box of at least one pixel."""
        folder = self._folder(index)
        boxes = read_boxes(folder / ANNOTATION[0])
        visible = well_formed(boxes)
        for label in ANNOTATION[1:]:
            visible &= read_labels(folder / label, len(boxes), 1) == 0
        return boxes, visible

    def annotation_files(self, index: int) -> tuple[str, ...]:
        folder = self._folder(index)
        return tuple(os.path.join(folder, name) for name in ANNOTATION)

    def frame_file(self, index: int, frame: int) -> str:
        """Frames are counted from 1 on disk."""
        return str(self._folder(index) / "img" / f"{frame + 1:08d}.jpg")

    def _folder(self, index: int) -> Path:
        name = self._names[index]
        return self.root / name.rpartition("-")[0] / name


def _split_names(root: Path, split: str) -> list[str]:
    """Names of the sequences of a split, sorted by class and number."""
    pattern = [path.name for path in sorted(root.glob("*/*-*")) if path.is_dir()]
    found = [name for name in pattern if (root / name.rpartition("-")[0] / name).is_dir()]
    if split != "all":
        path = root / "testing_set.txt"
        if not path.is_file():
            raise DatasetError(f"{path}: missing; copy it there from the data set, or open the split 'all'")
        testing = set(read_names(path))
        found = [name for name in found if (name in testing) == (split == "test")]
    if not found:
        raise DatasetError(f"{root}: no sequence <class>/<class>-<number> of split {split!r}")
    return sorted(found, key=_class_and_number)


def _class_and_number(name: str) -> tuple[str, int, str]:
    kind, _, number = name.rpartition("-")
    return kind, int(number) if number.isdecimal() else -1, number
