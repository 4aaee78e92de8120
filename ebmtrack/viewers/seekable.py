"""Frames of a recorded video or folder by their number, in any order: what labelling needs to go back and forth."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.viewers.frames import FrameSource, open_frames
from ebmtrack.viewers.source_names import is_stream

BUDGET = 256 * 2**20  # bytes of frames that are kept in memory
LEAD = 40  # frames that are decoded before the one that is asked for, as far as they fit: the next step may be back

T = TypeVar("T", bound="SeekableFrames")


class SeekableFrames:
    """The frames of a recorded source by number, RGB uint8 (h, w, 3).

    Frame n is the n-th that reading from the front gives. Videos are not trusted to jump there: what a jump gives is
    compared with the checksums of the first reading, and if it differs, the video is read again from its front.

    Attributes:
        name: Name of the source.
        fps: Frames per second.
        known_fps: The same; None if the source does not say it.
        times: The frames that are shown at given times.
        note: What was odd, in one line, or None.
        complete: Whether all frames that belong there could be read, as far as is known.
        moments_s: When each frame that was read so far is shown, in seconds.
    """

    def __init__(self, source: str | os.PathLike | int | Iterable[np.ndarray]):
        if is_stream(source):
            name = source if isinstance(source, (str, os.PathLike, int)) else "images"
            raise ConfigError(
                f"{name}: a camera, stream, pipe or iterator cannot go back to an earlier frame; record it first"
            )
        self._source = source
        self._reader: FrameSource = open_frames(source)
        self.name, self.fps, self._announced = self._reader.name, self._reader.fps, self._reader.length
        self.note, self.complete = self._reader.note, True
        self.pixel_aspect, self.times = self._reader.pixel_aspect, self._reader.times
        self.known_fps = self._reader.known_fps
        self.moments_s: list[float] = []
        self._sums: list[int | None] = []  # checksum by number; None if a frame cannot be read
        self._length: int | None = None  # once the end was reached
        self._second: FrameSource | None = None  # a second reading, for what is not in memory any more
        self._asked = -1  # the frame that was read again last
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the source holds."""
        for reader in (self._reader, self._second):
            if reader is not None:
                reader.close()
        self._cache.clear()

    @property
    def ended_early(self) -> bool:
        """Return whether no more frames came before the last one that belongs there."""
        return self._reader.ended_early

    @property
    def length(self) -> int:
        """The number of frames: what is announced, until the end has been reached; at least what was read."""
        if self._length is not None:
            return self._length
        return max(self._announced or 0, len(self._sums))

    def find_length(self) -> int:
        """Return the number of frames, reading to the end if it was not reached yet."""
        while self._length is None:
            self._read_on()
        return self._length

    def read(self, number: int) -> np.ndarray | None:
        """Return a frame; None if it cannot be read or is after the last one."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        while number >= len(self._sums) and self._length is None:
            self._read_on()
        if number in self._cache:
            return self._cache[number]
        if not 0 <= number < len(self._sums) or self._sums[number] is None:
            return None
        return self._read_again(number)

    def shown_s(self, number: int) -> float:
        """Return when a frame is shown, in seconds after the first one; by the frame rate if it was not read yet."""
        is_read = number < len(self.moments_s)
        return self.moments_s[number] - self.moments_s[0] if is_read else number / self.fps

    def _read_on(self) -> None:
        """Read one frame more from the front."""
        image = next(self._reader, None)
        self.note, self.complete = self._reader.note, self._reader.complete
        self._sums += [None] * (self._reader.position - (image is not None) - len(self._sums))
        self.moments_s += [self._reader.moment_s] * (self._reader.position - len(self.moments_s))
        if image is None:
            self._length = len(self._sums)
            if not self._sums:
                raise DatasetError(f"{self.name} holds no frames")
            return
        self._sums.append(zlib.crc32(image.data))
        self._keep(len(self._sums) - 1, image)

    def _read_again(self, number: int) -> np.ndarray:
        """Return a frame that was read before; on the way back some before it are kept as well."""
        going_back, self._asked = number < self._asked, number
        at = self._second.position if self._second is not None else -1
        begin = max(0, number - LEAD) if going_back else number
        for jump in (None, True, False):
            if jump is None and not 0 <= at <= number <= at + LEAD:
                continue
            if jump is not None:
                self._reopen(begin, jump)
            image = self._reread(number)
            if image is not None:
                return image
        raise DatasetError(f"{self.name}: frame {number} is another one when it is read again; is the file changing?")

    def _reopen(self, number: int, jump: bool) -> None:
        """Open the source a second time before a frame, by a jump or from the front."""
        if self._second is not None:
            self._second.close()
        self._second = open_frames(self._source)
        if not (jump and self._second.skip_to(number)):
            while self._second.position < number and next(self._second, None) is not None:
                pass

    def _reread(self, number: int) -> np.ndarray | None:
        """Return frame `number` of the second reading; None if a frame on the way differs from the first reading."""
        image, second = None, self._second
        while second is not None and second.position <= number:
            image = next(second, None)
            if image is None or zlib.crc32(image.data) != self._sums[second.position - 1]:
                return None
            self._keep(second.position - 1, image)
        return image

    def _keep(self, number: int, image: np.ndarray) -> None:
        """Keep a frame in memory, and let the longest unused ones go."""
        if number not in self._cache:
            self._cache[number] = image
            self._bytes += image.nbytes
        while self._bytes > BUDGET and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes


class OneFrame:
    """The one frame of a camera or stream that boxes can be drawn on, offered as SeekableFrames offers theirs."""

    def __init__(self, image: np.ndarray, source: FrameSource, number: int):
        self.name, self.fps, self.length = source.name, source.fps, number + 1
        self._image, self._number = image, number

    def read(self, number: int) -> np.ndarray | None:
        """Return the frame if it is that of this number."""
        return self._image if number == self._number else None

    def shown_s(self, number: int) -> float:
        """Return when a frame is shown, in seconds, by the frame rate."""
        return number / self.fps
