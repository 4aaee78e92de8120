"""Search regions: inner looks at calm targets, and the places where lost ones are looked for."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebmtrack.tracking import regions
from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.state import TargetState
from tests.support.scripted_engine import ScriptedEngine

PARAMS = load_params("dimp18_nce_plus").replace(
    sample_size=288, search_factor=5.0, calibration=0, centre_calibration=(0, 0), energy_adaptation=0
)
IMAGE = np.zeros((400, 400, 3), np.uint8)


@cache
def first_state() -> TargetState:
    """Return a target after its first frame."""
    return start_target(ScriptedEngine(), PARAMS, IMAGE, np.array([90.0, 60, 30, 60]), seed=0)


def target(side: float = 60.0, scale: float = 1.0, **changes) -> TargetState:
    """Return a calm target at a scale of one image pixel to a crop pixel."""
    size = np.array([30.0, side])
    values: dict[str, Any] = {"size_hw": size, "scale": scale, "is_calm": True, "frame": 2} | changes
    return dataclasses.replace(first_state(), **values)


def found(**changes) -> Localization:
    """Return a judgement that leaves no doubt."""
    values: dict[str, Any] = {"displacement_yx": np.array([0.5, -1.0]), "score": 0.6, "verdict": "normal"}
    return Localization(**(values | changes))


def test_a_frame_without_doubt_or_motion_is_calm():
    assert regions.is_calm(target(), found(), 16)


@pytest.mark.parametrize(
    "doubt",
    [
        {"verdict": "uncertain"},
        {"verdict": "hard_negative"},
        {"verdict": "not_found"},
        {"score": 2 * PARAMS.not_found_threshold - 0.01},
        {"displacement_yx": np.array([1.2, 1.2])},
    ],
    ids=str,
)
def test_any_doubt_is_not_calm(doubt):
    assert not regions.is_calm(target(), found(**doubt), 16)


@pytest.mark.parametrize(
    "longest, scale, enough", [(190.0, 2.0, True), (60.0, 0.5, False), (96.0, 1.0, True), (97.0, 1.0, False)]
)
def test_an_inner_look_must_hold_the_box_in_pixels_of_the_region(longest, scale, enough):
    """The inner part of 288 pixels has 192; half of them, 96 pixels of the region, are 192 of the image at a scale
    of 2."""
    assert regions.is_calm(target(longest, scale), found(), 16) == enough


def test_inner_looks_are_for_calm_targets_and_by_wish():
    assert regions.can_use_inner_crop(target(), 4)
    assert not regions.can_use_inner_crop(target(), 0) and not regions.can_use_inner_crop(target(is_calm=False), 4)


def test_calm_targets_take_turns():
    """Five targets: in every frame one sees the whole region, each of them in every fifth."""
    for frame in range(2, 12):
        assert sum(not regions.can_use_inner_crop(target(frame=frame, phase=k), 4) for k in range(5)) == 1
    turns = [regions.can_use_inner_crop(target(frame=frame), 4) for frame in range(5, 11)]
    assert turns == [False, True, True, True, True, False]


@pytest.mark.parametrize("side, inner", [(288, 192), (352, 224)])
def test_an_inner_look_sees_the_middle_of_the_region(side, inner):
    whole = regions.cut_region(IMAGE, np.array([200.0, 200.0]), 1.0, PARAMS.replace(sample_size=side))
    part = regions.crop_inner(whole, 16)
    edge = (side - inner) // 2
    assert part.is_inner and part.patch.shape == (inner, inner, 3)
    assert np.array_equal(part.patch, whole.patch[edge:-edge, edge:-edge])
    assert part.map is whole.map and part.window_xywh == whole.window_xywh


def test_a_region_of_three_cells_is_seen_whole():
    """A sixth of its side is no cell; a look without a margin would not be an inner one."""
    whole = regions.cut_region(IMAGE, np.array([200.0, 200.0]), 1.0, PARAMS.replace(sample_size=48))
    assert regions.crop_inner(whole, 16) is whole


SIDES = st.floats(20, 900)


@given(st.floats(0, 1), st.floats(0, 1), SIDES, st.integers(1, 500), st.integers(1, 500))
def test_the_places_cover_the_image_and_begin_nearby(y, x, side, height, width):
    """With the target's own region: every point of the image is in one, but for strips of a tenth of its side at the
    edge. No place is beyond what that needs, or nearer than this tenth."""
    position = np.array([y * height, x * width])
    places = regions.places_around(position, side, (height, width, 3))
    distances = np.linalg.norm(places - position, axis=1)
    assert (np.diff(distances) >= 0).all() and (distances > regions.THIN * side - 1e-9).all()
    every, shape = np.vstack([position, places]), np.array([height, width])
    points = np.random.default_rng(0).random((50, 2)) * shape
    reach = np.abs(points[:, None] - every).max(axis=2).min(axis=1)
    assert (reach <= (0.5 + regions.THIN) * side + 1e-9).all()
    moved = (places != position) & (shape >= side)
    assert (places >= np.minimum(position, side / 2) - 1e-9)[moved].all()
    assert (places <= np.maximum(position, shape - side / 2) + 1e-9)[moved].all()


@given(st.floats(0, 500), st.floats(0, 500), SIDES, st.integers(1, 500), st.integers(1, 500))
def test_no_place_is_looked_at_twice(y, x, side, height, width):
    places = regions.places_around(np.array([y, x]), side, (height, width, 3))
    assert len(np.unique(places, axis=0)) == len(places)


def test_the_first_eight_places_are_a_ring_around_the_target():
    """Far from the edges: three quarters of a side away, those along the axes first."""
    places = (regions.places_around(np.array([500.0, 500]), 100, (1000, 1000, 3))[:8] - 500) / 75
    assert sorted(map(tuple, places[:4])) == [(-1, 0), (0, -1), (0, 1), (1, 0)]
    assert sorted(map(tuple, places[4:])) == [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def test_an_image_within_the_region_has_no_other_places():
    places = regions.places_around(np.array([40.0, 60.0]), 130, (80, 120, 3))
    assert places.shape == (0, 2) and len(regions.next_places(places, 3, 4)) == 0


def test_a_tiny_region_does_not_make_millions_of_places():
    assert len(regions.places_around(np.full(2, 500.0), 1e-3, (1080, 1920))) == (2 * regions.GRID_MOST + 1) ** 2 - 1


@given(st.integers(1, 40), st.integers(1, 5))
def test_every_place_has_its_turn(n, looks):
    frames = -(-n // looks)
    seen = np.concatenate([regions.next_places(np.arange(n), frame, looks) for frame in range(frames)])
    assert set(seen.tolist()) == set(range(n))


def test_probabilities_sum_to_one_whatever_the_scores():
    scores = np.array([[1000.0, 999.0], [-1000.0, 0.0]], np.float32)
    probabilities = regions.softmax(scores)
    assert probabilities.dtype == np.float32 and probabilities.sum() == pytest.approx(1)
    assert probabilities[0, 0] / probabilities[0, 1] == pytest.approx(np.e, rel=1e-5)
