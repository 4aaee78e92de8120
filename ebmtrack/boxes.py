"""Box formats, conversions and overlap.

The pixel convention, stated here once: users see x, y, w, h in pixels, 0-based, x and y of the top left corner, and
pixel centres lie at integer coordinates. `xyxy` is (x, y, x + w, y + h). Overlap is that of continuous rectangles.
Relative coordinates (the papers' y) are (cx / w0, cy / h0, log w, log h) for a reference size (w0, h0).
All functions take tensors whose last axis holds the four numbers; other axes are free.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Return the corners (..., 4) of boxes (..., 4) given by corner and size."""
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    """Return corner and size (..., 4) of boxes (..., 4) given by two corners."""
    return torch.cat([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], dim=-1)


def xywh_to_cxcywh(boxes_xywh: Tensor) -> Tensor:
    """Return centre and size (..., 4) of boxes (..., 4) given by corner and size."""
    return torch.cat([boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2, boxes_xywh[..., 2:]], dim=-1)


def cxcywh_to_xywh(boxes_cxcywh: Tensor) -> Tensor:
    """Return corner and size (..., 4) of boxes (..., 4) given by centre and size."""
    return torch.cat([boxes_cxcywh[..., :2] - boxes_cxcywh[..., 2:] / 2, boxes_cxcywh[..., 2:]], dim=-1)


def xywh_to_rel(boxes_xywh: Tensor, size_wh: Tensor) -> Tensor:
    """Return relative coordinates (cx / w0, cy / h0, log w, log h) for a reference size_wh (..., 2).

    Source: BMVC 2020, section 5.2, and ECCV 2020, section 4.2. The inverse is `rel_to_xywh` with the same size.
    """
    boxes_cxcywh = xywh_to_cxcywh(boxes_xywh)
    return torch.cat([boxes_cxcywh[..., :2] / size_wh, boxes_cxcywh[..., 2:].log()], dim=-1)


def rel_to_xywh(boxes_rel: Tensor, size_wh: Tensor) -> Tensor:
    """Return boxes (..., 4) in pixels from relative coordinates for the reference size_wh (..., 2)."""
    return cxcywh_to_xywh(torch.cat([boxes_rel[..., :2] * size_wh, boxes_rel[..., 2:].exp()], dim=-1))


def iou_xywh(first_xywh: Tensor, second_xywh: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4), pair by pair, (...); 0 if the union is empty."""
    low = torch.maximum(first_xywh[..., :2], second_xywh[..., :2])
    high = torch.minimum(first_xywh[..., :2] + first_xywh[..., 2:], second_xywh[..., :2] + second_xywh[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = first_xywh[..., 2:].prod(dim=-1) + second_xywh[..., 2:].prod(dim=-1) - intersection
    return torch.where(union > 0, intersection / union.where(union > 0, torch.ones_like(union)), 0.0)
