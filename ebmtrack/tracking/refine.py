"""Candidate boxes, their climb on the energy, and the average of the best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.energy.ascent import plain_ascent
from ebmtrack.nets.target_energy import EnergyMap, JointEnergy
from ebmtrack.tracking.params import TrackerParams


def candidate_boxes(box_xywh: Tensor, params: TrackerParams, generator: torch.Generator) -> Tensor:
    """The box (4,) itself and random ones around it, (candidates, 4); sides stay above a third of the shorter one.

    Displacements and size changes are uniform, in units of the square root of the area (ATOM, section 3.4).
    """
    size = box_xywh[2:].prod().sqrt()
    reach = size * torch.tensor([params.position_jitter] * 2 + [params.size_jitter] * 2, dtype=box_xywh.dtype)
    change = (torch.rand(params.candidates - 1, 4, generator=generator) - 0.5).to(box_xywh) * reach.to(box_xywh)
    new_size = (box_xywh[2:] + change[:, 2:]).clamp(min=box_xywh[2:].min() / 3)
    centre = box_xywh[:2] + box_xywh[2:] / 2 + change[:, :2]
    return torch.cat([box_xywh[None], torch.cat([centre - new_size / 2, new_size], dim=1)])


class RelativeEnergy:
    """f(x, y) of boxes in relative coordinates (the papers' y), with its gradient by the chain rule."""

    def __init__(self, energy: JointEnergy, size_wh: Tensor):
        """size_wh (T, 1, 2): what positions are relative to, for each of T targets."""
        self.energy, self.size_wh = energy, size_wh

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (T, R) and gradients (T, R, 4) at y (T, R, 4)."""
        boxes_xywh = rel_to_xywh(y, self.size_wh)
        f, g = self.energy.value_and_gradient(xywh_to_xyxy(boxes_xywh))
        low, high = g[..., :2], g[..., 2:]
        return f, torch.cat([(low + high) * self.size_wh, (high - low) * boxes_xywh[..., 2:] / 2], dim=-1)


class DefaultSpaceEnergy:
    """f(x, y) of boxes x, y, w, h; the gradient is multiplied by the box's size, as in DiMP's default space."""

    def __init__(self, energy: JointEnergy):
        self.energy = energy

    def value_and_gradient(self, boxes_xywh: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (T, R) and scaled gradients (T, R, 4) at boxes (T, R, 4)."""
        f, g = self.energy.value_and_gradient(xywh_to_xyxy(boxes_xywh))
        size = boxes_xywh[..., 2:]
        return f, torch.cat([(g[..., :2] + g[..., 2:]) * size, g[..., 2:] * size], dim=-1)


def climb(energies: Sequence[EnergyMap], boxes_xywh: Tensor, params: TrackerParams) -> tuple[Tensor, Tensor]:
    """Boxes (T, R, 4) of T targets after the climb, and their energies (T, R) before its last step (as pytracking
    ranks them)."""
    joint = JointEnergy(energies)
    step = boxes_xywh.new_tensor([params.position_step] * 2 + [params.size_step] * 2)
    if not params.relative_space:
        return plain_ascent(DefaultSpaceEnergy(joint), boxes_xywh, step, params.ascent_steps)
    size_wh = boxes_xywh[:, :1, 2:]
    y, f = plain_ascent(RelativeEnergy(joint, size_wh), xywh_to_rel(boxes_xywh, size_wh), step, params.ascent_steps)
    return rel_to_xywh(y, size_wh), f


def refine(energies: Sequence[EnergyMap], candidates_xywh: Tensor, params: TrackerParams) -> list[Tensor | None]:
    """The refined box (4,) in crop pixels for each of T targets, from their candidates (T, R, 4).

    None where every candidate became too thin or not finite.
    """
    boxes, f = climb(energies, candidates_xywh, params)
    return [_average_of_the_best(*one, params) for one in zip(boxes, f)]


def _average_of_the_best(boxes: Tensor, f: Tensor, params: TrackerParams) -> Tensor | None:
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:].clamp(min=1)], dim=1)
    aspect = boxes[:, 2] / boxes[:, 3]
    good = (aspect < params.max_aspect) & (aspect > 1 / params.max_aspect) & boxes.isfinite().all(1) & f.isfinite()
    boxes, f = boxes[good], f[good]
    if len(boxes) == 0:
        return None
    return boxes[f.topk(min(params.average_best, len(f))).indices].mean(0)
