"""The data, the networks and the training methods of the 1D study (BMVC 2020, supplement B); axis 0 is the run."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Generator, Tensor, nn

from ebmtrack.energy import losses
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples

LOW, HIGH = -3.0, 3.0  # both x and y: BMVC 2020, supplement B.3
WIDTH = 10  # units per layer: BMVC 2020, supplement B.2


@dataclass(frozen=True)
class StudySettings:
    """The settings that all runs share; the defaults are the paper's (BMVC 2020, supplement B)."""

    epochs: int = 75
    batch: int = 32
    examples: int = 2000
    learning_rate: float = 1e-3
    grid: int = 2048  # points per axis of the grid on which D_KL is computed
    seed: int = 0


PAPER_SETTINGS = StudySettings()


@dataclass(frozen=True)
class StudyCell:
    """One entry of the study: a method with M samples. M is 0 for methods that draw none."""

    method: str
    samples: int


# Data


def log_density(dataset: int, x: Tensor, y: Tensor) -> Tensor:
    """Return log p(y|x) of data set 1 or 2, for broadcastable x and y. Source: BMVC 2020, supplement B.1."""
    if dataset == 2:
        return _log_normal(y, x.sin(), 0.15 * torch.sigmoid(x))
    two = torch.logaddexp(
        math.log(0.8) + _log_normal(y, x.sin(), 0.075), math.log(0.2) + _log_normal(y, -x.sin(), 0.075)
    )
    z = (y + 1).clamp(min=1e-30).log()  # y + 1 is lognormal
    return torch.where(x < 0, two, torch.where(y > -1, _log_normal(z, 0.0, 0.25) - z, -torch.inf))


def make_data(dataset: int, number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return `number` examples x, y (number,) of data set 1 or 2, x uniform on [-3, 3]; float32, on the CPU."""
    generator = Generator().manual_seed(seed_of(seed, "data", dataset))
    x = LOW + (HIGH - LOW) * torch.rand(number, generator=generator)
    z = torch.randn(number, generator=generator)
    if dataset == 2:
        return x, x.sin() + 0.15 * torch.sigmoid(x) * z
    sign = torch.where(torch.rand(number, generator=generator) < 0.8, 1.0, -1.0)
    return x, torch.where(x < 0, sign * x.sin() + 0.075 * z, (0.25 * z).exp() - 1)


def _log_normal(y: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Return log N(y; mean, std^2)."""
    std = torch.as_tensor(std, dtype=y.dtype, device=y.device)
    return -0.5 * ((y - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def seed_of(*parts: object) -> int:
    """Return a seed made of words and numbers, the same on every machine."""
    return zlib.crc32("/".join(str(part) for part in parts).encode())


# Networks, R at once: features have the shape (R, channels, ...)


class ManyLinear(nn.Module):
    """R linear layers side by side, initialised as torch.nn.Linear: (R, inputs, ...) -> (R, outputs, ...)."""

    def __init__(self, runs: int, inputs: int, outputs: int, generator: Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(bound * (2 * _uniform(runs, outputs, inputs, generator) - 1))
        self.bias = nn.Parameter(bound * (2 * _uniform(runs, outputs, 1, generator) - 1))

    def forward(self, h: Tensor) -> Tensor:
        """Run r's layer applied to h[r]."""
        return torch.baddbmm(self.bias, self.weight, h.flatten(2)).unflatten(2, h.shape[2:])

    def linear(self, h: Tensor) -> Tensor:
        """Return the same without the bias."""
        return torch.bmm(self.weight, h.flatten(2)).unflatten(2, h.shape[2:])


def _uniform(runs: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """Return numbers from [0, 1) on the generator's device, (runs, rows, columns)."""
    return torch.rand(runs, rows, columns, generator=generator, device=generator.device)


def _tanh(h: Tensor) -> Tensor:
    """Return tanh, through the sigmoid: six times as fast on a CPU, and wrong by at most 2e-7."""
    return torch.sigmoid(2 * h).mul(2).sub(1)


class ManyEnergies(nn.Module):
    """R energies f(x, y) of the paper's layout (BMVC 2020, supplement B.2): ReLU for x, tanh with y."""

    def __init__(self, runs: int, generator: Generator) -> None:
        super().__init__()
        self.x1 = ManyLinear(runs, 1, WIDTH, generator)
        self.x2 = ManyLinear(runs, WIDTH, WIDTH, generator)
        self.y1 = ManyLinear(runs, 1, WIDTH, generator)
        self.join = ManyLinear(runs, 2 * WIDTH, WIDTH, generator)
        self.skip1 = ManyLinear(runs, WIDTH, WIDTH, generator)
        self.skip2 = ManyLinear(runs, WIDTH, WIDTH, generator)
        self.last = ManyLinear(runs, WIDTH, 1, generator)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return f (R, B, M) for x (R, B) and y (R, B, M), or (R, 1, M) if all x see the same y."""
        h_y = _tanh(self.y1(y[:, None]))  # (R, 10, B, M)
        h = _tanh(self._join(h_y, WIDTH) + self._of_x(x))
        h = _tanh(self.skip1(h)) + h
        h = _tanh(self.skip2(h)) + h
        return self.last(h).squeeze(1)

    def value_and_slope(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and df/dy, each (R, B, M), by forward differentiation: cheaper than backward in one dimension."""
        h = _tanh(self.y1(y[:, None]))
        slope = (1 - h * h) * self.y1.weight.unsqueeze(-1)
        t = _tanh(self._join(h, WIDTH) + self._of_x(x))
        h, slope = t, (1 - t * t) * self._join(slope, WIDTH)
        for layer in (self.skip1, self.skip2):
            t = _tanh(layer(h))
            h, slope = h + t, slope + (1 - t * t) * layer.linear(slope)
        return self.last(h).squeeze(1), self.last.linear(slope).squeeze(1)

    def _of_x(self, x: Tensor) -> Tensor:
        """Return the part of x in the joining layer, its bias included: (R, 10, B, 1)."""
        h_x = self.x2(self.x1(x[:, None, :, None]).relu()).relu()
        return self._join(h_x, 0) + self.join.bias.unsqueeze(-1)

    def _join(self, h: Tensor, first: int) -> Tensor:
        """Return the part of the joining layer whose inputs from number `first` on are h, without copies of x."""
        weight = self.join.weight[:, :, first : first + WIDTH]
        return torch.bmm(weight, h.flatten(2)).unflatten(2, h.shape[2:])


class ManyGaussians(nn.Module):
    """R networks for mean and log variance: the direct baseline of ECCV 2020 (supplement B)."""

    def __init__(self, runs: int, generator: Generator) -> None:
        super().__init__()
        self.x1 = ManyLinear(runs, 1, WIDTH, generator)
        self.x2 = ManyLinear(runs, WIDTH, WIDTH, generator)
        self.mean = self._head(runs, generator)
        self.log_var = self._head(runs, generator)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log N(y; mean(x), var(x)) + const (R, B, M) for x (R, B) and y (R, B, M) or (R, 1, M)."""
        h = self.x2(self.x1(x[:, None, :, None]).relu()).relu()
        mean, log_var = self.mean(h).squeeze(1), self.log_var(h).squeeze(1)  # (R, B, 1)
        return -0.5 * ((y - mean).square() * (-log_var).exp() + log_var)

    @staticmethod
    def _head(runs: int, generator: Generator) -> nn.Sequential:
        """Return three layers, 10 -> 10 -> 10 -> 1."""
        layers = [ManyLinear(runs, WIDTH, outputs, generator) for outputs in (WIDTH, WIDTH, 1)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def method_of(name: str, datasets: Sequence[int]) -> Callable[..., Tensor]:
    """Return the method of this name for runs on these data sets, (net, x, y, M, generator) -> losses (R, B)."""
    if name == "dsm":
        return partial(_dsm, sigma=torch.tensor([DSM_SIGMA[dataset] for dataset in datasets]))
    return METHODS[name]


# Methods: (net, x (R, B), y (R, B), M, generator) -> losses (R, B). Settings: BMVC 2020, supplement B.4


@lru_cache(maxsize=32)
def _mixture(sigmas: tuple[float, ...], device: torch.device) -> GaussianMixture:
    """Return the mixture of these widths in one dimension, built once."""
    return GaussianMixture.isotropic(sigmas, device=device)


def _ml_is(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """Return the loss ML-IS, sigma = (0.2, 1.6)."""
    q = _mixture((0.2, 1.6), x.device)
    offsets, log_q = nce_plus_samples(q, (len(x),), M, 0.0, generator)  # index 0: the label
    f = net(x, y[..., None] + offsets.transpose(1, 2))
    return losses.ml_is(f[..., 1:], log_q[:, None, 1:], f[..., 0], reduction="none")


def _kld_is(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """Return the loss KLD-IS, sigma = (0.2, 1.6) and 0.025."""
    q, p = _mixture((0.2, 1.6), x.device), _mixture((0.025,), x.device)
    offsets = q.sample((len(x), M), generator)
    f = net(x, y[..., None] + offsets.transpose(1, 2))
    log_q, log_p = q.log_prob(offsets)[:, None], p.log_prob(offsets)[:, None]
    return losses.kld_is(f, log_q, log_p, reduction="none")


def nce_losses(beta: float, sigmas: tuple[float, ...] = (0.1, 0.8)) -> Callable[..., Tensor]:
    """Return the losses NCE (beta = 0) and NCE+."""

    def per_example(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        q = _mixture(sigmas, x.device)
        offsets, log_q = nce_plus_samples(q, (len(x),), M, beta, generator)
        f = net(x, y[..., None] + offsets.transpose(1, 2))
        return losses.nce_plus(f, log_q[:, None], reduction="none")

    return per_example


class _InY:
    """The energies as functions of y (R, B, M, 1), with their gradient."""

    def __init__(self, net: ManyEnergies, x: Tensor) -> None:
        self._net, self._x = net, x

    def __call__(self, y: Tensor) -> Tensor:
        return self._net(self._x, y.squeeze(-1))

    @torch.no_grad()
    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return f (R, B, M) and its gradient (R, B, M, 1), detached."""
        f, slope = self._net.value_and_slope(self._x, y.squeeze(-1))
        return f, slope.unsqueeze(-1)

    def gradient(self, y: Tensor) -> Tensor:
        """Return the gradient (R, B, M, 1), differentiable in the weights."""
        return self._net.value_and_slope(self._x, y.squeeze(-1))[1].unsqueeze(-1)


def _ml_mcmc(steps: int) -> Callable[..., Tensor]:
    """Return the loss ML-MCMC with alpha = 0.05 and `steps` Langevin steps; every example has its own chains."""

    def per_example(net: ManyEnergies, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        start = y[..., None, None].expand(*y.shape, M, 1)
        samples = losses.langevin(_InY(net, x), start, 0.05, steps, generator)
        f = net(x, torch.cat([y[..., None], samples.squeeze(-1)], dim=-1))
        return losses.ml_mcmc(f[..., 1:], f[..., 0], reduction="none")

    return per_example


def _sm(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """Return the loss SM."""
    return losses.score_matching(lambda v: net(x, v).squeeze(-1), y[..., None], reduction="none")


def _dsm(net: ManyEnergies, x: Tensor, y: Tensor, M: int, generator: Generator, sigma: float | Tensor = 0.2) -> Tensor:
    """Return the loss DSM; every example has noise of its own (authors' code).

    Its width `sigma` is a number, or one for each run (R,).
    """
    sigma = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).view(-1, 1, 1, 1)
    label = y[..., None]
    noise = torch.randn(*y.shape, M, 1, generator=generator, device=y.device, dtype=y.dtype)
    return losses.denoising_score_matching(
        _InY(net, x), label, label[..., None] + sigma * noise, sigma, reduction="none"
    )


def _gaussian(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """Return the negative log likelihood (ECCV 2020, supplement, eq. S2)."""
    return -2 * net(x, y[..., None]).squeeze(-1)


METHODS: dict[str, Callable[..., Tensor]] = {
    "ml-is": _ml_is,
    "kld-is": _kld_is,
    "nce": nce_losses(0.0),
    "nce+": nce_losses(0.025),
    "dsm": _dsm,
    "sm": _sm,
    "gaussian": _gaussian,
    "ml-mcmc-1": _ml_mcmc(1),
    "ml-mcmc-16": _ml_mcmc(16),
    "ml-mcmc-256": _ml_mcmc(256),
}
DSM_SIGMA = {1: 0.2, 2: 0.075}  # by data set: the authors' code; the supplement says 0.2 for both
FIGURE_2 = ("ml-is", "kld-is", "nce", "nce+")
NO_SAMPLES = ("sm", "gaussian")
LONG = ("ml-mcmc-16", "ml-mcmc-256")  # hours and days on a CPU
UNCOMPILED = ("sm", "gaussian")  # SM differentiates twice, which compiled networks cannot; the Gaussian is quick
