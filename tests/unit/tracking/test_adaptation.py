"""The energy's last layer learns the first frame: the minimum that is found, the noise, and what it is good for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ebmtrack.energy.losses import nce
from ebmtrack.energy.noise import GaussianMixture
from ebmtrack.engines import load_engine
from ebmtrack.engines.base import Sight, no_mark
from ebmtrack.engines.mirrored import MirroredEngine
from ebmtrack.tracking.adaptation import NOISE_BOXES, SIGMAS, _loss, adapt_energy, adapted_layer, noise_offsets
from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from tests.support.engine_runs import BOX, check_hidden_units, first_frame
from tests.support.golden import FEW_VIEWS, image
from tests.support.scripted_engine import ScriptedEngine

SIDE = 288
SMALL = load_params("dimp18_nce_plus").replace(sample_size=144, energy_adaptation=0.5, **FEW_VIEWS)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(4)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (150.0, 100.0, 30.0, 40.0)]


@pytest.fixture(scope="module", params=["onnx", "torch", "mirrored"])
def engine(request):
    engine = load_engine(None, "cpu", "float32", "onnx" if request.param == "mirrored" else request.param)
    return MirroredEngine(engine) if request.param == "mirrored" else engine


def drawn(views=2, boxes=40, units=12, seed=0):
    """Return hidden units, log densities and a last layer."""
    rng = np.random.default_rng(seed)
    hidden = np.maximum(rng.normal(size=(views, boxes, units)), 0).astype(np.float32)
    return hidden, rng.normal(size=(views, boxes)), rng.normal(size=units).astype(np.float32)


@pytest.mark.parametrize("pull", [0.05, 2.0])
def test_the_layer_is_at_the_minimum_of_nce_with_a_pull_to_where_it_began(pull):
    """There the gradient of the loss, by PyTorch and with the loss of training, is zero; where it began it was not."""
    hidden, log_q, start = drawn()

    def slope(layer):
        w = torch.tensor(layer, dtype=torch.float64, requires_grad=True)
        loss = nce(torch.from_numpy(hidden).double() @ w, torch.from_numpy(log_q))
        loss = loss + pull / 2 * (w - torch.from_numpy(start)).square().sum()
        return torch.autograd.grad(loss, w)[0].norm().item()

    assert slope(start) > 0.05 and slope(adapted_layer(hidden, log_q, start, pull)) < 1e-3 * slope(start)


def test_a_strong_pull_leaves_the_layer_and_a_weak_one_makes_the_true_box_the_best():
    hidden, log_q, start = drawn()
    assert np.allclose(adapted_layer(hidden, log_q, start, 1e7), start, atol=1e-5)
    layer = adapted_layer(hidden, log_q, start, 1e-3)
    assert ((hidden @ layer - log_q).argmax(axis=1) == 0).all()


def test_steps_that_would_go_too_far_are_halved():
    """With large units and hardly a pull, the first whole step of Newton's method raises the loss."""
    hidden, log_q, start = drawn(units=200)
    hidden, pull = 10 * hidden, 1e-3

    def loss_of(layer):
        scores = torch.from_numpy(hidden @ layer.astype(np.float32))
        return float(nce(scores, torch.from_numpy(log_q))) + pull / 2 * float(((layer - start) ** 2).sum())

    _, slope, curvature = _loss(start.astype(np.float64), hidden.astype(np.float64), log_q, start, pull)
    assert loss_of(start - np.linalg.solve(curvature, slope)) > 2 * loss_of(start)
    assert loss_of(adapted_layer(hidden, log_q, start, pull)) < 0.1 * loss_of(start)


def test_the_noise_is_that_of_training():
    """log q is the mixture's, up to a constant; half of the boxes have each width; views have boxes of their own."""
    offsets, log_q = noise_offsets(14)
    assert offsets.shape == (14, 1 + NOISE_BOXES, 4) and log_q.shape == (14, 1 + NOISE_BOXES)
    expected = GaussianMixture.isotropic(SIGMAS, 4).log_prob(torch.from_numpy(offsets)).numpy()
    assert np.allclose(log_q - expected, log_q[0, 0] - expected[0, 0])
    spread = np.sqrt((offsets[:, 1:] ** 2).mean(axis=-1)).ravel()
    assert 0.45 < (spread < 0.15).mean() < 0.55 and np.abs(offsets[:, 1:].mean(axis=(0, 1))).max() < 0.01
    assert np.quantile(spread[spread < 0.15], 0.5) == pytest.approx(0.05, rel=0.15)
    assert 1e-3 < np.median(np.abs(offsets[:, 0])) < 0.02 and np.abs(offsets[:, 1:]).max() > 1  # BETA of the others
    assert not np.allclose(offsets[0], offsets[1])


def test_energies_are_hidden_units_times_the_last_layer(engine):
    check_hidden_units(engine)


class Recorder(ScriptedEngine):
    """A script whose boxes have eight hidden units, sines of their corners; it writes down what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.patches: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []
        self.layer = np.linspace(-1, 1, 8, dtype=np.float32)

    def look(self, looks, mark=no_mark):
        self.patches += [one.patch for one in looks]
        return [Sight("mirrored", np.zeros((19, 19), np.float32))]

    def hidden_units(self, region, boxes_xyxy):
        self.boxes.append(boxes_xyxy)
        return np.abs(np.sin(np.concatenate([boxes_xyxy, boxes_xyxy / 3], axis=1))).astype(np.float32)

    def last_layer(self, target):
        return self.layer

    def use_last_layer(self, target, weights):
        self.layer = weights


def test_each_view_has_noise_of_its_own_around_the_box_that_is_in_it():
    """A box off the middle, in two views and the mirror image of the first; s is what divides the pull."""
    engine, first = Recorder(), first_frame()
    boxes = np.array([[40, 100, 60, 30], [50, 90, 60, 30]], np.float32)
    adapt_energy(engine, "model", ["one", "two"], first, boxes, 0.25)
    offsets, log_q = noise_offsets(3)
    for seen, (x, y, w, h), some in zip(engine.boxes, [*boxes, (SIDE - 40 - 60, 100, 60, 30)], offsets, strict=True):
        size, centre = seen[:, 2:] - seen[:, :2], (seen[:, 2:] + seen[:, :2]) / 2
        assert np.allclose(np.log(size / (w, h)), some[:, 2:], atol=1e-4)
        assert np.allclose((centre - (x + w / 2, y + h / 2)) / (w, h), some[:, :2], atol=1e-4)
    assert np.array_equal(engine.patches[0], first.patches[0][:, ::-1]) and len(engine.patches) == 1
    hidden = np.stack([Recorder().hidden_units("", one) for one in engine.boxes])
    assert np.allclose(engine.layer, adapted_layer(hidden, log_q, Recorder().layer, 4.0), atol=1e-5)


@pytest.mark.parametrize("size", [(9, 12), (11, 13), (20, 25)])
def test_the_box_is_where_the_target_is_in_every_view(size):
    """A white rectangle at an odd place, whose centre the brightness of the patches tells: within half a pixel.

    Regions are cut to whole pixels, which moves those of 11 x 13 and 20 x 25 by 2.5 and 1.4 pixels of the patch.
    """
    (w, h), picture = size, np.zeros((300, 400, 3), np.uint8)
    picture[87 : 87 + h, 151 : 151 + w] = 255
    engine = Recorder()
    params = load_params("dimp18_nce_plus").replace(sample_size=288, blur_sigmas=(), rotations_deg=(10, -45))
    start_target(engine, params, picture, np.array([151.0, 87.0, w, h]), seed=0)
    (first,) = engine.first
    assert first.regions == len(first.patches) == 8
    offsets, _ = noise_offsets(9)
    for patch, boxes, noise in zip([*first.patches, *engine.patches], engine.boxes, offsets[:, 0], strict=True):
        share, cells = patch[..., 0] / patch[..., 0].sum(), np.arange(len(patch)) + 0.5
        label_wh = (boxes[0, 2:] - boxes[0, :2]) / np.exp(noise[2:])
        label = (boxes[0, :2] + boxes[0, 2:]) / 2 - noise[:2] * label_wh
        assert np.abs(label - (share.sum(axis=0) @ cells, share.sum(axis=1) @ cells)).max() < 0.5


def test_the_true_box_gains(engine):
    """Its share among the noise boxes grows in the first frame, and more with more strength."""
    first, gains = dataclasses.replace(first_frame(channels=engine.info.channels), regions=2), []
    offsets, log_q = (values[0] for values in noise_offsets(1))
    size = (BOX[2:] - BOX[:2]) * np.exp(offsets[:, 2:])
    low = BOX[:2] + (BOX[2:] - BOX[:2]) * (0.5 + offsets[:, :2]) - size / 2
    boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
    labels = np.concatenate([first.boxes_xyxy[:, :2], first.boxes_xyxy[:, 2:] - first.boxes_xyxy[:, :2]], axis=1)
    for strength in (0.05, 0.5, 5.0):
        model, regions = engine.start(first)
        before = engine.energies(regions[0], boxes) - log_q
        adapt_energy(engine, model, regions, first, labels, strength)
        after = engine.energies(regions[0], boxes) - log_q
        gains.append(after[0] - np.logaddexp.reduce(after) - before[0] + np.logaddexp.reduce(before))
    assert 0 < gains[0] < gains[1] < gains[2] and gains[1] > 0.3


def test_engines_agree():
    """The layers of both engines in float32 are alike, and so are the boxes of a tracker that adapts."""
    found = []
    for name in ("onnx", "torch"):
        tracker = Tracker(load_engine(None, "cpu", "float32", name), SMALL)
        tracker.init(FRAMES[0], BOXES[0])
        layer = tracker.engine.last_layer(tracker._states[0].model)
        found.append((layer, np.array([tracker.update(frame).box_xywh for frame in FRAMES[1:]])))
    (layer, boxes), (other, others) = found
    own = tracker.engine.net.box_energy.iou_predictor.weight[0].detach().numpy()
    assert np.abs(layer - own).max() > 0.01
    assert np.allclose(layer, other, atol=1e-3) and np.allclose(boxes, others, atol=0.05)


def test_each_target_has_a_last_layer_of_its_own(engine):
    """Several targets have the boxes of separate trackers, to the bit, and the network's own layer stays."""
    plain = engine.engine if isinstance(engine, MirroredEngine) else engine
    params = SMALL.replace(mirrored=plain is not engine)
    multi = MultiTracker(plain, params, inner_looks=0)
    ids = [multi.add(FRAMES[0], box, seed=0) for box in BOXES]
    singles = []
    for box in BOXES:
        singles.append(Tracker(plain, params))
        singles[-1].init(FRAMES[0], box, seed=0)
    layers = [multi.engine.last_layer(multi._states[k].model) for k in ids]
    assert np.abs(layers[0] - layers[1]).max() > 1e-3
    for frame in FRAMES[1:]:
        together, alone = multi.update(frame), [single.update(frame) for single in singles]
        assert [together[k].box_xywh for k in ids] == [one.box_xywh for one in alone]


def test_a_target_goes_on_from_a_file_with_its_layer(engine, tmp_path):
    plain = engine.engine if isinstance(engine, MirroredEngine) else engine
    params = SMALL.replace(mirrored=plain is not engine)
    tracker, again = Tracker(plain, params), Tracker(plain, params)
    tracker.init(FRAMES[0], BOXES[0])
    tracker.update(FRAMES[1])
    tracker.save_state(tmp_path / "state.npz")
    again.load_state(tmp_path / "state.npz")
    assert [again.update(f).box_xywh for f in FRAMES[2:]] == [tracker.update(f).box_xywh for f in FRAMES[2:]]


def test_without_the_setting_nothing_is_learned(engine):
    model, _ = engine.start(first_frame(channels=engine.info.channels))
    tracker = Tracker(engine, SMALL.replace(energy_adaptation=0.0, mirrored=isinstance(engine, MirroredEngine)))
    tracker.init(FRAMES[0], BOXES[0])
    assert np.array_equal(engine.last_layer(tracker._states[0].model), engine.last_layer(model))
