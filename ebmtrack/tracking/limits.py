"""The values that a set-up of the tracker may hold."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from ebmtrack.data.crops import BORDERS, RULES
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
    "ascent_momentum": (0, 0.99),
    "average_best": (1, 10**9),
    "calibration": (0, 1),
    "centre_calibration": (0, 1),
    "energy_adaptation": (0, 100),
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
    "centre_calibration": (2,),
    "interval_scale": (4,),
    "lost_logit": (2,),
}
CHOICES: dict[str, tuple[str, ...]] = {"classifier": ("network", "atom"), "border": BORDERS, "crop_rule": RULES}


def plain_values(params: Any) -> dict[str, Any]:
    """Return the values of a set-up as Python's own numbers and texts, in tuples if there are several.

    Args:
        params: TrackerParams. Fields whose default is a whole number take whole numbers alone.

    Raises:
        ConfigError: On the first field that holds a value of another kind, or one without sense.
    """
    values = {}
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        try:
            values[field.name] = _plain(field.name, value, field.default)
        except ValueError:
            allowed = _allowed(field.name, field.default)
            raise ConfigError(f"tracker parameter {field.name}={_in_short(value)}: must be {allowed}") from None
    return values


def _plain(name: str, value: Any, default: Any) -> Any:
    """Return the value of a field as Python's own kinds; ValueError if it does not fit."""
    if value is None and default is None:
        return None
    if name in SHAPES or isinstance(default, int | float) and not isinstance(default, bool):
        return _plain_numbers(value, SHAPES.get(name, ()), LIMITS.get(name, USUAL), isinstance(default, int))
    if isinstance(default, bool) and isinstance(value, bool | np.bool_):
        return bool(value)
    if not isinstance(default, bool) and isinstance(value, str) and value in CHOICES.get(name, (value,)):
        return str(value)
    if default is None and isinstance(value, os.PathLike):
        return value
    raise ValueError


def _plain_numbers(value: Any, shape: tuple[int | None, ...], limits: tuple[float, float], is_whole: bool) -> Any:
    """Return numbers in nested tuples of a shape of `SHAPES`, or one number for (); ValueError if they are none.

    Only int, float, NumPy's numbers and arrays, lists, tuples and ranges are taken.
    """
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        value = value.tolist()
    if shape:
        if not isinstance(value, list | tuple | range) or shape[0] not in (None, len(value)):
            raise ValueError
        return tuple(_plain_numbers(one, shape[1:], limits, is_whole) for one in value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64):
        number: float = int(value)
    elif isinstance(value, float | np.floating) and not is_whole:  # 2.0 would end in an error where things are counted
        number = float(value)
    else:
        raise ValueError
    if not limits[0] <= number <= limits[1]:  # NaN is not
        raise ValueError
    return number


def _allowed(name: str, default: Any) -> str:
    """Return what a field may hold, as in "a whole number, 1 to 1000"."""
    if isinstance(default, bool):
        return "True or False"
    if name in CHOICES:
        return "one of " + ", ".join(CHOICES[name])
    if name not in SHAPES and not isinstance(default, int | float):
        return "a text or a path" if default is None else "a text"
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
