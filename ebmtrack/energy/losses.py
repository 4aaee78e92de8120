"""Seven ways to train an energy f(x, y), one pure function each, all in log space.

Here p(y|x) = exp f(x, y) / Z(x). ML-IS, KLD-IS, ML-MCMC, NCE and NCE+ take scores that the caller has
computed; SM and DSM need derivatives in y and take the energy itself, a callable y (..., D) -> f (...) that
scores every row of y independently of the others. Leading axes (...) are examples, any number of them; M
samples each, M = 1 allowed; log densities that several examples share may leave out leading axes. Every
function computes in float32 at least and returns the mean over examples, or as `reduction` says. No
examples at all is a ConfigError. Equation numbers: "How to Train Your Energy-Based Model for Regression",
BMVC 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from ebmtrack.errors import ConfigError

Energy = Callable[[Tensor], Tensor]
Reduction = Literal["mean", "sum", "none"]


def ml_is(f_samples: Tensor, log_q: Tensor, f_true: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the loss of maximum likelihood by importance sampling: log((1/M) sum_m exp f(y_m) / q(y_m)) - f(y_i).

    f_samples and log_q: (..., M), scores and log densities of y_m ~ q(y|y_i). f_true: (...), the label's
    score. Source: eq. 5 (ECCV 2020, eq. 6).
    """
    f_samples, log_q, f_true = _at_least_float32(f_samples, log_q, f_true)
    log_q = _match("ml_is", f_samples, log_q)
    return _reduce(log_z_is(f_samples, log_q) - _check_single("ml_is", f_true, f_samples), reduction)


def kld_is(f_samples: Tensor, log_q: Tensor, log_p: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return KL(p(y|y_i) || model): log((1/M) sum_m exp f(y_m) / q(y_m)) - (1/M) sum_m f(y_m) p(y_m) / q(y_m).

    f_samples, log_q, log_p: (..., M), scores and the two log densities of y_m ~ q(y|y_i), p(y|y_i) being the
    density of the true target given its label. The entropy of p, which f cannot change, is left out. A
    constant added to f cancels in expectation only, since the weights p/q of one draw need not sum to M.
    Source: eq. 7.
    """
    f_samples, log_q, log_p = _at_least_float32(f_samples, log_q, log_p)
    log_q, log_p = _match("kld_is", f_samples, log_q), _match("kld_is", f_samples, log_p)
    expected_f = (f_samples * (log_p - log_q).exp()).mean(dim=-1)
    return _reduce(log_z_is(f_samples, log_q) - expected_f, reduction)


def ml_mcmc(f_samples: Tensor, f_true: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the loss of maximum likelihood by samples of the model itself: (1/M) sum_m f(y_m) - f(y_i).

    f_samples: (..., M), scores of samples from `langevin`; f_true: (...). Only its gradient means anything;
    its value is no likelihood. Source: eqs. 8 to 10.
    """
    f_samples, f_true = _at_least_float32(f_samples, f_true)
    _match("ml_mcmc", f_samples, f_samples)
    return _reduce(f_samples.mean(dim=-1) - _check_single("ml_mcmc", f_true, f_samples), reduction)


def nce(f: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the loss of ranking NCE: the cross entropy of finding y_0 among y_0 .. y_M by f - log q.

    f and log_q: (..., 1 + M), the label y_0 = y_i first, then y_m ~ q(y|y_i). Source: eq. 12.
    """
    f, log_q = _at_least_float32(f, log_q)
    log_q = _match("nce", f, log_q)
    if f.shape[-1] < 2:
        raise ConfigError("nce: the last axis must hold the label and at least one noise sample, got 1 entry")
    logits = f - log_q
    return _reduce(torch.logsumexp(logits, dim=-1) - logits[..., 0], reduction)


def nce_plus(f: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the loss of NCE+: the formula of `nce`, with y_0 = y_i + nu, nu ~ p_beta, made by `nce_plus_samples`.

    f and log_q: (..., 1 + M); log_q is that of the unscaled mixture, also at index 0. Source: equations 15, 16.
    """
    return nce(f, log_q, reduction=reduction)


def score_matching(energy: Energy, y: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the loss of SM: the trace of the Hessian of f at the label plus half the squared norm of its gradient.

    y: (..., D), the labels. One backward pass for each of the D dimensions. Source: eq. 13.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_(True)
        score = grad_y(energy(y), y, create_graph=True)  # (..., D)
        diagonal = [grad_y(score[..., d], y, create_graph=True)[..., d] for d in range(y.shape[-1])]  # D times (...)
        trace = torch.stack(diagonal).sum(dim=0)
        trace, score = _at_least_float32(trace, score)
        return _reduce(trace + 0.5 * score.square().sum(dim=-1), reduction)


def denoising_score_matching(
    energy: Energy, y_true: Tensor, y_noisy: Tensor, sigma: float | Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return the loss of DSM: (1/M) sum_m || grad_y f(y_m) + (y_m - y_i) / sigma^2 ||^2 over y_m ~ N(y_i, sigma^2 I).

    y_true: (..., D); y_noisy: (..., M, D); sigma: a number, or widths that broadcast with
    y_noisy. The energy is called once, on y_noisy; one that knows its gradient offers a
    method `gradient(y)` (..., M, D), differentiable in its parameters, which is called instead. Source: eq. 14.
    """
    if y_noisy.dim() < 2 or y_noisy.shape[-2] == 0:
        shape = tuple(y_noisy.shape)
        raise ConfigError(f"denoising_score_matching: y_noisy must be (..., M, D) with M >= 1, got {shape}")
    if not bool(torch.as_tensor(sigma > 0).all()):
        raise ConfigError(f"denoising_score_matching: sigma must be positive, got {sigma}")
    with torch.enable_grad():
        if hasattr(energy, "gradient"):
            score = energy.gradient(y_noisy.detach())
        else:
            y_noisy = y_noisy.detach().requires_grad_(True)
            score = grad_y(energy(y_noisy), y_noisy, create_graph=True)
        score, y, y_i = _at_least_float32(score, y_noisy.detach(), y_true)
        residual = score + (y - y_i.unsqueeze(-2)) / sigma**2  # (..., M, D)
        return _reduce(residual.square().sum(dim=-1).mean(dim=-1), reduction)


def langevin(
    energy: Energy, start: Tensor, step: float | Tensor, steps: int, generator: Generator | None = None
) -> Tensor:
    """Take `steps` Langevin steps y <- y + (step^2 / 2) grad_y f(y) + step eps, eps ~ N(0, I), from start (..., D).

    The samples carry no gradient. step is the paper's alpha, a number or one per dimension (D,). ML-MCMC
    starts at the labels. Source: eq. 9.
    """
    y = start.detach()
    for _ in range(steps):
        device = y.device if generator is None else generator.device
        eps = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=device).to(y.device)
        y = y + 0.5 * step**2 * energy_gradient(energy, y)[1] + step * eps
    return y


def log_z_is(f_samples: Tensor, log_q: Tensor) -> Tensor:
    """Return the log of the importance sampling estimate (1/M) sum_m exp f(y_m) / q(y_m) of Z: (..., M) -> (...)."""
    return torch.logsumexp(f_samples - log_q, dim=-1) - math.log(f_samples.shape[-1])


def energy_gradient(energy: Energy, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(y) (...) and its gradient in y (..., D), both detached, whatever the caller's gradient mode.

    An energy that knows its gradient offers a method `value_and_gradient(y)`, which is called instead of autograd.
    """
    if hasattr(energy, "value_and_gradient"):
        return energy.value_and_gradient(y)
    with torch.enable_grad():
        y = y.detach().requires_grad_(True)
        f = energy(y)
        return f.detach(), grad_y(f, y)


def grad_y(f: Tensor, y: Tensor, create_graph: bool = False) -> Tensor:
    """Return the gradient of f (...) in y (..., D), row by row: (..., D); zero for rows that do not depend on y."""
    if not f.requires_grad:
        return torch.zeros_like(y)
    options = {"create_graph": create_graph, "allow_unused": True}
    (gradient,) = torch.autograd.grad(f, y, torch.ones_like(f), **options)
    return torch.zeros_like(y) if gradient is None else gradient


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in one common dtype, float32 or wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _match(name: str, f: Tensor, log_density: Tensor) -> Tensor:
    """Return log_density expanded to the shape (..., M) of f; ConfigError if it does not fit or M is 0."""
    want, got = tuple(f.shape), tuple(log_density.shape)
    if not want or want[-1] == 0:
        raise ConfigError(f"{name}: the scores of the samples must be (..., M) with M >= 1, got {want}")
    fits = all(a in (b, 1) for a, b in zip(reversed(got[:-1]), reversed(want[:-1])))
    if got[-1:] != want[-1:] or len(got) > len(want) or not fits:
        raise ConfigError(f"{name}: log densities of the shape {got} do not fit scores of the shape {want}")
    return log_density.expand_as(f)


def _check_single(name: str, f_true: Tensor, f_samples: Tensor) -> Tensor:
    """Return f_true; ConfigError unless it has the shape of f_samples without the last axis."""
    if f_true.shape != f_samples.shape[:-1]:
        want, got = tuple(f_samples.shape[:-1]), tuple(f_true.shape)
        raise ConfigError(f"{name}: f_true must have the shape {want}, one score for each example, got {got}")
    return f_true


def _reduce(per_example: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean, the sum or all of the losses of the examples; ConfigError if there is no example."""
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if per_example.numel() == 0:
        raise ConfigError("a loss needs at least one example, got none: skip empty batches before the loss")
    return per_example if reduction == "none" else getattr(per_example, reduction)()
