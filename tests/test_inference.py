"""The folded network and the energy's closed-form gradient against the plain modules and autograd."""

from __future__ import annotations

import pytest
import torch
from golden import arrays, dimp18, image, relative_error

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.box_energy import POOL
from ebmtrack.nets.inference import InferenceNet, Pooling, TargetEnergy
from ebmtrack.nets.roi_pool import precise_roi_pool

REFERENCE_BOX = xywh_to_xyxy(torch.tensor([100.0, 120, 80, 60]))


@pytest.fixture(scope="module")
def patches():
    return torch.stack([torch.from_numpy(image(name, 288, 288)) for name in ("train0", "test0")])


@pytest.fixture(scope="module")
def plain(patches):
    """Modulation, box features and classifier features of the plain modules."""
    net = dimp18()
    with torch.no_grad():
        layer2, layer3 = net.feature_extractor(normalize_images(patches.permute(0, 3, 1, 2)))
        modulation = net.bb_regressor.modulation(layer2[:1], layer3[:1], REFERENCE_BOX[None])
        return modulation, net.bb_regressor.features(layer2[1:], layer3[1:]), net.classifier.features(layer3)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@torch.no_grad()
def test_inference_equals_the_modules(patches, plain, precision, tolerance):
    net = InferenceNet(dimp18(), precision=precision)
    layer2, layer3 = net.extract(patches)
    assert relative_error(net.classify(layer3), plain[2]) < tolerance
    energy = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX)
    features = net.box_features(layer2[1:], layer3[1:])
    for got, expected in zip(features, plain[1]):
        assert relative_error(got.permute(2, 0, 1), expected[0]) < tolerance
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    expected = dimp18().bb_regressor(plain[0], plain[1], boxes[None])[0]
    assert relative_error(energy.value(features, boxes), expected) < tolerance


def test_closed_form_gradient_equals_golden_numbers(patches):
    net = InferenceNet(dimp18(), precision="float32")
    layer2, layer3 = net.extract(patches)
    energy = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX)
    values, g = energy.value_and_gradient(net.box_features(layer2[1:], layer3[1:]),
                                          xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"]))
    grad_xywh = torch.cat([g[:, :2] + g[:, 2:], g[:, 2:]], dim=1)  # x moves both edges, w the right one
    assert relative_error(values, arrays("dimp18")["energy/values"]) < 1e-4
    assert relative_error(grad_xywh, arrays("dimp18")["energy/grad_xywh"]) < 1e-4


BOXES = torch.tensor([[3.2, 2.1, 9.7, 8.3], [-4.0, -3.0, 2.5, 3.5], [8.0, 9.0, 30.0, 25.0], [-9.0, -9.0, -3.0, -2.0],
                      [4.0, 4.0, 4.0, 7.0], [1.0, 2.0, 6.0, 5.0]], dtype=torch.float64)


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:1], BOXES[3:4]], ids=["all", "one", "outside"])
@pytest.mark.parametrize("bins", [5, 3, 1])
def test_pooling_and_its_gradient_equal_autograd(boxes, bins):
    torch.manual_seed(0)
    feature = torch.randn(11, 13, 4, dtype=torch.float64)
    pool = Pooling(feature, boxes, bins)
    y = boxes.clone().requires_grad_()
    expected = precise_roi_pool(feature.permute(2, 0, 1)[None], y[None], bins, 1.0)[0].permute(0, 2, 3, 1)
    cotangent = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * cotangent).sum(), y)
    assert torch.allclose(pool.values, expected, atol=1e-12)
    assert torch.allclose(pool.gradient(cotangent), gradient, atol=1e-10)


def test_modulation_in_the_weights_equals_modulation_of_the_features(plain):
    """pool(m F) W = pool(F) (m W): checked with the golden network's own vectors."""
    modulation, features, _ = plain
    folded = InferenceNet(dimp18(), precision="float32").box_energy
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    energy = TargetEnergy(folded, [vector[0] for vector in modulation])
    got = energy.value([f[0].permute(1, 2, 0).contiguous() for f in features], boxes)
    assert len(energy.weights) == len(POOL)
    assert relative_error(got, dimp18().bb_regressor(modulation, features, boxes[None])[0].detach()) < 1e-4
