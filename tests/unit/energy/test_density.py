"""Laws of grid densities, partition functions, KL divergences and heat maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ebmtrack.energy.density import (
    corner_sweep,
    grid,
    heat_map,
    kl_divergence_grid,
    log_density_grid,
    log_z_grid,
    log_z_importance,
)
from ebmtrack.energy.noise import GaussianMixture
from ebmtrack.errors import ConfigError


def axis(low: float, high: float, num: int) -> Tensor:
    """Equally spaced float64 positions."""
    return torch.linspace(low, high, num, dtype=torch.float64)


def bell(y: Tensor, width: float = 1.0) -> Tensor:
    """f(y) = -|y|^2 / (2 width^2); its integral is (2 pi width^2)^(D / 2)."""
    return -0.5 * (y / width).square().sum(dim=-1)


def test_quadrature_of_a_gaussian_on_uneven_axes():
    """Three dimensions, positions sinh(t) with t in steps of h = 5 / (n - 1). The weights (x_next -
    x_previous) / 2 are cosh(t) sinh(h) instead of cosh(t) h, and otherwise the rule is exact to rounding, so
    log Z comes out as 1.5 log(2 pi) + 3 log 0.5 plus log(sinh(h) / h) for each axis."""
    sizes = (81, 91, 101)
    axes = [torch.sinh(axis(-2.5, 2.5, n)) for n in sizes]
    excess = sum(math.log(math.sinh(5 / (n - 1)) / (5 / (n - 1))) for n in sizes)
    log_z = log_z_grid(bell(grid(*axes), 0.5), *axes)
    assert log_z.item() == pytest.approx(1.5 * math.log(2 * math.pi) + 3 * math.log(0.5) + excess, abs=1e-8)


def test_trapezoids_are_exact_for_straight_lines():
    """exp f = 1 + y on [0, 3] with gaps 1 and 2: the integral is 3 + 4.5."""
    y = torch.tensor([0.0, 1.0, 3.0])
    assert log_z_grid((1 + y).log(), y).exp().item() == pytest.approx(7.5)


def test_densities_are_normalised_whatever_the_constant_and_the_batch():
    """Energies around 1e4, where exp would overflow; leading axes are examples, batched equals single."""
    x, y = axis(-4, 4, 41), axis(-3, 3, 51)
    f = bell(grid(x, y)) + torch.tensor([1e4, -1e4, 0.0], dtype=torch.float64)[:, None, None]
    log_p = log_density_grid(f, x, y)
    assert log_p.shape == (3, 41, 51)
    torch.testing.assert_close(log_z_grid(log_p, x, y), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(log_p[0], log_density_grid(f[2], x, y), rtol=0, atol=1e-9)


def test_importance_sampling_agrees_with_quadrature():
    """Two centres, two dimensions: M = 100,000 samples leave well under one per cent of Z = 2 pi 0.5^2."""
    q = GaussianMixture.isotropic((0.3, 1.0), dims=2)
    centre = torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    log_z = log_z_importance(lambda y: bell(y, 0.5), centre, q, 100_000, torch.Generator().manual_seed(0))
    assert log_z.shape == (2,)
    torch.testing.assert_close(log_z, torch.full((2,), math.log(2 * math.pi * 0.25)), rtol=0, atol=0.02)


def test_kl_divergence_closed_form_for_gaussians():
    """log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2, here with s1 = 0.5, s2 = 0.8, m1 - m2 = 0.3."""
    y = axis(-8, 8, 2001)
    kl = kl_divergence_grid(-0.5 * ((y - 0.3) / 0.5) ** 2, -0.5 * (y / 0.8) ** 2)
    assert kl.item() == pytest.approx(math.log(0.8 / 0.5) + (0.25 + 0.09) / 1.28 - 0.5, abs=1e-9)


def test_kl_divergence_is_never_negative_and_zero_for_equals():
    f = torch.randn(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (kl_divergence_grid(f[:10], f[10:]) > 0).all()
    torch.testing.assert_close(kl_divergence_grid(f, f + 5), torch.zeros(20, dtype=torch.float64), rtol=0, atol=1e-12)


def test_kl_divergence_where_a_density_vanishes():
    """p = (1/2, 1/2, 0): where p is 0 nothing is added, whatever q; where q is 0 and p is not, it is
    infinite."""
    log_p = torch.tensor([1.0, 1.0, 0.0]).log()
    assert kl_divergence_grid(log_p, torch.zeros(3)).item() == pytest.approx(math.log(1.5))
    assert kl_divergence_grid(log_p, log_p).item() == 0
    assert kl_divergence_grid(torch.zeros(3), log_p).item() == math.inf


def test_heat_map_is_a_distribution_in_any_chunks():
    points = grid(axis(-2, 2, 9), axis(-2, 2, 11))
    p = heat_map(bell, points)
    assert p.shape == (9, 11)
    assert p.sum().item() == pytest.approx(1)
    torch.testing.assert_close(p, heat_map(bell, points, chunk=7))
    torch.testing.assert_close(p, heat_map(lambda y: bell(y) + 1e4, points))
    assert p.argmax() == 4 * 11 + 5


def test_heat_map_of_a_box_corner():
    """The energy prefers the box (10, 20, 50, 40): with its bottom left corner (10, 40) fixed, the map over
    top right corners peaks at x = 50, y = 20, and corners left of or below the fixed one get nothing."""
    best = torch.tensor([10.0, 20.0, 50.0, 40.0])
    xs, ys = torch.arange(0.0, 64.0), torch.arange(0.0, 48.0)
    boxes = corner_sweep(best, xs, ys)
    p = heat_map(lambda box: bell(box - best, 3.0), boxes)
    assert p.shape == (48, 64)
    assert divmod(int(p.argmax()), 64) == (20, 50)
    assert p[:, :11].sum() == 0 and p[40:].sum() == 0
    assert p.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("corner", ["top_left", "top_right", "bottom_left", "bottom_right"])
def test_corner_sweep_moves_one_corner_only(corner):
    box = torch.tensor([10.0, 20.0, 50.0, 40.0])
    moved = corner_sweep(box, torch.tensor([30.0, 31.0]), torch.tensor([28.0, 29.0, 30.0]), corner)
    x, y = (2 if "right" in corner else 0), (3 if "bottom" in corner else 1)
    expected = box.clone()
    expected[x], expected[y] = 31.0, 28.0
    assert moved.shape == (3, 2, 4)
    assert torch.equal(moved[0, 1], expected)


def test_bad_arguments_are_refused():
    box = torch.tensor([10.0, 20.0, 50.0, 40.0])
    for call in (
        lambda: log_z_grid(torch.zeros(3, 4), axis(0, 1, 3)),
        lambda: log_z_grid(torch.zeros(3)),
        lambda: log_z_grid(torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])),
        lambda: log_z_grid(torch.zeros(1), torch.zeros(1)),
        lambda: log_z_importance(bell, torch.zeros(1, 1), GaussianMixture.isotropic((1.0,)), 0),
        lambda: corner_sweep(box, torch.zeros(2), torch.zeros(2), "middle"),
        lambda: heat_map(bell, corner_sweep(box, torch.zeros(2), torch.ones(2))),
    ):
        with pytest.raises(ConfigError):
            call()
