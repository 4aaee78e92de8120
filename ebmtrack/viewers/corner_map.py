"""The energy of boxes whose top right corner moves: the picture of ECCV 2020, figure 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def corner_map(
    log_density: Callable[[np.ndarray], np.ndarray],
    box_xywh: Sequence[float] | np.ndarray,
    points: int,
    reach_frac: float,
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return f - max f of boxes whose bottom left corner is that of a box, by the place of their top right corner.

    Args:
        log_density: Function of corners (n, 2) in pixels -> f (n,), up to a constant.
        box_xywh: The box.
        points: Number of corners in each direction.
        reach_frac: How far the corner moves to each side, in widths and heights of the box.

    Returns:
        The map (points, points), row 0 on top, 0 at most; and the area that it covers, x, y, w, h in pixels.
    """
    x, y, w, h = box_xywh
    area_xywh = (x + w * (1 - reach_frac), y - h * reach_frac, 2 * w * reach_frac, 2 * h * reach_frac)
    steps = np.linspace(0, 1, points)
    corners_xy = np.stack(
        np.meshgrid(area_xywh[0] + steps * area_xywh[2], area_xywh[1] + steps * area_xywh[3]), axis=-1
    )
    f = np.asarray(log_density(corners_xy.reshape(-1, 2)), dtype=np.float64).reshape(points, points)
    return f - f.max(), area_xywh
