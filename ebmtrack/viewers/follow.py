"""Targets followed through a source of frames: the loop behind `ebmtrack.track` and `ebmtrack track`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError, EbmtrackError
from ebmtrack.viewers.frames import FrameSource, open_frames
from ebmtrack.viewers.results import FrameResult

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Span:
    """The frames of a source that are tracked: from `start` to `end` (both included, from 0), every `every`-th."""

    start: int = 0
    end: int | None = None
    every: int = 1

    def has(self, number: int) -> bool:
        """Return whether frame `number` is tracked."""
        within = number >= self.start and (self.end is None or number <= self.end)
        return within and (number - self.start) % self.every == 0


@dataclass(frozen=True)
class Step:
    """What is known after one frame.

    Attributes:
        results: One for each target.
        image: The frame, RGB uint8 (h, w, 3); None if it could not be read.
        answers: What the tracker gave for each target; empty for the first frame and for unreadable ones.
        seconds: Time that the tracker took.
    """

    results: list[FrameResult]
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    answers: list[Any] = field(default_factory=list, repr=False, compare=False)
    seconds: float = 0.0


def track(
    source: str | os.PathLike | int,
    boxes: Sequence[float] | Sequence[Sequence[float]],
    tracker: Any = None,
    *,
    start: int = 0,
    end: int | None = None,
    every: int = 1,
) -> Iterator[FrameResult]:
    """Track one target or several through a video and yield where they are, frame by frame.

    Args:
        source: Video file, folder of pictures, TIFF stack, camera number or URL.
        boxes: The target's box x, y, w, h in frame `start`, in pixels; or a list of boxes of several targets.
        tracker: A Tracker; by default the one that ships.
        start: First frame that is tracked, from 0.
        end: Last one; by default the source's.
        every: Distance of the frames that are tracked.

    Yields:
        For each frame one FrameResult for each target; `to_dict` makes rows for a table.

    Raises:
        ConfigError: On boxes that cannot be tracked.
        DatasetError: If the source cannot be read; after the last frame, if some frames could not be read.
    """
    several: Sequence[Any] = [boxes] if np.ndim(boxes[0]) == 0 else boxes
    starts = [_as_box(box) for box in several]
    if tracker is None:
        from ebmtrack.tracking.tracker import Tracker

        tracker = Tracker.from_pretrained()
    with open_frames(source) as frames:
        span = checked_span(start, end, every)
        first = first_frame(frames, span)
        for step in follow(frames, first, tracker, starts, span):
            yield from step.results
        if not frames.complete:
            raise DatasetError(str(frames.note))


def first_frame(frames: FrameSource, span: Span) -> np.ndarray:
    """Return the first frame of a span; DatasetError if the source ends before it."""
    for image in frames:
        if frames.position > span.start:
            return image
    last = (
        f"ends after {frames.position} frames, before frame {span.start}" if frames.frames_read else "holds no frames"
    )
    raise DatasetError(f"{frames.name} {last}")


def follow(
    frames: FrameSource, first: np.ndarray, tracker: Any, starts_xywh: Sequence[Box], span: Span = Span()
) -> Iterator[Step]:
    """Start on targets in the first frame and yield a Step for each frame of the span.

    Args:
        frames: The source; its next frame is the one after `first`.
        first: The frame in which the targets' boxes are.
        tracker: A Tracker. Several targets go through its network together.
        starts_xywh: The boxes.
        span: Which frames are tracked.

    Raises:
        EbmtrackError: As the tracker and the source raise; the message names the frame.
    """
    update = start_targets(tracker, first, starts_xywh)
    number = frames.position - 1
    last = [FrameResult(number, k, box) for k, box in enumerate(starts_xywh, 1)]
    yield Step(last, first)
    for image in frames:
        for missed in range(number + 1, frames.position - 1):
            if span.has(missed) and missed in frames.unreadable:
                last = [FrameResult(missed, row.id, row.box_xywh, None, "unreadable") for row in last]
                yield Step(last)
        number = frames.position - 1
        if span.end is not None and number > span.end:
            return
        if span.has(number):
            step = _tracked(update, image, number)
            last = step.results
            yield step
        if number == span.end:
            return


def start_targets(tracker: Any, first: np.ndarray, starts_xywh: Sequence[Box]) -> Callable[[np.ndarray], list]:
    """Start on targets; return a function image -> their results. Several go through the tracker's network together."""
    if len(starts_xywh) == 1:
        tracker.init(first, starts_xywh[0])
        return lambda image: [tracker.update(image)]
    from ebmtrack.tracking.tracker import MultiTracker

    several = MultiTracker(tracker.engine, tracker.params)
    for number, box in enumerate(starts_xywh, 1):
        try:
            several.add(first, box)
        except ConfigError as error:
            raise ConfigError(f"target {number}: {error}") from error
    return lambda image: list(several.update(image).values())


def checked_span(start: int | str | None, end: int | str | None, every: int, fps: float = 30.0) -> Span:
    """Return the span of frame numbers or times ("3.5s", "1:02.5"); ConfigError if it holds no frame.

    Args:
        start: First frame, from 0; None is 0.
        end: Last frame; None is the last one of the source.
        every: Distance of the frames.
        fps: Frames per second, for times.
    """
    first = frame_number(start, fps, "--start") if start is not None else 0
    last = frame_number(end, fps, "--end") if end is not None else None
    if last is not None and last < first:
        raise ConfigError(f"--end {end} is before --start {start}: there is nothing to track")
    if every < 1:
        raise ConfigError(f"--every is a distance of frames, at least 1, not {every}")
    return Span(first, last, every)


def frame_number(text: int | str, fps: float, option: str) -> int:
    """Return the number of a frame that is given as such ("90") or as a time ("3.5s", "1:02.5", "0:01:02")."""
    parts = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)(s?)", str(text).strip())
    if parts is None or not (parts[2] or parts[4] or "." not in parts[3]):
        raise ConfigError(f"{option} is a frame's number such as 90, or a time such as 3.5s or 1:02.5, not {text!r}")
    if not (parts[2] or parts[4]):
        return int(parts[3])
    return round((3600 * int(parts[1] or 0) + 60 * int(parts[2] or 0) + float(parts[3])) * fps)


def _tracked(update: Callable[[np.ndarray], list], image: np.ndarray, number: int) -> Step:
    """Return the step of one more frame; an error names the frame."""
    began = time.perf_counter()
    try:
        answers = update(image)
    except EbmtrackError as error:
        raise type(error)(f"frame {number}: {error}") from error
    seconds = time.perf_counter() - began
    results = []
    for k, answer in enumerate(answers, 1):
        verdict = getattr(answer, "verdict", "normal" if answer.found else "not_found")
        results.append(FrameResult(number, k, _as_box(answer.box_xywh), float(answer.score), verdict))
    return Step(results, image, answers, seconds)


def _as_box(box_xywh: Sequence[float]) -> Box:
    """Return a box as four floats; ConfigError if it is none."""
    try:
        x, y, w, h = (float(value) for value in box_xywh)
    except (TypeError, ValueError):
        raise ConfigError(f"a box is four numbers x, y, w, h in pixels, not {box_xywh!r}") from None
    return x, y, w, h
