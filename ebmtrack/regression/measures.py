"""Figures of a regression on test images: errors, likelihoods by grid and by importance sampling, coverage."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from ebmtrack.nets.backbone import normalize_images
from ebmtrack.regression.answers import Prediction
from ebmtrack.regression.examples import Examples
from ebmtrack.regression.heads import ProposalHead
from ebmtrack.regression.network import RegressionNet, choose_step, refine

LEVELS = (0.5, 0.9)


def batches_of(net: RegressionNet, examples: Examples, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (B, 3, H, W) and labels (B, D) on the network's device."""
    device = next(net.parameters()).device
    for first in range(0, len(examples), size):
        part = examples.take(slice(first, first + size))
        images = torch.from_numpy(part.images).permute(0, 3, 1, 2).to(device)
        yield images, torch.from_numpy(part.labels).to(device)


def evaluate(net: RegressionNet, examples: Examples, num_samples: int = 1024, seed: int = 0) -> dict[str, float]:
    """Return the figures of a network in evaluation mode.

    Args:
        net: the network.
        examples: test images with their labels.
        num_samples: samples of densities and proposals.
        seed: of the samples.

    Returns:
        mae, and mae_NAME if there are several numbers; with a density also nll, ess (median), and for 50 and 90 %
        coverage_50, width_50 and so on: the share of labels in the central intervals, and their median width, as means
        over the numbers. With a learned proposal nll is that by a grid; nll_is is that by importance sampling, and
        nll_q the proposal's own.
    """
    generator = Generator(next(net.parameters()).device).manual_seed(seed)
    rows: dict[str, list[Tensor]] = {}
    for images, labels in batches_of(net, examples):
        answer = net.answer(images, num_samples, generator)
        for name, values in _rows(net, images, labels, answer).items():
            rows.setdefault(name, []).append(values)
    joined = {name: torch.cat(values) for name, values in rows.items()}
    return {name: (v.median() if name.startswith(("width", "ess")) else v.mean()).item() for name, v in joined.items()}


def _rows(net: RegressionNet, images: Tensor, labels: Tensor, answer: Prediction) -> dict[str, Tensor]:
    """Return the figures (B,) of a batch."""
    errors = (answer.point - labels).abs()
    rows = {"mae": errors.mean(dim=1)}
    if net.config.dims > 1:
        rows |= {f"mae_{name}": column for name, column in zip(net.config.targets, errors.T)}
    if answer.log_prob is None or answer.ess is None:
        return rows
    with torch.no_grad():
        rows |= {"nll": -answer.log_prob(labels.unsqueeze(1)).squeeze(1), "ess": answer.ess}
        if isinstance(net.head, ProposalHead):
            rows |= _proposal_rows(net, images, labels, rows["nll"])
    for level in LEVELS:
        low, high = answer.interval(level).unbind(dim=1)
        inside = (labels >= low) & (labels <= high)
        rows[f"coverage_{round(100 * level)}"] = inside.float().mean(dim=1)
        rows[f"width_{round(100 * level)}"] = (high - low).mean(dim=1)
    return rows


def _proposal_rows(net: RegressionNet, images: Tensor, labels: Tensor, nll_is: Tensor) -> dict[str, Tensor]:
    """Return the likelihoods (B,) by a grid, by importance sampling, and of the proposal itself."""
    by_grid = net.grid_answer(images).log_prob
    head, features = net.head, net.trunk(normalize_images(images))
    if by_grid is None or not isinstance(head, ProposalHead):
        return {}
    z = (labels - net.shift) / net.scale
    log_q = head.proposal.density(features).log_prob(z.unsqueeze(1)).squeeze(1) - net.scale.log().sum()
    return {"nll": -by_grid(labels.unsqueeze(1)).squeeze(1), "nll_is": nll_is, "nll_q": -log_q}


def refined_error(net: RegressionNet, examples: Examples, start: Tensor, step: float | None = None) -> float:
    """Return the MAE of starts (N, D) after refinement on the energy of `net`."""
    errors, first = [], 0
    for images, labels in batches_of(net, examples):
        part = start[first : first + len(labels)].to(labels)
        errors.append((refine(net, images, part, step) - labels).abs())
        first += len(labels)
    return torch.cat(errors).mean().item()


def predictions(net: RegressionNet, examples: Examples) -> Tensor:
    """Return the numbers (N, D) that a network reports."""
    return torch.cat([net.answer(images).point for images, _ in batches_of(net, examples)])


def choose_step_on(net: RegressionNet, examples: Examples, number: int = 200) -> float:
    """Return the step of refinement that is best for starts off by a quarter of the labels' deviation."""
    part = examples.take(slice(0, number))
    images, labels = next(batches_of(net, part, number))
    noise = torch.randn(labels.shape, generator=Generator().manual_seed(0)).to(labels)
    return choose_step(net, images, labels, labels + 0.25 * labels.std(dim=0, correction=0) * noise)
