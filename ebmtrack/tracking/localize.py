"""Score map -> where the target is, and how sure: the four verdicts of DiMP's advanced localisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ebmtrack.tracking.params import TrackerParams

VERDICTS = ("normal", "hard_negative", "uncertain", "not_found")


class Localization(NamedTuple):
    """Displacement (y, x) of the target from the search region's centre, in cells; the peak's score; the verdict."""

    displacement_yx: np.ndarray
    score: float
    verdict: str


def localize(
    scores: np.ndarray, target_size_yx: np.ndarray, previous_yx: np.ndarray, params: TrackerParams
) -> Localization:
    """Judge the two highest peaks of a score map (h, w).

    target_size_yx and previous_yx (position of the target in the last frame, from the region's centre) are in cells.
    A second peak almost as high as the first is settled by which of them lies near the previous position.
    """
    centre = (np.array(scores.shape) - 1) / 2
    peak, score = _peak(scores)
    first = peak - centre
    if score < params.not_found_threshold:
        return Localization(first, score, "not_found")
    second_peak, second_score = _peak(_without_neighbourhood(scores, peak, params.neighbourhood_scale * target_size_yx))
    second = second_peak - centre
    if second_score > params.distractor_threshold * score:
        reach = params.displacement_scale * math.sqrt(scores.size) / 2
        first_is_near = np.linalg.norm(first - previous_yx) < reach
        second_is_near = np.linalg.norm(second - previous_yx) < reach
        if first_is_near and not second_is_near:
            return Localization(first, score, "hard_negative")
        if second_is_near and not first_is_near:
            return Localization(second, score, "hard_negative")
        return Localization(first, score, "uncertain")
    if second_score > params.hard_negative_threshold * score and second_score > params.not_found_threshold:
        return Localization(first, score, "hard_negative")
    return Localization(first, score, "normal")


def _peak(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Position (y, x) and height of the highest score, the first in reading order among equals."""
    position = np.unravel_index(int(scores.argmax()), scores.shape)
    return np.array(position, dtype=np.float64), float(scores[position])


def _without_neighbourhood(scores: np.ndarray, peak: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The scores with a rectangle of `size` cells around the peak set to zero."""
    low = [max(round(p - s / 2), 0) for p, s in zip(peak, size)]
    high = [min(round(p + s / 2 + 1), n) for p, s, n in zip(peak, size, scores.shape)]
    masked = scores.copy()
    masked[low[0] : high[0], low[1] : high[1]] = 0
    return masked
