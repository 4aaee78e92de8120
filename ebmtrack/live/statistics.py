"""Speed and delay of a live run, counted in constant memory."""

from __future__ import annotations

from collections import deque

import numpy as np

from ebmtrack.words import counted


class Rate:
    """The events per second over the last `window_s` seconds, and at most over the last 100 events."""

    def __init__(self, window_s: float = 2.0):
        self.window_s = window_s
        self._times_s: deque[float] = deque(maxlen=100)

    def mark(self, time_s: float) -> None:
        """Count an event at a time (time.monotonic())."""
        self._times_s.append(time_s)

    def per_s(self, now_s: float) -> float:
        """Return the events per second now: over the window, or over the last two events if these are further apart.

        An event that is overdue counts as if it came now, so that the rate falls towards 0; 0 before the second event.
        """
        times = tuple(self._times_s)
        if len(times) < 2:
            return 0.0
        count = max(2, sum(time_s > now_s - self.window_s for time_s in times))
        span_s = times[-1] - times[-count]
        if now_s - times[-1] > span_s:
            return 1 / (now_s - times[-1])
        return (count - 1) / span_s if span_s > 0 else 0.0


class Histogram:
    """Counts of values from 0 to `top` in bins of `step`: quantiles of any number of values in constant memory."""

    def __init__(self, step: float, top: float):
        self.step = step
        self.counts = np.zeros(round(top / step) + 1, np.int64)

    def add(self, value: float) -> None:
        """Count a value; one above the top counts as the top."""
        self.counts[min(max(0, round(value / self.step)), len(self.counts) - 1)] += 1

    def quantile(self, q: float) -> float:
        """Return the smallest value, as precise as the bins, that a part q of all does not exceed; nan if empty."""
        total = int(self.counts.sum())
        if not total:
            return float("nan")
        return self.step * int(np.searchsorted(self.counts.cumsum(), max(1, np.ceil(q * total))))


class Statistics:
    """The figures of a run, in constant memory: frames used, and how late they were shown.

    `delay_ms`: from a frame's arrival until it is shown with its boxes. `delay_frames`: the same in frames as they
    are used (delay times used frames per second). `newer`: how many frames had arrived after it by then.
    """

    def __init__(self) -> None:
        self.frames_used = 0
        self.delay_ms = Histogram(1.0, 10_000.0)
        self.delay_frames = Histogram(0.02, 100.0)
        self.newer = Histogram(1.0, 1000.0)
        self._rate = Rate()
        self._first_used_s = self._last_used_s = 0.0
        self._last_shown = 0

    def count_used(self, now_s: float) -> None:
        """Count a frame that the session is done with."""
        self._first_used_s = self._first_used_s if self.frames_used else now_s
        self._last_used_s = now_s
        self.frames_used += 1
        self._rate.mark(now_s)

    def frames_per_s(self, now_s: float) -> float:
        """Return the frames used in a second, over the last two."""
        return self._rate.per_s(now_s)

    def count_shown(self, number: int, time_s: float, newest: int, now_s: float) -> None:
        """Count the frame of a number that came at `time_s` and is shown `now_s`, while the newest has another number.

        The same frame again does not count.
        """
        if number <= self._last_shown:
            return
        self._last_shown = number
        delay_s = now_s - time_s
        self.delay_ms.add(1000 * delay_s)
        self.delay_frames.add(delay_s * self.frames_per_s(now_s))
        self.newer.add(newest - number)

    def text(self, frames_arrived: int, end: str = "shown") -> str:
        """Return the summary for the screen: one line, and one on the delay until frames were shown, or another end."""
        seconds = self._last_used_s - self._first_used_s
        per_s = (self.frames_used - 1) / seconds if seconds > 0 else 0.0
        arrived = f"{counted(frames_arrived, 'frame')} arrived"
        used = f"{seconds:.1f} s, {arrived}, {self.frames_used} used ({per_s:.1f} frames/s)"
        if not self.delay_ms.counts.any():
            return used
        histograms = (self.delay_ms, self.delay_frames, self.newer)
        (ms, frames, newer), (ms_99, frames_99, newer_99) = [[h.quantile(q) for h in histograms] for q in (0.5, 0.99)]
        return (
            f"{used}\ndelay until {end}: median {ms:.0f} ms ({frames:.1f} frames as used, {newer:.0f} of the source), "
            f"99 % within {ms_99:.0f} ms ({frames_99:.1f}, {newer_99:.0f})"
        )
