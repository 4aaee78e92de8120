"""The folded network and the energy's closed-form gradient against the plain modules and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.nets import inference
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.roi_pool import precise_roi_pool
from ebmtrack.nets.target_energy import (
    BoxFeatures,
    JointEnergy,
    PoolingKernel,
    Projection,
    TargetEnergy,
    bin_edges,
)
from tests.support.golden import arrays, dimp18, image, relative_error

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
    features = net.box_features(layer2[1:], layer3[1:])
    energy = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX).over(features)
    for level, expected in enumerate(plain[1]):
        whole, _ = features.part(level, [0, 0], [100, 100])
        assert relative_error(whole.permute(2, 0, 1), expected[0]) < tolerance
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    expected = dimp18().bb_regressor(plain[0], plain[1], boxes[None])[0]
    assert relative_error(energy.value(boxes), expected) < tolerance


@pytest.mark.parametrize("device, expected", [("cuda:0", "bfloat16"), ("cuda:1", "float32"), ("cuda:2", "bfloat16")])
def test_bfloat16_is_chosen_where_the_given_gpu_has_it(monkeypatch, device, expected):
    """An A100, which is the current device, a T4, on which PyTorch would emulate it, and an H100."""
    capabilities = {0: (8, 0), 1: (7, 5), 2: (9, 0), None: (8, 0)}
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[torch.device(device).index])
    assert inference._dtype(torch.device(device), "auto") == getattr(torch, expected)
    assert inference._dtype(torch.device(device), "float32") == torch.float32
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert inference._dtype(torch.device(device), "auto") == torch.bfloat16


def test_closed_form_gradient_equals_golden_numbers(patches):
    net = InferenceNet(dimp18(), precision="float32")
    layer2, layer3 = net.extract(patches)
    energy = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX).over(net.box_features(layer2[1:], layer3[1:]))
    values, g = energy.value_and_gradient(xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"]))
    grad_xywh = torch.cat([g[:, :2] + g[:, 2:], g[:, 2:]], dim=1)  # x moves both edges, w the right one
    assert relative_error(values, arrays("dimp18")["energy/values"]) < 1e-4
    assert relative_error(grad_xywh, arrays("dimp18")["energy/grad_xywh"]) < 1e-4


BOXES = torch.tensor(
    [
        [3.2, 2.1, 9.7, 8.3],
        [-4.0, -3.0, 2.5, 3.5],
        [8.0, 9.0, 30.0, 25.0],
        [-9.0, -9.0, -3.0, -2.0],
        [4.0, 4.0, 4.0, 7.0],
        [1.0, 2.0, 6.0, 5.0],
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:1], BOXES[3:4]], ids=["all", "one", "outside"])
@pytest.mark.parametrize("bins", [5, 3, 1])
def test_pooling_kernel_and_its_gradient_equal_autograd(boxes, bins):
    torch.manual_seed(0)
    feature = torch.randn(12, 12, 4, dtype=torch.float64)
    pool = PoolingKernel(bin_edges(boxes.numpy(), bins), np.zeros((2, bins), int), 12)
    y = boxes.clone().requires_grad_()
    expected = precise_roi_pool(feature.permute(2, 0, 1)[None], y[None], bins, 1.0)[0]  # (R, c, s, s)
    kernel = torch.from_numpy(pool.kernel).view(len(boxes), bins, 12, bins, 12)
    assert torch.allclose(torch.einsum("rihjw,hwc->rcij", kernel, feature), expected, atol=1e-12)
    cotangent = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * cotangent).sum(), y)
    of_kernel = torch.einsum("rcij,hwc->rihjw", cotangent, feature)
    assert np.allclose(pool.gradient(of_kernel.numpy()), gradient, atol=1e-10)


@pytest.mark.parametrize(
    "low, high",
    [
        ([12.3, 14.0], [19.0, 20.9]),
        ([-3.0, 2.0], [4.0, 9.5]),
        ([0, 0], [35, 35]),
        ([30.0, 31.0], [44.0, 40.0]),
        ([8.0, 16.0], [27.9, 20.0]),
        ([50, 50], [60, 60]),
    ],
)
@torch.no_grad()
def test_windows_of_box_features_are_parts_of_the_whole(patches, low, high):
    """Whatever part is asked for first, second or last, its values are those of the whole map."""
    net = InferenceNet(dimp18(), precision="float32")
    layer2, layer3 = net.extract(patches[1:])
    whole = BoxFeatures(net.box_energy, layer2, layer3)
    asked = BoxFeatures(net.box_energy, layer2, layer3)
    for lo, hi in ((low, high), ([v - 1 for v in low], high), ([0, 0], [9, 9])):
        for level in (0, 1):
            full, _ = whole.part(level, [0, 0], [100, 100])
            got, (x, y) = asked.part(level, [v / (level + 1) for v in lo], [v / (level + 1) for v in hi])
            assert torch.allclose(got, full[y : y + len(got), x : x + len(got)], atol=1e-4 * full.abs().max())


class ByLevel:
    """Stands in for BoxFeatures with the plain modules' maps."""

    def __init__(self, features):
        self.features = features

    def side(self, level):
        return self.features[level].shape[-1]

    def part(self, level, low, high):
        return self.features[level][0].permute(1, 2, 0).contiguous(), [0, 0]


def test_modulation_in_the_weights_equals_modulation_of_the_features(plain):
    """pool(m F) W = pool(F) (m W): checked with the golden network's own vectors."""
    modulation, features, _ = plain
    folded = InferenceNet(dimp18(), precision="float32").box_energy
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    with torch.no_grad():
        got = TargetEnergy(folded, [vector[0] for vector in modulation]).over(ByLevel(features)).value(boxes)
        expected = dimp18().bb_regressor(modulation, features, boxes[None])[0]
    assert relative_error(got, expected) < 1e-4


@torch.no_grad()
def test_energies_do_not_depend_on_the_order_of_questions(patches):
    """Asked for near boxes first and far ones later, or all at once: the same energies and gradients."""
    net = InferenceNet(dimp18(), precision="float32")
    layer2, layer3 = net.extract(patches)
    target = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX)
    near = torch.tensor([[120.0, 110, 170, 180]])
    far = torch.tensor([[-40.0, -30, 20, 40], [200, 190, 330, 300], [10, 240, 40, 270], [400, 400, 420, 420]])
    together, apart = (target.over(net.box_features(layer2[1:], layer3[1:])) for _ in range(2))
    everything = together.value_and_gradient(torch.cat([near, far]))
    single = [apart.value_and_gradient(box[None]) for box in torch.cat([near, far])]
    for got, parts in zip(everything, zip(*single)):
        assert torch.allclose(got, torch.cat(parts), rtol=1e-3, atol=1e-4 * got.abs().max())


@pytest.mark.parametrize("bins", [5, 3, 1])
def test_bins_see_all_cells_that_they_touch(bins):
    """Windows of cells for each bin hold all that the bins of these boxes pool: the same sums as with the whole map."""
    torch.manual_seed(0)
    feature, weight = torch.randn(12, 12, 4, dtype=torch.float64), torch.randn(bins**2, 4, 7, dtype=torch.float64)
    boxes = BOXES[[0, 4, 5]].numpy()
    edges = bin_edges(boxes, bins)
    low, high = edges[..., :-1].min(0).clip(0, 11), edges[..., 1:].max(0).clip(0, 11)
    projection = Projection(feature, [0, 0], weight, low, high)
    assert projection.length < 12 and projection.holds(low, high)
    kernel = torch.from_numpy(PoolingKernel(edges, projection.first_xy, projection.length).kernel)
    pooled = precise_roi_pool(feature.permute(2, 0, 1)[None], torch.from_numpy(boxes)[None], bins, 1.0)[0]
    expected = torch.einsum("rcs,sco->ro", pooled.flatten(2), weight)
    assert torch.allclose(kernel.flatten(1) @ projection.z, expected, atol=1e-12)


def test_a_projection_knows_what_it_holds():
    """One bin, whose window is the whole part: columns 3 to 8, rows 5 to 10."""
    whole = np.array([[3.0], [5.0]]), np.array([[8.0], [10.0]])
    projection = Projection(torch.zeros(6, 6, 4), [3, 5], torch.zeros(1, 4, 256), *whole)
    for low, high, expected in [
        ([3.0, 5.0], [8.0, 10.0], True),
        ([4.5, 6.2], [7.9, 9.0], True),
        ([2.9, 6.0], [5.0, 7.0], False),
        ([4.0, 6.0], [8.1, 7.0], False),
    ]:
        assert projection.holds(np.array(low)[:, None], np.array(high)[:, None]) is expected


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_targets_climb_together_as_each_alone(patches, precision):
    """Values and gradients to the bit, for boxes of one size, of unlike sizes (windows of unlike lengths), and of ones
    that move out of what was projected."""
    net = InferenceNet(dimp18(), precision=precision)
    layer2, layer3 = net.extract(patches)
    target = net.target_energy(layer2[:1], layer3[:1], REFERENCE_BOX)
    regions = [(layer2[k : k + 1], layer3[k : k + 1]) for k in (0, 1, 1)]
    several, apart = ([target.over(net.box_features(*region)) for region in regions] for _ in range(2))
    joint, box = JointEnergy(several), torch.tensor([120.0, 110, 170, 180])
    for sizes, move in (((1, 1, 1), 0.0), ((1, 0.5, 1.6), 3.0), ((0.3, 1, 0.3), -40.0)):
        jitter = 4 * torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
        boxes = torch.tensor(sizes)[:, None, None] * box + jitter + move
        together, values = joint.value_and_gradient(boxes), joint.value(boxes)
        for t, one in enumerate(apart):
            for got, wanted in zip(together, one.value_and_gradient(boxes[t])):
                assert torch.equal(got[t], wanted)
        assert torch.allclose(values, together[0], rtol=1e-5)
    assert any(len(groups) > 1 for groups in joint.groups)
