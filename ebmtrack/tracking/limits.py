"""The values that a set-up of the tracker may hold."""

from __future__ import annotations

import dataclasses
import os
from numbers import Integral
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError

USUAL = (0, 10**9)  # of the numbers that LIMITS does not list
LIMITS: dict[str, tuple[float, float]] = {  # least and most value, far beyond what is of use
    # what costs time and memory: in the default set-up each alone takes at most 6 GB, and seconds a later frame
    "sample_size": (16, 2048),
    "dropout_copies": (0, 100),
    "memory_size": (0, 1000),
    "initial_iterations": (0, 1000),
    "update_iterations": (0, 1000),
    "hard_negative_iterations": (0, 1000),
    "looks_around": (0, 50),
    "candidates": (1, 1000),
    "ascent_steps": (0, 1000),
    "interval_samples": (0, 10_000),
    # the rest
    "search_factor": (1, 1000),
    "max_scale_change": (1, 1000),
    "shift_fracs": (-10, 10),
    "blur_sigmas": (0.01, 100),
    "rotations_deg": (-360, 360),
    "random_shift_frac": (0, 10),
    "dropout": (0, 0.99),
    "learning_rate": (0, 0.99),  # 1 leaves no weight for what was learned before, and the memory divides by that
    "hard_negative_learning_rate": (0, 0.99),
    "initial_samples_least_weight": (0, 1),
    "update_every": (1, 10**9),
    "not_found_threshold": (-(10**9), 10**9),
    "distractor_threshold": (-(10**9), 10**9),
    "hard_negative_threshold": (-(10**9), 10**9),
    "clear_score": (-(10**9), 10**9),
    "inside_frac": (0, 1),
    "position_jitter": (0, 100),  # of the target's size
    "size_jitter": (0, 100),
    "average_best": (1, 10**9),
    "calibration": (0, 1),
    "max_aspect": (1, 10**9),
    "interval_temperature": (0.01, 10**9),
    "interval_scale": (-1000, 1000),
    "lost_logit": (-1000, 1000),
    "seed": (0, 2**32 - 1),  # of longer ones the lowest 32 bits alone would count
}
SHAPES: dict[str, tuple[int | None, ...]] = {  # of the fields that hold several numbers; None is any length
    "shift_fracs": (None, 2),
    "blur_sigmas": (None, 2),
    "rotations_deg": (None,),
    "interval_scale": (4,),
    "lost_logit": (2,),
}


def check_values(params: Any) -> None:
    """Raise ConfigError on the first field of a set-up that holds a value of another kind, or one without sense.

    Args:
        params: TrackerParams. Fields whose default is a whole number take whole numbers alone.
    """
    for field in dataclasses.fields(params):
        value, default = getattr(params, field.name), field.default
        if value is None and default is None:
            continue
        if isinstance(default, bool):
            fits, allowed = isinstance(value, bool | np.bool_), "True or False"
        elif field.name in SHAPES or isinstance(default, int | float):
            fits, allowed = _fits(field.name, value, isinstance(default, int)), _allowed(field.name, default)
        elif default is None:
            fits, allowed = isinstance(value, str | os.PathLike), "a text or a path"
        else:
            fits, allowed = isinstance(value, str), "a text"
        if not fits:
            raise ConfigError(f"tracker parameter {field.name}={_in_short(value)}: must be {allowed}")


def _fits(name: str, value: Any, is_whole: bool) -> bool:
    """Return whether a number, or nested numbers, have the field's shape and are within its limits."""
    numbers, (least, most) = _numbers(value), LIMITS.get(name, USUAL)
    if not _has_shape(numbers, SHAPES.get(name, ())) or (is_whole and not isinstance(value, Integral)):
        return False  # 2.0 would end in an error where things are counted
    return bool((numbers >= least).all() and (numbers <= most).all())  # NaN is not


def _numbers(value: Any) -> np.ndarray:
    """Return a number or nested numbers as an array, NaN if they are none."""
    try:
        array = np.asarray(float(value) if type(value) is int else value)  # 65 bits would make an array of objects
    except (ValueError, OverflowError):  # rows of different lengths; more than 308 digits
        return np.array(np.nan)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.array(np.nan)


def _has_shape(numbers: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    """Return whether an array has a shape of SHAPES; one without numbers fits any length."""
    if numbers.size == 0 and shape and shape[0] is None:
        return True
    return numbers.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, numbers.shape))


def _allowed(name: str, default: Any) -> str:
    """Return what a field of numbers may hold, as in "a whole number, 1 to 1000"."""
    shape, (least, most) = SHAPES.get(name, ()), LIMITS.get(name, USUAL)
    one = "a whole number" if isinstance(default, int) else "a number"
    kinds = {(): one, (None,): "numbers", (None, 2): "pairs of numbers"}
    return f"{kinds.get(shape) or f'{shape[0]} numbers'}, {least} to {most}"


def _in_short(value: Any) -> str:
    """Return a value as one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "(thousands of digits)"
    return text if len(text) <= 80 else f"{text[:77]}..."
