"""Overlap of rotated boxes (see `boxes3d.energy`) in the plane and in space, many pairs at once, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-9  # metres; a corner this close to an edge is inside


def corners_bev(boxes: Tensor) -> Tensor:
    """Return the corners (..., 4, 2), x and y, of boxes (..., 7), anticlockwise seen from above."""
    x, y, _, w, length, _, theta = boxes.unbind(-1)
    a = 0.5 * w[..., None] * w.new_tensor([1.0, 1.0, -1.0, -1.0])
    b = 0.5 * length[..., None] * w.new_tensor([-1.0, 1.0, 1.0, -1.0])
    cos, sin = theta.cos()[..., None], theta.sin()[..., None]
    return torch.stack([x[..., None] + a * cos + b * sin, y[..., None] - a * sin + b * cos], dim=-1)


def intersection_area(first: Tensor, second: Tensor) -> Tensor:
    """Return the areas (...) of the intersections of convex quadrilaterals with anticlockwise corners (..., 4, 2).

    The corners of the intersection are the corners of either that are inside of the other, and the crossings of their
    edges; in the order of their angles around their middle they give the area by the shoelace formula.
    """
    first, second = torch.broadcast_tensors(first, second)
    crossings, cross = _crossings(first, second)
    points = torch.cat([first, second, crossings], dim=-2)  # (..., 24, 2)
    valid = torch.cat([_inside(first, second), _inside(second, first), cross], dim=-1)
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    middle = (points * valid[..., None]).sum(dim=-2) / count
    around = torch.where(valid[..., None], points - middle[..., None, :], 0.0)
    angle = torch.where(valid, torch.atan2(around[..., 1], around[..., 0]), torch.inf)
    order = angle.argsort(dim=-1)[..., None].expand_as(around)
    around = around.gather(-2, order)
    beyond = torch.arange(around.shape[-2], device=around.device) >= count
    around = torch.where(beyond[..., None], around[..., :1, :], around)  # a point that is there already adds no area
    return 0.5 * _cross(around, around.roll(-1, dims=-2)).sum(dim=-1).clamp(min=0)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    """Return the cross products (...) of vectors (..., 2)."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _inside(points: Tensor, polygon: Tensor) -> Tensor:
    """Return whether points (..., P, 2) are inside of convex polygons (..., 4, 2): (..., P)."""
    edges = polygon.roll(-1, dims=-2) - polygon
    distance = _cross(edges[..., None, :, :], points[..., None, :] - polygon[..., None, :, :])
    return (distance >= -TOLERANCE * edges.norm(dim=-1)[..., None, :]).all(dim=-1)


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the crossings (..., 16, 2) of all pairs of edges, and whether they are on both edges (..., 16)."""
    p, q = first[..., :, None, :], second[..., None, :, :]
    r = first.roll(-1, dims=-2)[..., :, None, :] - p
    s = second.roll(-1, dims=-2)[..., None, :, :] - q
    turn = _cross(r, s)
    parallel = turn.abs() < 1e-12
    safe = torch.where(parallel, 1.0, turn)
    t, u = _cross(q - p, s) / safe, _cross(q - p, r) / safe
    on_both = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    return (p + t[..., None] * r).flatten(-3, -2), on_both.flatten(-2)


def overlap_pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection over union in the plane and in space (...) of boxes (..., 7), pair by pair."""
    a, b = first.double(), second.double()
    area = intersection_area(corners_bev(a), corners_bev(b))
    footprints = [each[..., 3] * each[..., 4] for each in (a, b)]
    top = torch.minimum(a[..., 2] + a[..., 5], b[..., 2] + b[..., 5])
    shared = area * (top - torch.maximum(a[..., 2], b[..., 2])).clamp(min=0)
    volumes = [footprint * each[..., 5] for footprint, each in zip(footprints, (a, b))]
    flat = area / (sum(footprints) - area).clamp(min=1e-12)
    return flat, shared / (sum(volumes) - shared).clamp(min=1e-12)


def overlap_matrix(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the overlaps (N, M) in the plane and in space of all pairs of boxes (N, 7) and (M, 7)."""
    return overlap_pairs(first[:, None], second[None])
