"""Precise RoI pooling in closed form: the mean of a bilinear surface over each bin of a box.

The bilinear surface through a grid of values is a sum of separable hat functions, so its integral over a rectangle is
two matrix products, one per axis. Plain torch operations: any device and dtype, gradients and second gradients for
features and boxes. Source: Jiang et al., "Acquisition of Localization Confidence", ECCV 2018, equation 6.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hat_integral(distance: Tensor) -> Tensor:
    """Return the integral of the hat function max(0, 1 - |t|) from minus infinity to `distance`, any shape."""
    inside = distance.clamp(-1, 1)
    return 0.5 + inside - 0.5 * inside * inside.abs()


def bin_weights(low: Tensor, high: Tensor, bins: int, length: int) -> Tensor:
    """Return the weight of every grid position in the mean over each bin of the interval [low, high].

    low, high: (...), in grid positions. Returns (..., bins, length); all zero for an interval of no extent.
    """
    edge = torch.arange(bins + 1, device=low.device, dtype=low.dtype) / bins
    position = torch.arange(length, device=low.device, dtype=low.dtype)
    edges = low[..., None] + (high - low)[..., None] * edge  # (..., bins + 1)
    cumulative = hat_integral(edges[..., None] - position)  # (..., bins + 1, length)
    width = ((high - low) / bins)[..., None, None]
    proper = width > 0
    return torch.where(proper, cumulative.diff(dim=-2) / width.where(proper, torch.ones_like(width)), 0.0)


def precise_roi_pool(features: Tensor, boxes_xyxy: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Pool the same number of boxes from each feature map.

    features: (N, C, H, W). boxes_xyxy: (N, P, 4), in image pixels; `spatial_scale` turns them into feature cells.
    Returns (N, P, C, output_size, output_size) in the features' dtype. Outside of the map the surface falls to zero
    within one cell; boxes without area give zeros. Weights are computed in at least float32.
    """
    n, c, h, w = features.shape
    p, s = boxes_xyxy.shape[1], output_size
    cells = boxes_xyxy.to(torch.promote_types(boxes_xyxy.dtype, torch.float32)) * spatial_scale
    x0, y0, x1, y1 = cells.unbind(-1)
    has_area = ((x1 > x0) & (y1 > y0))[..., None, None]
    across = torch.where(has_area, bin_weights(x0, x1, s, w), 0.0).to(features.dtype)  # (N, P, s, W)
    down = bin_weights(y0, y1, s, h).to(features.dtype)  # (N, P, s, H)
    rows = across.reshape(n, 1, p * s, w) @ features.permute(0, 2, 3, 1)  # (N, H, P s, C)
    rows = rows.reshape(n, h, p, s * c).transpose(1, 2)  # (N, P, H, s C)
    return (down @ rows).reshape(n, p, s, s, c).permute(0, 1, 4, 2, 3)  # (N, P, C, s, s)


def precise_roi_pool_indexed(
    features: Tensor, boxes_xyxy: Tensor, image_index: Tensor, output_size: int, spatial_scale: float
) -> Tensor:
    """Pool boxes that each name their image: (R, 4) and (R,) int -> (R, C, output_size, output_size)."""
    if boxes_xyxy.shape[0] == 0:
        return features.new_zeros(0, features.shape[1], output_size, output_size)
    pooled, order = [], []
    for image in image_index.unique().tolist():
        chosen = (image_index == image).nonzero()[:, 0]
        pooled.append(
            precise_roi_pool(features[image : image + 1], boxes_xyxy[None, chosen], output_size, spatial_scale)[0]
        )
        order.append(chosen)
    return torch.cat(pooled)[torch.cat(order).argsort()]


def precise_roi_pool_rows(features: Tensor, boxes_xyxy: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Pool as `precise_roi_pool`, by one dense product over all positions of the map.

    Returns (N, P, output_size * output_size * C), rows of bins with the channel last. The dense product has more
    multiplications than two products by axis, but it is one large matrix product: several times as fast in training on
    processors with bfloat16 matrix units.
    """
    n, c, h, w = features.shape
    p, s = boxes_xyxy.shape[1], output_size
    cells = boxes_xyxy.to(torch.promote_types(boxes_xyxy.dtype, torch.float32)) * spatial_scale
    x0, y0, x1, y1 = cells.unbind(-1)
    across, down = bin_weights(x0, x1, s, w), bin_weights(y0, y1, s, h)  # (N, P, s, W), (N, P, s, H)
    weights = (down[:, :, :, None, :, None] * across[:, :, None, :, None, :]).to(features.dtype)
    positions = features.permute(0, 2, 3, 1).reshape(n, h * w, c)
    return (weights.reshape(n, p * s * s, h * w) @ positions).reshape(n, p, s * s * c)
