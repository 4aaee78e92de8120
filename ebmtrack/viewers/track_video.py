"""Tracking a video from end to end: the work behind `ebmtrack track`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.engines import runs_network
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.progress import progress_bar
from ebmtrack.tracking.params import INTERVAL_SAMPLES
from ebmtrack.viewers.follow import (
    Span,
    Step,
    are_all_in,
    checked_span,
    first_frame,
    follow,
    info_of,
    label,
    whole_span,
)
from ebmtrack.viewers.frames import FrameSource, open_frames
from ebmtrack.viewers.interrupts import interrupted_by_signals
from ebmtrack.viewers.key_files import check_is_not_given, read_given
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.outputs import checked_outputs, file_stem, tell_of_writing
from ebmtrack.viewers.partial_files import BoxesFile, partial_path, settle
from ebmtrack.viewers.results import FrameResult, ResultInfo, check_interval
from ebmtrack.viewers.seekable import OneFrame, SeekableFrames
from ebmtrack.viewers.selection import checked_key_frames, tell_of_overreach
from ebmtrack.viewers.source_names import is_stream
from ebmtrack.viewers.track_options import TrackOptions
from ebmtrack.viewers.tracking_view import TrackingView
from ebmtrack.viewers.video_file import VideoWriter
from ebmtrack.viewers.video_track import VideoTrack, draw_results
from ebmtrack.viewers.visdom import VisdomPanel
from ebmtrack.viewers.window import ESCAPE, Window, require_screen

Output = Callable[[np.ndarray, float], object]  # takes a drawn frame and when it is shown, in seconds


def track(
    source: str | os.PathLike | int,
    load_tracker: Callable[[], Any],
    init: str | Sequence[str] = (),
    *,
    visdom: str | None = None,
    **options: Any,
) -> VideoTrack:
    """Track targets through a source of frames; save a video, files of boxes, show it, as asked.

    What was tracked is saved also if the user interrupts or an error ends it, which then goes on: beside a file of an
    earlier run, to NAME.partial, where boxes are also written while the run goes on. Frames that cannot be read in the
    middle of a video keep the last box and are passed over; a DatasetError at the end names them. If nothing is asked
    for, boxes are saved to NAME_boxes.txt in the current folder.

    Args:
        source: Video file, folder of pictures, camera number or URL.
        load_tracker: Called once the first frame is there.
        init: A target's box "x,y,w,h"; several of them, boxes with frames, or files of boxes: see TrackOptions.
        visdom: URL of a server that shows what the tracker sees.
        options: See TrackOptions.

    Raises:
        ConfigError: On options that cannot be met.
        DatasetError: If the source cannot be read.
    """
    job = _Job(source, load_tracker, visdom, _checked_options(init, options))
    with ExitStack() as stack:
        job.run(stack)
    if job.note and job.complete:
        print(f"note: {job.note}")
    print(job.result.summary())
    if not job.complete:
        raise DatasetError(f"{job.note} (what was tracked is saved)")
    return job.result


class _Job:
    """One call of `track`: its options, checked before work begins, and what was tracked so far."""

    def __init__(
        self,
        source: str | os.PathLike | int,
        load_tracker: Callable[[], Any],
        visdom: str | None,
        options: TrackOptions,
    ):
        self.source, self.load_tracker, self.visdom, self.options = source, _once(load_tracker), visdom, options
        self.result, self.complete = VideoTrack(interval=options.interval), True
        self.note: str | None = None
        self.ended = False  # whether tracking, and the video that is written meanwhile, came to their end
        self.boxes: BoxesFile | None = None
        default = None if options.both else 0
        self.given = read_given(options.init, source)
        written = self.given.key_frames(round, default)  # without the source, which is not open yet
        if visdom is not None and (len(written) > 1 or options.direction != "forward"):
            raise ConfigError("--visdom shows what the tracker sees of one target: give one box, or leave it out")
        if options.show:
            require_screen("--show", "leave it out and use --save OUT.mp4")
        self.default_boxes = options.save is None and options.boxes is None and not options.show
        boxes = f"{file_stem(source)}_boxes.txt" if self.default_boxes else options.boxes
        self.boxes_path, self.save_path = checked_outputs(source, boxes, options.save, options.layout)
        for output in (self.boxes_path, self.save_path):
            check_is_not_given(output, options.init)
        self._tell_of_writing = _once(self._tell_of_files)

    def run(self, stack: ExitStack) -> None:
        """Track, by reading once from front to end if that is enough."""
        options = self.options
        if options.select and not is_stream(self.source):
            self._label(stack, None)
            return
        frames = stack.enter_context(open_frames(self.source))
        frame_at = frames.times.frame_at
        span = checked_span(options.start, options.end, options.every, frame_at)
        default = {"forward": span.start, "backward": -1, "both": None}[options.direction]  # -1: the last one
        keys = checked_key_frames(self.given.key_frames(frame_at, default)) if options.init else []
        if keys and not (options.direction == "forward" and are_all_in(keys, span.start)):
            frames.close()
            self._label(stack, keys)
            return
        first = first_frame(frames, span)
        keys = keys or self._draw(OneFrame(first, frames, span.start), span)
        tell_of_overreach(keys, first)
        self._follow(stack, frames, span, first, keys)

    def _follow(
        self, stack: ExitStack, frames: FrameSource, span: Span, first: np.ndarray, keys: list[KeyFrame]
    ) -> None:
        """Track forward, while reading the source once."""
        tracker: Any = self._tracker()
        if self.visdom is not None:
            panel = stack.enter_context(VisdomPanel("ebmtrack_track", self.visdom))
            tracker.watch = TrackingView(panel, tracker, curves=True)
        stack.enter_context(interrupted_by_signals())
        stack.enter_context(self._kept_is_told())
        self._open_boxes(frames, first, tracker)
        stack.callback(self._save_boxes)
        outputs = self._outputs(stack, frames)
        ended = self._follow_frames(tracker, frames, span, follow(frames, first, tracker, keys, span), outputs)
        self.ended = ended and not frames.ended_early
        self.note, self.complete = frames.note, frames.complete

    def _follow_frames(
        self, tracker: Any, frames: FrameSource, span: Span, steps: Iterator[Step], outputs: Sequence[Output]
    ) -> bool:
        """Note down frame by frame and hand each drawn frame to the outputs; one that returns a key can end it.

        Return whether tracking came to its end; a key is the end of streams alone.
        """
        result, most = self.result, self.options.max_frames
        totals = [number for number in (span.count(frames.length), most) if number is not None]
        with progress_bar(total=min(totals, default=None), unit=" frames", disable=None, leave=False) as bar:
            for step in steps:
                result.add(step)
                self._tell_of_writing()
                self._update_boxes()
                bar.update()
                if step.answers and getattr(tracker, "watch", None):
                    tracker.watch(frames.name, step.results[0].frame, step.image, step.answers[0])
                if outputs and step.image is not None:
                    drawn = draw_results(step.image, step.results, result.fps, result.interval)
                    if _is_ended(outputs, drawn, step.moment_s):
                        return is_stream(self.source)
                if most is not None and len(result.frames) >= most:
                    break
        return True

    def _label(self, stack: ExitStack, keys: list[KeyFrame] | None) -> None:
        """Track through key frames, drawn in a window if there are none, then draw the frames."""
        options = self.options
        if options.interval is not None:
            raise ConfigError(
                "--interval is for tracking forward from one frame: give --init x,y,w,h without key frames"
            )
        frames = stack.enter_context(SeekableFrames(self.source))
        span = checked_span(options.start, options.end, options.every, frames.times.frame_at)
        if keys is None:
            keys = self._draw(frames, span)
        span = whole_span(frames, span)
        keys = checked_key_frames([replace(key, frame=span.end or 0) if key.frame < 0 else key for key in keys])
        span = _limit(span, options, keys)
        tracker = self._tracker()
        stack.enter_context(interrupted_by_signals())
        within = span.start <= keys[0].frame <= (span.end or 0)
        first = frames.read(keys[0].frame) if within else None  # that of `start` may be one that cannot be read
        if within and first is None:
            raise ConfigError(f"{keys[0].place}, with a box of target {keys[0].id}, cannot be read")
        if first is None:
            first = np.zeros((0, 0, 3), np.uint8)  # tracking will refuse the key frame
        else:
            tell_of_overreach(keys, first)
        stack.enter_context(self._kept_is_told())
        try:
            self._open_boxes(frames, first, tracker)
            self._label_frames(frames, keys, tracker, span)
        except (Exception, KeyboardInterrupt):
            self._draw_interrupted(frames)
            raise
        self.note, self.complete = frames.note, frames.complete
        self._draw_all(frames)

    def _label_frames(self, frames: SeekableFrames, keys: Sequence[KeyFrame], tracker: Any, span: Span) -> None:
        """Track through key frames and save the boxes, whatever ends it."""
        began, notes = time.perf_counter(), list[str]()
        total = (span.count(frames.length) or 0) * len({key.id for key in keys})
        try:
            with progress_bar(total=total, unit=" frames", disable=None, leave=False) as bar:
                direction, watch = self.options.direction, self._update_boxes
                for part in label(frames, keys, tracker, span, direction, notes.append, watch):
                    self.result.add_rows(part)
                    bar.update(len(part))
                    if not any(row.verdict == "start" for row in part):
                        self._tell_of_writing()  # the tracker has started, and did not refuse the box
                        self._update_boxes()
            self.ended = not frames.ended_early
        except Exception:
            if all(row.verdict == "start" for row in self.result.rows):
                self.result.rows.clear()  # the given boxes alone: nothing was tracked
            raise
        finally:
            self.result.sort()
            self.result.seconds = time.perf_counter() - began
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
            self._save_boxes()

    @contextmanager
    def _kept_is_told(self) -> Iterator[None]:
        """Print what was tracked and saved if an error or Ctrl-C ends the block early."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            is_lost = (self.boxes_path or self.save_path) and not self.result.files
            if self.result.rows and not is_lost:
                why = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error"
                print(f"{why}; kept what was tracked: {self.result.summary()}")
            raise

    def _tell_of_files(self) -> None:
        """Print notes on the files that this run replaces: whole ones when it has ended, partial ones before."""
        files = [path for path in (self.boxes_path, self.save_path) if path is not None]
        tell_of_writing(*files, when=" at its end")
        tell_of_writing(*(partial for path in files if (partial := partial_path(path)) != path and partial.is_file()))

    def _update_boxes(self, more: Sequence[FrameResult] = ()) -> None:
        """Write what is known while the run goes on, with `more` results that are not noted down yet, if it is time."""
        if self.boxes is not None:
            self.boxes.update(chain(self.result.rows, more))

    def _save_boxes(self) -> None:
        """Write the results, if wanted and if there are some."""
        if self.boxes is not None and self.result.rows:
            self._tell_of_writing()
            self.result.files += self.boxes.finish(self.result.rows, self.ended)
            self.result.untouched += self.boxes.untouched

    def _tracker(self) -> Any:
        """Return the tracker; say where the boxes go if the user named no file."""
        tracker = self.load_tracker()
        if self.options.interval is not None:
            samples = tracker.params.interval_samples or INTERVAL_SAMPLES
            tracker.params = tracker.params.replace(interval_samples=samples)
            is_calibrated = tracker.params.lost_logit is not None
            if is_calibrated and not runs_network(tracker.engine, tracker.params.weights):
                print(
                    "note: intervals and lost-probability were calibrated with the set-up's own network, not with "
                    "these weights; `ebmtrack study intervals` calibrates them (docs/uncertainty.md)"
                )
        if self.default_boxes:
            print(f"boxes go to {self.boxes_path} (choose with --boxes OUT.txt, --save OUT.mp4 or --show)")
        return tracker

    def _open_boxes(self, frames: FrameSource | SeekableFrames, first: np.ndarray, tracker: Any) -> None:
        """Prepare the file of boxes, if there is one, with what it says about its making."""
        if self.boxes_path is not None:
            category = self.options.category or self.given.names
            info = info_of(frames, first, tracker, self.options.interval, category)
            self.boxes = BoxesFile(self.boxes_path, info, self.options.layout)

    def _draw(self, frames: Any, span: Span) -> list[KeyFrame]:
        """Return the key frames that the user draws."""
        from ebmtrack.live.labelling import draw_key_frames

        return draw_key_frames(frames, self.load_tracker, span.start)

    def _outputs(self, stack: ExitStack, frames: Any, show: bool = True) -> list[Output]:
        """Return functions that take drawn frames: the video and the window that are asked for."""
        outputs: list[Output] = []
        if self.save_path:
            sound = None if is_stream(self.source) or os.path.isdir(self.source) else Path(str(self.source))
            writer = VideoWriter(partial_path(self.save_path), frames.fps, sound, frames.pixel_aspect)
            outputs.append(stack.enter_context(self._video(writer, self.save_path)))
        if self.options.show and show:
            window = stack.enter_context(Window(f"ebmtrack: {frames.name} (q ends)"))
            outputs.append(lambda image, _: window.show(image))
        return outputs

    @contextmanager
    def _video(self, writer: VideoWriter, path: Path) -> Iterator[Callable[..., None]]:
        """Return a function that adds a frame to a video, which is finished, as a partial one, however the block ends.

        It takes its name, `path`, if the run came to its end or if there is no file of this name.
        """

        def write(image: np.ndarray, moment_s: float) -> None:
            self._tell_of_writing()
            writer.write(image, moment_s)

        whole = False
        try:
            yield write
            whole = self.ended
        finally:
            writer.close()
            if writer.frames_written:
                self.result.files.append(settle(writer.path, path, whole))
                if self.result.files[-1] != path:
                    self.result.untouched.append(path)

    def _draw_all(self, frames: SeekableFrames, show: bool = True) -> None:
        """Draw all results on their frames, from front to end."""
        by_frame: dict[int, list[FrameResult]] = {}
        for row in self.result.rows:
            by_frame.setdefault(row.frame, []).append(row)
        with ExitStack() as stack:
            outputs = self._outputs(stack, frames, show)
            for frame in sorted(by_frame) if outputs else ():
                image = frames.read(frame)
                if image is not None:
                    drawn = draw_results(image, by_frame[frame], self.result.fps)
                    if _is_ended(outputs, drawn, frames.moments_s[frame]):
                        self.ended = False  # the boxes are whole, the video is not
                        return

    def _draw_interrupted(self, frames: SeekableFrames) -> None:
        """Draw, without a window, what was tracked before an interrupt or an error; another error is only told."""
        try:
            self._draw_all(frames, show=False)
        except Exception as error:
            print(f"ebmtrack: the video is incomplete: {error}", file=sys.stderr)


def _once(load: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that loads once, whichever thread asks first, and returns the same tracker each time."""
    lock, loaded = threading.Lock(), list[Any]()

    def load_once() -> Any:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    return load_once


def _limit(span: Span, options: TrackOptions, keys: Sequence[KeyFrame]) -> Span:
    """Return a span of at most --max-frames frames, counted from where tracking begins."""
    if options.max_frames is None or span.end is None:
        return span
    reach = (options.max_frames - 1) * span.every
    if options.direction == "backward":
        return replace(span, start=max(span.start, min(span.end, max(key.frame for key in keys)) - reach))
    begin = min(key.frame for key in keys) if options.direction == "forward" else span.start
    return replace(span, end=min(span.end, begin + reach))


def _is_ended(outputs: Sequence[Output], drawn: np.ndarray, moment_s: float) -> bool:
    """Hand a drawn frame and its moment to all outputs; return whether one of them got the key to end."""
    return any(key in (ESCAPE, ord("q")) for key in [output(drawn, moment_s) for output in outputs])


def _checked_options(init: str | Sequence[str], options: dict[str, Any]) -> TrackOptions:
    """Return the options of `track`; ConfigError if they contradict."""
    checked = TrackOptions(init=(init,) if isinstance(init, str) else tuple(init), **options)
    if checked.init and checked.select:
        raise ConfigError("--init gives the box and --select draws it: use one of the two")
    if checked.backward and checked.both:
        raise ConfigError("--both goes backward as well: use one of --backward and --both")
    ResultInfo(category=checked.category)  # refuses what is no name
    check_interval(checked.interval, checked.boxes, checked.layout, bool(checked.save or checked.show))
    if checked.max_frames is not None and checked.max_frames < 1:
        raise ConfigError(f"--max-frames is a number of frames, at least 1, not {checked.max_frames}")
    if not checked.init:
        require_screen("drawing a box with the mouse (--select)", "give the box instead: --init x,y,w,h")
    return replace(checked, select=not checked.init)
