"""The base of all sources of frames, and the turning of frames as their file wants them shown."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from ebmtrack.images import SequenceReader
from ebmtrack.viewers.frame_times import FrameTimes
from ebmtrack.viewers.source_names import ranges_text

DEFAULT_FPS = 30.0  # of folders, and of videos and cameras that do not say


class FrameSource(ABC):
    """An iterator over frames, RGB uint8 (h, w, 3), that is closed after use (or used as a context manager).

    `name` names the source in messages and file names, `fps` is its frame rate, `known_fps` the same, or None if the
    source does not say it, `length` the number of frames that it announces (None for a camera or stream) and
    `frames_read` how many it has given. `unreadable` are the numbers (from 0, all frames counted) of those that could
    not be read and were passed over. `moment_s` is when the newest frame is shown, in seconds. After the last frame
    `note` says in one line what was odd, or is None, and `complete` whether all frames that belong there have come.
    """

    def __init__(self, name: str, fps: float | None, length: int | None):
        self.name = name
        self.known_fps = fps if fps is not None and math.isfinite(fps) and 0 < fps <= 1000 else None
        self.fps = self.known_fps or DEFAULT_FPS
        self.length = length
        self.frames_read = 0
        self.unreadable: list[int] = []
        self.moment_s = 0.0
        self.pixel_aspect = 1.0  # a pixel's width divided by its height, as it is to be shown
        self.complete = True
        self._notes: dict[str, str] = {}  # by kind, so that one does not hide another
        self._size: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        frame = self._read()
        if frame is None:
            raise StopIteration
        self.moment_s = self._moment_s()
        self._watch_size(frame.shape[1::-1])
        self.frames_read += 1
        return frame

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def note(self) -> str | None:
        """Return what was odd so far, in one line, or None."""
        return "; ".join(self._notes.values()) or None

    @property
    def ended_early(self) -> bool:
        """Return whether no more frames came before the last one that belongs there."""
        return "end" in self._notes

    @property
    def position(self) -> int:
        """The number of the next frame, from 0; those that could not be read are counted."""
        return self.frames_read + len(self.unreadable)

    @cached_property
    def times(self) -> FrameTimes:
        """The frames that are shown at given times."""
        return FrameTimes(self.name, self.fps, self._time_stamps)

    def _time_stamps(self) -> Iterable[float] | None:
        """Return when each frame is shown, in seconds, without reading on here; None if only reading tells it."""
        return None

    def moments(self) -> Iterator[float]:
        """Read to the end, yield when each frame is shown, and close; a frame that is passed over as the next one."""
        with self:
            before = self.position
            for _ in self:
                yield from [self.moment_s] * (self.position - before)
                before = self.position

    def skip_to(self, number: int) -> bool:
        """Go to a frame without reading those before it; return whether that seems to have worked."""
        return number == self.position

    def _moment_s(self) -> float:
        """Return when the frame that was just read is shown, in seconds from the first."""
        return self.position / self.fps

    def _watch_size(self, size: tuple[int, ...]) -> None:
        """Note the first change of the frames' size: boxes count in pixels of their own frame."""
        if self._size not in ((), size) and "size" not in self._notes:
            old, new = (" x ".join(map(str, each)) for each in (self._size, size))
            where = f"in frame {self.position}"
            self._notes["size"] = f"frames change from {old} to {new} pixels {where}; boxes do not follow that"
        self._size = size

    def _note_depth(self, reader: SequenceReader) -> None:
        """Note how a reader scales deep pictures, if it does."""
        if reader.note:
            self._notes["depth"] = reader.note

    def _pass_over(self, count: int) -> None:
        """Count the next frames as unreadable, and note which ones were so far."""
        self.unreadable += range(self.position, self.position + count)
        if self.unreadable:
            self.complete = False
            self._notes["damage"] = f"{self.name}: {ranges_text(self.unreadable)} could not be read"

    def _note_early_end(self, extent: str) -> None:
        """Note that the source ended early, and how many frames came."""
        self.complete = False
        self._notes["end"] = f"{self.name} ended early: {extent}"

    @abstractmethod
    def close(self) -> None:
        """Give back what the source holds; reading after this ends at once."""

    @abstractmethod
    def _read(self) -> np.ndarray | None:
        """Return the next frame, or None after the last."""


def turn(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Return an image (h, w, 3) turned and mirrored by a display matrix, see `containers.display_matrix`."""
    a, b, c, d = matrix
    if a == 0:
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[::d, ::a])
