"""Tracking a video from end to end: the work behind `ebmtrack track`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ebmtrack.errors import ConfigError, DatasetError, EbmtrackError
from ebmtrack.files import write_text
from ebmtrack.viewers.drawing import draw_box, draw_text
from ebmtrack.viewers.frames import FrameSource, is_url, open_frames, without_password
from ebmtrack.viewers.selection import parse_box, select_box
from ebmtrack.viewers.tracking_view import TrackingView
from ebmtrack.viewers.video_file import VideoWriter, checked_video_path
from ebmtrack.viewers.visdom import VisdomPanel
from ebmtrack.viewers.window import ESCAPE, Window, require_screen


@dataclass
class Track:
    """What tracking has given so far: a box for each frame, how often it lost the target, time, files.

    `boxes_xywh` starts with the box that tracking began with; `seconds` counts the tracker's updates alone.
    """

    boxes_xywh: list[tuple[float, ...]] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames tracked for each second that the tracker worked (0 before the second frame)."""
        return (len(self.boxes_xywh) - 1) / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line: frames, speed, losses, files."""
        count = len(self.boxes_xywh)
        speed = f", {self.fps:.1f} frames/s" if count > 1 else ""
        lost = f"lost in {self.lost}" if self.lost else "never lost"
        return f"{count} frames{speed}, {lost}; saved {', '.join(map(str, self.files)) or 'nothing'}"


def track(
    source: str | os.PathLike | int,
    load_tracker: Callable[[], object],
    init: str | None = None,
    select: bool = False,
    save: str | os.PathLike | None = None,
    boxes: str | os.PathLike | None = None,
    show: bool = False,
    max_frames: int | None = None,
    visdom: str | None = None,
) -> Track:
    """Track one target through a source of frames; save a video, a file of boxes, show it, as asked.

    The target is the box `init` ("x,y,w,h"), or drawn with the mouse (`select`, also where neither is given).
    `load_tracker` is called once the first frame is there. Where nothing is asked for, boxes are saved to
    NAME_boxes.txt in the current folder. `visdom` is the URL of a server that shows what the tracker sees. What was
    tracked is saved also where the user interrupts or a frame cannot be read; then the error goes on. Raises
    ConfigError and DatasetError.
    """
    start_xywh = _checked_start(init, select)
    boxes_path, save_path = _checked_outputs(source, save, boxes, show, max_frames)
    result = Track()
    with ExitStack() as stack:
        frames = stack.enter_context(open_frames(source))
        first = next(frames, None)
        if first is None:
            raise DatasetError(f"{frames.name} holds no frames")
        start_xywh = start_xywh or select_box(first)
        tracker = load_tracker()
        if visdom is not None:
            panel = stack.enter_context(VisdomPanel("ebmtrack_track", visdom))
            tracker.watch = TrackingView(panel, tracker, curves=True)
        stack.enter_context(_kept(result, boxes_path))
        outputs = [stack.enter_context(_video(result, save_path, frames.fps))] if save_path else []
        outputs += [stack.enter_context(Window(f"ebmtrack: {frames.name} (q ends)")).show] if show else []
        _follow(tracker, frames, first, start_xywh, result, outputs, max_frames)
    if frames.note:
        print(f"note: {frames.note}")
    print(result.summary())
    return result


def boxes_text(boxes_xywh: list[tuple[float, ...]]) -> str:
    """Boxes as text, one line x,y,w,h for each frame, three decimals."""
    return "".join(",".join(f"{value:.3f}" for value in box) + "\n" for box in boxes_xywh)


def _follow(
    tracker,
    frames: FrameSource,
    first: np.ndarray,
    start_xywh: tuple[float, ...],
    result: Track,
    outputs: list[Callable[[np.ndarray], object]],
    max_frames: int | None,
) -> None:
    """Track frame by frame and hand each drawn frame to the outputs; one that returns a key can end it."""
    tracker.init(first, start_xywh)
    result.boxes_xywh.append(tuple(float(value) for value in start_xywh))
    totals = [number for number in (frames.length, max_frames) if number is not None]
    with tqdm(total=min(totals, default=None), unit=" frames", disable=None, leave=False) as bar:
        bar.update()
        if _shown(outputs, first, result, "start", False):
            return
        while max_frames is None or len(result.boxes_xywh) < max_frames:
            image = next(frames, None)
            if image is None:
                return
            update = _timed_update(tracker, image, result)
            bar.update()
            if getattr(tracker, "watch", None):
                tracker.watch(frames.name, len(result.boxes_xywh) - 1, image, update)
            if _shown(outputs, image, result, f"{update.score:.2f}", not update.found):
                return


def _timed_update(tracker, image: np.ndarray, result: Track):
    """The tracker's result for one more frame, noted down; an error names the frame."""
    began = time.perf_counter()
    try:
        update = tracker.update(image)
    except EbmtrackError as error:
        raise type(error)(f"frame {len(result.boxes_xywh)}: {error}") from error
    result.seconds += time.perf_counter() - began
    result.boxes_xywh.append(tuple(float(value) for value in update.box_xywh))
    result.lost += not update.found
    return update


def _shown(outputs: list, image: np.ndarray, result: Track, label: str, lost: bool) -> bool:
    """Draw the newest box on a copy of the frame for all outputs; whether one of them got the key to end."""
    if not outputs:
        return False
    drawn = draw_box(image.copy(), result.boxes_xywh[-1], label, lost=lost)
    draw_text(drawn, f"{len(result.boxes_xywh) - 1}  {result.fps:.0f} frames/s", (0, 0))
    keys = [output(drawn) for output in outputs]
    return any(key in (ESCAPE, ord("q")) for key in keys)


@contextmanager
def _kept(result: Track, boxes_path: Path | None) -> Iterator[None]:
    """Save the boxes at the end, also where that comes early by an error or by Ctrl-C, which is said."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _save_boxes(result, boxes_path)
        if result.boxes_xywh:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error"
            print(f"{why}; kept what was tracked: {result.summary()}")
        raise
    _save_boxes(result, boxes_path)


def _save_boxes(result: Track, boxes_path: Path | None) -> None:
    """Write the file of boxes, if one is wanted and there are boxes."""
    if boxes_path is None or not result.boxes_xywh:
        return
    try:
        write_text(boxes_path, boxes_text(result.boxes_xywh))
    except OSError as error:
        raise ConfigError(f"{boxes_path}: cannot write here: {error.strerror or error}") from None
    result.files.append(boxes_path)


@contextmanager
def _video(result: Track, path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame to a video, which is finished however the block ends."""
    writer = VideoWriter(path, fps)
    try:
        yield writer.write
    finally:
        writer.close()
        if writer.frames_written:
            result.files.append(path)


def _checked_start(init: str | None, select: bool) -> tuple[float, ...] | None:
    """The box to begin with, or None where it is to be drawn on the first frame."""
    if init is not None and select:
        raise ConfigError("--init gives the box and --select draws it: use one of the two")
    if init is not None:
        return parse_box(init)
    require_screen("drawing a box with the mouse (--select)", "give the box instead: --init x,y,w,h")
    return None


def _checked_outputs(
    source, save, boxes, show: bool, max_frames: int | None
) -> tuple[Path | None, Path | None]:
    """The paths for boxes and video, checked before work begins."""
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"--max-frames is a number of frames, at least 1, not {max_frames}")
    if show:
        require_screen("--show", "leave it out and use --save OUT.mp4")
    if save is None and boxes is None and not show:
        boxes = f"{_plain_name(source)}_boxes.txt"
        print(f"boxes go to {boxes} (choose with --boxes OUT.txt, --save OUT.mp4 or --show)")
    if boxes is not None and Path(boxes).is_dir():
        raise ConfigError(f"{boxes} is a folder; give a file name for the boxes")
    return Path(boxes) if boxes is not None else None, checked_video_path(save) if save is not None else None


def _plain_name(source: str | os.PathLike | int) -> str:
    """A name for files made from a source: a file's stem, a folder's name, a camera's number."""
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if is_url(text):
        place = without_password(text).split("://", 1)[1].split("?")[0]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", place).strip("_") or "stream"
    path = Path(text).expanduser().resolve()
    if path.is_dir():
        return path.name or "frames"
    return path.stem if path.exists() or not text.isdigit() else f"camera{text}"
