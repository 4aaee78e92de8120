"""The 1D study of BMVC 2020 (Table 1, Figure 2): seven ways to train an energy, and a Gaussian, on two data
sets.

Many runs train at once as one batched network: axis 0 of every tensor is the run. Finished runs are kept in
JSON files, so a killed study goes on where it stopped. Two things the paper leaves open: all runs see the
same 2,000 examples of each data set, and the 16 examples that fill no batch of 32 are left out, others in
every epoch. As in the authors' code, the noise is drawn once per batch and shared by its examples.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.energy import losses
from ebmtrack.energy.density import kl_divergence_grid
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError, ResultError

LOW, HIGH = -3.0, 3.0  # both x and y: BMVC 2020, supplement B.3
WIDTH = 10  # units per layer: BMVC 2020, supplement B.2


@dataclass(frozen=True)
class StudySettings:
    """What all runs share; the defaults are the paper's (BMVC 2020, supplement B)."""

    epochs: int = 75
    batch: int = 32
    examples: int = 2000
    learning_rate: float = 1e-3
    grid: int = 2048  # points per axis of the grid on which D_KL is computed
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One entry of the study: a method with M samples. M is 0 for methods that draw none."""

    method: str
    samples: int


# Data


def log_density(dataset: int, x: Tensor, y: Tensor) -> Tensor:
    """log p(y|x) of data set 1 or 2, for broadcastable x and y. Source: BMVC 2020, supplement B.1."""
    if dataset == 2:
        return _log_normal(y, x.sin(), 0.15 * torch.sigmoid(x))
    two = torch.logaddexp(
        math.log(0.8) + _log_normal(y, x.sin(), 0.075), math.log(0.2) + _log_normal(y, -x.sin(), 0.075)
    )
    z = (y + 1).clamp(min=1e-30).log()  # y + 1 is lognormal
    return torch.where(x < 0, two, torch.where(y > -1, _log_normal(z, 0.0, 0.25) - z, -torch.inf))


def make_data(dataset: int, number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`number` examples x, y (number,) of data set 1 or 2, x uniform on [-3, 3]; float32, on the CPU."""
    generator = Generator().manual_seed(_seed(seed, "data", dataset))
    x = LOW + (HIGH - LOW) * torch.rand(number, generator=generator)
    z = torch.randn(number, generator=generator)
    if dataset == 2:
        return x, x.sin() + 0.15 * torch.sigmoid(x) * z
    sign = torch.where(torch.rand(number, generator=generator) < 0.8, 1.0, -1.0)
    return x, torch.where(x < 0, sign * x.sin() + 0.075 * z, (0.25 * z).exp() - 1)


def _log_normal(y: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """log N(y; mean, std^2)."""
    std = torch.as_tensor(std, dtype=y.dtype, device=y.device)
    return -0.5 * ((y - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def _seed(*parts: object) -> int:
    """A seed made of words and numbers, the same on every machine."""
    return zlib.crc32("/".join(str(part) for part in parts).encode())


# Networks, R at once: features have the shape (R, channels, ...)


class ManyLinear(nn.Module):
    """R linear layers side by side, initialised as torch.nn.Linear: (R, inputs, ...) -> (R, outputs, ...)."""

    def __init__(self, runs: int, inputs: int, outputs: int, generator: Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        options = {"generator": generator, "device": generator.device}
        self.weight = nn.Parameter(bound * (2 * torch.rand(runs, outputs, inputs, **options) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(runs, outputs, 1, **options) - 1))

    def forward(self, h: Tensor) -> Tensor:
        """Run r's layer applied to h[r]."""
        return torch.baddbmm(self.bias, self.weight, h.flatten(2)).unflatten(2, h.shape[2:])

    def linear(self, h: Tensor) -> Tensor:
        """The same without the bias."""
        return torch.bmm(self.weight, h.flatten(2)).unflatten(2, h.shape[2:])


def _tanh(h: Tensor) -> Tensor:
    """tanh, through the sigmoid: six times as fast on a CPU, and wrong by at most 2e-7."""
    return torch.sigmoid(2 * h).mul(2).sub(1)


class ManyEnergies(nn.Module):
    """R energies f(x, y) of the paper's layout (BMVC 2020, supplement B.2), with ReLU for x and tanh with
    y."""

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
        """f (R, B, M) for x (R, B) and y (R, B, M), or (R, 1, M) where all x see the same y."""
        h_y = _tanh(self.y1(y[:, None]))  # (R, 10, B, M)
        h = _tanh(self._join(h_y, WIDTH) + self._of_x(x))
        h = _tanh(self.skip1(h)) + h
        h = _tanh(self.skip2(h)) + h
        return self.last(h).squeeze(1)

    def value_and_slope(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """f and df/dy, each (R, B, M), by the chain rule carried forward: cheaper than a backward pass in one
        dimension."""
        h = _tanh(self.y1(y[:, None]))
        slope = (1 - h * h) * self.y1.weight.unsqueeze(-1)
        t = _tanh(self._join(h, WIDTH) + self._of_x(x))
        h, slope = t, (1 - t * t) * self._join(slope, WIDTH)
        for layer in (self.skip1, self.skip2):
            t = _tanh(layer(h))
            h, slope = h + t, slope + (1 - t * t) * layer.linear(slope)
        return self.last(h).squeeze(1), self.last.linear(slope).squeeze(1)

    def _of_x(self, x: Tensor) -> Tensor:
        """What x adds to the joining layer, its bias included: (R, 10, B, 1)."""
        h_x = self.x2(self.x1(x[:, None, :, None]).relu()).relu()
        return self._join(h_x, 0) + self.join.bias.unsqueeze(-1)

    def _join(self, h: Tensor, first: int) -> Tensor:
        """The part of the joining layer that reads h as its inputs number `first` and following: no copies of
        x."""
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
        """log N(y; mean(x), var(x)) up to a constant, (R, B, M), for x (R, B) and y (R, B, M) or (R, 1,
        M)."""
        h = self.x2(self.x1(x[:, None, :, None]).relu()).relu()
        mean, log_var = self.mean(h).squeeze(1), self.log_var(h).squeeze(1)  # (R, B, 1)
        return -0.5 * ((y - mean).square() * (-log_var).exp() + log_var)

    @staticmethod
    def _head(runs: int, generator: Generator) -> nn.Sequential:
        """Three layers, 10 -> 10 -> 10 -> 1."""
        layers = [ManyLinear(runs, WIDTH, outputs, generator) for outputs in (WIDTH, WIDTH, 1)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


# Methods: (net, x (R, B), y (R, B), M, generator) -> losses (R, B). Settings: BMVC 2020, supplement B.4


@lru_cache(maxsize=32)
def _mixture(sigmas: tuple[float, ...], device: torch.device) -> GaussianMixture:
    """The mixture of these widths in one dimension, built once."""
    return GaussianMixture.isotropic(sigmas, device=device)


def _ml_is(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """ML-IS, sigma = (0.2, 1.6)."""
    q = _mixture((0.2, 1.6), x.device)
    offsets, log_q = nce_plus_samples(q, (len(x),), M, 0.0, generator)  # index 0: the label
    f = net(x, y[..., None] + offsets.transpose(1, 2))
    return losses.ml_is(f[..., 1:], log_q[:, None, 1:], f[..., 0], reduction="none")


def _kld_is(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """KLD-IS, sigma = (0.2, 1.6) and 0.025."""
    q, p = _mixture((0.2, 1.6), x.device), _mixture((0.025,), x.device)
    offsets = q.sample((len(x), M), generator)
    f = net(x, y[..., None] + offsets.transpose(1, 2))
    log_q, log_p = q.log_prob(offsets)[:, None], p.log_prob(offsets)[:, None]
    return losses.kld_is(f, log_q, log_p, reduction="none")


def _nce(beta: float) -> Callable[..., Tensor]:
    """NCE (beta = 0) and NCE+, sigma = (0.1, 0.8)."""

    def per_example(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        q = _mixture((0.1, 0.8), x.device)
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
        """f (R, B, M) and its gradient (R, B, M, 1), detached."""
        f, slope = self._net.value_and_slope(self._x, y.squeeze(-1))
        return f, slope.unsqueeze(-1)

    def gradient(self, y: Tensor) -> Tensor:
        """The gradient (R, B, M, 1), differentiable in the weights."""
        return self._net.value_and_slope(self._x, y.squeeze(-1))[1].unsqueeze(-1)


def _ml_mcmc(steps: int) -> Callable[..., Tensor]:
    """ML-MCMC with alpha = 0.05 and `steps` Langevin steps; every example has its own chains."""

    def per_example(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
        start = y[..., None, None].expand(*y.shape, M, 1)
        samples = losses.langevin(_InY(net, x), start, 0.05, steps, generator)
        f = net(x, torch.cat([y[..., None], samples.squeeze(-1)], dim=-1))
        return losses.ml_mcmc(f[..., 1:], f[..., 0], reduction="none")

    return per_example


def _sm(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """SM."""
    return losses.score_matching(lambda v: net(x, v).squeeze(-1), y[..., None], reduction="none")


def _dsm(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """DSM, sigma = 0.2."""
    sigma, label = 0.2, y[..., None]
    noisy = label[..., None] + _mixture((sigma,), x.device).sample((len(x), 1, M), generator)
    return losses.denoising_score_matching(_InY(net, x), label, noisy, sigma, reduction="none")


def _gaussian(net: nn.Module, x: Tensor, y: Tensor, M: int, generator: Generator) -> Tensor:
    """Negative log likelihood (ECCV 2020, supplement, eq. S2)."""
    return -2 * net(x, y[..., None]).squeeze(-1)


METHODS: dict[str, Callable[..., Tensor]] = {
    "ml-is": _ml_is,
    "kld-is": _kld_is,
    "nce": _nce(0.0),
    "nce+": _nce(0.025),
    "dsm": _dsm,
    "sm": _sm,
    "gaussian": _gaussian,
    "ml-mcmc-1": _ml_mcmc(1),
    "ml-mcmc-16": _ml_mcmc(16),
    "ml-mcmc-256": _ml_mcmc(256),
}
FIGURE_2 = ("ml-is", "kld-is", "nce", "nce+")
NO_SAMPLES = ("sm", "gaussian")
SAVE_EVERY_S = 60.0  # seconds between checkpoints of a group of runs
LONG = ("ml-mcmc-16", "ml-mcmc-256")  # hours and days on a CPU
UNCOMPILED = ("sm", "gaussian")  # SM differentiates twice, which compiled networks cannot; the Gaussian is quick


# Training and evaluation


def train(
    cell: Cell,
    pairs: Sequence[tuple[int, int]],
    settings: StudySettings,
    device: str,
    checkpoint: Path | None = None,
    compiled: bool = False,
) -> nn.Module:
    """Train one network for each (data set, run) of `pairs`, all at once, and return them as one batched
    module.

    Reproducible for equal cell, pairs, settings and device. The runs are independent: their losses are
    summed, and Adam treats every weight by itself. With `checkpoint` the state is saved there about once a
    minute, and an interrupted call goes on from there to the same weights. `compiled` goes through
    torch.compile, which needs a C++ compiler and rounds differently; SM does without.
    """
    generator = Generator(device).manual_seed(_seed(settings.seed, cell.method, cell.samples, pairs[0]))
    net = (ManyGaussians if cell.method == "gaussian" else ManyEnergies)(len(pairs), generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    x_all, y_all = _stacked_data(pairs, settings, device)
    saved = time.monotonic()
    fast = _compiled(net) if compiled and cell.method not in UNCOMPILED else net
    for epoch in range(_resume(checkpoint, pairs, net, optimiser, generator), settings.epochs):
        for rows in _batches(x_all, settings.batch, generator):
            x, y = x_all.gather(1, rows), y_all.gather(1, rows)
            optimiser.zero_grad(set_to_none=True)
            METHODS[cell.method](fast, x, y, cell.samples, generator).mean(dim=1).sum().backward()
            optimiser.step()
        if checkpoint is not None and time.monotonic() - saved >= SAVE_EVERY_S:
            _save(checkpoint, pairs, net, optimiser, generator, epoch + 1)
            saved = time.monotonic()
    return net


def _compiled(net: ManyEnergies) -> nn.Module:
    """The same network with compiled passes; older networks' code is forgotten, because torch keeps only a few."""
    torch._dynamo.reset()
    fast = torch.compile(net, dynamic=False)
    fast.value_and_slope = torch.compile(net.value_and_slope, dynamic=False)
    return fast


def _save(
    path: Path,
    pairs: Sequence[tuple[int, int]],
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    generator: Generator,
    epochs: int,
) -> None:
    """Keep all that `_resume` needs to go on after so many epochs."""
    state = {
        "pairs": [list(pair) for pair in pairs],
        "epochs": epochs,
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
    }
    with files.replacing(path) as temporary:
        torch.save(state, temporary)


def _resume(
    path: Path | None,
    pairs: Sequence[tuple[int, int]],
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    generator: Generator,
) -> int:
    """Epochs done according to the checkpoint, whose state is put in place; 0 where it is absent or of other
    runs."""
    if path is None or not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["pairs"] != [list(pair) for pair in pairs]:
        return 0
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    return state["epochs"]


def divergences(net: nn.Module, pairs: Sequence[tuple[int, int]], points: int, chunk: int = 1 << 18) -> Tensor:
    """D_KL(p || model) (R,) on a points x points grid, at most `chunk` energies at a time; eq. S2 of BMVC
    2020."""
    device = next(net.parameters()).device
    axis = torch.linspace(LOW, HIGH, points, device=device)
    y = axis.expand(len(pairs), 1, points)
    total = torch.zeros(len(pairs), device=device)
    for x in axis.split(max(1, chunk // (points * len(pairs)))):
        with torch.no_grad():
            f = net(x.expand(len(pairs), -1), y)
        truth = {d: log_density(d, x[:, None], axis) for d, _ in pairs}
        total += kl_divergence_grid(torch.stack([truth[d] for d, _ in pairs]), f).sum(dim=1)
    return total / points


def _stacked_data(pairs: Sequence[tuple[int, int]], settings: StudySettings, device: str) -> tuple[Tensor, Tensor]:
    """The examples of every run, x and y (R, N)."""
    data = {d: make_data(d, settings.examples, settings.seed) for d, _ in pairs}
    return tuple(torch.stack([data[d][i] for d, _ in pairs]).to(device) for i in (0, 1))


def _batches(x_all: Tensor, batch: int, generator: Generator) -> Iterable[Tensor]:
    """Indices (R, batch) of one epoch's full batches, every run shuffled on its own."""
    order = torch.rand(x_all.shape, generator=generator, device=x_all.device).argsort(dim=1)
    return order[:, : x_all.shape[1] // batch * batch].split(batch, dim=1)


# The study


def study_1d(
    out: Path = Path("study1d"),
    methods: Sequence[str] = (),
    runs: int = 20,
    samples: Sequence[int] = (1, 4, 16, 64, 256, 1024),
    device: str = "auto",
    settings: StudySettings = StudySettings(),
    log: Callable[[str], None] = print,
    compiled: bool = False,
) -> str:
    """Train what is missing under `out`, write the table and the pictures there, and return the table
    (Markdown).

    methods: names from METHODS; none means all of them on a GPU, all but the two long ones on a CPU. runs:
    networks for each method and data set. samples: the M of Figure 2, which its four methods go through; the
    others, and the table, use the largest. Runs that `out` already holds are not trained again, and those of
    other calls with the same settings stay in the table. Raises ConfigError for unknown methods and for an
    `out` with other settings. compiled: about twice as fast, where there is a C++ compiler.
    """
    from ebmtrack.studies import energy_1d_report as study1d_report

    out, device = Path(out), _pick_device(device)
    _claim_folder(out, settings)
    for cell in _cells(methods, samples, device):
        done = {(run["dataset"], run["run"]) for r in load_records(out, cell) for run in r["runs"]}
        todo = [(d, r) for d in (1, 2) for r in range(runs) if (d, r) not in done]
        size = _group_size(cell, device)
        for pairs in (todo[i : i + size] for i in range(0, len(todo), size)):
            record = _train_record(out, cell, pairs, settings, device, compiled)
            log(f"{cell.method} M={cell.samples}: {len(pairs)} runs in {record['seconds']:.0f} s")
    return study1d_report.write_report(out, settings)


def load_records(out: Path, cell: Cell | None = None) -> list[dict]:
    """The records of finished runs under `out`, of one cell or of all, in the order of their names."""
    records = []
    for path in sorted((Path(out) / "runs").glob("*.json")):
        try:
            record = json.loads(path.read_text("utf-8"))
            here = Cell(record["method"], record["samples"])
            _ = record["seconds"], record["runs"], record["best"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultError(f"{path} is no record of a 1D study ({error}): delete it to train again") from error
        if cell in (None, here):
            records.append(record)
    return records


def _train_record(
    out: Path,
    cell: Cell,
    pairs: Sequence[tuple[int, int]],
    settings: StudySettings,
    device: str,
    compiled: bool = False,
) -> dict:
    """Train and evaluate `pairs`; write and return their record: every D_KL, the best weights of each data
    set."""
    path, start = _record_path(out, cell, pairs[0]), time.perf_counter()
    net = train(cell, pairs, settings, device, path.with_suffix(".pt"), compiled)
    seconds = time.perf_counter() - start
    kl = divergences(net, pairs, settings.grid).tolist()
    results = [{"dataset": d, "run": r, "kl": k if math.isfinite(k) else None} for (d, r), k in zip(pairs, kl)]
    best = {str(d): _best_of(net, results, d) for d in sorted({d for d, _ in pairs})}
    best = {d: found for d, found in best.items() if found}
    record = {**asdict(cell), "device": device, "seconds": seconds, "runs": results, "best": best}
    files.write_text(path, json.dumps(record))
    path.with_suffix(".pt").unlink(missing_ok=True)
    return record


def _best_of(net: nn.Module, results: list[dict], dataset: int) -> dict | None:
    """D_KL and weights of the best network of one data set; None where all failed."""
    finite = [i for i, run in enumerate(results) if run["dataset"] == dataset and run["kl"] is not None]
    if not finite:
        return None
    i = min(finite, key=lambda i: results[i]["kl"])
    return {"kl": results[i]["kl"], "weights": {k: v[i].tolist() for k, v in net.state_dict().items()}}


def _cells(methods: Sequence[str], samples: Sequence[int], device: str) -> list[Cell]:
    """What to train, the cheap ones first."""
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ConfigError(f"unknown method {unknown[0]!r}: choose from {', '.join(METHODS)}")
    if not samples or min(samples) < 1:
        raise ConfigError(f"samples must be positive numbers, got {tuple(samples)}")
    chosen = methods or [name for name in METHODS if device != "cpu" or name not in LONG]
    cells = {Cell(name, M) for name in chosen if name in FIGURE_2 for M in samples}
    cells |= {Cell(name, 0 if name in NO_SAMPLES else max(samples)) for name in chosen}
    return sorted(cells, key=lambda cell: (_cost(cell), cell.method))


def _cost(cell: Cell) -> int:
    """Evaluations of the energy for one example, roughly."""
    passes = {"ml-mcmc-1": 2, "ml-mcmc-16": 17, "ml-mcmc-256": 257, "dsm": 3}
    return passes.get(cell.method, 1) * max(1, cell.samples)


def _group_size(cell: Cell, device: str) -> int:
    """How many runs to train at once: what fits a CPU's cache, or a good part of a GPU's memory."""
    return max(1, (1 << 11 if device == "cpu" else 1 << 17) // max(64, cell.samples))


def _pick_device(device: str) -> str:
    """The device named, or for "auto" a GPU where there is one."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _claim_folder(out: Path, settings: StudySettings) -> None:
    """Write the settings into `out`, or raise ConfigError where it holds runs with other settings."""
    path, text = out / "settings.json", json.dumps(asdict(settings), indent=1)
    if path.exists() and path.read_text("utf-8") != text:
        raise ConfigError(f"{path} belongs to a study with other settings: choose another folder or delete it")
    files.write_text(path, text)


def _record_path(out: Path, cell: Cell, first: tuple[int, int]) -> Path:
    """Where the record goes that begins with the (data set, run) `first`."""
    return out / "runs" / f"{cell.method}_M{cell.samples:04d}_data{first[0]}_run{first[1]:03d}.json"
