"""Laws of learned proposals: what J_KL's minimum and gradient are, who learns from what, and weighted samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ebmtrack.energy import losses
from ebmtrack.energy import proposals as P
from ebmtrack.energy.density import log_z_grid
from ebmtrack.energy.proposals import MixtureDensity
from ebmtrack.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    """Return a fresh generator, so that equal seeds mean equal draws."""
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers in double precision."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def mixture(*shape: int, K: int = 3, D: int = 2, grad: bool = False) -> MixtureDensity:
    """Return mixtures with random parameters."""
    parts = [randn(*shape, K, seed=1), randn(*shape, K, D, seed=2), 0.3 * randn(*shape, K, D, seed=3)]
    return MixtureDensity(*(part.requires_grad_(grad) for part in parts))


def parameters(q: MixtureDensity) -> tuple[Tensor, Tensor, Tensor]:
    return q.logits, q.means, q.log_var


def gaussian_energy(y: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return -0.5 * ((y - mean) / std).square().sum(dim=-1)


def fit(energy, q: MixtureDensity, steps: int, samples: int, rate: float) -> MixtureDensity:
    """Train the mixture's parameters by J_KL alone."""
    adam, draws = torch.optim.Adam([p.requires_grad_() for p in parameters(q)], lr=rate), generator()
    for _ in range(steps):
        y = q.sample(samples, draws)
        adam.zero_grad()
        P.proposal_kl(energy(y), q.log_prob(y)).backward()
        adam.step()
    return q


def test_jkl_brings_one_gaussian_to_the_energy():
    """Specification, test 1: the minimum of J_KL is q = p."""
    start = MixtureDensity(torch.zeros(1, 1), torch.full((1, 1, 1), -1.0), torch.full((1, 1, 1), 1.0))
    q = fit(lambda y: gaussian_energy(y, 1.5, 0.4), start, steps=500, samples=1024, rate=0.02)
    assert q.means.item() == pytest.approx(1.5, abs=0.03)
    assert math.exp(0.5 * q.log_var.item()) == pytest.approx(0.4, abs=0.03)


def test_gradient_of_jkl_is_the_weighted_score():
    """Specification, test 2: grad J_KL = -sum_m W_m grad l_m."""
    q, f = mixture(4, grad=True), randn(4, 9, seed=4).requires_grad_()
    y = q.sample(9, generator())
    got = torch.autograd.grad(P.proposal_kl(f, q.log_prob(y), reduction="sum"), parameters(q))
    weights = torch.softmax(f - q.log_prob(y), dim=-1).detach()
    want = torch.autograd.grad(-(weights * q.log_prob(y)).sum(), parameters(q))
    for one, other in zip(got, want):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_joint_loss_has_the_gradients_of_its_two_parts():
    """Specification, test 3: ML-IS in theta, J_KL in phi."""
    q, f, f_true = mixture(4, grad=True), randn(4, 9, seed=4).requires_grad_(), randn(4, seed=5).requires_grad_()
    log_q = q.log_prob(q.sample(9, generator()))
    joint = torch.autograd.grad(P.joint_ml_is(f, log_q, f_true), (f, f_true, *parameters(q)), retain_graph=True)
    theta = torch.autograd.grad(losses.ml_is(f, log_q.detach(), f_true), (f, f_true))
    phi = torch.autograd.grad(P.proposal_kl(f, log_q), parameters(q))
    for one, other in zip(joint, (*theta, *phi)):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_labels_have_finite_losses_and_gradients(dtype):
    """Specification, test 4: a label 10,000 deviations away, under one component whose weight vanishes."""
    parts = [torch.tensor([[0.0, -300.0]]), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)]
    q = MixtureDensity(*(part.to(dtype).requires_grad_() for part in parts))
    y = torch.cat([torch.full((1, 1, 1), 1e4, dtype=dtype), q.sample(5, generator())], dim=-2)
    f = torch.zeros(1, 6, dtype=dtype, requires_grad=True)
    for loss in (P.nce_and_kl(f, q.log_prob(y)), P.proposal_with_teacher(f, q.log_prob(y))):
        gradients = torch.autograd.grad(loss, (*parameters(q), f), allow_unused=True, retain_graph=True)
        assert all(g is None or bool(g.isfinite().all()) for g in gradients) and loss.isfinite()
    assert q.log_prob(y).isfinite().all()


def test_equal_densities_give_equal_weights():
    """Specification, test 5: with q = p every weight is 1/M; the expectation of 1 is 1 for any weights."""
    q = mixture(4)
    y = q.sample(50, generator())
    log_w, log_z, ess = P.importance(q.log_prob(y) + 3, q.log_prob(y))
    torch.testing.assert_close(log_w.exp(), torch.full((4, 50), 1 / 50, dtype=torch.float64))
    torch.testing.assert_close(log_z, torch.full((4,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(ess, torch.full((4,), 50.0, dtype=torch.float64))
    log_w = P.importance(randn(4, 50), q.log_prob(y)).log_w
    torch.testing.assert_close(P.expectation(log_w, torch.ones(4, 50, 1)), torch.ones(4, 1, dtype=torch.float64))


def test_a_constant_in_the_energy_changes_nothing():
    """Specification, test 6."""
    q, f = mixture(4, grad=True), randn(4, 9, seed=4)
    log_q = q.log_prob(y := q.sample(9, generator()))
    for one, other in [
        [P.importance(g[..., 1:], log_q[..., 1:]).log_w for g in (f, f + 7)],
        [P.expectation(P.importance(g, log_q).log_w, y) for g in (f, f + 7)],
        [torch.autograd.grad(P.proposal_kl(g, log_q), q.means, retain_graph=True)[0] for g in (f, f + 7)],
        [P.energy_nce(g, log_q) for g in (f, f + 7)],
    ]:
        torch.testing.assert_close(one, other)


def test_both_modes_are_covered():
    """Specification, test 7: J_KL is the mass-covering direction."""
    energy = lambda y: torch.logaddexp(gaussian_energy(y, -2, 0.3), gaussian_energy(y, 2, 0.3))  # noqa: E731
    start = MixtureDensity(torch.zeros(1, 2), torch.tensor([[[-1.0], [1.0]]]), torch.full((1, 2, 1), 2.0))
    q = fit(energy, start, steps=400, samples=512, rate=0.03)
    assert q.log_weights.exp().min() > 0.2
    assert sorted(q.means.flatten().tolist()) == pytest.approx([-2, 2], abs=0.1)


def test_the_energy_alone_trains_the_backbone():
    """Specification, test 8: the gradient of `ebmdn4` in shared features is that of NCE."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone, energy, heads = nn.Linear(3, 5), nn.Linear(6, 1), nn.Linear(5, 6)
    x, y_0 = randn(4, 3).float(), randn(4, 1, seed=1).float()
    features = backbone(x)
    logits, means, log_var = heads(features.detach()).split(2, dim=-1)
    q = MixtureDensity.from_heads(logits, means, log_var)
    y = torch.cat([y_0.unsqueeze(1), q.sample(8, generator())], dim=1)
    f = energy(torch.cat([features.unsqueeze(1).expand(-1, 9, -1), y], dim=-1)).squeeze(-1)
    both = torch.autograd.grad(
        P.nce_and_kl(f, q.log_prob(y)), (*backbone.parameters(), *energy.parameters()), retain_graph=True
    )
    alone = torch.autograd.grad(P.energy_nce(f, q.log_prob(y)), (*backbone.parameters(), *energy.parameters()))
    for one, other in zip(both, alone):
        torch.testing.assert_close(one, other)


def test_gradcheck():
    """Every loss is differentiable in what it should be, to double precision."""
    q = mixture(2, grad=True)
    y = q.sample(5, generator())
    f = randn(2, 5, seed=4).requires_grad_()
    through = lambda loss: lambda *parts: loss(MixtureDensity(*parts).log_prob(y))  # noqa: E731
    assert torch.autograd.gradcheck(through(lambda log_q: log_q), parameters(q))
    assert torch.autograd.gradcheck(through(lambda log_q: P.proposal_kl(f, log_q)), parameters(q))
    assert torch.autograd.gradcheck(through(lambda log_q: P.proposal_with_teacher(f, log_q, 0.3)), parameters(q))
    log_q = q.log_prob(y).detach()
    assert torch.autograd.gradcheck(lambda f: P.energy_nce(f, log_q), f)
    assert torch.autograd.gradcheck(lambda f: P.joint_ml_is(f, log_q, f[..., 0]), f)


def test_mixture_is_a_density():
    """It integrates to 1, equals torch's own mixture, and its samples have its moments."""
    q, axis = mixture(K=3, D=1), torch.linspace(-15, 15, 4001, dtype=torch.float64)
    assert log_z_grid(q.log_prob(axis.unsqueeze(-1)), axis).item() == pytest.approx(0, abs=1e-9)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=q.logits),
        torch.distributions.Independent(torch.distributions.Normal(q.means, (0.5 * q.log_var).exp()), 1),
    )
    torch.testing.assert_close(q.log_prob(axis.unsqueeze(-1)), reference.log_prob(axis.unsqueeze(-1)))
    y = q.sample(200_000, generator())
    torch.testing.assert_close(y.mean(dim=0), q.mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(y.var(dim=0), q.variance(), atol=0.05, rtol=0)
    assert not y.requires_grad


def test_modes_begin_with_the_highest():
    q = MixtureDensity(torch.tensor([0.0, 2.0]), torch.tensor([[-3.0], [3.0]]), torch.zeros(2, 1))
    assert q.modes().flatten().tolist() == [3.0, -3.0]


def test_flat_heads_are_laid_out_dimension_first():
    """With D = 3 the paper's code has means of the shape (3, K)."""
    means = torch.arange(6.0).unsqueeze(0)
    q = MixtureDensity.from_heads(torch.zeros(1, 2), means, torch.zeros(1, 6))
    assert q.means[0].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_importance_sampling_finds_moments_and_likelihood():
    """A wide q and the energy of N(1, 0.5^2): mean, variance, log Z and intervals come out."""
    q = MixtureDensity(torch.zeros(1, 1), torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0))
    y = q.sample(100_000, generator())
    log_w, log_z, ess = P.importance(gaussian_energy(y, 1.0, 0.5), q.log_prob(y))
    assert P.expectation(log_w, y).item() == pytest.approx(1.0, abs=0.02)
    assert log_z.item() == pytest.approx(math.log(0.5 * math.sqrt(2 * math.pi)), abs=0.02)
    assert 10_000 < ess.item() < 100_000
    assert P.resample(log_w, y, 20_000, generator()).std().item() == pytest.approx(0.5, abs=0.02)
    low, high = P.quantiles(log_w, y, (0.05, 0.95)).flatten().tolist()
    assert (low, high) == (pytest.approx(1 - 0.8224, abs=0.02), pytest.approx(1 + 0.8224, abs=0.02))


def test_quantiles_of_equal_weights_are_the_ordinary_ones():
    y = randn(3, 101, 2)
    log_w = torch.full((3, 101), -math.log(101), dtype=torch.float64)
    torch.testing.assert_close(P.quantiles(log_w, y, (0.5,)).squeeze(-2), y.median(dim=-2).values)
    assert P.quantiles(torch.zeros(1, 1), torch.ones(1, 1, 2), (0.1, 0.9)).tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize("weights, samples", [(torch.float32, torch.bfloat16), (torch.float32, torch.float64)])
def test_quantiles_have_the_dtype_of_the_samples(weights: torch.dtype, samples: torch.dtype):
    y = torch.tensor([[3.0], [1.0], [2.0]], dtype=samples)
    found = P.quantiles(torch.full((3,), -math.log(3), dtype=weights), y, (0.25, 0.5))
    torch.testing.assert_close(found, torch.tensor([[1.25], [2.0]], dtype=samples), atol=1e-6, rtol=0)


def test_wrong_shapes_are_refused():
    q = mixture(2)
    with pytest.raises(ConfigError, match="means"):
        MixtureDensity(torch.zeros(2, 3), torch.zeros(2, 2, 1), torch.zeros(2, 2, 1))
    with pytest.raises(ConfigError, match="y must be"):
        q.log_prob(torch.zeros(2, 5, 3))
    with pytest.raises(ConfigError, match="num_samples"):
        q.sample(0)
    with pytest.raises(ConfigError, match="shared out"):
        MixtureDensity.from_heads(torch.zeros(1, 4), torch.zeros(1, 6), torch.zeros(1, 6))
    with pytest.raises(ConfigError, match="levels"):
        P.quantiles(torch.zeros(2), torch.zeros(2, 1), (0.0, 0.5))
    with pytest.raises(ConfigError, match="proposal_kl"):
        P.proposal_kl(torch.zeros(2, 5), torch.zeros(2, 4))
