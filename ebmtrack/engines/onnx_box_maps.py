"""Box features of a search region in NumPy, computed where boxes look."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ebmtrack.engines.pooling import MARGIN, WINDOWS

Convolve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Box features (n, n, 256) of a cut (c, n + 4, n + 4) and the mask (n + 2, n + 2) of its cells inside the map."""


class BoxMaps:
    """Box features of one search region, computed where boxes look: in a window, in a larger one when boxes leave it.

    Maps are square, (side, side, 256).
    """

    def __init__(self, layers: Sequence[np.ndarray], convolve: Sequence[Convolve]):
        """Take backbone features (c, side, side) at strides 8 and 16, and the convolutions of each."""
        self.layers, self.convolve = layers, convolve
        self.parts: list[tuple[int, int, np.ndarray] | None] = [None, None]

    def side(self, level: int) -> int:
        """Return the number of cells along each side of a map."""
        return self.layers[level].shape[-1]

    def part(self, level: int, low_xy: np.ndarray, high_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a part (h, w, 256) that holds all cells which intervals from low to high touch, and its first cell.

        Args:
            level: 0 for stride 8, 1 for stride 16.
            low_xy: (2,) in cells.
            high_xy: (2,) in cells.
        """
        last = self.side(level) - 1
        first = np.floor(low_xy).clip(0, last).astype(int)
        end = np.ceil(high_xy).clip(first, last).astype(int) + 1
        known = self.parts[level]
        if known is None or not _holds(known, first, end):
            known = self.parts[level] = self._window(level, first, end)
        x, y, values = known
        return values[first[1] - y : end[1] - y, first[0] - x : end[0] - x], first

    def _window(self, level: int, first: np.ndarray, end: np.ndarray) -> tuple[int, int, np.ndarray]:
        """Compute a window around the wished cells, larger than the known one; the whole map if no window will do."""
        total, length, known = self.side(level), int((end - first).max()), self.parts[level]
        least = length if known is None else max(length, len(known[2]) + 1)
        side = next((side for side in WINDOWS[level] if least <= side < total), total)
        x, y = (int(min(max(f - (side - length) // 2, 0), total - side)) for f in first)
        return x, y, self.convolve[level](*cut_window(self.layers[level], x, y, side))


def _holds(part: tuple[int, int, np.ndarray], first: np.ndarray, end: np.ndarray) -> bool:
    """Return whether a part, by its first cell (x, y) and values, holds the cells from first to end."""
    corner = np.array(part[:2])
    return bool((corner <= first).all() and (end <= corner + len(part[2])).all())


def cut_window(layer: np.ndarray, x: int, y: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a window sees of a map (c, n, n), zeros outside of it, and the mask of the inner convolution's cells.

    Args:
        layer: the map.
        x: the window's first column.
        y: its first row.
        side: cells along each side of it.
    """
    total = layer.shape[-1]
    cut = np.zeros((len(layer), side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
    mask = np.zeros((side + MARGIN, side + MARGIN), np.float32)
    low, high = np.maximum((x - MARGIN, y - MARGIN), 0), np.minimum((x + side + MARGIN, y + side + MARGIN), total)
    to_x, to_y = low - (x - MARGIN, y - MARGIN)
    (width, height) = high - low
    cut[:, to_y : to_y + height, to_x : to_x + width] = layer[:, low[1] : high[1], low[0] : high[0]]
    inside_x, inside_y = ((np.arange(start - 1, start + side + 1)) for start in (x, y))
    rows, columns = ((0 <= cells) & (cells < total) for cells in (inside_y, inside_x))
    mask[rows[:, None] & columns] = 1
    return cut, mask
