"""Random numbers without PyTorch equal PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebmtrack.tracking.random_numbers import RandomNumbers


@pytest.mark.parametrize("seed", [0, 3, 12345, 2**32 - 1, 2**33 + 5])
def test_numbers_equal_those_of_torch_to_the_bit(seed):
    """Uniform numbers and dropout masks, in turn: each takes as many numbers of the stream as torch does."""
    ours, theirs = RandomNumbers(seed), torch.Generator().manual_seed(seed)
    for shape in ((2,), (9, 4), (1000,)):
        assert np.array_equal(ours.uniform(*shape), torch.rand(*shape, generator=theirs).numpy())
        expected = torch.empty(2, 256, 1, 1).bernoulli_(0.8, generator=theirs)[..., 0, 0].bool().numpy()
        assert np.array_equal(ours.bernoulli(0.8, 2, 256), expected)


def test_numbers_are_float32_below_one():
    numbers = RandomNumbers(1).uniform(10_000)
    assert numbers.dtype == np.float32 and 0 <= numbers.min() and numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.02)


def test_no_numbers():
    assert RandomNumbers(0).uniform(0, 4).shape == (0, 4) and RandomNumbers(0).bernoulli(0.5, 0).shape == (0,)
