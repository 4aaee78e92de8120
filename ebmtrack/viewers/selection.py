"""Choosing the target: a box drawn with the mouse, or written as x,y,w,h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.viewers.window import open_window, require_screen

MAX_SIDE = 1400  # pixels; larger frames are shown smaller, so that they fit the screen


def select_box(image: np.ndarray, title: str = "Draw a box around the target, then press Enter") -> tuple:
    """Return the box (x, y, w, h) that the user draws on an RGB frame.

    Raises ConfigError where there is no screen, saying what to do instead, or where no box was drawn.
    """
    require_screen("drawing a box with the mouse (--select)", "give the box instead: --init x,y,w,h")
    shrink = max(1.0, max(image.shape[:2]) / MAX_SIDE)
    size = (round(image.shape[1] / shrink), round(image.shape[0] / shrink))
    shown = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    try:
        open_window(title, cv2.WINDOW_AUTOSIZE)
        box = cv2.selectROI(title, shown, showCrosshair=False, fromCenter=False, printNotice=False)
    except cv2.error:
        raise ConfigError("OpenCV cannot open a window here; give the box instead: --init x,y,w,h") from None
    _close(title)
    if box[2] <= 0 or box[3] <= 0:
        raise ConfigError("no box was drawn, so there is nothing to track")
    return tuple(float(value) * shrink for value in box)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Return the box (x, y, w, h) written as "x,y,w,h"; ConfigError where that is not four numbers with w, h > 0."""
    parts = text.replace(",", " ").split()
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"a box is four numbers x,y,w,h in pixels, such as 120,80,64,48, not {text!r}")
    if numbers[2] <= 0 or numbers[3] <= 0:
        raise ConfigError(f"a box needs a width and a height above zero, unlike {text!r}")
    x, y, w, h = numbers
    return x, y, w, h


def parse_boxes(texts: Sequence[str]) -> list[tuple[float, float, float, float]]:
    """Return the boxes of all texts, each "x,y,w,h" or several separated by semicolons; ConfigError as parse_box."""
    return [parse_box(part) for text in texts for part in text.split(";")]


def _close(title: str) -> None:
    """Close the window and let the window library see to it."""
    cv2.destroyWindow(title)
    cv2.waitKey(1)
