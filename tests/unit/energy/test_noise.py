"""Laws of the Gaussian mixtures: normalisation, moments, scaling, reproducibility, agreement with other
code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ebmtrack.energy.density import grid, log_z_grid
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError
from tests.support import DATA

GOLDEN = DATA / "energy_golden.npz"


def generator(seed: int = 0) -> torch.Generator:
    """A fresh generator, so that equal seeds mean equal draws."""
    return torch.Generator().manual_seed(seed)


def test_density_agrees_with_the_authors_code():
    """Golden densities of the box mixture (0.05, 0.5) and of one Gaussian (0.05), computed by pytracking."""
    golden = np.load(GOLDEN)
    offsets = torch.from_numpy(golden["density_delta"])
    mixture = GaussianMixture.isotropic(sigmas=(0.05, 0.5), dims=4).log_prob(offsets).exp()
    single = GaussianMixture.isotropic(sigmas=(0.05,), dims=4).log_prob(offsets).exp()
    torch.testing.assert_close(mixture, torch.from_numpy(golden["density_gmm"]), rtol=1e-5, atol=0)
    torch.testing.assert_close(single, torch.from_numpy(golden["density_gauss_0p05"]), rtol=1e-5, atol=0)


def test_density_agrees_with_torch_distributions():
    """The same mixture, three components with their own widths in two dimensions, built from torch's
    classes."""
    sigmas = torch.tensor([[0.1, 0.3], [1.0, 0.2], [2.0, 5.0]], dtype=torch.float64)
    components = Independent(Normal(torch.zeros(3, 2, dtype=torch.float64), sigmas), 1)
    reference = MixtureSameFamily(Categorical(torch.ones(3, dtype=torch.float64)), components)
    y = 3 * torch.randn(4, 5, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(GaussianMixture(sigmas).log_prob(y), reference.log_prob(y))


@pytest.mark.parametrize("sigmas", [[[0.1], [0.8]], [[0.3, 0.1], [0.5, 0.7]]])
def test_density_integrates_to_one(sigmas):
    """The trapezoidal rule is exact to rounding for smooth densities that vanish at the ends, here 8 widths
    away."""
    mixture = GaussianMixture(torch.tensor(sigmas, dtype=torch.float64))
    axes = [torch.linspace(-8 * s, 8 * s, 801, dtype=torch.float64) for s in mixture.sigmas.amax(0).tolist()]
    assert abs(log_z_grid(mixture.log_prob(grid(*axes)), *axes).item()) < 1e-8


def test_samples_have_the_moments_of_the_mixture():
    """Mean 0, variance the mean of sigma_k^2 per dimension; E[y1^2 y2^2] = mean_k(s_k1^2 s_k2^2), which is
    not the product of the variances (0.505 x 1.25): one component is drawn for all dimensions. 200,000
    samples."""
    sigmas = torch.tensor([[0.1, 0.5], [1.0, 1.5]])
    y = GaussianMixture(sigmas).sample((200, 1000), generator())
    assert y.shape == (200, 1000, 2)
    square = y.square()
    assert y.mean(dim=(0, 1)).abs().max() < 0.02
    torch.testing.assert_close(square.mean(dim=(0, 1)), sigmas.square().mean(dim=0), rtol=0.02, atol=0)
    cross = (square[..., 0] * square[..., 1]).mean().item()
    assert cross == pytest.approx((0.1**2 * 0.5**2 + 1.0**2 * 1.5**2) / 2, rel=0.05)


def test_samples_follow_the_density():
    """Share of samples within r of the centre against the closed form (1/2) sum_k erf(r / (sigma_k sqrt
    2))."""
    y = GaussianMixture.isotropic((0.1, 0.8)).sample((100_000,), generator()).squeeze(-1)
    for r in (0.05, 0.2, 1.0):
        expected = sum(math.erf(r / (s * math.sqrt(2))) for s in (0.1, 0.8)) / 2
        assert (y.abs() < r).float().mean().item() == pytest.approx(expected, abs=0.006)


def test_same_seed_same_samples():
    q = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    assert torch.equal(q.sample((3, 7), generator(5)), q.sample((3, 7), generator(5)))
    assert not torch.equal(q.sample((3, 7), generator(5)), q.sample((3, 7), generator(6)))


def test_sample_around_adds_the_target():
    q = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    target = torch.randn(2, 3, 4, generator=generator())
    around = q.sample_around(target, 5, generator(1))
    torch.testing.assert_close(around, target[:, :, None] + q.sample((2, 3, 5), generator(1)))
    assert q.sample_around(target[:0], 5).shape == (0, 3, 5, 4)


@pytest.mark.parametrize(("reading", "factor"), [("std", 0.1), ("variance", math.sqrt(0.1))])
def test_scaled_mixture_is_a_change_of_variables(reading, factor):
    """If y ~ q then c y ~ p_beta, so log p_beta(c y) = log q(y) - D log c; c is beta or its root."""
    q = GaussianMixture(torch.tensor([[0.1, 0.3], [1.0, 0.2]], dtype=torch.float64))
    y = torch.randn(9, 2, generator=generator(), dtype=torch.float64)
    scaled = q.scale(0.1, reading).log_prob(factor * y)
    torch.testing.assert_close(scaled, q.log_prob(y) - 2 * math.log(factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_density_is_finite_far_out(dtype):
    """At y = 1000 and sigma = 0.05 the density underflows even in float64, its logarithm is
    -(1000 / 0.5)^2 / 2 - ... of the wider component."""
    log_q = GaussianMixture.isotropic((0.05, 0.5)).log_prob(torch.tensor([1000.0], dtype=dtype))
    assert log_q.dtype == torch.float32
    assert log_q.item() == pytest.approx(-(2000.0**2) / 2, rel=0.01)


def test_nce_plus_samples_put_the_label_first():
    """Index 0 is as narrow as beta says (std 0.1 x sqrt(mean sigma^2)), the rest as wide as q; log q is
    unscaled."""
    q = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    offsets, log_q = nce_plus_samples(q, (5, 400), 8, beta=0.1, generator=generator())
    assert offsets.shape == (5, 400, 9, 4) and log_q.shape == (5, 400, 9)
    torch.testing.assert_close(log_q, q.log_prob(offsets))
    width = math.sqrt((0.05**2 + 0.5**2) / 2)
    assert offsets[..., 0, :].std().item() == pytest.approx(0.1 * width, rel=0.05)
    assert offsets[..., 1:, :].std().item() == pytest.approx(width, rel=0.05)


def test_beta_zero_is_the_label_itself_and_keeps_the_noise():
    q = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    exact, _ = nce_plus_samples(q, (6,), 3, beta=0.0, generator=generator())
    narrow, _ = nce_plus_samples(q, (6,), 3, beta=1e-6, generator=generator())
    assert torch.equal(exact[:, 0], torch.zeros(6, 4))
    assert torch.equal(exact[:, 1:], narrow[:, 1:])
    assert 0 < narrow[:, 0].abs().max() < 1e-5


@pytest.mark.parametrize("sigmas", [[[0.0]], [1.0, 1.0], [[]], [[float("nan")]], [[float("inf"), 1.0]]])
def test_impossible_widths_are_refused(sigmas):
    with pytest.raises(ConfigError, match="sigmas"):
        GaussianMixture(torch.tensor(sigmas))


def test_impossible_arguments_are_refused():
    q = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    with pytest.raises(ConfigError, match="beta"):
        q.scale(0.0)
    with pytest.raises(ConfigError, match="reading"):
        q.scale(0.1, "deviation")
    with pytest.raises(ConfigError, match="beta"):
        nce_plus_samples(q, (2,), 3, beta=-0.1)
    with pytest.raises(ConfigError, match="last axis"):
        q.log_prob(torch.zeros(5, 3))
    with pytest.raises(ConfigError, match="num_samples"):
        nce_plus_samples(q, (2,), 0, beta=0.1)
