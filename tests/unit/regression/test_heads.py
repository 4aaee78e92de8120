"""Laws of the methods of regression: losses against their formulas, densities that are ones, who trains what."""

from __future__ import annotations

import math

import pytest
import torch

from ebmtrack.energy.density import log_z_grid
from ebmtrack.energy.proposals import energy_nce
from ebmtrack.errors import ConfigError
from ebmtrack.regression import heads
from ebmtrack.regression.answers import by_grid, even_grid
from ebmtrack.regression.heads import METHODS, RegressionConfig, laplace_loss, make_head
from ebmtrack.regression.network import RegressionNet

DENSITIES = ("gaussian", "laplace", "softmax", "softmax-variance", "mdn", "energy-nce", "proposal", "teacher")


def config(method: str, dims: int = 1, **more) -> RegressionConfig:
    """Return a small network's config, with units of its own."""
    values = {
        "method": method,
        "targets": tuple("abc"[:dims]),
        "trunk": "small",
        "image_size": 16,
        "low": (-40.0,) * dims,
        "high": (60.0,) * dims,
        "shift": (10.0,) * dims,
        "scale": (5.0,) * dims,
        "noise": 8,
        "components": 2,
        "classes": 21,
    }
    return RegressionConfig(**{**values, **more})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def net_of(method: str, dims: int = 1) -> RegressionNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RegressionNet(config(method, dims)).eval()


IMAGES = torch.randint(0, 256, (3, 3, 16, 16), generator=generator(), dtype=torch.uint8)


IN_THREE = ("l2", "laplace", "softmax", "energy-kld-is", "proposal")


@pytest.mark.parametrize("method, dims", [*((name, 1) for name in METHODS), *((name, 3) for name in IN_THREE)])
def test_every_method_trains_and_answers(method, dims):
    """A step gives every part a finite gradient; the answers have the right shapes."""
    net = net_of(method, dims)
    labels = 10 + 5 * torch.randn(3, dims, generator=generator())
    net(IMAGES, labels, generator()).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    # a constant of f changes no loss, and SM, DSM and ML-MCMC see f through differences alone
    without = {name for name, g in gradients.items() if g is None or float(g.abs().sum()) == 0}
    assert all(name.endswith("last.bias") or method == "gaussian" and "logits" in name for name in without), without
    assert all(g is None or bool(g.isfinite().all()) for g in gradients.values())
    answer = net.answer(IMAGES, 32, generator())
    assert answer.point.shape == (3, dims) and bool(answer.point.isfinite().all())
    if method in ("l2", "huber"):
        with pytest.raises(ConfigError, match="without a density"):
            answer.interval(0.9)
        return
    assert answer.interval(0.9).shape == (3, 2, dims) and answer.log_prob(labels.unsqueeze(1)).shape == (3, 1)


@pytest.mark.parametrize("method", DENSITIES)
def test_every_density_integrates_to_one(method):
    """In the targets' units, over a range far wider than the labels'."""
    net = net_of(method)
    if method == "proposal":
        answer = net.grid_answer(IMAGES)
    else:
        answer = net.answer(IMAGES, 32, generator())
    energy = method in ("energy-nce", "proposal")
    axis = torch.linspace(-40, 60, 8001) if energy else torch.linspace(-300, 320, 60001)
    if method.startswith("softmax"):
        axis = torch.linspace(-42.5, 62.5, 60001)  # half a class beyond low and high
        log_p = answer.log_prob(axis.clamp(-42.49, 62.49)[None, :, None])
    else:
        log_p = answer.log_prob(axis[None, :, None].expand(3, -1, 1))
    torch.testing.assert_close(log_z_grid(log_p, axis), torch.zeros(3), atol=3e-3, rtol=0)


@pytest.mark.parametrize("method", ["laplace", "softmax", "mdn", "gaussian"])
def test_samples_follow_the_density(method):
    """The mean of log q over samples is minus the entropy, which the grid gives too."""
    answer = net_of(method).answer(IMAGES, 40_000, generator())
    axis = torch.linspace(-42.49, 62.49, 20001)
    log_p = answer.log_prob(axis[None, :, None].expand(3, -1, 1))
    entropy = -torch.trapezoid(log_p.exp() * log_p, axis, dim=1)
    torch.testing.assert_close(-answer.log_prob(answer.samples).mean(dim=1), entropy, atol=0.03, rtol=0)


def test_laplace_loss_of_poses_is_twice_the_nll():
    """Equation S10 against S9 on random numbers; and S9's density integrates to one in two dimensions."""
    draws = generator()
    z, mean, log_beta = (torch.randn(5, 3, generator=draws, dtype=torch.float64) for _ in range(3))
    beta = log_beta.exp()
    nll = 0.5 * beta.log().sum(dim=-1) + 0.5 * ((z - mean).square() / beta).sum(dim=-1).sqrt()
    torch.testing.assert_close(laplace_loss(z, mean, log_beta), 2 * nll)
    answer = net_of("laplace", 2).answer(IMAGES[:1], 8, generator())
    axis = torch.linspace(-290, 310, 1501)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 2)
    log_z = log_z_grid(answer.log_prob(points).view(1501, 1501), axis, axis)
    assert log_z.item() == pytest.approx(0, abs=0.02)


def test_mean_of_one_hot_softmax_is_its_class():
    head = make_head(config("softmax"), 4)
    with torch.no_grad():
        head.logits[0][2].weight.zero_()
        head.logits[0][2].bias.copy_(torch.eye(21)[7] * 100)
    assert head.answer(torch.zeros(1, 4), 4, generator()).point.item() == pytest.approx((-40 + 35 - 10) / 5)


def test_grid_answers_know_a_gaussian():
    """Mean, interval and likelihood of N(1, 0.5^2), in one and in three dimensions."""
    for dims, tolerance in ((1, 1e-3), (3, 0.05)):
        energy = lambda y: -0.5 * ((y - 1) / 0.5).square().sum(dim=-1)  # noqa: E731
        points, volume = even_grid(torch.full((dims,), -3.0), torch.full((dims,), 5.0), heads.GRID[dims])
        answer = by_grid(energy, points, volume)
        torch.testing.assert_close(answer.point, torch.ones(1, dims), atol=tolerance, rtol=0)
        expected = -dims * math.log(0.5 * math.sqrt(2 * math.pi))
        assert answer.log_prob(torch.ones(1, 1, dims)).item() == pytest.approx(expected, abs=tolerance)
        low, high = answer.interval(0.9)[0, :, 0].tolist()
        assert (low, high) == pytest.approx((1 - 0.8224, 1 + 0.8224), abs=0.05 if dims == 1 else 0.3)


def test_the_proposal_does_not_train_the_backbone(monkeypatch):
    """Detach rule 1: the backbone's gradient is that of NCE alone."""
    net, labels = net_of("proposal"), torch.tensor([[9.0], [12.0], [20.0]])
    of_both = torch.autograd.grad(net(IMAGES, labels, generator()), list(net.trunk.parameters()))
    monkeypatch.setattr(heads, "nce_and_kl", energy_nce)
    of_nce = torch.autograd.grad(net(IMAGES, labels, generator()), list(net.trunk.parameters()))
    assert any(float(g.abs().sum()) > 0 for g in of_nce)
    torch.testing.assert_close(of_both, of_nce)


def test_laplace_samples_are_finite_for_every_uniform_number(monkeypatch):
    """torch.rand may return 0, whose logarithm is infinite."""
    net = net_of("laplace", 3)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert bool(net.answer(IMAGES, 8, generator()).samples.isfinite().all())


def test_a_teacher_waits_for_the_warm_up():
    """While it lasts, the MDN's gradient is that of the labels' NLL."""
    head = heads.TeacherHead(config("teacher", warm_up=1), 64).train()
    images, g, z = torch.randn(3, 3, 16, 16), torch.randn(3, 64), torch.randn(3, 1)
    first, later = (
        torch.autograd.grad(head.loss(g, z, images, generator()).sum(), head.means[2].weight)[0] for _ in range(2)
    )
    nll = -head.density(g).log_prob(z.unsqueeze(1)).sum()
    torch.testing.assert_close(first, torch.autograd.grad(nll, head.means[2].weight)[0])
    assert not torch.allclose(first, later) and int(head.seen) == 2


def test_wrong_configs_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'mdn'"):
        make_head(config("mdm"), 4)
    with pytest.raises(ConfigError, match="one value for each"):
        config("mdn", low=(0.0, 1.0))
    with pytest.raises(ConfigError, match="low must be below high"):
        config("mdn", low=(70.0,))
    with pytest.raises(ConfigError, match="has no energy"):
        net_of("mdn").energy(IMAGES)
