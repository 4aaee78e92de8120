"""Candidate boxes around a position, and the best of those that climbed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ebmtrack.engines.base import Ascent, AspectPrior
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers


def ascent_of(params: TrackerParams, log_aspects: Sequence[float] = ()) -> Ascent:
    """Return how boxes climb in a set-up.

    Args:
        params: the set-up.
        log_aspects: expected log(w / h) of the boxes of each target; none if there is nothing to expect yet.
    """
    prior = AspectPrior(np.array(log_aspects), params.aspect_scale) if params.aspect_scale and log_aspects else None
    return Ascent(params.ascent_steps, params.position_step, params.size_step, params.relative_space, prior)


def candidate_boxes(box_xywh: np.ndarray, params: TrackerParams, random: RandomNumbers) -> np.ndarray:
    """Return a box and random ones around it, (candidates, 4) float32; sides stay above a third of the shorter one.

    Displacements and size changes are uniform, in units of the square root of the area (ATOM, section 3.4).

    Args:
        box_xywh: (4,) float32.
        params: the number of candidates and the reach of positions and sizes.
        random: four numbers are drawn for each random candidate.
    """
    size = np.sqrt(box_xywh[2] * box_xywh[3])
    reach = size * np.array([params.position_jitter] * 2 + [params.size_jitter] * 2, np.float32)
    change = (random.uniform(params.candidates - 1, 4) - np.float32(0.5)) * reach
    new_size = np.maximum(box_xywh[2:] + change[:, 2:], box_xywh[2:].min() / 3)
    centre = box_xywh[:2] + box_xywh[2:] / 2 + change[:, :2]
    return np.concatenate([box_xywh[None], np.concatenate([centre - new_size / 2, new_size], axis=1)])


def best_boxes(boxes_xywh: np.ndarray, energies: np.ndarray, params: TrackerParams) -> np.ndarray:
    """Return the boxes that are averaged: the best `average_best` of those that are neither thin nor infinite.

    Args:
        boxes_xywh: (R, 4) after the climb, in crop pixels.
        energies: (R,).
        params: how many are averaged and how thin they may be.

    Returns:
        Boxes (n, 4) with sides of at least a pixel, by falling energy; n is 0 if no box will do.
    """
    sides = np.maximum(boxes_xywh[:, 2:], 1)
    with np.errstate(invalid="ignore"):
        aspect = sides[:, 0] / sides[:, 1]
    good = (aspect < params.max_aspect) & (aspect > 1 / params.max_aspect)
    good &= np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(energies)
    boxes = np.concatenate([boxes_xywh[:, :2], sides], axis=1)[good]
    return boxes[np.argsort(-energies[good], kind="stable")[: params.average_best]]
