"""Cut-outs over a scene: prepare, warp, blur and blend them, and measure their boxes from alpha.

Cut-outs and layers are float32 RGBA (h, w, 4) with premultiplied colour in 0..255 and alpha in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SPECK_FRAC = 0.05  # separate pieces smaller than this part of the largest are leftovers of automatic masks


@dataclass(frozen=True)
class Layer:
    """A warped cut-out: premultiplied pixels (h, w, 4) whose top left pixel is (x, y) of the frame."""

    pixels: np.ndarray
    x: int
    y: int


def clean_cutout(rgba: np.ndarray) -> np.ndarray | None:
    """Return a premultiplied cut-out (h, w, 4), cropped to its object, from uint8 RGBA; None if nothing is solid.

    Separate pieces smaller than `SPECK_FRAC` of the largest are dropped.
    """
    solid = (rgba[..., 3] > 127).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(pieces, 1 + np.flatnonzero(areas >= SPECK_FRAC * areas.max())).astype(np.uint8)
    near = cv2.dilate(kept, np.ones((3, 3), np.uint8))
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = (rgba[..., 3] * near)[window].astype(np.float32) / 255
    return np.dstack([rgba[..., :3][window] * alpha[..., None], alpha])


def resized_cutout(cutout: np.ndarray, scale: float, feather_px: float) -> np.ndarray:
    """Return the cut-out at `scale` (at most 1), its edge softened by `feather_px`, and a clear margin."""
    if scale < 1:
        height, width = cutout.shape[:2]
        size_wh = (max(2, round(width * scale)), max(2, round(height * scale)))
        cutout = cv2.resize(cutout, size_wh, interpolation=cv2.INTER_AREA)
    cutout = cv2.copyMakeBorder(cutout, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    return cv2.GaussianBlur(cutout, (0, 0), feather_px) if feather_px > 0.2 else cutout


def warped_layer(cutout: np.ndarray, linear: np.ndarray, centre_xy: np.ndarray, margin: int = 2) -> Layer:
    """Return the cut-out under the linear map (2, 2), its middle at `centre_xy` (2,) of the frame."""
    height, width = cutout.shape[:2]
    half_wh = np.abs(linear) @ np.array([width / 2, height / 2])
    low = np.floor(centre_xy - half_wh).astype(int) - margin
    size_wh = np.ceil(centre_xy + half_wh).astype(int) + margin + 1 - low
    shift = centre_xy - low - linear @ np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = cv2.warpAffine(cutout, np.column_stack([linear, shift]), tuple(size_wh.tolist()), flags=cv2.INTER_LINEAR)
    return Layer(pixels, int(low[0]), int(low[1]))


def motion_kernel(length_px: float, angle: float) -> np.ndarray:
    """Return a kernel (k, k) float32, sum 1, of an even, centred blur of `length_px` along `angle` (radians)."""
    reach = max(1, int(np.ceil(length_px / 2)))
    along = np.linspace(-length_px / 2, length_px / 2, 4 * reach + 1)
    columns, rows = along * np.cos(angle) + reach, along * np.sin(angle) + reach
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel, (np.rint(rows).astype(int), np.rint(columns).astype(int)), 1.0)
    return kernel / kernel.sum()


def relit(layer: Layer, gain_rgb: np.ndarray, offset: float) -> Layer:
    """Return the layer with colour * gain_rgb (3,) + offset (grey levels), kept inside 0..255."""
    alpha = layer.pixels[..., 3:]
    colour = np.clip(layer.pixels[..., :3] * gain_rgb + offset * alpha, 0, 255 * alpha)
    return Layer(np.concatenate([colour, alpha], axis=2).astype(np.float32), layer.x, layer.y)


def blend(frame: np.ndarray, layer: Layer) -> None:
    """Draw the layer over `frame` (H, W, 3) uint8, in place; parts outside are left out."""
    inside = _overlap(layer, 0, 0, *frame.shape[1::-1])
    if inside is None:
        return
    (rows, columns), (own_rows, own_columns) = inside
    pixels = layer.pixels[own_rows, own_columns]
    mixed = frame[rows, columns] * (1 - pixels[..., 3:]) + pixels[..., :3]
    frame[rows, columns] = (mixed + 0.5).clip(0, 255).astype(np.uint8)


def alpha_box_xywh(layer: Layer) -> np.ndarray | None:
    """Return the box (4,) of alpha above one half, edges interpolated below the pixel; None if there is none.

    A hard mask over pixel columns a..b gives x = a and w = b - a + 1, as boxes from masks usually do.
    """
    alpha = layer.pixels[..., 3]
    left, right = _crossings(alpha.max(axis=0))
    top, bottom = _crossings(alpha.max(axis=1))
    if right <= left or bottom <= top:
        return None
    return np.array([layer.x + left, layer.y + top, right - left, bottom - top])


def shown_frac(target: Layer, in_front: list[Layer], width: int, height: int) -> float:
    """Return the part of the target's solid pixels that is inside the frame and under no layer in front of it."""
    solid = (target.pixels[..., 3] > 0.5).astype(np.float32)
    total = solid.sum()
    shown = np.zeros_like(solid)
    inside = _overlap(target, 0, 0, width, height)
    if inside is not None:
        shown[inside[1]] = solid[inside[1]]
    for layer in in_front:
        overlap = _overlap(layer, target.x, target.y, solid.shape[1], solid.shape[0])
        if overlap is not None:
            shown[overlap[0]] *= 1 - layer.pixels[..., 3][overlap[1]]
    return float(shown.sum() / total) if total > 0 else 0.0


def _crossings(profile: np.ndarray) -> tuple[float, float]:
    """Return the places at which a profile (n,) first exceeds and last falls below 1/2; pixel i covers i..i+1."""
    above = np.flatnonzero(profile > 0.5)
    if len(above) == 0:
        return 0.0, 0.0
    padded = np.concatenate([[0.0], profile.astype(np.float64), [0.0]])
    first, last = above[0] + 1, above[-1] + 1
    rise = (0.5 - padded[first - 1]) / (padded[first] - padded[first - 1])  # 0..1 from pixel first-1 to first
    fall = (padded[last] - 0.5) / (padded[last] - padded[last + 1])
    return first - 2 + rise + 0.5, last - 1 + fall + 0.5


def _overlap(layer: Layer, x: int, y: int, width: int, height: int) -> tuple | None:
    """Return slices (rows, columns) of a window and of the layer that cover their overlap; None if there is none."""
    layer_height, layer_width = layer.pixels.shape[:2]
    left, top = max(layer.x, x), max(layer.y, y)
    right, bottom = min(layer.x + layer_width, x + width), min(layer.y + layer_height, y + height)
    if right <= left or bottom <= top:
        return None
    in_window = slice(top - y, bottom - y), slice(left - x, right - x)
    return in_window, (slice(top - layer.y, bottom - layer.y), slice(left - layer.x, right - layer.x))
