"""ATOM's classifier: conjugate gradient against a dense solve, its loss, its labels, and planted targets."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ebmtrack.nets import atom_classifier as atom
from ebmtrack.nets.atom_classifier import AtomClassifier, conjugate_gradient, correlate, gauss_newton_cg, score_pixels


def vectors(*shapes: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def planted(n: int, places_xy: torch.Tensor, seed: int = 0, noise: float = 0.05) -> torch.Tensor:
    """Return normalised features (n, 16, 18, 18): noise, and a smooth pattern in three channels at places in pixels."""
    generator = torch.Generator().manual_seed(seed)
    features = noise * torch.randn(n, 16, 18, 18, generator=generator)
    cells = 16 * torch.arange(18) + 8.0  # the pixels of the cells' centres
    for k, (x, y) in enumerate(places_xy.tolist()):
        bump = (-0.5 * ((cells - x) / 16).square()).exp() * (-0.5 * ((cells - y) / 16).square()).exp()[:, None]
        features[k, :3] += bump * torch.tensor([3.0, -2.0, 2.0])[:, None, None]
    return atom.normalize(features)


def boxes_at(places_xy: torch.Tensor, side: float = 57.6) -> torch.Tensor:
    """Return boxes (n, 4) of 57.6 pixels, a fifth of 288."""
    return torch.cat([places_xy - side / 2, places_xy + side / 2], dim=1)


def test_conjugate_gradient_solves_a_dense_system() -> None:
    """After as many iterations as there are unknowns, with and without a preconditioner."""
    root, right = vectors((9, 9), (9,))
    matrix = root @ root.T + 0.5 * torch.eye(9, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right)

    def product(p: atom.Vector) -> atom.Vector:
        return tuple((matrix @ torch.cat([part.flatten() for part in p])).split([4, 5]))

    for weights in (None, (2.0, 0.3)):
        found = torch.cat(conjugate_gradient(product, tuple(right.split([4, 5])), 12, weights))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_scores_are_those_of_a_padded_convolution() -> None:
    """Also of maps that are no squares; kernels of 2 and 4 cells. The projection is a 1 x 1 convolution."""
    samples, projection = vectors((3, 7, 6, 9), (5, 7, 1, 1))
    torch.testing.assert_close(atom.project(projection, samples), F.conv2d(samples, projection))
    for k in (2, 4):
        (kernel,) = vectors((1, 7, k, k), seed=k)
        expected = F.conv2d(samples, kernel, padding=k // 2)[:, 0, :-1, :-1]
        torch.testing.assert_close(correlate(kernel, samples), expected)


def test_ridge_regression_of_the_filter_is_the_dense_solution() -> None:
    """With scores above zero phi is the identity, and one round is the ridge regression of 8 x 16 unknowns."""
    projected, labels, start = vectors((4, 8, 9, 9), (4, 9, 9), (1, 8, 4, 4))
    weights = torch.full((4,), 0.25, dtype=torch.float64)

    def linear(filter: torch.Tensor) -> torch.Tensor:
        errors = weights.sqrt()[:, None, None] * (correlate(filter, projected) - labels)
        return torch.cat([errors.flatten(), math.sqrt(0.1) * filter.flatten()])

    zero = torch.zeros_like(start)
    jacobian = torch.autograd.functional.jacobian(linear, zero).flatten(1)
    expected = -torch.linalg.lstsq(jacobian, linear(zero)[:, None]).solution[:, 0]
    (found,) = gauss_newton_cg(linear, (start,), 1, 140)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-4, atol=1e-4)
    p = vectors(tuple(start.shape), seed=1)[0]
    _, transposed = torch.func.vjp(linear, start)[:2]
    _, forward = torch.func.vjp(transposed, linear(start))[:2]
    product = transposed(*forward((p,)))[0].flatten()
    torch.testing.assert_close(product, jacobian.T @ (jacobian @ p.flatten()))


def test_phi_has_a_floor_and_slope_one_at_zero() -> None:
    t = torch.tensor([0.0, 2.0, -10.0], dtype=torch.float64)
    torch.testing.assert_close(atom.soft_floor(t), torch.tensor([0, 2, -0.05], dtype=torch.float64))
    for side in (-1e-6, 1e-6):
        slope = atom.soft_floor(torch.tensor(side, dtype=torch.float64)) / side
        assert slope.item() == pytest.approx(1, abs=1e-4)


def test_the_loss_does_not_rise_over_the_rounds() -> None:
    """By more than a hundredth; and it falls to less than half of where it begins."""
    places = torch.tensor([[144.0, 144], [100, 180], [170, 90], [144, 60]])
    samples, boxes = planted(4, places), boxes_at(places)
    classifier, losses = AtomClassifier.create(16, 8), list[float]()
    labels, weights = atom.gaussian_labels(boxes, 18, 16), torch.full((4,), 0.25)
    for rounds in range(7):
        learned = classifier.learn(samples, boxes, rounds)
        losses.append(atom._both_residuals(samples, labels, weights, *learned).square().sum().item())
    assert all(after <= 1.01 * before for before, after in zip(losses, losses[1:]))
    assert losses[-1] < losses[0] / 2


def test_planted_targets_are_found_within_two_pixels() -> None:
    """Also at places between cells, in noise that was not seen, with scores near one; an update keeps them."""
    places = torch.tensor([[144.0, 144], [100, 180], [170, 90], [144, 60], [61, 200], [130, 131]])
    samples, boxes = planted(6, places), boxes_at(places)
    classifier = AtomClassifier.create(16, 8)
    filter, projection = classifier.learn(samples, boxes, 6)
    tests = torch.tensor([[144.0, 144], [101.3, 95.8], [87.5, 203.2], [190.9, 120.4]])
    unseen = F.conv2d(planted(4, tests, seed=1), projection)
    updated = classifier.update(filter, unseen, boxes_at(tests), torch.full((4,), 0.25), 5)
    for kernel in (filter, updated):
        for scores, place in zip(correlate(kernel, unseen), tests):
            fine = score_pixels(scores, 16)
            y, x = divmod(int(fine.argmax()), 288)
            assert abs(x + 0.5 - place[0]) < 2 and abs(y + 0.5 - place[1]) < 2
            assert 0.6 < fine.max() < 1.4
    error = atom._filter_residuals(
        unseen, atom.gaussian_labels(boxes_at(tests), 18, 16), torch.full((4,), 0.25), filter
    )
    better = atom._filter_residuals(
        unseen, atom.gaussian_labels(boxes_at(tests), 18, 16), torch.full((4,), 0.25), updated
    )
    assert better.square().sum() < error.square().sum()


@pytest.mark.parametrize("cells", [9, 18])
def test_interpolation_reproduces_a_band_limited_map(cells: int) -> None:
    """Waves of less than half the cells go through unchanged, at the pixels' centres."""

    def wave(at: torch.Tensor) -> torch.Tensor:
        phase = 2 * math.pi * at / cells
        return 0.3 + (3 * phase + 0.4).cos() - 0.5 * (2 * phase).sin()

    at, fine = torch.arange(cells).double(), (torch.arange(16 * cells) + 0.5).double() / 16
    found = score_pixels(wave(at)[:, None] * wave(at), 16)
    torch.testing.assert_close(found, wave(fine)[:, None] * wave(fine))


def test_labels_are_gaussians_at_the_boxes() -> None:
    """Label j is at 16 j pixels; a box of 57.6 pixels has a deviation of 0.9 cells."""
    labels = atom.gaussian_labels(boxes_at(torch.tensor([[160.0, 128.0]])), 18, 16)[0]
    assert divmod(int(labels.argmax()), 18) == (8, 10) and labels.max() == 1
    assert labels[8, 11].item() == pytest.approx(math.exp(-0.5 / 0.9**2))
