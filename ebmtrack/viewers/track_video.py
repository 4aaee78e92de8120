"""Tracking a video from end to end: the work behind `ebmtrack track`."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.viewers.drawing import PALETTE, draw_box, draw_text
from ebmtrack.viewers.follow import Box, Span, Step, checked_span, first_frame, follow
from ebmtrack.viewers.frames import FrameSource, is_url, open_frames, without_password
from ebmtrack.viewers.results import FrameResult, ResultInfo, layout_of, write_results
from ebmtrack.viewers.selection import parse_boxes, select_box
from ebmtrack.viewers.tracking_view import TrackingView
from ebmtrack.viewers.video_file import VideoWriter, check_is_not_source, checked_video_path
from ebmtrack.viewers.visdom import VisdomPanel
from ebmtrack.viewers.window import ESCAPE, Window, require_screen


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
        self.rows += step.results
        self.boxes_of += [[] for _ in range(len(step.results) - len(self.boxes_of))]
        for boxes, row in zip(self.boxes_of, step.results):
            boxes.append(row.box_xywh)
        self.seconds += step.seconds

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
    init: str | Sequence[str] | None = None,
    select: bool = False,
    save: str | os.PathLike | None = None,
    boxes: str | os.PathLike | None = None,
    show: bool = False,
    max_frames: int | None = None,
    visdom: str | None = None,
    layout: str | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    every: int = 1,
) -> Track:
    """Track targets through a source of frames; save a video, files of boxes, show it, as asked.

    The target is the box `init` ("x,y,w,h"; several boxes, or one text with ; between them, for several targets),
    or drawn with the mouse (`select`, also where neither is given). `load_tracker` is called once the first frame
    is there. Where nothing is asked for, boxes are saved to NAME_boxes.txt in the current folder. Several targets
    have a file each, NAME_1.txt and so on.
    `boxes` is written in the layout that its ending names (see results.py), or in `layout`. `start` and `end` are
    frames, from 0, or times; the boxes are those in the frame `start`. `visdom` is the URL of a
    server that shows what the tracker sees. What was tracked is saved also if the user
    interrupts or a frame cannot be read; then the error goes on. Frames that cannot be read in the middle of a video
    keep the last box and are passed over; a DatasetError at the end names them. Raises ConfigError and DatasetError.
    """
    starts_xywh = _checked_starts(init, select)
    if visdom is not None and len(starts_xywh) > 1:
        raise ConfigError("--visdom shows what the tracker sees of one target: give one box, or leave it out")
    boxes_path, save_path = _checked_outputs(source, save, boxes, show, max_frames)
    if boxes_path is not None:
        layout = layout_of(boxes_path, layout)
    result = Track()
    with ExitStack() as stack:
        frames = stack.enter_context(open_frames(source))
        span = checked_span(start, end, every, frames.fps)
        first = first_frame(frames, span)
        starts_xywh = starts_xywh or [select_box(first)]
        tracker = load_tracker()
        if visdom is not None:
            panel = stack.enter_context(VisdomPanel("ebmtrack_track", visdom))
            tracker.watch = TrackingView(panel, tracker, curves=True)
        stack.enter_context(_interrupted_by_signals())
        info = _info(frames, first, tracker)
        stack.enter_context(_kept(result, boxes_path, layout, info))
        outputs: list[Callable[[np.ndarray], object]] = []
        outputs += [stack.enter_context(_video(result, save_path, frames.fps / every))] if save_path else []
        outputs += [stack.enter_context(Window(f"ebmtrack: {frames.name} (q ends)")).show] if show else []
        _follow(tracker, frames, first, starts_xywh, span, result, outputs, max_frames)
    if frames.note and frames.complete:
        print(f"note: {frames.note}")
    print(result.summary())
    if not frames.complete:
        raise DatasetError(f"{frames.note} (what was tracked is saved)")
    return result


def _follow(
    tracker: Any,
    frames: FrameSource,
    first: np.ndarray,
    starts_xywh: list[Box],
    span: Span,
    result: Track,
    outputs: Sequence[Callable[[np.ndarray], object]],
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
            if step.image is not None and _shown(outputs, step.image, result, step.answers or None):
                return
            if max_frames is not None and len(result.boxes_xywh) >= max_frames:
                return


def _shown(
    outputs: Sequence[Callable[[np.ndarray], object]], image: np.ndarray, result: Track, found: list | None
) -> bool:
    """Draw the newest boxes on a copy of the frame for all outputs; whether one of them got the key to end.

    found: the targets' results, or None where tracking starts.
    """
    if not outputs:
        return False
    boxes_of = result.boxes_of
    drawn, several = image.copy(), len(boxes_of) > 1
    for k, boxes in enumerate(boxes_of):
        label = f"{k + 1} " * several + ("start" if found is None else f"{found[k].score:.2f}")
        lost = found is not None and not found[k].found
        draw_box(drawn, boxes[-1], label, colour=PALETTE[k % len(PALETTE)], lost=lost)
    draw_text(drawn, f"{len(result.boxes_xywh) - 1}  {result.fps:.0f} frames/s", (0, 0))
    keys = [output(drawn) for output in outputs]
    return any(key in (ESCAPE, ord("q")) for key in keys)


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
def _kept(result: Track, boxes_path: Path | None, layout: str | None, info: ResultInfo) -> Iterator[None]:
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


def _info(frames: FrameSource, first: np.ndarray, tracker: Any) -> ResultInfo:
    """Return what a file of results says about its making."""
    params = getattr(tracker, "params", None)
    network, seed = str(getattr(params, "weights", "") or ""), getattr(params, "seed", None)
    return ResultInfo(frames.name, frames.fps, (first.shape[1], first.shape[0]), network, seed)


@contextmanager
def _video(result: Track, path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Return a function that adds a frame to a video, which is finished however the block ends."""
    writer = VideoWriter(path, fps)
    try:
        yield writer.write
    finally:
        writer.close()
        if writer.frames_written:
            result.files.append(path)


def _checked_starts(init: str | Sequence[str] | None, select: bool) -> list[Box]:
    """Return the boxes to begin with; none where one is to be drawn on the first frame."""
    texts = [init] if isinstance(init, str) else list(init or ())
    if texts and select:
        raise ConfigError("--init gives the box and --select draws it: use one of the two")
    if texts:
        return parse_boxes(texts)
    require_screen("drawing a box with the mouse (--select)", "give the box instead: --init x,y,w,h")
    return []


def _checked_outputs(source, save, boxes, show: bool, max_frames: int | None) -> tuple[Path | None, Path | None]:
    """Return the paths for boxes and video, checked before work begins."""
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"--max-frames is a number of frames, at least 1, not {max_frames}")
    if show:
        require_screen("--show", "leave it out and use --save OUT.mp4")
    if save is None and boxes is None and not show:
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
