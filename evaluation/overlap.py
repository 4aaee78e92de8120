"""Overlap and centre error of boxes x, y, w, h, with the rounding of each toolkit."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def iou(first_xywh: Array, second_xywh: Array) -> Array:
    """Return the intersection over union (N,) of boxes (N, 4) and (N, 4), in 0 .. 1; 0 if both are empty.

    The smallest float is added to the union and the quotient limited to 1, as in got10k 0.1.3, so that a
    perfect box never exceeds the threshold 1 by rounding.
    """
    high = np.minimum(first_xywh[:, :2] + first_xywh[:, 2:], second_xywh[:, :2] + second_xywh[:, 2:])
    shared = np.maximum(high - np.maximum(first_xywh[:, :2], second_xywh[:, :2]), 0).prod(axis=1)
    union = first_xywh[:, 2:].prod(axis=1) + second_xywh[:, 2:].prod(axis=1) - shared
    return np.clip(shared / (union + np.finfo(float).eps), 0.0, 1.0)


def iou_inclusive(first_xywh: Array, second_xywh: Array) -> Array:
    """Return intersection over union (N,) of boxes that cover the pixels x .. x + w - 1, as pytracking rounds it.

    The order of rounding decides ties at thresholds: two equal boxes may have 1 + 2e-16. NaN if the union is 0.
    """
    last = np.minimum(first_xywh[:, :2] + first_xywh[:, 2:] - 1.0, second_xywh[:, :2] + second_xywh[:, 2:] - 1.0)
    shared = np.maximum(last - np.maximum(first_xywh[:, :2], second_xywh[:, :2]) + 1.0, 0).prod(axis=1)
    return shared / (first_xywh[:, 2:].prod(axis=1) + second_xywh[:, 2:].prod(axis=1) - shared)


def center_error(first_xywh: Array, second_xywh: Array) -> Array:
    """Return the distances (N,) in pixels of the centres x + (w - 1) / 2 of boxes (N, 4) and (N, 4)."""
    return np.sqrt(((_centers(first_xywh) - _centers(second_xywh)) ** 2).sum(axis=1))


def norm_center_error(pred_xywh: Array, anno_xywh: Array) -> Array:
    """Return the centre error (N,), x divided by the true width and y by the height; infinite for empty boxes."""
    sizes = np.where(anno_xywh[:, 2:] > 0, anno_xywh[:, 2:], np.nan)
    error = np.sqrt(((_centers(pred_xywh) / sizes - _centers(anno_xywh) / sizes) ** 2).sum(axis=1))
    return np.where(np.isnan(error), np.inf, error)


def clip_as_got10k(boxes_xywh: Array, size_wh: tuple[float, float]) -> Array:
    """Return boxes (N, 4) limited to the image as the got10k toolkit does it.

    The corner is moved into the image first, then the size is cut at the far edge: a box that sticks out on
    the left keeps its width. Source: got10k 0.1.3, utils/metrics.rect_iou.
    """
    corner = np.clip(boxes_xywh[:, :2], 0, size_wh)
    sizes = np.clip(boxes_xywh[:, 2:], 0, np.asarray(size_wh, float) - corner)
    return np.concatenate([corner, sizes], axis=1)


def _centers(boxes_xywh: Array) -> Array:
    return boxes_xywh[:, :2] + 0.5 * (boxes_xywh[:, 2:] - 1.0)
