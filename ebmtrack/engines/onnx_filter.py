"""The target classifier's filter in NumPy: correlation, first guess and the learned steepest descent, without torch.

Source: as nets/classifier.py, whose answers these functions give for one sequence. Samples are (c, n, h, w): all
samples of a channel side by side, so that correlation with a filter is one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ebmtrack.engines.pooling import PoolingKernel, bin_edges
from ebmtrack.engines.products import multiply

STRIDE = 16  # crop pixels per cell of the classification features


def normalize_features(features: np.ndarray, scale: float) -> np.ndarray:
    """Return features (c, h, w) scaled to the mean square scale^2."""
    energy = np.square(features).sum() + np.float32(1e-5)
    return features * np.float32(scale * math.sqrt(features.size / energy))


def apply_filter(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return scores (n, h', w') of samples (c, n, h, w) for a filter (c, k, k); h' is h + 1 for even k, else h."""
    c, n, h, w = samples.shape
    k = weights.shape[-1]
    taps = np.ascontiguousarray(weights[:, ::-1, ::-1].reshape(c, k * k).T)
    maps = multiply(taps, samples.reshape(c, n * h * w)).reshape(k, k, n, h, w)
    padding = k - 1 - k // 2
    sums = np.zeros((n, h + k - 1, w + k - 1), np.float32)
    for i in range(k):
        for j in range(k):
            sums[:, i : i + h, j : j + w] += maps[i, j]
    return sums[:, padding : padding + h + 1 - k % 2, padding : padding + w + 1 - k % 2]


def filter_gradient(samples: np.ndarray, residuals: np.ndarray, k: int) -> np.ndarray:
    """Return the transpose of `apply_filter`: (c, n, h, w) and residuals (n, h', w') -> (c, k, k)."""
    c, n, h, w = samples.shape
    padding = k - 1 - k // 2
    padded = np.pad(residuals, ((0, 0), (padding, padding), (padding, padding)))
    taps = np.stack([padded[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]).reshape(k * k, -1)
    products = multiply(samples.reshape(c, n * h * w), np.ascontiguousarray(taps.T))
    return products.reshape(c, k, k)[:, ::-1, ::-1]


def pool_box(features: np.ndarray, box_xyxy: np.ndarray, bins: int, scale: float) -> np.ndarray:
    """Return the precise RoI pooling (c, bins, bins) of features (c, h, w) in a box (4,) in crop pixels."""
    c, h, w = features.shape
    cells = np.arange(max(h, w), dtype=np.float32)
    kernel = PoolingKernel(
        bin_edges(box_xyxy[None] * np.float32(scale), bins), np.broadcast_to(cells, (1, 2, bins, len(cells)))
    )
    across, down = kernel.weights[0, 0, :, :w], kernel.weights[0, 1, :, :h]
    return down @ features @ across.T


def first_filter(features: np.ndarray, boxes_xyxy: np.ndarray, k: int) -> np.ndarray:
    """Return the first guess (c, k, k): features (n, c, h, w) of the initialiser pooled in boxes (n, 4), averaged."""
    return np.mean([pool_box(one, box, k, 1 / STRIDE) for one, box in zip(features, boxes_xyxy)], axis=0)


class NumpyFilterDescent:
    """The learned steepest descent of an exported network: DiMP's (squared error) or PrDiMP's (KL divergence)."""

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """Take the numbers that training has left.

        Args:
            config: the fields of NetConfig.
            arrays: "optimizer/..." of the exported network.
        """
        self.is_newton = config["filter_optimizer"] == "prdimp"
        self.label_sigma = config["label_sigma"]
        self.step = np.exp(arrays["optimizer/log_step_length"][0])
        minimum = np.float32(config["minimum_regularization"] ** 2)
        self.regularization = max(np.square(arrays["optimizer/filter_reg"][0]), minimum)
        self.damping = self.regularization + np.float32(config["alpha_eps"])
        names = () if self.is_newton else ("label", "mask", "weight")
        self.knots = {name: arrays[f"optimizer/{name}"] for name in names}
        self.spacing = np.float32(0.1)  # cells between knots (SteepestDescent's displacement)

    def improve(
        self, weights: np.ndarray, samples: np.ndarray, boxes_xyxy: np.ndarray, importance: np.ndarray, iterations: int
    ) -> np.ndarray:
        """Return the filter after some steps.

        Args:
            weights: the filter (c, k, k) to start from.
            samples: classification features (c, n, h, w).
            boxes_xyxy: (n, 4) float32, the target in each sample, in crop pixels.
            importance: (n,) float32, of each sample.
            iterations: number of steps.
        """
        k, (h, w) = weights.shape[-1], samples.shape[-2:]
        distance = distance_maps(boxes_xyxy, k, (h + 1 - k % 2, w + 1 - k % 2))
        model = self._newton if self.is_newton else self._gauss_newton
        targets = self._targets(distance, importance[:, None, None])
        scores = apply_filter(samples, weights)
        for _ in range(iterations):
            g, scores_of_g, curvature = model(weights, scores, samples, targets)
            g2 = np.square(g).sum()
            length = self.step * (g2 / max(curvature + self.damping * g2, np.float32(1e-8)))
            weights, scores = weights - length * g, scores - length * scores_of_g  # scores are linear in the filter
        return weights

    def _targets(self, distance: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what scores should be and how much that matters, (n, h', w') each."""
        if self.is_newton:
            variance = self.label_sigma**2
            density = np.exp(-0.5 * np.square(distance) / variance) / (2 * math.pi * variance)
            density /= density.sum(axis=(1, 2), keepdims=True) + np.float32(1e-8)
            return density.astype(np.float32), importance
        mask = 1 / (1 + np.exp(-self._radial("mask", distance)))
        return self._radial("label", distance), mask, np.sqrt(importance) * self._radial("weight", distance)

    def _radial(self, name: str, distance: np.ndarray) -> np.ndarray:
        """Return a learned function of the distance: linear between knots, constant beyond the last one."""
        knots = self.knots[name]
        position = np.minimum(distance / self.spacing, np.float32(len(knots) - 1))
        low = np.minimum(position.astype(np.int64), len(knots) - 2)
        return knots[low] + (position - low.astype(np.float32)) * (knots[low + 1] - knots[low])

    def _gauss_newton(
        self, w: np.ndarray, s: np.ndarray, x: np.ndarray, targets: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """Return gradient, its scores and curvature of DiMP's robust squared error (DiMP, equations 1 to 6)."""
        y, m, v = targets
        slope = 0.5 * (1 - m) * np.sign(s) + 0.5 * (1 + m)  # a'(s); a(s) = a'(s) s
        g = filter_gradient(x, slope * v * v * (slope * s - y), w.shape[-1]) + self.regularization * w
        xg = apply_filter(x, g)
        return g, xg, np.square(slope * v * xg).sum()

    def _newton(
        self, w: np.ndarray, s: np.ndarray, x: np.ndarray, targets: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """Return gradient, its scores and curvature of PrDiMP's KL divergence (PrDiMP, equations 8 to 12)."""
        y, v = targets
        p = np.exp(s - s.max(axis=(1, 2), keepdims=True))
        p /= p.sum(axis=(1, 2), keepdims=True)
        g = filter_gradient(x, v * (p - y), w.shape[-1]) + self.regularization * w
        xg = apply_filter(x, g)
        q = p * xg - p * (p * xg).sum(axis=(1, 2), keepdims=True)
        return g, xg, (v[:, 0, 0] * (xg * q).sum(axis=(1, 2)).clip(0)).sum()


def distance_maps(boxes_xyxy: np.ndarray, k: int, size: tuple[int, int]) -> np.ndarray:
    """Return the distance, in cells, of each cell of n score maps to the boxes' centres: (n, 4) -> (n, h', w')."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / np.float32(2 * STRIDE) - np.float32(k % 2) / 2
    dx = np.arange(size[1], dtype=np.float32) - centres[:, :1, None]
    dy = np.arange(size[0], dtype=np.float32)[:, None] - centres[:, 1:, None]
    return np.sqrt(np.square(dx) + np.square(dy))
