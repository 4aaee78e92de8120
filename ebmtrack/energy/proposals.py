"""Learned proposals q(y|x) beside an energy: mixtures, their losses, and predictions by importance sampling.

p(y|x) = exp f(x, y) / Z(x), and q is a mixture of Gaussians whose parameters a network makes of x alone. Leading axes
(...) are examples; each has M samples y_m ~ q of D dimensions, with scores f_m and log densities l_m = log q(y_m|x).
Samples are constants: no gradient reaches q through them. Source: Gustafsson et al., "Learning Proposals for Practical
Energy-Based Regression", AISTATS 2022 (here: Paper IV).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ebmtrack.energy.losses import Reduction, _at_least_float32, _match, _reduce, log_z_is, ml_is, nce
from ebmtrack.errors import ConfigError

LEAST_ESS = 10.0  # effective samples below which figures by importance sampling mean nothing


@dataclass(frozen=True, eq=False)
class MixtureDensity:
    """Densities q(y|x) = sum_k w_k N(y; means_k, diag(exp log_var_k)) of K components over D dimensions.

    logits: (..., K), the weights are their softmax; means and log_var: (..., K, D). Everything is differentiable in
    these three, except for samples. Raises ConfigError for shapes that do not fit.

    >>> q = MixtureDensity(torch.zeros(5, 2), torch.zeros(5, 2, 3), torch.zeros(5, 2, 3))
    >>> q.log_prob(q.sample(7)).shape
    torch.Size([5, 7])
    """

    logits: Tensor
    means: Tensor
    log_var: Tensor

    def __post_init__(self) -> None:
        logits, means, log_var = (tuple(t.shape) for t in (self.logits, self.means, self.log_var))
        if not logits or means[:-1] != logits or means != log_var or 0 in means[-2:]:
            got = f"{logits}, {means}, {log_var}"
            raise ConfigError(f"MixtureDensity: logits must be (..., K), means and log_var (..., K, D); got {got}")

    @classmethod
    def from_heads(cls, logits: Tensor, means: Tensor, log_var: Tensor) -> MixtureDensity:
        """Return the mixture of a network's outputs: logits (..., K), the others (..., D K), laid out (D, K)."""
        K = logits.shape[-1]
        if K == 0 or means.shape[-1] % K:
            raise ConfigError(f"MixtureDensity: {means.shape[-1]} means cannot be shared out over {K} components")
        return cls(logits, *(flat.unflatten(-1, (-1, K)).transpose(-1, -2) for flat in (means, log_var)))

    @property
    def log_weights(self) -> Tensor:
        """The logarithms (..., K) of the components' weights."""
        return torch.log_softmax(self.logits, dim=-1)

    def log_prob(self, y: Tensor) -> Tensor:
        """Return log q of y (..., M, D): (..., M). It is finite for labels far from all components."""
        if y.dim() < 2 or y.shape[-1] != self.means.shape[-1]:
            raise ConfigError(f"MixtureDensity: y must be (..., M, {self.means.shape[-1]}), got {tuple(y.shape)}")
        log_var = self.log_var.unsqueeze(-3)  # (..., 1, K, D)
        z = (y.unsqueeze(-2) - self.means.unsqueeze(-3)) * torch.exp(-0.5 * log_var)  # (..., M, K, D)
        log_normal = -0.5 * (z.square() + log_var).sum(dim=-1) - 0.5 * y.shape[-1] * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weights.unsqueeze(-2) + log_normal, dim=-1)

    @torch.no_grad()
    def sample(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Draw `num_samples` = M samples (..., M, D) for each example, without gradient."""
        if num_samples < 1:
            raise ConfigError(f"MixtureDensity: num_samples must be at least 1, got {num_samples}")
        shape, (K, D) = self.logits.shape[:-1], self.means.shape[-2:]
        weights = self.log_weights.exp().reshape(-1, K)
        component = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
        index = component.reshape(*shape, num_samples, 1).expand(*shape, num_samples, D)
        means, std = self.means.gather(-2, index), torch.exp(0.5 * self.log_var).gather(-2, index)
        eps = torch.randn(means.shape, generator=generator, dtype=means.dtype, device=means.device)
        return means + std * eps

    def mean(self) -> Tensor:
        """Return the mean (..., D)."""
        return (self.log_weights.exp().unsqueeze(-1) * self.means).sum(dim=-2)

    def variance(self) -> Tensor:
        """Return the variance (..., D) of each dimension: that within components, and that between their means."""
        spread = self.log_var.exp() + (self.means - self.mean().unsqueeze(-2)).square()
        return (self.log_weights.exp().unsqueeze(-1) * spread).sum(dim=-2)

    def modes(self) -> Tensor:
        """Return the components' means (..., K, D), that with the highest density of the mixture first."""
        order = self.log_prob(self.means).argsort(dim=-1, descending=True)
        return self.means.gather(-2, order.unsqueeze(-1).expand(self.means.shape))


class Importance(NamedTuple):
    """Self-normalised importance weights of samples, and what they say about their own worth.

    Attributes:
        log_w: log of the weights (..., M), which add up to 1.
        log_z: estimate (...) of log Z(x); too low on average, the more so the worse q covers p.
        ess: effective sample size (...), 1 to M; below `LEAST_ESS` the figures mean nothing.
    """

    log_w: Tensor
    log_z: Tensor
    ess: Tensor


# Losses of the proposal, and of both networks together


def proposal_kl(f_samples: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return J_KL = log((1/M) sum_m exp f_m / q(y_m)), whose gradient in q is that of KL(p || q), estimated.

    The value estimates log Z and is no divergence: do not compare it over x, nor stop by it.

    Args:
        f_samples: scores (..., M) of y_m ~ q; detached here.
        log_q: log densities (..., M), differentiable in the proposal; the samples themselves must be constants.
        reduction: mean, sum or none, over examples.
    """
    f_samples, log_q = _at_least_float32(f_samples.detach(), log_q)
    return _reduce(log_z_is(f_samples, _match("proposal_kl", f_samples, log_q)), reduction)


def joint_ml_is(f_samples: Tensor, log_q: Tensor, f_true: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return log((1/M) sum_m exp f_m / q(y_m)) - f_0, which trains the energy (ML-IS) and the proposal (J_KL) at once.

    Args:
        f_samples: scores (..., M), differentiable in the energy.
        log_q: log densities (..., M), differentiable in the proposal.
        f_true: the label's score (...).
        reduction: mean, sum or none, over examples.
    """
    return ml_is(f_samples, log_q, f_true, reduction=reduction)


def energy_nce(f: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return J_NCE of f and log_q (..., 1 + M), the label first: NCE that trains the energy alone."""
    return nce(f, log_q.detach(), reduction=reduction)


def nce_and_kl(f: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return J_NCE + J_KL: an energy that learns its proposal (the released code's `ebmdn4`).

    The gradient in the energy is that of NCE, the gradient in the proposal that of J_KL. Features that both share
    belong to the energy: give the proposal's head detached ones.

    Args:
        f: scores (..., 1 + M), the label's first.
        log_q: log densities (..., 1 + M) under the proposal.
        reduction: mean, sum or none, over examples.
    """
    return energy_nce(f, log_q, reduction=reduction) + proposal_kl(f[..., 1:], log_q[..., 1:], reduction=reduction)


def proposal_with_teacher(f: Tensor, log_q: Tensor, weight: float = 0.5, *, reduction: Reduction = "mean") -> Tensor:
    """Return weight J_KL + (1 - weight) J_NLL: an MDN with an energy as its teacher (the released code's `ebmdn3`).

    It reaches the proposal alone; train the teacher, which has a backbone of its own, by `energy_nce` on the same
    scores. weight 0 is an ordinary MDN, as in the first epoch of the paper's head poses.

    Args:
        f: scores (..., 1 + M), the label's first.
        log_q: log densities (..., 1 + M) under the proposal.
        weight: share of J_KL.
        reduction: mean, sum or none, over examples.
    """
    nll = _reduce(-log_q[..., 0], reduction)
    return weight * proposal_kl(f[..., 1:], log_q[..., 1:], reduction=reduction) + (1 - weight) * nll


# Predictions


def importance(f_samples: Tensor, log_q: Tensor) -> Importance:
    """Return weights, log Z and effective sample size of y_m ~ q with scores and log densities (..., M)."""
    f_samples, log_q = _at_least_float32(f_samples, log_q)
    log_q = _match("importance", f_samples, log_q)
    log_w = torch.log_softmax(f_samples - log_q, dim=-1)
    return Importance(log_w, log_z_is(f_samples, log_q), torch.exp(-torch.logsumexp(2 * log_w, dim=-1)))


def expectation(log_w: Tensor, values: Tensor) -> Tensor:
    """Return the mean (..., D) of values (..., M, D) at samples with log weights (..., M)."""
    return (log_w.exp().unsqueeze(-1) * values).sum(dim=-2)


def resample(log_w: Tensor, y: Tensor, number: int, generator: Generator | None = None) -> Tensor:
    """Draw `number` of the samples y (..., M, D), with replacement, by their log weights (..., M): (..., number, D)."""
    flat = log_w.exp().reshape(-1, log_w.shape[-1])
    index = torch.multinomial(flat, number, replacement=True, generator=generator).reshape(*log_w.shape[:-1], number, 1)
    return y.gather(-2, index.expand(*index.shape[:-1], y.shape[-1]))


def quantiles(log_w: Tensor, y: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the quantiles (..., Q, D) of each dimension of weighted samples, linear between them.

    Half of a sample's weight counts as below it. An interval of probability p has the levels (1 - p) / 2 and
    (1 + p) / 2.

    Args:
        log_w: log weights (..., M).
        y: samples (..., M, D), whose dtype is that of the quantiles.
        levels: Q probabilities in (0, 1).
    """
    if not all(0 < level < 1 for level in levels):
        raise ConfigError(f"quantiles: levels must be between 0 and 1, got {tuple(levels)}")
    dtype, own = torch.promote_types(log_w.dtype, torch.promote_types(y.dtype, torch.float32)), y.dtype
    y, order = y.to(dtype).transpose(-1, -2).sort(dim=-1)  # (..., D, M)
    w = log_w.to(dtype).exp().unsqueeze(-2).expand(y.shape).gather(-1, order)
    middle = w.cumsum(dim=-1) - 0.5 * w
    wanted = y.new_tensor(list(levels)).expand(*y.shape[:-1], len(levels)).contiguous()
    above = torch.searchsorted(middle.contiguous(), wanted).clamp(0, y.shape[-1] - 1)
    below = (above - 1).clamp(min=0)
    low, high = middle.gather(-1, below), middle.gather(-1, above)
    part = ((wanted - low) / (high - low).clamp(min=torch.finfo(y.dtype).tiny)).clamp(0, 1)
    return torch.lerp(y.gather(-1, below), y.gather(-1, above), part).transpose(-1, -2).to(own)
