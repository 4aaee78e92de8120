"""The picture of the live window: a frame with its targets, lines of text, and help."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ebmtrack.live.controls import HELP, Controls
from ebmtrack.live.session import LiveView, Target
from ebmtrack.viewers.drawing import (
    GREY,
    ORANGE,
    PALETTE,
    WHITE,
    YELLOW,
    Colour,
    draw_box,
    draw_soft_edge,
    draw_text,
    line_width,
    overlay_heat,
)
from ebmtrack.viewers.window import usable_screen

MIN_SIDE = 640  # pixels; smaller pictures are shown in a larger window
Line = tuple[str, Colour]  # a line of text and its colour


def live_picture(controls: Controls, status: Sequence[Line]) -> tuple[np.ndarray, float]:
    """Return the picture of the window (h, w, 3): the view, the box being drawn, lines on top, help at the bottom.

    Also its zoom: pixels on the screen for each of the frame, so that small and very large frames are readable.
    """
    view = controls.shown
    if view is None:
        return with_lines(np.zeros((480, MIN_SIDE, 3), np.uint8), status, ()), 1.0
    zoom = zoom_of(view.frame.image)
    picture = draw_view(view, controls.search, zoom)
    for box_xywh in controls.learning_xywh:
        draw_box(picture, zoom_box(box_xywh, zoom), "learning ...", colour=WHITE)
    if controls.box_xywh is not None:
        draw_box(picture, zoom_box(controls.box_xywh, zoom), colour=WHITE)
    lost = [str(target.number) for target in view.targets if target.lost]
    lines = [*status, *([("lost: " + ", ".join(lost), ORANGE)] if lost else []), (controls.notice, YELLOW)]
    return with_lines(picture, lines, HELP if controls.help else ()), zoom


def draw_view(view: LiveView, search: bool = False, zoom: float = 1.0) -> np.ndarray:
    """Return a copy of the view's frame, zoomed, with its targets: box, number, confidence, "lost", energy.

    The selected target, if there are several, has handles at its corners. `search` adds its search region.
    """
    image = view.frame.image
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    resampling = cv2.INTER_AREA if zoom < 0.5 else cv2.INTER_LINEAR  # the former takes 15 ms for 1920 x 1080
    picture = image.copy() if zoom == 1 else cv2.resize(image, size, interpolation=resampling)
    for target in view.targets:
        selected = target.number == view.selected
        _draw_target(picture, target, search and selected, zoom)
        if selected and len(view.targets) > 1:
            _draw_handles(picture, zoom_box(target.box_xywh, zoom), target.heat is None)
    return picture


def _draw_target(picture: np.ndarray, target: Target, search: bool, zoom: float) -> None:
    """Draw one target on a zoomed picture."""
    colour = PALETTE[(target.number - 1) % len(PALETTE)]
    if target.heat is not None:
        overlay_heat(picture, target.heat.values, zoom_box(target.heat.area_xywh, zoom))
    if search and target.search_xywh is not None:
        draw_box(picture, zoom_box(target.search_xywh, zoom), colour=colour, dashed=True)
    box = zoom_box(target.box_xywh, zoom)
    if target.lost:
        draw_box(picture, box, colour=GREY, dashed=True)
        score = "" if target.score is None else f" {target.score:.2f}"
        draw_text(picture, f"{target.number} lost{score}", (box[0], box[1]))
    else:
        if target.sides is not None:
            draw_soft_edge(picture, (target.sides + 0.5) * zoom - 0.5, colour)
        draw_box(picture, box, str(target.number), target.score, colour)


def _draw_handles(picture: np.ndarray, box_xywh: Sequence[float], top_right: bool) -> None:
    """Draw white squares on a box's corners, on the top right one only if asked: the energy is shown there."""
    x, y, w, h = box_xywh
    half = 2 * line_width(picture)
    for corner in ((x, y), (x, y + h), (x + w, y + h), *([(x + w, y)] if top_right else [])):
        middle = np.clip(np.rint(corner), -1e4, 1e4).astype(int)
        for side, shade in ((half + 1, 0), (half, 255)):
            cv2.rectangle(picture, (middle - side).tolist(), (middle + side).tolist(), (shade,) * 3, cv2.FILLED)


def with_lines(picture: np.ndarray, top: Sequence[Line], bottom: Sequence[str]) -> np.ndarray:
    """Return the picture with lines of text at its top, and items at its bottom, as many in a line as fit."""
    height = text_size(picture, "Ag")[1]
    rows = [(row, colour) for text, colour in top for row in _wrap_items(picture, text.split(), " ")]
    for index, (row, colour) in enumerate(rows):
        draw_text(picture, row, (0, (index + 1) * height), colour)
    for index, row in enumerate(reversed(_wrap_items(picture, bottom, "   "))):
        draw_text(picture, row, (0, picture.shape[0] - index * height))
    return picture


def _wrap_items(picture: np.ndarray, items: Sequence[str], gap: str) -> list[str]:
    """Return items joined to rows that fit into the picture's width."""
    rows: list[str] = []
    for item in items:
        longer = rows[-1] + gap + item if rows else item
        if rows and text_size(picture, longer)[0] <= picture.shape[1]:
            rows[-1] = longer
        else:
            rows.append(item)
    return rows


def text_size(picture: np.ndarray, text: str) -> tuple[int, int]:
    """Return the width and height of a plate by `draw_text`."""
    scale = max(0.4, min(picture.shape[:2]) / 900)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    return width + 6, height + below + 6


def zoom_of(image: np.ndarray) -> float:
    """Return the factor by which a frame is shown larger or smaller: readable, and inside the screen."""
    height, width = image.shape[:2]
    room_w, room_h = usable_screen()
    return min(room_w / width, room_h / height, max(1.0, MIN_SIDE / max(width, height)))


def zoom_box(box_xywh: Sequence[float], zoom: float) -> tuple[float, ...]:
    """Return a box of the frame on the zoomed picture; pixel centres are at whole numbers in both."""
    x, y, w, h = box_xywh
    return (x + 0.5) * zoom - 0.5, (y + 0.5) * zoom - 0.5, w * zoom, h * zoom
