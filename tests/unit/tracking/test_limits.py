"""Values of a set-up that make no sense."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking import adaptation
from ebmtrack.tracking.adaptation import noise_offsets
from ebmtrack.tracking.limits import LIMITS, SHAPES, USUAL
from ebmtrack.tracking.params import TrackerParams, list_params, load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.golden import FEW_VIEWS, dimp18, image

FIELDS = {field.name: field.default for field in dataclasses.fields(TrackerParams)}
NUMBERS = [name for name, default in FIELDS.items() if type(default) in (int, float) or name in SHAPES]
WHOLE = [name for name, default in FIELDS.items() if type(default) is int]
WORK = ["sample_size", "initial_iterations", "update_iterations", "hard_negative_iterations", "looks_around"]
WORK += ["candidates", "ascent_steps", "interval_samples", "dropout_copies", "memory_size"]  # slow at their most


def filled(name: str, number: float) -> object:
    """Return a number in a field's shape."""
    value: object = number
    for length in reversed(SHAPES.get(name, ())):
        value = (value,) * (length or 1)
    return value


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("average_temperature", -1.0, "a number, 0 to 1000000000"),
        ("sample_size", 0, "a whole number, 16 to 2048"),
        ("sample_size", 2049, "a whole number, 16 to 2048"),
        ("position_jitter", 1e300, "a number, 0 to 100"),
        ("ascent_steps", -1, "a whole number, 0 to 1000"),
        ("ascent_steps", 2.5, "a whole number, 0 to 1000"),
        ("candidates", 2.0, "a whole number, 1 to 1000"),
        ("learning_rate", 1, "a number, 0 to 0.99"),
        ("position_step", math.nan, "a number, 0 to 1000000000"),
        ("search_factor", None, "a number, 1 to 1000"),
        ("dropout", "0.5", "a number, 0 to 0.99"),
        ("candidates", True, "a whole number, 1 to 1000"),
        ("interval_temperature", 0.0, "a number, 0.01 to 1000000000"),
        ("interval_scale", (1.0, 2.0), "4 numbers, -1000 to 1000"),
        ("interval_scale", (), "4 numbers, -1000 to 1000"),
        ("lost_logit", (math.nan, 1.0), "2 numbers, -1000 to 1000"),
        ("rotations_deg", 5.0, "numbers, -360 to 360"),
        ("rotations_deg", ((1.0, 2.0),), "numbers, -360 to 360"),
        ("rotations_deg", ((),), "numbers, -360 to 360"),
        ("rotations_deg", {1.0, 2.0}, "numbers, -360 to 360"),
        ("rotations_deg", "12", "numbers, -360 to 360"),
        ("rotations_deg", torch.tensor([1.0, 2.0]), "numbers, -360 to 360"),
        ("average_temperature", torch.tensor(0.5), "a number, 0 to 1000000000"),
        ("average_temperature", np.ma.masked, "a number, 0 to 1000000000"),
        ("average_temperature", np.timedelta64(5), "a number, 0 to 1000000000"),
        ("average_temperature", Fraction(1, 3), "a number, 0 to 1000000000"),
        ("candidates", np.float64(4), "a whole number, 1 to 1000"),
        ("blur_sigmas", ((),), "pairs of numbers, 0.01 to 100"),
        ("shift_fracs", ((), ()), "pairs of numbers, -10 to 10"),
        ("shift_fracs", ((1.0, 2.0), (3.0,)), "pairs of numbers, -10 to 10"),
        ("blur_sigmas", ((0.0, 1.0),), "pairs of numbers, 0.01 to 100"),
        ("seed", 0.5, "a whole number, 0 to 4294967295"),
        ("flip", "no", "True or False"),
        ("half_pixel_late", 1, "True or False"),
        ("border", None, "one of replicate, inside_major"),
        ("border", "inside", "one of replicate, inside_major"),
        ("crop_rule", "", "one of head, pre2022"),
        ("classifier", "ATOM", "one of network, atom"),
        ("weights", 3, "a text or a path"),
    ],
)
def test_a_value_without_sense_is_refused_in_one_line(name, value, allowed):
    with pytest.raises(ConfigError) as caught:
        TrackerParams().replace(**{name: value})
    assert str(caught.value) == f"tracker parameter {name}={value!r}: must be {allowed}"
    with pytest.raises(ConfigError):
        TrackerParams(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_limits_on_both_sides(name):
    """The ends of the limits are allowed and nothing beyond them is, however long; whole numbers stay whole."""
    least, most = LIMITS.get(name, USUAL)
    beyond = (math.nan, math.inf, -math.inf, least - 1, most + 1, -1e300, 1e300, 10**400, -(10**400), 10**5000, "1")
    for value in beyond + ((1.5, 20.0) if name in WHOLE else ()):
        with pytest.raises(ConfigError, match=f"^tracker parameter {name}=.{{1,99}}: must be [a-z0-9]") as caught:
            TrackerParams(**{name: filled(name, value)})
        assert "\n" not in str(caught.value)
    for end in (filled(name, least), filled(name, most)):
        assert getattr(TrackerParams(**{name: end}), name) == end


def test_an_array_is_shown_in_one_line():
    with pytest.raises(ConfigError, match=r"^tracker parameter shift_fracs=array\(.*\.\.\.: must be pairs") as caught:
        TrackerParams(shift_fracs=np.ones((9, 3)))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def few_noise_boxes(views: int) -> tuple[np.ndarray, ...]:
    """Return the label and eight of the noise boxes of each view."""
    return tuple(values[:, :9] for values in noise_offsets(views))


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in WORK])
def test_a_tracker_works_at_the_limits(engine, name, monkeypatch):
    """It starts on a target and finds a box in the next frame, or repeats the last one."""
    monkeypatch.setattr(adaptation, "noise_offsets", few_noise_boxes)
    small = load_params("dimp18_nce_plus").replace(sample_size=64, initial_iterations=1, candidates=2, ascent_steps=2)
    small = small.replace(not_found_threshold=-10.0, interval_samples=8, **FEW_VIEWS)
    picture = image("walk", 200, 260)
    for end in LIMITS.get(name, USUAL):
        tracker = Tracker(engine, small.replace(**{name: filled(name, end)}))
        tracker.init(picture, (90, 60, 44, 52))
        result = tracker.update(np.roll(picture, 2, axis=1))
        assert np.isfinite(result.box_xywh).all(), end
        assert np.isfinite(result.interval()).all() or not result.found, end


@pytest.mark.parametrize(
    "changes",
    [
        {"shift_fracs": (), "blur_sigmas": (), "rotations_deg": ()},
        {"lost_logit": None, "weights": None},
        {"sample_size": np.int64(288), "search_factor": np.float32(5), "size_step": 1, "flip": np.False_},
        {"weights": Path("net.safetensors")},
    ],
)
def test_what_makes_sense_is_taken(changes):
    assert all(getattr(TrackerParams(**changes), name) == value for name, value in changes.items())


def test_the_table_names_fields_and_the_set_ups_that_ship_keep_to_it():
    assert {*LIMITS, *SHAPES, *WORK} <= {*NUMBERS}
    assert all(load_params(name) for name in list_params())


@pytest.mark.parametrize(
    "name, value, plain",
    [
        ("seed", np.uint8(3), 3),
        ("average_temperature", np.float64(0.5), 0.5),
        ("average_temperature", np.longdouble(0.5), 0.5),
        ("average_temperature", np.array(0.5), 0.5),
        ("initial_samples_least_weight", np.float32(0.25), 0.25),
        ("sample_size", np.uint8(224), 224),
        ("flip", np.bool_(True), True),
        ("border", np.str_("replicate"), "replicate"),
        ("rotations_deg", (np.float32(5),), (5.0,)),
        ("rotations_deg", [5, -5], (5, -5)),
        ("rotations_deg", range(2), (0, 1)),
        ("rotations_deg", np.array([5, -5]), (5, -5)),
        ("interval_scale", tuple(np.array([0, 1, 0, 0], np.float32)), (0.0, 1.0, 0.0, 0.0)),
        ("lost_logit", [np.float64(1), 2], (1.0, 2)),
        ("shift_fracs", np.array([[1, 2]], np.longdouble), ((1.0, 2.0),)),
        ("shift_fracs", np.zeros((0, 2)), ()),
        ("blur_sigmas", [[1, 2], (3, 4)], ((1, 2), (3, 4))),
    ],
)
def test_values_of_numpy_and_lists_become_plain_ones(name, value, plain):
    """Otherwise float64 spreads to the boxes, uint8 overflows, and equal set-ups are not equal."""
    params = TrackerParams(**{name: value})
    assert repr(getattr(params, name)) == repr(plain)
    assert params == TrackerParams(**{name: plain}) and hash(params) == hash(TrackerParams(**{name: plain}))
