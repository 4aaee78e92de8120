"""A network that learns to compute another one's features."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training import distillation
from ebmtrack.training.distillation import (
    FEATURES,
    Distillation,
    ResponseDistillation,
    density_divergence,
    first_features,
    score_error,
)
from ebmtrack.training.objective import Objective, ObjectiveSettings, draw_candidates
from ebmtrack.training.plan import Share
from tests.support.networks import lively_network
from tests.unit.training.test_fitted_heads import samples

GENERATOR, ALONE = torch.Generator(), Share()
BATCH = {"crops": torch.stack([sample["crops"] for sample in samples(2)])}  # 2 samples of 2 frames


def test_first_features_are_what_the_heads_go_on_with():
    """Strides 8 and 16; the second layers of the box branch, given these behind a ReLU, make the branch's features."""
    net = lively_network("dimp18")
    images = normalize_images(BATCH["crops"].flatten(0, 1).permute(0, 3, 1, 2).float(), net.feature_extractor)
    with torch.no_grad():
        made = dict(zip(FEATURES, first_features(net, images)))
        layer2, layer3 = net.feature_extractor(images)
        box = net.bb_regressor
        wanted8, wanted16 = box.features(layer2, layer3)
        torch.testing.assert_close(box.conv3_2t(made["test8"].relu()), wanted8)
        torch.testing.assert_close(box.conv4_2t(made["test16"].relu()), wanted16)
        torch.testing.assert_close(made["classifier"], net.classifier.features(layer3))
    assert made["reference8"].shape[-2:] == (12, 12) and made["reference16"].shape[-2:] == (6, 6)


def test_a_network_explains_all_of_itself_and_its_teacher_is_the_same_folded():
    net = lively_network("ebm_lite")
    loss, explained = Distillation(copy.deepcopy(net))(net.eval(), BATCH, GENERATOR, ALONE)
    assert loss.item() < 1e-6 and list(explained) == list(FEATURES)
    assert all(share.item() == pytest.approx(1, abs=1e-6) for share in explained.values())


def test_the_loss_is_the_squared_error_in_shares_of_the_variance(monkeypatch):
    """Within each channel for the box branch, over all values for the classifier; by NumPy."""
    rng = np.random.default_rng(0)
    theirs, ours = ([rng.normal(c, 2.0, (4, 3, 5, 5)) for c in range(5)] for _ in range(2))
    for values in theirs:
        values[:, 1] += 7
    trained, net = TrackerNet("ebm_lite"), TrackerNet("ebm_lite")
    answers = {True: theirs, False: ours}
    monkeypatch.setattr(
        distillation, "first_features", lambda one, images: [torch.tensor(v) for v in answers[one is trained]]
    )
    loss, explained = Distillation(trained)(net, BATCH, GENERATOR, ALONE)
    within = [np.mean([v[:, c].var(ddof=1) for c in range(3)]) for v in theirs[:4]] + [theirs[4].var(ddof=1)]
    errors = [((a - b) ** 2).mean() / v for a, b, v in zip(ours, theirs, within)]
    assert loss.item() == pytest.approx(sum(errors), rel=1e-5)
    assert [1 - share.item() for share in explained.values()] == pytest.approx(errors, rel=1e-4)


def test_no_gradient_reaches_the_teacher():
    trained, net = lively_network("ebm_lite"), TrackerNet("ebm_lite").eval()
    objective = Distillation(trained)
    objective(net, BATCH, GENERATOR, ALONE)[0].backward()
    assert all(p.grad is None for p in trained.parameters())
    learning = [net.bb_regressor.conv3_1t[0].weight, net.classifier.feature_extractor[-1].weight]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learning)


NOISE = ObjectiveSettings(samples=16, statistics="together")
ANSWERED = {**BATCH, "boxes_xywh": torch.tensor([[[20.0, 24, 50, 36], [30, 30, 40, 40]]] * 2)}


def generator() -> torch.Generator:
    """A generator that draws the same noise each time."""
    return torch.Generator().manual_seed(5)


def test_a_network_answers_as_itself_and_another_one_does_not():
    net = lively_network("ebm_lite").eval()
    loss, figures = ResponseDistillation(copy.deepcopy(net), 1, NOISE)(net, ANSWERED, generator(), ALONE)
    assert abs(loss.item()) < 1e-5 and list(figures) == ["divergence", "first", "last"]
    assert figures["first"].item() == pytest.approx(1, abs=1e-6) and figures["last"].item() == pytest.approx(
        1, abs=1e-6
    )
    other = lively_network("dimp18").eval()  # features of other shapes
    loss, figures = ResponseDistillation(other, 1, NOISE)(net, ANSWERED, generator(), ALONE)
    assert loss.item() > 0.1 and figures["last"] < 0.9


def test_the_loss_of_answers_is_that_of_numpy():
    """The divergence of densities over the noise boxes, and score maps in shares of the teacher's variance."""
    net, teacher = lively_network("ebm_lite").eval(), lively_network("dimp18").eval()
    with torch.no_grad():
        loss, _ = ResponseDistillation(copy.deepcopy(teacher), 1, NOISE)(net, ANSWERED, generator(), ALONE)
        boxes, objective = ANSWERED["boxes_xywh"].transpose(0, 1), Objective(1, NOISE)
        drawn = draw_candidates(boxes[1:], NOISE, generator())
        (scores, f), (wanted_scores, wanted) = (
            objective.answers(one, ANSWERED, boxes[:1], drawn.boxes_xyxy) for one in (net, teacher)
        )
    weights = [np.exp(v.double().numpy() - drawn.log_q.double().numpy()) for v in (f, wanted)]
    p, q = (w / w.sum(-1, keepdims=True) for w in weights)
    pairs = [
        (np.maximum(a.double().numpy(), 0), np.maximum(b.double().numpy(), 0)) for a, b in zip(scores, wanted_scores)
    ]
    errors = [((a - b) ** 2).mean() / b.var(ddof=1) for a, b in pairs]
    expected = (q * np.log(q / p)).sum(-1).mean() + errors[0] + errors[-1] + np.mean(errors[1:-1])
    assert len(errors) > 3 and loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_constant_in_the_energy_changes_no_density_and_scores_below_zero_do_not_count():
    values = torch.randn(3, 4, 7, generator=generator())
    assert density_divergence(values + 3.5, values, torch.zeros(7)).item() == pytest.approx(0, abs=1e-6)
    assert density_divergence(2 * values, values, torch.zeros(7)).item() > 0.01
    assert density_divergence(values + 300, values - 300, torch.zeros(7)).isfinite()
    assert score_error(torch.where(values < 0, -9.0, values), values).item() == 0


def test_answers_move_every_part_and_no_gradient_reaches_the_teacher():
    net, teacher = lively_network("ebm_lite").eval(), lively_network("dimp18").eval()
    ResponseDistillation(teacher, 1, NOISE)(net, ANSWERED, generator(), ALONE)[0].backward()
    assert all(p.grad is None for p in teacher.parameters())
    for part in (net.feature_extractor, net.bb_regressor, net.classifier):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
