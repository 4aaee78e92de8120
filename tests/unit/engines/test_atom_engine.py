"""ATOM's classifier behind the engine protocol, and in the tracker."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from ebmtrack.engines import load_engine
from ebmtrack.engines.atom_engine import AtomEngine
from ebmtrack.engines.base import FirstFrame, InnerLook, WholeLook
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.golden import dimp18, image

BOX = np.array([115.2, 115.2, 172.8, 172.8], np.float32)


@pytest.fixture(scope="module")
def engine() -> AtomEngine:
    return AtomEngine(InferenceNet(dimp18(), precision="float32"))


@pytest.fixture(scope="module")
def started(engine: AtomEngine):
    patches = np.stack([image("train0", 288, 288)] * 2).astype(np.float32)
    factors = np.tile(np.array([0, 2], np.float32), (1, 128))
    return engine.start(FirstFrame(patches, np.stack([BOX] * 2), factors, 6, 5))


def test_the_engine_has_the_protocols_shapes(engine: AtomEngine, started) -> None:
    model, (region, *_) = started
    assert (engine.info.classifier, engine.info.channels, engine.info.stride) == ("atom", 256, 16)
    assert model.samples.shape == (5, 64, 18, 18) and (model.samples[3:] == 0).all()
    (sight,) = engine.look([WholeLook(model, image("train0", 288, 288))])
    assert sight.scores.shape == (288, 288) and sight.scores.dtype == np.float32
    y, x = np.unravel_index(sight.scores.argmax(), sight.scores.shape)
    assert abs(y - 143.5) < 4 and abs(x - 143.5) < 4  # the first frame's target, in the middle
    (inner,) = engine.look([InnerLook(model, image("train0", 288, 288)[48:-48, 48:-48], 3, region)])
    assert inner.scores.shape == (288, 288)


def test_copies_learn_alone_and_a_start_repeats_to_the_bit(engine: AtomEngine, started) -> None:
    model, (region, *_) = started
    twin = copy.deepcopy(model)
    engine.remember(twin, 3, region, BOX + 8)
    engine.learn(twin, np.array([0.3, 0.3, 0.2, 0.2]), 5)
    assert (model.samples[3] == 0).all() and (twin.filter != model.filter).any()
    assert (twin.projection == model.projection).all()


@pytest.mark.slow
def test_set_ups_of_atom_track(engine: AtomEngine) -> None:
    """Thirty samples of the first frame, then a target that moves by six pixels is followed by the score's peak."""
    params = load_params("atom_energy")
    tracker = Tracker(engine, params.replace(memory_size=40, ascent_steps=0))
    picture = image("walk", 200, 260)
    tracker.init(picture, (100, 70, 40, 60))
    (state,) = tracker._states
    assert state.memory.initial == 30 and state.model.samples.shape[0] == 40
    result = tracker.update(np.roll(picture, (4, 6), (0, 1)))
    x, y, w, h = result.box_xywh
    assert result.found and result.score_map.shape == (288, 288)
    assert abs(x + w / 2 - 126) < 8 and abs(y + h / 2 - 104) < 8
    assert load_params("atom").memory_size == 250 and load_params("atom").replace(classifier="atom").ascent_steps == 5


def test_atom_needs_torch() -> None:
    with pytest.raises(ConfigError, match="learns in torch"):
        load_engine(None, engine="onnx", classifier="atom")
    with pytest.raises(ConfigError, match="classifier must be one of"):
        load_engine(None, classifier="boosting")
