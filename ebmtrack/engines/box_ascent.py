"""The climb of candidate boxes in NumPy, in the papers' relative coordinates or in DiMP's default space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ebmtrack.engines.base import Ascent, AspectPrior, Climb


class BoxEnergies(Protocol):
    """The energies of boxes in the search regions of T targets."""

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        ...

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (T, R) and gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        ...


class RelativeSpace:
    """The papers' y: (cx / w0, cy / h0, log w, log h), for the size (w0, h0) of each region's first box at first."""

    def __init__(self, boxes_xywh: np.ndarray, exp: Callable[[np.ndarray], np.ndarray]):
        """Take the sizes of boxes (T, R, 4) at the start, and the exponential function of a kind of arithmetic."""
        self.size_wh, self.exp = boxes_xywh[:, :1, 2:], exp

    def start(self, boxes_xywh: np.ndarray, log: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the coordinates (T, R, 4) of boxes (T, R, 4)."""
        size = boxes_xywh[..., 2:]
        return np.concatenate([(boxes_xywh[..., :2] + size / 2) / self.size_wh, log(size)], axis=-1)

    def boxes(self, y: np.ndarray) -> np.ndarray:
        """Return the boxes x, y, w, h (T, R, 4) at coordinates (T, R, 4)."""
        boxes = np.empty_like(y)
        boxes[..., 2:] = self.exp(y[..., 2:])
        boxes[..., :2] = y[..., :2] * self.size_wh - boxes[..., 2:] / 2
        return boxes

    def gradient(self, of_corners: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
        """Return the gradient in y from the gradient in x0, y0, x1, y1, both (T, R, 4)."""
        low, high, of_y = of_corners[..., :2], of_corners[..., 2:], np.empty_like(of_corners)
        np.multiply(low + high, self.size_wh, out=of_y[..., :2])
        np.multiply(high - low, boxes_xywh[..., 2:], out=of_y[..., 2:])
        of_y[..., 2:] /= 2
        return of_y


class DefaultSpace:
    """DiMP's default space: y = (x, y, w, h), with the gradient multiplied by the box's present size."""

    def start(self, boxes_xywh: np.ndarray, log: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the boxes as they are."""
        return boxes_xywh

    def boxes(self, y: np.ndarray) -> np.ndarray:
        """Return the boxes as they are."""
        return y

    def gradient(self, of_corners: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
        """Return the gradient in x, y, w, h times the size, from that in x0, y0, x1, y1, both (T, R, 4)."""
        low, high, size = of_corners[..., :2], of_corners[..., 2:], boxes_xywh[..., 2:]
        return np.concatenate([(low + high) * size, high * size], axis=-1)


def climb_boxes(
    energies: BoxEnergies,
    boxes_xywh: np.ndarray,
    ascent: Ascent,
    exp: Callable[[np.ndarray], np.ndarray] = np.exp,
    log: Callable[[np.ndarray], np.ndarray] = np.log,
) -> Climb:
    """Let boxes climb.

    Args:
        energies: of T targets, each in its own search region.
        boxes_xywh: (T, R, 4) float32, R boxes for each target, in crop pixels.
        ascent: steps and space.
        exp: the exponential function of float32 arrays, for an engine that has its own.
        log: its inverse.

    Returns:
        The boxes after the climb and their energies before its last step.
    """
    space = RelativeSpace(boxes_xywh, exp) if ascent.relative_space else DefaultSpace()
    step = np.array([ascent.position_step] * 2 + [ascent.size_step] * 2, boxes_xywh.dtype)
    y = space.start(boxes_xywh, log)
    with np.errstate(all="ignore"):  # boxes may climb out of sight or to no size; their energies become NaN
        for _ in range(ascent.steps - 1):
            boxes = space.boxes(y)
            y = y + step * prior_slope(space.gradient(energies.gradient(corners(boxes)), boxes), boxes, ascent.prior)
        boxes = space.boxes(y)
        values, gradient = energies.value_and_gradient(corners(boxes))
        if ascent.prior is not None:
            values = values + ascent.prior.value(boxes)
        if ascent.steps:
            y = y + step * prior_slope(space.gradient(gradient, boxes), boxes, ascent.prior)
        return Climb(space.boxes(y), values)


def prior_slope(slope: np.ndarray, boxes_xywh: np.ndarray, prior: AspectPrior | None) -> np.ndarray:
    """Add the slope of the log density of the boxes' aspect ratios, in place, and return the sum.

    Args:
        slope: the energies' gradient (T, R, 4) in either space, whose last two coordinates are derivatives by log w and
            log h.
        boxes_xywh: (T, R, 4).
        prior: the density; None adds nothing.
    """
    if prior is not None:
        by_ratio = prior.gradient(boxes_xywh)
        slope[..., 2] += by_ratio
        slope[..., 3] -= by_ratio
    return slope


def corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """Return boxes x0, y0, x1, y1 (..., 4) of boxes x, y, w, h (..., 4)."""
    boxes = boxes_xywh.copy()
    boxes[..., 2:] += boxes[..., :2]
    return boxes
