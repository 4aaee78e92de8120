"""The energy learns the first frame: its last layer is trained by NCE+ on the target's box there.

What counts as the target is the user's choice, and a network that has never seen such a target may see it otherwise.
Energies are linear in the last layer's weights w, f(x, y) = w . h(x, y) + b, so that the loss of NCE+ is convex
in w: with the noise of training (BMVC 2020, section 5.3), a few steps of Newton's method find the minimum of the loss
plus |w - w0|^2 / 2s, in which w0 are the network's own weights and s is the set-up's `energy_adaptation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ebmtrack.engines.base import Engine, FirstFrame, RegionFeatures, TargetModel, WholeLook
from ebmtrack.engines.box_ascent import corners
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.uncertainty import displaced_boxes, even_numbers

SIGMAS = (0.05, 0.5)  # of the noise in relative coordinates, as in training (BMVC 2020, section 5.3)
BETA = 0.1
MOST_LOSS = 1000.0  # of a first frame; the minimum has |w - w0|^2 / 2s below the loss at w0
LEAST_STRENGTH = 1e-6  # less changes no weight
NOISE_BOXES = 128  # in each view
STEPS = 12  # of Newton's method, at most
ENOUGH = 1e-6  # a step that lowers the loss by less is the last one
HALVINGS = 10  # of a step that raises the loss


def adapts(params: TrackerParams) -> bool:
    """Return whether the energy learns the first frame in a set-up."""
    return params.energy_adaptation >= LEAST_STRENGTH


def adapt_energy(
    engine: Engine,
    model: TargetModel,
    regions: Sequence[RegionFeatures],
    first: FirstFrame,
    boxes_xywh: np.ndarray,
    strength: float,
) -> None:
    """Let the energy's last layer learn a target's box in the views of its first frame, and in the first one mirrored.

    Args:
        engine: the network.
        model: the target, which is changed.
        regions: the features of each view, as the engine made them of `first`.
        first: the views.
        boxes_xywh: (n, 4) the target in them.
        strength: s, above 0.
    """
    (x, y, w, h), side = boxes_xywh[0], first.patches.shape[2]
    (sight,) = engine.look([WholeLook(model, np.ascontiguousarray(first.patches[0, :, ::-1]))])
    boxes_xywh = np.concatenate([boxes_xywh, [[side - x - w, y, w, h]]]).astype(np.float64)
    offsets, log_q = noise_offsets(len(boxes_xywh))
    hidden = [
        engine.hidden_units(region, corners(displaced_boxes(box, some)).astype(np.float32))
        for region, box, some in zip([*regions, sight.features], boxes_xywh, offsets, strict=True)
    ]
    engine.use_last_layer(model, adapted_layer(np.stack(hidden), log_q, engine.last_layer(model), 1 / strength))


def adapted_layer(hidden: np.ndarray, log_q: np.ndarray, start: np.ndarray, pull: float) -> np.ndarray:
    """Return the weights (c,) float32 that minimise the mean loss of NCE+ plus pull / 2 times |w - start|^2.

    Args:
        hidden: (v, 1 + M, c) for each view the hidden units of the label, with its noise, and of M noise boxes.
        log_q: (v, 1 + M), log density of the noise at them.
        start: (c,) the weights to begin with.
        pull: above 0.
    """
    views = hidden.astype(np.float64)
    own = start.astype(np.float64)
    weights, (loss, *slopes) = own, _loss(own, views, log_q, own, pull)
    for _ in range(STEPS):
        step = np.linalg.solve(slopes[1], slopes[0])
        for halving in range(HALVINGS):
            tried = weights - step / 2**halving
            there, *new = _loss(tried, views, log_q, own, pull)
            if there <= loss:
                break
        if not loss - there > ENOUGH:
            break
        weights, loss, slopes = tried, there, new
    return weights.astype(np.float32)


def _loss(
    weights: np.ndarray, views: np.ndarray, log_q: np.ndarray, own: np.ndarray, pull: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the loss, its gradient (c,) and its Hessian (c, c)."""
    logits = views @ weights - log_q
    logits -= logits.max(axis=1, keepdims=True)
    shares = np.exp(logits)
    totals = shares.sum(axis=1, keepdims=True)
    shares /= totals
    change, identity = weights - own, np.eye(len(weights))
    loss = float((np.log(totals[:, 0]) - logits[:, 0]).mean() + pull / 2 * change @ change)
    means = (shares[:, :, None] * views).sum(axis=1)
    centred = ((views - means[:, None]) * np.sqrt(shares / len(views))[:, :, None]).reshape(-1, len(weights))
    return loss, (means - views[:, 0]).mean(axis=0) + pull * change, centred.T @ centred + pull * identity


@lru_cache(maxsize=4)
def noise_offsets(views: int) -> tuple[np.ndarray, np.ndarray]:
    """Return relative offsets (views, 1 + M, 4) and log q of them under the mixture of `SIGMAS`, for each view others.

    The first ones are those of the label, BETA times as wide (BMVC 2020, equations 15 and 16). They are the same for
    every target, and evenly spread.
    """
    uniform = even_numbers(views * (1 + NOISE_BOXES), 5).reshape(views, 1 + NOISE_BOXES, 5)
    normal = np.vectorize(NormalDist().inv_cdf)(uniform[..., :4])
    offsets = normal * np.where(uniform[..., 4:] < 0.5, *SIGMAS)
    offsets[:, 0] *= BETA
    square = (offsets**2).sum(axis=-1)
    return offsets, np.logaddexp(*(-square / (2 * sigma**2) - 4 * np.log(sigma) for sigma in SIGMAS))
