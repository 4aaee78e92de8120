"""Labelling by key frames: a target is tracked forward and backward between the frames in which its box is given.

The two tracks of a gap are joined at one moment: before it the forward track is believed, after it the backward one.
If both agree in a frame, its box is their mean, weighted by the distance to the key frames. If they are in different
places there, one of them is wrong: the user is told, and the results around that moment are "uncertain".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.overlap import iou
from ebmtrack.tracking.sequence import NumberedFrame, TrackedFrame, run_tracker
from ebmtrack.viewers.result_rows import Box, FrameResult

Direction = Literal["forward", "backward", "both"]
Read = Callable[[int], "np.ndarray | None"]  # a frame by its number; None if it cannot be read
Tell = Callable[[str], object]
Watch = Callable[[Sequence[FrameResult]], object]

AGREE_IOU = 0.5  # two boxes that overlap by this are the same answer, and are averaged
MEET_IOU = 0.2  # two boxes of one target share more, even if one is twice as wide and high as the other (0.25)
JUMP_COST = 5.0  # frames of doubt that a jump without overlap from one track to the other is worth


@dataclass(frozen=True)
class KeyFrame:
    """The box of a target in one frame, given by a person.

    Attributes:
        frame: Number of the frame, from 0.
        id: Number of the target, from 1.
        box_xywh: The box in pixels.
        time: The time by which the frame was given, such as "5s"; empty if it was given by its number.
        file: The file that gives the box; empty without one.
    """

    frame: int
    id: int
    box_xywh: Box
    time: str = field(default="", compare=False)
    file: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """The frame as the user gave it, for messages: "frame 50", "5s (frame 50)" or "frame 50 of keys.csv"."""
        number = f"frame {self.frame}"
        return f"{self.time} ({number})" if self.time else f"{number} of {self.file}" if self.file else number


class Leg:
    """A target followed from a key frame in one direction, as far as was asked; what is known is not computed again.

    Args:
        tracker: A Tracker; a copy of it is used, which shares its network.
        key: Where the leg begins.
        step: 1 forward, -1 backward, or another distance of the frames that are tracked.
        read: Returns a frame by its number.
        first_step: Distance of the first frame that is tracked, with the sign of `step`; by default `step`.
    """

    def __init__(self, tracker: Any, key: KeyFrame, step: int, read: Read, first_step: int | None = None):
        self.key, self.step, self._read = key, step, read
        self._first_step = first_step or step
        self._tracker = tracker
        self._running: Iterator[TrackedFrame] | None = None
        self.results = [FrameResult(key.frame, key.id, key.box_xywh)]

    def result(self, frame: int) -> FrameResult:
        """Return the result of a frame, and track up to it if need be; an error names the frame."""
        index = self._index(frame)
        while len(self.results) <= index:
            self._advance()
        return self.results[index]

    def has(self, frame: int) -> bool:
        """Return whether the result of a frame is known."""
        return 0 <= self._index(frame) < len(self.results)

    def _index(self, frame: int) -> int:
        """Return the place of a frame among the results; negative on the other side of the key frame."""
        return 0 if frame == self.key.frame else 1 + (frame - self.key.frame - self._first_step) // self.step

    def rest(self) -> None:
        """Give back the tracker's memory; if the leg is to go on later, it is tracked again from its key frame."""
        self._running = None

    def _advance(self) -> None:
        """Track one frame more."""
        if self._running is None:
            self._running = self._run()
            for _ in self.results:
                next(self._running)
        (number, image, _), answer, _ = next(self._running)
        unreadable = self.results[-1].as_unreadable(number)
        self.results.append(unreadable if image is None else FrameResult.of_answer(number, self.key.id, answer))

    def _run(self) -> Iterator[TrackedFrame]:
        """Yield the key frame and the frames after it, tracked by a copy of the tracker."""
        tracker, key = copy.deepcopy(self._tracker), self.key
        numbers = chain([key.frame], count(key.frame + self._first_step, self.step))
        frames = (NumberedFrame(number, self._read(number)) for number in numbers)
        first = next(frames)
        if first.image is None:
            raise ConfigError(f"{key.place}, with a box of target {key.id}, cannot be read")

        def start(image: np.ndarray) -> None:
            try:
                tracker.init(image, key.box_xywh)
            except ConfigError as error:
                raise ConfigError(f"{key.place}, target {key.id}: {error}") from error

        yield from run_tracker(start, tracker.update, chain([first], frames))


class KeyFrameTracks:
    """The tracks of targets through key frames; legs that are still needed after a change are kept.

    Args:
        tracker: A Tracker.
        read: Returns a frame by its number.
        first: The first frame that is labelled.
        last: The last one.
        every: Distance of the frames that are tracked; frames with a given box are always among them.
        tell: Takes a note for the user on two tracks that do not meet.
        watch: Called after each frame between two key frames with the forward track there, as far as it is known.
    """

    def __init__(
        self,
        tracker: Any,
        read: Read,
        first: int,
        last: int,
        every: int = 1,
        tell: Tell = lambda _: None,
        watch: Watch = lambda _: None,
    ):
        self.first, self.last, self.every = first, last, every
        self._tracker, self._read, self._tell, self._watch = tracker, read, tell, watch
        self._legs: dict[tuple[KeyFrame, int, int], Leg] = {}

    def leg(self, key: KeyFrame, step: int, first_step: int | None = None) -> Leg:
        """Return the leg that begins at a key frame, with `first_step` to its first frame and `step` to each later."""
        place = key, step, first_step or step
        if place not in self._legs:
            self._legs[place] = Leg(self._tracker, key, step, self._read, first_step)
        return self._legs[place]

    def track(self, keys: Sequence[KeyFrame], direction: Direction = "forward") -> Iterator[list[FrameResult]]:
        """Track one target through its key frames and yield stretches of results, not in the order of frames.

        Of a stretch that an error or an interrupt ends, what is known is yielded before that is raised. An empty
        stretch says that the tracker has started on one between two key frames, whose results take their time.

        Args:
            keys: The target's key frames, at least one.
            direction: Where to go outside of the key frames: "forward" after the last one, "backward" before the
                first one, "both". Between two key frames both tracks are always made.

        Raises:
            EbmtrackError: As the tracker raises; the message names the frame.
        """
        keys = sorted(keys, key=lambda key: key.frame)
        yield [FrameResult(key.frame, key.id, key.box_xywh) for key in keys]
        for left, right in pairwise(keys):
            frames = range(left.frame + self.every, right.frame, self.every)
            if not frames:
                continue
            there, back = self.leg(left, self.every), self.leg(right, -self.every, frames[-1] - right.frame)
            forward, backward = list[FrameResult](), list[FrameResult]()
            try:
                there.result(frames[0])
                yield []
                for frame in frames:
                    forward.append(there.result(frame))
                    self._watch(forward)
                there.rest()
                for frame in reversed(frames):
                    backward.append(back.result(frame))
                    self._watch(forward)
                back.rest()
            except (Exception, KeyboardInterrupt):
                if forward:
                    yield self._joined(forward, backward, left, right)
                raise
            yield self._joined(forward, backward, left, right)
        if direction != "backward":
            yield from self._tail(keys[-1], range(keys[-1].frame + self.every, self.last + 1, self.every))
        if direction != "forward":
            yield from self._tail(keys[0], range(keys[0].frame - self.every, self.first - 1, -self.every))

    def _tail(self, key: KeyFrame, frames: range) -> Iterator[list[FrameResult]]:
        """Yield the results of frames outside of the key frames, one after the other."""
        leg = self.leg(key, frames.step)
        for frame in frames:
            yield [leg.result(frame)]
        leg.rest()

    def _joined(
        self, forward: Sequence[FrameResult], backward: Sequence[FrameResult], left: KeyFrame, right: KeyFrame
    ) -> list[FrameResult]:
        """Return one track between two key frames, and tell if two do not meet.

        As far as the backward track, whose results come from its end, has not come yet, it is the forward one.
        """
        alone = len(forward) - len(backward)
        there, back = forward[alone:], backward[::-1]
        if apart := conflict(there, back):
            self._tell(
                f"target {left.id}: the tracks from {left.place} and {right.place} do not meet: they are "
                f"{_distance(there[apart.at], back[apart.at]):.0f} pixels apart in frame {there[apart.at].frame}; "
                "check the boxes given there, or give one between them"
            )
        return [*forward[:alone], *blend(there, back, left.frame, right.frame)]


def blend(forward: Sequence[FrameResult], backward: Sequence[FrameResult], left: int, right: int) -> list[FrameResult]:
    """Return one track from the forward and the backward track between two key frames.

    Args:
        forward: Results of the forward track, by frame.
        backward: Results of the backward track for the same frames.
        left: Frame of the key frame before them.
        right: Frame of the key frame after them.
    """
    if not forward:
        return []
    switch, both = _switch(forward, backward)
    apart = conflict(forward, backward)
    blended = []
    for index, (before, after, overlap) in enumerate(zip(forward, backward, both)):
        chosen = before if index < switch else after
        if overlap >= AGREE_IOU and before.found and after.found:
            weight = (before.frame - left) / (right - left)
            chosen = replace(chosen, box_xywh=mean_box(before.box_xywh, after.box_xywh, weight))
        elif apart and index in apart.doubtful and chosen.found:
            chosen = replace(chosen, verdict="uncertain")
        blended.append(chosen)
    return blended


class Conflict(NamedTuple):
    """Two tracks that are in different places at the moment at which they are joined.

    Attributes:
        at: Index of a frame there in which both say that they see the target.
        doubtful: Indices of the frames around it in which their boxes do not meet.
    """

    at: int
    doubtful: range


def conflict(forward: Sequence[FrameResult], backward: Sequence[FrameResult]) -> Conflict | None:
    """Return where the forward and the backward track of the same frames contradict each other; None if they meet.

    They meet if their boxes overlap by MEET_IOU in the last frame before the switch or in the first one after it, or if
    in each of the two frames one track says that it has lost the target, which may have jumped.
    """
    if not forward:
        return None
    switch, both = _switch(forward, backward)
    seam = range(max(0, switch - 1), min(switch + 1, len(both)))
    seen = [index for index in seam if forward[index].found and backward[index].found]
    if not seen or max(both[index] for index in seam) >= MEET_IOU:
        return None
    meet = np.flatnonzero(both >= MEET_IOU)
    before, after = meet[meet < seam[0]], meet[meet > seam[-1]]
    return Conflict(seen[-1], range(max(before, default=-1) + 1, min(after, default=len(both))))


def _switch(forward: Sequence[FrameResult], backward: Sequence[FrameResult]) -> tuple[int, np.ndarray]:
    """Return from which index on the backward track is believed, and the overlap of both in each frame (n,)."""
    both = iou(*(np.array([row.box_xywh for row in rows]) for rows in (forward, backward)))
    return switch_point([_doubt(row) for row in forward], [_doubt(row) for row in backward], both), both


def switch_point(
    doubts_forward: Sequence[float], doubts_backward: Sequence[float], shared: Sequence[float] | np.ndarray
) -> int:
    """Return from which of n frames on the backward track is believed, 0 to n.

    It is the one with the least cost: the doubts of the forward track before it and of the backward track after it,
    and JUMP_COST for what the two boxes on either side of it do not overlap. A track that has drifted away does not
    come back by itself, so one switch is enough.

    Args:
        doubts_forward: The forward track's doubt in each frame (n,), 0 to 1.
        doubts_backward: The backward track's.
        shared: Overlap of the two boxes in each frame (n,).

    >>> switch_point([0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0])
    2
    """
    n = len(shared)
    nearness = (np.arange(n) + 0.5) / n  # of the right key frame: both tracks are worse far from theirs
    forward = np.concatenate([[0.0], np.cumsum(np.asarray(doubts_forward) + nearness)])
    backward = np.concatenate([[0.0], np.cumsum((np.asarray(doubts_backward) + 1 - nearness)[::-1])])[::-1]
    jump = JUMP_COST * (1 - np.asarray(shared))
    jumps = np.concatenate([[0.0], np.minimum(jump[:-1], jump[1:]), [0.0]])  # at an end the switch is in a key frame
    if n > 1:
        jumps[0], jumps[-1] = jump[0], jump[-1]
    return int(np.argmin(forward + backward + jumps))


def mean_box(one_xywh: Box, other_xywh: Box, weight: float) -> Box:
    """Return the box between two boxes: means of the middles and of the logarithms of the sizes.

    >>> mean_box((0, 0, 10, 10), (10, 0, 40, 10), 0.5)
    (7.5, 0.0, 20.0, 10.0)
    """
    one, other = np.asarray(one_xywh, float), np.asarray(other_xywh, float)
    middle = (1 - weight) * (one[:2] + one[2:] / 2) + weight * (other[:2] + other[2:] / 2)
    size = np.exp((1 - weight) * np.log(np.maximum(one[2:], 1e-6)) + weight * np.log(np.maximum(other[2:], 1e-6)))
    x, y, w, h = (round(float(value), 6) for value in (*(middle - size / 2), *size))
    return x, y, w, h


def _distance(one: FrameResult, other: FrameResult) -> float:
    """Return the distance between the middles of two boxes in pixels."""
    (x, y, w, h), (x2, y2, w2, h2) = one.box_xywh, other.box_xywh
    return math.hypot(x + w / 2 - x2 - w2 / 2, y + h / 2 - y2 - h2 / 2)


def _doubt(row: FrameResult) -> float:
    """Return how little a result is to be believed: 1 if the target was lost, else what the score lacks of 1."""
    return 1.0 if not row.found else 1 - min(1.0, max(0.0, row.score or 0.0))
