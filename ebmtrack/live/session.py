"""Tracking live: targets that come and go by command, followed in a thread of its own. No window in here."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from ebmtrack.errors import EbmtrackError
from ebmtrack.live.capture import Capture, Frame
from ebmtrack.live.statistics import Statistics
from ebmtrack.viewers.corner_map import corner_map

GRID = 25  # points of the live heat map in each direction; 41 as in the demonstration take 80 ms of processor time
EDGE = 0.9  # probability of the intervals that are drawn as soft edges
REACH = 0.45  # of the heat map to each side of the corner, in box widths and heights
CLOSE_S = 2.0  # how long closing waits for the frame that is worked on
WAIT_S = 0.05  # how long the tracking thread waits for a frame before it looks for commands

Box = tuple[float, float, float, float]


class TargetAnswer(Protocol):
    """A tracker's answer for one target in one frame: `ebmtrack.TrackResult` is one."""

    @property
    def box_xywh(self) -> Box: ...

    @property
    def score(self) -> float: ...

    @property
    def found(self) -> bool: ...

    @property
    def search_xywh(self) -> Box | None: ...


class ManyTracker(Protocol):
    """A tracker of several targets, as far as a session needs one; `ebmtrack.tracking.tracker.MultiTracker` is one."""

    def add(self, image_rgb: np.ndarray, box_xywh: Box) -> int: ...

    def update(self, image_rgb: np.ndarray) -> Mapping[int, TargetAnswer]: ...

    def remove(self, target: int) -> None: ...

    def corner_log_density(self, target: int, points_xy: np.ndarray) -> np.ndarray: ...

    def show_intervals(self, wanted: bool | None = None) -> None: ...


class LoadingTracker:
    """A ManyTracker that a thread of its own loads; whoever needs it first waits until it is there.

    `check` raises, in the thread that calls it, the error with which loading has failed.
    """

    def __init__(self, load: Callable[[], ManyTracker]):
        self._future: Future = Future()
        threading.Thread(target=self._run, args=(load,), name="loading", daemon=True).start()

    def check(self) -> None:
        """Raise the error of loading, if that has ended with one."""
        if self._future.done():
            self._future.result()

    def add(self, image_rgb: np.ndarray, box_xywh: Box) -> int:
        """See ManyTracker."""
        return self._future.result().add(image_rgb, box_xywh)

    def update(self, image_rgb: np.ndarray) -> Mapping[int, TargetAnswer]:
        """See ManyTracker."""
        return self._future.result().update(image_rgb)

    def remove(self, target: int) -> None:
        """See ManyTracker."""
        self._future.result().remove(target)

    def corner_log_density(self, target: int, points_xy: np.ndarray) -> np.ndarray:
        """See ManyTracker."""
        return self._future.result().corner_log_density(target, points_xy)

    def show_intervals(self, wanted: bool | None = None) -> None:
        """See ManyTracker."""
        self._future.result().show_intervals(wanted)

    def _run(self, load: Callable[[], ManyTracker]) -> None:
        """Run the thread."""
        try:
            self._future.set_result(load())
        except BaseException as error:
            self._future.set_exception(error)


class Heat(NamedTuple):
    """exp(f - max f), 0 to 1, on a grid (GRID, GRID) over where a box's top right corner could be; its area."""

    values: np.ndarray
    area_xywh: Box


@dataclass(frozen=True)
class Target:
    """One target in one frame.

    number: its name on the screen, from 1. score: None in the frame that it was drawn on. search_xywh: the search
    region, None there as well. heat: the energy around its corner, sides (4, 2) the intervals that hold its true sides
    with a probability of EDGE, if these were asked for.
    """

    number: int
    box_xywh: Box
    score: float | None = None
    lost: bool = False
    search_xywh: Box | None = None
    heat: Heat | None = field(default=None, repr=False, compare=False)
    sides: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class LiveView:
    """A frame and what was found in it; `selected` is the number of the target that keys act on, or None.

    Views are numbered; two may show the same frame, as when a target is added while the video stands still.
    """

    frame: Frame
    number: int
    targets: tuple[Target, ...] = ()
    selected: int | None = None


class Session:
    """Targets and what is done with them; used by one thread at a time.

    Numbers are the smallest free ones, so that they stay on the keys 1 to 9. The target drawn last is selected.
    """

    def __init__(self, tracker: ManyTracker):
        self.tracker = tracker
        self.selected: int | None = None
        self.energy = False  # whether the selected target's heat map is computed
        self._targets: dict[int, Target] = {}  # by number
        self._id_of: dict[int, int] = {}  # the tracker's name of a target, by number

    def targets(self) -> tuple[Target, ...]:
        """Return all targets by number, as they were seen last; the selected one with its heat map if wanted."""
        return tuple(self._with_heat(self._targets[number]) for number in sorted(self._targets))

    def draw(self, image: np.ndarray, box_xywh: Box, number: int | None = None) -> None:
        """Start on the target in a box; under an existing `number` it takes that target's place.

        Raises ConfigError if the tracker refuses the box; then nothing has changed.
        """
        identity = self.tracker.add(image, box_xywh)
        if number in self._id_of:
            self.tracker.remove(self._id_of[number])
        else:
            number = next(n for n in range(1, len(self._id_of) + 2) if n not in self._id_of)
        self._id_of[number] = identity
        x, y, w, h = (float(value) for value in box_xywh)
        self._targets[number] = Target(number, (x, y, w, h))
        self.selected = number

    def remove(self, number: int | None) -> None:
        """Forget a target; the next lower one, or else the lowest, is selected. None and unknown: nothing happens."""
        if number not in self._id_of:
            return
        self.tracker.remove(self._id_of.pop(number))
        del self._targets[number]
        if self.selected == number:
            lower = [other for other in self._targets if other < number]
            self.selected = max(lower, default=min(self._targets, default=None))

    def clear(self) -> None:
        """Forget all targets."""
        for number in tuple(self._targets):
            self.remove(number)

    def select(self, number: int) -> None:
        """Make a target the one that keys act on; an unknown number changes nothing."""
        if number in self._targets:
            self.selected = number

    def show_energy(self, wanted: bool) -> None:
        """Compute the selected target's heat map from now on, or no longer."""
        self.energy = wanted

    def show_intervals(self, wanted: bool | None = None) -> None:
        """Have intervals of the targets' sides computed from the next frame on, or not; None changes what there is."""
        self.tracker.show_intervals(wanted)

    def step(self, image: np.ndarray) -> None:
        """Find all targets in the next frame."""
        results = self.tracker.update(image) if self._targets else {}
        for number, identity in self._id_of.items():
            result = results[identity]
            lost, density = not result.found, getattr(result, "density", None)
            sides = None if density is None else density.interval(EDGE)
            self._targets[number] = Target(number, result.box_xywh, result.score, lost, result.search_xywh, sides=sides)

    def _with_heat(self, target: Target) -> Target:
        """Return the target with its heat map if that is wanted and there is an energy (after the first update)."""
        if not self.energy or target.number != self.selected or target.lost or target.score is None:
            return target
        identity = self._id_of[target.number]
        heat = corner_heat(lambda points_xy: self.tracker.corner_log_density(identity, points_xy), target.box_xywh)
        return replace(target, heat=heat)


class Live:
    """A thread that takes the newest frame of a capture, has the session follow its targets, keeps the newest view.

    Commands for the session are handed over with `ask`. An error of the tracker or of the
    capture's thread ends this one and is raised by `newest`. `start`, or a with statement, begins.
    """

    def __init__(self, capture: Capture, session: Session):
        self.capture, self.statistics = capture, Statistics()
        self._session = session
        self._paused = False
        self._stale = 0  # the number of a frame that, with all before it, is too old to be looked at
        self._asked: queue.SimpleQueue[tuple[Future, Callable[[], None]]] = queue.SimpleQueue()
        self._view: LiveView | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def paused(self) -> bool:
        """Return whether the picture stands still, after a first one; commands are still obeyed."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        if self._paused and not value:
            self._stale = self.capture.frames
        self._paused = self.capture.paused = value

    def ask(self, command: Callable[..., None], *arguments) -> Future:
        """Have the tracking thread call a method of Session, as in `ask(Session.remove, 2)`, between two frames.

        The future is done when that is; it holds the EbmtrackError with which the session may have refused.
        """
        future: Future = Future()
        self._asked.put((future, lambda: command(self._session, *arguments)))
        return future

    def do(self, command: Callable[..., None], *arguments) -> None:
        """Call as `ask` does and wait until it is done; its error is raised here."""
        future = self.ask(command, *arguments)
        while not wait([future], WAIT_S).done:
            self.newest()
        future.result()

    def newest(self, after: int = 0, timeout_s: float = 0.0) -> LiveView | None:
        """Return the newest view if its number is above `after`, else one that comes in time, else None."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._number() > after, timeout_s)
            if self._error is not None:
                raise self._error
            return self._view if self._number() > after else None

    def is_last(self, frame: int) -> bool:
        """Return whether no view of a frame with a higher number will come: the source is done, the rest is too old."""
        return self.capture.state().final and max(frame, self._stale) >= self.capture.frames

    def note_shown(self, view: LiveView) -> None:
        """Note for the statistics that a view has reached the user now."""
        self.statistics.count_shown(view.frame.number, view.frame.time_s, self.capture.frames, time.monotonic())

    def close(self) -> None:
        """End the thread after the frame that it works on; one that waits for a network is left behind in time."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        """Run the thread."""
        try:
            frame: Frame | None = None
            while not self._stop.is_set():
                obeyed = self._obey()
                frame, fresh = self._next(frame)
                if frame is None:
                    continue
                if fresh:
                    self._session.step(frame.image)
                    self.statistics.count_used(time.monotonic())
                if fresh or obeyed:
                    self._publish(frame)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _obey(self) -> int:
        """Carry out the commands that have come; return how many."""
        count = 0
        while not self._asked.empty():
            count += 1
            future, command = self._asked.get()
            try:
                command()
            except EbmtrackError as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        return count

    def _next(self, last: Frame | None) -> tuple[Frame | None, bool]:
        """Return the frame to work on, and whether it is a new one; without one this takes up to WAIT_S."""
        if self._paused and last is not None:
            self._stop.wait(WAIT_S / 2)
            return last, False
        frame = fresh_frame(self.capture, max(last.number if last else 0, self._stale))
        if frame is None and self.capture.state().final:
            self._stop.wait(WAIT_S / 2)
        if frame is None or (self._paused and last is not None):
            return last, False
        return frame, True

    def _publish(self, frame: Frame) -> None:
        """Make the session's state of a frame the newest view."""
        with self._changed:
            number = self._number() + 1
            self._view = LiveView(frame, number, self._session.targets(), self._session.selected)
            self._changed.notify_all()

    def _number(self) -> int:
        """Return the newest view's number, 0 before the first."""
        return self._view.number if self._view else 0


def fresh_frame(capture: Capture, after: int) -> Frame | None:
    """Return the newest frame with a number above `after`, or None if none comes within WAIT_S.

    One that is older than half the time between two frames is left for the next, which is nearer; unless that is late.
    So a tracker that needs T begins with a frame at most half a frame old and is done T + 1/2 frame after its arrival.
    """
    frame = capture.newest(after, WAIT_S)
    if frame is None:
        return None
    between_s, age_s = 1 / max(capture.frames_per_s, 1.0), time.monotonic() - frame.time_s
    if not between_s / 2 < age_s < between_s:
        return frame
    return capture.newest(frame.number, min(1.1 * between_s - age_s, WAIT_S)) or frame


def corner_heat(log_density: Callable[[np.ndarray], np.ndarray], box_xywh: Box) -> Heat:
    """Return the heat map around a box's top right corner while its bottom left one stays (ECCV 2020, figure 1).

    `log_density` gives f for corners (n, 2), up to a constant.
    """
    log_values, area_xywh = corner_map(log_density, box_xywh, GRID, REACH)
    return Heat(np.exp(log_values), area_xywh)
