"""Glances at calm targets: what the network sees of them, when they suffice, and that targets take turns."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebmtrack.boxes import iou_xywh
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.studies.bench_tracker import moving_squares
from ebmtrack.tracking import glance
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.multi import GLANCES, MultiTracker
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.golden import dimp18, image

PARAMS = load_params("dimp18_nce_plus")


@pytest.fixture(scope="module")
def shipped() -> Tracker:
    return Tracker.from_pretrained()


def target(frame: int = 2, phase: int = 0, glances: int = 4, side: float = 60.0, **found) -> SimpleNamespace:
    """What a decision looks at, by default of a calm target at a scale of one image pixel to a patch pixel."""
    calm = {"displacement_yx": np.array([0.5, -1.0]), "score": 0.6, "verdict": "normal"}
    known = Localization(**(calm | found))
    return SimpleNamespace(
        params=PARAMS,
        found=known,
        frame=frame,
        phase=phase,
        glances=glances,
        scale=1.0,
        size=np.array([30.0, side]),
        inner_power=torch.tensor(1.0),
    )


def test_a_calm_target_is_glanced_at():
    assert glance.suffices(target())


@pytest.mark.parametrize(
    "doubt",
    [
        {"verdict": "uncertain"},
        {"verdict": "hard_negative"},
        {"verdict": "not_found"},
        {"score": 2 * PARAMS.not_found_threshold - 0.01},
        {"displacement_yx": np.array([1.2, 1.2])},
        {"side": 97.0},
        {"glances": 0},
    ],
    ids=str,
)
def test_any_doubt_asks_for_the_whole_region(doubt):
    assert not glance.suffices(target(**doubt))


def test_there_is_no_glance_before_a_look_at_the_whole():
    fresh = target()
    fresh.inner_power = None
    assert not glance.suffices(fresh)


def test_calm_targets_take_turns():
    """Five targets: in every frame one sees the whole region, each of them in every fifth."""
    for frame in range(2, 12):
        assert sum(not glance.suffices(target(frame, phase)) for phase in range(5)) == 1
    assert [glance.suffices(target(frame)) for frame in range(5, 11)] == [False, True, True, True, True, False]


@torch.inference_mode()
@pytest.mark.parametrize("side, inner", [(288, 192), (352, 224)])
def test_a_glance_sees_the_middle_of_the_region(side, inner):
    """Layer 2 sees 49 pixels to each side: far from the edge the maps agree; outside of the glance there are zeros."""
    net = InferenceNet(dimp18(), precision="float32")
    patch = image("walk", side, side)
    assert glance.inner(patch).shape == (inner, inner, 3)
    whole2, whole3 = net.extract(torch.from_numpy(patch[None]))
    brief = net.extract(torch.from_numpy(glance.inner(patch)[None].copy()))
    layer2, layer3 = glance.whole(brief, side)
    assert layer2.shape == whole2.shape and layer3.shape == whole3.shape
    middle = slice(side // 16 - 4, side // 16 + 4)
    assert torch.allclose(layer2[..., middle, middle], whole2[..., middle, middle], atol=1e-4 * whole2.abs().max())
    edge = (side - inner) // 32
    for layer, cells in ((layer2, 2 * edge), (layer3, edge)):
        seen = torch.zeros(layer.shape[-2:], dtype=torch.bool)
        seen[cells:-cells, cells:-cells] = True
        assert (layer[..., ~seen] == 0).all() and layer[..., seen].abs().sum() > 0


def test_features_keep_the_power_that_the_whole_region_gives_them():
    features = torch.rand(1, 8, 18, 18)
    power = glance.inner_power(features)
    assert power == pytest.approx(features[..., 3:15, 3:15].square().mean().item())
    assert glance.with_power(torch.rand(1, 8, 12, 12), power).square().mean() == pytest.approx(power.item())
    assert torch.equal(glance.with_power(torch.zeros(1, 8, 12, 12), power), torch.zeros(1, 8, 12, 12))


def test_boxes_stay_near_those_without_glances(shipped, monkeypatch):
    """The network that ships, two calm squares: the same targets, nearly the same boxes, and glances were taken."""
    images, truth = moving_squares(8, (320, 240), 2, 48)
    taken = []
    suffices = glance.suffices
    monkeypatch.setattr(glance, "suffices", lambda one: taken.append(suffices(one)) or taken[-1])
    found = []
    for glances in (GLANCES, 0):
        tracker = MultiTracker(shipped.net, shipped.params, glances)
        for box in truth[0]:
            tracker.add(images[0], box)
        found.append([list(tracker.update(frame).values()) for frame in images[1:]])
    assert any(taken[: len(taken) // 2]) and not any(taken[len(taken) // 2 :])
    for some, others in zip(*found):
        for one, other in zip(some, others):
            assert one.found and one.score_map.shape == other.score_map.shape == (19, 19)
            assert one.score == pytest.approx(other.score, rel=0.3)
            assert iou_xywh(torch.tensor(one.box_xywh), torch.tensor(other.box_xywh)) > 0.7


def test_the_fast_set_up_glances_and_repeats_itself(shipped):
    """It differs from the usual one in the glances alone; the same seed gives the same boxes."""
    fast = load_params("dimp18_nce_plus_fast")
    assert fast == dataclasses.replace(PARAMS, glances=4)
    images, truth = moving_squares(5, (320, 240), 1, 48)
    runs = []
    for _ in range(2):
        tracker = Tracker(shipped.net, fast)
        tracker.init(images[0], truth[0, 0])
        runs.append([tracker.update(frame).box_xywh for frame in images[1:]])
    assert runs[0] == runs[1]
