"""The methods of regression: heads on the image's features, their losses and their answers.

Targets are z here, in the units of `RegressionConfig.scale`. Losses: ECCV 2020, supplement E and F; Paper IV.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss

from ebmtrack.energy import losses
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.energy.proposals import MixtureDensity, energy_nce, nce_and_kl, proposal_with_teacher
from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name
from ebmtrack.regression.answers import Prediction, by_grid, by_importance, even_grid, of_mixture, of_samples
from ebmtrack.regression.networks import FeatureEnergy, make_trunk, two_layers

GRID = {1: 1024, 2: 64**2, 3: 30**3}  # cells by dimension (Paper IV: 30^3 for head poses)


@dataclasses.dataclass(frozen=True)
class RegressionConfig:
    """The configuration of a regression network; a weights file holds it.

    Attributes:
        method: name in METHODS.
        targets: names of the D numbers that are regressed.
        trunk: backbone, a name in `networks.TRUNKS`.
        image_size: side of the images in pixels.
        low: least value of each number, for grids and classes.
        high: greatest value of each number.
        shift: the value that is subtracted from each number; 0 in the papers.
        scale: the value by which each number is divided afterwards; 1 in the papers.
        sigmas: widths of the fixed noise, in units of `scale`.
        beta: width of NCE+'s noise around the label, in parts of these.
        components: components K of learned mixtures.
        noise: samples M for each label.
        classes: classes of a softmax, from low to high.
        warm_up: steps in which an MDN with teacher learns from the labels alone.
        step: length of a step of refinement (Algorithm S2), in squared units of the numbers; 0 if not chosen.
    """

    method: str = "proposal"
    targets: tuple[str, ...] = ("y",)
    trunk: str = "resnet18"
    image_size: int = 64
    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    sigmas: tuple[float, ...] = (0.1, 0.8)
    beta: float = 0.1
    components: int = 4
    noise: int = 1024
    classes: int = 101
    warm_up: int = 0
    step: float = 0.0

    def __post_init__(self) -> None:
        D = len(self.targets)
        if D not in GRID or any(len(v) != D for v in (self.low, self.high, self.shift, self.scale)):
            raise ConfigError(f"targets, low, high, shift and scale need one value for each of 1 to 3 numbers: {self}")
        if any(a >= b for a, b in zip(self.low, self.high)) or min(self.scale) <= 0:
            raise ConfigError(f"low must be below high and scale positive, got {self.low}, {self.high}, {self.scale}")

    @property
    def dims(self) -> int:
        """Return D, how many numbers are regressed."""
        return len(self.targets)


class Head(nn.Module):
    """The part of a network above the image's features g (B, H), with its loss; abstract."""

    def __init__(self, config: RegressionConfig, features: int):
        super().__init__()
        self.config = config

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the losses (B,) of labels z (B, D); images are normalised ones, for methods with a second trunk."""
        raise NotImplementedError

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the answers for features g (B, H)."""
        raise NotImplementedError

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return least and greatest z (D,)."""
        c = self.config
        shift, scale = like.new_tensor(c.shift), like.new_tensor(c.scale)
        return (like.new_tensor(c.low) - shift) / scale, (like.new_tensor(c.high) - shift) / scale


class DirectHead(Head):
    """Numbers without a density, by squared error or Huber's loss."""

    def __init__(self, config: RegressionConfig, features: int, huber: bool = False):
        super().__init__(config, features)
        self.mean, self.huber = two_layers(features, config.dims), huber

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the losses."""
        if self.huber:
            return huber_loss(self.mean(g), z, reduction="none").sum(dim=-1)
        return (self.mean(g) - z).square().sum(dim=-1)

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the numbers alone."""
        return Prediction(self.mean(g))


class MixtureHead(Head):
    """A mixture density network: K Gaussians over D dimensions; K = 1 is the papers' Gaussian."""

    def __init__(self, config: RegressionConfig, features: int, components: int | None = None):
        super().__init__(config, features)
        K = components or config.components
        self.means, self.log_var = (two_layers(features, config.dims * K) for _ in range(2))
        self.logits = two_layers(features, K)

    def density(self, g: Tensor) -> MixtureDensity:
        """Return q of each image."""
        return MixtureDensity.from_heads(self.logits(g), self.means(g), self.log_var(g))

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return -log q of the labels."""
        return -self.density(g).log_prob(z.unsqueeze(1)).squeeze(1)

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the mixture's mean and samples."""
        return of_mixture(self.density(g), num_samples, generator)


class LaplaceHead(Head):
    """Laplace's density; for D > 1 that with elliptic contours of ECCV 2020, eq. S9, whose beta has squared units."""

    def __init__(self, config: RegressionConfig, features: int):
        super().__init__(config, features)
        self.mean, self.log_beta = (two_layers(features, config.dims) for _ in range(2))

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the loss of the supplement: the NLL (D = 1), or twice the NLL (eq. S10), without a constant."""
        return laplace_loss(z, self.mean(g), self.log_beta(g))

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return mean and samples: a radius of Gamma(D) in a random direction, stretched by beta."""
        mean, log_beta, D = self.mean(g), self.log_beta(g), self.config.dims
        shape = (len(g), num_samples, D)
        direction = torch.randn(shape, generator=generator, device=g.device)
        uniform = torch.rand(shape, generator=generator, device=g.device)  # [0, 1): log(0) would be an infinite radius
        radius = -torch.log1p(-uniform).sum(dim=-1, keepdim=True)
        factor = 1.0 if D == 1 else 2 * torch.exp(-0.5 * log_beta).unsqueeze(1)
        stretch = torch.exp(log_beta).unsqueeze(1) * factor
        samples = mean.unsqueeze(1) + stretch * radius * direction / direction.norm(dim=-1, keepdim=True)
        surface = 2 * math.pi ** (D / 2) / math.gamma(D / 2)
        constant = math.log(surface * math.gamma(D) * (1 if D == 1 else 2**D))
        part = 1.0 if D == 1 else 0.5
        log_prob = lambda y: -part * laplace_loss(y, mean.unsqueeze(1), log_beta.unsqueeze(1)) - constant  # noqa: E731
        return of_samples(mean, samples, log_prob)


def laplace_loss(z: Tensor, mean: Tensor, log_beta: Tensor) -> Tensor:
    """Return |z - mean| / beta + log beta if D = 1, else sqrt(sum (z - mean)^2 / beta) + sum log beta: (...)."""
    if z.shape[-1] == 1:
        return ((z - mean).abs() * torch.exp(-log_beta) + log_beta).squeeze(-1)
    squares = ((z - mean).square() * torch.exp(-log_beta)).sum(dim=-1)
    return squares.clamp(min=1e-12).sqrt() + log_beta.sum(dim=-1)


class SoftmaxHead(Head):
    """Classes over the range of each number: cross entropy + 0.1 squared error of the mean (+ 0.05 variance)."""

    def __init__(self, config: RegressionConfig, features: int, variance: float = 0.0):
        super().__init__(config, features)
        self.logits = nn.ModuleList(two_layers(features, config.classes) for _ in config.targets)
        self.variance = variance

    def values(self, like: Tensor) -> Tensor:
        """Return the classes' values (C, D)."""
        low, high = self._range(like)
        return low + (high - low) * torch.linspace(0, 1, self.config.classes, device=like.device).unsqueeze(-1)

    def log_p(self, g: Tensor) -> Tensor:
        """Return log probabilities (B, C, D)."""
        return torch.stack([logits(g) for logits in self.logits], dim=-1).log_softmax(dim=1)

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the loss, summed over numbers; errors and variances are in classes."""
        log_p, values = self.log_p(g), self.values(g)
        width = values[1] - values[0]
        mean = (log_p.exp() * values).sum(dim=1)
        entropy = cross_entropy(log_p, self.class_of(z), reduction="none")
        loss = entropy + 0.1 * ((mean - z) / width).square()
        if self.variance:
            squares = ((values - mean.unsqueeze(1)) / width).square()
            loss = loss + self.variance * (log_p.exp() * squares).sum(dim=1)
        return loss.sum(dim=-1)

    def class_of(self, z: Tensor) -> Tensor:
        """Return the nearest class of each number."""
        low, high = self._range(z)
        return ((z - low) / (high - low) * (self.config.classes - 1)).round().long().clamp(0, self.config.classes - 1)

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the mean, and the density that is even within each class."""
        log_p, values = self.log_p(g), self.values(g)
        width, (B, C, D) = values[1] - values[0], log_p.shape
        flat = log_p.exp().transpose(1, 2).reshape(B * D, C)
        index = torch.multinomial(flat, num_samples, True, generator=generator).view(B, D, -1).transpose(1, 2)
        jitter = torch.rand(index.shape, generator=generator, device=g.device) - 0.5
        samples = values.unsqueeze(0).expand(B, C, D).gather(1, index) + width * jitter

        def log_prob(y: Tensor) -> Tensor:
            return (log_p.gather(1, self.class_of(y).expand(B, -1, -1)) - width.log()).sum(dim=-1)

        return of_samples((log_p.exp() * values).sum(dim=1), samples, log_prob)


class EnergyHead(Head):
    """An energy trained with fixed noise around the label, by one of the losses of `energy.losses`."""

    smooth_losses = ("sm", "dsm", "ml-mcmc")

    def __init__(self, config: RegressionConfig, features: int, loss: str = "nce"):
        super().__init__(config, features)
        self.energy = FeatureEnergy(features, config.dims, loss in self.smooth_losses)
        self.kind = loss

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the losses."""
        return ENERGY_LOSSES[self.kind](self, g, z, generator)

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the answers by a sum over an even grid from `low` to `high`."""
        points, volume = even_grid(*self._range(g), GRID[self.config.dims])
        return by_grid(lambda y: self.energy(g, y), points, volume)


def _noise_of(head: EnergyHead, z: Tensor, beta: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return y_0 .. y_M (B, 1 + M, D) and log q (B, 1 + M); the noise is made on the CPU, the same on each device."""
    q = GaussianMixture.isotropic(head.config.sigmas, head.config.dims)
    offsets, log_q = nce_plus_samples(q, (len(z),), head.config.noise, beta, generator)
    return z.unsqueeze(1) + offsets.to(z), log_q.to(z)


def _nce(plus: bool) -> Callable[[EnergyHead, Tensor, Tensor, Generator], Tensor]:
    """Return the loss NCE, or NCE+ with the noise `beta` around the label."""

    def per_example(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
        y, log_q = _noise_of(head, z, head.config.beta if plus else 0.0, generator)
        return losses.nce_plus(head.energy(g, y), log_q, reduction="none")

    return per_example


def _ml_is(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
    """Return the losses (B,) of ML-IS."""
    y, log_q = _noise_of(head, z, 0.0, generator)
    f = head.energy(g, y)
    return losses.ml_is(f[:, 1:], log_q[:, 1:], f[:, 0], reduction="none")


def _kld_is(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
    """Return those of KLD-IS; the labels' own noise is an eighth of the narrow width (BMVC 2020, 1D experiments)."""
    y, log_q = _noise_of(head, z, 0.0, generator)
    own = GaussianMixture.isotropic((head.config.sigmas[0] / 8,), head.config.dims).to(z.device)
    log_p = own.log_prob(y - z.unsqueeze(1))
    return losses.kld_is(head.energy(g, y)[:, 1:], log_q[:, 1:], log_p[:, 1:], reduction="none")


def _sm(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
    """Return those of score matching."""
    return losses.score_matching(lambda y: head.energy(g, y), z.unsqueeze(1), reduction="none").squeeze(1)


def _dsm(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
    """Return those of denoising score matching; the width is twice the narrow one (BMVC 2020, 1D: 0.2 beside 0.1)."""
    sigma, M = min(head.config.sigmas[-1], 2 * head.config.sigmas[0]), min(head.config.noise, 64)
    noisy = z.unsqueeze(1) + sigma * torch.randn((len(z), M, z.shape[1]), generator=generator).to(z)
    return losses.denoising_score_matching(lambda y: head.energy(g, y), z, noisy, sigma, reduction="none")


def _ml_mcmc(head: EnergyHead, g: Tensor, z: Tensor, generator: Generator) -> Tensor:
    """Return those of ML-MCMC: 16 Langevin steps, half the narrow width each, from the label."""
    M = min(head.config.noise, 64)
    start = z.unsqueeze(1).expand(-1, M, -1)
    walk = generator_on(z.device, generator)
    samples = losses.langevin(lambda y: head.energy(g, y), start, 0.5 * head.config.sigmas[0], 16, walk)
    f = head.energy(g, torch.cat([z.unsqueeze(1), samples], dim=1))
    return losses.ml_mcmc(f[:, 1:], f[:, 0], reduction="none")


ENERGY_LOSSES: dict[str, Callable[[EnergyHead, Tensor, Tensor, Generator], Tensor]] = {
    "nce": _nce(False),
    "nce+": _nce(True),
    "ml-is": _ml_is,
    "kld-is": _kld_is,
    "sm": _sm,
    "dsm": _dsm,
    "ml-mcmc": _ml_mcmc,
}


class ProposalHead(Head):
    """An energy with a learned proposal, J_NCE + J_KL; the proposal does not train the backbone (`ebmdn4`)."""

    def __init__(self, config: RegressionConfig, features: int):
        super().__init__(config, features)
        self.energy = FeatureEnergy(features, config.dims)
        self.proposal = MixtureHead(config, features)

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return J_NCE + J_KL."""
        y, log_q = label_and_samples(self.proposal.density(g.detach()), z, self.config.noise, generator)
        return nce_and_kl(self.energy(g, y), log_q, reduction="none")

    def answer(self, g: Tensor, num_samples: int, generator: Generator | None) -> Prediction:
        """Return the energy's answers by importance sampling with the proposal."""
        q = self.proposal.density(g)
        y = q.sample(num_samples, generator)
        return by_importance(lambda y: self.energy(g, y), y, q.log_prob(y))


class TeacherHead(MixtureHead):
    """An MDN whose teacher is an energy with a backbone of its own: (J_KL + J_NLL) / 2 beside J_NCE (`ebmdn3`)."""

    def __init__(self, config: RegressionConfig, features: int):
        super().__init__(config, features)
        self.teacher_trunk = make_trunk(config.trunk)
        self.teacher = FeatureEnergy(features, config.dims)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def loss(self, g: Tensor, z: Tensor, images: Tensor, generator: Generator) -> Tensor:
        """Return the sum of both networks' losses; the MDN learns from labels alone for the first `warm_up` steps."""
        y, log_q = label_and_samples(self.density(g), z, self.config.noise, generator)
        weight = 0.0 if int(self.seen) < self.config.warm_up else 0.5
        self.seen += self.training
        f = self.teacher(self.teacher_trunk(images), y)
        return energy_nce(f, log_q, reduction="none") + proposal_with_teacher(f, log_q, weight, reduction="none")


def label_and_samples(q: MixtureDensity, z: Tensor, M: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return y_0 .. y_M (B, 1 + M, D), the labels z (B, D) first, and their log q (B, 1 + M)."""
    y = torch.cat([z.unsqueeze(1), q.sample(M, generator_on(z.device, generator))], dim=1)
    return y, q.log_prob(y)


def generator_on(device: torch.device, generator: Generator) -> Generator:
    """Return a step's generator, or on a GPU one with its seed."""
    return generator if device.type == "cpu" else Generator(device).manual_seed(generator.initial_seed())


METHODS: dict[str, Callable[[RegressionConfig, int], Head]] = {
    "l2": DirectHead,
    "huber": lambda config, features: DirectHead(config, features, huber=True),
    "gaussian": lambda config, features: MixtureHead(config, features, 1),
    "laplace": LaplaceHead,
    "softmax": SoftmaxHead,
    "softmax-variance": lambda config, features: SoftmaxHead(config, features, 0.05),
    "mdn": MixtureHead,
    **{f"energy-{name}": partial(EnergyHead, loss=name) for name in ENERGY_LOSSES},
    "proposal": ProposalHead,
    "teacher": TeacherHead,
}


def make_head(config: RegressionConfig, features: int) -> Head:
    """Return the head of the config's method; ConfigError for an unknown one."""
    return METHODS[check_name("method of regression", config.method, METHODS)](config, features)
