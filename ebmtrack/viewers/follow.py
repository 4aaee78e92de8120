"""Targets followed through a source of frames: the loop behind `ebmtrack.track` and `ebmtrack track`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, get_args

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import read_ahead
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.sequence import NumberedFrame, run_tracker
from ebmtrack.viewers.frames import FrameSource, open_frames
from ebmtrack.viewers.key_files import is_key_file, read_given
from ebmtrack.viewers.keyframes import Direction, KeyFrame, KeyFrameTracks, Tell, Watch
from ebmtrack.viewers.picture_frames import FolderFrames
from ebmtrack.viewers.results import FrameResult, ResultInfo
from ebmtrack.viewers.seekable import SeekableFrames
from ebmtrack.viewers.selection import FrameAt, as_key_frames, checked_key_frames, frame_number

Answers = Callable[[np.ndarray], list[Any]]


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

    def count(self, length: int | None) -> int | None:
        """Return how many frames of a source of `length` frames are tracked; None if no end is known."""
        beyond = [end for end in (length, None if self.end is None else self.end + 1) if end is not None]
        return len(range(self.start, min(beyond), self.every)) if beyond else None


@dataclass(frozen=True)
class Step:
    """The results of one frame, its picture and its time.

    Attributes:
        results: One for each target.
        image: The frame, RGB uint8 (h, w, 3); None if it could not be read.
        answers: What the tracker gave for each target; empty for the first frame and for unreadable ones.
        seconds: Time that the tracker took.
        moment_s: When the frame is shown, in seconds.
    """

    results: list[FrameResult]
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    answers: list[Any] = field(default_factory=list, repr=False, compare=False)
    seconds: float = 0.0
    moment_s: float = 0.0


def track(
    source: str | os.PathLike | int | Iterable[np.ndarray],
    boxes: Any,
    tracker: Any = None,
    *,
    start: int | str = 0,
    end: int | str | None = None,
    every: int = 1,
    direction: Direction = "forward",
) -> Iterator[FrameResult]:
    """Track one target or several through a video and yield where they are, frame by frame.

    Between two key frames of a target it is tracked forward and backward, and the two tracks are joined; a UserWarning
    says which ones do not meet.

    Args:
        source: Video file, folder of pictures, TIFF stack, camera number or URL; or images, RGB uint8 (height, width,
            3), in a list or, without key frames, from an iterator.
        boxes: The target's box x, y, w, h in frame `start`, in pixels; a dictionary {frame: box} of its key frames; or
            a list of these, one for each target. Or a file of boxes, see docs/track.md: its boxes are key frames.
        tracker: A Tracker, or a set-up's name or path, such as "lite_nce_plus"; by default the default set-up.
        start: First frame that is tracked: its number, from 0, or a time such as "3.5s" or "1:02.5", as for key frames.
        end: Last one; by default the source's.
        every: Distance of the frames that are tracked.
        direction: "forward" from the last key frame, "backward" from the first one, or "both". A box without a frame
            is in frame `end` for "backward".

    Yields:
        For each frame one FrameResult for each target; `to_dict` makes rows for a table, and `write_results` files of
        any layout. With key frames all of them come at the end.

    Raises:
        ConfigError: On boxes that cannot be tracked.
        DatasetError: If the source cannot be read; after the last frame, if some frames could not be read.
    """
    if direction not in get_args(Direction):
        raise ConfigError(f"direction is one of {', '.join(get_args(Direction))}, not {direction!r}")
    tracker = _as_tracker(tracker)
    with open_frames(source) as frames:
        frame_at = frames.times.frame_at
        span = checked_span(start, end, every, frame_at)
        given = read_given([boxes], source) if is_key_file(boxes) else None
        keys = checked_key_frames(given.keys if given else as_key_frames(boxes, frame_at, span.start))
        names = given.names if given else None
        if direction == "forward" and are_all_in(keys, span.start):
            yield from _forward(frames, keys, tracker, span, names)
            return
    with SeekableFrames(source) as recorded:
        span = whole_span(recorded, span)
        if direction == "backward" and given is None:
            keys = checked_key_frames(as_key_frames(boxes, frame_at, span.end or 0))
        notes = list[str]()
        rows = [row for part in label(recorded, keys, tracker, span, direction, notes.append) for row in part]
        for note in notes:
            warnings.warn(note, stacklevel=2)
        info = info_of(recorded, recorded.read(keys[0].frame), tracker, category=names)
        yield from (replace(row, info=info) for row in sorted(rows, key=lambda row: (row.frame, row.id)))
        if not recorded.complete:
            raise DatasetError(str(recorded.note))


def _as_tracker(tracker: Any) -> Any:
    """Return a tracker of one target: as it is given, of a set-up, or the default one; ConfigError for all else."""
    tracker = os.fspath(tracker) if isinstance(tracker, os.PathLike) else tracker
    if tracker is None or isinstance(tracker, (str, TrackerParams)):
        from ebmtrack.tracking.tracker import Tracker

        return Tracker.from_pretrained() if tracker is None else Tracker.from_pretrained(tracker)
    if not (hasattr(tracker, "init") and hasattr(tracker, "update")):
        raise ConfigError(f"tracker is a Tracker or a set-up's name such as 'lite_nce_plus', not {type(tracker)}")
    return tracker


def are_all_in(keys: Sequence[KeyFrame], frame: int) -> bool:
    """Return whether each target has one key frame, and all are in one frame: then reading forward is enough."""
    return {key.frame for key in keys} == {frame} and len({key.id for key in keys}) == len(keys)


def whole_span(frames: SeekableFrames, span: Span) -> Span:
    """Return a span whose end is known: the last frame of the source if it is not given or later than that.

    A video of variable frame rate may announce more frames than it holds: only reading tells.
    """
    last = span.end
    if last is None or frames.read(last) is None:  # it may be one in the middle that cannot be read
        there = frames.find_length() - 1
        last = there if last is None else min(last, there)
    if last < span.start:
        raise DatasetError(f"{frames.name} ends after {last + 1} frames, before frame {span.start}")
    return Span(span.start, last, span.every)


def label(
    frames: SeekableFrames,
    keys: Sequence[KeyFrame],
    tracker: Any,
    span: Span,
    direction: Direction,
    tell: Tell,
    watch: Watch = lambda _: None,
) -> Iterator[list[FrameResult]]:
    """Track targets through their key frames, one after the other, and yield stretches of results.

    Args:
        frames: The source.
        keys: The key frames, at least one for each target.
        tracker: A Tracker.
        span: Which frames are tracked; its end is known.
        direction: Where to go outside of the key frames.
        tell: Takes a note for the user on two tracks that do not meet.
        watch: Called after each frame between two key frames with the forward track there, as far as it is known.

    Raises:
        ConfigError: If a key frame is outside of the span.
    """
    last = span.end if span.end is not None else frames.find_length() - 1
    for key in keys:
        if not span.start <= key.frame <= last:
            raise ConfigError(
                f"the box of target {key.id} in {key.place}: give a frame from {span.start} to {last}, or another "
                "start or end of what is tracked"
            )
    labels = KeyFrameTracks(tracker, frames.read, span.start, last, span.every, tell, watch)
    for target in sorted({key.id for key in keys}):
        yield from labels.track([key for key in keys if key.id == target], direction)


def _forward(
    frames: FrameSource, keys: Sequence[KeyFrame], tracker: Any, span: Span, names: Mapping[int, str] | None
) -> Iterator[FrameResult]:
    """Yield results while reading a source once, from front to end."""
    first = first_frame(frames, span)
    info = info_of(frames, first, tracker, category=names)
    for step in follow(frames, first, tracker, keys, span):
        yield from (replace(row, info=info) for row in step.results)
    if not frames.complete:
        raise DatasetError(str(frames.note))


def info_of(
    frames: FrameSource | SeekableFrames,
    image: np.ndarray | None,
    tracker: Any,
    interval: float | None = None,
    category: str | Mapping[int, str] | None = None,
) -> ResultInfo:
    """Return what a file of results says about its making.

    Args:
        frames: The source.
        image: A frame of it; None if its size is not known.
        tracker: The tracker; one that does not say its network or seed will do.
        interval: Probability of the intervals that the file holds.
        category: What the targets are, see ResultInfo.
    """
    height, width = (0, 0) if image is None else image.shape[:2]
    network, seed = str(getattr(tracker, "network", "")), getattr(getattr(tracker, "params", None), "seed", None)
    return ResultInfo(
        frames.name, frames.known_fps, (width, height), network, seed, interval, category=category or None
    )


def first_frame(frames: FrameSource, span: Span) -> np.ndarray:
    """Return the first frame of a span; DatasetError if the source ends before it."""
    image = next(frames, None)
    while image is not None and frames.position <= span.start:
        image = next(frames, None)
    if span.start in frames.unreadable and (span.start > 0 or isinstance(frames, FolderFrames)):
        raise DatasetError(f"{frames.note}; tracking begins in frame {span.start}: give a box in another frame")
    if image is not None:
        return image
    last = (
        f"ends after {frames.position} frames, before frame {span.start}" if frames.frames_read else "holds no frames"
    )
    raise DatasetError(f"{frames.name} {last}")


def follow(
    frames: FrameSource, first: np.ndarray, tracker: Any, keys: Sequence[KeyFrame], span: Span = Span()
) -> Iterator[Step]:
    """Start on targets in the first frame and yield a Step for each frame of the span.

    Args:
        frames: The source; its next frame is the one after `first`.
        first: The frame in which the targets' boxes are.
        tracker: A Tracker. Several targets go through its network together.
        keys: Their boxes, one for each target.
        span: Which frames are tracked.

    Raises:
        EbmtrackError: As the tracker and the source raise; the message names the frame.
    """
    begin, update = targets_of(tracker, keys)
    number = frames.position - 1
    results = [FrameResult(number, key.id, key.box_xywh) for key in keys]
    later = _span_frames(frames, span)
    later = later if frames.length is None else read_ahead(later)
    for frame, answers, seconds in run_tracker(
        begin, update, chain([NumberedFrame(number, first, frames.moment_s)], later)
    ):
        if frame.image is None:
            results = [row.as_unreadable(frame.number) for row in results]
        elif frame.number > number:
            results = [FrameResult.of_answer(frame.number, key.id, answer) for key, answer in zip(keys, answers)]
        yield Step(results, frame.image, answers or [], seconds if answers else 0.0, frame.moment_s)


def _span_frames(frames: FrameSource, span: Span) -> Iterator[NumberedFrame]:
    """Yield the frames of a span after the one read last; those passed over as unreadable without an image.

    Nothing beyond the first frame after the span is read.
    """
    number = frames.position - 1
    while span.end is None or frames.position <= span.end:
        image = next(frames, None)
        missed, number = range(number + 1, frames.position - (image is not None)), frames.position - 1
        for passed in missed:
            if span.has(passed) and passed in frames.unreadable:
                yield NumberedFrame(passed, None)
        if image is None:
            return
        if span.has(number):
            yield NumberedFrame(number, image, frames.moment_s)


def targets_of(tracker: Any, keys: Sequence[KeyFrame]) -> tuple[Callable[[np.ndarray], None], Answers]:
    """Return a function that starts on targets in an image, and one from a later image to the answers for all."""
    if len(keys) == 1:
        return lambda image: tracker.init(image, keys[0].box_xywh), lambda image: [tracker.update(image)]
    if not hasattr(tracker, "engine"):
        raise ConfigError(f"a {type(tracker).__name__} follows one target at a time: track them one by one")
    from ebmtrack.tracking.tracker import MultiTracker

    several = MultiTracker(tracker.engine, tracker.params)

    def begin(image: np.ndarray) -> None:
        for key in keys:
            try:
                several.add(image, key.box_xywh)
            except ConfigError as error:
                raise ConfigError(f"target {key.id}: {error}") from error

    return begin, lambda image: list(several.update(image).values())


def checked_span(start: int | str | None, end: int | str | None, every: int, frame_at: FrameAt) -> Span:
    """Return the span of frame numbers or times ("3.5s", "1:02.5"); ConfigError if it holds no frame.

    Args:
        start: First frame, from 0; None is 0.
        end: Last frame; None is the last one of the source.
        every: Distance of the frames.
        frame_at: Returns the number of the frame that is shown at a time.
    """
    first = frame_number(start, frame_at, "--start") if start is not None else 0
    last = frame_number(end, frame_at, "--end") if end is not None else None
    if last is not None and last < first:
        raise ConfigError(f"--end {end} is before --start {start}: there is nothing to track")
    if not isinstance(every, (int, np.integer)) or every < 1:
        raise ConfigError(f"--every is a distance of frames, at least 1, not {every}")
    return Span(first, last, every)
