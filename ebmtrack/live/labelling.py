"""`ebmtrack track --select`: draw targets in a paused video, look at their tracks, correct them, go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.live.capture import Frame
from ebmtrack.live.controls import CLICK_FRAC, NOTICE_S, Box, dragged_box
from ebmtrack.live.picture import draw_view, with_lines, zoom_box, zoom_of
from ebmtrack.live.session import LiveView, Target
from ebmtrack.viewers.drawing import GREY, ORANGE, PALETTE, WHITE, YELLOW, draw_box
from ebmtrack.viewers.keyframes import KeyFrame, KeyFrameTracks
from ebmtrack.viewers.results import FrameResult
from ebmtrack.viewers.selection import key_frame_texts
from ebmtrack.viewers.window import ESCAPE, LiveWindow

HELP = (
    "drag: new target",
    "click, 1-9: select",
    "r, then drag: correct it here",
    "space: play",
    "b: play back",
    ", .: step",
    "[ ]: 25 frames",
    "k l: key frames",
    "click the bar: go there",
    "u: undo",
    "x: remove",
    "Enter: done",
    "h: help",
    "q: quit",
)
BAR = 14  # pixels; the height of the bar that shows all frames
LONG_STEP = 25  # frames
WAIT_MS = 20  # how long the window waits for keys while nothing plays


class LabelDesk:
    """The key frames of a video, how they are shown, and what keys and the mouse do; without a window.

    Args:
        frames: The video: `read(number)`, `length`, `name`, `fps`.
        load_tracker: Called in a thread of its own at once; waited for when a frame is to be tracked.
        start: The frame that is shown first.

    Attributes:
        at: The frame that is shown.
        keys: The key frames that were drawn.
        playing: 1 while the targets are tracked forward, -1 backward, 0 while the picture stands.
        done: Whether the user has ended with Enter.
        quit: Whether the user has left without it.
    """

    def __init__(self, frames: Any, load_tracker: Callable[[], object], start: int = 0):
        self.frames, self.at, self.start = frames, start, start
        self.keys: tuple[KeyFrame, ...] = ()
        self.selected: int | None = None
        self.playing, self.done, self.quit, self.help = 0, False, False, True
        self.box_xywh: Box | None = None  # being drawn
        self.again = False  # whether the next box is one of the selected target
        self.notice, self._notice_until_s = "", 0.0
        self._begin_xy: tuple[float, float] | None = None
        self._history: list[tuple[KeyFrame, ...]] = []
        self._tracker: Future = ThreadPoolExecutor(1, "loading").submit(load_tracker)
        self._labels: KeyFrameTracks | None = None
        self._size_wh = (1, 1)
        self._keys: dict[str, Callable[[], object]] = {
            " ": lambda: self._play(1),
            "b": lambda: self._play(-1),
            ".": lambda: self.go(self.at + 1),
            ",": lambda: self.go(self.at - 1),
            "]": lambda: self.go(self.at + LONG_STEP),
            "[": lambda: self.go(self.at - LONG_STEP),
            "l": lambda: self.go(min((key.frame for key in self.keys if key.frame > self.at), default=self.at)),
            "k": lambda: self.go(max((key.frame for key in self.keys if key.frame < self.at), default=self.at)),
            "r": self._correct,
            "u": self._undo,
            "x": self._remove,
            "h": lambda: setattr(self, "help", not self.help),
            "\r": self._finish,
            "\n": self._finish,
            "q": lambda: setattr(self, "quit", True),
            chr(ESCAPE): self._escape,
        }

    def key(self, code: int) -> None:
        """Handle a pressed key: its code as from cv2.waitKey, -1 for none."""
        name = chr(code & 0xFF).lower() if code >= 0 else ""
        if name and name in "123456789" and any(key.id == int(name) for key in self.keys):
            self.selected = int(name)
        elif name in self._keys:
            self._keys[name]()

    def press(self, x: float, y: float) -> None:
        """Begin a box or a click, or go to a frame if the bar is pressed."""
        self.playing = 0
        width, height = self._size_wh
        if y >= height:
            self.go(self.start + round(x / max(1, width) * (self.frames.length - 1 - self.start)))
        else:
            self._begin_xy, self.box_xywh = (x, y), None

    def move(self, x: float, y: float) -> None:
        """Follow the mouse."""
        if self._begin_xy is not None:
            self.box_xywh = dragged_box(self._begin_xy, (x, y), self._size_wh[::-1])

    def release(self, x: float, y: float) -> None:
        """Complete the box, or take it for a click."""
        if self._begin_xy is None:
            return
        box = dragged_box(self._begin_xy, (x, y), self._size_wh[::-1])
        self._begin_xy = self.box_xywh = None
        least = CLICK_FRAC * max(self._size_wh)
        if max(box[2:]) < least:
            self._click(x, y)
        elif min(box[2:]) < least:
            self.say("that box is too narrow: drag from one corner of the object to the other")
        else:
            self.draw(box)

    def draw(self, box_xywh: Box) -> None:
        """Make a box a key frame: of a new target, or of the selected one that is being corrected."""
        if self.frames.read(self.at) is None:
            self.say("this frame cannot be read: draw the box in another one")
            return
        again = self.again and self.selected is not None
        number = self.selected if again else 1 + max((key.id for key in self.keys), default=0)
        kept = tuple(key for key in self.keys if (key.id, key.frame) != (number, self.at))
        self._change((*kept, KeyFrame(self.at, number or 1, box_xywh)))
        self.selected, self.again = number, False

    def go(self, frame: int) -> None:
        """Show another frame."""
        self.playing = 0
        self._show(frame)

    def tick(self) -> None:
        """Track one frame more while playing; errors of the tracker become notices."""
        if not self.playing:
            return
        at = self.at + self.playing
        if not self.start <= at < self.frames.length:
            self.playing = 0
            return
        try:
            for number in {key.id for key in self.keys}:
                key = self._nearest(number, at, self.playing)
                if key is not None and key.frame != at:
                    self._all_labels().leg(key, self.playing).result(at)
        except EbmtrackError as error:
            self.say(str(error))
            self.playing = 0
            return
        self._show(at)

    def results(self) -> list[FrameResult]:
        """Return what is known of the targets in the frame that is shown."""
        found = []
        for number in sorted({key.id for key in self.keys}):
            for step in (1, -1):
                key = self._nearest(number, self.at, step)
                if key is not None and (key.frame == self.at or self._leg_knows(key, step)):
                    leg_row = FrameResult(self.at, number, key.box_xywh)
                    found.append(leg_row if key.frame == self.at else self._all_labels().leg(key, step).result(self.at))
                    break
        return found

    def picture(self) -> tuple[np.ndarray, float]:
        """Return the picture of the window (h, w, 3), and its zoom: pixels on the screen for each of the frame."""
        image = self.frames.read(self.at)
        if image is None:
            image = np.zeros((*self._size_wh[::-1], 3), np.uint8)
        self._size_wh = image.shape[1], image.shape[0]
        zoom = zoom_of(image)
        targets = [Target(row.id, row.box_xywh, row.score, not row.found) for row in self.results()]
        picture = draw_view(LiveView(Frame(image, self.at, 0.0), self.at, tuple(targets), self.selected), zoom=zoom)
        if self.box_xywh is not None:
            draw_box(picture, zoom_box(self.box_xywh, zoom), colour=WHITE)
        where = f"frame {self.at} of {self.frames.length}  {self.frames.shown_s(self.at):.2f} s"
        told = f"draw target {self.selected} in this frame (Esc: leave it)" if self.again else self._current_notice()
        lines = [(where, WHITE), (told, YELLOW), (self._source_note(), ORANGE)]
        with_lines(picture, [line for line in lines if line[0]], HELP if self.help else ())
        return np.vstack([picture, self._bar(picture.shape[1])]), zoom

    def say(self, notice: str) -> None:
        """Show the user a notice for NOTICE_S seconds."""
        self.notice, self._notice_until_s = notice, time.monotonic() + NOTICE_S

    def _current_notice(self) -> str:
        """Return the notice that is shown now."""
        if time.monotonic() < self._notice_until_s:
            return self.notice
        return "" if self.keys else "draw a box around the target"

    def _source_note(self) -> str:
        """Return what is odd about the frame that is shown."""
        return "this frame cannot be read" if self.frames.read(self.at) is None else ""

    def _bar(self, width: int) -> np.ndarray:
        """Return the bar of all frames (BAR, width, 3): key frames in their target's colour, the frame shown white."""
        bar = np.full((BAR, width, 3), 40, np.uint8)
        count = max(1, self.frames.length - 1 - self.start)

        def column(frame: int) -> int:
            return round((frame - self.start) / count * (width - 1))

        cv2.rectangle(bar, (0, BAR // 2), (column(self.at), BAR // 2 + 1), GREY, cv2.FILLED)
        for key in self.keys:
            at = column(key.frame)
            cv2.rectangle(bar, (at - 2, 1), (at + 2, BAR - 2), PALETTE[(key.id - 1) % len(PALETTE)], cv2.FILLED)
        cv2.rectangle(bar, (column(self.at) - 1, 0), (column(self.at) + 1, BAR), WHITE, cv2.FILLED)
        return bar

    def _show(self, frame: int) -> None:
        """Show a frame inside the video; the length may turn out shorter than announced."""
        frame = max(self.start, min(frame, self.frames.length - 1))
        self.frames.read(frame)
        self.at = max(self.start, min(frame, self.frames.length - 1))

    def _nearest(self, number: int, at: int, step: int) -> KeyFrame | None:
        """Return the key frame from which a target is tracked to a frame, forward (1) or backward (-1)."""
        keys = [key for key in self.keys if key.id == number and (at - key.frame) * step >= 0]
        return min(keys, key=lambda key: abs(at - key.frame), default=None)

    def _leg_knows(self, key: KeyFrame, step: int) -> bool:
        """Return whether a track from a key frame has come to the frame that is shown."""
        return self._labels is not None and self._labels.leg(key, step).has(self.at)

    def _all_labels(self) -> KeyFrameTracks:
        """Return the tracks; waits for the tracker the first time, and raises the error of loading it."""
        if self._labels is None:
            self._labels = KeyFrameTracks(self._tracker.result(), self.frames.read, self.start, self.frames.length - 1)
        return self._labels

    def _change(self, keys: tuple[KeyFrame, ...]) -> None:
        """Replace the key frames; the tracks that began at others are forgotten by `results`, not computed again."""
        self._history.append(self.keys)
        self.keys, self.playing = keys, 0

    def _play(self, step: int) -> None:
        """Play, or stop playing."""
        self.playing = 0 if self.playing == step else step

    def _correct(self) -> None:
        """Let the next box be one of the selected target."""
        self.playing, self.again = 0, self.selected is not None

    def _undo(self) -> None:
        """Take the last change of the key frames back."""
        if self._history:
            self.keys, self.playing, self.again = self._history.pop(), 0, False
            numbers = {key.id for key in self.keys}
            self.selected = self.selected if self.selected in numbers else max(numbers, default=None)

    def _remove(self) -> None:
        """Remove the selected target's box in this frame, or all of the target if it has none here."""
        here = [key for key in self.keys if (key.id, key.frame) == (self.selected, self.at)]
        rest = [key for key in self.keys if (key not in here if here else key.id != self.selected)]
        if len(rest) < len(self.keys):
            self._change(tuple(rest))
            self.selected = max((key.id for key in rest), default=None)

    def _finish(self) -> None:
        """End, if there is a box."""
        self.done = bool(self.keys)

    def _escape(self) -> None:
        """Leave what was begun; without anything begun, quit."""
        self.quit = self._begin_xy is None and not self.again
        self.again, self._begin_xy, self.box_xywh = False, None, None

    def _click(self, x: float, y: float) -> None:
        """Select the smallest target under the mouse."""
        hit = [row for row in self.results() if _holds(row.box_xywh, x, y)]
        if hit:
            self.selected = min(hit, key=lambda row: row.box_xywh[2] * row.box_xywh[3]).id


def draw_key_frames(frames: Any, load_tracker: Callable[[], object], start: int = 0) -> list[KeyFrame]:
    """Return the key frames that the user draws in a window on a video.

    Args:
        frames: The video: `read(number)`, `length`, `name`, `fps`.
        load_tracker: Called in a thread of its own.
        start: The frame that is shown first; none before it can be reached.

    Raises:
        ConfigError: If the user leaves without a box or without Enter; the message holds the boxes that were drawn.
    """
    frames.read(start)
    desk = LabelDesk(frames, load_tracker, start)
    with LiveWindow(f"ebmtrack: {frames.name}", desk) as window:
        while not (desk.done or desk.quit):
            window.draw(*desk.picture())
            window.listen(1 if desk.playing else WAIT_MS)
            desk.tick()
    if not desk.keys:
        raise ConfigError("no box was drawn, so there is nothing to track")
    if not desk.done:
        raise ConfigError(f"left before Enter; to go on from the same boxes: {key_frame_texts(desk.keys)}")
    print(f"key frames: {key_frame_texts(desk.keys)}")
    return list(desk.keys)


def _holds(box_xywh: Sequence[float], x: float, y: float) -> bool:
    """Return whether a point is in a box."""
    return box_xywh[0] <= x <= box_xywh[0] + box_xywh[2] and box_xywh[1] <= y <= box_xywh[1] + box_xywh[3]
