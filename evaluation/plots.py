"""Success, precision and normalised precision plots for papers: PDF, SVG, PNG, and the numbers as CSV."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.charts import draw_curves, paper_style
from ebmtrack.evaluation.comparison import Comparison, TrackerScores
from ebmtrack.files import replacing, write_text

LEGEND_INSIDE = 4  # with more trackers the legend is beside the plot, so that it covers no curve

KINDS = {  # kind -> x label, y label, figure that sorts the legend (see `figure_of`)
    "success": ("Overlap threshold", "Overlap precision", "auc"),
    "precision": ("Centre error threshold in pixels", "Precision", "precision_20"),
    "norm_precision": ("Normalised centre error threshold", "Normalised precision", "norm_precision"),
}


def rank_trackers(comparison: Comparison, kind: str) -> list[TrackerScores]:
    """Return the trackers that have a curve of this kind, the best first, after them those that lack sequences.

    Raises:
        ConfigError: Unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown plot {kind!r}: choose one of {', '.join(KINDS)}")
    with_curve = [tracker for tracker in comparison.trackers if tracker.curve(kind) is not None]
    figure = figure_of(comparison, kind)
    return sorted(with_curve, key=lambda tracker: (bool(comparison.missing(tracker)), -tracker.mean(figure)))


def figure_of(comparison: Comparison, kind: str) -> str:
    """Return the figure that sorts a plot's legend: for success the one by which the protocol ranks."""
    return comparison.protocol.headline if kind == "success" else KINDS[kind][2]


def save_plots(
    comparison: Comparison,
    folder: str | os.PathLike,
    formats: tuple[str, ...] = ("pdf", "svg", "png"),
    kinds: tuple[str, ...] = tuple(KINDS),
) -> list[Path]:
    """Write `<kind>.<format>` and `<kind>.csv` for every kind of plot into `folder`, and return the paths.

    The legend is sorted by the score and shows it in percent; of a tracker without results for some sequences it says
    how many there are. Text in PDF and SVG stays text.

    Args:
        comparison: The trackers.
        folder: Where to write.
        formats: Of pdf, svg and png.
        kinds: Of KINDS.

    Raises:
        ConfigError: Unknown format, or no tracker has curves.
    """
    unknown = set(formats) - {"pdf", "svg", "png"}
    if unknown:
        raise ConfigError(f"unknown format {sorted(unknown)[0]!r}: choose pdf, svg or png")
    written = []
    for kind in kinds:
        trackers = rank_trackers(comparison, kind)
        if not trackers:
            raise ConfigError(f"no tracker has the boxes that a {kind} plot needs")
        written.append(_write_csv(trackers, kind, Path(folder) / f"{kind}.csv"))
        written += _draw(comparison, trackers, kind, Path(folder), formats)
    return written


def curves_csv(trackers: list[TrackerScores], kind: str) -> str:
    """Return the curves as CSV with every digit: a column of thresholds and one for each tracker."""
    curves = [curve for tracker in trackers if (curve := tracker.curve(kind)) is not None]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["threshold", *(tracker.label for tracker in trackers)])
    writer.writerows([f"{x:g}", *(float(ys[i]) for _, ys in curves)] for i, x in enumerate(curves[0][0]))
    return file.getvalue()


def _write_csv(trackers: list[TrackerScores], kind: str, path: Path) -> Path:
    write_text(path, curves_csv(trackers, kind))
    return path


def _draw(
    comparison: Comparison, trackers: list[TrackerScores], kind: str, folder: Path, formats: tuple[str, ...]
) -> list[Path]:
    """Draw one figure in every format."""
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    paths = [folder / f"{kind}.{end}" for end in formats]
    with paper_style():
        beside = len(trackers) > LEGEND_INSIDE
        figure = Figure(figsize=(5.2 if beside else 3.5, 2.8), layout="constrained")  # one column of a paper, in inches
        axes, (x_label, y_label, _) = figure.add_subplot(), KINDS[kind]
        sorted_by = figure_of(comparison, kind)
        lines = []
        for tracker in trackers:
            line = comparison.line(tracker, kind)
            if line is not None:
                score = f"[{100 * tracker.mean(sorted_by):.1f}]"
                lines.append(replace(line, label=f"{comparison.marked_label(tracker)} {score}"))
        draw_curves(axes, lines, x_label, y_label)
        if beside:
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
        else:
            axes.legend(frameon=False, fontsize=7, loc="lower left" if kind == "success" else "lower right")
        for path in paths:
            with replacing(path) as temporary:
                stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])
                figure.savefig(temporary, dpi=300, metadata=stamp)
    return paths
