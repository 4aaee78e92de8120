"""Drawing on frames (RGB uint8, changed in place): boxes with labels, heat maps; and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ebmtrack.errors import ConfigError

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008): eight colours that all kinds of colour vision tell apart.
ORANGE: Colour = (230, 159, 0)
SKY: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)
PALETTE: tuple[Colour, ...] = (SKY, ORANGE, YELLOW, PURPLE, GREEN, VERMILION, BLUE)
GREY: Colour = (160, 160, 160)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)

_SHIFT = 4  # coordinates are given to OpenCV in sixteenths of a pixel


def line_width(image: np.ndarray) -> int:
    """Return the width of lines that suits an image: 2 pixels at 640 x 480 and below, more in larger ones."""
    return max(2, round(min(image.shape[:2]) / 240))


def draw_box(
    image: np.ndarray,
    box_xywh: Sequence[float] | np.ndarray,
    label: str = "",
    score: float | None = None,
    colour: Colour = SKY,
    lost: bool = False,
    dashed: bool = False,
) -> np.ndarray:
    """Draw a box (x, y, w, h in pixels) with a dark rim, its label and score above it; return the image.

    A lost target's box is grey and dashed. A box with a number that is not finite is not drawn.
    """
    box = np.asarray(box_xywh, dtype=np.float64)
    if box.shape != (4,):
        raise ConfigError(f"a box to draw needs four numbers x, y, w, h, not {box_xywh!r}")
    if not np.isfinite(box).all():
        return image
    reach = 4.0 * max(image.shape[:2])
    corners = np.clip(np.array([box[:2], box[:2] + box[2:]]), -reach, reach)
    colour = GREY if lost else colour
    width = line_width(image)
    dash = 8 * width if lost or dashed else 0
    _outline(image, corners, BLACK, width + 2, dash)
    _outline(image, corners, colour, width, dash)
    text = " ".join(part for part in (label, "lost" if lost else "", _score_text(score)) if part)
    if text:
        draw_text(image, text, (float(corners[0, 0]), float(corners[0, 1])), colour)
    return image


def draw_soft_edge(image: np.ndarray, sides: np.ndarray, colour: Colour = SKY, strength: float = 0.7) -> np.ndarray:
    """Draw how sure a box is: a band around it, as wide as the intervals that hold its sides; return the image.

    Args:
        image: changed in place.
        sides: (4, 2) low and high end of left, top, right and bottom, pixels; nothing is drawn if one is not finite.
        colour: of the band.
        strength: its cover in the middle of an interval, which falls to 0 at its ends.
    """
    if not np.isfinite(sides).all():
        return image
    reach = 4.0 * max(image.shape[:2])
    (left, top, right, bottom), size = np.clip(sides, -reach, reach), image.shape[1::-1]
    covers = []
    for (low, high), last in (((left, right), size[0]), ((top, bottom), size[1])):
        first, end = (int(np.clip(v, 0, last)) for v in (np.floor(low[0]), np.ceil(high[1]) + 1))
        at, ends = np.arange(first, end), np.array([low, high])
        middle, half = ends.mean(axis=1)[:, None], np.maximum(np.diff(ends, axis=1) / 2, 0.5)
        edge = np.clip(1 - np.abs(at - middle) / half, 0, 1).max(axis=0)
        covers.append((first, edge, np.where((at > middle[0]) & (at < middle[1]), 1.0, edge)))
    (x, edge_x, within_x), (y, edge_y, within_y) = covers
    cover = strength * np.maximum(edge_x * within_y[:, None], within_x * edge_y[:, None])[..., None]
    window = image[y : y + len(edge_y), x : x + len(edge_x)]
    window[...] = np.rint(window * (1 - cover) + np.array(colour) * cover).astype(np.uint8)
    return image


def draw_text(image: np.ndarray, text: str, at_xy: tuple[float, float], colour: Colour = WHITE) -> np.ndarray:
    """Write text on a dark plate whose bottom left is (x, y), kept inside the image; return the image."""
    scale = max(0.4, min(image.shape[:2]) / 900)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    pad = 3
    left = int(np.clip(at_xy[0], 0, max(0, image.shape[1] - width - 2 * pad)))
    bottom = int(np.clip(at_xy[1], height + below + 2 * pad, image.shape[0]))
    plate = image[max(0, bottom - height - below - 2 * pad) : bottom, left : left + width + 2 * pad]
    plate[...] = plate // 4
    origin = (left + pad, bottom - below - pad)
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return image


def overlay_heat(
    image: np.ndarray, heat: np.ndarray, area_xywh: Sequence[float] | None = None, strength: float = 0.85
) -> np.ndarray:
    """Lay a heat map (h, w), 0 to 1, over an area of the image (all of it by default); return the image.

    Where the heat is 0 the image shows through untouched; `strength` is the cover at 1. The outer pixels'
    centres are on the borders of the area, which may reach beyond the image.
    """
    heat = np.asarray(heat, dtype=np.float32)
    if heat.ndim != 2 or min(heat.shape) < 2:
        raise ConfigError(f"a heat map needs two axes of at least 2 points, not the shape {heat.shape}")
    height, width = image.shape[:2]
    x, y, w, h = (0, 0, width - 1, height - 1) if area_xywh is None else area_xywh
    to_image = np.array([[w / (heat.shape[1] - 1), 0, x], [0, h / (heat.shape[0] - 1), y]], dtype=np.float64)
    low = np.maximum(np.floor([x, y]), 0).astype(int)
    high = np.minimum(np.ceil([x + w, y + h]) + 1, (width, height)).astype(int)
    if (high <= low).any():
        return image
    to_image[:, 2] -= low
    heat = np.nan_to_num(heat, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    spread = cv2.warpAffine(heat, to_image, (high - low).tolist(), flags=cv2.INTER_LINEAR).clip(0, 1)
    window = image[low[1] : high[1], low[0] : high[0]]
    cover = strength * np.sqrt(spread)[..., None]  # the root keeps the slopes of a peak visible
    window[...] = np.rint(window * (1 - cover) + heat_colours(spread) * cover).astype(np.uint8)
    return image


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Return heat (h, w), 0 to 1, as colours (h, w, 3) of the inferno scale, from black over violet to yellow."""
    coloured = cv2.applyColorMap(np.rint(heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def contact_sheet(
    images: Sequence[np.ndarray], columns: int, tile_width: int = 320, captions: Sequence[str] = ()
) -> np.ndarray:
    """Return images of any sizes in rows of `columns`, scaled into tiles that are shaped like the first, captioned.

    Raises ConfigError if there are no images.
    """
    if not images or columns < 1:
        raise ConfigError("a contact sheet needs at least one image and one column")
    tile_height = max(1, round(tile_width * images[0].shape[0] / images[0].shape[1]))
    gap = 4
    tiles = [fit(image, tile_width, tile_height) for image in images]
    for tile, caption in zip(tiles, captions):
        draw_text(tile, caption, (0, 0))
    rows = -(-len(tiles) // columns)
    shape = (rows * (tile_height + gap) + gap, columns * (tile_width + gap) + gap, 3)
    sheet = np.full(shape, 24, np.uint8)
    for index, tile in enumerate(tiles):
        top = gap + index // columns * (tile_height + gap)
        left = gap + index % columns * (tile_width + gap)
        sheet[top : top + tile_height, left : left + tile_width] = tile
    return sheet


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a copy of the image, scaled to fit into (height, width, 3), its proportions kept, black beside it."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas


def _score_text(score: float | None) -> str:
    """Return a score with two decimals, or nothing."""
    return "" if score is None or not np.isfinite(score) else f"{score:.2f}"


def _outline(image: np.ndarray, corners: np.ndarray, colour: Colour, width: int, dash: int) -> None:
    """Draw the rectangle between two corners (2, 2), in dashes of a length unless that is 0."""
    (left, top), (right, bottom) = corners
    points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if not dash:
        fixed = np.rint(points * 2**_SHIFT).astype(np.int32)
        cv2.polylines(image, [fixed], True, colour, width, cv2.LINE_AA, _SHIFT)
        return
    for start, end in zip(points, np.roll(points, -1, axis=0)):
        _dashes(image, start, end, colour, width, dash)


def _dashes(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour, width: int, dash: int) -> None:
    """Draw a dashed line; its ends are drawn, so that corners close."""
    count = 2 * max(1, int(np.hypot(*(end - start)) / dash / 2)) + 1
    stops = start + np.linspace(0, 1, count + 1)[:, None] * (end - start)
    fixed = np.rint(stops * 2**_SHIFT).astype(int)
    for index in range(0, count, 2):
        a, b = fixed[index].tolist(), fixed[index + 1].tolist()
        cv2.line(image, a, b, colour, width, cv2.LINE_AA, _SHIFT)
