"""`ebmtrack report`: one self-contained HTML page from stored results."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, EbmtrackError, ResultError
from ebmtrack.evaluation import metrics
from ebmtrack.evaluation.comparison import Comparison, TrackerScores, compare, discover
from ebmtrack.evaluation.page import Cell, Line, chart, document, escape, legend, table, thin
from ebmtrack.evaluation.plots import KINDS, figure_of, ranked, save_plots
from ebmtrack.files import write_text
from ebmtrack.images import encode_picture, read_rgb
from ebmtrack.videos import open_dataset

Array = np.ndarray

COLUMNS = {
    "average_overlap": "AO",
    "auc": "AUC",
    "op50": "OP 0.50",
    "op75": "OP 0.75",
    "precision_20": "Precision 20 px",
    "norm_precision": "Norm. precision",
    "fps": "frames/s",
}

PROTOCOL_TEXT = {
    "pytracking": "pytracking's rules; divided by {denominator} frames, the first one included",
    "otb": "OTB's one-pass evaluation as in the got10k toolkit; a perfect tracker scores 20/21 = 95.2 %",
    "got10k": "GOT-10k: frames pooled over sequences, first frame and invisible targets left out",
    "lasot": "LaSOT: frames without the target left out; normalised precision at 0.2",
    "trackingnet": "TrackingNet; normalised precision is the area from 0 to 0.5",
    "ope": "one pass, the first frame left out, mean over frames and then over sequences",
}


def report(
    dataset: str,
    root: str | os.PathLike,
    page: str | os.PathLike,
    *,
    out: str | os.PathLike | None = "results",
    params_names: Items[str] = (),
    results: Mapping[str, str | os.PathLike] | None = None,
    peers: str | os.PathLike | None = None,
    protocol: str | None = None,
    sequences: Items[str] = (),
    worst: int = 5,
    title: str | None = None,
    plots: str | os.PathLike | None = None,
) -> Path:
    """Write a page that compares trackers on a data set, and return its path.

    out, params_names: our own results below that folder (all parameters without names; None for no results of ours).
    results: other trackers, label -> folder in any layout that `results.find_results` knows. peers: a JSON file of
    figures known from elsewhere. worst: how many of the first tracker's worst sequences are shown in detail.
    plots: a folder for the curves as PDF, SVG, PNG and CSV as well. Raises the package's errors for what cannot be read
    or written. Without results of ours the page shows the others alone; that, and results that are left out, is printed
    to stderr as well.
    """
    alone = bool(results or peers) and not params_names
    own = _own(out, open_dataset(dataset, root).name, params_names, alone) if out is not None else {}
    if worst < 0:
        raise ConfigError(f"worst {worst}: how many sequences are shown in detail cannot be negative")
    comparison = compare(
        open_dataset(dataset, root),
        {**own, **(results or {})},
        protocol=protocol,
        sequences=sequences,
        peers=peers,
    )
    for line in _left_out(comparison):
        print(f"ebmtrack: {line}", file=sys.stderr)
    text = render(comparison, worst, title)
    with _writing(page):
        write_text(page, text)
    if plots is not None:
        with _writing(plots):
            save_plots(comparison, plots)
    return Path(page)


def _own(out: str | os.PathLike, dataset: str, params_names: Items[str], optional: bool) -> dict[str, Path]:
    """Our own results by name; none where there are none and they are optional. Raises ResultError."""
    try:
        return discover(out, dataset, params_names)
    except ResultError as reason:
        if not optional:
            raise
        print(f"ebmtrack: {reason}; the page shows the others alone", file=sys.stderr)
        return {}


@contextmanager
def _writing(place: str | os.PathLike) -> Iterator[None]:
    """Turns what the disk refuses into a ConfigError."""
    try:
        yield
    except OSError as reason:
        raise ConfigError(f"{place}: cannot be written ({reason.strerror}); choose another place") from reason


def render(comparison: Comparison, worst: int = 5, title: str | None = None) -> str:
    """The page as text."""
    about = PROTOCOL_TEXT[comparison.protocol.name].format(denominator=comparison.protocol.denominator)
    first = comparison.trackers[0].label
    place = comparison.dataset.name
    place = f"the folder “{comparison.dataset.root.resolve().name}”" if place == "folder" else place
    subtitle = (
        f"{_counted(len(comparison.sequences), 'sequence')} of {escape(place)}. "
        f"Protocol <b>{escape(comparison.protocol.title)}</b>: {escape(about)}."
    )
    sections = [
        ("Scores", _warnings(comparison) + _scores(comparison)),
        ("Curves", _curves(comparison)),
        ("Sequences", _sequences(comparison)),
        ("Attributes", _attributes(comparison)),
        (f"Worst sequences of {first}", _worst(comparison, worst)),
        ("Speed", _speed(comparison)),
        ("Failures", _failures(comparison)),
        ("Provenance", _provenance(comparison)),
    ]
    shown = [(heading, content) for heading, content in sections if content]
    return document(title or f"{first} on {place}", subtitle, shown)


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; a dash where it is not known."""
    return f"{100 * value:.{digits}f}" if np.isfinite(value) else "–"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def _scores(comparison: Comparison) -> str:
    """Headline table: figures of every tracker with intervals, and how many sequences where that differs."""
    partial = len({len(tracker.figures) for tracker in comparison.trackers}) > 1
    columns, label = _columns(comparison), comparison.protocol.headline_label
    header = ["Tracker", *columns.values(), f"{label}, 95 % interval", f"{label}, first minus this"]
    header += ["sequences"] * partial
    rows = []
    for tracker in comparison.trackers:
        interval, difference = comparison.interval(tracker), comparison.difference(tracker)
        own = tracker is comparison.trackers[0]
        cells = [_figure(comparison, tracker, name) for name in columns]
        cells += [Cell(_range(interval)), Cell("" if own else _signed(difference))]
        cells += [Cell(str(len(tracker.figures)), len(tracker.figures))] * partial
        rows.append([Cell(tracker.label), *cells])
    runs = [len(tracker.runs) for tracker in comparison.trackers if tracker.runs]
    spread = [_spread(tracker, comparison.protocol) for tracker in comparison.trackers if len(tracker.runs) > 1]
    note = (
        "Percent. Intervals are bootstrapped over sequences; the difference is paired, on the sequences that both "
        f"trackers have. Runs: {max(runs, default=0)}. {' '.join(spread)}"
    )
    return table(header, rows) + f'<p class="note">{escape(note)}</p>'


def _columns(comparison: Comparison) -> dict[str, str]:
    """Figures to show: GOT-10k's with the names that it has for them, without the precision that it does not have."""
    if comparison.protocol.pooled:
        return {"average_overlap": "AO", "op50": "SR 0.50", "op75": "SR 0.75", "auc": "AUC", "fps": "frames/s"}
    return {name: label for name, label in COLUMNS.items() if name != "average_overlap"}


def _figure(comparison: Comparison, tracker: TrackerScores, name: str) -> Cell:
    """One figure of one tracker, marked where it is the best of those that have all sequences."""
    value = tracker.mean(name)
    known = [t.mean(name) for t in comparison.trackers if np.isfinite(t.mean(name)) and not comparison.missing(t)]
    text = (f"{value:.1f}" if np.isfinite(value) else "–") if name == "fps" else percent(value)
    best = len(known) > 1 and value == max(known) and not comparison.missing(tracker)
    return Cell(text, value, None if name == "fps" else value, best=best)


def _range(interval: metrics.Interval | None) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else "–"


def _signed(interval: metrics.Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def _spread(tracker: TrackerScores, chosen: metrics.Protocol) -> str:
    mean, deviation = metrics.over_runs([getattr(summary, chosen.headline) for summary in tracker.summaries])
    spread = f"{percent(mean, 2)} with standard deviation {percent(deviation, 2)} over runs"
    return f"{tracker.label}: {chosen.headline_label} {spread}."


def _warnings(comparison: Comparison) -> str:
    """What makes means partial: missing sequences, results that are left out, and failures."""
    lines = []
    if comparison.dataset.shortfall():
        lines.append(f"{comparison.dataset.name} is not complete: {comparison.dataset.shortfall()}.")
    for tracker in comparison.trackers:
        missing = [name for name in comparison.missing(tracker) if name not in tracker.refused]
        if missing:
            lines.append(f"{tracker.label} is partial: no result for {', '.join(missing)}.")
        fewer = [name for name in tracker.figures if any(name not in run for run in tracker.runs)]
        if fewer:
            lines.append(f"{tracker.label} is partial: fewer than {len(tracker.runs)} runs of {', '.join(fewer)}.")
        if len(tracker.made_by) > 1:
            lines.append(f"{tracker.label} mixes results of {len(tracker.made_by)} different set-ups; see Provenance.")
    return "".join(f'<p class="warn">{escape(line)}</p>' for line in lines + _left_out(comparison))


def _left_out(comparison: Comparison) -> list[str]:
    """Results that could not be used, with the reasons."""
    return [
        f"{tracker.label} is partial: {name} is left out ({reason})."
        for tracker in comparison.trackers
        for name, reason in tracker.refused.items()
    ]


def _curves(comparison: Comparison) -> str:
    """The three plots, each with its legend sorted by the score."""
    parts = []
    for kind, (x_label, y_label, _) in KINDS.items():
        trackers, figure = ranked(comparison, kind), figure_of(comparison, kind)
        if not trackers:
            return ""
        lines = [Line(t.label, comparison.trackers.index(t), *t.curve(kind)) for t in trackers]
        entries = [(t.label, comparison.trackers.index(t), percent(t.mean(figure))) for t in trackers]
        drawing = chart(lines, x_label, y_label, float(lines[0].xs.max()))
        parts.append(f"<div>{drawing}{legend(entries)}</div>")
    without = [t.label for t in comparison.trackers if t.curve("success") is None]
    note = f'<p class="note">No boxes, so no curves: {escape(", ".join(without))}.</p>' if without else ""
    return f'<div class="grid3">{"".join(parts)}</div>{note}'


def _sequences(comparison: Comparison) -> str:
    """The headline figure of every tracker on every sequence."""
    header = ["Sequence", *(tracker.label for tracker in comparison.trackers), "frames"]
    rows, figure = [], comparison.protocol.headline
    for name, sequence in comparison.sequences.items():
        values = [tracker.figures.get(name, {}).get(figure, float("nan")) for tracker in comparison.trackers]
        best = np.nanmax(values) if np.isfinite(values).any() and len(values) > 1 else np.nan
        cells = [Cell(percent(v), v, v, best=v == best) for v in values]
        rows.append([Cell(name), *cells, Cell(str(len(sequence)), len(sequence))])
    return table(header, rows, f"{comparison.protocol.headline_label} in percent; press a column's head to sort")


def _attributes(comparison: Comparison) -> str:
    """The headline figure over the sequences with each attribute, weighted as the protocol does."""
    rows = []
    for attribute, names in comparison.attributes().items():
        values = [comparison.mean_over(tracker, names) for tracker in comparison.trackers]
        rows.append([Cell(attribute), *(Cell(percent(v), v, v) for v in values), Cell(str(len(names)), len(names))])
    header = ["Attribute", *(tracker.label for tracker in comparison.trackers), "sequences"]
    caption = f"{comparison.protocol.headline_label} in percent over the sequences with an attribute"
    return table(header, rows, caption) if rows else ""


def _worst(comparison: Comparison, count: int) -> str:
    """Overlap over time for the first tracker's worst sequences, with the frames where it failed."""
    ours = comparison.trackers[0]
    values, label = ours.values(comparison.protocol.headline) if ours.runs else {}, comparison.protocol.headline_label
    names = sorted(values, key=lambda name: values[name])[:count]
    drawn = [t for t in comparison.trackers if t.runs]
    parts = []
    for name in names:
        lines = [
            Line(t.label, comparison.trackers.index(t), *thin(_overlap(t.runs[0][name])))
            for t in drawn
            if name in t.runs[0]
        ]
        drawing = chart(lines, "frame", "overlap", max(len(comparison.sequences[name]) - 1, 1), wide=True, title=name)
        parts.append(f"<h3>{escape(name)}: {label} {percent(values[name])}</h3>")
        parts.append(f'<div class="wide">{drawing}</div>{_thumbnails(comparison, name)}')
    entries = [(t.label, comparison.trackers.index(t), "") for t in drawn]
    note = '<p class="note">Thumbnails: the annotation in white, the tracker in orange.</p>'
    return legend(entries, row=True) + "".join(parts) + note if parts else ""


def _thumbnails(comparison: Comparison, name: str) -> str:
    """Frames from the longest stretch with an overlap of 0.2 or less, or else the one with the smallest overlap."""
    sequence, ours = comparison.sequences[name], comparison.trackers[0]
    score = ours.runs[0].get(name)
    if score is None or not score.valid.any():
        return ""
    stretch = failure(score)
    if stretch is None:
        picks = [int(np.where(score.valid, score.overlap, np.inf).argmin())]
    else:
        picks = sorted({max(stretch[0] - 1, 0), stretch[0], (stretch[0] + stretch[1]) // 2, stretch[1]})
    try:
        paths = sequence.frame_paths()
        boxes = ours.folder.read(name, ours.numbers[0]).boxes_xywh
        figures = [_figure_of(paths[i], sequence.boxes_xywh[i], boxes[i], i, score.overlap[i]) for i in picks]
    except EbmtrackError as reason:  # the images may be gone while the results are still here
        return f'<p class="note">No thumbnails: {escape(reason)}</p>'
    return f'<div class="thumbs">{"".join(figures)}</div>'


def _overlap(score: metrics.SequenceScore) -> Array:
    """Overlap per frame, NaN where a frame is not judged."""
    return np.where(score.valid, np.clip(score.overlap, 0, 1), np.nan)


def failure(score: metrics.SequenceScore, overlap: float = 0.2) -> tuple[int, int] | None:
    """First and last frame of the longest stretch of judged frames with at most that overlap; None without any."""
    bad = (score.overlap <= overlap) & score.valid
    if not bad.any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest] - 1)


def _figure_of(path: Path, truth: Array, box: Array, frame: int, overlap: float) -> str:
    """A thumbnail as a JPEG inside the page: the surroundings of both boxes, 320 pixels wide."""
    image = read_rgb(path)
    known = [b for b in np.clip((truth, box), -1e5, 1e5) if np.isfinite(b).all()]
    left, top, right, bottom = window(image.shape[1], image.shape[0], np.array(known).reshape(-1, 4))
    scale = 320 / (right - left)
    image = cv2.resize(image[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for color, rectangle in (((255, 255, 255), truth), ((213, 94, 0), box)):
        if np.isfinite(rectangle).all():
            x, y, w, h = np.clip(rectangle, -1e5, 1e5) - [left, top, 0, 0]
            low, high = (round(x * scale), round(y * scale)), (round((x + w) * scale), round((y + h) * scale))
            cv2.rectangle(image, low, high, (0, 0, 0), 4)
            cv2.rectangle(image, low, high, color, 2)
    data = base64.b64encode(encode_picture(image, ".jpg", quality=72)).decode()
    text = f"frame {frame}, overlap {max(float(overlap), 0):.2f}"
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


def window(width: int, height: int, boxes_xywh: Array) -> tuple[int, int, int, int]:
    """The part of an image to show around boxes (N, 4): left, top, right, bottom.

    Three times as large as what encloses the boxes, at least a quarter of the image's width, of the image's shape and
    inside it; the whole image where that does not fit, or without boxes.
    """
    if not len(boxes_xywh):
        return 0, 0, width, height
    low, high = boxes_xywh[:, :2].min(axis=0), (boxes_xywh[:, :2] + boxes_xywh[:, 2:]).max(axis=0)
    share = float(max((3 * (high - low) / [width, height]).max(), 0.25))
    if share >= 1:
        return 0, 0, width, height
    size = np.maximum(np.rint([share * width, share * height]), 1)
    corner = np.clip(np.rint((low + high - size) / 2), 0, [width, height] - size)
    return tuple(int(v) for v in (*corner, *(corner + size)))


def _speed(comparison: Comparison) -> str:
    """Start and update times of every tracker whose times are known."""
    rows = []
    for tracker in comparison.trackers:
        times = [t for t in tracker.times_s.values() if len(t) > 1]
        if times:
            start, later = np.array([t[0] for t in times]), np.concatenate([t[1:] for t in times])
            cells = [np.median(start), np.median(later), np.quantile(later, 0.95), later.max()]
            fps = len(later) / later.sum() if later.sum() else float("nan")
            rows.append(
                [
                    Cell(tracker.label),
                    *(Cell(f"{1e3 * c:.1f}", float(c)) for c in cells),
                    Cell(f"{fps:.1f}", fps),
                ]
            )
    header = ["Tracker", "start, ms", "median frame, ms", "95 % of frames, ms", "slowest, ms", "frames/s"]
    note = '<p class="note">Time of the tracker\'s calls alone; reading images is not counted. First run.</p>'
    return table(header, rows) + note + _stages(comparison) if rows else ""


def _stages(comparison: Comparison) -> str:
    """Milliseconds per frame by stage, for trackers that say."""
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
    return table(header, rows, "Milliseconds per frame by stage, mean over all frames of the first run") if rows else ""


def _failures(comparison: Comparison) -> str:
    """Tracebacks of sequences that could not be run."""
    return "".join(
        f"<details><summary>{escape(tracker.label)}: {escape(name)}</summary><pre>{escape(text)}</pre></details>"
        for tracker in comparison.trackers
        for name, text in tracker.failed.items()
    )


def _provenance(comparison: Comparison) -> str:
    """What made the results: weights, seed, versions, device, and the parameters on request."""
    owners: dict[str, list[str]] = {}
    for tracker in comparison.trackers:
        for made_by in tracker.made_by or [{"source": "files without a marker"}]:
            owners.setdefault(_made_by(made_by), []).append(tracker.label)
    frames = sum(len(sequence) for sequence in comparison.sequences.values())
    counts = f"{_counted(len(comparison.sequences), 'sequence')}, {_counted(frames, 'annotated frame')}"
    data = f'<p class="note">{counts}.</p>'
    return data + "".join(f"<h3>{escape(', '.join(labels))}</h3>{text}" for text, labels in owners.items())


def _made_by(made_by: Mapping[str, object]) -> str:
    """One set of things that made results."""
    rows = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in made_by.items() if key != "params"
    )
    params = json.dumps(made_by.get("params", {}), indent=1, sort_keys=True)
    more = f"<details><summary>parameters</summary><pre>{escape(params)}</pre></details>"
    return f"<dl>{rows}</dl>{more if 'params' in made_by else ''}"
