"""The answers of a regression about an image: a number, and if it has a density, samples, likelihoods and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ebmtrack.energy.losses import Energy
from ebmtrack.energy.proposals import MixtureDensity, expectation, importance, quantiles
from ebmtrack.errors import ConfigError

CHUNK = 512  # samples of each image that are scored at a time


@dataclass(frozen=True)
class Prediction:
    """Answers for B images.

    Attributes:
        point: the numbers (B, D) to report.
        samples: weighted samples (B, M, D), or (1, M, D), of the density; None for methods without a density.
        log_w: log of their weights (B, M).
        log_prob: y (B, N, D) -> log p(y|x) (B, N).
        ess: effective number of samples (B,); the figures mean nothing below about 10.
    """

    point: Tensor
    samples: Tensor | None = None
    log_w: Tensor | None = None
    log_prob: Callable[[Tensor], Tensor] | None = None
    ess: Tensor | None = None

    def interval(self, probability: float) -> Tensor:
        """Return the central interval (B, 2, D), low and high, that should hold each number with `probability`."""
        if self.samples is None or self.log_w is None:
            raise ConfigError("this method predicts numbers without a density; take another one for intervals")
        tail = 0.5 * (1 - probability)
        return quantiles(self.log_w, self.samples.expand(*self.log_w.shape, -1), (tail, 1 - tail))

    def spread(self) -> Tensor:
        """Return the standard deviation (B, D) of the density."""
        if self.samples is None or self.log_w is None:
            raise ConfigError("this method predicts numbers without a density; take another one for a spread")
        return expectation(self.log_w, (self.samples - self.point.unsqueeze(1)).square()).sqrt()

    def in_units(self, shift: Tensor, scale: Tensor) -> Prediction:
        """Return the answers for y = shift + scale z, of answers about z; shift and scale are (D,)."""
        z_log_prob = self.log_prob
        log_prob = None
        if z_log_prob is not None:
            log_prob = lambda y: z_log_prob((y - shift) / scale) - scale.log().sum()  # noqa: E731
        samples = None if self.samples is None else shift + scale * self.samples
        return Prediction(shift + scale * self.point, samples, self.log_w, log_prob, self.ess)


def by_importance(energy: Energy, samples: Tensor, log_q: Tensor) -> Prediction:
    """Return the answers of an energy y (B, N, D) -> f (B, N) by self-normalised importance sampling.

    Args:
        energy: f of each image at its own y.
        samples: (B, M, D) or (1, M, D), drawn from q.
        log_q: their log densities, of a shape that broadcasts to (B, M).
    """
    f = torch.cat([energy(part) for part in samples.split(CHUNK, dim=1)], dim=1)
    log_w, log_z, ess = importance(f, log_q.expand_as(f))
    return Prediction(expectation(log_w, samples), samples, log_w, lambda y: energy(y) - log_z.unsqueeze(-1), ess)


def by_grid(energy: Energy, points: Tensor, volume: float) -> Prediction:
    """Return the answers of an energy by a sum over an even grid (P, D) that fills `volume`."""
    return by_importance(energy, points.unsqueeze(0), points.new_full((1, len(points)), -math.log(volume)))


def of_mixture(q: MixtureDensity, num_samples: int, generator: Generator | None) -> Prediction:
    """Return the answers of mixtures (B, ...): their exact mean and density, and equally weighted samples."""
    return of_samples(q.mean(), q.sample(num_samples, generator), q.log_prob)


def of_samples(point: Tensor, samples: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Prediction:
    """Return the answers of a density that can be sampled: all weights are equal."""
    M = samples.shape[1]
    log_w = torch.full(samples.shape[:2], -math.log(M), device=samples.device)
    return Prediction(point, samples, log_w, log_prob, torch.full(samples.shape[:1], float(M), device=samples.device))


def even_grid(low: Tensor, high: Tensor, points: int) -> tuple[Tensor, float]:
    """Return the cells' centres (P, D) of a grid with about `points` cells over [low, high] (D,), and its volume."""
    D = len(low)
    number = max(2, round(points ** (1 / D)))
    middle = (torch.arange(number, device=low.device) + 0.5) / number
    axes = [a + (b - a) * middle for a, b in zip(low, high)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, D), (high - low).prod().item()
