"""A target's box: candidates around its place, their climb, and the box that those which climbed stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ebmtrack.engines.base import Ascent, AspectPrior, Engine, Mark
from ebmtrack.tracking.locate import Located
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.state import Proposal, TargetState, centred_box


def propose(one: Located) -> Proposal:
    """Return candidate boxes around the one that the energy prefers for the target's."""
    state, view = one.state, one.view
    return Proposal(view, candidate_boxes(state.preferred_box_in(view.region.map), state.params, state.random))


def answer_together(engine: Engine, located: Sequence[Located], mark: Mark) -> list[TargetState]:
    """Return the states of all targets after the candidates of those that are followed have climbed together."""
    states = [one.state for one in located]
    proposals = {k: propose(one) for k, one in enumerate(located) if one.is_followed}
    if not proposals:
        return states
    regions = [proposal.view.features for proposal in proposals.values()]
    candidates = np.stack([proposal.candidates_xywh for proposal in proposals.values()])
    ascent = ascent_of(states[0].params, [states[k].climbed_log_aspect for k in proposals])
    climb = engine.climb(regions, candidates, ascent, mark)
    for (k, proposal), boxes, energies in zip(proposals.items(), *climb):
        states[k] = answer(states[k], proposal, average_box(boxes, energies, states[k].params))
    mark("refinement")
    return states


def answer(state: TargetState, proposal: Proposal, box_xywh: np.ndarray | None) -> TargetState:
    """Return the state moved to a box; without one the size stays as it was.

    Args:
        state: the target at the score's peak.
        proposal: the frame's view and candidates.
        box_xywh: (4,) in crop pixels, of those that climbed, or None.
    """
    state = dataclasses.replace(state, proposals=(proposal,))
    if box_xywh is None:
        return dataclasses.replace(state, box_xywh=centred_box(state.position_yx, state.size_hw))
    return state.move(*state.own(*proposal.view.region.map.to_image(box_xywh)))


def ascent_of(params: TrackerParams, log_aspects: Sequence[float] = ()) -> Ascent:
    """Return how boxes climb in a set-up.

    Args:
        params: the set-up.
        log_aspects: expected log(w / h) of the boxes of each target; none if there is nothing to expect yet.
    """
    prior = AspectPrior(np.array(log_aspects), params.aspect_scale) if params.aspect_scale and log_aspects else None
    steps = params.ascent_steps, params.position_step, params.size_step
    return Ascent(*steps, params.relative_space, prior, params.ascent_momentum)


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


def average_box(boxes_xywh: np.ndarray, energies: np.ndarray, params: TrackerParams) -> np.ndarray | None:
    """Return the box (4,) that climbed boxes stand for, or None if none of them will do.

    With `average_temperature` T it is the mean of the boxes weighted by exp(f / T), which estimates the mean of the
    density p(y|x) ~ exp(f / T) by its maxima. Without, it is the plain mean of the best `average_best`, as in DiMP.

    Args:
        boxes_xywh: (R, 4) after the climb, in crop pixels.
        energies: (R,).
        params: how the boxes are averaged and how thin they may be.
    """
    boxes, energies = usable_boxes(boxes_xywh, energies, params.max_aspect)
    if not len(boxes):
        return None
    if not params.average_temperature:
        return boxes[: params.average_best].mean(axis=0)
    weights = np.exp((energies - energies[0]) / max(params.average_temperature, 1e-30))  # less is 0 in float32
    return weights / weights.sum() @ boxes


def usable_boxes(boxes_xywh: np.ndarray, energies: np.ndarray, max_aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (n, 4) that are neither thin nor infinite, and their energies (n,), by falling energy.

    Args:
        boxes_xywh: (R, 4) after the climb, in crop pixels.
        energies: (R,).
        max_aspect: the ratio of the sides is below it.

    Returns:
        Boxes with sides of at least a pixel, and energies; n is 0 if no box will do.
    """
    sides = np.maximum(boxes_xywh[:, 2:], 1)
    with np.errstate(invalid="ignore"):
        aspect = sides[:, 0] / sides[:, 1]
    good = (aspect < max_aspect) & (aspect > 1 / max_aspect)
    good &= np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(energies)
    boxes = np.concatenate([boxes_xywh[:, :2], sides], axis=1)[good]
    order = np.argsort(-energies[good], kind="stable")
    return boxes[order], energies[good][order]
