"""Precise RoI pooling: numeric integration, gradients to second order, golden numbers, batched equals single."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ebmtrack.nets.roi_pool import bin_weights, hat_integral, precise_roi_pool, precise_roi_pool_indexed
from tests.support.golden import arrays, relative_error

DOUBLE = torch.float64
BOXES = torch.tensor(
    [
        [1.3, 2.2, 6.9, 7.1],
        [-3.0, -2.0, 2.4, 3.3],
        [5.5, 6.1, 14.0, 13.0],
        [-9.0, -8.0, -2.0, -3.0],
        [0.0, 0.0, 8.0, 7.0],
    ],
    dtype=DOUBLE,
)


def gauss_nodes(low: float, high: float) -> tuple[list[float], list[float]]:
    """Nodes and weights, in sum 1, of two-point Gauss quadrature between all whole numbers in [low, high]."""
    knots = [low, *range(math.floor(low) + 1, math.ceil(high)), high]
    nodes, weights = [], []
    for a, b in zip(knots, knots[1:]):
        for sign in (-1, 1):
            nodes.append((a + b) / 2 + sign * (b - a) / math.sqrt(12))
            weights.append((b - a) / 2 / (high - low))
    return nodes, weights


def surface(features: torch.Tensor, y: float, x: float) -> float:
    """The bilinear surface through features (H, W), with zeros beyond."""
    total = 0.0
    for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= i < features.shape[0] and 0 <= j < features.shape[1]:
            total += (1 - abs(y - i)) * (1 - abs(x - j)) * features[i, j].item()
    return total


def numeric_pool(features: torch.Tensor, box: torch.Tensor, bins: int) -> torch.Tensor:
    """Mean of the surface over each bin of the box, by quadrature that is exact for it: (bins, bins)."""
    x0, y0, x1, y1 = box.tolist()
    pooled = torch.zeros(bins, bins, dtype=DOUBLE)
    for i, j in itertools.product(range(bins), range(bins)):
        ys = gauss_nodes(y0 + (y1 - y0) * i / bins, y0 + (y1 - y0) * (i + 1) / bins)
        xs = gauss_nodes(x0 + (x1 - x0) * j / bins, x0 + (x1 - x0) * (j + 1) / bins)
        pooled[i, j] = sum(v * w * surface(features, y, x) for y, v in zip(*ys) for x, w in zip(*xs))
    return pooled


@pytest.mark.parametrize("bins", [1, 3, 5])
def test_equals_numeric_integration(bins):
    torch.manual_seed(0)
    features = torch.randn(1, 8, 9, dtype=DOUBLE)
    pooled = precise_roi_pool(features[None], BOXES[None], bins, 1.0)[0]
    for got, box in zip(pooled, BOXES):
        assert torch.allclose(got[0], numeric_pool(features[0], box, bins), atol=1e-10)


def test_golden_values_and_gradients():
    golden = arrays("common")
    features = golden["prroi/features"].clone().requires_grad_()
    rois = golden["prroi/rois_index_xyxy"].clone().requires_grad_()
    pooled = precise_roi_pool_indexed(features, rois[:, 1:], rois[:, 0].detach().long(), 3, 0.125)
    (pooled * golden["prroi/cotangent"]).sum().backward()
    assert relative_error(pooled, golden["prroi/out_3x3_scale_0p125"]) < 1e-5
    assert relative_error(features.grad, golden["prroi/grad_features"]) < 1e-4
    assert relative_error(rois.grad, golden["prroi/grad_rois"]) < 1e-4


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_gradients_to_second_order(check):
    torch.manual_seed(1)
    features = torch.randn(2, 2, 6, 5, dtype=DOUBLE, requires_grad=True)
    boxes = BOXES[None, :3].repeat(2, 1, 1).mul(0.7).add(0.013).requires_grad_()
    assert check(lambda f, b: precise_roi_pool(f, b, 2, 0.9), (features, boxes))


def test_batched_equals_single():
    torch.manual_seed(2)
    features, boxes = torch.randn(3, 4, 8, 9), BOXES.float().repeat(3, 1, 1) + torch.rand(3, 1, 1)
    together = precise_roi_pool(features, boxes, 3, 1.0)
    for n in range(3):
        for p in range(len(BOXES)):
            single = precise_roi_pool(features[n : n + 1], boxes[n : n + 1, p : p + 1], 3, 1.0)[0, 0]
            assert torch.allclose(together[n, p], single, atol=1e-6)
    order = torch.tensor([2, 0, 1, 0, 2])
    mixed = precise_roi_pool_indexed(features, boxes[order, torch.arange(5)], order, 3, 1.0)
    assert torch.allclose(mixed, together[order, torch.arange(5)], atol=1e-6)


@pytest.mark.parametrize("box", [[3.0, 3, 3, 6], [3.0, 3, 6, 3], [5.0, 5, 4, 6], [2.0, 2, 2, 2]])
def test_boxes_without_area_give_zeros_and_no_gradient(box):
    features = torch.randn(1, 2, 8, 8, dtype=DOUBLE, requires_grad=True)
    boxes = torch.tensor([[box]], dtype=DOUBLE, requires_grad=True)
    pooled = precise_roi_pool(features, boxes, 3, 1.0)
    pooled.sum().backward()
    assert pooled.abs().max() == 0 and features.grad.abs().max() == 0 and boxes.grad.abs().max() == 0


def test_no_boxes():
    assert precise_roi_pool(torch.zeros(2, 3, 4, 4), torch.zeros(2, 0, 4), 5, 1.0).shape == (2, 0, 3, 5, 5)
    empty = precise_roi_pool_indexed(torch.zeros(2, 3, 4, 4), torch.zeros(0, 4), torch.zeros(0).long(), 5, 1.0)
    assert empty.shape == (0, 3, 5, 5)


def test_a_constant_map_pools_to_the_constant_inside():
    """Bin weights inside the map sum to one."""
    low, high = torch.tensor([0.3, 2.0]), torch.tensor([4.4, 7.0])
    assert torch.allclose(bin_weights(low, high, 4, 9).sum(-1), torch.ones(2, 4), atol=1e-6)


def test_hat_integral_is_the_integral_of_the_hat():
    t = torch.linspace(-2, 2, 4001, dtype=DOUBLE)
    hat = (1 - t.abs()).clamp(min=0)
    expected = torch.cat([t.new_zeros(1), torch.cumulative_trapezoid(hat, t)])
    assert torch.allclose(hat_integral(t), expected, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_other_precisions(dtype, tolerance):
    torch.manual_seed(3)
    features = torch.randn(1, 4, 9, 9, dtype=DOUBLE)
    expected = precise_roi_pool(features, BOXES[None], 3, 1.0)
    got = precise_roi_pool(features.to(dtype), BOXES[None].float(), 3, 1.0)
    assert got.dtype == dtype and torch.allclose(got.double(), expected, atol=tolerance)
