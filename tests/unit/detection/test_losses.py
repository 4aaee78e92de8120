"""Losses of the branch, on energies that are known."""

from __future__ import annotations

import typing

import pytest
import torch

from ebmtrack.boxes import iou_xywh, rel_to_xywh, xywh_to_rel, xyxy_to_xywh
from ebmtrack.data.pipeline import displaced_boxes
from ebmtrack.detection.losses import (
    EnergyLoss,
    LossName,
    energy_loss,
    paper_loss,
    relative,
    uniform_overlap_offsets,
)
from ebmtrack.errors import ConfigError

TRUTH_XYXY = torch.tensor([[30.0, 20, 90, 70], [5, 60, 25, 160]])
NAMES = typing.get_args(LossName)


def gaussian_energy(width: float | torch.Tensor, shift: float = 0.0):
    """Return boxes -> log density, up to a constant, of offsets N(shift, width^2) relative to the true boxes."""
    truth = xyxy_to_xywh(TRUTH_XYXY)
    centre = xywh_to_rel(truth, truth[:, 2:])[:, None]

    def f(boxes_xyxy):
        y = xywh_to_rel(xyxy_to_xywh(boxes_xyxy), truth[:, None, 2:])
        return -0.5 * ((y - centre - shift) / width).square().sum(dim=-1)

    return f


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("height", [1.0, 1000.0])
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_finite_and_has_a_gradient(name, height):
    """Also for energies beyond exp's range: the released code gave inf above 88."""
    width = torch.tensor(0.1, requires_grad=True)
    loss = energy_loss(lambda b: height * gaussian_energy(width)(b), TRUTH_XYXY, paper_loss(name, 16), seeded())
    loss.backward()
    assert loss.isfinite() and width.grad.isfinite() and (width.grad != 0 or height > 1)


@pytest.mark.parametrize(
    "name, boxes", [("nce_plus", 128), ("nce", 128), ("ml_is", 128), ("kld_is", 128), ("dsm", 128)]
)
def test_the_label_is_one_of_the_boxes(name, boxes):
    """M = 128 counts the label for ML-IS, NCE (exactly it) and NCE+ (near it), and KLD-IS and DSM have no label."""
    seen = []
    energies = gaussian_energy(0.1)
    energy_loss(lambda b: seen.append(b) or energies(b), TRUTH_XYXY, paper_loss(name), seeded())
    assert seen[0].shape == (2, boxes, 4)
    distance = (seen[0][:, 0] - TRUTH_XYXY).abs().max()
    assert distance < 1e-4 if name in ("nce", "ml_is") else distance > 1e-4
    if name == "nce_plus":
        assert distance < 0.1 * 0.3 * 4 * 100


@pytest.mark.parametrize("name", ["dsm", "nce", "kld_is", "ml_is"])
def test_right_width_is_the_minimum(name):
    """DSM: in relative coordinates its minimum is at the Gaussian of its own noise; a wrong frame would move it.

    KLD-IS: at the target's width. NCE and ML-IS want all density on the label, the narrower the better.
    """
    loss = paper_loss(name, 4000)
    best = {"dsm": 0.075, "kld_is": 0.0225}.get(name, 0.003)
    widths = [best / 1.5, best, 1.5 * best]
    values = [energy_loss(gaussian_energy(width), TRUTH_XYXY, loss, seeded()).item() for width in widths]
    if name in ("dsm", "kld_is"):
        assert values[1] == min(values) and values[0] > values[1] < values[2]
    else:
        assert values == sorted(values)


def test_dsm_minimum_is_centred_and_zero_at_the_right_energy():
    """The gradient of log N(y_i, sigma^2) is -(y - y_i) / sigma^2: the residual vanishes for boxes of any size."""
    loss = paper_loss("dsm", 64)
    assert energy_loss(gaussian_energy(0.075), TRUTH_XYXY, loss, seeded()).item() == pytest.approx(0, abs=1e-4)
    assert energy_loss(gaussian_energy(0.075, shift=0.02), TRUTH_XYXY, loss, seeded()) > 1


def test_langevin_starts_at_the_labels():
    """With tiny steps the chain stays at the label and the loss is about 0; longer ones leave it."""
    energies = gaussian_energy(0.1)
    near = energy_loss(energies, TRUTH_XYXY, EnergyLoss("ml_mcmc", samples=256), seeded())
    far = energy_loss(energies, TRUTH_XYXY, EnergyLoss("ml_mcmc", samples=256, alpha=0.05, chain=4), seeded())
    assert abs(near) < 1e-4 and far < -0.5
    torch.manual_seed(1)  # the global numbers have no part in it
    again = energy_loss(energies, TRUTH_XYXY, EnergyLoss("ml_mcmc", samples=256, alpha=0.05, chain=4), seeded())
    assert again == far


@pytest.mark.parametrize("name", ["iou_net", "iou_net_star"])
def test_overlap_losses_vanish_for_a_perfect_judge(name):
    def judge(boxes_xyxy):
        return iou_xywh(xyxy_to_xywh(boxes_xyxy), xyxy_to_xywh(TRUTH_XYXY)[:, None])

    assert energy_loss(judge, TRUTH_XYXY, paper_loss(name), seeded()).item() == pytest.approx(0, abs=1e-6)
    assert energy_loss(lambda b: judge(b) - 2, TRUTH_XYXY, paper_loss(name), seeded()) == pytest.approx(1.5)


def test_iou_net_boxes_are_even_in_overlap():
    truth = xyxy_to_xywh(TRUTH_XYXY)
    boxes = displaced_boxes(truth, uniform_overlap_offsets((2, 20_000), seeded()))
    overlap = iou_xywh(xyxy_to_xywh(boxes), truth[:, None])
    assert overlap.min() >= 0.499
    counts = torch.histc(overlap, bins=5, min=0.5, max=1.0) / overlap.numel()
    assert (counts - 0.2).abs().max() < 0.02


def test_relative_coordinates_round_trip():
    truth = xyxy_to_xywh(TRUTH_XYXY)
    y = xywh_to_rel(truth, truth[:, 2:])[:, None]
    assert torch.allclose(relative(lambda b: b.sum(-1), truth)(y)[:, 0], TRUTH_XYXY.sum(-1))
    torch.testing.assert_close(rel_to_xywh(y[:, 0], truth[:, 2:]), truth)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="did you mean 'nce_plus'"):
        paper_loss("nce_pluss")
    with pytest.raises(ConfigError, match="samples must be at least 2"):
        paper_loss("nce", 1)
