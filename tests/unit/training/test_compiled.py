"""The faster training step computes what the plain network computes; averages are averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ebmtrack.nets.roi_pool import precise_roi_pool, precise_roi_pool_rows
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.compiled import WeightAverage, plain_state, prepare_for_speed
from tests.support.networks import lively_network


@pytest.mark.parametrize("architecture", ["dimp18", "ebm_lite"])
def test_the_folded_trunk_equals_the_plain_one_and_its_state_goes_back(architecture):
    net, images = lively_network(architecture), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        wanted = net.feature_extractor(images)
        prepare_for_speed(net, compile_parts=False)
        folded = net.feature_extractor(images)
        plain = TrackerNet(net.config).eval()
        plain.load_state_dict(plain_state(net))
        back = plain.feature_extractor(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.feature_extractor.modules())
    for a, b, c in zip(wanted, folded, back):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(c, a, rtol=1e-4, atol=1e-4)


def test_the_stem_gets_no_gradient_and_the_body_does():
    net = lively_network("dimp18")
    prepare_for_speed(net, compile_parts=False)
    layer2, layer3 = net.feature_extractor(torch.randn(1, 3, 64, 64))
    (layer2.sum() + layer3.sum()).backward()
    trunk = net.feature_extractor
    assert trunk.conv1.weight.grad is None and trunk.layer1[0].conv1.weight.grad is None
    assert trunk.layer2[0].conv1.weight.grad.abs().sum() > 0 and trunk.layer3[1].conv2.bias.grad.abs().sum() > 0


def test_dense_pooling_equals_pooling_by_axes():
    """Rows (bins, channels) of the dense product are the channels' bins of the usual one, also outside the map."""
    features = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    boxes = torch.tensor([[[4.0, 8, 60, 50], [-30, -20, 20, 30], [70, 60, 120, 110], [5, 5, 5, 9]]] * 2).double()
    rows = precise_roi_pool_rows(features, boxes, 3, 1 / 8)
    wanted = precise_roi_pool(features, boxes, 3, 1 / 8).flatten(3).transpose(2, 3).flatten(2)
    torch.testing.assert_close(rows, wanted, rtol=1e-12, atol=1e-12)


def test_energies_with_and_without_gradient_for_boxes_agree():
    """The box branch takes the dense product where boxes need no gradient."""
    net = lively_network("dimp18").double()
    branch, boxes = net.bb_regressor, torch.tensor([[[10.0, 12, 50, 40], [20, 5, 60, 61]]]).double()
    layer2, layer3 = torch.randn(1, 128, 9, 9).double(), torch.randn(1, 256, 5, 5).double()
    features = branch.features(layer2, layer3)
    vectors = branch.modulation(layer2, layer3, boxes[:, 0])
    dense = branch(vectors, features, boxes)
    torch.testing.assert_close(branch(vectors, features, boxes.requires_grad_()), dense, rtol=1e-9, atol=1e-9)


def test_the_average_of_constant_weights_is_the_weights_and_swapping_twice_changes_nothing():
    layer = nn.Linear(2, 2)
    average = WeightAverage(layer, 0.9)
    start = layer.weight.detach().clone()
    average.update(layer)
    torch.testing.assert_close(average.values["weight"], start)
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update(layer)
    # the second update has decay (1 + 2) / (10 + 2) = 0.25: three quarters of the change
    torch.testing.assert_close(average.values["weight"], start + 0.75)
    average.swap(layer)
    torch.testing.assert_close(layer.weight.detach(), start + 0.75)
    average.swap(layer)
    torch.testing.assert_close(layer.weight.detach(), start + 1.0)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_of_the_box_branch_acts_in_training_alone(rate):
    branch = lively_network("dimp18").bb_regressor
    branch.dropout = rate
    boxes = torch.tensor([[[10.0, 12, 50, 40]]])
    features = branch.features(torch.randn(1, 128, 9, 9), torch.randn(1, 256, 5, 5))
    vectors = (torch.ones(1, 256), torch.ones(1, 256))
    assert branch(vectors, features, boxes).equal(branch(vectors, features, boxes))
