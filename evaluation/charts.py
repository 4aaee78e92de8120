"""Charts of pages and papers, drawn by matplotlib: curves, overlap over frames, and a radar of attributes.

A page takes them as SVG whose colours are the page's CSS variables, so that they follow its dark mode.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

# Okabe and Ito's colours, which people with any colour vision can tell apart; a page has its own shades of them.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", "--", "-.", ":")

_SOFT, _RULE, _BAD = "#010203", "#040506", "#070809"  # stand for the page's variables --soft, --rule and --bad
_VARIABLES = {_SOFT: "--soft", _RULE: "--rule", _BAD: "--bad"} | {c.lower(): f"--c{i}" for i, c in enumerate(COLORS)}
_PAPER_STYLE: Any = {"font.size": 9, "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "ebmtrack"}
_TEXTS = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
_PAGE_STYLE: Any = {**_PAPER_STYLE, **dict.fromkeys(_TEXTS, _SOFT)}


@dataclass(frozen=True)
class Line:
    """A line of a chart; `color` is the tracker's position, so that it looks the same in every chart."""

    label: str
    color: int
    xs: Array
    ys: Array


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw as a paper wants it while the block runs: text stays text, equal input gives equal bytes."""
    import matplotlib

    with matplotlib.rc_context(_PAPER_STYLE):
        yield


def curves(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Return lines over 0 .. the largest x and 0 .. 1 as SVG for a page; the first line is on top."""
    with _page_figure(4.2, 3.0) as (figure, axes):
        draw_curves(axes, lines, x_label, y_label)
        return _inline(figure, y_label)


def draw_curves(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str) -> None:
    """Draw lines over 0 .. the largest x and 0 .. 1 into axes; the first line is on top."""
    for rank, line in enumerate(lines):
        axes.plot(line.xs, line.ys, label=line.label, zorder=3 - rank / 1e3, **_stroke(line.color))
    limit = max((float(np.max(line.xs)) for line in lines), default=1.0)
    axes.set(xlim=(0, limit), ylim=(0, 1), xlabel=x_label, ylabel=y_label)
    _tidy(axes)


def overlaps(lines: Sequence[Line], frames: int, title: str, failures: Sequence[tuple[int, int]] = ()) -> str:
    """Return the overlap over the frames of a sequence as a wide SVG for a page; the first line stands out.

    Args:
        lines: Overlap per frame; NaN for frames that are not judged leaves a gap.
        frames: Number of frames of the sequence.
        title: Text for readers who cannot see the chart.
        failures: First and last frames of stretches to shade.
    """
    with _page_figure(9.6, 1.9) as (figure, axes):
        for rank, line in enumerate(lines):
            faint = {"linewidth": 1.1, "alpha": 0.7} if rank else {}
            style = {**_stroke(line.color), **faint}
            axes.plot(*_with_dashes_for_lone_values(line), label=line.label, zorder=3 - rank / 1e3, **style)
        for first, last in failures:
            axes.axvspan(first - 0.5, last + 0.5, color=_BAD, alpha=0.15, linewidth=0, clip_on=False)
        axes.set(xlim=(0, max(frames - 1, 1)), ylim=(0, 1), xlabel="frame", ylabel="overlap", yticks=[0, 0.5, 1])
        _tidy(axes)
        return _inline(figure, title)


def radar(labels: Sequence[str], lines: Sequence[Line], title: str) -> str:
    """Return values 0 .. 1 on as many spokes as there are labels as SVG for a page; `xs` of the lines are not used."""
    angles = np.linspace(0, 2 * np.pi, len(labels), endpoint=False)
    with _page_figure(4.2, 4.2, polar=True) as (figure, axes):
        for rank, line in enumerate(lines):
            closed = np.append(line.ys, line.ys[:1])
            axes.plot(np.append(angles, 2 * np.pi), closed, zorder=3 - rank / 1e3, **_stroke(line.color))
        highest = max((float(np.nanmax(line.ys)) for line in lines if np.isfinite(line.ys).any()), default=1.0)
        axes.set(ylim=(0, min(1.0, math.ceil(10 * highest + 1e-9) / 10)))
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_xticks(angles, labels)
        axes.tick_params(length=0)
        axes.grid(True, color=_RULE, linewidth=0.8, clip_on=False)
        axes.spines["polar"].set_visible(False)
        return _inline(figure, title)


def thin(ys: Array, most: int = 300) -> tuple[Array, Array]:
    """Return positions and values of at most `most` points, means over equal stretches, to keep long sequences small.

    A stretch is at least as long as the usual distance of known values, so that a line joins every tenth frame if
    every tenth is annotated. Means are of what is known in a stretch; both are NaN if nothing is.
    """
    ys = np.asarray(ys, float)
    known = np.isfinite(ys)
    apart = int(np.median(np.diff(np.flatnonzero(known)))) if known.sum() > 1 else 1
    count = min(most, len(ys) // apart)
    if count == len(ys):
        return np.arange(len(ys), dtype=float), ys
    starts = np.linspace(0, len(ys), count + 1).astype(int)[:-1]
    counts = np.add.reduceat(known, starts, dtype=float)
    counts[counts == 0] = np.nan
    xs, means = (np.add.reduceat(np.where(known, v, 0.0), starts) / counts for v in (np.arange(len(ys)), ys))
    return xs, means


def _with_dashes_for_lone_values(line: Line) -> tuple[Array, Array]:
    """Return the points of a line, in which a value between two gaps has become a short dash."""
    xs, ys = np.asarray(line.xs, float), np.asarray(line.ys, float)
    known = np.concatenate([[False], np.isfinite(ys), [False]])
    lone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    half = 0.002 * max(float(np.nanmax(xs)) if np.isfinite(xs).any() else 1.0, 1.0)
    dashes = np.stack([xs[lone] - half, xs[lone] + half, np.full(len(lone), np.nan)], axis=1).ravel()
    values = np.stack([ys[lone], ys[lone], np.full(len(lone), np.nan)], axis=1).ravel()
    return np.concatenate([xs, [np.nan], dashes]), np.concatenate([ys, [np.nan], values])


def _stroke(color: int) -> dict[str, Any]:
    dashes = DASHES[color // len(COLORS) % len(DASHES)]
    return {"color": COLORS[color % len(COLORS)], "linestyle": dashes, "clip_on": False}


def _tidy(axes: Axes) -> None:
    """Leave of frame, ticks and grid what helps to read values."""
    axes.grid(True, color=_RULE if axes.xaxis.label.get_color() == _SOFT else "#b0b0b0", linewidth=0.6, clip_on=False)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


@contextmanager
def _page_figure(width: float, height: float, polar: bool = False) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure of a size in inches, and axes in it, in the page's style."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    with matplotlib.rc_context(_PAGE_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot(projection="polar" if polar else None)


def _inline(figure: Figure, title: str) -> str:
    """Return a figure as SVG inside HTML: without a head, ids and addresses, in the page's font and colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for unwanted in (
        r"<metadata>.*?</metadata>",
        r'\sxmlns(:\w+)?="[^"]*"',
        r'\sid="[^"]*"',
        r"<defs>\s*<style.*?</defs>",
    ):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = re.sub(
        r"font(-family)?:[^;\"]*?(\d+px)?[^;\"]*(?=[;\"])", lambda m: f"font-size: {m[2]}" if m[2] else "", text
    )
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}"'
    return re.sub(r'^<svg width="[^"]*" height="[^"]*"', head, text).strip()
