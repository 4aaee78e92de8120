"""The engine that sees regions and their mirror images: means of both, and the same answers for a mirrored video."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from ebmtrack.engines import load_engine
from ebmtrack.engines.base import InnerLook, WholeLook
from ebmtrack.engines.mirrored import MirroredEngine, mirror
from ebmtrack.tracking.lockstep import Lockstep
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from tests.support.engine_runs import BOX, STEPS, candidates, first_frame, run_through
from tests.support.golden import FEW_VIEWS, image

SIDE = 208
PARAMS = load_params("dimp18_nce_plus").replace(mirrored=True, sample_size=144, **FEW_VIEWS)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(4)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (150.0, 100.0, 30.0, 40.0)]


@pytest.fixture(scope="module", params=["onnx", "torch"])
def plain(request):
    return load_engine(None, "cpu", "float32", request.param)


@pytest.fixture(scope="module")
def engine(plain):
    return MirroredEngine(plain)


def mirrored_first():
    first = first_frame(SIDE)
    patches = np.ascontiguousarray(first.patches[:, :, ::-1])
    return dataclasses.replace(first, patches=patches, boxes_xyxy=mirror(first.boxes_xyxy, SIDE))


def corners_of(boxes_xywh):
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)


def test_a_mirrored_box_is_around_the_same_pixels():
    """By the edges of pixels: those with the numbers 10 to 19 are from 10 to 20."""
    picture = np.zeros((40, SIDE))
    picture[5:9, 10:20] = 1
    rows, columns = np.nonzero(picture[:, ::-1])
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert mirror(np.array([10.0, 5, 20, 9]), SIDE).tolist() == list(found)


def test_a_mirrored_video_has_mirrored_boxes(engine):
    """Energies and climbed boxes, with whole and with inner looks."""
    margin, patch, found = 3, image("walk", SIDE, SIDE), []
    edge = 16 * margin
    for first, seen, is_mirrored in ((first_frame(SIDE), patch, False), (mirrored_first(), patch[:, ::-1], True)):
        model, _ = engine.start(first)
        (whole,) = engine.look([WholeLook(model, seen)])
        (inner,) = engine.look([InnerLook(model, seen[edge:-edge, edge:-edge], margin, whole.features)])
        boxes = corners_of(candidates())
        boxes = mirror(boxes, SIDE) if is_mirrored else boxes
        start = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)
        for sight in (whole, inner):
            climbed = corners_of(engine.climb([sight.features], start, STEPS).boxes_xywh)
            energies = engine.energies(sight.features, boxes[0])
            found.append((energies, mirror(climbed, SIDE) if is_mirrored else climbed))
    for straight, other in zip(found[:2], found[2:]):
        for one, two, tolerance in zip(straight, other, (2e-4, 2e-2)):
            assert np.abs(one - two).max() < tolerance


def test_energies_are_the_means_of_both_and_scores_the_networks_own(engine, plain):
    patch, boxes = image("walk", SIDE, SIDE), corners_of(candidates())[0]
    halves = []
    for first, seen, where in (
        (first_frame(SIDE), patch, boxes),
        (mirrored_first(), np.ascontiguousarray(patch[:, ::-1]), mirror(boxes, SIDE)),
    ):
        model, _ = plain.start(first)
        plain.remember(model, 3, plain.look([WholeLook(model, seen)])[0].features, BOX + 8)
        plain.learn(model, np.full(4, 0.25), 2)
        (sight,) = plain.look([WholeLook(model, seen)])
        halves.append((sight.scores, plain.energies(sight.features, where)))
    (scores, energies), (_, other_energies) = halves
    model, _ = engine.start(first_frame(SIDE))
    engine.remember(model, 3, engine.look([WholeLook(model, patch)])[0].features, BOX + 8)
    engine.learn(model, np.full(4, 0.25), 2)
    (both,) = engine.look([WholeLook(model, patch)])
    assert np.allclose(both.scores, scores, atol=1e-5)
    assert np.allclose(engine.energies(both.features, boxes), (energies + other_energies) / 2, atol=1e-5)
    assert np.abs(energies - other_energies).max() > 0.01  # they differ, or the mean would be no gain


def test_the_gradient_is_that_of_the_mean_energy(engine):
    _, (region, *_) = engine.start(first_frame(SIDE))
    energies, boxes = engine.energy_of([region]), corners_of(candidates(3))
    values, gradients = energies.value_and_gradient(boxes)
    assert np.allclose(values[0], engine.energies(region, boxes[0]), atol=1e-4)
    assert np.array_equal(energies.gradient(boxes), gradients)
    for side in range(4):
        step = np.zeros(4, np.float32)
        step[side] = 0.25
        ahead, behind = (engine.energies(region, boxes[0] + sign * step) for sign in (1, -1))
        assert np.allclose((ahead - behind) / 0.5, gradients[0, :, side], atol=0.02)


def test_engines_agree():
    found, expected = (
        run_through(MirroredEngine(load_engine(None, "cpu", "float32", name)), SIDE) for name in ("onnx", "torch")
    )
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < (0.05 if name.startswith("boxes") else 2e-3), name


def test_several_targets_have_the_boxes_of_separate_trackers_and_go_on_from_a_file(engine, tmp_path):
    several = MultiTracker(engine, PARAMS, inner_looks=0)
    ids = [several.add(FRAMES[0], box, seed) for seed, box in enumerate(BOXES)]
    alone = [Tracker(engine, PARAMS) for _ in BOXES]
    for seed, (tracker, box) in enumerate(zip(alone, BOXES)):
        tracker.init(FRAMES[0], box, seed)
    for frame in FRAMES[1:3]:
        together = several.update(frame)
        assert [together[k].box_xywh for k in ids] == [tracker.update(frame).box_xywh for tracker in alone]
    alone[0].save_state(tmp_path / "state.npz")
    again = Tracker(engine, PARAMS)
    again.load_state(tmp_path / "state.npz")
    assert again.update(FRAMES[3]) == alone[0].update(FRAMES[3])


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_set_up_decides(mirrored):
    """In every kind of tracker, whatever engine it is given."""
    params = load_params("lite_nce_plus").replace(mirrored=mirrored)
    engine = Tracker.from_pretrained(params).engine
    for kind in (Tracker, MultiTracker, Lockstep):
        for given in (engine, kind(engine, params.replace(mirrored=not mirrored)).engine):
            assert isinstance(kind(given, params).engine, MirroredEngine) == mirrored
    assert isinstance(engine, MirroredEngine) == mirrored
