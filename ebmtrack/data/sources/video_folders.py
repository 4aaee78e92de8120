"""What video data sets have in common: named sequences in folders, annotations read when needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.base import MEBIBYTE, ImageStore, LimitedCache, Source
from ebmtrack.errors import DatasetError


class VideoFolders(Source):
    """Sequences with one target each, a folder of frames and files of annotation."""

    is_video = True

    def __init__(self, name: str, sequences: Sequence[str], store: ImageStore | None) -> None:
        """The source `name` with `sequences`; `store` reads and keeps frames."""
        self.name = name
        self._names = list(sequences)
        self._store = store if store is not None else ImageStore()
        self._annotations = LimitedCache(256 * MEBIBYTE)

    @abstractmethod
    def read_annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and visibility (n,) of sequence `index`, from its files."""

    @abstractmethod
    def frame_file(self, index: int, frame: int) -> str:
        """Path of an existing or missing frame, as `base.read_bytes` takes it."""

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        """The sequence's name."""
        return self._names[index]

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._annotation(index)[0]

    def visible(self, index: int) -> np.ndarray:
        return self._annotation(index)[1]

    def frame(self, index: int, frame: int) -> np.ndarray:
        count = len(self.boxes_xywh(index))
        if not 0 <= frame < count:
            raise DatasetError(f"{self.name}, {self._names[index]}: frame {frame} of {count} does not exist")
        return self._store.rgb(self.frame_file(index, frame))

    def preload(self) -> None:
        """Read all frames' files into the store now, for example before worker processes are forked."""
        for index in range(len(self)):
            self._store.preload([self.frame_file(index, i) for i in range(len(self.boxes_xywh(index)))])

    def check(self) -> None:
        """Read every annotation and the first and last frame of every sequence; the first fault is raised."""
        for index in range(len(self)):
            self.frame(index, 0)
            self.frame(index, len(self.boxes_xywh(index)) - 1)

    def _annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._annotations.get(index, lambda: self.read_annotation(index), _annotation_bytes)


def _annotation_bytes(annotation: tuple[np.ndarray, np.ndarray]) -> int:
    return annotation[0].nbytes + annotation[1].nbytes + 300


def existing_folder(path: Path, what: str) -> Path:
    """`path` where it is a folder, otherwise DatasetError saying `what` is missing."""
    if not path.is_dir():
        raise DatasetError(f"{path}: {what} is missing")
    return path
