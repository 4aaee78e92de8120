"""What video data sets have in common: named sequences in folders, annotations read when needed."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ebmtrack.data.index_cache import annotation_index
from ebmtrack.data.sources.base import ImageStore, Source
from ebmtrack.errors import DatasetError


class VideoFolders(Source):
    """Sequences with one target each, a folder of frames and files of annotation."""

    is_video = True

    def __init__(self, name: str, sequences: Sequence[str], store: ImageStore | None) -> None:
        """The source `name` with `sequences`; `store` reads and keeps frames.

        All annotations are read now, or come from the index that the last opening left in the user's cache directory.
        A sequence whose annotation is damaged raises DatasetError when it is asked for.
        """
        self.name = name
        self._names = list(sequences)
        self._store = store if store is not None else ImageStore()
        files = [self.annotation_files(index) for index in range(len(self._names))]
        self._index = annotation_index(type(self), files, self.read_annotation)

    @abstractmethod
    def read_annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and visibility (n,) of sequence `index`, from its files."""

    @abstractmethod
    def annotation_files(self, index: int) -> tuple[str, ...]:
        """Paths of all files that `read_annotation` may read, there or not; as many for every sequence."""

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
        for fault in self.faults():
            raise DatasetError(fault)

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """What is wrong with each sequence: annotation, frames that are missing, first and last frame unreadable.

        `every_frame` decodes all frames instead of two.
        """
        for index in range(len(self)):
            try:
                count = len(self.boxes_xywh(index))
                yield from self._missing_frames(index, count)
                for frame in range(count) if every_frame else sorted({0, count - 1}):
                    self._store.rgb(self.frame_file(index, frame))
            except DatasetError as error:
                yield str(error)

    def _missing_frames(self, index: int, count: int) -> Iterator[str]:
        """A line where frames between the first and the last are not there."""
        files = [self.frame_file(index, frame) for frame in range(1, count - 1)]
        if not files or ".zip!" in files[0]:
            return
        folder = os.path.dirname(files[0])
        try:
            present = set(os.listdir(folder))
        except OSError as error:
            raise DatasetError(f"{folder}: the folder of frames cannot be listed ({error})") from error
        lost = [file for file in files if os.path.basename(file) not in present]
        if lost:
            yield f"{lost[0]}: missing" + (f", and {len(lost) - 1} more of this sequence" if len(lost) > 1 else "")

    def _annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._index.get(index) or self.read_annotation(index)


def existing_folder(path: Path, what: str) -> Path:
    """`path` where it is a folder, otherwise DatasetError saying `what` is missing."""
    if not path.is_dir():
        raise DatasetError(f"{path}: {what} is missing")
    return path
