"""The use of the energy at test time: it orders non-maximum suppression, and boxes climb it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.energy.ascent import ascent_s1
from ebmtrack.errors import ConfigError

BoxScores = Callable[[Tensor], Tensor]  # boxes_xyxy (R, 4) -> energies (R,), each box by itself


@dataclass(frozen=True)
class StepLengths:
    """The first step lengths of the ascent, and their decay after a step that does not raise the energy.

    Attributes:
        position: for the centre.
        size: for width and height.
        decay: factor on both after a step that was not taken.
        coordinates: "relative" to the start box, or "pixels": corners, in units of the start box's sides (IoU-Net).
    """

    position: float
    size: float
    decay: float = 0.5
    coordinates: Literal["relative", "pixels"] = "relative"


STEP_LENGTHS = {  # by training loss: BMVC 2020, appendix C; about the variance of p(y|x)
    "ml_is": StepLengths(0.0004, 0.0016),
    "kld_is": StepLengths(0.0004, 0.0016),
    "nce": StepLengths(0.0004, 0.0016),
    "nce_plus": StepLengths(0.0008, 0.0032),
    "dsm": StepLengths(0.000025, 0.0001),
    "ml_mcmc": StepLengths(0.000025, 0.0001),
    "iou_net_star": StepLengths(0.002, 0.008, 0.2),
    "iou_net": StepLengths(0.5, 0.5, 0.1, "pixels"),
}


def guided_nms(boxes_xyxy: Tensor, scores: Tensor, f: Tensor, iou: float = 0.5) -> tuple[Tensor, Tensor]:
    """Suppress boxes in the order of their energies.

    The box with the highest energy absorbs all boxes with more overlap than `iou` and takes the highest score among
    itself and them; then the next one that is left. Overlap is that of continuous rectangles, as torchvision's.
    Source: Jiang et al., "Acquisition of Localization Confidence", ECCV 2018, algorithm 1.

    Args:
        boxes_xyxy: boxes (R, 4) of one class.
        scores: their classification scores (R,).
        f: their energies (R,); of equal ones the first box comes first.
        iou: overlap in [0, 1].

    Returns:
        Indices (K,) of the boxes that stay, by falling energy, and their scores (K,).
    """
    order = f.argsort(descending=True, stable=True)
    overlapping = box_iou(boxes_xyxy[order], boxes_xyxy[order]) > iou
    ordered, left = scores[order], torch.ones(len(order), dtype=torch.bool, device=f.device)
    stay, best = [], []
    for row in range(len(order)):
        if left[row]:
            absorbed = overlapping[row] & left
            absorbed[row] = True  # also a box without area, whose overlap with itself is no number
            stay.append(row)
            best.append(ordered[absorbed].max())
            left &= ~absorbed
    return order[stay], torch.stack(best) if best else scores[:0]


def refine_boxes(scores: BoxScores, boxes_xyxy: Tensor, lengths: StepLengths, steps: int = 10) -> Tensor:
    """Return boxes (R, 4) after Algorithm S1 (ECCV 2020, appendix C); each has its own step length.

    Args:
        scores: energies of boxes; it is called steps + 1 times.
        boxes_xyxy: start boxes (R, 4).
        lengths: the step lengths.
        steps: number of steps, T.

    Raises:
        ConfigError: a start box has no area.
    """
    start = xyxy_to_xywh(boxes_xyxy)
    size = start[:, 2:]
    if not bool((size > 0).all()):
        row = int((~(size > 0).all(dim=1)).nonzero()[0])
        raise ConfigError(f"refine_boxes: box {row} has no area: {boxes_xyxy[row].tolist()}; leave it out")
    if lengths.coordinates == "pixels":
        step = size.repeat(1, 2) * size.new_tensor([lengths.position] * 2 + [lengths.size] * 2)
        return ascent_s1(scores, boxes_xyxy, step, steps, lengths.decay).y
    step = size.new_tensor([lengths.position] * 2 + [lengths.size] * 2)

    def energy(y: Tensor) -> Tensor:
        return scores(xywh_to_xyxy(rel_to_xywh(y, size)))

    y = ascent_s1(energy, xywh_to_rel(start, size), step, steps, lengths.decay).y
    return xywh_to_xyxy(rel_to_xywh(y, size))


def per_class(labels: Tensor) -> list[Tensor]:
    """Return the indices of the boxes of each class that occurs.

    >>> per_class(torch.tensor([3, 1, 3]))
    [tensor([1]), tensor([0, 2])]
    """
    return [(labels == label).nonzero()[:, 0] for label in labels.unique()]
