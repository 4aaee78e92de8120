"""Prediction: climbing f(y) by gradient ascent, three ways, many candidates at once.

An energy is a callable y (..., D) -> f (...) that scores every row of y independently; each row climbs alone,
with its own decisions. A step length is a number, or one per dimension (D,), or anything that broadcasts to
(..., D). Results carry no gradient. Sources: Algorithms S1 and S2 (supplement of ECCV 2020, appendices A and
E) and the plain ascent of the trackers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ebmtrack.energy.losses import Energy, energy_gradient
from ebmtrack.errors import ConfigError


class AscentResult(NamedTuple):
    """The end of plain ascent, y (..., D), and the energies (...) at which its last step started."""

    y: Tensor
    f_before_last_step: Tensor


class ClimbResult(NamedTuple):
    """The end of Algorithm S1 or S2, y (..., D), and the energies there, f (...)."""

    y: Tensor
    f: Tensor


def plain_ascent(energy: Energy, start: Tensor, step: float | Tensor, steps: int = 10) -> AscentResult:
    """Take `steps` steps y <- y + step grad f(y) from start (..., D) without any check, as the trackers do.

    The energies returned are those at which the last step started (at start if steps is 0), because one
    more evaluation would cost a tenth of the whole climb.
    """
    _check(start, steps)
    y = start.detach()
    if steps == 0:
        return AscentResult(y, _value_and_gradient(energy, y)[0])
    for _ in range(steps):
        f, gradient = _value_and_gradient(energy, y)
        y = y + step * gradient
    return AscentResult(y, f)


def ascent_s1(energy: Energy, start: Tensor, step: float | Tensor, steps: int = 10, decay: float = 0.5) -> ClimbResult:
    """Run Algorithm S1: take a row's step if it raises f, else multiply that row's step length by `decay`.

    Never returns a lower f than at start. Every row of start (..., D) has its own step length. One evaluation
    of value and gradient per step and one before; stops early once no row can move any more. decay is the
    paper's eta, in (0, 1]; 0.5 is its value for detection.
    """
    _check(start, steps)
    if not 0 < decay <= 1:
        raise ConfigError(f"ascent_s1: decay must lie in (0, 1], got {decay}")
    y, step = start.detach(), _row_steps(step, start)
    f, gradient = _value_and_gradient(energy, y)
    for _ in range(steps):
        y_new = y + step * gradient
        f_new, gradient_new = energy_gradient(energy, y_new)
        better = f_new > f  # (...), False if f_new is not a number
        stuck = ~better if decay == 1 else (y_new == y).all(dim=-1)
        if bool(stuck.all()):
            break
        f = torch.where(better, f_new, f)
        better = better.unsqueeze(-1)
        y, gradient = torch.where(better, y_new, y), torch.where(better, gradient_new, gradient)
        step = torch.where(better, step, decay * step)
    return ClimbResult(y, f)


def ascent_s2(
    energy: Energy,
    start: Tensor,
    step: float | Tensor,
    steps: int = 5,
    early_stop: float = 0.001,
    degeneration: float = -0.01,
) -> ClimbResult:
    """Climb by algorithm S2: always step; a row stops after a change of f smaller than `early_stop`, or after a fall.

    A fall is a change below `degeneration`; the step that brought it stays taken, as the algorithm says, so f
    may end lower than it began. The defaults are the papers' T = 5, Omega_1 and Omega_2. The loop ends once
    all rows of start (..., D) have stopped.
    """
    _check(start, steps)
    y = start.detach()
    f, gradient = _value_and_gradient(energy, y)
    active = torch.ones_like(f, dtype=torch.bool)
    for _ in range(steps):
        y = torch.where(active.unsqueeze(-1), y + step * gradient, y)
        f_new, gradient = energy_gradient(energy, y)
        change = f_new - f
        active = active & (change.abs() >= early_stop) & (change >= degeneration)
        f = f_new
        if not bool(active.any()):
            break
    return ClimbResult(y, f)


def _value_and_gradient(energy: Energy, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return f (...) and its gradient at y (..., D); ConfigError for an energy of another shape, such as (..., 1)."""
    f, gradient = energy_gradient(energy, y)
    if f.shape != y.shape[:-1]:
        want, got = tuple(y.shape[:-1]), tuple(f.shape)
        raise ConfigError(f"the energy of {tuple(y.shape)} must be {want}, one value a row, got {got}; squeeze(-1)?")
    return f, gradient


def _row_steps(step: float | Tensor, start: Tensor) -> Tensor:
    """Return the step lengths of every row and dimension, in the shape of start (..., D)."""
    step = torch.as_tensor(step, dtype=start.dtype, device=start.device)
    return step.expand(start.shape)


def _check(start: Tensor, steps: int) -> None:
    """Raise ConfigError unless start is (..., D) in floating point and steps is not negative."""
    if start.dim() == 0 or not start.is_floating_point():
        raise ConfigError(f"start must be (..., D) floats, got shape {tuple(start.shape)} of {start.dtype}")
    if steps < 0:
        raise ConfigError(f"steps must not be negative, got {steps}")
