"""The engine on PyTorch against the network's modules and golden numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ebmtrack.engines.base import Ascent, FirstFrame, InnerLook, WholeLook
from ebmtrack.engines.torch_engine import TorchEngine, covered_power, match_power
from ebmtrack.nets.inference import InferenceNet
from tests.support.engine_runs import BOX, check_copies_learn_alone, check_golden_climb
from tests.support.golden import dimp18, image


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def first_frame(name: str = "train0", side: int = 288, copies: int = 1) -> FirstFrame:
    """Return a first frame with one view; every other channel of the copies is dropped."""
    factors = np.tile(np.array([0, 2], np.float32), (copies, 128))
    return FirstFrame(image(name, side, side)[None].astype(np.float32), BOX[None], factors, 3, 4)


def test_info_describes_the_network(engine):
    assert (engine.info.classifier, engine.info.channels, engine.info.stride) == ("dimp", 256, 16)
    assert (engine.info.device, engine.info.precision) == ("cpu", "float32")
    assert copy.deepcopy(engine) is engine


def test_the_climb_equals_golden_numbers(engine):
    check_golden_climb(engine)


@torch.inference_mode()
def test_filter_and_samples_are_those_of_the_modules(engine):
    """The model of the first frame, a stored sample, and the filter that is learned from both."""
    net, first = engine.net, first_frame()
    model, (region, *_) = engine.start(first)
    _, layer3 = net.extract(torch.from_numpy(first.patches))
    features = net.classify(layer3)
    factors = torch.tensor([0.0, 2.0]).repeat(128)
    samples, boxes = torch.cat([features, features * factors[:, None, None]]), torch.from_numpy(BOX).expand(2, -1)
    filters = net.classifier.learn(samples[:, None], boxes[:, None], None, 3)[-1]
    assert torch.equal(model.filter, filters) and torch.equal(model.samples[:2], samples)
    assert (model.samples[2:] == 0).all() and torch.equal(region.classification, features)
    (sight,) = engine.look([WholeLook(model, image("test0", 288, 288))])
    assert sight.scores.shape == (19, 19) and sight.scores.dtype == np.float32
    engine.remember(model, 2, sight.features, BOX + 8)
    weights = np.array([0.5, 0.2, 0.3])
    engine.learn(model, weights, 2)
    stored = torch.cat([samples, sight.features.classification])
    stored_boxes = torch.cat([boxes, torch.from_numpy(BOX + 8)[None]])
    improve, sample_weights = net.classifier.filter_optimizer, torch.from_numpy(weights).float()[:, None]
    expected = improve(filters, stored[:, None], stored_boxes[:, None], sample_weights, 2)
    assert len(expected) == 3 and torch.equal(model.filter, expected[-1]) and not torch.equal(model.filter, filters)


def test_copies_of_a_model_learn_alone(engine):
    check_copies_learn_alone(engine)


@pytest.mark.parametrize("side, margin", [(288, 3), (352, 4)])
def test_an_inner_look_sees_the_middle_of_the_region(engine, side, margin):
    """Layer 2 sees 49 pixels to each side: far from the edge the maps agree; outside of the inner part are zeros."""
    model, _ = engine.start(first_frame(side=side))
    patch, edge = image("walk", side, side), 16 * margin
    (whole,) = engine.look([WholeLook(model, patch)])
    (inner,) = engine.look([InnerLook(model, patch[edge:-edge, edge:-edge], margin, whole.features)])
    assert inner.scores.shape == whole.scores.shape
    for level, cells in ((0, 2 * margin), (1, margin)):
        full, part = (sight.features.energy.features.branches[level][2] for sight in (whole, inner))
        assert part.shape == full.shape
        seen = torch.zeros(part.shape[-2:], dtype=torch.bool)
        seen[cells:-cells, cells:-cells] = True
        assert (part[..., ~seen] == 0).all() and part[..., seen].abs().sum() > 0
    full, part = (sight.features.energy.features.branches[0][2] for sight in (whole, inner))
    middle = slice(side // 16 - 4, side // 16 + 4)
    assert torch.allclose(part[..., middle, middle], full[..., middle, middle], atol=1e-4 * full.abs().max())


def test_an_inner_look_has_the_power_of_the_whole_one(engine):
    """The mean square over the cells that the inner look covers; 18 cells, of which 12 x 12 are covered."""
    features = torch.rand(1, 8, 18, 18)
    power = covered_power(features, 3)
    assert power == pytest.approx(features[..., 3:15, 3:15].square().mean().item())
    assert match_power(torch.rand(1, 8, 12, 12), power).square().mean() == pytest.approx(power.item())
    assert torch.equal(match_power(torch.zeros(1, 8, 12, 12), power), torch.zeros(1, 8, 12, 12))
    model, _ = engine.start(first_frame())
    (whole,) = engine.look([WholeLook(model, image("walk", 288, 288))])
    (inner,) = engine.look([InnerLook(model, image("test0", 192, 192), 3, whole.features)])
    expected = covered_power(whole.features.classification, 3)
    assert covered_power(inner.features.classification, 3).item() == pytest.approx(expected.item(), rel=1e-5)


def test_looks_of_any_size_come_back_in_order_and_as_each_alone(engine):
    model, _ = engine.start(first_frame())
    (whole,) = engine.look([WholeLook(model, image("walk", 288, 288))])
    looks = [
        InnerLook(model, image("train0", 192, 192), 3, whole.features),
        WholeLook(model, image("test0", 288, 288)),
        InnerLook(model, image("walk", 192, 192), 3, whole.features),
        WholeLook(model, image("walk", 288, 288)),
    ]
    marks: list[str] = []
    together = engine.look(looks, marks.append)
    assert marks == ["backbone", "classifier features"]
    for sight, look in zip(together, looks):
        assert np.array_equal(sight.scores, engine.look([look])[0].scores)


def test_the_two_spaces_agree_for_small_steps_of_position(engine):
    """One step: relative v + step df/dv moves x by step w^2 df/dx; the default space moves it by step w df/dx."""
    model, (region, *_) = engine.start(first_frame())
    box = np.array([[[120.0, 118, 50, 40]]], np.float32)
    relative, default = (
        engine.climb([region], box, Ascent(1, 1e-3, 0.0, space)).boxes_xywh[0, 0] - box[0, 0] for space in (True, False)
    )
    assert np.allclose(relative[:2], default[:2] * box[0, 0, 2:], rtol=1e-2, atol=1e-5)
