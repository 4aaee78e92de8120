"""How well a tracker knows how sure it is: coverage of its intervals, and calibration of its lost-probability.

`eval --intervals` stores a row for each frame (COLUMNS). A side counts if the target was found and the box overlaps the
true one by a fifth or more: intervals speak of targets that are not lost (docs/uncertainty.md). The lost-probability
counts in every frame that can be judged after the first, those included in which the target is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ebmtrack.evaluation.metrics import SequenceScore
from ebmtrack.evaluation.results import SURENESS
from ebmtrack.tracking.uncertainty import student_reach

Array = np.ndarray

LEVELS = (0.5, 0.8, 0.9, 0.95)
LOST_OVERLAP = 0.2  # a target is lost if its box overlaps the true one by less
_SIDES = ("left", "top", "right", "bottom")
COLUMNS = ("lost_probability", *(f"{n}_{s}" for n in ("middle", "scale", "mean", "deviation") for s in _SIDES))
COLUMNS += ("energy", "effective_frac")


def row_of(answer: Any) -> Array:
    """Return what a tracker's answer says of its certainty (19,): COLUMNS; NaN for what it does not say."""
    row, density = np.full(SURENESS, np.nan), getattr(answer, "density", None)
    lost = getattr(answer, "lost_probability", None)
    row[0] = np.nan if lost is None else lost
    if density is not None:
        row[1:5] = density.interval(0.5).mean(axis=1)
        row[5:17] = np.concatenate([density.scale_xyxy, density.mean_xyxy, density.deviation_xyxy])
        row[17:] = density.energy, density.effective_frac
    return row


def rows_of_run(later: Sequence[Array], asked: bool = False) -> Array:
    """Return the rows (N, 19) of a run, of which the first frame has none.

    Args:
        later: rows of the other frames.
        asked: whether the set-up asks for intervals: then a run whose target is never found has rows as well, since
            its lost-probabilities count. Otherwise there are no rows if no answer had intervals.
    """
    rows = np.array([np.full(SURENESS, np.nan), *later])
    return rows if asked or np.isfinite(rows[:, 5]).any() else rows[:0]


class Bin(NamedTuple):
    """Frames whose lost-probability was said to be from `low` to `high`.

    Attributes:
        low: least lost-probability.
        high: end of the bin, which belongs to the next one.
        frames: how many there are.
        said: mean of what was said.
        lost: share that was lost.
    """

    low: float
    high: float
    frames: int
    said: float
    lost: float


@dataclass(frozen=True)
class Reliability:
    """What the tracker said of its certainty beside what was true.

    Attributes:
        distance: (n, 4) of the true sides from the middle of their intervals, in scales.
        scale_xyxy: (n, 4) of the intervals, pixels.
        said: (m,) lost-probabilities.
        lost: (m,) bool, whether the target was lost.
    """

    distance: Array
    scale_xyxy: Array
    said: Array
    lost: Array

    @property
    def is_known(self) -> bool:
        """Return whether anything was said; of a target that is lost throughout it is lost-probabilities alone."""
        return bool(len(self.distance) or len(self.said))

    def coverage(self, level: float) -> float:
        """Return the share of sides within the intervals of a level; NaN without any."""
        return float((self.distance <= student_reach(level)).mean()) if len(self.distance) else float("nan")

    def width(self, level: float) -> float:
        """Return the median width of the intervals of a level, in pixels; NaN without any."""
        return float(2 * student_reach(level) * np.median(self.scale_xyxy)) if len(self.scale_xyxy) else float("nan")

    def bins(self, number: int = 10) -> list[Bin]:
        """Return the frames by lost-probability, in bins of equal width; those without frames are left out."""
        place = np.minimum((self.said * number).astype(int), number - 1)
        groups = {k: place == k for k in range(number) if (place == k).any()}
        return [
            Bin(k / number, (k + 1) / number, int(g.sum()), float(self.said[g].mean()), float(self.lost[g].mean()))
            for k, g in groups.items()
        ]

    def figures(self) -> dict[str, object]:
        """Return coverage and median width by level, and the scores of the lost-probability, as far as known."""
        known = LEVELS if len(self.distance) else ()
        levels = {f"{level:g}": {"coverage": self.coverage(level), "width": self.width(level)} for level in known}
        found: dict[str, object] = {"frames": len(self.distance), "levels": levels}
        if len(self.said):
            score, base = self.brier
            lost = {
                "frames": len(self.said),
                "lost": float(self.lost.mean()),
                "brier": score,
                "brier_of_base_rate": base,
            }
            found["lost_probability"] = {**lost, "calibration_error": self.calibration_error}
        return found

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the lost-probability: mean of |said - lost| over bins, weighted by frames."""
        total = sum(one.frames * abs(one.said - one.lost) for one in self.bins())
        return total / len(self.said) if len(self.said) else float("nan")

    @property
    def brier(self) -> tuple[float, float]:
        """Brier score of the lost-probability, and that of saying the share of lost frames always."""
        if not len(self.said):
            return float("nan"), float("nan")
        return float(((self.said - self.lost) ** 2).mean()), float(self.lost.mean() * (1 - self.lost.mean()))


def measure(sureness: Array, truth_xywh: Array, score: SequenceScore) -> Reliability:
    """Compare what was said with the truth on one sequence.

    Args:
        sureness: (N, 19), see COLUMNS; or no rows.
        truth_xywh: (N, 4).
        score: the overlaps of the N boxes, and the frames that can be judged.
    """
    overlap, valid = score.overlap, score.valid
    if not len(sureness) == len(truth_xywh) == len(overlap):
        return join(())
    counts = valid & np.isfinite(sureness[:, 5]) & (overlap >= LOST_OVERLAP)
    truth = np.concatenate([truth_xywh[:, :2], truth_xywh[:, :2] + truth_xywh[:, 2:]], axis=1)
    scale = sureness[counts, 5:9]
    distance = np.abs(truth[counts] - sureness[counts, 1:5]) / scale
    judged = valid & np.isfinite(sureness[:, 0])
    return Reliability(distance, scale, sureness[judged, 0], overlap[judged] < LOST_OVERLAP)


def by_sequence(parts: Iterable[Reliability], level: float) -> float:
    """Return the mean over sequences and runs of the coverage of a level, each alike; NaN without any."""
    shares = [part.coverage(level) for part in parts if len(part.distance)]
    return float(np.mean(shares)) if shares else float("nan")


def join(parts: Iterable[Reliability]) -> Reliability:
    """Return the frames of several sequences together."""
    empty = Reliability(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    names = ("distance", "scale_xyxy", "said", "lost")
    return Reliability(*(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in names))
