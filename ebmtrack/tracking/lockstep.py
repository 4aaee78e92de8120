"""Several videos at once through one network: a lane for each video, all lanes a frame further together.

A GPU is hardly busy with the search region of one video. Each lane belongs to a thread that reads a video and asks for
one frame after the other; the last thread to ask computes the frame of all lanes. Each target is computed as if alone:
on a CPU its boxes are those of a Tracker, to the bit.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ebmtrack.engines.base import Engine
from ebmtrack.engines.mirrored import as_set_up
from ebmtrack.errors import ConfigError
from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.state import TargetState
from ebmtrack.tracking.step import TrackResult, track_frame
from ebmtrack.tracking.tracker import check_box, check_image


@dataclasses.dataclass(eq=False)
class _Request:
    """One lane's frame, and the answer or the error once it is computed."""

    state: TargetState
    image: np.ndarray
    answer: tuple[TargetState, TrackResult] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is not None or self.error is not None


class Lockstep:
    """A network that lanes share."""

    def __init__(self, engine: Engine, params: TrackerParams):
        """Take the network and the set-up of all lanes."""
        self.engine, self.params = as_set_up(engine, params.mirrored), params
        self._turn = threading.Condition()
        self._tracking = 0  # lanes that have started on a target
        self._waiting: list[_Request] = []

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Yield a tracker for one video, to be used by one thread; at the end the others go on without it."""
        lane = Lane(self)
        try:
            yield lane
        finally:
            if lane.state is not None:
                with self._turn:
                    self._tracking -= 1
                    self._advance_if_all_wait()

    def start(self, lane: Lane, image: np.ndarray, box_xywh: Any, seed: int | None) -> TargetState:
        """Return a target's state after its first frame; see Tracker.init."""
        image, box = check_image(image), check_box(box_xywh, image.shape)
        with self._turn:
            state = start_target(self.engine, self.params, image, box, self.params.seed if seed is None else seed)
            self._tracking += lane.state is None
        return state

    def advance(self, state: TargetState, image: np.ndarray) -> tuple[TargetState, TrackResult]:
        """Return a target's state and answer after its next frame, once all lanes have asked for theirs."""
        request = _Request(state, check_image(image))
        with self._turn:
            self._waiting.append(request)
            self._advance_if_all_wait()
            self._turn.wait_for(lambda: request.is_done)
        if request.answer is None:
            raise request.error or RuntimeError("a frame has neither an answer nor an error")
        return request.answer

    def _advance_if_all_wait(self) -> None:
        """Compute the frames that lanes wait for, if every lane does."""
        if not self._waiting or len(self._waiting) < self._tracking:
            return
        requests, self._waiting = self._waiting, []
        states, images = [one.state for one in requests], [one.image for one in requests]
        try:
            for one, answer in zip(requests, track_frame(self.engine, states, images, self.params.inner_looks)):
                one.answer = answer
        except BaseException as error:  # every lane raises it in its own thread
            for one in requests:
                one.error = error
        self._turn.notify_all()


class Lane:
    """A tracker of one target in one video, `init` and `update` as in Tracker."""

    def __init__(self, shared: Lockstep):
        self.shared = shared
        self.state: TargetState | None = None

    def init(self, image: np.ndarray, box_xywh: Any, seed: int | None = None) -> None:
        """Start on a target; see Tracker.init."""
        self.state = self.shared.start(self, image, box_xywh, seed)

    def update(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame; see Tracker.update. Waits until all lanes have asked for a frame."""
        if self.state is None:
            raise ConfigError("update() before init(): give the tracker a first image and a box")
        self.state, result = self.shared.advance(self.state, image)
        return result
