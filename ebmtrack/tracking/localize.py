"""The target's place in a score map and its certainty: the four verdicts of DiMP's advanced localisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ebmtrack.tracking.params import TrackerParams


class Localization(NamedTuple):
    """The place of a target by a score map.

    displacement_yx: from the search region's centre, (2,), in cells.
    score: the highest one, also if the target is at the second peak.
    verdict: "normal", "hard_negative", "uncertain" or "not_found".
    """

    displacement_yx: np.ndarray
    score: float
    verdict: str


def localize(
    scores: np.ndarray, target_size_yx: np.ndarray, previous_yx: np.ndarray, params: TrackerParams
) -> Localization:
    """Judge the two highest peaks of a score map.

    If the second peak is almost as high as the first one, the one that is near the previous position wins.

    Args:
        scores: (h, w).
        target_size_yx: the target's size (2,) in cells.
        previous_yx: its position in the last frame, (2,), in cells from the region's centre.
        params: thresholds.
    """
    centre = (np.array(scores.shape) - 1) / 2
    peak, score = _peak(scores)
    first = peak - centre + _shift(scores, peak, params)
    if score < params.not_found_threshold:
        return Localization(first, score, "not_found")
    second_peak, second_score = _peak(_without_neighbourhood(scores, peak, params.neighbourhood_scale * target_size_yx))
    if second_score > params.distractor_threshold * score:
        reach = params.displacement_scale * math.sqrt(scores.size) / 2
        second = second_peak - centre + _shift(scores, second_peak, params)
        return _settle_rivals(first, second, previous_yx, reach, score)
    if second_score > params.hard_negative_threshold * score and second_score > params.not_found_threshold:
        return Localization(first, score, "hard_negative")
    return Localization(first, score, "normal")


def _settle_rivals(
    first: np.ndarray, second: np.ndarray, previous: np.ndarray, reach: float, score: float
) -> Localization:
    """Choose between two peaks, from the centre: the only one within reach of the previous position, or in doubt."""
    first_is_near = np.linalg.norm(first - previous) < reach
    second_is_near = np.linalg.norm(second - previous) < reach
    if first_is_near == second_is_near:
        return Localization(first, score, "uncertain")
    return Localization(first if first_is_near else second, score, "hard_negative")


def _peak(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Return position (y, x) and height of the highest score, the first in reading order among equals."""
    position = np.unravel_index(int(scores.argmax()), scores.shape)
    return np.array(position, dtype=np.float64), float(scores[position])


def _shift(scores: np.ndarray, peak: np.ndarray, params: TrackerParams) -> np.ndarray:
    """Return how far (y, x) the maximum is from a peak's cell, at most half a cell; zeros without `between_cells`.

    In each direction it is that of the parabola through the scores of the cell and its two neighbours; at the map's
    edge, and if the cell is not above its neighbours, there is no shift.
    """
    shift = np.zeros(2)
    if not params.between_cells:
        return shift
    y, x = peak.astype(int)
    for axis, (line, k) in enumerate(((scores[:, x], y), (scores[y], x))):
        if 0 < k < len(line) - 1:
            low, here, high = line[k - 1 : k + 2].astype(np.float64)
            if max(low, high) <= here and low + high < 2 * here:
                shift[axis] = (high - low) / (2 * here - low - high) / 2
    return shift


def _without_neighbourhood(scores: np.ndarray, peak: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the scores with a rectangle of `size` cells around the peak set to zero."""
    low = [max(round(p - s / 2), 0) for p, s in zip(peak, size)]
    high = [min(round(p + s / 2 + 1), n) for p, s, n in zip(peak, size, scores.shape)]
    masked = scores.copy()
    masked[low[0] : high[0], low[1] : high[1]] = 0
    return masked
