"""A camera, stream or video read in a thread of its own, of which only the newest frame is kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ebmtrack.errors import DatasetError, EbmtrackError
from ebmtrack.live.statistics import Rate
from ebmtrack.viewers.frames import CameraFrames, FrameSource, open_frames
from ebmtrack.viewers.source_names import is_url

STALL_S = 2.0  # a source that has given no frame for this long has stalled
RETRY_S = 2.0  # between two attempts to open a camera or stream that went away
CLOSE_S = 1.0  # how long closing waits for a read that hangs
SHORT_S = 0.02  # how often a paused video looks whether it may go on


@dataclass(frozen=True)
class Frame:
    """A frame, RGB uint8 (h, w, 3); its number, counted from 1; when it arrived, in seconds of time.monotonic()."""

    image: np.ndarray = field(repr=False, compare=False)
    number: int
    time_s: float


@dataclass(frozen=True)
class CaptureState:
    """The state of a source, and a sentence for the user about it (empty while it runs).

    waiting: no frame yet. running: frames come. stalled: open, but nothing came for a while. failed: unplugged,
    unreachable or damaged. ended: a video's last frame was given. Only failed and ended can be final.
    """

    kind: Literal["waiting", "running", "stalled", "failed", "ended"]
    message: str = ""
    final: bool = False


class Capture:
    """A thread that reads a source and keeps its newest frame, so that a slow reader skips frames and never queues.

    A `live` source (a camera, a stream) gives frames as they come, and its end is a failure; any other plays at its
    own frame rate. `reopen` opens the source again: after the last frame if `loop` is set, and every `retry_s`
    seconds after a live source failed (None: a failure is final). `start`, or a with statement, begins; the capture
    closes the source.
    """

    def __init__(
        self,
        source: FrameSource,
        live: bool,
        reopen: Callable[[], FrameSource] | None = None,
        loop: bool = False,
        retry_s: float | None = RETRY_S,
        stall_s: float = STALL_S,
    ):
        self.name, self.fps, self.live = source.name, source.fps, live
        self.known_fps = source.known_fps  # None if the source does not say it
        self.paused = False  # a paused video stands still after its first frame; a camera cannot, its frames go by
        self._loop, self._retry_s, self._stall_s = loop, retry_s if live else None, stall_s
        self._reopen = reopen
        self._rate = Rate()
        self._frame: Frame | None = None
        self._state = CaptureState("waiting")
        self._unexpected: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._heard_s = time.monotonic()
        self._source = source
        self._thread = threading.Thread(target=self._run, name=f"capture {self.name}", daemon=True)

    def __enter__(self) -> Capture:
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()

    def start(self) -> Capture:
        """Begin to read; once only."""
        self._heard_s = time.monotonic()
        self._thread.start()
        return self

    @property
    def frames(self) -> int:
        """The number of frames that have arrived so far, which is the newest frame's number."""
        return self._frame.number if self._frame else 0

    @property
    def frames_per_s(self) -> float:
        """The measured number of frames that arrive in a second."""
        return self._rate.per_s(time.monotonic())

    def newest(self, after: int = 0, timeout_s: float = 0.0) -> Frame | None:
        """Return the newest frame if its number is above `after`, else one that arrives in time, else None.

        If the reading thread met an error that is not the source's, that error is raised here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.frames > after or self._state.final or self._unexpected, timeout_s)
            if self._unexpected is not None:
                raise self._unexpected
            return self._frame if self.frames > after else None

    def state(self) -> CaptureState:
        """Return the state of the source now."""
        with self._changed:
            state, silent_s = self._state, time.monotonic() - self._heard_s
        if state.kind in ("waiting", "running") and silent_s > self._stall_s:
            return CaptureState("stalled", f"{self.name}: no frame for {silent_s:.0f} s")
        return state

    def close(self) -> None:
        """End the thread, which closes the source; one that hangs in a read is left behind after a second."""
        self._stop.set()
        if self._thread.ident is None:
            self._source.close()
        else:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        """Run the thread: play the source, again if it is to be opened again."""
        source: FrameSource | None = self._source
        try:
            while source is not None and not self._stop.is_set():
                source = self._play_source(source)
            if source is not None:  # closed before it began, or while it was opened again
                source.close()
        except Exception as error:
            with self._changed:
                self._unexpected = error
                self._changed.notify_all()

    def _play_source(self, source: FrameSource) -> FrameSource | None:
        """Play a source to its end; return what to play next, or None."""
        try:
            with source:
                self._play(source)
            if self._stop.is_set():
                return None
            if self.live:
                raise DatasetError(f"{self.name} gave no more frames after {self.frames}: is it still there?")
            if self._loop and self._reopen is not None and source.frames_read:
                return self._reopen()
        except EbmtrackError as error:
            return self._after_failure(str(error))
        self._say(CaptureState("ended", _ending(source), final=True))
        return None

    def _after_failure(self, message: str) -> FrameSource | None:
        """Say what failed; then try to open the source again until that works or the capture is closed."""
        reopen = self._reopen if self._retry_s is not None else None
        self._say(CaptureState("failed", message, final=reopen is None))
        while reopen is not None and not self._stop.wait(self._retry_s):
            try:
                return reopen()
            except EbmtrackError as error:
                self._say(CaptureState("failed", str(error)))
        return None

    def _play(self, source: FrameSource) -> None:
        """Hand on all frames of a source, at its own rate unless it is live."""
        due_s = time.monotonic()
        for image in source:
            if not self.live:
                due_s = self._await(due_s)
            if self._stop.is_set():
                return
            self._put(image)
            due_s = max(due_s, time.monotonic() - 1 / source.fps) + 1 / source.fps  # one that is late does not rush

    def _await(self, due_s: float) -> float:
        """Wait until a time, and as long as the video is paused; return the time at which the frame was due."""
        while self.paused and self.frames and not self._stop.wait(SHORT_S):
            due_s = self._heard_s = time.monotonic()
        self._stop.wait(max(0.0, due_s - time.monotonic()))
        return due_s

    def _put(self, image: np.ndarray) -> None:
        """Make an image the newest frame."""
        with self._changed:
            self._heard_s = time.monotonic()
            self._frame = Frame(image, self.frames + 1, self._heard_s)
            self._rate.mark(self._heard_s)
            self._state = CaptureState("running")
            self._changed.notify_all()

    def _say(self, state: CaptureState) -> None:
        """Change the state."""
        with self._changed:
            self._state = state
            self._changed.notify_all()


def open_capture(
    source: str | os.PathLike | int, loop: bool = False, retry_s: float | None = RETRY_S, stall_s: float = STALL_S
) -> Capture:
    """Open a camera (its number), stream (URL), video file or folder of pictures; `start` begins to read it.

    The errors of `open_frames` are raised here. Streams that announce their length are played as videos.
    """
    frames = open_frames(source)
    live = isinstance(frames, CameraFrames) or (frames.length is None and is_url(str(source)))
    return Capture(frames, live, lambda: open_frames(source), loop, retry_s, stall_s)


def _ending(source: FrameSource) -> str:
    """Return a sentence on a source that was played to its end."""
    return source.note or f"{source.name} has ended after {source.frames_read} frames"
