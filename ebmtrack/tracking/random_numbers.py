"""Random numbers as PyTorch's CPU generator gives them for a seed, without PyTorch.

pytracking draws candidates and views with that generator, and so did this tracker; the same seed goes on giving the
same boxes. Source of the formulas: ATen's mt19937 and uniform_real_distribution.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError


class RandomNumbers:
    """A Mersenne twister with PyTorch's seeding and conversions to floats."""

    def __init__(self, seed: int):
        """Start from a seed; its lowest 32 bits count. Raises ConfigError if it is no whole number."""
        try:
            self.seed = operator.index(seed)
        except TypeError:
            raise ConfigError(f"a seed is a whole number, not {seed!r}") from None
        state: Any = np.random.RandomState(self.seed & 0xFFFFFFFF).get_state(legacy=False)
        self._bits = np.random.MT19937()
        self._bits.state = state

    @property
    def state(self) -> tuple[np.ndarray, int]:
        """Return the twister's words (624,) uint32 and the position of the next one, from which it can go on."""
        state = self._bits.state["state"]
        return state["key"], int(state["pos"])

    @state.setter
    def state(self, state: tuple[np.ndarray, int]) -> None:
        """Go on from a state. Raises ValueError on one that is none: NumPy would read beyond its words."""
        key, position = state
        if key.shape != (624,) or key.dtype != np.uint32 or not 0 <= position <= 624:
            raise ValueError(f"no state of a Mersenne twister: {key.dtype} {key.shape}, position {position}")
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}

    def uniform(self, *shape: int) -> np.ndarray:
        """Return numbers in [0, 1), float32, as torch.rand does.

        >>> RandomNumbers(0).uniform(3).tolist()
        [0.49625658988952637, 0.7682217955589294, 0.08847743272781372]
        """
        bits = self._bits.random_raw(int(np.prod(shape)))
        return ((bits & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)).reshape(shape)

    def bernoulli(self, probability: float, *shape: int) -> np.ndarray:
        """Return bools that are True with a probability, as torch.Tensor.bernoulli_ draws them."""
        high, low = self._bits.random_raw(2 * int(np.prod(shape))).reshape(-1, 2).T.astype(np.uint64)
        bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
        return (bits * 2.0**-53 < probability).reshape(shape)
