"""How sure the tracker is of each side of its box, and whether it has the target at all.

Boxes y_m around the answer are drawn from a fixed density q in relative coordinates. With the weights
w_m ~ exp(f(y_m) / T) / q(y_m) they stand for the density p(y|x) ~ exp(f / T), by self-normalised importance sampling
(energy/proposals.py has it in PyTorch, for training). q ends a tenth of the box's size from each side: there the
engine has the features already, and beyond it an energy costs ten times as much.

How far the true side is from the box's is another matter: the annotator's habit, the ascent and the classifier have
their share in it. It has Student's t distribution, whose scale is log-linear in the density's deviation, the energy of
the box and the classifier's score; the set-up holds the coefficients, fitted on held-back video (docs/uncertainty.md).
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ebmtrack.engines.base import Engine
from ebmtrack.engines.box_ascent import corners
from ebmtrack.errors import ConfigError
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.refine import ascent_of
from ebmtrack.tracking.state import Proposal, TargetState

SPREAD = 0.1  # standard deviation of q before it is cut off, in relative coordinates
MOST_LOG_SCALE = 10.0  # of the true side's distribution; e^10 box sizes say nothing, and e^710 are infinite
REACH = 0.1  # largest distance of a sample's sides from the box's, in the box's size


@dataclasses.dataclass(frozen=True)
class BoxDensity:
    """The density of the target's sides x0, y0, x1, y1 in image pixels.

    box_xyxy: (4,) the tracker's box.
    mean_xyxy: (4,) of the samples.
    deviation_xyxy: (4,) standard deviations of the samples, at most about a tenth of the box's size.
    scale_xyxy: (4,) of the distribution of the true sides around the box's.
    energy: of the box, f(x, y).
    effective_frac: effective number of samples by their number, above 0 and at most 1.
    """

    box_xyxy: np.ndarray
    mean_xyxy: np.ndarray
    deviation_xyxy: np.ndarray
    scale_xyxy: np.ndarray
    energy: float
    effective_frac: float

    def interval(self, probability: float) -> np.ndarray:
        """Return for each side the interval (4, 2), low and high, that holds the true side with a probability."""
        reach = self.scale_xyxy * student_reach(probability)
        return np.stack([self.box_xyxy - reach, self.box_xyxy + reach], axis=1)


def student_reach(probability: float) -> float:
    """Return t such that |x| < t with a probability, if x has Student's t distribution with 2 degrees of freedom.

    Raises ConfigError for a probability that is not above 0 and below 1.

    >>> [round(student_reach(p), 2) for p in (0.5, 0.9)]
    [0.82, 2.92]
    """
    if not 0 < probability < 1:
        raise ConfigError(f"the probability of an interval must be above 0 and below 1, got {probability}")
    return probability * math.sqrt(2 / (1 - probability**2))


def lost_probability(score: float, params: TrackerParams) -> float | None:
    """Return the probability that the target is lost, from the classifier's score; None without coefficients."""
    if params.lost_logit is None:
        return None
    constant, by_score = params.lost_logit
    return 1 / (1 + math.exp(-min(max(constant + by_score * score, -30.0), 30.0)))


@lru_cache(maxsize=4)
def relative_offsets(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets (number, 4) in (cx / w, cy / h, log w, log h), the first one 0, and log q of them, (number,).

    They are the same in every frame: even numbers through the inverse of the normal distribution.
    """
    offsets = SPREAD * np.vectorize(NormalDist().inv_cdf)(even_numbers(20 * number, 4))
    sides = corners(displaced_boxes(np.array([0.0, 0.0, 1.0, 1.0]), offsets))
    offsets = offsets[(np.abs(sides - [0, 0, 1, 1]) <= REACH).all(axis=1)][:number]
    return offsets, -(offsets**2).sum(axis=1) / (2 * SPREAD**2)


def even_numbers(number: int, dims: int) -> np.ndarray:
    """Return points (number, dims) in the unit cube, more evenly spread than random ones: an additive recurrence.

    Source: Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018.
    """
    growth = 2.0
    for _ in range(60):
        growth = (1 + growth) ** (1 / (dims + 1))  # to the root of g^(dims + 1) = g + 1
    return (0.5 + np.outer(np.arange(number), growth ** -np.arange(1.0, dims + 1))) % 1


def displaced_boxes(box_xywh: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the boxes x, y, w, h (n, 4) at relative offsets (n, 4) from a box (4,)."""
    size = box_xywh[2:] * np.exp(offsets[:, 2:])
    return np.concatenate([box_xywh[:2] + box_xywh[2:] * (0.5 + offsets[:, :2]) - size / 2, size], axis=1)


def importance_weights(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Return weights (n,) in proportion to p / q that sum to 1; a sample whose log p is not finite has none."""
    log_w = np.where(np.isfinite(log_p), log_p - log_q, -np.inf)
    weights = np.exp(log_w - log_w.max()) if np.isfinite(log_w).any() else np.ones(len(log_w))
    return weights / weights.sum()


def box_density(engine: Engine, state: TargetState, proposal: Proposal, score: float) -> BoxDensity:
    """Return the density of a target's sides around its box.

    Args:
        engine: the network.
        state: the target after the frame.
        proposal: the frame's; its candidates are not used.
        score: the classifier's.
    """
    params = state.params
    offsets, log_q = relative_offsets(params.interval_samples)
    box = state.preferred_box_in(proposal.view.region.map).astype(np.float64)
    boxes = displaced_boxes(box, offsets)
    energies = engine.energies(proposal.view.features, corners(boxes).astype(np.float32)).astype(np.float64)
    prior = ascent_of(params, [state.climbed_log_aspect]).prior
    log_p = energies if prior is None else energies + prior.value(boxes[None])[0]
    weights = importance_weights(log_p / params.interval_temperature, log_q)
    sides, own = corners(state.boxes_in_image(proposal, boxes)), np.array(state.box_xywh)
    mean = weights @ sides
    deviation = np.sqrt(weights @ (sides - mean) ** 2)
    size, energy = np.tile(own[2:], 2), float(energies[0]) if np.isfinite(energies[0]) else 0.0
    base, by_deviation, by_energy, by_score = params.interval_scale
    log_scale = base + by_deviation * np.log(deviation / size + 1e-3) + by_energy * energy + by_score * score
    effective_frac = float(1 / (weights**2).sum() / len(weights))
    scale = size * np.exp(np.clip(log_scale, -MOST_LOG_SCALE, MOST_LOG_SCALE))
    return BoxDensity(corners(own), mean, deviation, scale, energy, effective_frac)
