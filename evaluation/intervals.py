"""Means over sequences and runs with their spread: bootstrap intervals, paired differences, overall speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ebmtrack.errors import ResultError

Array = np.ndarray

LEVEL = 0.95  # share of the draws inside an interval
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float


def bootstrap(values: Array, weights: Array | None = None) -> Interval:
    """Return the mean of per-sequence values (N,) with its percentile bootstrap interval over sequences.

    With one value the interval is that value. Source: Efron and Tibshirani 1993, chapter 13.

    Args:
        values: One per sequence (N,); NaN is left out.
        weights: Numbers of frames (N,), if the protocol pools them.

    Raises:
        ResultError: No value is known.
    """
    known = np.asarray(values, float)
    there = ~np.isnan(known)
    known, shares = known[there], (np.ones(len(known)) if weights is None else np.asarray(weights, float))[there]
    if not len(known):
        raise ResultError("no values to draw from: every sequence is missing")
    draws = np.random.default_rng(0).integers(0, len(known), (DRAWS, len(known)))
    means = (known * shares)[draws].sum(axis=1) / shares[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.average(known, weights=shares)), float(low), float(high))


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], weights: Mapping[str, float] | None = None
) -> Interval:
    """Return the mean of first - second over the sequences that both have, with its bootstrap interval.

    Args:
        first: Sequence -> value.
        second: Sequence -> value.
        weights: Sequence -> number of frames, if the protocol pools them.
    """
    names = sorted(set(first) & set(second))
    shares = None if weights is None else np.array([weights[name] for name in names], float)
    return bootstrap(np.array([first[name] - second[name] for name in names], float), shares)


def over_runs(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1) over runs; the deviation of a single run is NaN."""
    known = np.asarray(values, float)
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def overall_speed(frames_per_s: Mapping[str, float], frames: Mapping[str, int]) -> float:
    """Return the frames of all sequences over the time that they took together; NaN if no speed is known.

    A plain mean of frames/s would let a short fast sequence outweigh a long slow one.
    """
    known = {name: v for name, v in frames_per_s.items() if v > 0 and frames.get(name, 0) > 0}
    return sum(frames[n] for n in known) / sum(frames[n] / v for n, v in known.items()) if known else float("nan")
