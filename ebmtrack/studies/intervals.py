"""Fits a set-up's intervals and lost-probability to video with known boxes, from results of `eval --intervals`.

The distance of a true side from the box's, in the box's size, has Student's t distribution with two degrees of freedom
whose log scale is linear in log deviation, energy and score (tracking/uncertainty.py); that the target is lost is
logistic in the score. Every sequence counts alike, since frames of one sequence are wrong together. What is reported is
cross-validated: each sequence, or each group of sequences, is judged by coefficients fitted on the others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ebmtrack.errors import ResultError
from ebmtrack.evaluation import metrics
from ebmtrack.evaluation.foreign import find_results
from ebmtrack.evaluation.reliability import LEVELS, LOST_OVERLAP, Reliability, by_sequence, join
from ebmtrack.evaluation.results import read_result
from ebmtrack.evaluation.scoring import judge
from ebmtrack.videos import open_dataset

Array = np.ndarray

FOLDS = 6
LEAST_SEQUENCES = 2 * FOLDS  # below it a fit says more of the video than of the tracker
_FISHER = 0.8  # information of the log scale of Student's t distribution with two degrees of freedom: 2 * 2 / (2 + 3)
_RIDGE = 1e-4  # on standardised features, so that a feature that does not vary has no weight


@dataclass(frozen=True)
class Frames:
    """The frames of one sequence and run.

    Attributes:
        sequence: its name.
        errors: (n, 4) true minus given sides in sizes of the box, where the target is found and not lost.
        features: (n, 4, 3) log deviation, energy, score there.
        size_wh: (n, 2) of the box there, pixels.
        scores: (m,) of all frames that can be judged.
        lost: (m,) whether the target is lost in them.
    """

    sequence: str
    errors: Array
    features: Array
    size_wh: Array
    scores: Array
    lost: Array


@dataclass(frozen=True)
class Calibration:
    """A set-up's `interval_scale` and `lost_logit`, and how right sequences that took no part in a fit find them."""

    interval_scale: tuple[float, ...]
    lost_logit: tuple[float, ...]
    held_out: tuple[Reliability, ...]

    def __str__(self) -> str:
        whole = join(self.held_out)
        rows = [
            f"interval_scale={self.interval_scale},",
            f"lost_logit={self.lost_logit},",
            "",
            f"on {len(self.held_out)} sequences and runs, {len(whole.distance)} frames, judged by fits on others:",
            "| intervals of | " + " | ".join(f"{100 * level:.0f} %" for level in LEVELS) + " |",
            "|---" * (len(LEVELS) + 1) + "|",
        ]
        figures: dict[str, Callable[[float], float]] = {
            "by frame": lambda level: 100 * whole.coverage(level),
            "each sequence alike": lambda level: 100 * by_sequence(self.held_out, level),
            "median width, pixels": whole.width,
        }
        rows += [f"| {n} | " + " | ".join(f"{f(level):.1f}" for level in LEVELS) + " |" for n, f in figures.items()]
        score, base = whole.brier
        lost = (
            f"{len(whole.said)} frames, {100 * whole.lost.mean():.1f} % lost: Brier {score:.4f}, base rate {base:.4f}"
        )
        return "\n".join([*rows, "", f"lost-probability, {lost}, calibration error {whole.calibration_error:.3f}"])


def fit_scale(errors: Array, features: Array, weights: Array) -> Array:
    """Return (1 + d,) coefficients of the log scale of errors that have Student's t distribution, by Fisher scoring.

    Args:
        errors: (n,).
        features: (n, d).
        weights: (n,) of the errors in the likelihood.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    X, w = np.column_stack([np.ones(len(errors)), (features - mean) / spread]), weights / weights.sum()
    curvature = _FISHER * (X.T * w) @ X + _RIDGE * np.eye(X.shape[1])
    theta = np.zeros(X.shape[1])
    theta[0] = np.log(np.median(np.abs(errors)) + 1e-6)
    for _ in range(100):
        ratio = (errors * np.exp(-X @ theta)) ** 2 / 2
        theta += np.linalg.solve(
            curvature, X.T @ (w * (3 * ratio / (1 + ratio) - 1)) - _RIDGE * theta * (0, *[1] * len(mean))
        )
    slopes = theta[1:] / spread
    return np.array([theta[0] - slopes @ mean, *slopes])


def fit_logistic(values: Array, outcomes: Array, weights: Array) -> Array:
    """Return (2,) constant and slope of a logistic regression of outcomes (n,) on values (n,), by Newton's method."""
    X, w = np.column_stack([np.ones(len(values)), values]), weights / weights.sum()
    theta, ridge = np.zeros(2), _RIDGE * np.eye(2)  # keeps the slope finite if the two kinds do not overlap
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(X @ theta, -30, 30)))
        theta -= np.linalg.solve((X.T * (w * p * (1 - p))) @ X + ridge, X.T @ (w * (p - outcomes)) + ridge @ theta)
    return theta


def fit(parts: Sequence[Frames]) -> tuple[Array, Array]:
    """Return `interval_scale` (4,) and `lost_logit` (2,) of frames; each sequence, with all its runs, counts alike."""
    sides, frames = Counter[str](), Counter[str]()
    for part in parts:
        sides[part.sequence] += part.errors.size
        frames[part.sequence] += len(part.scores)
    parts = [part for part in parts if frames[part.sequence]]
    weights = np.concatenate([np.full(part.errors.size, 1 / max(sides[part.sequence], 1)) for part in parts])
    errors = np.concatenate([part.errors.ravel() for part in parts])
    features = np.concatenate([part.features.reshape(-1, 3) for part in parts])
    of_frames = np.concatenate([np.full(len(part.scores), 1 / frames[part.sequence]) for part in parts])
    scores, lost = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "lost"))
    return fit_scale(errors, features, weights), fit_logistic(scores, lost.astype(float), of_frames)


def judge_fit(part: Frames, interval_scale: Array, lost_logit: Array) -> Reliability:
    """Return what intervals and lost-probabilities of some coefficients are worth on frames."""
    scale = np.exp(interval_scale[0] + part.features @ interval_scale[1:])
    said = 1 / (1 + np.exp(-np.clip(lost_logit[0] + lost_logit[1] * part.scores, -30, 30)))
    return Reliability(np.abs(part.errors) / scale, scale * np.tile(part.size_wh, 2), said, part.lost)


def calibrate(parts: Sequence[Frames], by_source: bool = False, seed: int = 0) -> Calibration:
    """Fit coefficients to all frames, and judge them by cross-validation.

    Args:
        parts: at least LEAST_SEQUENCES sequences.
        by_source: whether sequences whose names agree up to the first underscore are held out together, as video of
            one kind, and each kind in turn; else FOLDS random groups of sequences.
        seed: of the groups.

    Raises:
        ResultError: There are too few sequences, or one kind alone.
    """
    names = sorted({part.sequence for part in parts if len(part.scores)})  # lost throughout: for lost_logit alone
    found = {part.sequence for part in parts if len(part.errors)}
    if len(found) < LEAST_SEQUENCES:
        raise ResultError(f"{len(found)} sequences with intervals are too few to fit: give {LEAST_SEQUENCES} or more")
    mixed = np.random.default_rng(seed).permutation(len(names))
    group = {name: name.split("_")[0] if by_source else str(place % FOLDS) for name, place in zip(names, mixed)}
    if len({group[name] for name in found}) < 2:
        raise ResultError("all sequences are of one kind: leave --by-source out")
    known = [part for part in parts if part.sequence in group]
    held_out = []
    for one in sorted(set(group.values())):
        coefficients = fit([part for part in known if group[part.sequence] != one])
        held_out += [judge_fit(part, *coefficients) for part in known if group[part.sequence] == one]
    scale, lost = (tuple(float(f"{v:.3g}") for v in values) for values in fit(known))
    return Calibration(scale, lost, tuple(held_out))


def read_frames(dataset: str, root: str | os.PathLike, results: str | os.PathLike) -> list[Frames]:
    """Return the frames of all runs of a set-up that have intervals.

    Args:
        dataset: Name of the data set.
        root: Its folder.
        results: Folder of the results without the number of the run, such as results/folder/dimp18_nce_plus.

    Raises:
        ResultError: There are no results, or none with intervals.
    """
    found = open_dataset(dataset, root)
    stored, protocol, parts = find_results(results, names=found.names), metrics.protocol(found.protocol), []
    for name in found.names:
        sequence = found.load(name)
        for run in stored.run_numbers(name):
            path = stored.read(name, run).path
            if path is None:
                continue
            result = read_result(path.parent, path.stem)
            score = judge(sequence, result.boxes_xywh, protocol, path)
            if len(result.sureness) and len(result.scores):
                parts.append(
                    _frames_of(name, sequence.boxes_xywh, score, result.boxes_xywh, result.sureness, result.scores)
                )
    if not parts:
        raise ResultError(
            f"{results}: no results with intervals; run `ebmtrack eval --intervals` first, or give --results FOLDER if "
            "eval had --out FOLDER"
        )
    return parts


def _frames_of(
    name: str, truth_xywh: Array, score: metrics.SequenceScore, boxes_xywh: Array, sureness: Array, scores: Array
) -> Frames:
    """Return the frames of one result, without the first one, in which the box was given."""
    later = score.valid & (np.arange(len(scores)) > 0)
    good = later & np.isfinite(sureness[:, 5]) & (score.overlap >= LOST_OVERLAP)
    size = boxes_xywh[good, 2:]
    sides, true_sides = (
        np.tile(b[good, :2], 2) + b[good, 2:][:, [0, 1, 0, 1]] * [0, 0, 1, 1] for b in (boxes_xywh, truth_xywh)
    )
    per_frame = np.repeat(np.column_stack([sureness[good, 17], scores[good]])[:, None], 4, axis=1)
    log_deviation = np.log(sureness[good, 13:17] / np.tile(size, 2) + 1e-3)
    features = np.concatenate([log_deviation[..., None], per_frame], axis=2)
    lost = score.overlap[later] < LOST_OVERLAP
    return Frames(name, (true_sides - sides) / np.tile(size, 2), features, size, scores[later], lost)
