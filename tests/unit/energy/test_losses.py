"""Laws of the seven training losses: invariances, limits, gradients, minimisers, extremes, golden values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ebmtrack.energy import losses
from ebmtrack.energy.density import log_density_grid
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError
from tests.support import DATA

GOLDEN = DATA / "energy_golden.npz"
Q = GaussianMixture.isotropic((0.3, 2.0), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    """A fresh generator, so that equal seeds mean equal draws."""
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers that depend on shape and seed only."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def gaussian_energy(mean: Tensor | float, log_s: Tensor | float):
    """f(y) = -|y - mean|^2 / (2 s^2), a Gaussian density without its normaliser."""
    return lambda y: -0.5 * ((y - mean) * torch.exp(-torch.as_tensor(log_s))).square().sum(dim=-1)


# Each loss as a function of scores or of an energy's parameters, for the tests that all of them share.

SCORE_LOSSES = {
    "ml_is": lambda f: losses.ml_is(f[..., 1:], randn(6, seed=3, dtype=f.dtype), f[..., 0]),
    "kld_is": lambda f: losses.kld_is(f[..., 1:], torch.zeros(6, dtype=f.dtype), torch.zeros(6, dtype=f.dtype)),
    "ml_mcmc": lambda f: losses.ml_mcmc(f[..., 1:], f[..., 0]),
    "nce": lambda f: losses.nce(f, randn(7, seed=3, dtype=f.dtype)),
    "nce_plus": lambda f: losses.nce_plus(f, randn(7, seed=4, dtype=f.dtype)),
}

ENERGY_LOSSES = {
    "score_matching": lambda energy: losses.score_matching(energy, randn(5, 2)),
    "denoising_score_matching": lambda energy: losses.denoising_score_matching(
        energy, randn(5, 2), randn(5, 3, 2, seed=1), sigma=0.7
    ),
}


def test_golden_values():
    """KLD-IS and ML-IS as the authors' tracking code computes them (there the first sample is the truth)."""
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}
    f, log_q, log_p = golden["loss_scores"], golden["loss_q"].log(), golden["loss_p"].log()
    torch.testing.assert_close(losses.kld_is(f, log_q, log_p), golden["loss_kl_is"])
    ml = losses.ml_is(f[:, 1:], log_q[:, 1:], f[:, 0])
    torch.testing.assert_close(ml, golden["loss_ml_is_first_is_truth"])


def test_formulas_by_hand():
    """M = 2, q = (1/2, 1/4), exp f = (3, 5), label exp f = 2, its q = 1. sum exp f / q = 6 + 20 = 26. ML-IS:
    log(26 / 2) - log 2 = log 6.5. NCE: -log(2 / (2 + 26)) = log 14. ML-MCMC: (log 3 + log 5) / 2 - log 2.
    KLD-IS with p = (1, 1/4): log 13 - (2 log 3 + log 5) / 2."""
    f, f_true = torch.tensor([[3.0, 5.0]]).log(), torch.tensor([2.0]).log()
    log_q = torch.tensor([[0.5, 0.25]]).log()
    assert losses.ml_is(f, log_q, f_true).item() == pytest.approx(math.log(6.5))
    assert losses.ml_mcmc(f, f_true).item() == pytest.approx(math.log(15) / 2 - math.log(2))
    with_label = torch.cat([f_true[:, None], f], dim=-1), torch.cat([torch.zeros(1, 1), log_q], dim=-1)
    assert losses.nce(*with_label).item() == pytest.approx(math.log(14))
    kld = losses.kld_is(f, log_q, torch.tensor([[1.0, 0.25]]).log()).item()
    assert kld == pytest.approx(math.log(13) - (2 * math.log(3) + math.log(5)) / 2)


def test_nce_is_cross_entropy_of_corrected_scores():
    """Another library's view of the same formula: classify index 0 by logits f - log q."""
    f, log_q = randn(4, 9), randn(4, 9, seed=1)
    torch.testing.assert_close(losses.nce(f, log_q), cross_entropy(f - log_q, torch.zeros(4, dtype=torch.long)))


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_constant_added_to_scores_changes_no_loss(name):
    """exp(f + c) has the density of exp f. (KLD-IS cancels the constant where its weights p/q average to
    1.)"""
    f = randn(5, 7)
    torch.testing.assert_close(SCORE_LOSSES[name](f + 123.0), SCORE_LOSSES[name](f))


@pytest.mark.parametrize("name", ENERGY_LOSSES)
def test_constant_added_to_energy_changes_no_loss(name):
    energy = gaussian_energy(0.4, 0.2)
    torch.testing.assert_close(ENERGY_LOSSES[name](lambda y: energy(y) + 123.0), ENERGY_LOSSES[name](energy))


def test_kld_is_loses_the_constant_in_expectation():
    """The weights p/q of samples from q average to 1 +- their spread / sqrt(M), so a constant 1 changes the
    loss by less than a few times 1e-2 with M = 20,000."""
    y = Q.sample((4, 20_000), generator())
    log_q, log_p = Q.log_prob(y), GaussianMixture.isotropic((0.3,), dtype=torch.float64).log_prob(y)
    change = losses.kld_is(y[..., 0] + 1, log_q, log_p) - losses.kld_is(y[..., 0], log_q, log_p)
    assert abs(change.item()) < 0.03


def test_nce_plus_with_small_beta_equals_nce():
    """The difference falls with beta, to nothing at beta = 0, all else drawn alike."""
    energy = gaussian_energy(0.3, 0.0)

    def loss(beta):
        offsets, log_q = nce_plus_samples(Q, (50,), 16, beta, generator())
        return losses.nce_plus(energy(offsets), log_q).item()

    offsets = torch.cat([torch.zeros(50, 1, 1), Q.sample((50, 16), generator())], dim=1)
    plain = losses.nce(energy(offsets), Q.log_prob(offsets)).item()
    differences = [abs(loss(beta) - plain) for beta in (1e-1, 1e-2, 1e-3, 0.0)]
    assert differences[0] > differences[1] > differences[2]
    assert differences[2] < 1e-3 and differences[3] < 1e-12


def test_kld_is_tends_to_ml_is_as_sigma_vanishes():
    """Integrals as sums over a fine grid (q uniform on [-5, 5]). For f = -(y - m)^2 / (2 s^2) the difference
    of the losses is E_p[f(y_i) - f(y)] = sigma^2 / (2 s^2), here s = 1."""
    y = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 2000 - 5  # midpoints of equal cells
    y_i = torch.tensor([0.7], dtype=torch.float64)
    log_q = torch.full_like(y, -math.log(10.0))
    energy = gaussian_energy(-0.2, 0.0)
    ml = losses.ml_is(energy(y[:, None])[None], log_q, energy(y_i)[None])
    for sigma in (0.3, 0.1, 0.03):
        p = GaussianMixture.isotropic((sigma,), dtype=torch.float64)
        kld = losses.kld_is(energy(y[:, None])[None], log_q, p.log_prob((y - y_i)[:, None])[None])
        assert (kld - ml).item() == pytest.approx(sigma**2 / 2, rel=1e-4)


def test_ml_is_tends_to_the_exact_likelihood():
    """A two-humped energy; the exact negative log likelihood comes from quadrature. The spread of the
    estimate falls like 1 / sqrt(M): 0.7 at M = 1 turns to 0.01 or so at M = 10,000."""
    energy = lambda y: torch.logaddexp(gaussian_energy(-1.0, -1.0)(y), gaussian_energy(1.5, 0.0)(y))  # noqa: E731
    axis, y_i = torch.linspace(-15, 15, 6001, dtype=torch.float64), randn(200, 1)
    exact = -log_density_grid(energy(axis[:, None]), axis)
    nll = torch.from_numpy(np.interp(y_i[:, 0].numpy(), axis.numpy(), exact.numpy()))
    errors = []
    for M in (1, 100, 10_000):
        y = Q.sample_around(y_i, M, generator(M))
        log_q = Q.log_prob(y - y_i[:, None])
        errors.append((losses.ml_is(energy(y), log_q, energy(y_i), reduction="none") - nll).abs().mean().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_score_gradients_against_finite_differences(name):
    assert torch.autograd.gradcheck(SCORE_LOSSES[name], (randn(3, 7).requires_grad_(True),))


def curved_energy(weights: Tensor):
    """A small energy with two parameters and all derivatives different from zero."""
    return lambda y: torch.tanh(y * weights).sum(dim=-1) + (weights * y).cos().prod(dim=-1)


@pytest.mark.parametrize("name", ENERGY_LOSSES)
def test_parameter_gradients_against_finite_differences(name):
    weights = randn(2, seed=9).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda w: ENERGY_LOSSES[name](curved_energy(w)), (weights,))


def test_ml_mcmc_parameter_gradient_against_finite_differences():
    """The samples are constants for the gradient, so they are drawn once and kept."""
    y = losses.langevin(curved_energy(randn(2, seed=9)), randn(4, 2), 0.3, 5, generator())
    function = lambda w: losses.ml_mcmc(curved_energy(w)(y[:, None]), curved_energy(w)(randn(4, 2)))  # noqa: E731
    assert torch.autograd.gradcheck(function, (randn(2, seed=8).requires_grad_(True),))


def test_score_matching_closed_form_for_a_gaussian():
    """f = -|y - m|^2 / (2 s^2) in D = 3: gradient -(y - m) / s^2, Hessian -I / s^2, so the loss of one label
    is -3 / s^2 + |y - m|^2 / (2 s^4)."""
    y, s = randn(6, 3), 0.8
    loss = losses.score_matching(gaussian_energy(0.3, math.log(s)), y, reduction="none")
    torch.testing.assert_close(loss, -3 / s**2 + (y - 0.3).square().sum(-1) / (2 * s**4))


def test_score_matching_of_a_linear_energy_has_no_trace():
    """f = 2 y: gradient 2, Hessian 0 (the graph of the second derivative is empty), loss 2^2 / 2."""
    assert losses.score_matching(lambda y: 2 * y[..., 0], randn(3, 1)).item() == pytest.approx(2.0)


def test_denoising_score_matching_closed_form_for_a_gaussian():
    """The gradient of f at y_m is -(y_m - m) / s^2, to be compared with -(y_m - y_i) / sigma^2."""
    y_i, noise, s, sigma = randn(6, 3), randn(6, 4, 3, seed=1), 0.8, 0.5
    y = y_i[:, None] + sigma * noise
    loss = losses.denoising_score_matching(gaussian_energy(0.3, math.log(s)), y_i, y, sigma, reduction="none")
    torch.testing.assert_close(loss, (-(y - 0.3) / s**2 + noise / sigma).square().sum(-1).mean(-1))


def test_ml_mcmc_gradient_closed_form_for_a_gaussian():
    """d/dm of mean f(y_m) - f(y_i) is mean (y_m - m) / s^2 - (y_i - m) / s^2 = (mean y_m - y_i) / s^2."""
    mean = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y, y_i, s = randn(1, 50, 1), randn(1, 1, seed=1), 0.8
    energy = gaussian_energy(mean, math.log(s))
    losses.ml_mcmc(energy(y), energy(y_i)).backward()
    assert mean.grad.item() == pytest.approx((y.mean() - y_i.mean()).item() / s**2)


def test_langevin_moments_closed_form_for_a_gaussian():
    """With f = -y^2 / (2 s^2) a step is y <- a y + alpha eps, a = 1 - alpha^2 / (2 s^2). From y = 2 after L
    steps the mean is 2 a^L and the variance alpha^2 (1 - a^(2L)) / (1 - a^2)."""
    s, alpha, steps = 0.7, 0.4, 6
    start = torch.full((100_000, 1), 2.0)
    y = losses.langevin(gaussian_energy(0.0, math.log(s)), start, alpha, steps, generator())
    a = 1 - alpha**2 / (2 * s**2)
    assert y.mean().item() == pytest.approx(2 * a**steps, abs=0.01)
    assert y.var().item() == pytest.approx(alpha**2 * (1 - a ** (2 * steps)) / (1 - a**2), rel=0.02)


def test_langevin_carries_no_gradient_and_repeats_with_its_seed():
    weights = randn(2).requires_grad_(True)
    with torch.no_grad():
        first = losses.langevin(curved_energy(weights), randn(5, 2), 0.1, 3, generator(1))
    second = losses.langevin(curved_energy(weights), randn(5, 2), torch.tensor([0.1, 0.1]), 3, generator(1))
    torch.testing.assert_close(first, second)
    assert not second.requires_grad and weights.grad is None
    assert torch.equal(losses.langevin(curved_energy(weights), randn(5, 2), 0.1, 0), randn(5, 2))


# Minimisers: 400 labels from N(0.5, 0.6^2); the fitted energy is Gaussian with free mean and width.

LABELS = 0.5 + 0.6 * randn(400, 1, seed=11)
DATA_MEAN, DATA_VAR = LABELS.mean().item(), LABELS.var(unbiased=False).item()


def fit(loss, steps: int = 60) -> tuple[float, float]:
    """Mean and variance that minimise loss(energy), by LBFGS from mean 0 and variance 1."""
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=steps, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(gaussian_energy(parameters[0], parameters[1]))
        value.backward()
        return value

    optimiser.step(closure)
    return parameters[0].item(), math.exp(2 * parameters[1].item())


def test_minimisers_of_the_sampling_losses():
    """With many samples ML-IS and NCE tend to maximum likelihood: mean and variance of the data. KLD-IS fits
    the data blurred by p: variance + 0.2^2. NCE+ fits the data blurred by p_beta: variance + 0.1^2 (0.3^2 +
    2^2) / 2. M = 2000 leaves a few per cent."""
    offsets, log_q = nce_plus_samples(Q, (400,), 2000, 0.1, generator())
    blurred = LABELS[:, None] + offsets
    y = torch.cat([LABELS[:, None], blurred[:, 1:]], dim=1)
    log_q_label = torch.cat([Q.log_prob(torch.zeros(400, 1, 1)), log_q[:, 1:]], dim=1)
    log_p = GaussianMixture.isotropic((0.2,), dtype=torch.float64).log_prob(offsets[:, 1:])
    nu_var = 0.1**2 * (0.3**2 + 2.0**2) / 2
    cases = [
        (lambda f: losses.ml_is(f(y[:, 1:]), log_q[:, 1:], f(LABELS)), 0.0),
        (lambda f: losses.kld_is(f(y[:, 1:]), log_q[:, 1:], log_p), 0.2**2),
        (lambda f: losses.nce(f(y), log_q_label), 0.0),
        (lambda f: losses.nce_plus(f(blurred), log_q), nu_var),
    ]
    for loss, extra in cases:
        mean, var = fit(loss)
        assert mean == pytest.approx(DATA_MEAN, abs=0.02)
        assert var == pytest.approx(DATA_VAR + extra, rel=0.05)


def test_minimiser_of_score_matching():
    """Setting the derivatives of -1/s^2 + (y - m)^2 / (2 s^4) to zero: m the mean, s^2 the variance,
    exactly."""
    mean, var = fit(lambda f: losses.score_matching(f, LABELS))
    assert mean == pytest.approx(DATA_MEAN, abs=1e-5)
    assert var == pytest.approx(DATA_VAR, rel=1e-4)


def test_minimiser_of_denoising_score_matching():
    """DSM fits the density of the noisy labels: variance + sigma^2."""
    noisy = LABELS[:, None] + 0.3 * randn(400, 500, 1)
    mean, var = fit(lambda f: losses.denoising_score_matching(f, LABELS, noisy, 0.3))
    assert mean == pytest.approx(DATA_MEAN, abs=0.02)
    assert var == pytest.approx(DATA_VAR + 0.3**2, rel=0.03)


def test_fixed_point_of_ml_mcmc():
    """A chain y <- m + a (y - m) + alpha eps, a = 1 - alpha^2 / (2 s^2), keeps the variance s^2 / (1 -
    alpha^2 / (4 s^2)). Learning rests where the chain keeps the data's variance v: s^2 = (v + sqrt(v^2 -
    alpha^2 v)) / 2 = v - alpha^2/4 - .. (alpha = 0.3: 0.977 v). Noise is drawn alike at every step, so the
    gradient is deterministic."""
    alpha = 0.3
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=0.02)
    labels = LABELS[:, None].expand(400, 30, 1)
    for _ in range(150):
        optimiser.zero_grad()
        energy = gaussian_energy(parameters[0], parameters[1])
        y = losses.langevin(energy, labels, alpha, 5, generator())
        losses.ml_mcmc(energy(y), energy(LABELS)).backward()
        optimiser.step()
    v = DATA_VAR
    expected = (v + math.sqrt(v**2 - alpha**2 * v)) / 2
    assert parameters[0].item() == pytest.approx(DATA_MEAN, abs=0.03)
    assert math.exp(2 * parameters[1].item()) == pytest.approx(expected, rel=0.05)


# Extremes, shapes and types.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("M", [1, 5])
@pytest.mark.parametrize("name", ["ml_is", "kld_is", "ml_mcmc", "nce", "nce_plus"])
def test_energies_of_ten_thousand(name, M, dtype):
    """Scores of +-1e4 in both orders, one example: finite loss and gradient, in float32, below 3 x 2e4."""
    for low, high in ((-1e4, 1e4), (1e4, -1e4), (1e4, 1e4), (-1e4, -1e4)):
        f = torch.tensor([[low] + [high] * M], dtype=dtype, requires_grad=True)
        log_q = torch.zeros(M, dtype=dtype)
        call = {
            "ml_is": lambda f=f, q=log_q: losses.ml_is(f[:, 1:], q, f[:, 0]),
            "kld_is": lambda f=f, q=log_q: losses.kld_is(f[:, 1:], q, q - 1),
            "ml_mcmc": lambda f=f: losses.ml_mcmc(f[:, 1:], f[:, 0]),
            "nce": lambda f=f: losses.nce(f, torch.zeros(f.shape[1])),
            "nce_plus": lambda f=f: losses.nce_plus(f, torch.zeros_like(f)),
        }
        loss = call[name]()
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite() and abs(loss.item()) < 6e4
        assert f.grad.isfinite().all()


def test_bfloat16_scores_are_reduced_in_float32():
    """4096 scores rounded to bfloat16: the loss is that of the rounded scores, not one summed in bfloat16."""
    f = (10 * randn(4, 4097)).bfloat16()
    exact = losses.nce(f.double(), torch.zeros(4097, dtype=torch.float64))
    torch.testing.assert_close(losses.nce(f, torch.zeros(4097)), exact.float(), rtol=1e-5, atol=1e-5)


def test_steep_energies_in_score_matching():
    """Slopes of 1e4 give 1e8 / 2, still finite, for one label."""
    assert losses.score_matching(lambda y: 1e4 * y[..., 0], torch.ones(1, 1)).item() == pytest.approx(5e7)


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_batched_equals_single_and_reductions_agree(name):
    f = randn(2, 3, 7)
    per_example = torch.stack([SCORE_LOSSES[name](row[None]) for row in f.reshape(6, 7)])
    torch.testing.assert_close(SCORE_LOSSES[name](f), per_example.mean())
    torch.testing.assert_close(losses.nce(f, f.new_zeros(7), reduction="sum"), 6 * losses.nce(f, f.new_zeros(7)))
    assert losses.nce(f, f.new_zeros(7), reduction="none").shape == (2, 3)


def test_empty_batches_are_a_clear_error():
    none, axis = torch.zeros(0, 4), torch.zeros(4)
    energy = gaussian_energy(0.0, 0.0)
    for call in (
        lambda: losses.ml_is(none, axis, torch.zeros(0)),
        lambda: losses.kld_is(none, axis, axis),
        lambda: losses.ml_mcmc(none, torch.zeros(0)),
        lambda: losses.nce(none, axis),
        lambda: losses.nce_plus(none, axis),
        lambda: losses.score_matching(energy, torch.zeros(0, 2)),
        lambda: losses.denoising_score_matching(energy, torch.zeros(0, 2), torch.zeros(0, 3, 2), 0.1),
    ):
        with pytest.raises(ConfigError, match="at least one example"):
            call()


def test_wrong_shapes_are_refused():
    f = randn(4, 6)
    for call in (
        lambda: losses.nce(f, randn(4, 5)),
        lambda: losses.nce(f[:, :1], f[:, :1]),
        lambda: losses.ml_is(f, f, f),
        lambda: losses.ml_mcmc(f[:, :0], f[:, 0]),
        lambda: losses.kld_is(f, f, randn(3, 6)),
        lambda: losses.nce(f, f, reduction="median"),
        lambda: losses.denoising_score_matching(gaussian_energy(0.0, 0.0), f, f[:, None], sigma=0.0),
        lambda: losses.denoising_score_matching(gaussian_energy(0.0, 0.0), f, f[:, :0][..., None], sigma=1.0),
    ):
        with pytest.raises(ConfigError):
            call()
