"""The numbers that a set-up of the tracker may hold."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError

LIMITS = {  # least and most value, far beyond what is of use; the numbers that are not listed may be 0 or more
    "sample_size": (16, 4096),  # larger ones do not fit into memory
    "search_factor": (1, 1000),
    "max_scale_change": (1, 1000),
    "shift_fracs": (-math.inf, math.inf),
    "blur_sigmas": (0.01, math.inf),
    "rotations_deg": (-math.inf, math.inf),
    "dropout": (0, 0.99),
    "learning_rate": (0, 0.99),  # 1 leaves no weight for what was learned before, and the memory divides by that
    "hard_negative_learning_rate": (0, 0.99),
    "initial_samples_least_weight": (0, 1),
    "update_every": (1, math.inf),
    "not_found_threshold": (-math.inf, math.inf),
    "distractor_threshold": (-math.inf, math.inf),
    "hard_negative_threshold": (-math.inf, math.inf),
    "clear_score": (-math.inf, math.inf),
    "inside_frac": (0, 1),
    "dropout_copies": (0, 1000),
    "memory_size": (0, 10_000),
    "candidates": (1, 10_000),
    "position_jitter": (0, 100),  # of the target's size
    "size_jitter": (0, 100),
    "ascent_steps": (0, 10_000),
    "average_best": (1, math.inf),
    "calibration": (0, 1),
    "max_aspect": (1, math.inf),
    "interval_samples": (0, 100_000),
    "interval_temperature": (0.01, math.inf),
    "interval_scale": (-math.inf, math.inf),
    "lost_logit": (-math.inf, math.inf),
    "seed": (-math.inf, math.inf),
}
SHAPES = {  # of the fields that hold several numbers; None is any length
    "shift_fracs": (None, 2),
    "blur_sigmas": (None, 2),
    "rotations_deg": (None,),
    "interval_scale": (4,),
    "lost_logit": (2,),
}


def check_numbers(params: Any) -> None:
    """Raise ConfigError on the first field of a set-up that holds no number, or one that makes no sense.

    Args:
        params: TrackerParams. Fields whose default is a whole number take whole numbers alone.
    """
    for field in dataclasses.fields(params):
        value, is_several = getattr(params, field.name), field.name in SHAPES
        if not is_several and (isinstance(field.default, bool) or not isinstance(field.default, int | float)):
            continue
        if value is None and field.default is None:
            continue
        numbers, is_whole = _numbers(value), isinstance(field.default, int)
        least, most = LIMITS.get(field.name, (0, math.inf))
        fits = _has_shape(numbers, SHAPES.get(field.name, ()))
        if fits and np.isfinite(numbers).all() and (numbers >= least).all() and (numbers <= most).all():
            if not is_whole or isinstance(value, Integral):  # 2.0 would end in an error where things are counted
                continue
        raise ConfigError(f"tracker parameter {field.name}={value!r}: {_allowed(field.name, is_whole, least, most)}")


def _numbers(value: Any) -> np.ndarray:
    """Return a number or nested numbers as an array, NaN if they are none."""
    try:
        array = np.asarray(float(value) if type(value) is int else value)  # a seed may be longer than 64 bits
    except ValueError:  # rows of different lengths
        return np.array(math.nan)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.array(math.nan)


def _has_shape(numbers: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    """Return whether an array has a shape of SHAPES; one without numbers fits any length."""
    if numbers.size == 0 and shape and shape[0] is None:
        return True
    return numbers.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, numbers.shape))


def _allowed(name: str, is_whole: bool, least: float, most: float) -> str:
    """Return what a field may hold, as in "must be a whole number, at least 1"."""
    one = "a whole number" if is_whole else "a finite number"
    kinds = {(): one, (None,): "finite numbers", (None, 2): "pairs of finite numbers"}
    shape = SHAPES.get(name, ())
    kind = kinds.get(shape) or f"{shape[0]} finite numbers"
    if math.isinf(most):
        return f"must be {kind}" + (f", at least {least:g}" if math.isfinite(least) else "")
    return f"must be {kind}, {least} to {most}"
