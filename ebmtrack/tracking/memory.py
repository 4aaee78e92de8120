"""The samples that the classifier keeps learning from, and their weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class SampleMemory:
    """A fixed number of feature maps with boxes and weights; the first frame's samples are never dropped.

    A new sample weighs learning_rate and older ones fade accordingly; the first frame's keep `least_weight` in all.
    """

    def __init__(self, features: Tensor, boxes_xyxy: Tensor, size: int, learning_rate: float, least_weight: float):
        """features (n, c, h, w) and boxes (n, 4) of the first frame's samples, n <= size; all weigh 1 / n."""
        n = len(features)
        self.initial, self.count, self.last = n, n, -1
        self.learning_rate, self.least_weight = learning_rate, least_weight
        self.features = features.new_zeros(max(size, n), *features.shape[1:])
        self.boxes_xyxy = boxes_xyxy.new_zeros(max(size, n), 4)
        self.features[:n], self.boxes_xyxy[:n] = features, boxes_xyxy
        self.weights = np.zeros(max(size, n))
        self.weights[:n] = 1 / n

    def add(self, features: Tensor, box_xyxy: Tensor, learning_rate: float | None = None) -> int:
        """Store one sample (c, h, w) with its box (4,); returns the slot it took."""
        slot = self._claim_slot(self.learning_rate if learning_rate is None else learning_rate)
        self.features[slot], self.boxes_xyxy[slot] = features, box_xyxy
        return slot

    def stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features (n, 1, c, h, w), boxes (n, 1, 4) and weights (n, 1) of the samples in use."""
        weights = torch.from_numpy(self.weights[: self.count]).to(self.features)
        return self.features[: self.count, None], self.boxes_xyxy[: self.count, None], weights[:, None]

    def _claim_slot(self, rate: float) -> int:
        """Choose a slot (the next free one, else the lightest that is not initial) and give it its weight."""
        weights = self.weights
        if self.count == self.initial == len(weights):
            return self.initial - 1  # no room beyond the first frame's samples: the last of them gives way
        slot = self.count if self.count < len(weights) else self.initial + int(weights[self.initial :].argmin())
        if self.last < 0:
            weights /= 1 - rate
            weights[slot] = rate
        else:
            weights[slot] = weights[self.last] / (1 - rate)
        weights /= weights.sum()
        if weights[: self.initial].sum() < self.least_weight:
            weights /= self.least_weight + weights[self.initial :].sum()
            weights[: self.initial] = self.least_weight / self.initial
        self.count, self.last = max(self.count, slot + 1), slot
        return slot
