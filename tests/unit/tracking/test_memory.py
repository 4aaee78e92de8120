"""The weights of the stored samples."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack.tracking.memory import SampleMemory


def test_weights_of_the_first_samples():
    """Three initial samples of 1/3. First: (1/3)/0.9 each and 0.1, normalised. Then the last weight over 0.9."""
    samples = SampleMemory(3, 6, 0.25)
    assert samples.weights.tolist() == [1 / 3] * 3
    assert samples.claim(0.1) == 3
    first = np.array([1 / 2.7, 1 / 2.7, 1 / 2.7, 0.1])
    assert np.allclose(samples.weights, first / first.sum())
    samples.claim(0.1)
    second = np.append(first / first.sum(), first[3] / first.sum() / 0.9)
    assert np.allclose(samples.weights, second / second.sum())


def test_the_lightest_sample_is_replaced_and_the_first_frame_kept():
    samples, held = SampleMemory(3, 6, 0.25), {}
    for value in range(200):
        slot = samples.claim(0.1)
        assert slot >= 3
        held[slot] = value
    assert len(samples.weights) == 6 and samples.weights[:3].sum() == pytest.approx(0.25)
    assert set(held.values()) == {197, 198, 199}


def test_without_room_the_last_sample_of_the_first_frame_gives_way():
    samples = SampleMemory(3, 3, 0.25)
    assert [samples.claim(0.1) for _ in range(3)] == [2, 2, 2]
    assert samples.weights.tolist() == [1 / 3] * 3


def weights_by_the_rule(first: int, size: int, rates: list[float], least: float) -> list[list[float]]:
    """Return the weights after each sample, as DiMP's tracker is described, one number after the other."""
    weights, last, history = [1 / first] * first, None, []
    for rate in rates:
        slot = len(weights) if len(weights) < size else min(range(first, size), key=lambda k: weights[k])
        weights = [*weights, 0.0][:size]
        if last is None:
            weights = [w / (1 - rate) for w in weights]
            weights[slot] = rate
        else:
            weights[slot] = weights[last] / (1 - rate)
        weights = [w / sum(weights) for w in weights]
        if sum(weights[:first]) < least:
            rest = sum(weights[first:])
            weights = [least / first] * first + [w / (least + rest) for w in weights[first:]]
        last = slot
        history.append(weights)
    return history


@pytest.mark.parametrize("first, size, least", [(3, 6, 0.25), (1, 9, 0.6), (3, 4, 0.25), (15, 50, 0.25), (2, 5, 0.0)])
def test_weights_follow_the_rule_to_the_end(first, size, least):
    """Usual and higher rates in turn, well beyond the frame in which the first samples reach their least weight."""
    rates = [0.05 if k % 7 == 3 else 0.03 for k in range(150)]
    memory, totals = SampleMemory(first, size, least), []
    for rate, expected in zip(rates, weights_by_the_rule(first, size, rates, least), strict=True):
        memory.claim(rate)
        assert memory.weights == pytest.approx(np.array(expected), rel=1e-9)
        totals.append(sum(expected))
    assert (max(totals) > 1.001) == (least > 0)  # the floor was reached: the first samples' share is added on top
