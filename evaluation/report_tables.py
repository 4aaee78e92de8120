"""The tables of a report: scores, sequences, attributes, speed and stages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ebmtrack.evaluation import intervals, metrics
from ebmtrack.evaluation.comparison import Comparison, TrackerScores
from ebmtrack.evaluation.reliability import LEVELS, by_sequence, join
from ebmtrack.evaluation.score_tables import Cell, Table

COLUMNS = {
    "average_overlap": "AO",
    "auc": "AUC",
    "op50": "OP 0.50",
    "op75": "OP 0.75",
    "precision_20": "Precision 20 px",
    "norm_precision": "Norm. precision",
    "fps": "frames/s",
}


def percent(value: float, digits: int = 1) -> str:
    """Return a share as a percentage without its sign; a dash if it is not known."""
    return f"{100 * value:.{digits}f}" if np.isfinite(value) else "–"


def number_text(value: float) -> str:
    """Return a number with one digit; a dash if it is not known."""
    return f"{value:.1f}" if np.isfinite(value) else "–"


def scores(comparison: Comparison) -> Table:
    """Return the headline table: figures of every tracker with intervals, and the number of sequences if it differs."""
    partial = len({len(tracker.figures) for tracker in comparison.trackers}) > 1
    shown, label = columns(comparison), comparison.protocol.headline_label
    header = ["Tracker", *shown.values(), f"{label}, 95 % interval", f"{label}, first minus this"]
    header += ["sequences"] * partial
    rows = []
    for tracker in comparison.trackers:
        interval, difference = comparison.interval(tracker), comparison.difference(tracker)
        own = tracker is comparison.trackers[0]
        cells = [_figure(comparison, tracker, name) for name in shown]
        cells += [Cell(interval_text(interval)), Cell("" if own else _signed_text(difference))]
        cells += [Cell(str(len(tracker.figures)), len(tracker.figures))] * partial
        rows.append([Cell(tracker.label), *cells])
    return Table("scores", header, rows)


def scores_note(comparison: Comparison) -> str:
    """Return the note below the headline table: units, intervals, runs and their spread."""
    runs = [len(tracker.runs) for tracker in comparison.trackers if tracker.runs]
    spread = [_spread(tracker, comparison.protocol) for tracker in comparison.trackers if len(tracker.runs) > 1]
    return (
        "Percent. Intervals are bootstrapped over sequences; the difference is paired, on the sequences that both "
        f"trackers have. Runs: {max(runs, default=0)}. {' '.join(spread)}"
    )


def columns(comparison: Comparison) -> dict[str, str]:
    """Return the figures to show: GOT-10k's under its names for them, without the precision that it does not have."""
    if comparison.protocol.pooled:
        return {"average_overlap": "AO", "op50": "SR 0.50", "op75": "SR 0.75", "auc": "AUC", "fps": "frames/s"}
    return {name: label for name, label in COLUMNS.items() if name != "average_overlap"}


def _figure(comparison: Comparison, tracker: TrackerScores, name: str) -> Cell:
    """Return one figure of one tracker, marked if it is the best of those that have all sequences."""
    value = tracker.mean(name)
    known = [t.mean(name) for t in comparison.trackers if np.isfinite(t.mean(name)) and not comparison.missing(t)]
    text = number_text(value) if name == "fps" else percent(value)
    best = len(known) > 1 and value == max(known) and not comparison.missing(tracker)
    return Cell(text, value, None if name == "fps" else value, best=best)


def interval_text(interval: intervals.Interval | None) -> str:
    """Return both ends of an interval in percent; a dash if there is none."""
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else "–"


def _signed_text(interval: intervals.Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def _spread(tracker: TrackerScores, chosen: metrics.Protocol) -> str:
    mean, deviation = intervals.over_runs([getattr(summary, chosen.headline) for summary in tracker.summaries])
    spread = f"{percent(mean, 2)} with standard deviation {percent(deviation, 2)} over runs"
    return f"{tracker.label}: {chosen.headline_label} {spread}."


def sequences(comparison: Comparison, links: Mapping[str, str]) -> Table:
    """Return the headline figure of every tracker on every sequence."""
    header = ["Sequence", *(tracker.label for tracker in comparison.trackers), "frames"]
    rows, figure = [], comparison.protocol.headline
    for name, sequence in comparison.sequences.items():
        values = [tracker.figures.get(name, {}).get(figure, float("nan")) for tracker in comparison.trackers]
        best = np.nanmax(values) if np.isfinite(values).any() and len(values) > 1 else np.nan
        cells = [Cell(percent(v), v, v, best=v == best) for v in values]
        rows.append([Cell(name, link=links.get(name, "")), *cells, Cell(str(len(sequence)), len(sequence))])
    caption = f"{comparison.protocol.headline_label} in percent; press a column's head to sort"
    return Table("sequences", header, rows, caption)


def attributes(comparison: Comparison) -> Table:
    """Return the headline figure over the sequences with each attribute, weighted as the protocol does."""
    rows = []
    for attribute, names in comparison.attributes().items():
        values = [comparison.mean_over(tracker, names) for tracker in comparison.trackers]
        rows.append([Cell(attribute), *(Cell(percent(v), v, v) for v in values), Cell(str(len(names)), len(names))])
    header = ["Attribute", *(tracker.label for tracker in comparison.trackers), "sequences"]
    caption = f"{comparison.protocol.headline_label} in percent over the sequences with an attribute"
    return Table("attributes", header, rows, caption)


def speed(comparison: Comparison) -> Table:
    """Return start and update times of every tracker whose times are known."""
    rows = []
    for tracker in comparison.trackers:
        times = [t for t in tracker.times_s.values() if len(t) > 1]
        if times:
            start, later = np.array([t[0] for t in times]), np.concatenate([t[1:] for t in times])
            cells = [np.median(start), np.median(later), np.quantile(later, 0.95), later.max()]
            fps = len(later) / later.sum() if later.sum() else float("nan")
            shown = [Cell(f"{1e3 * c:.1f}", float(c)) for c in cells]
            rows.append([Cell(tracker.label), *shown, Cell(f"{fps:.1f}", float(fps))])
    header = ["Tracker", "start, ms", "median frame, ms", "95 % of frames, ms", "slowest, ms", "frames/s"]
    return Table("speed", header, rows)


def speed_note(comparison: Comparison) -> str:
    """Return the note below the table of speeds: how times were taken, and who shared cores."""
    shared = [f"{t.label}: {t.workers} workers" for t in comparison.trackers if t.workers > 1]
    note = "Time of the tracker's calls alone; reading images is not counted. First run."
    if shared:
        note += f" Measured on cores that several workers shared ({', '.join(shared)}): alone a tracker is faster."
    return note


def stages(comparison: Comparison) -> Table:
    """Return milliseconds per frame by stage, for trackers that say."""
    with_stages = [t for t in comparison.trackers if t.stages_s]
    rows = []
    for stage in dict.fromkeys(stage for t in with_stages for stage in t.stages_s):
        cells = []
        for tracker in with_stages:
            frames = sum(len(times) - 1 for times in tracker.times_s.values() if len(times))
            value = 1e3 * tracker.stages_s[stage] / max(frames, 1)
            cells.append(Cell(f"{value:.2f}", value, tracker.stages_s[stage] / tracker.stages_s.total()))
        rows.append([Cell(stage), *cells])
    header = ["Stage", *(tracker.label for tracker in with_stages)]
    return Table("stages", header, rows, "Milliseconds per frame by stage, mean over all frames of the first run")


def coverage(comparison: Comparison) -> Table:
    """Return what the intervals of trackers that give some hold, and their median widths."""
    heads = [f"in {100 * level:.0f} %" for level in LEVELS]
    header = ["Tracker", *heads, "in 90 %, each sequence alike", "width of 90 %, px", "frames"]
    rows = []
    for tracker in (t for t in comparison.trackers if t.reliability):
        whole = join(tracker.reliability)
        shares = [whole.coverage(level) for level in LEVELS] + [by_sequence(tracker.reliability, 0.9)]
        width, frames = whole.width(0.9), len(whole.distance)
        cells = [Cell(percent(v), v, v) for v in shares]
        rows.append([Cell(tracker.label), *cells, Cell(number_text(width), width), Cell(str(frames), frames)])
    caption = "Percent of the true sides that are in intervals of 50, 80, 90 and 95 percent"
    return Table("intervals", header, rows, caption)


def lost(comparison: Comparison) -> Table:
    """Return the scores of trackers' lost-probabilities, and their frames by the probability that was said."""
    header = ["Tracker, said", "frames", "said on average", "lost", "calibration error", "Brier", "Brier of the share"]
    rows = []
    for tracker in comparison.trackers:
        whole = join(tracker.reliability)
        if not len(whole.said):
            continue
        scores = [Cell(f"{v:.4f}", v) for v in (whole.calibration_error, *whole.brier)]
        said, share = float(whole.said.mean()), float(whole.lost.mean())
        rows.append([Cell(tracker.label), Cell(str(len(whole.said)), len(whole.said)), *_shares(said, share), *scores])
        for one in whole.bins():
            name = f"{tracker.label}, {100 * one.low:.0f} to {100 * one.high:.0f} %"
            rows.append([Cell(name), Cell(str(one.frames), one.frames), *_shares(one.said, one.lost), *[Cell("")] * 3])
    return Table("lost", header, rows, "Percent of frames: said to be lost, and lost (overlap below 0.2)")


def _shares(*values: float) -> list[Cell]:
    return [Cell(percent(value), value, value) for value in values]
