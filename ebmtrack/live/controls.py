"""Keys and the mouse, as a live window reports them, turned into what is shown and what is tracked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

from ebmtrack.errors import EbmtrackError
from ebmtrack.live.session import Box, Live, LiveView, Session, Target
from ebmtrack.viewers.window import ESCAPE

HELP = (
    "drag: new target",
    "click, 1-9: select",
    "r: draw again",
    "x: remove",
    "c: remove all",
    "space: pause",
    "s: search region",
    "e: energy",
    "i: how sure of each side",
    "h: help",
    "q: quit",
)
CLICK_FRAC = 0.01  # a drag shorter than this part of the picture's longer side is a click
NOTICE_S = 4.0  # how long a notice is shown


class Controls:
    """The state of keys and mouse, and what they do; `see` hands it the newest view, on which it acts.

    While a box is drawn the picture stands still (`frozen`), and so it does until that target is learned in it.
    Coordinates are those of the frame, in pixels. `begin_xywh` are boxes whose targets are learned in the first view,
    which stands still meanwhile.
    """

    def __init__(self, live: Live, begin_xywh: Sequence[Box] = ()):
        self.live = live
        self._begin_xywh = begin_xywh
        live.paused = bool(begin_xywh)
        self.view: LiveView | None = None  # the newest one
        self.frozen: LiveView | None = None  # the one that boxes are drawn on
        self.box_xywh: Box | None = None  # being drawn
        self.again: int | None = None  # the number of the target whose place the next box takes
        self.help, self.search, self.energy, self.quit = True, False, False, False
        self._start_xy: tuple[float, float] | None = None
        self._learning: list[tuple[Box, Future]] = []
        self._notice, self._notice_until_s = "", 0.0
        self._acts = {
            "q": self._quit,
            "r": self._draw_again,
            "x": self._remove,
            "\b": self._remove,
            "\x7f": self._remove,
            "c": lambda: self.live.ask(Session.clear),
            " ": self._pause,
            "s": lambda: setattr(self, "search", not self.search),
            "e": self._energy,
            "i": lambda: self.live.ask(Session.show_intervals),
            "h": lambda: setattr(self, "help", not self.help),
            chr(ESCAPE): self._escape,
        }

    @property
    def shown(self) -> LiveView | None:
        """The view that belongs on the screen."""
        return self.frozen or self.view

    @property
    def learning_xywh(self) -> list[Box]:
        """The boxes that were drawn and whose targets are being learned."""
        return [box for box, _ in self._learning]

    @property
    def notice(self) -> str:
        """The notice that is shown to the user now; empty if there is none."""
        if self.again is not None:
            return f"draw target {self.again} again (Esc: leave it)"
        return self._notice if time.monotonic() < self._notice_until_s else ""

    def see(self, view: LiveView | None) -> None:
        """Take a newer view if there is one, and let go of the boxes whose targets have been learned or refused."""
        if self.view is None and view is not None:
            self.view = view
            for box_xywh in self._begin_xywh:
                self.draw(box_xywh)
        self.view = view or self.view
        for _, future in self._learning:
            if future.done() and isinstance(future.exception(), EbmtrackError):
                self._say(str(future.exception()))
        self._learning = [(box, future) for box, future in self._learning if not future.done()]
        self._thaw()
        if self._begin_xywh and self.view is not None and not self._learning:
            self._begin_xywh, self.live.paused = (), False

    def key(self, code: int) -> None:
        """Handle a pressed key: its code as from cv2.waitKey, -1 for none."""
        if code < 0:
            return
        name = chr(code & 0xFF).lower()
        if name in "123456789":
            self.live.ask(Session.select, int(name))
        elif name in self._acts:
            self._acts[name]()

    def press(self, x: float, y: float) -> None:
        """Begin a box or a click: the left button went down."""
        if self.shown is not None:
            self.frozen, self._start_xy = self.shown, (x, y)
            self.box_xywh = self._box(x, y)

    def move(self, x: float, y: float) -> None:
        """Follow the mouse."""
        if self._start_xy is not None:
            self.box_xywh = self._box(x, y)

    def release(self, x: float, y: float) -> None:
        """Complete the box, or take it for a click: the left button came up."""
        if self._start_xy is None:
            return
        box, view = self._box(x, y), self._frozen_view()
        least = CLICK_FRAC * max(view.frame.image.shape[:2])
        if max(box[2:]) < least:
            self._click(view, x, y)
        elif min(box[2:]) < least:
            self._say("that box is too narrow: drag from one corner of the object to the other")
        else:
            self.draw(box)
        self._leave()

    def draw(self, box_xywh: Box) -> None:
        """Learn the target of a box that is complete on the picture that is shown."""
        self.frozen = self.shown
        learned = self.live.ask(Session.draw, self._frozen_view().frame.image, box_xywh, self.again)
        self._learning.append((box_xywh, learned))
        self.again = None

    def _frozen_view(self) -> LiveView:
        """Return the view that a box is being drawn on."""
        if self.frozen is None:
            raise EbmtrackError("a box was drawn before there was a picture")
        return self.frozen

    def _box(self, x: float, y: float) -> Box:
        """Return the box between the point where the button went down and this one, inside the picture."""
        return dragged_box(self._start_xy or (x, y), (x, y), self._frozen_view().frame.image.shape)

    def _click(self, view: LiveView, x: float, y: float) -> None:
        """Select the smallest target under the mouse."""
        hit = [target for target in view.targets if _holds(target, x, y)]
        if hit:
            self.live.ask(Session.select, min(hit, key=lambda target: target.box_xywh[2] * target.box_xywh[3]).number)

    def _draw_again(self) -> None:
        if self.view is None or self.view.selected is None:
            self._say("there is no target yet: draw one with the mouse")
        else:
            self.again = self.view.selected

    def _remove(self) -> None:
        self.live.ask(Session.remove, self.view.selected if self.view else None)

    def _pause(self) -> None:
        self.live.paused = not self.live.paused

    def _energy(self) -> None:
        self.energy = not self.energy
        self.live.ask(Session.show_energy, self.energy)

    def _escape(self) -> None:
        """Leave what was begun; without anything begun, end."""
        if self._start_xy is None and self.again is None:
            self._quit()
        self.again = None
        self._leave()

    def _quit(self) -> None:
        self.quit = True

    def _leave(self) -> None:
        """Forget the box that is being drawn."""
        self.box_xywh = self._start_xy = None
        self._thaw()

    def _thaw(self) -> None:
        """Let the picture move again, unless it is still needed."""
        if self._start_xy is None and not self._learning:
            self.frozen = None

    def _say(self, notice: str) -> None:
        self._notice, self._notice_until_s = notice, time.monotonic() + NOTICE_S


def dragged_box(start_xy: tuple[float, float], end_xy: tuple[float, float], shape: tuple[int, ...]) -> Box:
    """Return the box (x, y, w, h) between two points, limited to a picture of a shape (h, w, ...)."""
    (left, right), (top, bottom) = [
        sorted(min(max(0.0, float(value)), float(side)) for value in pair)
        for pair, side in zip(zip(start_xy, end_xy), (shape[1], shape[0]))
    ]
    return left, top, right - left, bottom - top


def _holds(target: Target, x: float, y: float) -> bool:
    """Return whether a point is in a target's box."""
    left, top, width, height = target.box_xywh
    return left <= x <= left + width and top <= y <= top + height
