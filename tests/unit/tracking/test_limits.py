"""Numbers of a set-up that make no sense."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.tracking.limits import LIMITS, SHAPES
from ebmtrack.tracking.params import TrackerParams, list_params, load_params

NUMBERS = [f.name for f in dataclasses.fields(TrackerParams) if type(f.default) in (int, float)]
WHOLE = [f.name for f in dataclasses.fields(TrackerParams) if type(f.default) is int]


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("average_temperature", -1.0, "must be a finite number, at least 0"),
        ("sample_size", 0, "must be a whole number, 16 to 4096"),
        ("sample_size", 10**6, "must be a whole number, 16 to 4096"),
        ("position_jitter", 1e300, "must be a finite number, 0 to 100"),
        ("ascent_steps", -1, "must be a whole number, 0 to 10000"),
        ("ascent_steps", 2.5, "must be a whole number, 0 to 10000"),
        ("candidates", 2.0, "must be a whole number, 1 to 10000"),
        ("learning_rate", 1, "must be a finite number, 0 to 0.99"),
        ("position_step", math.nan, "must be a finite number, at least 0"),
        ("size_step", math.inf, "must be a finite number, at least 0"),
        ("search_factor", 0.5, "must be a finite number, 1 to 1000"),
        ("search_factor", None, "must be a finite number, 1 to 1000"),
        ("dropout", 1.0, "must be a finite number, 0 to 0.99"),
        ("dropout", "0.5", "must be a finite number, 0 to 0.99"),
        ("calibration", 1.5, "must be a finite number, 0 to 1"),
        ("candidates", True, "must be a whole number, 1 to 10000"),
        ("update_every", 0, "must be a whole number, at least 1"),
        ("max_aspect", 0.0, "must be a finite number, at least 1"),
        ("interval_temperature", 0.0, "must be a finite number, at least 0.01"),
        ("interval_scale", (1.0, 2.0), "must be 4 finite numbers"),
        ("interval_scale", (), "must be 4 finite numbers"),
        ("lost_logit", (math.nan, 1.0), "must be 2 finite numbers"),
        ("rotations_deg", 5.0, "must be finite numbers"),
        ("rotations_deg", ((1.0, 2.0),), "must be finite numbers"),
        ("shift_fracs", ((1.0, 2.0), (3.0,)), "must be pairs of finite numbers"),
        ("blur_sigmas", ((0.0, 1.0),), "must be pairs of finite numbers, at least 0.01"),
        ("seed", 0.5, "must be a whole number"),
    ],
)
def test_a_number_without_sense_is_refused_in_one_line(name, value, allowed):
    with pytest.raises(ConfigError) as caught:
        TrackerParams().replace(**{name: value})
    assert str(caught.value) == f"tracker parameter {name}={value!r}: {allowed}"
    with pytest.raises(ConfigError):
        TrackerParams(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_limits(name):
    """Nothing that is not finite passes; whole numbers stay whole; the ends of the limits are allowed."""
    for value in (math.nan, math.inf, -math.inf, "1", None, (1, 2)) + ((1.5, 20.0) if name in WHOLE else ()):
        with pytest.raises(ConfigError, match=f"^tracker parameter {name}="):
            TrackerParams(**{name: value})
    for end in filter(math.isfinite, LIMITS.get(name, (0, math.inf))):
        assert getattr(TrackerParams(**{name: end}), name) == end


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": 2**70},
        {"shift_fracs": (), "blur_sigmas": (), "rotations_deg": ()},
        {"lost_logit": None},
        {"sample_size": np.int64(288), "search_factor": np.float32(5), "size_step": 1},
        {"rotations_deg": [5, -5]},
    ],
)
def test_what_makes_sense_is_taken(changes):
    assert all(getattr(TrackerParams(**changes), name) is value for name, value in changes.items())


def test_the_table_names_fields_and_the_set_ups_that_ship_keep_to_it():
    assert {*LIMITS, *SHAPES} <= {field.name for field in dataclasses.fields(TrackerParams)}
    assert all(load_params(name) for name in list_params())
