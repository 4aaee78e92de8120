"""The 1D study of BMVC 2020 (Table 1, Figure 2): seven ways to train an energy, and a Gaussian, on two data sets.

Many runs train at once as one batched network: axis 0 of every tensor is the run. Finished runs are kept in
JSON files, so a killed study goes on where it stopped. What the paper leaves open is as in the authors' code:
all runs see the same 2,000 examples of each data set, the 16 examples that fill no batch of 32 are a batch of
their own, and noise is drawn once per batch and shared by its examples, except for DSM.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.device import pick_device
from ebmtrack.energy.density import kl_divergence_grid
from ebmtrack.names import check_name
from ebmtrack.studies.energy_1d_methods import (
    FIGURE_2,
    HIGH,
    LONG,
    LOW,
    METHODS,
    NO_SAMPLES,
    PAPER_SETTINGS,
    UNCOMPILED,
    ManyEnergies,
    ManyGaussians,
    StudyCell,
    StudySettings,
    log_density,
    make_data,
    method_of,
    seed_of,
)
from ebmtrack.studies.energy_1d_report import records_of, write_report
from ebmtrack.studies.records import check_counts, claim_folder

SAVE_EVERY_S = 60.0  # seconds between checkpoints of a group of runs


# Training and evaluation


@dataclass(frozen=True)
class Design:
    """A study of small networks: how one of its cells is built, trained and judged.

    Attributes:
        build: (cell, number of runs, generator) -> that many networks as one batched module.
        data: (data set, settings) -> training examples x, y (N,).
        loss: (cell, data set of each run) -> function (networks, x (R, B), y (R, B), M, generator) -> losses (R, B).
        score: (networks, (data set, run) of each, settings) -> figures (R,), the lower the better.
        compiled: (cell, networks) -> the same networks, compiled.
    """

    build: Callable[[StudyCell, int, Generator], nn.Module]
    data: Callable[[int, StudySettings], tuple[Tensor, Tensor]]
    loss: Callable[[StudyCell, list[int]], Callable[..., Tensor]]
    score: Callable[[nn.Module, Sequence[tuple[int, int]], StudySettings], Tensor]
    compiled: Callable[[StudyCell, Any], nn.Module]


def train(
    cell: StudyCell,
    pairs: Sequence[tuple[int, int]],
    settings: StudySettings,
    device: str,
    checkpoint: Path | None = None,
    compiled: bool = False,
    design: Design | None = None,
) -> nn.Module:
    """Train one network for each (data set, run) of `pairs`, all at once, and return them as one batched module.

    Reproducible for equal cell, pairs, settings and device. The runs are independent: their losses are
    summed, and Adam treats every weight by itself. With `checkpoint` the state is saved there about once a
    minute, and an interrupted call goes on from there to the same weights. `compiled` goes through
    torch.compile, which needs a C++ compiler and rounds differently; SM does without. The design is that of
    BMVC 2020 by default.
    """
    design = design or BMVC
    generator = Generator(device).manual_seed(seed_of(settings.seed, cell.method, cell.samples, pairs[0]))
    net = design.build(cell, len(pairs), generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    x_all, y_all = _stacked_data(pairs, settings, device, design)
    loss_of, saved = design.loss(cell, [dataset for dataset, _ in pairs]), time.monotonic()
    fast = design.compiled(cell, net) if compiled else net
    for epoch in range(_resume(checkpoint, pairs, net, optimiser, generator), settings.epochs):
        for rows in _batches(x_all, settings.batch, generator):
            x, y = x_all.gather(1, rows), y_all.gather(1, rows)
            optimiser.zero_grad(set_to_none=True)
            loss_of(fast, x, y, cell.samples, generator).mean(dim=1).sum().backward()
            optimiser.step()
        if checkpoint is not None and time.monotonic() - saved >= SAVE_EVERY_S:
            _save(checkpoint, pairs, net, optimiser, generator, epoch + 1)
            saved = time.monotonic()
    return net


def _compile(cell: StudyCell, net: nn.Module) -> nn.Module:
    """Return the same network with compiled passes; older code is forgotten, because torch keeps only a few."""
    if cell.method in UNCOMPILED or not isinstance(net, ManyEnergies):
        return net
    torch._dynamo.reset()
    fast: Any = torch.compile(net, dynamic=False)
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
    """Keep all that `_resume` needs to go on after an epoch."""
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
    """Load the checkpoint and return the epochs that it has done; 0 if it is absent or of other runs."""
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
    """Return D_KL(p || model) (R,) on a grid of points x points, `chunk` energies at a time (BMVC 2020, eq. S2)."""
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


def _stacked_data(
    pairs: Sequence[tuple[int, int]], settings: StudySettings, device: str, design: Design
) -> tuple[Tensor, Tensor]:
    """Return the examples of every run, x and y (R, N)."""
    data = {d: design.data(d, settings) for d, _ in pairs}
    x, y = (torch.stack([data[d][i] for d, _ in pairs]).to(device) for i in (0, 1))
    return x, y


def _batches(x_all: Tensor, batch: int, generator: Generator) -> Iterable[Tensor]:
    """Return indices (R, batch) of one epoch's batches, every run shuffled on its own; the last may be smaller."""
    order = torch.rand(x_all.shape, generator=generator, device=x_all.device).argsort(dim=1)
    return order.split(batch, dim=1)


def _build(cell: StudyCell, runs: int, generator: Generator) -> nn.Module:
    """Return the networks of BMVC 2020."""
    return (ManyGaussians if cell.method == "gaussian" else ManyEnergies)(runs, generator)


BMVC = Design(
    build=_build,
    data=lambda dataset, settings: make_data(dataset, settings.examples, settings.seed),
    loss=lambda cell, datasets: method_of(cell.method, datasets),
    score=lambda net, pairs, settings: divergences(net, pairs, settings.grid),
    compiled=_compile,
)


# The study


def study_1d(
    out: Path = Path("study1d"),
    methods: Sequence[str] = (),
    runs: int = 20,
    samples: Sequence[int] = (1, 4, 16, 64, 256, 1024),
    device: str = "auto",
    settings: StudySettings = PAPER_SETTINGS,
    log: Callable[[str], None] = print,
    compiled: bool = False,
) -> str:
    """Train what is missing under `out`, write the table and the pictures there; return the table (Markdown).

    methods: names from METHODS; none means all of them on a GPU, all but the two long ones on a CPU. runs:
    networks for each method and data set. samples: the M of Figure 2, which its four methods go through; the
    others, and the table, use the largest. Runs that `out` already holds are not trained again, and those of
    other calls with the same settings stay in the table. Raises ConfigError for unknown methods and for an
    `out` with other settings. compiled: about twice as fast, if there is a C++ compiler.
    """
    out, device = Path(out), pick_device(device)
    check_counts(runs=runs, samples=min(samples, default=0))
    claim_folder(out, settings)
    for cell in _cells(methods, samples, device):
        done = {(run["dataset"], run["run"]) for r in records_of(out, cell) for run in r["runs"]}
        todo = [(d, r) for d in (1, 2) for r in range(runs) if (d, r) not in done]
        size = _group_size(cell, device)
        for pairs in (todo[i : i + size] for i in range(0, len(todo), size)):
            record = _train_record(out, cell, pairs, settings, device, compiled)
            log(f"{cell.method} M={cell.samples}: {len(pairs)} runs in {record['seconds']:.0f} s")
    return write_report(out, settings)


def _train_record(
    out: Path,
    cell: StudyCell,
    pairs: Sequence[tuple[int, int]],
    settings: StudySettings,
    device: str,
    compiled: bool = False,
    design: Design = BMVC,
) -> dict:
    """Train and evaluate `pairs`; write and return each score, which is called kl, and each data set's best weights."""
    path, start = _record_path(out, cell, pairs[0]), time.perf_counter()
    net = train(cell, pairs, settings, device, path.with_suffix(".pt"), compiled, design)
    seconds = time.perf_counter() - start
    kl = design.score(net, pairs, settings).tolist()
    results = [{"dataset": d, "run": r, "kl": k if math.isfinite(k) else None} for (d, r), k in zip(pairs, kl)]
    best = {str(d): _best_of(net, results, d) for d in sorted({d for d, _ in pairs})}
    best = {d: found for d, found in best.items() if found}
    record = {**asdict(cell), "device": device, "seconds": seconds, "runs": results, "best": best}
    files.write_text(path, json.dumps(record))
    path.with_suffix(".pt").unlink(missing_ok=True)
    return record


def _best_of(net: nn.Module, results: list[dict], dataset: int) -> dict | None:
    """Return D_KL and weights of the best network of one data set; None if all failed."""
    finite = [i for i, run in enumerate(results) if run["dataset"] == dataset and run["kl"] is not None]
    if not finite:
        return None
    i = min(finite, key=lambda i: results[i]["kl"])
    return {"kl": results[i]["kl"], "weights": {k: v[i].tolist() for k, v in net.state_dict().items()}}


def _cells(methods: Sequence[str], samples: Sequence[int], device: str) -> list[StudyCell]:
    """Return the cells to train, the cheap ones first."""
    for name in methods:
        check_name("method", name, METHODS)
    chosen = methods or [name for name in METHODS if device != "cpu" or name not in LONG]
    cells = {StudyCell(name, M) for name in chosen if name in FIGURE_2 for M in samples}
    cells |= {StudyCell(name, 0 if name in NO_SAMPLES else max(samples)) for name in chosen}
    return sorted(cells, key=lambda cell: (_cost(cell), cell.method))


def _cost(cell: StudyCell) -> int:
    """Return evaluations of the energy for one example, roughly."""
    passes = {"ml-mcmc-1": 2, "ml-mcmc-16": 17, "ml-mcmc-256": 257, "dsm": 3}
    return passes.get(cell.method, 1) * max(1, cell.samples)


def _group_size(cell: StudyCell, device: str) -> int:
    """Return how many runs to train at once: what fits a CPU's cache, or a good part of a GPU's memory."""
    return max(1, (1 << 11 if device == "cpu" else 1 << 17) // max(64, cell.samples))


def _record_path(out: Path, cell: StudyCell, first: tuple[int, int]) -> Path:
    """Return the path of the record that begins with the (data set, run) `first`."""
    return out / "runs" / f"{cell.method}_M{cell.samples:04d}_data{first[0]}_run{first[1]:03d}.json"
