"""A page for each sequence: overlap over frames, and a film strip around each failure with every tracker's box."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ebmtrack.errors import EbmtrackError
from ebmtrack.evaluation import charts, film
from ebmtrack.evaluation.comparison import Comparison
from ebmtrack.evaluation.metrics import SequenceScore
from ebmtrack.evaluation.page import fill
from ebmtrack.evaluation.report_tables import COLUMNS, percent
from ebmtrack.evaluation.score_tables import Cell, Table
from ebmtrack.evaluation.scoring import FIGURES
from ebmtrack.files import write_text
from ebmtrack.words import counted

MOST_STRIPS = 6  # of the longest failures, so that a page stays below 5 MB
_FIGURES = {name: COLUMNS[name] for name in FIGURES if name != "fps"}


def write_sequence_pages(comparison: Comparison, page: Path, title: str) -> dict[str, str]:
    """Write a page for each sequence into a folder beside a report, and return their addresses by sequence.

    Args:
        comparison: The trackers.
        page: The file of the report; the folder is called `<stem>_sequences`.
        title: Title of the report.
    """
    folder = page.with_name(f"{page.stem}_sequences")
    links = {}
    for number, name in enumerate(comparison.sequences):
        file = f"{number:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:80]}.html"
        write_text(folder / file, render_sequence(comparison, name, f"../{quote(page.name)}", title))
        links[name] = f"{quote(folder.name)}/{file}"
    return links


def render_sequence(comparison: Comparison, name: str, back: str = "", back_title: str = "back") -> str:
    """Return the page of one sequence as text.

    Args:
        comparison: The trackers.
        name: The sequence.
        back: Address of the report.
        back_title: Title of the report.
    """
    sequence, score = comparison.sequences[name], comparison.trackers[0].score(name)
    stretches = film.failures(score) if score is not None else []
    shown = sorted(sorted(stretches, key=lambda s: s[0] - s[1])[:MOST_STRIPS])
    strips, trouble = _strips(comparison, name, shown, score)
    attributes = f"; attributes: {', '.join(sequence.attributes)}" if sequence.attributes else ""
    count = counted(len(stretches), "failure") if stretches else "No failure"
    longest = f", the {len(shown)} longest" if len(shown) < len(stretches) else ""
    first = comparison.trackers[0].label
    return fill(
        "sequence.html",
        title=name,
        subtitle=f"{len(sequence)} frames{attributes}.",
        back=back,
        back_title=back_title,
        scores=_scores(comparison, name),
        chart=overlap_chart(comparison, name),
        entries=entries(comparison),
        first=first,
        strips_heading=f"{count} of {first}{longest}",
        strips=strips,
        trouble=trouble,
    )


def overlap_chart(comparison: Comparison, name: str) -> str:
    """Return the overlap of every tracker over the frames of a sequence as SVG; nothing without boxes."""
    lines = []
    for position, tracker in enumerate(comparison.trackers):
        score = tracker.score(name)
        if score is not None:
            lines.append(charts.Line(tracker.label, position, *charts.thin(_overlap(score))))
    first = comparison.trackers[0].score(name)
    failures = film.failures(first) if first is not None else []
    return charts.overlaps(lines, len(comparison.sequences[name]), name, failures) if lines else ""


def entries(comparison: Comparison) -> list[tuple[str, int, str]]:
    """Return label, colour and an empty score of each tracker that has boxes, for a legend."""
    return [(t.label, position, "") for position, t in enumerate(comparison.trackers) if t.runs]


def _overlap(score: SequenceScore) -> np.ndarray:
    """Return the overlap per frame, NaN for frames that are not judged."""
    return np.where(score.valid, np.clip(score.overlap, 0, 1), np.nan)


def _strips(
    comparison: Comparison, name: str, stretches: list[tuple[int, int]], score: SequenceScore | None
) -> tuple[list[tuple[str, list[film.Shot]]], str]:
    """Return a heading and pictures for each failure, else for the frame with the least overlap; or the trouble."""
    if score is None or not score.valid.any():
        return [], "no frame of this sequence is judged"
    lowest = int(np.where(score.valid, score.overlap, np.inf).argmin())
    wanted = [(f"Frames {first} to {last}", film.frames_around((first, last))) for first, last in stretches]
    try:
        strips = [
            (heading, comparison.shots(name, frames, 560))
            for heading, frames in wanted or [("The frame with the smallest overlap", [lowest])]
        ]
        return strips, ""
    except EbmtrackError as reason:  # the images may be gone while the results are still here
        return [], str(reason)


def _scores(comparison: Comparison, name: str) -> Table:
    """Return the figures of every tracker on one sequence."""
    rows = []
    for tracker in comparison.trackers:
        values = [tracker.figures.get(name, {}).get(figure, float("nan")) for figure in _FIGURES]
        cells = [Cell(percent(v), v, v) for v in values]
        rows.append([Cell(tracker.label), *cells])
    return Table(f"scores-{name}", ["Tracker", *_FIGURES.values()], rows, "Percent")
