"""What tracking a video has come to: results, their summary, and how a frame of them is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ebmtrack.viewers.drawing import PALETTE, draw_box, draw_soft_edge, draw_text
from ebmtrack.viewers.follow import Step
from ebmtrack.viewers.results import FrameResult
from ebmtrack.words import counted


@dataclass
class VideoTrack:
    """The outcome of tracking so far: results, the numbers of their frames, time and files.

    `seconds` counts the tracker's updates alone; with key frames, reading as well. `untouched` are files of an earlier
    run, beside which those of this one stay partial, because it did not come to its end.
    """

    rows: list[FrameResult] = field(default_factory=list)
    frames: set[int] = field(default_factory=set)
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)
    untouched: list[Path] = field(default_factory=list)
    interval: float | None = None  # probability of the intervals that are drawn as soft edges

    def add(self, step: Step) -> None:
        """Note down one more frame."""
        self.add_rows(step.results)
        self.seconds += step.seconds

    def add_rows(self, rows: Sequence[FrameResult]) -> None:
        """Note down results."""
        self.rows += rows
        self.frames.update(row.frame for row in rows)

    def sort(self) -> None:
        """Bring results that came in stretches into the order of frames."""
        self.rows.sort(key=lambda row: (row.frame, row.id))

    @property
    def lost(self) -> int:
        """The number of results in which a target was lost."""
        return sum(row.verdict == "not_found" for row in self.rows)

    @property
    def unreadable(self) -> list[int]:
        """The numbers, from 0, of frames that could not be read; their boxes are those of the frame before."""
        return sorted({row.frame for row in self.rows if row.verdict == "unreadable"})

    @property
    def boxes_xywh(self) -> list[tuple[float, ...]]:
        """The boxes of the first target, from the one that tracking began with on."""
        first = min((row.id for row in self.rows), default=0)
        return [row.box_xywh for row in self.rows if row.id == first]

    @property
    def fps(self) -> float:
        """Frames tracked for each second that the tracker worked (0 before the second frame)."""
        return (len(self.frames) - len(self.unreadable) - 1) / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """Return one line with the number of frames, the speed, the losses and the files."""
        frames, targets = len(self.frames), len({row.id for row in self.rows})
        speed = f", {self.fps:.1f} frames/s" if frames > 1 else ""
        lost = f"lost in {self.lost}" if self.lost else "never lost"
        lost += f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        several = f"{targets} targets, " if targets > 1 else ""
        files = ", ".join(map(str, self.files)) or "nothing"
        if self.untouched:
            stay = "stay as they were" if len(self.untouched) > 1 else "stays as it was"
            files += f"; {', '.join(map(str, self.untouched))} {stay}"
        return f"{several}{counted(frames, 'frame')}{speed}, {lost}; saved {files}"


def draw_results(
    image: np.ndarray, rows: Sequence[FrameResult], fps: float, interval: float | None = None
) -> np.ndarray:
    """Return a copy of a frame with boxes, its number and the speed if there is one; soft edges are intervals."""
    drawn = image.copy()
    for row in rows:
        label, colour = f"{row.id} " * (len(rows) > 1), PALETTE[(row.id - 1) % len(PALETTE)]
        label += "start" if row.score is None else f"{row.score:.2f}"
        if interval is not None and row.density is not None:
            draw_soft_edge(drawn, row.density.interval(interval), colour)
        draw_box(drawn, row.box_xywh, label, colour=colour, lost=not row.found)
    return draw_text(drawn, f"{rows[0].frame}" + f"  {fps:.0f} frames/s" * (fps > 0), (0, 0))
