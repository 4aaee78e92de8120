"""The frames that are shown at given times: by the time stamps of a source, or by its frame rate if it has none."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

STAMP_S = 0.001  # to which many files round their time stamps


class FrameTimes:
    """The numbers of the frames that are shown at given times, counted from the first frame.

    Time stamps are read as far as the largest time that is asked for, and kept.

    Args:
        name: Name of the source, for a note if it has no time stamps.
        fps: Its frames per second.
        time_stamps: Called at the first time that is asked for; returns when each frame is shown, in seconds, or None.
    """

    def __init__(self, name: str, fps: float, time_stamps: Callable[[], Iterable[float] | None]):
        self._name, self._fps, self._time_stamps = name, fps, time_stamps
        self._later: Iterator[float] | None = None  # time stamps that were not asked for yet
        self._moments_s: list[float] = []  # by the number of the frame, from the first one, in rising order

    def frame_at(self, time_s: float) -> int:
        """Return the number of the frame that is shown at a time, in seconds.

        If the frame rate gives the next frame, and that is shown half a frame later at the most, it is that one: in a
        file of constant rate a time is the nearest frame. Numbers go on after the last frame, each as long as that
        before it.
        """
        by_rate, half_s = round(time_s * self._fps), 0.5 / self._fps + STAMP_S
        self._read_beyond(time_s + half_s)
        if not self._moments_s:
            return by_rate
        shown = bisect_right(self._moments_s, time_s) - 1
        if shown + 1 < len(self._moments_s):
            return shown + (by_rate == shown + 1 and self._moments_s[by_rate] - time_s <= half_s)
        last_s = (self._moments_s[-1] - self._moments_s[max(0, shown - 1)]) or 1 / self._fps
        return shown + int((time_s - self._moments_s[-1]) / last_s + 1e-6)

    def _read_beyond(self, time_s: float) -> None:
        """Read time stamps up to the first one after a time, or to the end."""
        if self._later is None:
            self._later = self._from_the_first()
        while not self._moments_s or self._moments_s[-1] <= time_s:
            moment_s = next(self._later, None)
            if moment_s is None:
                return
            self._moments_s.append(max(moment_s, *self._moments_s[-1:], 0.0))

    def _from_the_first(self) -> Iterator[float]:
        """Yield the time stamps, less the first one; tell the user if there are none."""
        time_stamps = self._time_stamps()
        if time_stamps is None:
            log.warning("%s has no time stamps: times are counted at %g frames/s", self._name, self._fps)
            return
        first_s: float | None = None
        for time_stamp_s in time_stamps:
            first_s = time_stamp_s if first_s is None else first_s
            yield time_stamp_s - first_s
