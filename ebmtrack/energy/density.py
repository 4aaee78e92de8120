"""Densities of an energy: normalised on a grid, partition functions, KL divergence and heat maps.

The only place where exp of an energy is taken. Grids are products of axes: an axis is a tensor (G,) of
increasing positions, and values on k axes have the shape (..., G1, .., Gk).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ebmtrack.energy.losses import Energy, log_z_is
from ebmtrack.energy.noise import GaussianMixture
from ebmtrack.errors import ConfigError

CORNERS = {"top_left": (0, 1), "top_right": (2, 1), "bottom_left": (0, 3), "bottom_right": (2, 3)}


def grid(*axes: Tensor) -> Tensor:
    """Return all points (G1, .., Gk, k) of the product of k axes, in the order in which the axes are given."""
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def log_z_grid(f: Tensor, *axes: Tensor) -> Tensor:
    """Return the log of the integral of exp f over the grid, by the trapezoidal rule: (..., G1, .., Gk) -> (...)."""
    lengths = tuple(len(axis) for axis in axes)
    if not axes or tuple(f.shape)[-len(axes) :] != lengths:
        raise ConfigError(f"log_z_grid: energies of shape {tuple(f.shape)} do not end in the axes {lengths}")
    for axis in reversed(axes):
        f = torch.logsumexp(f + _log_trapezoid_weights(axis), dim=-1)
    return f


def log_density_grid(f: Tensor, *axes: Tensor) -> Tensor:
    """Return log p = f - log Z on the grid, in the shape of f (..., G1, .., Gk); see `log_z_grid`."""
    log_z = log_z_grid(f, *axes)
    return f - log_z.reshape(log_z.shape + (1,) * len(axes))


def log_z_importance(
    energy: Energy, centre: Tensor, mixture: GaussianMixture, num_samples: int, generator: Generator | None = None
) -> Tensor:
    """Return log Z by importance sampling around centres (..., D): (...). The energy sees y (..., M, D).

    log of (1/M) sum_m exp f(y_m) / q(y_m), y_m ~ q; unbiased for Z, hence biased downwards for log Z.
    """
    if num_samples < 1:
        raise ConfigError(f"log_z_importance: num_samples must be at least 1, got {num_samples}")
    y = mixture.sample_around(centre, num_samples, generator)
    return log_z_is(energy(y), mixture.log_prob(y - centre.unsqueeze(-2)))


def kl_divergence_grid(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return sum_y p log(p / q) of two densities on one uniform grid, both normalised over the last axis: (...).

    log_p, log_q: (..., G), known up to a constant each; p may vanish (-inf), and q wherever p does.
    Source: BMVC 2020, supplement, eq. S2.
    """
    log_p = torch.log_softmax(log_p, dim=-1)
    log_q = torch.log_softmax(log_q, dim=-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)


def heat_map(energy: Energy, points: Tensor, chunk: int = 1024) -> Tensor:
    """Return probabilities (...), proportional to exp f and 1 in sum over all points (..., D): a picture of p(y|x).

    The energy is called on at most `chunk` points (chunk, D) at a time, without gradients. Points with a NaN
    in them (boxes turned inside out, see `corner_sweep`) get probability 0 and are never scored.
    """
    rows = points.reshape(-1, points.shape[-1])
    valid = ~rows.isnan().any(dim=-1)
    if not bool(valid.any()):
        raise ConfigError("heat_map: no valid point: let the axes reach beyond the fixed corner")
    with torch.no_grad():
        f = torch.cat([energy(part) for part in rows[valid].split(chunk)])
    f_all = torch.full(valid.shape, -torch.inf, dtype=f.dtype, device=f.device)
    f_all[valid] = f
    return torch.softmax(f_all, dim=0).reshape(points.shape[:-1])


def corner_sweep(box_xyxy: Tensor, xs: Tensor, ys: Tensor, corner: str = "top_right") -> Tensor:
    """Return boxes (H, W, 4), x0, y0, x1, y1, with one corner at every (xs[j], ys[i]) and the opposite one fixed.

    xs: (W,), ys: (H,). Boxes of no or negative size are NaN. With `heat_map` this is the picture of ECCV
    2020, figures 1 and S2: the density of the top right corner, bottom left corner fixed at the one of the
    tracker's box_xyxy (4,).
    """
    if corner not in CORNERS:
        raise ConfigError(f"corner_sweep: corner must be one of {', '.join(CORNERS)}, got {corner!r}")
    boxes = box_xyxy.expand(len(ys), len(xs), 4).clone()
    x_index, y_index = CORNERS[corner]
    boxes[..., x_index] = xs
    boxes[..., y_index] = ys.unsqueeze(-1)
    real = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)
    return torch.where(real, boxes, torch.nan)


def _log_trapezoid_weights(axis: Tensor) -> Tensor:
    """Return the log of the trapezoidal rule's weights (G,) for the positions of an axis (G,)."""
    if axis.dim() != 1 or len(axis) < 2 or not bool((axis.diff() > 0).all()):
        raise ConfigError("an axis must be a vector of at least two increasing positions")
    gaps = axis.diff()
    ends = gaps.new_zeros(1)
    return (0.5 * (torch.cat([ends, gaps]) + torch.cat([gaps, ends]))).log()
