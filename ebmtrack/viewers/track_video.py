"""Tracking a video from end to end: the work behind `ebmtrack track`."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.viewers.drawing import PALETTE, draw_box, draw_text
from ebmtrack.viewers.follow import Span, Step, are_all_in, checked_span, first_frame, follow, label, whole_span
from ebmtrack.viewers.frames import FrameSource, is_stream, is_url, open_frames, without_password
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.results import Box, FrameResult, ResultInfo, layout_of, write_results
from ebmtrack.viewers.seekable import OneFrame, SeekableFrames
from ebmtrack.viewers.selection import parse_key_frames
from ebmtrack.viewers.track_options import TrackOptions
from ebmtrack.viewers.tracking_view import TrackingView
from ebmtrack.viewers.video_file import VideoWriter, check_is_not_source, checked_video_path
from ebmtrack.viewers.visdom import VisdomPanel
from ebmtrack.viewers.window import ESCAPE, Window, require_screen

Output = Callable[[np.ndarray, float], object]  # takes a drawn frame and when it is shown, in seconds


@dataclass
class Track:
    """What tracking has given so far: for each target a box for each frame, how often one was lost, time, files.

    Each list of boxes starts with the box that tracking began with; `seconds` counts the tracker's updates alone.
    """

    boxes_of: list[list[tuple[float, ...]]] = field(default_factory=lambda: [[]])
    rows: list[FrameResult] = field(default_factory=list)
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Note down one more frame."""
        self.add_rows(step.results)
        self.seconds += step.seconds

    def add_rows(self, rows: Sequence[FrameResult]) -> None:
        """Note down results."""
        self.rows += rows
        for row in rows:
            self.boxes_of += [[] for _ in range(row.id - len(self.boxes_of))]
            self.boxes_of[row.id - 1].append(row.box_xywh)

    @property
    def lost(self) -> int:
        """How often a target was lost."""
        return sum(row.verdict == "not_found" for row in self.rows)

    @property
    def unreadable(self) -> list[int]:
        """The numbers, from 0, of frames that could not be read; their boxes are those of the frame before."""
        return sorted({row.frame for row in self.rows if row.verdict == "unreadable"})

    @property
    def boxes_xywh(self) -> list[tuple[float, ...]]:
        """The boxes of the first target."""
        return self.boxes_of[0]

    @property
    def fps(self) -> float:
        """Frames tracked for each second that the tracker worked (0 before the second frame)."""
        return (len(self.boxes_xywh) - len(self.unreadable) - 1) / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line: frames, speed, losses, files."""
        count = len(self.boxes_xywh)
        speed = f", {self.fps:.1f} frames/s" if count > 1 else ""
        lost = f"lost in {self.lost}" if self.lost else "never lost"
        lost += f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        targets = f"{len(self.boxes_of)} targets, " if len(self.boxes_of) > 1 else ""
        return f"{targets}{count} frames{speed}, {lost}; saved {', '.join(map(str, self.files)) or 'nothing'}"


def track(
    source: str | os.PathLike | int,
    load_tracker: Callable[[], Any],
    init: str | Sequence[str] = (),
    *,
    visdom: str | None = None,
    **options: Any,
) -> Track:
    """Track targets through a source of frames; save a video, files of boxes, show it, as asked.

    What was tracked is saved also if the user interrupts or a frame cannot be read; then the error goes on. Frames
    that cannot be read in the middle of a video keep the last box and are passed over; a DatasetError at the end names
    them. If nothing is asked for, boxes are saved to NAME_boxes.txt in the current folder.

    Args:
        source: Video file, folder of pictures, camera number or URL.
        load_tracker: Called once the first frame is there.
        init: A target's box "x,y,w,h"; several of them, or boxes with frames: see TrackOptions.
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
        self.source, self.load_tracker, self.visdom, self.options = source, load_tracker, visdom, options
        self.result, self.complete = Track(), True
        self.note: str | None = None
        default = None if options.both else 0
        written = parse_key_frames(options.init, 30.0, default) if options.init else []
        if visdom is not None and (len(written) > 1 or options.direction != "forward"):
            raise ConfigError("--visdom shows what the tracker sees of one target: give one box, or leave it out")
        self.boxes_path, self.save_path = _checked_outputs(source, options)
        self.layout = layout_of(self.boxes_path, options.layout) if self.boxes_path is not None else None

    def run(self, stack: ExitStack) -> None:
        """Track, by reading once from front to end if that is enough."""
        options = self.options
        if options.select and not is_stream(self.source):
            self._label(stack, None)
            return
        frames = stack.enter_context(open_frames(self.source))
        span = checked_span(options.start, options.end, options.every, frames.fps)
        default = {"forward": span.start, "backward": span.end, "both": None}[options.direction]
        texts = options.init
        if options.direction == "backward" and span.end is None:
            default = -1  # the last frame, which is not known yet
        keys = parse_key_frames(texts, frames.fps, default) if texts else []
        if keys and not (options.direction == "forward" and are_all_in(keys, span.start)):
            frames.close()
            self._label(stack, keys)
            return
        first = first_frame(frames, span)
        keys = keys or self._draw(OneFrame(first, frames, span.start), span)
        self._follow(stack, frames, span, first, [key.box_xywh for key in keys])

    def _follow(self, stack: ExitStack, frames: FrameSource, span: Span, first: np.ndarray, starts: list[Box]) -> None:
        """Track forward, while reading the source once."""
        tracker: Any = self.load_tracker()
        if self.visdom is not None:
            panel = stack.enter_context(VisdomPanel("ebmtrack_track", self.visdom))
            tracker.watch = TrackingView(panel, tracker, curves=True)
        stack.enter_context(_interrupted_by_signals())
        stack.enter_context(_save_at_end(self.result, self.boxes_path, self.layout, _info(frames, first, tracker)))
        outputs = self._outputs(stack, frames)
        _follow(tracker, frames, first, starts, span, self.result, outputs, self.options.max_frames)
        self.note, self.complete = frames.note, frames.complete

    def _label(self, stack: ExitStack, keys: list[KeyFrame] | None) -> None:
        """Track through key frames, drawn in a window if there are none, then draw the frames."""
        options = self.options
        frames = stack.enter_context(SeekableFrames(self.source))
        span = checked_span(options.start, options.end, options.every, frames.fps)
        if keys is None:
            keys = self._draw(frames, span)
        span = _limited(whole_span(frames, span), options)
        keys = [replace(key, frame=span.end or 0) if key.frame < 0 else key for key in keys]
        tracker = self.load_tracker()
        stack.enter_context(_interrupted_by_signals())
        first = frames.read(span.start)
        shape = first if first is not None else np.zeros((0, 0, 3), np.uint8)
        stack.enter_context(_save_at_end(self.result, self.boxes_path, self.layout, _info(frames, shape, tracker)))
        began = time.perf_counter()
        total = (span.end - span.start) // span.every + 1 if span.end is not None else None
        with tqdm(total=total, unit=" frames", disable=None, leave=False) as bar:
            for part in label(frames, keys, tracker, span, options.direction):
                self.result.add_rows(part)
                bar.update(len(part))
        self.result.seconds = time.perf_counter() - began
        self.note, self.complete = frames.note, frames.complete
        self._draw_all(self._outputs(stack, frames), frames)

    def _draw(self, frames: Any, span: Span) -> list[KeyFrame]:
        """Return the key frames that the user draws."""
        from ebmtrack.live.labelling import draw_key_frames

        return draw_key_frames(frames, self.load_tracker, span.start)

    def _outputs(self, stack: ExitStack, frames: Any) -> list[Output]:
        """Return functions that take drawn frames: the video and the window that are asked for."""
        outputs: list[Output] = []
        if self.save_path:
            sound = None if is_stream(self.source) or os.path.isdir(self.source) else Path(str(self.source))
            writer = VideoWriter(self.save_path, frames.fps, sound, frames.pixel_aspect)
            outputs.append(stack.enter_context(_video(self.result, writer)))
        if self.options.show:
            window = stack.enter_context(Window(f"ebmtrack: {frames.name} (q ends)"))
            outputs.append(lambda image, _: window.show(image))
        return outputs

    def _draw_all(self, outputs: list[Output], frames: SeekableFrames) -> None:
        """Draw all results on their frames, from front to end."""
        by_frame: dict[int, list[FrameResult]] = {}
        for row in self.result.rows:
            by_frame.setdefault(row.frame, []).append(row)
        for frame in sorted(by_frame) if outputs else ():
            image = frames.read(frame)
            if image is not None:
                drawn = draw_results(image, by_frame[frame], self.result.fps)
                if _is_ended(outputs, drawn, frames.moments_s[frame]):
                    return


def _follow(
    tracker: Any,
    frames: FrameSource,
    first: np.ndarray,
    starts_xywh: list[Box],
    span: Span,
    result: Track,
    outputs: Sequence[Output],
    max_frames: int | None,
) -> None:
    """Track frame by frame and hand each drawn frame to the outputs; one that returns a key can end it."""
    totals = [number for number in (frames.length, max_frames) if number is not None]
    with tqdm(total=min(totals, default=None), unit=" frames", disable=None, leave=False) as bar:
        for step in follow(frames, first, tracker, starts_xywh, span):
            result.add(step)
            bar.update()
            if step.answers and getattr(tracker, "watch", None):
                tracker.watch(frames.name, step.results[0].frame, step.image, step.answers[0])
            if outputs and step.image is not None:
                if _is_ended(outputs, draw_results(step.image, step.results, result.fps), step.moment_s):
                    return
            if max_frames is not None and len(result.boxes_xywh) >= max_frames:
                return


def draw_results(image: np.ndarray, rows: Sequence[FrameResult], fps: float) -> np.ndarray:
    """Return a copy of a frame with the boxes of its results, its number and the speed."""
    drawn = image.copy()
    for row in rows:
        label = f"{row.id} " * (len(rows) > 1) + ("start" if row.score is None else f"{row.score:.2f}")
        draw_box(drawn, row.box_xywh, label, colour=PALETTE[(row.id - 1) % len(PALETTE)], lost=not row.found)
    return draw_text(drawn, f"{rows[0].frame}  {fps:.0f} frames/s", (0, 0))


def _limited(span: Span, options: TrackOptions) -> Span:
    """Return a span of at most --max-frames frames, counted from where tracking begins."""
    if options.max_frames is None or span.end is None:
        return span
    reach = (options.max_frames - 1) * span.every
    if options.direction == "backward":
        return replace(span, start=max(span.start, span.end - reach))
    return replace(span, end=min(span.end, span.start + reach))


def _is_ended(outputs: Sequence[Output], drawn: np.ndarray, moment_s: float) -> bool:
    """Hand a drawn frame and its moment to all outputs; return whether one of them got the key to end."""
    return any(key in (ESCAPE, ord("q")) for key in [output(drawn, moment_s) for output in outputs])


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let what ends a session, a job or a service (SIGTERM, SIGHUP) do what Ctrl-C does: nothing tracked is lost."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names if hasattr(signal, name)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextmanager
def _save_at_end(result: Track, boxes_path: Path | None, layout: str | None, info: ResultInfo) -> Iterator[None]:
    """Save the boxes at the end, also where that comes early by an error or by Ctrl-C, which is said."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _save_boxes(result, boxes_path, layout, info)
        if result.boxes_xywh:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error"
            print(f"{why}; kept what was tracked: {result.summary()}")
        raise
    _save_boxes(result, boxes_path, layout, info)


def _save_boxes(result: Track, boxes_path: Path | None, layout: str | None, info: ResultInfo) -> None:
    """Write the results, if wanted and if there are some."""
    if boxes_path is not None and result.rows:
        result.files += write_results(boxes_path, result.rows, info, layout)


def _info(frames: FrameSource | SeekableFrames, first: np.ndarray, tracker: Any) -> ResultInfo:
    """Return what a file of results says about its making."""
    network, seed = str(getattr(tracker, "network", "")), getattr(getattr(tracker, "params", None), "seed", None)
    return ResultInfo(frames.name, frames.fps, (first.shape[1], first.shape[0]), network, seed)


@contextmanager
def _video(result: Track, writer: VideoWriter) -> Iterator[Callable[..., None]]:
    """Return a function that adds a frame to a video, which is finished however the block ends."""
    try:
        yield writer.write
    finally:
        writer.close()
        if writer.frames_written:
            result.files.append(writer.path)


def _checked_options(init: str | Sequence[str], options: dict[str, Any]) -> TrackOptions:
    """Return the options of `track`; ConfigError if they contradict."""
    checked = TrackOptions(init=(init,) if isinstance(init, str) else tuple(init), **options)
    if checked.init and checked.select:
        raise ConfigError("--init gives the box and --select draws it: use one of the two")
    if checked.backward and checked.both:
        raise ConfigError("--both goes backward as well: use one of --backward and --both")
    if checked.max_frames is not None and checked.max_frames < 1:
        raise ConfigError(f"--max-frames is a number of frames, at least 1, not {checked.max_frames}")
    if not checked.init:
        require_screen("drawing a box with the mouse (--select)", "give the box instead: --init x,y,w,h")
    return replace(checked, select=not checked.init)


def _checked_outputs(source: Any, options: TrackOptions) -> tuple[Path | None, Path | None]:
    """Return the paths for boxes and video, checked before work begins."""
    save, boxes = options.save, options.boxes
    if options.show:
        require_screen("--show", "leave it out and use --save OUT.mp4")
    if save is None and boxes is None and not options.show:
        boxes = f"{_plain_name(source)}_boxes.txt"
        print(f"boxes go to {boxes} (choose with --boxes OUT.txt, --save OUT.mp4 or --show)")
    if boxes is not None and Path(boxes).is_dir():
        raise ConfigError(f"{boxes} is a folder; give a file name for the boxes")
    for output in (save, boxes):
        check_is_not_source(output, source)
        _check_writable(output)
    if save is not None and boxes is not None and Path(save).resolve() == Path(boxes).resolve():
        raise ConfigError(f"--save and --boxes both name {save}; give each a file of its own")
    return Path(boxes) if boxes is not None else None, checked_video_path(save) if save is not None else None


def _check_writable(path: str | os.PathLike | None) -> None:
    """ConfigError, before any work is done, where a file cannot be made in the folder of `path`."""
    if path is None or (Path(path).exists() and not Path(path).is_file()):
        return  # nothing asked for, or a pipe or device
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot write here: {error.strerror or error}") from None


def _plain_name(source: str | os.PathLike | int) -> str:
    """Return a name for files made from a source: a file's stem, a folder's name, a camera's number."""
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if is_url(text):
        place = without_password(text).split("://", 1)[1].split("?")[0]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", place).strip("_") or "stream"
    path = Path(text).expanduser().resolve()
    if path.is_dir():
        return path.name or "frames"
    return path.stem if path.exists() or not text.isdigit() else f"camera{text}"
