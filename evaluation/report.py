"""`ebmtrack report`: one self-contained HTML page from stored results, and a page for each sequence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, EbmtrackError, ResultError
from ebmtrack.evaluation import charts, film, report_tables, words
from ebmtrack.evaluation.comparison import Comparison, compare, discover
from ebmtrack.evaluation.page import fill
from ebmtrack.evaluation.plots import KINDS, figure_of, rank_trackers, save_plots
from ebmtrack.evaluation.reliability import join
from ebmtrack.evaluation.report_tables import percent
from ebmtrack.evaluation.sequence_pages import entries, overlap_chart, write_sequence_pages
from ebmtrack.files import write_text
from ebmtrack.videos import open_dataset
from ebmtrack.words import counted

Array = np.ndarray

PROTOCOL_TEXT = {
    "pytracking": "pytracking's rules; divided by {denominator} frames, the first one included",
    "otb": "OTB's one-pass evaluation as in the got10k toolkit; a perfect tracker scores 20/21 = 95.2 %",
    "got10k": "GOT-10k: frames pooled over sequences, first frame and invisible targets left out",
    "lasot": "LaSOT: frames without the target left out; normalised precision at 0.2",
    "trackingnet": "TrackingNet; normalised precision is the area from 0 to 0.5",
    "ope": "one pass, the first frame left out, mean over frames and then over sequences",
}

_MOST_TILES = 4
_GREY = 7  # of charts.COLORS


@dataclass(frozen=True)
class ReportOptions:
    """The options of a report.

    Attributes:
        out: Folder of our own results; None for none of ours.
        params_names: Our set-ups; all if empty.
        results: Other trackers, label -> folder in any layout that `foreign.find_results` knows.
        peers: A JSON file of figures known from elsewhere.
        protocol: Scoring rules; the data set's own by default.
        sequences: Names of sequences; all if empty.
        worst: Number of the first tracker's worst sequences to show in detail.
        title: Title of the page.
        plots: A folder for the curves as PDF, SVG, PNG and CSV, and the tables as CSV, JSON and LaTeX.
        pages: Whether to write a page for each sequence, into a folder beside the page.
    """

    out: str | os.PathLike | None = "results"
    params_names: Items[str] = ()
    results: Mapping[str, str | os.PathLike] = field(default_factory=dict)
    peers: str | os.PathLike | None = None
    protocol: str | None = None
    sequences: Items[str] = ()
    worst: int = 5
    title: str | None = None
    plots: str | os.PathLike | None = None
    pages: bool = True


def report(
    dataset: str, root: str | os.PathLike, page: str | os.PathLike, options: ReportOptions | None = None, **changes: Any
) -> Path:
    """Write a page that compares trackers on a data set, and return its path.

    Without results of ours the page shows the others alone; that, and all that makes means partial or doubtful, is
    printed to stderr as well.

    Args:
        dataset: Name of the data set.
        root: Its folder.
        page: The file to write.
        options: What to compare and show.
        **changes: Fields of the options.

    Raises:
        EbmtrackError: Something cannot be read or written.
    """
    options = replace(options or ReportOptions(), **changes)
    if options.worst < 0:
        raise ConfigError(f"worst {options.worst}: the number of sequences shown in detail cannot be negative")
    found, others = open_dataset(dataset, root), dict(options.results or {})
    alone = bool(others or options.peers) and not options.params_names
    own = _own_results(options.out, found.name, options.params_names, alone) if options.out is not None else {}
    for label in own.keys() & others.keys():  # one dictionary could not hold both
        raise ConfigError(
            f"{label} is a set-up in {own[label].parent}; give the results in {others[label]} another name"
        )
    comparison = compare(
        found, {**own, **others}, protocol=options.protocol, sequences=options.sequences, peers=options.peers
    )
    for line in _notes(comparison):
        print(f"ebmtrack: {line}", file=sys.stderr)
    page, title = Path(page), options.title or _title(comparison)
    links: dict[str, str] = {}
    with _writing(page):
        if options.pages:
            links = write_sequence_pages(comparison, page, title)
        write_text(page, render(comparison, options.worst, title, links))
    if options.plots is not None:
        with _writing(options.plots):
            save_plots(comparison, options.plots)
            _save_tables(comparison, Path(options.plots))
    return page


def _own_results(out: str | os.PathLike, dataset: str, params_names: Items[str], optional: bool) -> dict[str, Path]:
    """Return our own results by name; none if there are none and they are optional. Raises ResultError."""
    try:
        return discover(out, dataset, params_names)
    except ResultError as reason:
        if not optional:
            raise
        print(f"ebmtrack: {reason}; the page shows the others alone", file=sys.stderr)
        return {}


@contextmanager
def _writing(place: str | os.PathLike) -> Iterator[None]:
    """Turn what the disk refuses into a ConfigError."""
    try:
        yield
    except OSError as reason:
        raise ConfigError(f"{place}: cannot be written ({reason.strerror}); choose another place") from reason


def _save_tables(comparison: Comparison, folder: Path) -> None:
    """Write the tables of the page as CSV, JSON and LaTeX."""
    for table in (
        report_tables.scores(comparison),
        report_tables.sequences(comparison, {}),
        report_tables.attributes(comparison),
        report_tables.speed(comparison),
        report_tables.coverage(comparison),
        report_tables.lost(comparison),
    ):
        for end, text in table.files().items() if table else ():
            write_text(folder / f"{table.name}.{end}", text)


def _place(comparison: Comparison) -> str:
    name = comparison.dataset.name
    return f"the folder “{comparison.dataset.root.resolve().name}”" if name == "folder" else name


def _title(comparison: Comparison) -> str:
    return f"{comparison.trackers[0].label} on {_place(comparison)}"


def render(
    comparison: Comparison, worst: int = 5, title: str | None = None, links: Mapping[str, str] | None = None
) -> str:
    """Return the page as text.

    Args:
        comparison: The trackers.
        worst: Number of the first tracker's worst sequences to show in detail.
        title: Title of the page.
        links: Sequence -> address of a page about it.
    """
    links = links or {}
    about = PROTOCOL_TEXT[comparison.protocol.name].format(denominator=comparison.protocol.denominator)
    subtitle = f"{counted(len(comparison.sequences), 'sequence')} of {_place(comparison)}. "
    frames = sum(len(sequence) for sequence in comparison.sequences.values())
    notes = _notes(comparison)
    parts: dict[str, object] = {
        "scores": report_tables.scores(comparison),
        "curves": _curves(comparison),
        "without_boxes": [t.label for t in comparison.trackers if t.curve("success") is None],
        "sequences": report_tables.sequences(comparison, links),
        "attributes": report_tables.attributes(comparison),
        "worst": _worst(comparison, worst, links),
        "coverage": report_tables.coverage(comparison),
        "speed": report_tables.speed(comparison),
        "failures": [(f"{t.label}: {name}", text) for t in comparison.trackers for name, text in t.failed.items()],
    }
    worst_heading = f"Worst sequences of {comparison.trackers[0].label}"
    return fill(
        "page.html",
        title=title or _title(comparison),
        subtitle=f"{subtitle}Protocol {comparison.protocol.title}: {about}.",
        tiles=_tiles(comparison),
        notes=notes,
        notes_summary=_summary(notes),
        headings=_headings(parts, worst_heading),
        scores_note=report_tables.scores_note(comparison),
        radar=_radar(comparison),
        attribute_curves=_attribute_curves(comparison),
        entries=entries(comparison),
        worst_heading=worst_heading,
        reliability_curves=_reliability_curves(comparison),
        lost=report_tables.lost(comparison),
        speed_note=report_tables.speed_note(comparison),
        stages=report_tables.stages(comparison),
        counts=f"{counted(len(comparison.sequences), 'sequence')}, {counted(frames, 'annotated frame')}.",
        provenance=_provenance(comparison),
        words=_words(comparison),
        **parts,
    )


def _headings(parts: Mapping[str, object], worst_heading: str) -> list[str]:
    """Return the headings of the sections that have a content, in order."""
    names = {"curves": "Curves", "sequences": "Sequences", "attributes": "Attributes", "worst": worst_heading}
    names |= {"coverage": "Certainty", "speed": "Speed", "failures": "Failures"}
    return ["Scores", *(heading for part, heading in names.items() if parts[part]), "Provenance", "Words"]


def _tiles(comparison: Comparison) -> list[dict[str, object]]:
    """Return the headline figure of the first trackers, for the first screen."""
    label, figure = comparison.protocol.headline_label, comparison.protocol.headline
    tiles: list[dict[str, object]] = []
    for position, tracker in enumerate(comparison.trackers[:_MOST_TILES]):
        interval = comparison.interval(tracker)
        spread = f"95 %: {report_tables.interval_text(interval)}" if interval else ""
        value = f"{label} {percent(tracker.mean(figure))}"
        tiles.append({"label": comparison.marked_label(tracker), "value": value, "range": spread, "color": position})
    return tiles


def _notes(comparison: Comparison) -> list[str]:
    """Return what makes means partial or doubtful: missing sequences, results left out, and lengths that do not fit."""
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
        known, results = len(tracker.reliability), sum(len(run) for run in tracker.runs)
        if 0 < known < results:
            things = "sequences" if len(tracker.runs) == 1 else "sequences and runs"
            lines.append(f"{tracker.label} has intervals of {known} of {results} {things}.")
        if len(tracker.made_by) > 1:
            lines.append(f"{tracker.label} mixes results of {len(tracker.made_by)} different set-ups; see Provenance.")
    return lines + _left_out_lines(comparison) + _lengths(comparison) + _other_protocols(comparison)


def _summary(notes: Items[str], most: int = 90) -> str:
    """Return one line for all notes."""
    first = notes[0] if notes else ""
    shortened = first if len(first) <= most else first[:most].rsplit(" ", 1)[0] + " …"
    return shortened if len(notes) < 2 else f"{len(notes)} notes: {shortened}"


def _left_out_lines(comparison: Comparison) -> list[str]:
    """Return a line for each result that could not be used, with the reason."""
    return [
        f"{tracker.label} is partial: {name} is left out ({reason})."
        for tracker in comparison.trackers
        for name, reason in tracker.refused.items()
    ]


def _lengths(comparison: Comparison) -> list[str]:
    """Return a line for each tracker with results that have more or fewer boxes than the sequence has frames."""
    lines = []
    for tracker in comparison.trackers:
        told = [f"{name} ({boxes} for {frames} frames)" for name, (boxes, frames) in tracker.lengths.items()]
        if told:
            rule = f"{comparison.protocol.title} fills what is missing with empty boxes and cuts what is too long"
            lines.append(f"{tracker.label}: the number of boxes does not fit: {', '.join(told)}; {rule}.")
    return lines


def _other_protocols(comparison: Comparison) -> list[str]:
    """Return a line for each tracker whose figures from elsewhere say that another protocol judged them."""
    title, known = comparison.protocol.title, [(t.label, made) for t in comparison.trackers for made in t.made_by]
    return [
        f"{label}: its figures are of the protocol {made['protocol']}, not {title}: they cannot be compared."
        for label, made in known
        if "figures from" in made and made.get("protocol", title) != title
    ]


def _curves(comparison: Comparison) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return the three plots, each with its legend sorted by the score."""
    parts = []
    for kind, (x_label, y_label, _) in KINDS.items():
        trackers, figure = rank_trackers(comparison, kind), figure_of(comparison, kind)
        lines = [line for t in trackers if (line := comparison.line(t, kind)) is not None]
        if not lines:
            return []
        marked = [(comparison.marked_label(t), comparison.trackers.index(t), t) for t in trackers]
        legend = [(label, position, percent(t.mean(figure))) for label, position, t in marked]
        parts.append((charts.curves(lines, x_label, y_label), legend))
    return parts


def _radar(comparison: Comparison) -> str:
    """Return the headline figure by attribute as a radar; nothing with fewer than three attributes."""
    attributes = comparison.attributes()
    if len(attributes) < 3:
        return ""
    lines = []
    for position, tracker in enumerate(comparison.trackers):
        values = np.array([comparison.mean_over(tracker, names) for names in attributes.values()])
        lines.append(charts.Line(tracker.label, position, np.arange(len(values)), values))
    return charts.radar(list(attributes), lines, f"{comparison.protocol.headline_label} by attribute")


def _reliability_curves(comparison: Comparison) -> list[tuple[str, str]]:
    """Return reliability diagrams of intervals and of lost-probabilities, as far as trackers give them."""
    levels, honest = np.linspace(0.05, 0.95, 19), charts.Line("as said", _GREY, np.array([0, 1]), np.array([0, 1]))
    held, lost = [], []
    for color, tracker in enumerate(comparison.trackers):
        whole = join(tracker.reliability)
        if len(whole.distance):
            shares = np.array([whole.coverage(level) for level in levels])
            held.append(charts.Line(tracker.label, color, levels, shares))
        if len(bins := whole.bins()) > 1:
            said, share = np.array([(one.said, one.lost) for one in bins]).T
            lost.append(charts.Line(tracker.label, color, said, share))
    drawn = [("Intervals", held, "probability of the interval", "share of true sides inside")]
    drawn += [("Lost-probability", lost, "lost-probability", "share of frames that are lost")]
    return [(name, charts.curves([*lines, honest], x, y)) for name, lines, x, y in drawn if lines]


def _attribute_curves(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the success curves over the sequences with each attribute."""
    x_label, y_label, _ = KINDS["success"]
    drawn = []
    for attribute, names in comparison.attributes().items():
        lines = [line for t in comparison.trackers if (line := comparison.line(t, "success", names)) is not None]
        if lines:
            drawn.append((attribute, charts.curves(lines, x_label, y_label)))
    return drawn


def _worst(comparison: Comparison, count: int, links: Mapping[str, str]) -> list[dict[str, object]]:
    """Return overlap over time and pictures for the first tracker's worst sequences."""
    ours, label = comparison.trackers[0], comparison.protocol.headline_label
    values = ours.values(comparison.protocol.headline) if ours.runs else {}
    shown: list[dict[str, object]] = []
    for name in sorted(values, key=lambda name: values[name])[:count]:
        shots, trouble = _thumbnails(comparison, name)
        figure, chart = f"{label} {percent(values[name])}", overlap_chart(comparison, name)
        link = links.get(name, "")
        shown.append({"name": name, "figure": figure, "link": link, "chart": chart, "shots": shots, "trouble": trouble})
    return shown


def _thumbnails(comparison: Comparison, name: str) -> tuple[list[film.Shot], str]:
    """Return frames of the longest failure, or else the one with the smallest overlap; or why there are none."""
    score = comparison.trackers[0].score(name)
    if score is None or not score.valid.any():
        return [], ""
    stretch = film.longest(film.failures(score))
    lowest = int(np.where(score.valid, score.overlap, np.inf).argmin())
    try:
        return comparison.shots(name, film.frames_around(stretch) if stretch else [lowest], 320), ""
    except EbmtrackError as reason:  # the images may be gone while the results are still here
        return [], str(reason)


def _provenance(comparison: Comparison) -> list[tuple[str, list[tuple[str, object]], str]]:
    """Return labels of trackers, what made their results, and the parameters as JSON."""
    owners: dict[str, list[str]] = {}
    for tracker in comparison.trackers:
        for made_by in tracker.made_by or [{"source": "files without a marker"}]:
            owners.setdefault(json.dumps(made_by, sort_keys=False, default=str), []).append(tracker.label)
    parts = []
    for text, labels in owners.items():
        made_by = json.loads(text)
        params = json.dumps(made_by.pop("params"), indent=1, sort_keys=True) if "params" in made_by else ""
        parts.append((", ".join(labels), list(made_by.items()), params))
    return parts


def _words(comparison: Comparison) -> list[tuple[str, str]]:
    """Return explanations of the abbreviations on the page."""
    heads = " ".join([*report_tables.columns(comparison).values(), "95 % interval", "overlap"])
    heads += " ".join(report_tables.lost(comparison).header) * any(t.reliability for t in comparison.trackers)
    figures = [(word, meaning) for word, meaning in words.FIGURES.items() if word in heads]
    attributes = [(name, words.ATTRIBUTES[name]) for name in comparison.attributes() if name in words.ATTRIBUTES]
    return [*figures, *attributes]
