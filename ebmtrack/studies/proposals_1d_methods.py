"""Data, networks and losses of the 1D experiments with learned proposals (Paper IV); axis 0 is the run.

Sources of numbers: the released code `fregu856/ebms_proposals`, as far as no paper is named.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ebmtrack.energy.proposals import MixtureDensity, energy_nce, nce_and_kl, proposal_with_teacher
from ebmtrack.studies.energy_1d_methods import WIDTH, ManyLinear, StudyCell, StudySettings, make_data, nce_losses

COMPONENTS = (1, 4, 16)
METHODS = ("fixed", *(f"{kind}-k{K}" for kind in ("learned", "mdn", "teacher") for K in COMPONENTS))
SIGMAS = {1: (0.1, 0.8), 2: (0.4, 3.2)}  # fixed noise of the two experiments
Y_RANGE = (-12.5, 12.5)  # experiment 2's grid
WITHOUT_SAMPLES = tuple(name for name in METHODS if name.startswith("mdn"))


def components_of(method: str) -> int:
    """Return K of a method such as learned-k4; 0 for fixed noise."""
    return int(method.rpartition("-k")[2]) if "-k" in method else 0


# Data


@lru_cache(maxsize=1)
def heterogeneous_data() -> dict[str, tuple[Tensor, Tensor]]:
    """Return experiment 2's examples x, y: 1710 for "train", 190 for "validation", 1900 for "test".

    Four zones of x in [0, 1]: asymmetric, symmetric, uniform, multimodal (Brando et al. 2019). The numbers are those
    of the released code to the bit: numpy's legacy generator with seed 41, in this order.

    >>> x, y = heterogeneous_data()["test"]
    >>> len(x), len(heterogeneous_data()["train"][0])
    (1900, 1710)
    """
    rng = np.random.RandomState(41)
    asymmetric = 5 * rng.beta(0.5, 1, size=800) + 0.5
    rng.shuffle(asymmetric)
    centre = 3 * np.cos(np.linspace(0, 5, num=1000)) - 2
    symmetric = centre + rng.normal(0, np.abs(centre / 4), 1000)
    uniform = rng.uniform(np.linspace(-2, -4.5, num=500), np.linspace(-0.5, 9.0, num=500))
    parts = [8 + rng.uniform(size=500) * 0.5, 1 + rng.uniform(size=500) * 3.0, -4.5 + rng.uniform(size=500) * 1.5]
    multimodal = np.concatenate(parts)
    rng.shuffle(multimodal)
    y = np.concatenate([asymmetric, symmetric, uniform, multimodal])
    x, order = np.arange(3800) / 3799, np.arange(3800)
    rng.shuffle(order)
    rows = {"test": order[:1900], "validation": order[1900:2090], "train": order[2090:]}
    return {part: tuple(torch.from_numpy(v[i]).float() for v in (x, y)) for part, i in rows.items()}  # type: ignore[misc]


def training_data(dataset: int, settings: StudySettings) -> tuple[Tensor, Tensor]:
    """Return the training examples of experiment 1 (BMVC's first data set) or 2, the same for all runs."""
    if dataset == 1:
        return make_data(1, settings.examples, settings.seed)
    x, y = heterogeneous_data()["train"]
    return x[: settings.examples], y[: settings.examples]


# Networks


class ManyRows(nn.Sequential):
    """R stacks of 1 -> 10 -> 10 with ReLU after each layer: (R, 1, ...) -> (R, 10, ...)."""

    def __init__(self, runs: int, generator: Generator) -> None:
        layers = [ManyLinear(runs, inputs, WIDTH, generator) for inputs in (1, WIDTH)]
        super().__init__(layers[0], nn.ReLU(), layers[1], nn.ReLU())


class ManyReluEnergies(nn.Module):
    """R energies f(x, y) of Paper IV: two ReLU layers for x and for y each, a joining layer, one skip, one output."""

    def __init__(self, runs: int, generator: Generator) -> None:
        super().__init__()
        self.x = ManyRows(runs, generator)
        self.y = ManyRows(runs, generator)
        self.join = ManyLinear(runs, 2 * WIDTH, WIDTH, generator)
        self.skip = ManyLinear(runs, WIDTH, WIDTH, generator)
        self.last = ManyLinear(runs, WIDTH, 1, generator)

    def features(self, x: Tensor) -> Tensor:
        """Return features (R, 10, B) of x (R, B)."""
        return self.x(x.unsqueeze(1))

    def score(self, g: Tensor, y: Tensor) -> Tensor:
        """Return f (R, B, M) for features g (R, 10, B) and y (R, B, M), or (R, 1, M) if all x see the same y."""
        of_x, of_y = self.join.weight.split(WIDTH, dim=2)
        g = torch.baddbmm(self.join.bias, of_x, g).unsqueeze(-1)  # (R, 10, B, 1)
        h_y = self.y(y.unsqueeze(1))
        h = (torch.bmm(of_y, h_y.flatten(2)).unflatten(2, h_y.shape[2:]) + g).relu()
        return self.last(self.skip(h).relu() + h).squeeze(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return f (R, B, M) for x (R, B); see `score`."""
        return self.score(self.features(x), y)


class ManyMixtures(nn.Module):
    """R heads, 10 -> 10 -> K each, for means, log variances and logits of mixtures over one dimension."""

    def __init__(self, runs: int, components: int, generator: Generator) -> None:
        super().__init__()
        self.means, self.log_var, self.logits = (self._head(runs, components, generator) for _ in range(3))

    def forward(self, g: Tensor) -> MixtureDensity:
        """Return the mixtures (R, B, ...) for features (R, 10, B)."""
        means, log_var, logits = (head(g).transpose(1, 2) for head in (self.means, self.log_var, self.logits))
        return MixtureDensity(logits, means.unsqueeze(-1), log_var.unsqueeze(-1))

    @staticmethod
    def _head(runs: int, components: int, generator: Generator) -> nn.Sequential:
        layers = [ManyLinear(runs, WIDTH, outputs, generator) for outputs in (WIDTH, components)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1])


class ManyProposed(nn.Module):
    """R energies that learn proposals, which see the energies' features without gradient; judged is the energy."""

    def __init__(self, runs: int, components: int, generator: Generator) -> None:
        super().__init__()
        self.energy = ManyReluEnergies(runs, generator)
        self.heads = ManyMixtures(runs, components, generator)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return f (R, B, M) as `ManyReluEnergies` does."""
        return self.energy(x, y)

    def loss(self, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        """Return J_NCE + J_KL (R, B)."""
        g = self.energy.features(x)
        y, log_q = _label_and_samples(self.heads(g.detach()), y, M, generator)
        return nce_and_kl(self.energy.score(g, y), log_q, reduction="none")


class ManyMDNs(nn.Module):
    """R mixture density networks with features of their own; judged is log q. With a teacher: an energy beside each."""

    def __init__(self, runs: int, components: int, generator: Generator, teacher: bool = False) -> None:
        super().__init__()
        self.x = ManyRows(runs, generator)
        self.heads = ManyMixtures(runs, components, generator)
        self.energy = ManyReluEnergies(runs, generator) if teacher else None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log q (R, B, M) of y (R, B, M), or (R, 1, M) if all x see the same y."""
        return self.heads(self.x(x.unsqueeze(1))).log_prob(y.unsqueeze(-1))

    def loss(self, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        """Return J_NLL, or with a teacher J_NCE + (J_KL + J_NLL) / 2: (R, B).

        The released code steps the energy first and lets the mixture learn from its scores after that step; here both
        take their step on the same scores.
        """
        q = self.heads(self.x(x.unsqueeze(1)))
        if self.energy is None:
            return -q.log_prob(y[..., None, None]).squeeze(-1)
        y, log_q = _label_and_samples(q, y, M, generator)
        f = self.energy(x, y)
        return energy_nce(f, log_q, reduction="none") + proposal_with_teacher(f, log_q, 0.5, reduction="none")


def _label_and_samples(q: MixtureDensity, y: Tensor, M: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return y_0 .. y_M (R, B, 1 + M), the labels y (R, B) first, and their log q."""
    samples = torch.cat([y[..., None, None], q.sample(M, generator)], dim=-2)
    return samples.squeeze(-1), q.log_prob(samples)


class ManyFixed(ManyReluEnergies):
    """R energies trained by NCE with fixed noise around the label, drawn once for a batch."""

    sigmas: tuple[float, ...] = ()

    def loss(self, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        """Return J_NCE (R, B)."""
        return nce_losses(0.0, self.sigmas)(self, x, y, M, generator)


def build(cell: StudyCell, runs: int, generator: Generator) -> nn.Module:
    """Return `runs` networks of a method as one batched module."""
    kind, K = cell.method.partition("-")[0], components_of(cell.method)
    if kind == "fixed":
        return ManyFixed(runs, generator)
    return ManyProposed(runs, K, generator) if kind == "learned" else ManyMDNs(runs, K, generator, kind == "teacher")


def negative_log_likelihood(net: nn.Module, runs: int, points: int, chunk: int = 1 << 19) -> Tensor:
    """Return the test NLL (R,) of experiment 2, at most `chunk` scores at a time.

    log Z is a sum over `points` points of [-12.5, 12.5] times range / points, as in the released code.
    """
    x, y = (v.expand(runs, -1) for v in heterogeneous_data()["test"])
    axis, log_step = torch.linspace(*Y_RANGE, points), np.log((Y_RANGE[1] - Y_RANGE[0]) / points)
    total = torch.zeros(runs)
    with torch.no_grad():
        for rows in torch.arange(x.shape[1]).split(max(1, chunk // (points * runs))):
            log_z = torch.logsumexp(net(x[:, rows], axis.expand(runs, 1, points)), dim=-1) + log_step
            total += (log_z - net(x[:, rows], y[:, rows, None]).squeeze(-1)).sum(dim=1)
    return total / x.shape[1]
