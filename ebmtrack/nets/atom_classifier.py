"""ATOM's target classifier: two convolutions that Gauss-Newton with conjugate gradient learns while tracking.

    s(x; P, w) = phi(w * (P x)),    L(w, P) = sum_j g_j ||s(x_j) - y_j||^2 + 0.1 ||w||^2 + 1e-4 ||P||^2

Source: Danelljan et al., "ATOM", CVPR 2019, section 3.3; the numbers are pytracking's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 0.05  # phi's value far below zero is -FLOOR
FILTER_WEIGHT, PROJECTION_WEIGHT = 0.1, 1e-4  # regularisation of w and P
ITERATIONS = 10  # of conjugate gradient in a Gauss-Newton round of the first frame

Vector: TypeAlias = tuple[Tensor, ...]
Residuals: TypeAlias = Callable[..., Tensor]


def conjugate_gradient(
    product: Callable[[Vector], Vector], b: Vector, iterations: int, weights: tuple[float, ...] | None = None
) -> Vector:
    """Return x with A x = b after some iterations of conjugate gradient from zero; beta is Polak-Ribiere's.

    Args:
        product: A p for a vector p; A is symmetric and positive.
        b: the right side, a tuple of tensors that together are one vector.
        iterations: at most; it ends early if nothing is left.
        weights: the preconditioner's diagonal, one number for each tensor; None for none.
    """
    x, rest, direction = tuple(torch.zeros_like(part) for part in b), b, b
    before, rho_before = b, math.inf
    for k in range(iterations):
        z = rest if weights is None else tuple(part / weight for part, weight in zip(rest, weights))
        rho = _dot(rest, z)
        if rho == 0:
            break
        beta = max(0.0, (rho - _dot(before, z)) / rho_before) if k else 0.0
        direction = _add(z, direction, beta)
        along = product(direction)
        alpha = rho / _dot(direction, along)
        before, rho_before = rest, rho
        x, rest = _add(x, direction, alpha), _add(rest, along, -alpha)
    return x


def gauss_newton_cg(
    residuals: Residuals, start: Vector, rounds: int, iterations: int, weights: tuple[float, ...] | None = None
) -> Vector:
    """Minimise ||r(v)||^2: each round linearises r and solves J^T J d = -J^T r by conjugate gradient.

    Args:
        residuals: r(*v), a tensor of any shape.
        start: the variables v.
        rounds: of linearisation.
        iterations: of conjugate gradient in each round.
        weights: the preconditioner's diagonal, one number for each variable.
    """
    v = start
    for _ in range(rounds):
        values, transposed = torch.func.vjp(residuals, *v)[:2]
        # the transposed of g -> J^T g is p -> J p
        _, forward = torch.func.vjp(transposed, torch.zeros_like(values))[:2]
        b = tuple(-part for part in transposed(values))
        step = conjugate_gradient(partial(_product, forward, transposed), b, iterations, weights)
        v = _add(v, step, 1.0)
    return v


def _product(forward: Callable, transposed: Callable, p: Vector) -> Vector:
    """Return J^T J p."""
    return transposed(*forward(p))


def _dot(a: Vector, b: Vector) -> float:
    """Return the inner product of two vectors."""
    return float(sum((x * y).sum() for x, y in zip(a, b)))


def _add(a: Vector, b: Vector, factor: float) -> Vector:
    """Return a + factor b."""
    return tuple(x + factor * y for x, y in zip(a, b))


def soft_floor(t: Tensor) -> Tensor:
    """Return phi(t): t if it is positive, else a (exp(t / a) - 1), so that the slope at 0 is 1 on both sides."""
    return F.elu(t / FLOOR) * FLOOR


def normalize(features: Tensor) -> Tensor:
    """Return features (n, c, h, w), each sample divided by the root of its mean square."""
    return features / (features.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-10).sqrt()


def correlate(filter: Tensor, projected: Tensor) -> Tensor:
    """Return scores (n, h, w) of projected features (n, p, h, w) under a filter (1, p, k, k) of even size.

    Score j looks at the cells j - k/2 to j + k/2 - 1: its place is half a cell before cell j's centre. It is a
    convolution by matrix product and overlapping sums: of one output channel, three times as fast as PyTorch's.
    """
    (height, width), k = projected.shape[2:], filter.shape[-1]
    taps = filter[0].flip(1, 2).flatten(1).T @ projected.flatten(2)  # (n, k * k, h * w)
    return F.fold(taps, (height + 1, width + 1), k, padding=k // 2 - 1)[:, 0, :-1, :-1]


def project(projection: Tensor, samples: Tensor) -> Tensor:
    """Return projected features (n, p, h, w) of samples (n, c, h, w); projection (p, c, 1, 1)."""
    return (projection[:, :, 0, 0] @ samples.flatten(2)).unflatten(2, samples.shape[2:])


def gaussian_labels(boxes_xyxy: Tensor, cells: int, stride: int) -> Tensor:
    """Return labels (n, cells, cells): Gaussians at boxes (n, 4) in crop pixels, as wide as a quarter of the box.

    Score j is at j cells from the crop's edge (`correlate`).
    """
    centre = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / (2 * stride)  # x, y in cells
    sigma = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1).prod(dim=1).sqrt() / (4 * stride)
    away = torch.arange(cells, device=boxes_xyxy.device) - centre[..., None]  # (n, 2, cells)
    x, y = (-0.5 * (away / sigma[:, None, None]).square()).exp().unbind(1)
    return y[:, :, None] * x[:, None]


def score_pixels(scores: Tensor, stride: int) -> Tensor:
    """Return scores (n, n) interpolated to all pixels of the crop, (n stride, n stride), by their Fourier series."""
    matrix = _interpolation(scores.shape[-1], stride).to(scores)
    return matrix @ scores @ matrix.T


@lru_cache(maxsize=8)
def _interpolation(cells: int, stride: int) -> Tensor:
    """Return the matrix (cells * stride, cells) from scores at 0, 1, ... cells to those at the pixels' centres."""
    at = (torch.arange(cells * stride, dtype=torch.float64) + 0.5) / stride
    phase = 2 * math.pi / cells * (at[:, None] - torch.arange(cells))
    waves = torch.arange(1, (cells + 1) // 2, dtype=torch.float64)
    series = 1 + 2 * (phase[..., None] * waves).cos().sum(dim=-1)
    return (series + (phase * (cells / 2)).cos() if cells % 2 == 0 else series) / cells


@dataclasses.dataclass(frozen=True)
class AtomClassifier:
    """The classifier before it has seen a target; both convolutions begin at the same numbers for every target.

    filter: (1, p, k, k). projection: (p, c, 1, 1). stride: crop pixels of a cell.
    """

    filter: Tensor
    projection: Tensor
    stride: int = 16

    @classmethod
    def create(cls, channels: int = 256, projected: int = 64, kernel: int = 4, seed: int = 0) -> AtomClassifier:
        """Return a classifier of N(0, 1 / channels) projections and a filter with deviation 1 / its size."""
        generator = torch.Generator().manual_seed(seed)
        projection = torch.randn(projected, channels, 1, 1, generator=generator) / math.sqrt(channels)
        size = projected * kernel**2
        return cls(torch.randn(1, projected, kernel, kernel, generator=generator) / size, projection)

    def learn(self, samples: Tensor, boxes_xyxy: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
        """Return filter and projection learned from a first frame, with equal weights of the samples.

        Args:
            samples: (n, c, h, h) normalised features.
            boxes_xyxy: (n, 4) in crop pixels.
            rounds: of Gauss-Newton, ten iterations of conjugate gradient each.
        """
        labels = gaussian_labels(boxes_xyxy, samples.shape[-1], self.stride)
        weights = samples.new_full((len(samples),), 1 / len(samples))
        residuals = partial(_both_residuals, samples, labels, weights)
        start = self.filter.to(samples), self.projection.to(samples)
        regularisation = (FILTER_WEIGHT, PROJECTION_WEIGHT)
        filter, projection = gauss_newton_cg(residuals, start, rounds, ITERATIONS, regularisation)
        return filter, projection

    def update(self, filter: Tensor, projected: Tensor, boxes_xyxy: Tensor, weights: Tensor, iterations: int) -> Tensor:
        """Return the filter after one linearisation on stored samples, without a preconditioner.

        Args:
            filter: (1, p, k, k), the present one.
            projected: (n, p, h, h) projected features.
            boxes_xyxy: (n, 4) in crop pixels.
            weights: (n,) of the samples.
            iterations: of conjugate gradient.
        """
        labels = gaussian_labels(boxes_xyxy, projected.shape[-1], self.stride)
        residuals = partial(_filter_residuals, projected, labels, weights)
        return gauss_newton_cg(residuals, (filter,), 1, iterations)[0]


def _filter_residuals(projected: Tensor, labels: Tensor, weights: Tensor, filter: Tensor) -> Tensor:
    """Return the residuals of the filter's objective as one vector."""
    errors = weights.sqrt()[:, None, None] * (soft_floor(correlate(filter, projected)) - labels)
    return torch.cat([errors.flatten(), math.sqrt(FILTER_WEIGHT) * filter.flatten()])


def _both_residuals(samples: Tensor, labels: Tensor, weights: Tensor, filter: Tensor, projection: Tensor) -> Tensor:
    """Return the residuals of the objective of both convolutions as one vector."""
    of_filter = _filter_residuals(project(projection, samples), labels, weights, filter)
    return torch.cat([of_filter, math.sqrt(PROJECTION_WEIGHT) * projection.flatten()])
