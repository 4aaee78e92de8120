"""The work behind `ebmtrack webcam`: targets drawn with the mouse on live pictures, or tracked without a window."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.live.capture import RETRY_S, open_capture
from ebmtrack.live.controls import Controls
from ebmtrack.live.picture import Line, draw_view, live_picture
from ebmtrack.live.session import Box, Live, LiveView, LoadingTracker, ManyTracker, Session
from ebmtrack.live.statistics import Statistics
from ebmtrack.live.webcam_options import WebcamOptions
from ebmtrack.viewers.drawing import ORANGE, WHITE
from ebmtrack.viewers.outputs import checked_outputs, tell_of_writing
from ebmtrack.viewers.results import FrameResult, ResultInfo, write_results
from ebmtrack.viewers.selection import parse_boxes
from ebmtrack.viewers.source_names import path_or_stdin
from ebmtrack.viewers.video_file import VideoWriter
from ebmtrack.viewers.window import LiveWindow, require_screen

POLL_S = 0.01  # how long the window waits for a view before it looks for keys and the mouse
REFRESH_S = 0.25  # longest time between two drawings of the window
STILL_S = 1.0  # the longest time for which a saved video shows one picture
Record = Callable[[LiveView, bool], None]  # takes a view, and whether search regions are drawn
START, OUTPUT = "--init x,y,w,h", "--save OUT.mp4 or --boxes OUT.csv"
HEADLESS = f"go without a window: {START} and {OUTPUT}"


def webcam(load_tracker: Callable[[], ManyTracker], options: WebcamOptions) -> Statistics:
    """Track live from a camera (number 0 by default), stream or video, and print how that went.

    In the window the user draws targets; a source that fails is reported there and tried again. Without a window
    (`headless`, or if there is no screen) boxes to begin with and a file to write are needed, and a source that fails
    is an error. A video plays at its own frame rate. Tracking ends when the user ends it, after `seconds`, or, without
    a window, at the end of the video.

    Args:
        load_tracker: Returns the tracker; with a window it is called in a thread of its own.
        options: See WebcamOptions.

    Raises:
        ConfigError: On options that cannot be met.
        DatasetError: If the source cannot be read.
    """
    place, boxes_xywh = _checked_source(options.camera, options.source), parse_boxes(options.init)
    boxes_path, save_path = checked_outputs(place, options.boxes, options.save, options.layout)
    headless = _checked_headless(options.headless, options.save or options.boxes, bool(boxes_xywh))
    if options.seconds is not None and not options.seconds > 0:
        raise ConfigError(f"--seconds is a time above zero, not {options.seconds:g}")
    with ExitStack() as stack:
        capture = open_capture(place, options.loop, None if headless else RETRY_S)
        stack.callback(capture.close)
        loading = None if headless else LoadingTracker(load_tracker)
        live = Live(capture, Session(loading or load_tracker()))
        outputs: list[Recorder | ResultLog] = []
        stack.callback(_report, live, outputs, "recorded" if headless else "shown")
        if save_path is not None:
            outputs.append(stack.enter_context(Recorder(save_path, capture.fps)))
        if boxes_path is not None:
            info = ResultInfo(capture.name, capture.known_fps)
            outputs.append(stack.enter_context(ResultLog(boxes_path, info, options.layout)))
        records = [output.add_view for output in outputs]
        until_s = time.monotonic() + (options.seconds or float("inf"))
        live.paused = bool(boxes_xywh)  # until the targets in the first frame are learned
        with capture, live:
            if loading is None:
                _run_headless(live, records, until_s, boxes_xywh)
            else:
                _run_window(live, records, until_s, boxes_xywh, loading.check)
    return live.statistics


class Recorder:
    """A saved video of pictures that come at irregular times; it plays at the speed at which they came.

    Each is repeated until the next one came, for STILL_S at most. The video is finished by `close`, or when the with
    block ends; its size is that of the first picture. `files` holds its path once it is finished.
    """

    def __init__(self, path: Path, fps: float):
        self._writer = VideoWriter(path, fps)
        self.files: list[Path] = []
        self._last: np.ndarray | None = None
        self._last_s = self._clock_s = 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def add_view(self, view: LiveView, search: bool) -> None:
        """Add a view as it is drawn, with search regions if asked."""
        self.add(draw_view(view, search), view.frame.time_s)

    def add(self, image: np.ndarray, time_s: float) -> None:
        """Add a picture, RGB uint8 (h, w, 3), that was taken at a time; one of the same time replaces the last."""
        if self._last is None:
            tell_of_writing(self._writer.path)
        if self._last is not None:
            self._clock_s += min(max(0.0, time_s - self._last_s), STILL_S)
            while self._writer.frames_written < round(self._clock_s * self._writer.fps):
                self._writer.write(self._last)
        self._last, self._last_s = image, time_s

    def close(self) -> None:
        """Write the last picture and finish the video; a second call does nothing."""
        if self._last is not None:
            self._writer.write(self._last)
            self._last = None
            self.files.append(self._writer.path)
        self._writer.close()


class ResultLog:
    """The results of all views, written to a file at the end.

    Frames are numbered as they arrived, skipped ones included. `files` holds the paths once they are written.
    """

    def __init__(self, path: Path, info: ResultInfo, layout: str | None = None):
        self.files: list[Path] = []
        self._path, self._info, self._layout = path, info, layout
        self._rows: dict[tuple[int, int], FrameResult] = {}
        self._size_wh = (0, 0)

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows:
            info = replace(self._info, size_wh=self._size_wh)
            self.files += write_results(self._path, self._rows.values(), info, self._layout)

    def add_view(self, view: LiveView, search: bool) -> None:
        """Note down where the targets are; a later view of the same frame replaces an earlier one."""
        self._size_wh = view.frame.image.shape[1], view.frame.image.shape[0]
        if view.targets and not self._rows:
            tell_of_writing(self._path)
        for target in view.targets:
            verdict = "start" if target.score is None else "not_found" if target.lost else "normal"
            x, y, w, h = target.box_xywh
            row = FrameResult(view.frame.number - 1, target.number, (x, y, w, h), target.score, verdict)
            self._rows[row.frame, row.id] = row


def _run_window(
    live: Live, records: Sequence[Record], until_s: float, boxes_xywh: Sequence[Box], check: Callable[[], None]
) -> None:
    """Show views in a window until the user ends it, it is time, or `check`, called often, raises an error."""
    controls = Controls(live, boxes_xywh)
    told, drawn_s = "", float("-inf")
    with LiveWindow(f"ebmtrack: {live.capture.name}", controls) as window:
        while not controls.quit and time.monotonic() < until_s:
            check()
            view = live.newest(controls.view.number if controls.view else 0, POLL_S)
            controls.see(view)
            told = _tell(live, told)
            if view or time.monotonic() > drawn_s + REFRESH_S:
                window.draw(*live_picture(controls, _status(live)))
                drawn_s = time.monotonic()
            if view is not None:
                live.note_shown(view)
                for record in records:
                    record(view, controls.search)
            if window.listen():
                drawn_s = float("-inf")


def _run_headless(live: Live, records: Sequence[Record], until_s: float, boxes_xywh: Sequence[Box]) -> None:
    """Record views until the source ends or it is time; DatasetError if the source fails."""
    _begin(live, boxes_xywh)
    number, used, told = 0, 0, ""
    while time.monotonic() < until_s:
        view = live.newest(number, REFRESH_S)
        if view is not None:
            number, used = view.number, view.frame.number
            live.note_shown(view)
            for record in records:
                record(view, False)
        if live.is_last(used):
            state = live.capture.state()
            if state.kind == "failed":
                raise DatasetError(state.message)
            return
        told = _tell(live, told)


def _begin(live: Live, boxes_xywh: Sequence[Box]) -> None:
    """Start on targets in the first frame, at which the live view stands still; DatasetError if none comes."""
    told = ""
    while (view := live.newest(0, REFRESH_S)) is None:
        state, told = live.capture.state(), _tell(live, told)
        if state.kind in ("failed", "ended"):
            raise DatasetError(state.message)
    for box_xywh in boxes_xywh:
        live.do(Session.draw, view.frame.image, box_xywh)
    live.paused = False


def _status(live: Live) -> list[Line]:
    """Return the lines at the top of the window: the speed, and the trouble of the source if there is any."""
    capture, used = live.capture, live.statistics.frames_per_s(time.monotonic())
    speed = "paused" if live.paused else f"{used:.1f} of {capture.frames_per_s:.1f} frames/s"
    return [("" if capture.state().final else speed, WHITE), (_matter(live), ORANGE)]


def _matter(live: Live) -> str:
    """Return the trouble of the source in words; nothing if it runs."""
    state = live.capture.state()
    if state.kind == "waiting":
        return f"waiting for {live.capture.name}"
    return f"{state.message}; trying again" if state.kind == "failed" and not state.final else state.message


def _tell(live: Live, told: str) -> str:
    """Print on stderr that the source has failed or stalled, once each time; return the state that it is in."""
    kind = live.capture.state().kind
    if kind in ("failed", "stalled") and kind != told:
        print(f"ebmtrack: {_matter(live)}", file=sys.stderr)
    return kind


def _report(live: Live, outputs: Sequence[Recorder | ResultLog], end: str) -> None:
    """Print how it went, and which files were written; frames were delayed until this end."""
    print(live.statistics.text(live.capture.frames, end))
    for path in (path for output in outputs for path in output.files):
        print(f"saved {path}")


def _checked_source(camera: int | None, source: str | os.PathLike | None) -> str | int:
    """Return the source of frames: the camera's number or the source, not both; the first camera by default."""
    if source is None:
        return 0 if camera is None else camera
    if camera is not None:
        raise ConfigError("--camera is a camera's number, --source a file or URL: use one of the two")
    return path_or_stdin(os.fspath(source))


def _checked_headless(headless: bool, output: str | os.PathLike | None, has_boxes: bool) -> bool:
    """Return whether to go without a window: if that is asked for, or if there is no screen and all else is given."""
    complete = output is not None and has_boxes
    if headless and not complete:
        missing = [START] * (not has_boxes) + [OUTPUT] * (output is None)
        raise ConfigError(f"--headless opens no window: add {' and '.join(missing)}")
    if headless:
        return True
    try:
        require_screen("ebmtrack webcam", HEADLESS)
    except ConfigError:
        if not complete:
            raise
        print("note: there is no screen, so no window is opened", file=sys.stderr)
        return True
    return False
