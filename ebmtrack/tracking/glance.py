"""A glance at a calm target: the network sees the inner part of the search region only, at four ninths of the work.

A glance takes the inner two thirds of the pixels of the usual search region; the rest of the feature maps is zero, as
beyond an image's edge, and everything after the network goes on as usual. A target is calm where the last frame left no
doubt and little motion. At most `glances` of them follow a look at the whole region, which sees in time what comes
near; with `glances` of 0 every look is at the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ebmtrack.nets.classifier import FEATURE_STRIDE

if TYPE_CHECKING:
    from ebmtrack.tracking.step import Target

CALM_SCORE = 2.0  # times the threshold below which a target is not found
CALM_MOTION = 1.5  # cells in the last frame
CALM_SIDE = 0.5  # of the glance: longest side of the box


def margin(side: int) -> int:
    """How many cells a glance leaves out at each edge of a search region of `side` pixels: about a sixth.

    >>> [margin(side) for side in (288, 352)]
    [3, 4]
    """
    return round(side / FEATURE_STRIDE / 6)


def suffices(target: Target) -> bool:
    """Whether a glance will do in this frame."""
    params, found = target.params, target.found
    if target.glances == 0 or target.inner_power is None or (target.frame + target.phase) % (target.glances + 1) == 0:
        return False
    side = params.sample_size - 2 * FEATURE_STRIDE * margin(params.sample_size)
    return (
        found.verdict == "normal"
        and found.score >= CALM_SCORE * params.not_found_threshold
        and float(np.linalg.norm(found.displacement_yx)) <= CALM_MOTION
        and float(target.size.max()) / target.scale <= CALM_SIDE * side
    )


def inner(patch: np.ndarray) -> np.ndarray:
    """What a glance sees of a search region's patch (side, side, 3)."""
    m = FEATURE_STRIDE * margin(len(patch))
    seen = slice(m, len(patch) - m)
    return patch[seen, seen]


def inner_power(features: Tensor) -> Tensor:
    """Mean square of a whole region's classification features (1, c, h, w) where a glance sees them."""
    side = features.shape[-1]
    seen = slice(margin(side * FEATURE_STRIDE), side - margin(side * FEATURE_STRIDE))
    return features[..., seen, seen].square().mean()


def with_power(features: Tensor, power: Tensor) -> Tensor:
    """A glance's classification features, scaled to a mean square.

    The classifier normalises what it sees; with the target alone in sight it would look weaker than in the whole.
    """
    return features * (power / features.square().mean().clamp(min=1e-12)).sqrt()


def whole(maps: Sequence[Tensor], side: int) -> list[Tensor]:
    """Feature maps (1, c, h, w) of a glance, of any stride, with zeros around them, as large as those of `side`."""
    inner_side = side - 2 * FEATURE_STRIDE * margin(side)
    return [F.pad(m, [m.shape[-1] * (side - inner_side) // inner_side // 2] * 4) for m in maps]
