"""The climb of candidate boxes in NumPy, in the papers' relative coordinates or in DiMP's default space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ebmtrack.engines.base import Ascent, BoxEnergies, Climb, Mark, no_mark

Function = Callable[[np.ndarray], np.ndarray]


class RelativeSpace:
    """The papers' y: (cx / w0, cy / h0, log w, log h), for the size (w0, h0) of each region's first box at the start.

    Centres are kept in pixels: a step of the relative position is one of the position times (w0, h0) squared.
    """

    def __init__(self, boxes_xywh: np.ndarray, ascent: Ascent, exp: Function, log: Function):
        """Take boxes (T, R, 4) at the start, steps, and exponential function and logarithm of a kind of arithmetic."""
        number, self.prior, self.exp = boxes_xywh.dtype.type, ascent.prior, exp
        size = boxes_xywh[..., 2:]
        self.centre, self.log_size = boxes_xywh[..., :2] + size / 2, log(size)
        self.position_step = number(ascent.position_step) * np.square(size[:, :1])
        self.size_step = number(ascent.size_step)
        self.momentum, self.velocity = number(ascent.momentum), np.zeros((2, *size.shape), size.dtype)

    def boxes(self) -> np.ndarray:
        """Return the present boxes x, y, w, h (T, R, 4)."""
        size = self.exp(self.log_size)
        return np.concatenate([self.centre - size / 2, size], axis=-1)

    def corners(self) -> np.ndarray:
        """Return the present boxes x0, y0, x1, y1 (T, R, 4)."""
        self.size = self.exp(self.log_size)
        boxes = np.empty((*self.size.shape[:-1], 4), self.size.dtype)
        low = np.subtract(self.centre, self.size / 2, out=boxes[..., :2])
        np.add(low, self.size, out=boxes[..., 2:])
        return boxes

    def move(self, of_corners: np.ndarray) -> None:
        """Make a step from the corners that were asked for last, by the energies' gradient there, (T, R, 4)."""
        low, high = of_corners[..., :2], of_corners[..., 2:]
        of_log_size = high - low
        of_log_size *= self.size
        of_log_size /= 2
        if self.prior is not None:
            add_slope(of_log_size, self.prior.gradient(self.log_size[..., 0] - self.log_size[..., 1]))
        of_log_size *= self.size_step
        self.velocity *= self.momentum
        self.velocity += ((low + high) * self.position_step, of_log_size)
        self.centre, self.log_size = self.centre + self.velocity[0], self.log_size + self.velocity[1]


class DefaultSpace:
    """DiMP's default space: y = (x, y, w, h), with the gradient multiplied by the box's present size."""

    def __init__(self, boxes_xywh: np.ndarray, ascent: Ascent, exp: Function, log: Function):
        """Take boxes (T, R, 4) at the start and steps; this space needs no functions."""
        self.y, self.prior = boxes_xywh, ascent.prior
        self.step = np.array([ascent.position_step] * 2 + [ascent.size_step] * 2, boxes_xywh.dtype)
        self.momentum, self.velocity = boxes_xywh.dtype.type(ascent.momentum), np.zeros_like(boxes_xywh)

    def boxes(self) -> np.ndarray:
        """Return the present boxes x, y, w, h (T, R, 4)."""
        return self.y

    def corners(self) -> np.ndarray:
        """Return the present boxes x0, y0, x1, y1 (T, R, 4)."""
        return corners(self.y)

    def move(self, of_corners: np.ndarray) -> None:
        """Make a step by the energies' gradient in x0, y0, x1, y1 (T, R, 4) at the present boxes."""
        low, high, size = of_corners[..., :2], of_corners[..., 2:], self.y[..., 2:]
        slope = np.concatenate([(low + high) * size, high * size], axis=-1)
        if self.prior is not None:
            add_slope(slope[..., 2:], self.prior.gradient(np.log(size[..., 0] / size[..., 1])))
        self.velocity *= self.momentum
        self.velocity += self.step * slope
        self.y = self.y + self.velocity


def climb_boxes(
    energies: BoxEnergies,
    boxes_xywh: np.ndarray,
    ascent: Ascent,
    mark: Mark = no_mark,
    exp: Function = np.exp,
    log: Function = np.log,
) -> Climb:
    """Let boxes climb.

    Args:
        energies: of T targets, each in its own search region.
        boxes_xywh: (T, R, 4) float32, R boxes for each target, in crop pixels.
        ascent: steps and space.
        mark: called with "box features" when what the boxes need first is computed.
        exp: the exponential function of float32 arrays, for an engine that has its own.
        log: its inverse.

    Returns:
        The boxes after the climb and their energies before its last step.
    """
    with np.errstate(all="ignore"):  # boxes may climb out of sight or to no size; their energies become NaN
        energies.look_at(corners(boxes_xywh))
        mark("box features")
        space = (RelativeSpace if ascent.relative_space else DefaultSpace)(boxes_xywh, ascent, exp, log)
        for _ in range(ascent.steps - 1):
            space.move(energies.gradient(space.corners()))
        values, gradient = energies.value_and_gradient(space.corners())
        if ascent.prior is not None:
            values = values + ascent.prior.value(space.boxes())
        if ascent.steps:
            space.move(gradient)
        return Climb(space.boxes(), values)


def add_slope(of_log_size: np.ndarray, by_ratio: np.ndarray) -> None:
    """Add a derivative (T, R) by log(w / h) to derivatives (T, R, 2) by log w and log h."""
    of_log_size[..., 0] += by_ratio
    of_log_size[..., 1] -= by_ratio


def corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """Return boxes x0, y0, x1, y1 (..., 4) of boxes x, y, w, h (..., 4)."""
    boxes = boxes_xywh.copy()
    boxes[..., 2:] += boxes[..., :2]
    return boxes
