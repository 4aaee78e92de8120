"""A tracker run over frames: the loop behind evaluation, validation, studies, the demo and tracked videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ebmtrack.errors import EbmtrackError, ResultError

Array = np.ndarray
Box = tuple[float, float, float, float]
OnFrame = Callable[[int, Array, Any], None]


class TrackerLike(Protocol):
    """A tracker as evaluation needs it; `ebmtrack.Tracker` is one."""

    def init(self, image: Array, box_xywh: Any, seed: int | None = None) -> Any:
        """Start on a first frame (H, W, 3), uint8 RGB, with the target's box."""

    def update(self, image: Array) -> Any:
        """Track one more frame; the answer has `box_xywh` and may have `score` and `found`."""


@dataclass(frozen=True)
class Track:
    """The answers of a tracker on N frames.

    Attributes:
        boxes_xywh: Boxes (N, 4) in pixels; the first is the box given.
        times_s: Seconds per frame (N,), of the tracker's calls alone; the first is the start.
        scores: Confidence (N,); 1 for the first frame and for trackers that give none.
        found: Whether the tracker says that it sees the target (N,), bool; True for trackers that do not say.
        stages_s: Seconds by stage of the tracker, over all frames; empty if not measured.
    """

    boxes_xywh: Array
    times_s: Array
    scores: Array
    found: Array
    stages_s: Mapping[str, float] = field(default_factory=dict)


class StageTimes:
    """A stopwatch that adds up seconds by stage, for trackers that call their `mark` when a stage is done."""

    def __init__(self) -> None:
        self.totals_s: dict[str, float] = {}
        self.last = 0.0

    def begin(self) -> float:
        """Begin a frame; return the time in seconds."""
        self.last = time.perf_counter()
        return self.last

    def __call__(self, stage: str) -> None:
        """Count the time since the last call, or since `begin`, as that of a stage."""
        now = time.perf_counter()
        self.totals_s[stage] = self.totals_s.get(stage, 0.0) + now - self.last
        self.last = now


class NumberedFrame(NamedTuple):
    """A frame by its number, RGB uint8 (H, W, 3) or None if it cannot be read, and when it is shown."""

    number: int
    image: Array | None
    moment_s: float = 0.0


class TrackedFrame(NamedTuple):
    """A frame, the tracker's answer (None if it could not be read) and the time that it took, in the clock's unit."""

    frame: NumberedFrame
    answer: Any
    spent: Any


def run_tracker(
    start: Callable[[Array], Any],
    update: Callable[[Array], Any],
    frames: Iterable[NumberedFrame],
    clock: Callable[[], Any] = time.perf_counter,
) -> Iterator[TrackedFrame]:
    """Start on the first of some frames, update on each later one that can be read, and yield them with the answers.

    Args:
        start: Takes the first image; what it raises is passed on as it is.
        update: Takes each later image.
        frames: The frames. The time in which they are made is not counted.
        clock: Returns the time; called before and after each call of the tracker.

    Raises:
        EbmtrackError: As `update` raises; the message names the frame.
    """
    act = start
    for frame in frames:
        if frame.image is None:
            yield TrackedFrame(frame, None, 0.0)
            continue
        began = clock()
        try:
            answer = act(frame.image)
        except EbmtrackError as error:
            if act is start:
                raise
            raise type(error)(f"frame {frame.number}: {error}") from error
        yield TrackedFrame(frame, answer, clock() - began)
        act = update


def track_frames(
    tracker: TrackerLike,
    frames: Iterable[Array],
    start_xywh: Array | Box,
    *,
    name: str = "sequence",
    seed: int | None = None,
    by_stage: bool = False,
    on_frame: OnFrame | None = None,
) -> Track:
    """Start a tracker on the first of some frames, let it follow the target over the others and collect its answers.

    Args:
        tracker: The tracker; whatever it followed before is forgotten.
        frames: Images (H, W, 3), uint8 RGB, at least one. The time in which they are made is not counted.
        start_xywh: Box of the target in the first frame, (4,).
        name: Name of the sequence, for errors.
        seed: Seed of the tracker; None for its own.
        by_stage: Add up the time by stage, if the tracker has a `mark`. On a GPU, which works behind the program, such
            times mean nothing.
        on_frame: Function of number, image and answer, called after each frame but the first, off the clock.

    Raises:
        ResultError: No frame, or an answer that is not a box; the message names the frame.
    """
    stages = StageTimes()
    if by_stage and hasattr(tracker, "mark"):
        tracker.mark = stages
    start = _as_box(start_xywh, f"{name}, start")
    boxes: list[Box] = []
    times: list[float] = []
    scores: list[float] = []
    found: list[bool] = []
    options = {} if seed is None else {"seed": seed}
    numbered = (NumberedFrame(number, image) for number, image in enumerate(frames))
    steps = run_tracker(lambda image: tracker.init(image, start, **options), tracker.update, numbered, stages.begin)
    for (number, image, _), answer, spent_s in steps:
        times.append(spent_s)
        boxes.append(_as_box(answer.box_xywh, f"{name}, frame {number} (from 0)") if number else start)
        scores.append(float(getattr(answer, "score", 1.0)) if number else 1.0)
        found.append(bool(getattr(answer, "found", True)) if number else True)
        if number and image is not None and on_frame is not None:
            on_frame(number, image, answer)
    if not boxes:
        raise ResultError(f"{name}: no frame to track; check the folder of images")
    totals_s = dict(stages.totals_s)  # the tracker may go on calling the stopwatch
    return Track(np.array(boxes, np.float64), np.array(times), np.array(scores), np.array(found), totals_s)


def _as_box(box_xywh: Any, where: str) -> Box:
    """Return four finite floats with a size that is not negative; raise ResultError for anything else."""
    try:
        x, y, w, h = (float(v) for v in box_xywh)
    except (TypeError, ValueError) as reason:
        raise ResultError(f"{where}: the tracker returned {box_xywh!r}, expected a box x, y, width, height") from reason
    if not np.isfinite((x, y, w, h)).all() or min(w, h) < 0:
        raise ResultError(f"{where}: the tracker returned {(x, y, w, h)!r}, which is no box x, y, width, height")
    return x, y, w, h
