"""The energy's closed-form gradient on the folded network against the plain modules and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.engines.pooling import PoolingKernel, bin_edges
from ebmtrack.engines.torch_box_features import BoxFeatures
from ebmtrack.engines.torch_energy import EnergyMap, JointEnergy, Projection, TargetEnergy, groups_of, target_energy
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.roi_pool import precise_roi_pool
from tests.support.golden import arrays, dimp18, image, relative_error

REFERENCE_BOX = xywh_to_xyxy(torch.tensor([100.0, 120, 80, 60]))


@pytest.fixture(scope="module")
def patches():
    return torch.stack([torch.from_numpy(image(name, 288, 288)) for name in ("train0", "test0")])


@pytest.fixture(scope="module")
def plain(patches):
    """Modulation and box features of the plain modules."""
    net = dimp18()
    with torch.no_grad():
        layer2, layer3 = net.feature_extractor(normalize_images(patches.permute(0, 3, 1, 2)))
        modulation = net.bb_regressor.modulation(layer2[:1], layer3[:1], REFERENCE_BOX[None])
        return modulation, net.bb_regressor.features(layer2[1:], layer3[1:])


def energy_of(net: InferenceNet, layer2, layer3) -> EnergyMap:
    """Return the energy of the target in the first image, in the second one."""
    target = target_energy(net.box_energy, layer2[:1], layer3[:1], REFERENCE_BOX[None], net.dtype)
    return target.over(BoxFeatures(net.box_energy, layer2[1:], layer3[1:]))


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@torch.no_grad()
def test_features_and_energies_equal_those_of_the_modules(patches, plain, precision, tolerance):
    net = InferenceNet(dimp18(), precision=precision)
    energy = energy_of(net, *net.extract(patches))
    for level, expected in enumerate(plain[1]):
        whole, _ = energy.features.part(level, [0, 0], [100, 100])
        assert relative_error(whole.permute(2, 0, 1), expected[0]) < tolerance
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    expected = dimp18().bb_regressor(plain[0], plain[1], boxes[None])[0]
    assert relative_error(torch.from_numpy(energy.value(boxes.numpy())), expected) < tolerance


@torch.no_grad()
def test_closed_form_gradient_equals_golden_numbers(patches):
    net = InferenceNet(dimp18(), precision="float32")
    energy = energy_of(net, *net.extract(patches))
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"]).numpy()
    values, g = map(torch.from_numpy, energy.value_and_gradient(boxes))
    assert np.array_equal(JointEnergy([energy]).gradient(boxes[None])[0], g)
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
    pool = PoolingKernel(bin_edges(boxes.numpy(), bins), np.tile(np.arange(12.0), (1, 2, bins, 1)))
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
    modulation, features = plain
    folded = InferenceNet(dimp18(), precision="float32").box_energy
    boxes = xywh_to_xyxy(arrays("dimp18")["energy/boxes_xywh"])
    with torch.no_grad():
        energy = TargetEnergy(folded, [vector[0] for vector in modulation]).over(ByLevel(features))
        got = torch.from_numpy(energy.value(boxes.numpy()))
        expected = dimp18().bb_regressor(modulation, features, boxes[None])[0]
    assert relative_error(got, expected) < 1e-4


@torch.no_grad()
def test_energies_do_not_depend_on_the_order_of_questions(patches):
    """Asked for near boxes first and far ones later, or all at once: the same energies and gradients."""
    net = InferenceNet(dimp18(), precision="float32")
    layer2, layer3 = net.extract(patches)
    together, apart = energy_of(net, layer2, layer3), energy_of(net, layer2, layer3)
    near = [[120.0, 110, 170, 180]]
    far = [[-40.0, -30, 20, 40], [200, 190, 330, 300], [10, 240, 40, 270], [400, 400, 420, 420]]
    boxes = np.array(near + far, np.float32)
    single = [apart.value_and_gradient(box[None]) for box in boxes]
    for got, parts in zip(together.value_and_gradient(boxes), zip(*single)):
        assert np.allclose(got, np.concatenate(parts), rtol=1e-3, atol=1e-4 * np.abs(got).max())


@torch.inference_mode()
def test_boxes_out_of_sight_have_no_energy_and_leave_the_others_alone(patches):
    net = InferenceNet(dimp18(), precision="float32")
    energy, near = energy_of(net, *net.extract(patches)), [120.0, 110, 170, 180]
    wild = [near, [np.nan, 0, 5, 5], [0, 0, np.inf, 5], [-2e6, 0, 5, 5]]
    boxes = np.array([wild], np.float32)
    values, gradients = JointEnergy([energy]).value_and_gradient(boxes)
    assert np.isnan(values[0]).tolist() == [False, True, True, True]
    assert np.isnan(gradients[0]).all(axis=-1).tolist() == [False, True, True, True]
    assert np.array_equal(JointEnergy([energy]).gradient(boxes), gradients, equal_nan=True)
    ahead = JointEnergy([energy])
    ahead.look_at(boxes)
    assert np.array_equal(ahead.value(boxes), values, equal_nan=True)
    value, gradient = energy.value_and_gradient(boxes[0, :1])
    assert np.allclose(values[0, 0], value[0], rtol=1e-4) and np.allclose(gradients[0, 0], gradient[0], rtol=1e-3)


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
    (group,) = groups_of([projection], 11, edges.dtype)
    assert group.holds(edges[None])
    kernel = torch.from_numpy(PoolingKernel(edges, group.cells).kernel)
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


@given(st.lists(st.floats(-20, 40), min_size=4, max_size=4), st.tuples(st.integers(0, 6), st.integers(0, 6)))
def test_a_group_holds_what_its_projection_holds(box, corner):
    """On a map of 12 cells, a window of six: edges beyond the map need no cells there."""
    low, high = np.array(corner, float)[:, None], np.array(corner, float)[:, None] + 5
    projection = Projection(torch.zeros(12, 12, 4), [0, 0], torch.zeros(1, 4, 256), low, high)
    edges = np.sort(np.array(box).reshape(2, 2), axis=1)
    (group,) = groups_of([projection], 11, edges.dtype)
    expected = projection.holds(edges[:, :1].clip(0, 11), edges[:, 1:].clip(0, 11))
    assert group.holds(edges[None, None]) == expected


@torch.inference_mode()
@pytest.mark.parametrize("precision, count, spread, away", [("float32", 3, 4, -40.0), ("bfloat16", 2, 1, -16.0)])
def test_several_targets_climb_together_as_each_alone(patches, precision, count, spread, away):
    """Values and gradients to the bit, for boxes of one size, of unlike sizes (windows of unlike lengths), and of ones
    that move out of what was projected. Small windows in bfloat16, which CPUs without it emulate."""
    net = InferenceNet(dimp18(), precision=precision)
    layer2, layer3 = net.extract(patches)
    target = energy_of(net, layer2, layer3).target
    regions = [(layer2[k : k + 1], layer3[k : k + 1]) for k in (0, 1, 1)[:count]]
    several, apart = ([target.over(BoxFeatures(net.box_energy, *region)) for region in regions] for _ in range(2))
    joint, box = JointEnergy(several), np.array([120.0, 110, 170, 180], np.float32)
    for sizes, move in (((1, 1, 1), 0.0), ((1, 0.5, 1.6), 3.0), ((0.3, 1, 0.3), away)):
        jitter = spread * np.random.default_rng(1).standard_normal((count, 5, 4), np.float32)
        boxes = np.array(sizes[:count], np.float32)[:, None, None] * box + jitter + np.float32(move)
        together, values = joint.value_and_gradient(boxes), joint.value(boxes)
        for t, one in enumerate(apart):
            for got, wanted in zip(together, one.value_and_gradient(boxes[t])):
                assert np.array_equal(got[t], wanted)
        assert np.allclose(values, together[0], rtol=1e-5)
    assert any(len(groups) > 1 for groups in joint.groups)
