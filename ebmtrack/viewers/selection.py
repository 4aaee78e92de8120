"""Targets as users give them, on the command line and in Python: boxes x,y,w,h, and the frames in which they are."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.result_rows import Box
from ebmtrack.words import counted

FrameAt = Callable[[float], int]  # the number of the frame that is shown at a time in seconds: FrameTimes.frame_at


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Return the box (x, y, w, h) written as "x,y,w,h"; ConfigError if that is not four numbers with w, h > 0.

    >>> parse_box("(80, 60, 60, 44)")  # as Python prints it
    (80.0, 60.0, 60.0, 44.0)
    """
    inner = re.fullmatch(r"\s*(?:\((.*)\)|\[(.*)\])\s*", text)
    parts = (text if inner is None else inner[1] or inner[2] or "").replace(",", " ").split()
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


def parse_key_frames(
    texts: Sequence[str], frame_at: FrameAt, default: int | None, others: Sequence[KeyFrame] = ()
) -> list[KeyFrame]:
    """Return the key frames that --init gives.

    Args:
        texts: Each "x,y,w,h", a target of its own; "FRAME:x,y,w,h", a box of the first target in that frame; or
            "ID@FRAME:x,y,w,h", one of another target. A frame is a number or a time; semicolons separate several.
        frame_at: Returns the number of the frame that is shown at a time.
        default: The frame of boxes without one; None if each needs one.
        others: Key frames that are given elsewhere, which come first.

    Raises:
        ConfigError: On what is no box or frame.
    """
    keys = list(others)
    for part in (part for text in texts for part in text.split(";")):
        where, _, box = part.rpartition(":")
        name, _, frame = where.rpartition("@")
        if not where and default is None:
            raise ConfigError(f"--both needs the frame of each box: --init FRAME:x,y,w,h, such as 90:{part.strip()}")
        if not re.fullmatch(r"\s*([1-9]\d*)?\s*", name):
            raise ConfigError(f"a box in a frame is ID@FRAME:x,y,w,h, such as 2@90:120,80,64,48, not {part!r}")
        number = int(name) if name.strip() else 1 if where else 1 + max((key.id for key in keys), default=0)
        at = _place(frame, frame_at, "--init FRAME:x,y,w,h: FRAME") if where else (default or 0, "")
        keys.append(KeyFrame(at[0], number, parse_box(box), at[1]))
    return keys


def as_key_frames(boxes: Any, frame_at: FrameAt, start: int = 0) -> list[KeyFrame]:
    """Return key frames of what a caller of `ebmtrack.track` may give.

    Args:
        boxes: A box x, y, w, h in frame `start`; a dictionary from frames to boxes, the key frames of one target; or a
            list of any of these, one for each target. A frame is a number or a time, as on the command line.
        frame_at: Returns the number of the frame that is shown at a time.
        start: The frame of boxes without one.

    Raises:
        ConfigError: On what is no box or frame.
    """
    if isinstance(boxes, str) or not (isinstance(boxes, (Mapping, Sequence)) or getattr(boxes, "ndim", 0) > 0):
        boxes = [as_box(boxes)]
    if isinstance(boxes, Mapping) or (len(boxes) and _is_number(boxes[0])):
        boxes = [boxes]
    keys = []
    for number, target in enumerate(boxes, 1):
        for frame, box in (target if isinstance(target, Mapping) else {start: target}).items():
            at, time = _place(frame, frame_at, "the frame in {frame: box}")
            keys.append(KeyFrame(at, number, as_box(box), time))
    return keys


def _is_number(value: Any) -> bool:
    """Return whether a value is a number or a text, and not a box or key frames; lists may be ragged."""
    return isinstance(value, str) or not (isinstance(value, (Mapping, Sequence)) or np.ndim(value))


def as_box(box_xywh: Any) -> Box:
    """Return a box as four floats; ConfigError if it is none."""
    try:
        x, y, w, h = (float(value) for value in box_xywh)
    except (TypeError, ValueError):
        raise ConfigError(f"a box is four numbers x, y, w, h in pixels, not {box_xywh!r}") from None
    return x, y, w, h


def overreach(box_xywh: Box, size_wh: tuple[int, int]) -> str:
    """Return in words how far a box that is partly inside a picture reaches over its edges, in whole pixels, or "".

    >>> overreach((300, 200, 80, 160), (320, 240))
    '60 pixels over the right edge and 120 over the bottom edge'
    """
    (x, y, w, h), (width, height) = box_xywh, size_wh
    sides = {"left": -x, "top": -y, "right": x + w - width, "bottom": y + h - height}
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return ""
    over = [(side, round(pixels)) for side, pixels in sides.items() if round(pixels) > 0]
    words = [f"{counted(n, 'pixel') if place == 0 else n} over the {side} edge" for place, (side, n) in enumerate(over)]
    return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1] if words else ""


def tell_of_overreach(keys: Sequence[KeyFrame], image: np.ndarray) -> None:
    """Print a note for each given box that is partly outside of its picture (h, w, 3)."""
    for key in keys:
        if text := overreach(key.box_xywh, (image.shape[1], image.shape[0])):
            print(f"note: {key.place}, target {key.id}: the box reaches {text}", file=sys.stderr)


def checked_key_frames(keys: Sequence[KeyFrame]) -> list[KeyFrame]:
    """Return key frames by target and frame; ConfigError if a target has two boxes in one frame, or none is given."""
    ordered = sorted(keys, key=lambda key: (key.id, key.frame))
    for one, other in pairwise(ordered):
        if (one.id, one.frame) == (other.id, other.frame):
            both = f"{one.box_xywh} in {one.place}, {other.box_xywh} in {other.place}"
            advice = f"a box of another target is {one.id + 1}@{one.frame}:x,y,w,h"
            raise ConfigError(f"target {one.id} has two boxes in one frame: {both}; {advice}")
    if not ordered:
        raise ConfigError("no box is given, so there is nothing to track")
    return ordered


def key_frame_texts(keys: Sequence[KeyFrame]) -> str:
    """Return the options --init that give key frames, for the command line.

    >>> key_frame_texts([KeyFrame(90, 2, (1.0, 2.0, 30.5, 40.0))])
    '--init 2@90:1,2,30.5,40'
    """
    boxes = [",".join(f"{round(value, 2):g}" for value in key.box_xywh) for key in keys]
    return " ".join(f"--init {key.id}@{key.frame}:{box}" for key, box in zip(keys, boxes))


def _place(frame: int | str, frame_at: FrameAt, option: str) -> tuple[int, str]:
    """Return the number of a frame, and the time by which it is given; "" if it is given by its number."""
    text = str(frame).strip()
    return frame_number(text, frame_at, option), "" if text.isdecimal() else text


def frame_number(text: int | str, frame_at: FrameAt, option: str) -> int:
    """Return the number of a frame that is given as such ("90") or as a time ("3.5s", "1:02.5", "0:01:02")."""
    parts = re.fullmatch(r"(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,9}(?:\.\d+)?)(s?)", str(text).strip())
    if parts is None or not (parts[2] or parts[4] or "." not in parts[3]):
        raise ConfigError(f"{option} is a frame's number such as 90, or a time such as 3.5s or 1:02.5, not {text!r}")
    if not (parts[2] or parts[4]):
        return int(parts[3])
    return frame_at(3600 * int(parts[1] or 0) + 60 * int(parts[2] or 0) + float(parts[3]))
