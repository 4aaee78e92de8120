"""Laws of the classifier: filters against conv2d, adjointness, descent against autograd, radial maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ebmtrack.nets.classifier import (
    NewtonDescent,
    RadialMap,
    SteepestDescent,
    _target_centres,
    apply_filter,
    distance_maps,
    filter_gradient,
    instance_l2_norm,
)
from ebmtrack.nets.tracker_net import ARCHITECTURES, TrackerNet

DOUBLE = torch.float64


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(3, 2, 5, 8, 7, dtype=DOUBLE), torch.randn(2, 5, 4, 4, dtype=DOUBLE)


@pytest.mark.parametrize("k", [4, 3, 1, 5])
def test_apply_filter_is_a_correlation_with_padding(data, k):
    features, filters = data[0], torch.randn(2, 5, k, k, dtype=DOUBLE)
    got = apply_filter(features, filters)
    for s in range(2):
        assert torch.allclose(got[:, s], F.conv2d(features[:, s], filters[s : s + 1], padding=k // 2)[:, 0])


def test_filter_gradient_is_the_adjoint(data):
    """<r, X w> = <X^T r, w> for every sequence."""
    features, filters = data
    scores = apply_filter(features, filters)
    r = torch.randn_like(scores)
    left = (r * scores).sum((0, 2, 3))
    assert torch.allclose(left, (filter_gradient(features, r, 4) * filters).sum((1, 2, 3)))


def test_norm_gives_the_mean_square_asked_for():
    x = torch.randn(3, 4, 5, 6) * torch.tensor([1.0, 10, 0.1])[:, None, None, None]
    y = instance_l2_norm(x, 0.25)
    assert torch.allclose(y.square().mean((1, 2, 3)), torch.full((3,), 0.0625), rtol=1e-3)


@pytest.mark.parametrize("distance, expected", [(0.0, 5.0), (0.1, 7.0), (0.05, 6.0), (0.2, 1.0), (9.0, 1.0)])
def test_radial_map_interpolates_and_ends_constant(distance, expected):
    """Knots at 0, 0.1, 0.2 with values 5, 7, 1."""
    assert RadialMap(torch.tensor([5.0, 7.0, 1.0]), 0.1)(torch.tensor(distance)).item() == pytest.approx(expected)


BOXES = torch.tensor([[[20.0, 30, 70, 80], [10, 10, 60, 50]]], dtype=DOUBLE).repeat(3, 1, 1)


def dimp_loss(optimizer, filters, features, weights):
    """Half the robust squared error of DiMP, equation 1, plus the regulariser; one number for each sequence."""
    distance = distance_maps(_target_centres(BOXES, 4), (9, 8))
    y, m, v = optimizer.targets(distance, weights[..., None, None])
    s = apply_filter(features, filters)
    activated = 0.5 * (1 - m) * s.abs() + 0.5 * (1 + m) * s
    reg = optimizer.filter_reg.square()
    return 0.5 * ((v * (activated - y)).square().sum((0, 2, 3)) + reg * filters.square().sum((1, 2, 3)))


def prdimp_loss(optimizer, filters, features, weights):
    """KL divergence of PrDiMP, equation 8, up to the label's entropy, plus the regulariser."""
    distance = distance_maps(_target_centres(BOXES, 4), (9, 8))
    y, v = optimizer.targets(distance, weights[..., None, None])
    s = apply_filter(features, filters)
    kl = (s.flatten(2).logsumexp(-1) - (y * s).sum((2, 3))) * v[..., 0, 0]
    reg = optimizer.filter_reg.square()
    return kl.sum(0) + 0.5 * reg * filters.square().sum((1, 2, 3))


@pytest.mark.parametrize("kind, loss", [(SteepestDescent, dimp_loss), (NewtonDescent, prdimp_loss)])
def test_steps_go_down_the_gradient_of_the_loss(data, kind, loss):
    """One step moves each filter along minus the autograd gradient of its own loss, and five steps lower it."""
    features, filters = data[0], 0.1 * data[1].requires_grad_()
    optimizer = kind().double()
    weights = torch.full((3, 2), 1 / 3, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad(loss(optimizer, filters, features, weights).sum(), filters)
    with torch.no_grad():
        iterates = optimizer(filters, features, BOXES, weights)
        step = iterates[0] - iterates[1]
        ratio = (step * gradient).sum((1, 2, 3)) / gradient.square().sum((1, 2, 3))
        assert (ratio > 0).all() and torch.allclose(step, ratio[:, None, None, None] * gradient, atol=1e-9)
        losses = torch.stack([loss(optimizer, w, features, weights) for w in iterates])
        assert len(iterates) == 6 and (losses.diff(dim=0) < 0).all()


@pytest.mark.parametrize("kind, loss", [(SteepestDescent, dimp_loss), (NewtonDescent, prdimp_loss)])
def test_curvature_is_the_second_derivative_along_the_gradient(data, kind, loss):
    """Both losses are smooth almost everywhere; along g the model's curvature is d^2 L / dt^2, less lambda |g|^2."""
    features, filters = data[0], 0.1 * data[1]
    optimizer = kind().double()
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)[:, None].repeat(1, 2)
    distance = distance_maps(_target_centres(BOXES, 4), (9, 8))
    reg = optimizer.filter_reg.square()
    targets = optimizer.targets(distance, weights[..., None, None])
    g, curvature = (t.detach() for t in optimizer.quadratic_model(filters, features, targets, reg))
    t = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    value = loss(optimizer, filters + t[:, None, None, None] * g, features, weights).sum()
    (first,) = torch.autograd.grad(value, t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t)
    assert torch.allclose(first, g.square().sum((1, 2, 3)))
    assert torch.allclose(second, curvature + reg.detach() * g.square().sum((1, 2, 3)))


@pytest.mark.parametrize("kind", [SteepestDescent, NewtonDescent])
def test_sequences_do_not_mix_and_weights_default_to_the_mean(data, kind):
    features, filters = data
    optimizer = kind().double()
    with torch.no_grad():
        both = optimizer(filters, features, BOXES)[-1]
        given = optimizer(filters, features, BOXES, torch.full((3, 2), 1 / 3, dtype=DOUBLE))[-1]
        alone = [optimizer(filters[s : s + 1], features[:, s : s + 1], BOXES[:, s : s + 1])[-1][0] for s in range(2)]
    assert torch.allclose(both, given) and torch.allclose(both, torch.stack(alone))


@pytest.mark.parametrize("kind", [SteepestDescent, NewtonDescent])
def test_a_sample_of_weight_zero_does_not_exist(data, kind):
    features, filters = data
    optimizer = kind().double()
    weights = torch.tensor([0.5, 0.5, 0.0], dtype=DOUBLE)[:, None].repeat(1, 2)
    with torch.no_grad():
        with_it = optimizer(filters, features, BOXES, weights)[-1]
        without = optimizer(filters, features[:2], BOXES[:2], weights[:2])[-1]
    assert torch.allclose(with_it, without)


@pytest.mark.parametrize("name, deviation", [("dimp18", 0.0295), ("dimp50", 0.0208), ("prdimp18", 0.0295)])
def test_starting_weights_of_the_classifier_are_those_of_pytracking(name, deviation):
    """Normal with variance 2 / (9 out) in all convolutions of the features; PrDiMP's initializer is zero."""
    classifier = TrackerNet(name).classifier
    for module in classifier.feature_extractor.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(deviation, rel=0.01)
            assert abs(module.weight.mean().item()) < 0.001
            kurtosis = (module.weight / module.weight.std()).pow(4).mean().item()
            assert kurtosis == pytest.approx(3, abs=0.1)
    initializer = classifier.filter_initializer.filter_conv.weight
    assert (initializer == 0).all() if name.startswith("prdimp") else initializer.std() > 0.02
    assert ARCHITECTURES["prdimp50"].label_sigma == 0.9


@pytest.mark.parametrize("kind", [SteepestDescent, NewtonDescent])
def test_a_sample_twice_with_half_of_its_weight_is_the_same(data, kind):
    features, filters = data
    optimizer = kind().double()
    once = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)[:, None].repeat(1, 2)
    rows = [0, 0, 1, 2]
    twice = torch.tensor([0.25, 0.25, 0.3, 0.2], dtype=DOUBLE)[:, None].repeat(1, 2)
    with torch.no_grad():
        one = optimizer(filters, features, BOXES, once)[-1]
        other = optimizer(filters, features[rows], BOXES[rows], twice)[-1]
    assert torch.allclose(one, other)


def test_the_label_density_of_prdimp_is_gaussian_with_its_sigma():
    """log p falls by d^2 / (2 sigma^2) at d cells (PrDiMP, section 4), and p sums to 1."""
    distance = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=DOUBLE)
    density, _ = NewtonDescent(label_sigma=0.5).targets(distance, torch.ones(1, dtype=DOUBLE))
    assert density.sum() == pytest.approx(1)
    assert (density[0, 0] / density).log().flatten().tolist() == pytest.approx([0, 2, 8, 18])


def test_alpha_eps_adds_to_the_inverse_of_the_step_length(data):
    """alpha = |g|^2 / (curvature + (lambda + eps) |g|^2), so that eps is the difference of 1 / alpha."""
    features, filters = data
    lengths = []
    for eps in (0.0, 0.25):
        optimizer = NewtonDescent(alpha_eps=eps).double()
        with torch.no_grad():
            start, end = optimizer(filters, features, BOXES, iterations=1)
        lengths.append((start - end).square().sum((1, 2, 3)).sqrt())
    with torch.no_grad():
        targets = optimizer.targets(distance_maps(_target_centres(BOXES, 4), (9, 8)), torch.full((3, 2, 1, 1), 1 / 3))
        g, _ = optimizer.quadratic_model(filters, features, targets, optimizer.filter_reg.square())
    norm = g.square().sum((1, 2, 3)).sqrt()
    assert torch.allclose(norm / lengths[1] - norm / lengths[0], torch.full((2,), 0.25, dtype=DOUBLE), atol=1e-6)
