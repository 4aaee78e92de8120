"""Heads of a trained network, fitted to another trunk by least squares."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.fitted_heads import RIDGE, _Fit, fit_heads
from tests.support.networks import lively_network

BOXES = torch.tensor([[[20.0, 24, 70, 60]], [[30, 30, 64, 80]]])


def samples(number: int) -> list[dict[str, Tensor]]:
    """Samples of two coarse random images."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(number, 2, 3, 12, 12, generator=generator)
    fine = nn.functional.interpolate(coarse.flatten(0, 1), size=(96, 96), mode="bilinear")
    return [{"crops": crops} for crops in (255 * fine).byte().permute(0, 2, 3, 1).unflatten(0, (number, 2))]


def answers(net: TrackerNet) -> list[Tensor]:
    """What a network says of two images: its last score map, and the energies of boxes."""
    crops = samples(1)[0]["crops"].permute(0, 3, 1, 2).float()
    images = normalize_images(crops, net.feature_extractor)[:, None]
    with torch.no_grad():
        scores, energies = net(images, BOXES, images, BOXES[:, :, None])
    return [scores[-1], energies]


def test_heads_that_are_fitted_to_their_own_trunk_compute_what_they_did():
    """The trunk's channels in another order: least squares find that out. The scale of the weights changes nothing."""
    trained = lively_network("ebm_lite")
    net = TrackerNet("ebm_lite")
    net.feature_extractor.load_state_dict(trained.feature_extractor.state_dict())
    order = torch.randperm(112, generator=torch.Generator().manual_seed(2))
    last = net.feature_extractor.blocks[-1]
    with torch.no_grad():
        for values in (last.conv3.weight, last.bn3.weight, last.bn3.bias, last.bn3.running_mean, last.bn3.running_var):
            values.copy_(values[order])
    last.has_shortcut, before = False, trained.feature_extractor.blocks[-1]
    before.has_shortcut = False
    shares = fit_heads(net, trained, samples(64), 64)
    assert len(shares) == 5 and min(shares) > 0.98
    for ours, theirs in zip(answers(net), answers(trained)):
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()
    fitted = net.classifier.feature_extractor[-1].weight
    assert fitted.std().item() == pytest.approx((2 / (9 * 112)) ** 0.5, rel=1e-4)


def test_a_fit_is_the_least_squares_of_numpy():
    """With the ridge as rows of its own; the share is R^2 over the outputs together, on samples apart."""
    rng, conv = np.random.default_rng(0), nn.Conv2d(3, 2, 3, padding=1)
    features, wanted = rng.normal(1, 2, (5, 3, 6, 4)), rng.normal(3, 1, (5, 2, 6, 4))
    wanted[:, 0] += 0.7 * features[:, 1]
    fit = _Fit([conv])
    for k, judge in enumerate([False] * 4 + [True]):
        fit.add(*(torch.tensor(v[k : k + 1]).float() for v in (features, wanted)), judge, torch.arange(24))
    (share,) = fit.solve()
    padded = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = [padded[k, :, i : i + 3, j : j + 3].ravel() for k in range(5) for i in range(6) for j in range(4)]
    x = np.column_stack([rows, np.ones(120)])
    y = wanted.transpose(0, 2, 3, 1).reshape(120, 2)
    ridge = np.sqrt(RIDGE * (x[:96, :27] ** 2).sum(0).mean()) * np.eye(28)[:27]
    solution = np.linalg.lstsq(np.vstack([x[:96], ridge]), np.vstack([y[:96], np.zeros((27, 2))]), rcond=None)[0]
    assert conv.weight.detach().numpy() == pytest.approx(solution[:27].T.reshape(2, 3, 3, 3), abs=1e-4)
    assert conv.bias.detach().numpy() == pytest.approx(solution[27], abs=1e-4)
    left = ((x[96:] @ solution - y[96:]) ** 2).sum() / ((y[96:] - y[96:].mean(0)) ** 2).sum()
    assert share == pytest.approx(1 - left, abs=1e-4)


def test_what_lies_behind_the_fitted_layers_is_copied():
    trained = lively_network("ebm_lite")
    net = TrackerNet(dataclasses.replace(trained.config, backbone="efficientnet_lite1"))
    fit_heads(net, trained, iter(samples(16)), 16)
    ours, theirs = net.state_dict(), trained.state_dict()
    copied = (
        "bb_regressor.conv3_2t.0.weight",
        "bb_regressor.iou_predictor.weight",
        "classifier.filter_optimizer.filter_reg",
    )
    assert all(ours[name].equal(theirs[name]) for name in copied)


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"box_width": 64}, "box_width 128 and 64;"),
        ({"classifier_channels": 56}, "classifier_channels 112 and 56;"),
        ({"classifier_blocks": 1, "backbone": "efficientnet_lite1"}, "classifier_blocks 0 and 1;"),
    ],
)
def test_heads_of_other_shapes_are_refused_and_nothing_is_changed(changes, what):
    trained = lively_network("ebm_lite")
    net = TrackerNet(dataclasses.replace(trained.config, **changes))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ConfigError, match=f"without blocks in its classifier; .* have {what}"):
        fit_heads(net, trained, samples(1), 1)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_a_classifier_with_blocks_is_refused_under_heads_of_its_own_kind():
    with pytest.raises(ConfigError, match="have classifier_blocks 1 and 1; change heads or arch$"):
        fit_heads(TrackerNet("dimp18"), TrackerNet("dimp18"), samples(1), 1)
