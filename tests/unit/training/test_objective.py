"""Losses of a training step: equal to energy.losses and to direct formulas, and downhill means towards the truth."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from ebmtrack.boxes import iou_xywh, xywh_to_rel, xyxy_to_xywh
from ebmtrack.energy import losses
from ebmtrack.energy.noise import GaussianMixture
from ebmtrack.errors import ConfigError
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import (
    PRDIMP_WEIGHTS,
    BoxLossName,
    Candidates,
    Objective,
    ObjectiveSettings,
    box_energies,
    box_loss,
    classifier_loss,
    draw_candidates,
    hinge_loss,
    kl_classifier_loss,
    overlapping_boxes,
    score_labels,
)
from tests.support.golden import arrays, dimp18, image

BOX_LOSSES = get_args(BoxLossName)
MIXTURE = GaussianMixture.isotropic((0.05, 0.5), dims=4)
TRUTH = torch.tensor([[[60.0, 50, 80, 40], [20, 30, 40, 90]]])  # (1, 2, 4)


def settings_of(name: Any, **changes) -> ObjectiveSettings:
    return ObjectiveSettings(box_loss=name, **changes)


def drawn(name: str, truth: torch.Tensor = TRUTH, samples: int = 16, seed: int = 0) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    return draw_candidates(truth, settings_of(name, samples=samples), generator)


def energies_for(candidates: Candidates, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(candidates.log_q.shape, generator=torch.Generator().manual_seed(seed))


def log_normal(offsets: np.ndarray, sigma: float) -> np.ndarray:
    """Log density of N(0, sigma^2 I) in four dimensions, float64."""
    return -0.5 * ((offsets / sigma) ** 2).sum(-1) - 4 * math.log(sigma * math.sqrt(2 * math.pi))


# --- candidates


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_candidates_are_what_each_loss_needs(name):
    """M noise samples for KLD-IS and IoU, one more before them for the others: the truth, or for NCE+ the truth with a
    tenth of the noise. Boxes, offsets and densities belong together."""
    c = drawn(name, samples=16)
    assert c.log_q.shape == (1, 2, 16 if name in ("kld_is", "iou") else 17)
    size = TRUTH[..., None, 2:]
    offsets = xywh_to_rel(xyxy_to_xywh(c.boxes_xyxy), size) - xywh_to_rel(TRUTH[..., None, :], size)
    assert torch.allclose(offsets, c.offsets_rel, atol=1e-4)
    assert torch.allclose(MIXTURE.log_prob(c.offsets_rel), c.log_q, atol=1e-5)
    first = c.offsets_rel[..., 0, :].abs().max().item()
    assert (first == 0) == (name in ("nce", "ml_is"))
    if name == "nce_plus":
        assert 0 < first < 0.3  # six times 0.1 * 0.5


def test_all_losses_see_the_same_noise():
    """So that runs with different losses and one seed differ by the loss alone."""
    noise = [drawn(name).offsets_rel[..., -16:, :] for name in BOX_LOSSES]
    assert all(torch.equal(each, noise[0]) for each in noise)


# --- box losses


def test_box_losses_equal_those_of_energy_losses():
    for name in BOX_LOSSES:
        c = drawn(name)
        f = energies_for(c)
        got = box_loss(f, c, settings_of(name))
        if name in ("nce", "nce_plus"):
            expected = losses.nce(f, c.log_q, reduction="none")
        elif name == "kld_is":
            log_p = torch.from_numpy(log_normal(c.offsets_rel.double().numpy(), 0.05)).float()
            expected = losses.kld_is(f, c.log_q, log_p, reduction="none")
        elif name == "ml_is":
            expected = losses.ml_is(f[..., 1:], c.log_q[..., 1:], f[..., 0], reduction="none")
        else:
            continue
        assert got.shape == (1, 2) and torch.allclose(got, expected, rtol=1e-5)


def test_golden_kld_is():
    """pytracking's KL loss on stored scores and densities (formula of PrDiMP's box loss)."""
    golden = arrays("common")
    f, log_q, log_p = golden["loss/scores"], golden["loss/q"].log(), golden["loss/p"].log()
    assert losses.kld_is(f, log_q, log_p).item() == pytest.approx(golden["loss/kl_is"].item(), rel=1e-5)


def test_squared_overlap_error_by_hand():
    """Truth (0, 0, 10, 10); candidates: itself (IoU 1 -> target 1), shifted by 5 (50 / 150 -> -1/3), apart (-1). Scores
    of 0.5, 0, -1: errors 0.25, 1/9, 0."""
    truth = torch.tensor([0.0, 0, 10, 10])
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [30, 30, 40, 40]])
    c = Candidates(boxes, torch.zeros(3, 4), torch.zeros(3), truth)
    got = box_loss(torch.tensor([0.5, 0.0, -1.0]), c, settings_of("iou"))
    assert got.item() == pytest.approx((0.25 + 1 / 9) / 3)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_downhill_leads_to_the_truth(name):
    """f(y) = a - |y - theta|^2 / (2 s^2) in relative space, with its peak displaced by 0.1 from the truth: a step down
    the loss moves theta towards the truth, along each axis. Mean over 2,000 frames; all losses share s = 0.3."""
    theta = torch.tensor([0.1, -0.1, 0.1, -0.1], requires_grad=True)
    c = drawn(name, TRUTH[0, :1].expand(2000, 4), samples=64)
    f = 1 - (c.offsets_rel - theta).square().sum(-1) / (2 * 0.3**2)
    box_loss(f, c, settings_of(name)).mean().backward()
    assert (theta.grad * theta.detach() > 0).all()


@pytest.mark.parametrize("name", ["nce_plus", "nce", "kld_is", "ml_is"])
def test_at_the_truth_the_likelihood_losses_are_nearly_flat(name):
    """With its peak on the truth, the gradient is small beside that at a displacement of 0.1."""

    def slope(peak: float) -> float:
        theta = torch.full((4,), peak, requires_grad=True)
        c = drawn(name, TRUTH[0, :1].expand(2000, 4), samples=64)
        f = -(c.offsets_rel - theta).square().sum(-1) / (2 * 0.3**2)
        box_loss(f, c, settings_of(name)).mean().backward()
        assert theta.grad is not None
        return theta.grad.norm().item()

    assert slope(0.0) < 0.2 * slope(0.1)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"box_loss": "nce_pus"}, "did you mean 'nce_plus'"),
        ({"classifier_loss": "hing"}, "did you mean 'hinge'"),
        ({"samples": 0}, "at least 1"),
        ({"target_sigma": 0.0}, "positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, why):
    with pytest.raises(ConfigError, match=why):
        ObjectiveSettings(**changes)


# --- classifier losses


def test_kl_classifier_loss_equals_the_direct_formula():
    """float64: y = exp(-d^2 / (2 sigma^2)) normalised on the 19 x 19 cells, log sum exp s - sum y s, mean over maps."""
    rng = np.random.default_rng(0)
    boxes = torch.from_numpy(np.concatenate([rng.uniform(0, 200, (6, 2)), rng.uniform(20, 90, (6, 2))], 1))
    s = 5 * rng.standard_normal((6, 19, 19))
    total = 0.0
    for box, scores in zip(boxes.numpy(), s):
        cx, cy = (box[:2] + box[2:] / 2) / 16
        rows, columns = np.mgrid[0:19, 0:19]
        y = np.exp(-((columns - cx) ** 2 + (rows - cy) ** 2) / (2 * 0.9**2))
        y /= y.sum()
        total += math.log(np.exp(scores).sum()) - (y * scores).sum()
    labels = score_labels(boxes, (19, 19), 0.9)
    assert kl_classifier_loss(torch.from_numpy(s), labels).item() == pytest.approx(total / 6, rel=1e-6)
    in_float32 = kl_classifier_loss(torch.from_numpy(s).float(), labels.float())
    assert in_float32.item() == pytest.approx(total / 6, rel=1e-5)


def test_kl_classifier_loss_is_least_where_scores_are_the_log_density():
    """KL is zero there: the loss equals the label's entropy, and any other score map gives more."""
    labels = score_labels(torch.tensor([[100.0, 80, 40, 60]], dtype=torch.float64), (19, 19), 0.9)
    y = labels / labels.sum()
    least = kl_classifier_loss(y.clamp(min=1e-300).log(), labels)
    assert least.item() == pytest.approx(-(y * y.clamp(min=1e-300).log()).sum().item(), rel=1e-6)
    for seed in range(5):
        noise = 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert kl_classifier_loss(y.clamp(min=1e-300).log() + noise, labels) > least


def test_kl_classifier_loss_without_a_target_lowers_scores():
    """Labels of zero leave log sum exp: of zeros on 19 x 19 cells log 361."""
    assert kl_classifier_loss(torch.zeros(1, 19, 19), torch.zeros(1, 19, 19)).item() == pytest.approx(math.log(361))


@pytest.mark.parametrize(
    "settings, loss",
    [
        (ObjectiveSettings(), hinge_loss),
        (ObjectiveSettings(**PRDIMP_WEIGHTS), kl_classifier_loss),
    ],
)
def test_weights_of_the_iterates(settings, loss):
    """Six iterates: 100 first + 100 last + 400 / 4 each of the four between; PrDiMP 0.25, 0.25 and 1 / 4."""
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(2, 1, 9, 9, generator=generator) for _ in range(6)]
    labels = score_labels(torch.tensor([[[60.0, 50, 20, 20]]]), (9, 9), 0.9)
    each = [loss(s, labels).item() for s in scores]
    total, parts = classifier_loss(scores, labels, settings)
    unit = 100 if settings.classifier_loss == "hinge" else 0.25
    assert total.item() == pytest.approx(unit * sum(each), rel=1e-5)
    assert parts["first"].item() == pytest.approx(each[0]) and parts["last"].item() == pytest.approx(each[-1])


# --- the objective


class Fixed(nn.Module):
    """Scores of zero in two iterates, energies that depend on the candidates' places; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, train_images, train_boxes, test_images, candidates, apart):
        self.candidates = candidates
        t, s = test_images.shape[:2]
        return [self.weight * torch.zeros(t, s, 7, 7)] * 2, self.weight * (candidates / 50).sin().sum(-1)


def batch_of(boxes: list, size: int = 96) -> dict[str, torch.Tensor]:
    """One sequence of two train frames and the test frames `boxes`."""
    train = [[20.0, 20, 40, 30], [24.0, 20, 40, 30]]
    boxes_xywh = torch.tensor([[*train, *boxes]])
    crops = torch.randint(0, 255, (1, boxes_xywh.shape[1], size, size, 3), generator=torch.Generator().manual_seed(0))
    return {"crops": crops.to(torch.uint8), "boxes_xywh": boxes_xywh}


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_objective_is_the_weighted_sum(name):
    """0.01 times the box loss of the candidates that the network was given, plus the classifier's."""
    net = Fixed()
    batch = batch_of([[20.0, 20, 40, 30], [30.0, 25, 44, 30]])
    settings = settings_of(name, samples=8)
    loss, logs = Objective(2, settings)(net, batch, torch.Generator().manual_seed(3))
    c = draw_candidates(batch["boxes_xywh"][:, 2:].transpose(0, 1), settings, torch.Generator().manual_seed(3))
    assert torch.equal(c.boxes_xyxy, net.candidates)
    box = box_loss((c.boxes_xyxy / 50).sin().sum(-1), c, settings).mean()
    labels = score_labels(batch["boxes_xywh"][:, 2:].transpose(0, 1), (7, 7), 0.9)
    hinge = hinge_loss(torch.zeros(2, 1, 7, 7), labels)
    assert logs["box"].item() == pytest.approx(box.item(), rel=1e-5)
    assert loss.item() == pytest.approx(200 * hinge.item() + 0.01 * box.item(), rel=1e-5)


def test_a_loss_of_ones_own_takes_the_place_of_the_box_loss():
    """It gets the network's energies, the candidates and the settings; its mean over frames is the box loss."""

    def own(energies: torch.Tensor, candidates: Candidates, settings: ObjectiveSettings) -> torch.Tensor:
        return settings.samples * (energies - candidates.boxes_xyxy[..., 0]).abs().sum(-1)

    net, settings = Fixed(), settings_of("nce_plus", samples=8)
    batch = batch_of([[20.0, 20, 40, 30], [30.0, 25, 44, 30]])
    _, logs = Objective(2, settings, box_loss=own)(net, batch, torch.Generator().manual_seed(3))
    c = draw_candidates(batch["boxes_xywh"][:, 2:].transpose(0, 1), settings, torch.Generator().manual_seed(3))
    expected = own((c.boxes_xyxy / 50).sin().sum(-1), c, settings).mean()
    assert logs["box"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_frames_without_a_target_are_left_out_of_the_box_loss():
    """The mean over the two valid ones of three frames, and labels of zero for the third."""
    valid = [[20.0, 20, 40, 30], [30.0, 25, 44, 30]]
    settings = settings_of("kld_is", samples=8, classifier_loss="hinge")
    net = Fixed()
    generator = torch.Generator().manual_seed(3)
    batch = batch_of([*valid, [float("nan")] * 4]) | {"has_target": torch.tensor([[True] * 4 + [False]])}
    loss, logs = Objective(2, settings)(net, batch, generator)
    loss.backward()
    c = draw_candidates(torch.tensor([*valid, [0.0, 0, 16, 16]])[:, None], settings, torch.Generator().manual_seed(3))
    each = box_loss((c.boxes_xyxy / 50).sin().sum(-1), c, settings)
    assert logs["box"].item() == pytest.approx(each[:2].mean().item(), rel=1e-5)
    assert torch.isfinite(net.weight.grad) and torch.isfinite(loss)
    batch = batch_of([[0.0, 0.0, 1.0, 1.0]]) | {"has_target": torch.tensor([[True, True, False]])}
    nothing, logs = Objective(2, settings)(net, batch, generator)
    assert logs["box"].item() == 0 and nothing.item() == 0


def test_box_energies_without_a_classifier_are_those_of_the_whole_network():
    torch.manual_seed(0)
    net = TrackerNet("dimp18").eval()
    images = torch.randn(3, 2, 3, 64, 64)
    boxes = torch.tensor([[10.0, 10, 40, 40], [20, 16, 50, 40]])
    candidates = torch.tensor([10.0, 12, 44, 50]).expand(2, 2, 5, 4)
    with torch.no_grad():
        whole = net(images[:1], boxes[None], images[1:], candidates)[1]
        alone = box_energies(net, images[0], boxes, images[1:], candidates)
    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize(
    "architecture, settings, idle",
    [
        ("dimp18", ObjectiveSettings(samples=4, classifier_loss="none", box_loss="iou"), "classifier."),
        ("prdimp18", ObjectiveSettings(**PRDIMP_WEIGHTS, samples=4), None),
    ],
)
def test_what_an_objective_trains(architecture, settings, idle):
    """Without a classifier loss everything but the classifier; PrDiMP's losses train all of PrDiMP. (The regularisation
    of the Newton step begins at its least value, where it may have no gradient.)"""
    torch.manual_seed(0)
    net = TrackerNet(architecture)
    batch = batch_of([[20.0, 20, 40, 30], [30.0, 25, 44, 30]])
    batch = {key: torch.cat([value, value.flip(1)]) for key, value in batch.items()}
    loss, logs = Objective(2, settings)(net, batch, torch.Generator().manual_seed(0))
    loss.backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    expected = {name for name, _ in net.named_parameters() if idle and name.startswith(idle)}
    assert torch.isfinite(loss) and without - {"classifier.filter_optimizer.filter_reg"} <= expected <= without
    assert set(logs) == ({"box"} if idle else {"first", "last", "box", "classifier"})


def test_prdimp_weights_are_fields():
    assert set(PRDIMP_WEIGHTS) <= {field.name for field in dataclasses.fields(ObjectiveSettings)}


# --- batch norm in training: train and test images apart


def step_loss(statistics: Any) -> float:
    """The loss of one step in training mode with weights, images and noise that anyone can recompute.

    The network is `golden.dimp18` (every entry from its name), the crops are `golden.image("step<s><f>")` of 96 pixels,
    two sequences of two train and two test frames, and the noise is of torch's generator with seed 0.
    """
    crops = [[torch.from_numpy(image(f"step{s}{f}", 96, 96)) for f in range(4)] for s in range(2)]
    boxes = [[[20.0 + 3 * f, 24 + 2 * f + 5 * s, 36 + f, 30 + 2 * f] for f in range(4)] for s in range(2)]
    batch = {"crops": torch.stack([torch.stack(row) for row in crops]), "boxes_xywh": torch.tensor(boxes)}
    objective = Objective(2, ObjectiveSettings(samples=16, statistics=statistics))
    with torch.no_grad():
        return objective(copy.deepcopy(dimp18()).train(), batch, torch.Generator().manual_seed(0))[0].item()


def test_statistics_of_train_and_test_images_apart_change_the_loss():
    """Numbers of this code on 2026-11-28; together the loss is 1.9 % higher here (1.3 to 2.3 % in the issue)."""
    apart, together = step_loss("apart"), step_loss("together")
    assert apart == pytest.approx(18.0346, rel=1e-3) and together == pytest.approx(18.3798, rel=1e-3)
    assert 0.013 < together / apart - 1 < 0.023


def test_apart_equals_two_passes_through_the_trunk():
    """In training mode the energies are those of trunk features computed for each group on its own."""
    torch.manual_seed(0)
    net = TrackerNet("dimp18").train()
    images, boxes = torch.randn(4, 2, 3, 64, 64), torch.tensor([[10.0, 10, 40, 40], [20, 16, 50, 40]])
    candidates = torch.tensor([10.0, 12, 44, 50]).expand(2, 2, 5, 4)
    with torch.no_grad():
        got = net(images[:2], boxes.expand(2, 2, 4), images[2:], candidates)[1]
        first, rest = net.feature_extractor(images[:2].flatten(0, 1)), net.feature_extractor(images[2:].flatten(0, 1))
        modulation = net.bb_regressor.modulation(first[0][:2], first[1][:2], boxes)
        features = net.bb_regressor.features(*rest)
        wanted = net.bb_regressor(tuple(v.repeat(2, 1) for v in modulation), features, candidates.flatten(0, 1))
    assert torch.allclose(got.flatten(0, 1), wanted, atol=1e-5)


# --- ATOM's proposals


def test_overlapping_boxes_overlap_and_spread():
    """IoU above 0.1, sides above a pixel; centres are unbiased, and a larger width strays further."""
    truth, generator = torch.tensor([[60.0, 50, 80, 40]]), torch.Generator().manual_seed(0)
    spread = []
    for sigma in (0.01, 0.3):
        boxes = overlapping_boxes(truth, 2000, (sigma,), generator)[0]
        assert (iou_xywh(boxes, truth) > 0.1).all() and (boxes[:, 2:] > 1).all()
        offset = boxes[:, :2] + boxes[:, 2:] / 2 - torch.tensor([100.0, 70.0])
        assert offset.mean(0).abs().max() < 0.1 * sigma * math.sqrt(3200)
        spread.append(offset.std().item())
    assert spread[0] == pytest.approx(0.01 * math.sqrt(3200), rel=0.05) and spread[1] > 10 * spread[0]
    with pytest.raises(ConfigError, match="no density"):
        ObjectiveSettings(proposals="overlapping")


def test_the_hinge_costs_nothing_below_zero_on_the_background():
    """DiMP, equation 7: squares of max(0, s) where the label is below the threshold, of s - y elsewhere."""
    scores, labels = torch.tensor([-3.0, 0.5, 0.25]), torch.tensor([0.0, 0.01, 1.0])
    assert hinge_loss(scores, labels).item() == pytest.approx((0 + 0.25 + 0.5625) / 3)
