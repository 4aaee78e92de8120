"""The heads of a trained network on another trunk, fitted by least squares instead of trained anew.

Every head begins with a 3 x 3 convolution of the trunk's features. On the new trunk it is chosen so that its output is
as near as possible to what the trained network's has at the same place of the same images; the rest is copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet

RIDGE = 1e-3  # of the mean square of a regressor
JUDGED = 16  # every so many-th sample judges the fit and takes no part in it
HEADS = (
    "classifier_blocks",
    "classifier_channels",
    "filter_size",
    "filter_optimizer",
    "box_width",
)  # facts that must fit
SHARES = (1 / 6, 1.0)  # of the cells at strides 8 and 16


class _Fit:
    """One layer's convolutions by least squares: sums over cells, with and without those of the judging samples."""

    def __init__(self, convolutions: list[nn.Conv2d]):
        self.convolutions = convolutions
        inputs, outputs = 9 * convolutions[0].in_channels + 1, sum(conv.out_channels for conv in convolutions)
        self.squares = torch.zeros(2, inputs, inputs, dtype=torch.float64)  # of fitting and of judging samples
        self.products = torch.zeros(2, inputs, outputs, dtype=torch.float64)
        self.targets = torch.zeros(2, 3, outputs, dtype=torch.float64)  # number, sum and sum of squares

    def add(self, features: Tensor, wanted: Tensor, judge: bool, cells: Tensor) -> None:
        """Add cells of features (n, c, h, w) and of what the convolutions should make of them (n, d, h, w)."""
        x = nn.functional.unfold(features, 3, padding=1).transpose(1, 2).flatten(0, 1)[cells]
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        y = wanted.flatten(2).transpose(1, 2).flatten(0, 1)[cells]
        self.squares[int(judge)] += (x.T @ x).double()
        self.products[int(judge)] += (x.T @ y).double()
        self.targets[int(judge)] += torch.stack([torch.ones_like(y[0]) * len(y), y.sum(0), y.square().sum(0)]).double()

    @torch.no_grad()
    def solve(self) -> list[float]:
        """Set the convolutions; return for each the share of the targets' variance that it explains."""
        shares, first = [], 0
        for conv in self.convolutions:
            outputs = slice(first, first + conv.out_channels)
            kept = slice(None if conv.bias is not None else -1)  # without a bias the last regressor, 1, is left out
            squares, products = self.squares[0][kept, kept], self.products[0][kept, outputs]
            ridge = RIDGE * squares.diagonal()[: 9 * conv.in_channels].mean() * torch.eye(len(squares))
            ridge[9 * conv.in_channels :] = 0
            solution = torch.linalg.solve(squares + ridge, products)
            conv.weight.copy_(solution[: 9 * conv.in_channels].T.reshape(conv.weight.shape))
            if conv.bias is not None:
                conv.bias.copy_(solution[-1])
            shares.append(self._explained(solution, kept, outputs))
            first += conv.out_channels
        return shares

    def _explained(self, solution: Tensor, kept: slice, outputs: slice) -> float:
        """Return R^2 on the judging samples."""
        squares, products = self.squares[1][kept, kept], self.products[1][kept, outputs]
        number, total, square = self.targets[1][:, outputs]
        error = square.sum() - 2 * (solution * products).sum() + ((squares @ solution) * solution).sum()
        return float(1 - error / (square - total.square() / number).sum())


@torch.no_grad()
def fit_heads(net: TrackerNet, trained: TrackerNet, samples: Iterable[dict[str, Tensor]], number: int) -> list[float]:
    """Give a network the heads of a trained one, fitted to its own trunk.

    Weights whose output is normalised are scaled to the deviation of a new network's, so that rates mean the same.

    Args:
        net: a new network with its trunk's weights; its classifier has no blocks.
        trained: the network with the heads; only trunk and classifier's blocks may differ.
        samples: `crops` (f, H, W, 3) uint8 of each.
        number: of samples that are used; 200 of four crops take three minutes of a core.

    Returns:
        For each convolution (reference and test features of the box branch at strides 8 and 16, the classifier's
        features) the share of the variance that it explains, on a sixteenth of the samples; NaN with fewer than 16.

    Raises:
        ConfigError: the heads have other shapes.
    """
    box, ours, theirs = _as_any(trained.bb_regressor), _as_any(net.bb_regressor), trained.classifier.feature_extractor
    final = _as_any(net.classifier.feature_extractor)[-1]
    if net.config.classifier_blocks or not _same_heads(net, trained):
        facts = [(key, getattr(trained.config, key), getattr(net.config, key)) for key in HEADS]
        wrong = [f"{key} {a} and {b}" for key, a, b in facts if a != b or (key == "classifier_blocks" and b)]
        raise ConfigError(
            "heads can be fitted to a network with the trained one's widths, filter and optimiser and without blocks "
            f"in its classifier; the trained one and this one have {', '.join(wrong)}; change heads or arch"
        )
    copied = {k: v for k, v in trained.state_dict().items() if not k.startswith(("feature_", "classifier.feature_"))}
    fitted = ("conv3_1r.0.", "conv3_1t.0.", "conv4_1r.0.", "conv4_1t.0.")
    copied = {k: v for k, v in copied.items() if not k.startswith(tuple(f"bb_regressor.{name}" for name in fitted))}
    net.load_state_dict(copied, strict=False)
    net.eval()
    trained.eval()
    fits = (_Fit([ours.conv3_1r[0], ours.conv3_1t[0]]), _Fit([ours.conv4_1r[0], ours.conv4_1t[0], final]))
    makers = ([box.conv3_1r[0], box.conv3_1t[0]], [box.conv4_1r[0], box.conv4_1t[0], theirs])
    generator = torch.Generator().manual_seed(0)
    for k, sample in enumerate(islice(iter(samples), number)):
        crops = sample["crops"].permute(0, 3, 1, 2).float()
        layers = (one.feature_extractor(normalize_images(crops, one.feature_extractor)) for one in (net, trained))
        for fit, make, share, own, other in zip(fits, makers, SHARES, *layers):
            cells = torch.randperm(own[:, 0].numel(), generator=generator)[: round(share * own[:, 0].numel())]
            fit.add(own, torch.cat([part(other) for part in make], dim=1), k % JUDGED == JUDGED - 1, cells)
    shares = [share for fit in fits for share in fit.solve()]
    _scale(net)
    return shares


def _same_heads(net: TrackerNet, trained: TrackerNet) -> bool:
    """Return whether all entries behind the fitted convolutions have the same names and shapes."""
    shapes = [
        {
            name: tuple(value.shape)
            for name, value in one.state_dict().items()
            if name.startswith(("bb_regressor.", "classifier.filter"))
        }
        for one in (net, trained)
    ]
    fitted = [f"bb_regressor.{name}.0.weight" for name in ("conv3_1r", "conv3_1t", "conv4_1r", "conv4_1t")]
    for one in shapes:
        for name in fitted:
            one[name] = one[name][:1]
    return shapes[0] == shapes[1] and net.config.filter_size == trained.config.filter_size


def _scale(net: TrackerNet) -> None:
    """Scale the fitted weights without changing what the network computes: batch norm or a norm follows each."""
    box = _as_any(net.bb_regressor)
    for conv, norm in ((part[0], part[1]) for part in (box.conv3_1r, box.conv3_1t, box.conv4_1r, box.conv4_1t)):
        factor = _kaiming(conv) / conv.weight.std()
        conv.weight *= factor
        conv.bias *= factor
        norm.running_mean *= factor
        norm.running_var *= factor.square()
    final = _as_any(net.classifier.feature_extractor)[-1]
    final.weight *= _kaiming(final) / final.weight.std()


def _as_any(module: nn.Module) -> Any:
    """Return a module whose parts torch's stubs call `Tensor | Module`."""
    return module


def _kaiming(conv: nn.Conv2d) -> float:
    """Return the deviation of Kaiming's initialisation."""
    return math.sqrt(2 / conv.weight[0].numel())
