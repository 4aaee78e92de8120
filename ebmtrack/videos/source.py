"""Lists of annotated targets to train on: of any data set of sequences, and selections with sampling weights."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.image_store import ImageStore, LimitedCache
from ebmtrack.videos.index_cache import annotation_index
from ebmtrack.videos.sequence import DataSet

LISTINGS_LIMIT = 32 * 2**20  # bytes of listed folders to keep


class Source(ABC):
    """A list of annotated targets: a target is one object in one video, or one box of one photograph."""

    name: str
    is_video: bool
    cut_at: float | None = None  # target sizes around the target at which its pictures were cut before

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of targets."""

    @abstractmethod
    def target_name(self, index: int) -> str:
        """Return a name that stays the same when files are added; validation targets are chosen by it."""

    def category(self, index: int) -> str:
        """Return the kind of object of target `index`, or "" if the annotation does not say it."""
        return ""

    @abstractmethod
    def boxes_xywh(self, index: int) -> np.ndarray:
        """Return the boxes (n, 4) float64 of target `index` in its n frames, in pixels. Photographs have n = 1."""

    @abstractmethod
    def visible(self, index: int) -> np.ndarray:
        """Return (n,) bool: False if the target is absent, covered too much, or its box is degenerate."""

    @abstractmethod
    def frame(self, index: int, frame: int) -> np.ndarray:
        """Return frame number `frame` of target `index`: (H, W, 3) uint8 RGB, contiguous, not to be written into."""

    def frame_size_wh(self, index: int, frame: int) -> tuple[int, int]:
        """Return width and height of a frame; a source that knows them need not decode it."""
        height, width = self.frame(index, frame).shape[:2]
        return width, height

    def weights(self) -> np.ndarray:
        """Return sampling weights (len,) float64, not normalised; all one unless a selection sets them."""
        return np.ones(len(self))

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """Yield a line for each fault of the data: annotations, and first and last visible frame.

        Args:
            every_frame: Decode all visible frames instead of two.
        """
        for index in range(len(self)):
            try:
                visible = np.flatnonzero(self.visible(index))
                for frame in visible if every_frame else visible[:1].tolist() + visible[1:][-1:].tolist():
                    self.frame(index, int(frame))
            except DatasetError as error:
                yield str(error)

    def subset(self, keep: Callable[[str], bool]) -> Selection:
        """Return the targets whose name satisfies `keep`, with their weights."""
        return Selection(self, [i for i in range(len(self)) if keep(self.target_name(i))])

    def with_weights(self, weights: np.ndarray) -> Selection:
        """Return all targets, drawn with `weights` (len,), finite and not negative."""
        return Selection(self, range(len(self)), weights)


class Selection(Source):
    """Some targets of a source, in a given order, with their own sampling weights."""

    def __init__(self, source: Source, indices: Sequence[int], weights: np.ndarray | None = None) -> None:
        """Take targets `indices` of `source`; `weights` (len(indices),) replace the source's own."""
        self.name, self.is_video, self.cut_at = source.name, source.is_video, source.cut_at
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        self._weights = source.weights()[self._indices] if weights is None else np.array(weights, np.float64)
        if self._weights.shape != self._indices.shape or not np.all(np.isfinite(self._weights)):
            raise ConfigError(f"source {self.name}: weights must be {len(self._indices)} finite numbers")
        if np.any(self._weights < 0):
            raise ConfigError(f"source {self.name}: sampling weights must not be negative")

    def __len__(self) -> int:
        return len(self._indices)

    def target_name(self, index: int) -> str:
        return self._source.target_name(int(self._indices[index]))

    def category(self, index: int) -> str:
        return self._source.category(int(self._indices[index]))

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._source.boxes_xywh(int(self._indices[index]))

    def visible(self, index: int) -> np.ndarray:
        return self._source.visible(int(self._indices[index]))

    def frame(self, index: int, frame: int) -> np.ndarray:
        return self._source.frame(int(self._indices[index]), frame)

    def frame_size_wh(self, index: int, frame: int) -> tuple[int, int]:
        return self._source.frame_size_wh(int(self._indices[index]), frame)

    def weights(self) -> np.ndarray:
        return self._weights.copy()


class VideoSource(Source):
    """The sequences of a data set as targets; the files of annotation are parsed once and kept as an index on disk."""

    is_video = True

    def __init__(self, dataset: DataSet, name: str | None = None, store: ImageStore | None = None) -> None:
        """Take all sequences of `dataset`.

        A sequence whose annotation is damaged raises DatasetError when it is asked for.

        Args:
            dataset: The sequences.
            name: What samplers call the source; the data set's name by default.
            store: Reads and keeps frames.
        """
        self.name, self.dataset = name or dataset.name, dataset
        self._names = dataset.names
        if not self._names:
            raise DatasetError(f"{dataset.root}: no sequence of {dataset.name} to use; give the folder that holds them")
        self._store = store if store is not None else ImageStore()
        self._listings = LimitedCache(LISTINGS_LIMIT)
        self._index = None
        if dataset.annotation_files is not None:
            files = [dataset.annotation_files(name) for name in self._names]
            self._index = annotation_index(_reader_of(dataset), files, self._read)

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        """Return the sequence's name."""
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

    def frame_file(self, index: int, frame: int) -> str:
        """Return the path of a frame, there or not, as `image_store.read_bytes` takes it."""
        name = self._names[index]
        frames = self.dataset.frames_of(name) if self.dataset.frames_of else self.dataset.read(name).frames
        file = frames.file(frame)
        return file if file is not None else self._list_paths(index)[frame]

    def preload(self) -> None:
        """Read all frames' files into the store now, for example before worker processes are forked."""
        for index in range(len(self)):
            self._store.preload([self.frame_file(index, i) for i in range(len(self.boxes_xywh(index)))])

    def check(self) -> None:
        """Read every annotation and the first and last frame of every sequence; the first fault is raised."""
        for fault in self.faults():
            raise DatasetError(fault)

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """Yield the faults of each sequence: annotation, missing frames, first, first visible and last one unreadable.

        Args:
            every_frame: Decode all frames instead of these.
        """
        for index in range(len(self)):
            try:
                count = len(self.boxes_xywh(index))
                yield from self._missing_frames(index, count)
                first_visible = np.flatnonzero(self.visible(index))[:1].tolist()
                for frame in range(count) if every_frame else sorted({0, *first_visible, count - 1}):
                    self._store.rgb(self.frame_file(index, frame))
            except DatasetError as error:
                yield str(error)

    def _missing_frames(self, index: int, count: int) -> Iterator[str]:
        """Yield a line if frames between the first and the last are not there."""
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

    def _list_paths(self, index: int) -> list[str]:
        """Return the paths of all frames of a sequence whose names follow no pattern."""
        name = self._names[index]

        def list_names() -> list[str]:
            return [str(path) for path in self.dataset.read(name).frame_paths()]

        return self._listings.get(name, list_names, lambda files: 120 * len(files))

    def _annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._index is None:
            sequence = self.dataset.read(self._names[index])
            return sequence.boxes_xywh, sequence.usable
        return self._index.get(index) or self._read(index)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (n, 4) and usable frames (n,) of a sequence from its files; the index remembers them."""
        sequence = self.dataset.loaders[self._names[index]]()
        return sequence.boxes_xywh, sequence.usable


def _reader_of(dataset: DataSet) -> tuple[str, ...]:
    """Return the names of the reader and its settings, which an index of annotations belongs to."""
    load: Any = next(iter(dataset.loaders.values()), None)
    function = getattr(load, "func", load)
    settings = [value for value in getattr(load, "args", ()) if isinstance(value, (int, float))]
    return (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""), repr(settings))
