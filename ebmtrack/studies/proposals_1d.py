"""The 1D experiments of Paper IV: energies with learned proposals against tuned noise, MDNs with and without a teacher.

Built as the study of BMVC 2020 (`energy_1d`): many runs train at once, finished runs are kept, a killed study goes on.
Experiment 1 is judged by D_KL, experiment 2 by the test NLL; a figure is the mean of the best quarter of the runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.device import pick_device
from ebmtrack.names import check_name
from ebmtrack.studies.energy_1d import Design, _train_record, divergences
from ebmtrack.studies.energy_1d_methods import HIGH, LOW, PAPER_SETTINGS, StudyCell, StudySettings, log_density
from ebmtrack.studies.energy_1d_report import _draw_one, best_quarter, best_quarter_interval, divergences_of, records_of
from ebmtrack.studies.proposals_1d_methods import (
    METHODS,
    SIGMAS,
    WITHOUT_SAMPLES,
    ManyFixed,
    build,
    heterogeneous_data,
    negative_log_likelihood,
    training_data,
)
from ebmtrack.studies.records import check_counts, claim_folder, markdown_table

RELEASED = {  # the released code as it is, 4 models each, mean (experiment 2) or a few models (experiment 1)
    "fixed": ("0.074 to infinite", "1.829"),
    "learned-k1": ("", "1.790"),
    "learned-k4": ("0.060", "1.708"),
    "learned-k16": ("", "1.822"),
}
SHOWN = ("fixed", "learned-k1", "learned-k4", "learned-k16", "mdn-k4", "teacher-k4")


def study_proposals(
    out: Path = Path("study_proposals"),
    methods: Sequence[str] = (),
    runs: int = 20,
    samples: int = 1024,
    device: str = "auto",
    settings: StudySettings = PAPER_SETTINGS,
    log: Callable[[str], None] = print,
    compiled: bool = False,
) -> str:
    """Train what is missing under `out`, write table.md and densities.png there, and return the table (Markdown).

    Args:
        out: Folder of results; runs that it holds are not trained again.
        methods: Names from METHODS; all by default.
        runs: Networks for each method and experiment.
        samples: M, samples of the noise or the proposal for each example.
        device: auto, cpu, mps, cuda or cuda:N.
        settings: What all runs share.
        log: Is told of each group of runs.
        compiled: Whether to use torch.compile.

    Raises:
        ConfigError: An unknown method, no run or sample, or an `out` with other settings.
    """
    out, device = Path(out), pick_device(device)
    chosen = [check_name("method", name, METHODS) for name in methods or METHODS]
    check_counts(runs=runs, samples=samples)
    claim_folder(out, settings)
    for method in chosen:
        cell = StudyCell(method, 0 if method in WITHOUT_SAMPLES else samples)
        done = {(run["dataset"], run["run"]) for r in records_of(out, cell) for run in r["runs"]}
        for dataset in (1, 2):
            todo = [(dataset, r) for r in range(runs) if (dataset, r) not in done]
            size = runs if method in WITHOUT_SAMPLES else max(1, 1024 // samples) if device == "cpu" else runs
            for pairs in (todo[i : i + size] for i in range(0, len(todo), size)):
                record = _train_record(out, cell, pairs, settings, device, compiled, PAPER_IV[dataset])
                log(f"{method} experiment {dataset}: {len(pairs)} runs in {record['seconds']:.0f} s")
    return write_report(out, settings)


def write_report(out: Path, settings: StudySettings) -> str:
    """Write table.md and densities.png under `out` from all its records; return the table."""
    records = records_of(out)
    table = make_table(records, settings)
    files.write_text(out / "table.md", table)
    _draw_densities(out / "densities.png", records)
    return table


def make_table(records: list[dict], settings: StudySettings) -> str:
    """Return the table in Markdown: for every method and both experiments the best quarter's mean and the spread."""
    lines = [
        f"{settings.epochs} epochs, seed {settings.seed}. Experiment 1: D_KL, 2: test NLL. Each: mean of the",
        "best quarter, its 95 % bootstrap interval, (median, s.d. of all), number of runs.",
        "",
    ]
    heads = ("method", "M", "experiment 1", "released code", "experiment 2", "released code", "s / run")
    rows = []
    cells = {StudyCell(r["method"], r["samples"]) for r in records}
    for cell in sorted(cells, key=lambda cell: (METHODS.index(cell.method), -cell.samples)):
        ours = [r for r in records if (r["method"], r["samples"]) == (cell.method, cell.samples)]
        one, two = (_figure(divergences_of(ours, dataset)) for dataset in (1, 2))
        released = RELEASED.get(cell.method, ("", ""))
        seconds = sum(r["seconds"] for r in ours) / sum(len(r["runs"]) for r in ours)
        rows.append([cell.method, str(cell.samples or "-"), one, released[0], two, released[1], f"{seconds:.1f}"])
    return "\n".join(lines + markdown_table(heads, rows)) + "\n"


def _figure(values: list[float]) -> str:
    """Return one entry of the table."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return f"none finished of {len(values)}"
    low, high = best_quarter_interval([values])
    spread = f"{statistics.median(finite):.3f}, {statistics.pstdev(finite):.3f}"
    return f"{best_quarter(values):.3f}, {low:.3f} to {high:.3f} ({spread}), {len(values)}"


# Pictures


def _draw_densities(path: Path, records: list[dict], points: int = 300) -> None:
    """Draw the truth and the best network of each shown method, one row for each experiment."""
    from matplotlib.figure import Figure

    names = [name for name in SHOWN if any(r["method"] == name for r in records)]
    figure = Figure(figsize=(2 * (len(names) + 1), 4.4), layout="constrained")
    grid = figure.subplots(2, len(names) + 1, squeeze=False)
    axes_xy = {
        1: (torch.linspace(LOW, HIGH, points), torch.linspace(LOW, HIGH, points)),
        2: (torch.linspace(0, 1, points), torch.linspace(-7, 10, points)),
    }
    for dataset, row in zip((1, 2), grid):
        x, y = axes_xy[dataset]
        if dataset == 1:
            _draw_one(row[0], log_density(1, x[:, None], y), "truth")
        else:
            row[0].scatter(*heterogeneous_data()["test"], s=1)
            row[0].set(title="test data", xlim=(0, 1), ylim=(-7, 10))
        for axes, name in zip(row[1:], names):
            log_p = _best_log_density(records, name, dataset, x, y)
            if log_p is not None:
                _draw_one(axes, log_p, name, (x[0].item(), x[-1].item(), y[0].item(), y[-1].item()))
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _best_log_density(records: list[dict], method: str, dataset: int, x: Tensor, y: Tensor) -> Tensor | None:
    """Return the scores (len(x), len(y)) of a method's best network; None if none finished."""
    ours = [r["best"][str(dataset)] for r in records if r["method"] == method and str(dataset) in r["best"]]
    if not ours:
        return None
    net = build(StudyCell(method, 1), 1, Generator())
    weights = min(ours, key=lambda best: best["kl"])["weights"]
    net.load_state_dict({name: torch.tensor(value).unsqueeze(0) for name, value in weights.items()})
    with torch.no_grad():
        return net(x[None], y[None, None])[0]


# The two experiments, for the runner of `energy_1d`


def _loss(cell: StudyCell, datasets: list[int]) -> Callable[..., Tensor]:
    """Return the function that computes a method's losses (R, B)."""
    return lambda net, x, y, M, generator: net.loss(x, y, M, generator)


def _compile(cell: StudyCell, net: nn.Module) -> nn.Module:
    """Return the same networks, which score in compiled code."""
    torch._dynamo.reset()
    energy: Any = net if isinstance(net, ManyFixed) else getattr(net, "energy", None)
    if energy is not None:
        energy.score = torch.compile(energy.score, dynamic=False)
    return net


def _design(dataset: int) -> Design:
    """Return experiment 1 or 2."""

    def build_for(cell: StudyCell, runs: int, generator: Generator) -> nn.Module:
        net = build(cell, runs, generator)
        if isinstance(net, ManyFixed):
            net.sigmas = SIGMAS[dataset]
        return net

    def score(net: nn.Module, pairs: Sequence[tuple[int, int]], settings: StudySettings) -> Tensor:
        if dataset == 1:
            return divergences(net, pairs, settings.grid)
        return negative_log_likelihood(net, len(pairs), 4 * settings.grid)

    return Design(build_for, training_data, _loss, score, _compile)


PAPER_IV = {1: _design(1), 2: _design(2)}
