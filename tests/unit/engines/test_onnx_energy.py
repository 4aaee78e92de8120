"""The energy of boxes in NumPy against its definition in torch: pool, multiply, ReLU, add; gradients by autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmtrack.engines.onnx_box_maps import BoxMaps
from ebmtrack.engines.onnx_energy import ModulatedWeights, RegionEnergy
from ebmtrack.nets.roi_pool import precise_roi_pool

CHANNELS, HIDDEN = 3, 5
LEVELS = ((36, 5, 1 / 8), (18, 3, 1 / 16))


def inner(cut: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Stand in for the box branch's convolutions: the cut itself without its margin, channels last."""
    assert mask.shape == (len(cut[0]) - 2, len(cut[0]) - 2)
    return np.ascontiguousarray(cut[:, 2:-2, 2:-2].transpose(1, 2, 0))


RNG = np.random.default_rng(0)
LAYERS = [RNG.standard_normal((CHANNELS, side, side)).astype(np.float32) for side, _, _ in LEVELS]
ARRAYS = {
    name: RNG.standard_normal(shape).astype(np.float32)
    for name, shape in (
        ("energy/w8", (25, CHANNELS, HIDDEN)),
        ("energy/w16", (9, CHANNELS, HIDDEN)),
        ("energy/b8", HIDDEN),
        ("energy/b16", HIDDEN),
        ("energy/out", 2 * HIDDEN),
        ("energy/out_bias", 1),
    )
}
VECTORS = [np.abs(RNG.standard_normal(CHANNELS)).astype(np.float32) for _ in LEVELS]


def region() -> tuple[RegionEnergy, list[int]]:
    """Return the energy of a region that nothing has looked at yet, and the sides of the windows that it computes."""
    sides: list[int] = []

    def convolve(cut, mask):
        sides.append(len(cut[0]) - 4)
        return inner(cut, mask)

    return RegionEnergy(ModulatedWeights(VECTORS, ARRAYS), BoxMaps(LAYERS, (convolve, convolve))), sides


def definition(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (R,) and gradients (R, 4) of boxes (R, 4), in float64."""
    y = torch.from_numpy(boxes).double().requires_grad_()
    f = torch.full((len(boxes),), float(ARRAYS["energy/out_bias"][0]), dtype=torch.float64)
    for k, (name, (_, bins, scale)) in enumerate(zip(("8", "16"), LEVELS)):
        layer, weight = torch.from_numpy(LAYERS[k]).double(), torch.from_numpy(ARRAYS[f"energy/w{name}"]).double()
        pooled = precise_roi_pool(layer[None], y[None], bins, scale)[0] * torch.from_numpy(VECTORS[k])[:, None, None]
        hidden = torch.einsum("rcs,sch->rh", pooled.flatten(2), weight) + torch.from_numpy(ARRAYS[f"energy/b{name}"])
        f = f + hidden.relu() @ torch.from_numpy(ARRAYS["energy/out"].reshape(2, -1)[k]).double()
    (gradient,) = torch.autograd.grad(f.sum(), y)
    return f.detach().numpy(), gradient.numpy()


def check(energy: RegionEnergy, boxes: np.ndarray) -> None:
    expected, slope = definition(boxes)
    values, gradients = energy.value_and_gradient(boxes[None])
    assert np.allclose(values[0], expected, atol=2e-4 * np.abs(expected).max())
    assert np.allclose(gradients[0], slope, atol=2e-3 * np.abs(slope).max() + 1e-5)
    assert np.array_equal(energy.gradient(boxes[None]), gradients)
    assert np.allclose(energy.value(boxes), values[0], atol=1e-6 * np.abs(expected).max())


BOXES = np.array(
    [
        [100, 90, 150, 160],
        [96, 98, 148, 155],
        [108.5, 81, 160, 161.25],
        [101, 92, 101.5, 92.7],
    ],
    np.float32,
)


@pytest.mark.parametrize(
    "moved", [(0, 0), (-99, -80), (130, 125), (-130, 20), (400, 400)], ids=["middle", "corner", "edge", "out", "beyond"]
)
def test_values_and_gradients_equal_the_definition(moved):
    check(region()[0], BOXES + np.float32(moved * 2))


def test_a_box_without_area_has_the_energy_of_nothing():
    energy, _ = region()
    boxes = np.array([[100, 90, 100, 160], [150, 90, 100, 160], [100, 90, 150, 160]], np.float32)
    values, gradients = energy.value_and_gradient(boxes[None])
    out, biases = ARRAYS["energy/out"].reshape(2, -1), (ARRAYS["energy/b8"], ARRAYS["energy/b16"])
    nothing = ARRAYS["energy/out_bias"][0] + sum(np.maximum(b, 0) @ o for b, o in zip(biases, out))
    assert values[0, :2] == pytest.approx(nothing, rel=1e-5) and not gradients[0, :2].any()
    assert values[0, 2] == pytest.approx(definition(boxes[2:])[0][0], rel=1e-4)


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.floats(-60, 300)] * 2, *[st.floats(24, 200)] * 2), min_size=1, max_size=4))
def test_answers_do_not_depend_on_what_was_asked_before(places):
    """Boxes that leave the known part, as they do in a climb, have the values of the definition all the same."""
    energy, _ = region()
    for x, y, w, h in places:
        check(energy, (BOXES - BOXES[0]) / 9 + np.float32([x, y, x + w, y + h]))


def test_boxes_that_draw_together_need_nothing_new():
    """In a climb from where it was looked at, cells are selected, projected and convolved once."""
    energy, sides = region()
    spread = BOXES[:1] + np.float32([[0, 0, 0, 0], [12, 12, 12, 12], [-8, -8, -8, -8]])
    energy.look_at(spread[None])
    windows = energy.windows
    for share in (1, 0.6, 0.3, 0):
        check(energy, BOXES[:1] + (spread - BOXES[:1]) * np.float32(share))
    assert energy.windows is windows and sides == [16, 10]


@pytest.mark.parametrize("way", [(1, 1), (-1, 1), (-1, -1)])
def test_boxes_that_leave_a_little_at_a_time_miss_no_cell(way):
    energy, _ = region()
    for pixels in range(0, 40, 2):
        check(energy, BOXES + np.float32(way * 2) * pixels)


def test_windows_grow_by_steps():
    """Boxes that leave a window cost a somewhat larger one, not the whole map."""
    energy, sides = region()
    energy.look_at(BOXES[None, :1])
    assert sides == [12, 8]
    energy.look_at((BOXES[:1] + np.float32([64, 0, 64, 0]))[None])
    assert sides == [12, 8, 16, 10]
    energy.look_at((BOXES[:1] + np.float32([64, 0, 64, 0]))[None])
    assert sides == [12, 8, 16, 10]
    energy.look_at(np.float32([[4, 4, 280, 280]])[None])
    assert sides[4:] == [36, 18]


def test_lost_boxes_do_not_enlarge_the_windows():
    energy, sides = region()
    lost = np.float32([[np.nan, 0, 5, 5], [2e6, 0, 5, 5], [0, 0, np.inf, 4]])
    values, gradients = energy.value_and_gradient(np.concatenate([lost, BOXES])[None])
    assert np.isnan(values[0, :3]).all() and np.isnan(gradients[0, :3]).all()
    assert np.allclose(values[0, 3:], region()[0].value(BOXES), rtol=1e-5)
    seen, expected = region()
    seen.look_at(BOXES[None])
    assert sides == expected
    assert np.isnan(region()[0].value(lost)).all()
