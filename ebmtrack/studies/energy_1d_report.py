"""The report of the 1D study: the table beside the paper's, D_KL against M, and pictures of the densities."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from ebmtrack import files
from ebmtrack.studies.energy_1d_methods import (
    FIGURE_2,
    HIGH,
    LOW,
    METHODS,
    ManyEnergies,
    ManyGaussians,
    StudyCell,
    StudySettings,
    log_density,
)
from ebmtrack.studies.records import load_records, markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = {  # BMVC 2020, Table 1
    "ml-is": 0.062,
    "ml-mcmc-1": 0.865,
    "ml-mcmc-16": 0.449,
    "ml-mcmc-256": 0.106,
    "kld-is": 0.088,
    "nce": 0.068,
    "sm": 0.781,
    "dsm": 0.395,
    "nce+": 0.066,
}
HEADS = (
    *("method", "M", "paper", "ours", "95 % interval", "data 1", "data 2"),
    *("all: median, s.d.", "runs", "s / epoch / run"),
)


def write_report(out: Path, settings: StudySettings) -> str:
    """Write table.md, figure2.png and densities.png under `out` from all its records; return the table."""
    records = records_of(out)
    table = make_table(records, settings)
    files.write_text(out / "table.md", table)
    _draw_figure2(out / "figure2.png", records)
    _draw_densities(out / "densities.png", records)
    return table


def records_of(out: Path, cell: StudyCell | None = None) -> list[dict]:
    """Return the records of finished runs under `out`, of one cell or of all, in the order of their names."""
    records = load_records(out, ("method", "samples", "seconds", "runs", "best"))
    return [record for record in records if cell in (None, StudyCell(record["method"], record["samples"]))]


def make_table(records: list[dict], settings: StudySettings) -> str:
    """Return a Markdown table: for every method and M the mean D_KL of the best quarter, and its spread.

    There are columns for each data set and for their average. The interval is a bootstrap interval of that mean over
    the runs. The best quarter of 20 runs is the paper's "5 best of 20". Failed runs (D_KL not finite) count as
    infinite.
    """
    head = f"{settings.epochs} epochs, seed {settings.seed}; D_KL on a {settings.grid} x {settings.grid} grid."
    cells = sorted({StudyCell(r["method"], r["samples"]) for r in records}, key=_table_order)
    rows = [_table_row(c, [r for r in records if StudyCell(r["method"], r["samples"]) == c], settings) for c in cells]
    return "\n".join([head, "", *markdown_table(HEADS, rows)]) + "\n"


def best_quarter(values: Iterable[float]) -> float:
    """Return the mean of the smallest quarter (at least one) of the values, infinite if there is none."""
    values = sorted(values)
    return statistics.fmean(values[: max(1, len(values) // 4)]) if values else math.inf


def best_quarter_interval(each: list[list[float]], draws: int = 2000) -> tuple[float, float]:
    """Return the bootstrap interval (95 %) of the averaged best quarters of several data sets, over their runs."""
    if not all(each):
        return math.inf, math.inf
    rng = np.random.default_rng(0)
    means = np.zeros(draws)
    for values in map(np.array, each):
        drawn = np.sort(values[rng.integers(0, len(values), (draws, len(values)))], axis=1)
        means += drawn[:, : max(1, len(values) // 4)].mean(axis=1) / len(each)
    low, high = np.quantile(means, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def divergences_of(records: list[dict], dataset: int) -> list[float]:
    """Return all D_KL of one data set in these records, failed runs as infinity."""
    runs = [run for record in records for run in record["runs"] if run["dataset"] == dataset]
    return [math.inf if run["kl"] is None else run["kl"] for run in runs]


def _table_row(cell: StudyCell, records: list[dict], settings: StudySettings) -> list[str]:
    """Return the cells of one line of the table."""
    each = [divergences_of(records, d) for d in (1, 2)]
    best = [best_quarter(values) for values in each]
    finite = [value for values in each for value in values if math.isfinite(value)]
    spread = f"{statistics.median(finite):.3f}, {statistics.pstdev(finite):.3f}" if finite else "none finished"
    seconds = sum(r["seconds"] for r in records) / sum(len(r["runs"]) for r in records) / settings.epochs
    paper = f"{PAPER[cell.method]:.3f}" if cell.method in PAPER and cell.samples in (0, 1024) else ""
    numbers = [f"{value:.3f}" for value in (statistics.fmean(best), *best)]
    interval = "{:.3f} to {:.3f}".format(*best_quarter_interval(each))
    entries = [cell.method, str(cell.samples or "-"), paper, numbers[0], interval, *numbers[1:], spread]
    return [*entries, f"{len(each[0])} + {len(each[1])}", f"{seconds:.3f}"]


def _table_order(cell: StudyCell) -> tuple[int, int]:
    """Return a key of sorting: methods without samples first, then the largest M; within these the order of METHODS."""
    return (-(cell.samples or 1 << 30), list(METHODS).index(cell.method))


def _draw_figure2(path: Path, records: list[dict]) -> None:
    """Draw D_KL against M for the four methods of the paper's Figure 2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for method in FIGURE_2:
        cells = sorted({r["samples"] for r in records if r["method"] == method})
        if cells:
            axes.plot(cells, [_average_best(records, StudyCell(method, M)) for M in cells], "o-", label=method.upper())
    axes.set(xlabel="number of samples M", ylabel="D_KL (best quarter)")
    if axes.has_data():
        axes.set(xscale="log", yscale="log")
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no method of Figure 2 was trained", ha="center", transform=axes.transAxes)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _average_best(records: list[dict], cell: StudyCell) -> float:
    """Return the table's number: best quarter of each data set, averaged."""
    records = [r for r in records if StudyCell(r["method"], r["samples"]) == cell]
    return statistics.fmean(best_quarter(divergences_of(records, d)) for d in (1, 2))


def _draw_densities(path: Path, records: list[dict], points: int = 300) -> None:
    """Return true density and the best network of each method, one row per data set, at the largest M."""
    from matplotlib.figure import Figure

    names = [name for name in METHODS if any(r["method"] == name for r in records)]
    figure = Figure(figsize=(2 * (len(names) + 1), 4.4), layout="constrained")
    grid = figure.subplots(2, len(names) + 1, squeeze=False, sharex=True, sharey=True)
    axis = torch.linspace(LOW, HIGH, points)
    for d, row in zip((1, 2), grid):
        _draw_one(row[0], log_density(d, axis[:, None], axis), f"data {d}")
        for axes, name in zip(row[1:], names):
            log_p = _best_log_density(records, name, d, axis)
            if log_p is not None:
                _draw_one(axes, log_p, name.upper())
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_one(
    axes: Axes, log_p: Tensor, title: str, extent: tuple[float, float, float, float] = (LOW, HIGH, LOW, HIGH)
) -> None:
    """Draw one density (x, y) as an image; each x is scaled to its own peak, so that wide parts are seen too."""
    p = (log_p - log_p.amax(dim=1, keepdim=True)).exp()
    axes.imshow(p.T.numpy(), origin="lower", extent=extent, cmap="viridis", aspect="auto")
    axes.set_title(title)


def _best_log_density(records: list[dict], method: str, dataset: int, axis: Tensor) -> Tensor | None:
    """Return the energies (points, points) of a method's best network at its largest M; None if none finished."""
    ours = [r for r in records if r["method"] == method and str(dataset) in r["best"]]
    if not ours:
        return None
    most = max(r["samples"] for r in ours)
    best = min((r["best"][str(dataset)] for r in ours if r["samples"] == most), key=lambda b: b["kl"])
    kind = ManyGaussians if method == "gaussian" else ManyEnergies
    net = kind(1, Generator())
    net.load_state_dict({name: torch.tensor(value).unsqueeze(0) for name, value in best["weights"].items()})
    with torch.no_grad():
        return net(axis[None], axis[None, None])[0]
