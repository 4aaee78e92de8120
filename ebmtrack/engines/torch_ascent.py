"""The climb of candidate boxes on PyTorch, in the papers' relative coordinates or in DiMP's default space."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.energy.ascent import plain_ascent
from ebmtrack.engines.base import Ascent
from ebmtrack.nets.target_energy import JointEnergy


class RelativeEnergy:
    """f(x, y) of boxes in relative coordinates (the papers' y), with its gradient by the chain rule."""

    def __init__(self, energy: JointEnergy, size_wh: Tensor):
        """size_wh (T, 1, 2): what positions are relative to, for each of T targets."""
        self.energy, self.size_wh = energy, size_wh

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (T, R) and gradients (T, R, 4) at y (T, R, 4)."""
        boxes_xywh = rel_to_xywh(y, self.size_wh)
        f, g = self.energy.value_and_gradient(xywh_to_xyxy(boxes_xywh))
        low, high = g[..., :2], g[..., 2:]
        return f, torch.cat([(low + high) * self.size_wh, (high - low) * boxes_xywh[..., 2:] / 2], dim=-1)


class DefaultSpaceEnergy:
    """f(x, y) of boxes x, y, w, h; the gradient is multiplied by the box's size, as in DiMP's default space."""

    def __init__(self, energy: JointEnergy):
        self.energy = energy

    def value_and_gradient(self, boxes_xywh: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (T, R) and scaled gradients (T, R, 4) at boxes (T, R, 4)."""
        f, g = self.energy.value_and_gradient(xywh_to_xyxy(boxes_xywh))
        size = boxes_xywh[..., 2:]
        return f, torch.cat([(g[..., :2] + g[..., 2:]) * size, g[..., 2:] * size], dim=-1)


def climb_energy(energy: JointEnergy, boxes_xywh: Tensor, ascent: Ascent) -> tuple[Tensor, Tensor]:
    """Let boxes (T, R, 4) of T targets climb.

    Args:
        energy: of the T targets, each in its own search region.
        boxes_xywh: R boxes for each target, in crop pixels.
        ascent: steps and space.

    Returns:
        The boxes (T, R, 4) after the climb and their energies (T, R) before its last step.
    """
    step = boxes_xywh.new_tensor([ascent.position_step] * 2 + [ascent.size_step] * 2)
    if not ascent.relative_space:
        return plain_ascent(DefaultSpaceEnergy(energy), boxes_xywh, step, ascent.steps)
    size_wh = boxes_xywh[:, :1, 2:]
    y, f = plain_ascent(RelativeEnergy(energy, size_wh), xywh_to_rel(boxes_xywh, size_wh), step, ascent.steps)
    return rel_to_xywh(y, size_wh), f
