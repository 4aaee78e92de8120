"""The DiMP target classifier: features, filter initialiser and the learned steepest-descent filter optimiser.

Source: Bhat et al., "Learning Discriminative Model Prediction for Tracking", ICCV 2019 (DiMP), and Danelljan et al.,
"Probabilistic Regression for Visual Tracking", CVPR 2020 (PrDiMP). Shapes: n images of each of s sequences, c channels,
filters of k x k taps. A filter moves over the map with padding k // 2, so that an even filter on an h x w map gives
(h + 1) x (w + 1) scores.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmtrack.nets.residual import BasicBlock
from ebmtrack.nets.roi_pool import precise_roi_pool

FEATURE_STRIDE = 16


def apply_filter(features: Tensor, filters: Tensor) -> Tensor:
    """Correlate (n, s, c, h, w) with one filter a sequence (s, c, k, k) -> scores (n, s, h', w').

    Every tap is one row of a matrix product with the features; the tap maps are then shifted and added.
    """
    n, s, c, h, w = features.shape
    k = filters.shape[-1]
    taps = filters.flip(-1, -2).reshape(s, c, k * k).transpose(1, 2)  # (s, k k, c)
    maps = taps @ features.reshape(n, s, c, h * w)  # (n, s, k k, h w)
    size = (h + 1 - k % 2, w + 1 - k % 2)
    scores = F.fold(maps.reshape(n * s, k * k, h * w), size, k, padding=k - 1 - k // 2)
    return scores.reshape(n, s, *size)


def filter_gradient(features: Tensor, residuals: Tensor, k: int) -> Tensor:
    """Return the transpose of `apply_filter`, summed over images: (n, s, c, h, w), (n, s, h', w') -> (s, c, k, k)."""
    n, s, c, h, w = features.shape
    size = residuals.shape[-2:]
    taps = F.unfold(residuals.reshape(n * s, 1, *size), k, padding=k - 1 - k // 2)  # (n s, k k, h w)
    products = features.reshape(n, s, c, h * w) @ taps.reshape(n, s, k * k, h * w).transpose(2, 3)
    return products.sum(0).reshape(s, c, k, k).flip(-1, -2)


def instance_l2_norm(x: Tensor, scale: float) -> Tensor:
    """Scale each sample of (N, C, H, W) to the mean square scale^2."""
    energy = x.float().square().sum(dim=(1, 2, 3), keepdim=True) + 1e-5
    return x * (scale * (x[0].numel() / energy).sqrt()).to(x.dtype)


class FilterInitializer(nn.Module):
    """The first guess of a filter: pooled target features, averaged over the training images."""

    def __init__(self, channels: int, filter_size: int):
        super().__init__()
        self.filter_size = filter_size
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.filter_conv.weight, std=math.sqrt(2 / (9 * channels)))
        if self.filter_conv.bias is not None:
            nn.init.zeros_(self.filter_conv.bias)

    def forward(self, features: Tensor, boxes_xyxy: Tensor) -> Tensor:
        """Return filters (s, c, k, k) of features (n, s, c, h, w) and boxes (n, s, 4) in crop pixels."""
        n, s = features.shape[:2]
        x = self.filter_conv(features.flatten(0, 1)).to(features.dtype)
        pooled = precise_roi_pool(x, boxes_xyxy.reshape(n * s, 1, 4), self.filter_size, 1 / FEATURE_STRIDE)
        return pooled.reshape(n, s, *pooled.shape[2:]).mean(0)


def _target_centres(boxes_xyxy: Tensor, k: int) -> Tensor:
    """Return the centres (n, s, 2), as (x, y), of boxes (n, s, 4) in cells of the score map of a k x k filter."""
    return (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / (2 * FEATURE_STRIDE) - (k % 2) / 2


def _grid(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return a column (h', 1) of y and row (w') of x positions of a score map."""
    y = torch.arange(size[0], device=like.device, dtype=like.dtype)
    return y[:, None], torch.arange(size[1], device=like.device, dtype=like.dtype)


def distance_maps(centres_xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the distance of each cell to the centres: (n, s, 2) in cells -> (n, s, h', w')."""
    y, x = _grid(size, centres_xy)
    dx, dy = x - centres_xy[..., :1, None], y - centres_xy[..., 1:, None]
    return (dx.square() + dy.square()).sqrt()


class RadialMap(nn.Module):
    """A learned function of the distance: piecewise linear with `bins` knots, constant beyond the last one."""

    def __init__(self, values: Tensor, displacement: float):
        super().__init__()
        self.displacement = displacement
        self.weight = nn.Parameter(values.reshape(1, -1, 1, 1))

    def forward(self, distance: Tensor) -> Tensor:
        """Return the values at distances of any shape, in cells (linear interpolation between knots)."""
        knots = self.weight.flatten()
        position = (distance / self.displacement).clamp(max=len(knots) - 1)
        low = position.detach().floor().clamp(max=len(knots) - 2).long()
        return torch.lerp(knots[low], knots[low + 1], position - low)


class FilterDescent(nn.Module):
    """A filter optimiser without its loss: iterations, step length and regularisation (abstract)."""

    def __init__(
        self,
        iterations: int,
        initial_step: float,
        initial_regularization: float,
        minimum_regularization: float,
        label_sigma: float,
        alpha_eps: float,
    ):
        super().__init__()
        self.iterations, self.label_sigma, self.alpha_eps = iterations, label_sigma, alpha_eps
        self.minimum_regularization = minimum_regularization
        self.log_step_length = nn.Parameter(torch.tensor([math.log(initial_step)]))
        self.filter_reg = nn.Parameter(torch.tensor([initial_regularization]))

    def forward(
        self,
        filters: Tensor,
        features: Tensor,
        boxes_xyxy: Tensor,
        sample_weights: Tensor | None = None,
        iterations: int | None = None,
    ) -> list[Tensor]:
        """Return all iterates (the given filter first), so that each can carry a training loss.

        filters (s, c, k, k), features (n, s, c, h, w), boxes (n, s, 4) in crop pixels; weights (n, s), default 1 / n.
        """
        n, k = features.shape[0], filters.shape[-1]
        size = (features.shape[-2] + 1 - k % 2, features.shape[-1] + 1 - k % 2)
        distance = distance_maps(_target_centres(boxes_xyxy, k), size)
        if sample_weights is None:
            sample_weights = torch.full_like(distance[..., 0, 0], 1 / n)
        targets = self.targets(distance, sample_weights[..., None, None])
        step, reg = self.log_step_length.exp(), self.filter_reg.square().clamp(min=self.minimum_regularization**2)
        iterates = [filters]
        for _ in range(self.iterations if iterations is None else iterations):
            g, curvature = self.quadratic_model(filters, features, targets, reg)
            g2 = g.square().sum(dim=(1, 2, 3))
            alpha = g2 / (curvature + (reg + self.alpha_eps) * g2).clamp(min=1e-8)
            filters = filters - (step * alpha)[:, None, None, None] * g
            iterates.append(filters)
        return iterates

    def targets(self, distance: Tensor, sample_weights: Tensor) -> tuple[Tensor, ...]:
        """Return target scores and their weights from distances (n, s, h', w') and sample weights (n, s, 1, 1)."""
        raise NotImplementedError

    def quadratic_model(self, w: Tensor, x: Tensor, targets: tuple[Tensor, ...], reg: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss's gradient (s, c, k, k) at w, and its curvature (s,) along it without regularisation."""
        raise NotImplementedError


class SteepestDescent(FilterDescent):
    """DiMP's Gauss-Newton steepest descent on a robust squared error (DiMP, section 3.2, equations 1 to 6).

    The label y, the target mask m and the spatial weight v are learned functions of the distance to the target.
    """

    def __init__(
        self,
        iterations: int = 5,
        initial_step: float = 0.9,
        initial_regularization: float = 0.1,
        minimum_regularization: float = 1e-3,
        label_sigma: float = 0.9,
        alpha_eps: float = 0.0,
        bins: int = 100,
        displacement: float = 0.1,
    ):
        super().__init__(
            iterations, initial_step, initial_regularization, minimum_regularization, label_sigma, alpha_eps
        )
        distance = displacement * torch.arange(bins, dtype=torch.float32, device="cpu")  # see `without_values`
        label = (-0.5 * (distance / label_sigma).square()).exp()
        self.label_map_predictor = RadialMap(label - label.min(), displacement)
        self.target_mask_predictor = nn.ModuleList([RadialMap(3 * torch.tanh(2 - distance), displacement)])
        self.spatial_weight_predictor = RadialMap(torch.ones(bins), displacement)

    def targets(self, distance: Tensor, sample_weights: Tensor) -> tuple[Tensor, ...]:
        mask = self.target_mask_predictor[0](distance).sigmoid()
        weight = sample_weights.sqrt() * self.spatial_weight_predictor(distance)
        return self.label_map_predictor(distance), mask, weight

    def quadratic_model(self, w: Tensor, x: Tensor, targets: tuple[Tensor, ...], reg: Tensor) -> tuple[Tensor, Tensor]:
        y, m, v = targets
        s = apply_filter(x, w)
        slope = 0.5 * (1 - m) * s.sign() + 0.5 * (1 + m)  # a'(s)
        residual = v * (slope * s - y)  # v (a(s) - y): a(s) = a'(s) s
        g = filter_gradient(x, slope * v * residual, w.shape[-1]) + reg * w
        q = slope * v * apply_filter(x, g)
        return g, q.square().sum(dim=(0, 2, 3))


class NewtonDescent(FilterDescent):
    """PrDiMP's steepest descent on the KL divergence to a Gaussian label density (PrDiMP, equations 8 to 12)."""

    def __init__(
        self,
        iterations: int = 5,
        initial_step: float = 1.0,
        initial_regularization: float = 0.05,
        minimum_regularization: float = 0.05,
        label_sigma: float = 0.9,
        alpha_eps: float = 0.05,
    ):
        super().__init__(
            iterations, initial_step, initial_regularization, minimum_regularization, label_sigma, alpha_eps
        )

    def targets(self, distance: Tensor, sample_weights: Tensor) -> tuple[Tensor, ...]:
        variance = self.label_sigma**2
        density = (-0.5 * distance.square() / variance).exp() / (2 * math.pi * variance)
        return density / (density.sum(dim=(-2, -1), keepdim=True) + 1e-8), sample_weights

    def quadratic_model(self, w: Tensor, x: Tensor, targets: tuple[Tensor, ...], reg: Tensor) -> tuple[Tensor, Tensor]:
        y, v = targets
        p = apply_filter(x, w).flatten(2).softmax(-1).view_as(y)
        g = filter_gradient(x, v * (p - y), w.shape[-1]) + reg * w
        xg = apply_filter(x, g)
        q = p * xg - p * (p * xg).sum(dim=(-2, -1), keepdim=True)
        return g, (v[..., 0, 0] * (xg * q).sum(dim=(2, 3)).clamp(min=0)).sum(dim=0)


class TargetClassifier(nn.Module):
    """Classifier features, filter initialiser and filter optimiser under pytracking's state-dict names."""

    def __init__(self, in_channels: int, channels: int, blocks: int, filter_optimizer: nn.Module, filter_size: int = 4):
        super().__init__()
        self.filter_size = filter_size
        self.norm_scale = math.sqrt(1 / (channels * filter_size**2))
        convs = [BasicBlock(in_channels, in_channels) for _ in range(blocks)]
        self.feature_extractor = nn.Sequential(*convs, nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
        for module in self.feature_extractor.modules():
            if isinstance(module, nn.Conv2d):  # deviation 0.0295 for DiMP-18, 0.0208 for ResNet-50 (pytracking)
                nn.init.normal_(module.weight, std=math.sqrt(2 / (9 * module.out_channels)))
        self.filter_initializer = FilterInitializer(channels, filter_size)
        self.filter_optimizer = filter_optimizer

    def features(self, layer3: Tensor) -> Tensor:
        """Return normalised classification features (N, c, h, w) of backbone features (N, c3, h, w)."""
        return instance_l2_norm(self.feature_extractor(layer3), self.norm_scale)

    def learn(
        self, features: Tensor, boxes_xyxy: Tensor, sample_weights: Tensor | None = None, iterations: int | None = None
    ) -> list[Tensor]:
        """Return all filter iterates (s, c, k, k), first guess first, of features (n, s, c, h, w), boxes (n, s, 4)."""
        filters = self.filter_initializer(features, boxes_xyxy)
        return self.filter_optimizer(filters, features, boxes_xyxy, sample_weights, iterations)
