"""Success, precision and normalised precision plots for papers: PDF, SVG, PNG, and the numbers as CSV."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.comparison import Comparison, TrackerScores
from ebmtrack.files import replacing, write_text

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", "--", "-.", ":")

LEGEND_INSIDE = 4  # with more trackers the legend stands beside the plot, where it covers no curve

KINDS = {  # kind -> x label, y label, figure that sorts the legend (see `figure_of`)
    "success": ("Overlap threshold", "Overlap precision", "auc"),
    "precision": ("Centre error threshold in pixels", "Precision", "precision_20"),
    "norm_precision": ("Normalised centre error threshold", "Normalised precision", "norm_precision"),
}


def ranked(comparison: Comparison, kind: str) -> list[TrackerScores]:
    """Trackers that have a curve of this kind, the best first. Raises ConfigError for an unknown kind."""
    if kind not in KINDS:
        raise ConfigError(f"unknown plot {kind!r}: choose one of {', '.join(KINDS)}")
    with_curve = [tracker for tracker in comparison.trackers if tracker.curve(kind) is not None]
    return sorted(with_curve, key=lambda tracker: -tracker.mean(figure_of(comparison, kind)))


def figure_of(comparison: Comparison, kind: str) -> str:
    """The figure that sorts a plot's legend: for success that by which the protocol ranks."""
    return comparison.protocol.headline if kind == "success" else KINDS[kind][2]


def save_plots(
    comparison: Comparison,
    folder: str | os.PathLike,
    formats: tuple[str, ...] = ("pdf", "svg", "png"),
    kinds: tuple[str, ...] = tuple(KINDS),
) -> list[Path]:
    """Write `<kind>.<format>` and `<kind>.csv` for every kind of plot into `folder`, and return the paths.

    The legend is sorted by the score and shows it in percent. Text in PDF and SVG stays text. Raises ConfigError for
    an unknown format, or where no tracker has curves.
    """
    unknown = set(formats) - {"pdf", "svg", "png"}
    if unknown:
        raise ConfigError(f"unknown format {sorted(unknown)[0]!r}: choose pdf, svg or png")
    written = []
    for kind in kinds:
        trackers = ranked(comparison, kind)
        if not trackers:
            raise ConfigError(f"no tracker has the boxes that a {kind} plot needs")
        written.append(_write_csv(trackers, kind, Path(folder) / f"{kind}.csv"))
        written += _draw(comparison, trackers, kind, Path(folder), formats)
    return written


def curves_csv(trackers: list[TrackerScores], kind: str) -> str:
    """The curves as CSV: a column of thresholds and one per tracker, every digit kept."""
    curves = [tracker.curve(kind) for tracker in trackers]
    header = ",".join(["threshold", *(_quoted(tracker.label) for tracker in trackers)])
    rows = [",".join([f"{x:g}", *(repr(float(ys[i])) for _, ys in curves)]) for i, x in enumerate(curves[0][0])]
    return "\n".join([header, *rows]) + "\n"


def _write_csv(trackers: list[TrackerScores], kind: str, path: Path) -> Path:
    write_text(path, curves_csv(trackers, kind))
    return path


def _draw(
    comparison: Comparison, trackers: list[TrackerScores], kind: str, folder: Path, formats: tuple[str, ...]
) -> list[Path]:
    """One figure in every format."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    style = {"font.size": 9, "svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "ebmtrack"}
    paths = [folder / f"{kind}.{end}" for end in formats]
    with matplotlib.rc_context(style):
        beside = len(trackers) > LEGEND_INSIDE
        figure = Figure(figsize=(5.2 if beside else 3.5, 2.8), layout="constrained")  # one column of a paper, in inches
        _fill_axes(figure.add_subplot(), comparison, trackers, kind)
        for path in paths:
            with replacing(path) as temporary:
                stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])
                figure.savefig(temporary, dpi=300, metadata=stamp)
    return paths


def _fill_axes(axes, comparison: Comparison, trackers: list[TrackerScores], kind: str) -> None:
    (x_label, y_label, _), figure = KINDS[kind], figure_of(comparison, kind)
    for rank, tracker in enumerate(trackers):
        position = comparison.trackers.index(tracker)
        axes.plot(
            *tracker.curve(kind),
            color=COLORS[position % len(COLORS)],
            linestyle=DASHES[position // len(COLORS) % len(DASHES)],
            label=f"{tracker.label} [{100 * tracker.mean(figure):.1f}]",
            zorder=3 - rank / 1e3,
            clip_on=False,  # a curve along 1 is as thick as elsewhere
        )
    xs = trackers[0].curve(kind)[0]
    axes.set(xlim=(0, float(np.max(xs))), ylim=(0, 1), xlabel=x_label, ylabel=y_label)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if len(trackers) > LEGEND_INSIDE:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    else:
        axes.legend(frameon=False, fontsize=7, loc="lower left" if kind == "success" else "lower right")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text
