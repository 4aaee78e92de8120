"""The weights of the samples that the classifier keeps learning from."""

from __future__ import annotations

import numpy as np


class SampleMemory:
    """The slots of a target's samples and their weights; the first frame's samples are never dropped.

    A new sample weighs its learning rate and older ones fade accordingly; the first frame's keep `least_weight` in
    all. The engine holds the samples themselves.
    """

    def __init__(self, initial: int, capacity: int, least_weight: float):
        """Begin with the first frame's samples in slots 0 to initial - 1, of equal weight."""
        self.initial, self.count, self.last = initial, initial, -1
        self.least_weight = least_weight
        self._weights = np.zeros(capacity)
        self._weights[:initial] = 1 / initial

    @classmethod
    def restored(cls, weights: np.ndarray, initial: int, count: int, last: int, least_weight: float) -> SampleMemory:
        """Return a memory with the weights of all slots (capacity,) and the other numbers of an earlier one."""
        memory = cls(initial, len(weights), least_weight)
        memory._weights[:] = weights
        memory.count, memory.last = count, last
        return memory

    @property
    def all_weights(self) -> np.ndarray:
        """Return the weights (capacity,) of all slots, 0 of those that are free."""
        return self._weights

    @property
    def weights(self) -> np.ndarray:
        """Return the weights (count,) of the samples in use."""
        return self._weights[: self.count]

    def claim(self, learning_rate: float) -> int:
        """Return a slot for a new sample: the next free one, else the lightest that is not of the first frame.

        Args:
            learning_rate: the new sample's share.
        """
        weights = self._weights
        if self.count == self.initial == len(weights):
            return self.initial - 1  # no room beyond the first frame's samples: the last of them gives way
        slot = self.count if self.count < len(weights) else self.initial + int(weights[self.initial :].argmin())
        if self.last < 0:
            weights /= 1 - learning_rate
            weights[slot] = learning_rate
        else:
            weights[slot] = weights[self.last] / (1 - learning_rate)
        weights /= weights.sum()
        if weights[: self.initial].sum() < self.least_weight:
            weights /= self.least_weight + weights[self.initial :].sum()
            weights[: self.initial] = self.least_weight / self.initial
        self.count, self.last = max(self.count, slot + 1), slot
        return slot
