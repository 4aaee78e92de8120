"""Which frames a training sample uses: DiMP's rule by its distribution, shares of sources, photographs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ebmtrack.data.sampling import (
    Sampler,
    SamplingSettings,
    causal_frames,
    dimp_frames,
    interval_frames,
    long_enough,
    make_sampler,
)
from ebmtrack.errors import ConfigError
from ebmtrack.videos.source import Source


class Lengths(Source):
    """Targets with given numbers of frames, all visible, and no pictures."""

    def __init__(self, name: str, lengths: list[int], is_video: bool = True):
        self.name, self.lengths, self.is_video = name, lengths, is_video

    def __len__(self):
        return len(self.lengths)

    def target_name(self, index):
        return f"{self.name}-{index}"

    def boxes_xywh(self, index):
        return np.ones((self.lengths[index], 4))

    def visible(self, index):
        return np.ones(self.lengths[index], bool)

    def frame(self, index, frame):
        raise NotImplementedError


@pytest.mark.parametrize("seed", range(30))
def test_dimp_frames_are_visible_causal_and_near(seed):
    """The base comes first and leaves room for two frames before and three after; others lie within the gap, base + gap
    excluded, which a third of visible frames never needs to grow from 40."""
    rng = np.random.default_rng(seed)
    visible = rng.random(200) < 0.3
    (base, *earlier), test = dimp_frames(visible, 3, 3, 40, rng)
    assert visible[[base, *earlier, *test]].all() and len(earlier) == 2 and len(test) == 3
    assert 2 <= base < 197
    assert all(base - 40 <= f < base for f in earlier) and all(base < f < base + 40 for f in test)


def test_dimp_frames_are_drawn_evenly():
    """Twelve visible frames, 2 + 1, gap 3: the base is one of 1 .. 10, each with probability 1 / 10. Given that it is
    5, the earlier frame is 2, 3 or 4, the later one 6 or 7, evenly. 3,000 draws, five standard deviations."""
    rng, visible = np.random.default_rng(0), np.ones(12, bool)
    draws = [dimp_frames(visible, 2, 1, 3, rng) for _ in range(3000)]
    bases = Counter(train[0] for train, _ in draws)
    assert set(bases) == set(range(1, 11))
    assert max(abs(n - 300) for n in bases.values()) < 5 * (3000 * 0.1 * 0.9) ** 0.5
    middle = [(train[1], test[0]) for train, test in draws if train[0] == 5]
    for counts, values in ((Counter(e for e, _ in middle), {2, 3, 4}), (Counter(t for _, t in middle), {6, 7})):
        p = 1 / len(values)
        assert set(counts) == values
        assert max(abs(n - p * len(middle)) for n in counts.values()) < 5 * (len(middle) * p * (1 - p)) ** 0.5


def test_the_gap_grows_by_five_until_both_sides_have_frames():
    """Visible 0, 50 and 62 of 100 with a gap of 10: 50 is the only base, its neighbours lie 50 and 12 away."""
    visible = np.zeros(100, bool)
    visible[[0, 50, 62]] = True
    for seed in range(10):
        assert dimp_frames(visible, 3, 3, 10, np.random.default_rng(seed)) == ((50, 0, 0), (62, 62, 62))


def test_one_train_frame_needs_nothing_before_it():
    """Visible 0 and 5 of 20, 1 + 1 frames: the base can only be 0."""
    visible = np.zeros(20, bool)
    visible[[0, 5]] = True
    assert dimp_frames(visible, 1, 1, 50, np.random.default_rng(0)) == ((0,), (5,))


@pytest.mark.parametrize("where", [[], [7], [0, 1], [18, 19]])
def test_without_frames_on_both_sides_there_is_an_error(where):
    """Three before and after: a base needs index 2 .. 16 and a neighbour on each side."""
    visible = np.zeros(20, bool)
    visible[where] = True
    with pytest.raises(ConfigError, match="before and after"):
        dimp_frames(visible, 3, 3, 30, np.random.default_rng(0))


def test_long_enough():
    """At least 20 frames, more than twelve of them visible for 3 + 3, more than four for 1 + 1."""
    visible = np.arange(20) < 13
    assert long_enough(visible, 3, 3) and not long_enough(visible[:19], 3, 3)
    assert not long_enough(np.arange(20) < 12, 3, 3)
    assert long_enough(np.arange(20) < 5, 1, 1) and not long_enough(np.arange(20) < 4, 1, 1)


def test_short_videos_are_passed_over_and_keep_no_share_from_their_source():
    """One of four targets of `mixed` is long enough; it gets the whole half of the draws that its source has. 2,000
    draws: five standard deviations are 112."""
    sources = {"mixed": Lengths("mixed", [19, 30, 5, 12]), "long": Lengths("long", [25, 25])}
    sampler = make_sampler(sources, SamplingSettings({"mixed": 1.0, "long": 1.0}), seed=0)
    drawn = Counter()
    for index in range(2000):
        choice = sampler.choose(sampler.rng(index))
        drawn[choice.source.name, choice.target] += 1
    assert set(drawn) == {("mixed", 1), ("long", 0), ("long", 1)} and abs(drawn["mixed", 1] - 1000) < 112


def test_photographs_are_repeated():
    sampler = make_sampler({"coco": Lengths("coco", [1, 1], False)}, SamplingSettings({"coco": 1.0}), seed=0)
    choice = sampler.choose(sampler.rng(3))
    assert choice.train_frames == (0, 0, 0) and choice.test_frames == (0, 0, 0)


@pytest.mark.parametrize("rule, why", [("dimp", "fewer than 20 frames"), ("any", "never visible")])
def test_a_source_without_usable_targets_is_named(rule, why):
    class Hidden(Lengths):
        def visible(self, index):
            return np.zeros(self.lengths[index], bool)

    source = Lengths("clips", [6, 6]) if rule == "dimp" else Hidden("clips", [30])
    sampler = Sampler([source], [1.0], 3, 3, 200, 0, rule)
    with pytest.raises(ConfigError, match=f"source clips: .*{why}"):
        sampler.choose(sampler.rng(0))


def test_shares_and_sources_must_match_and_a_share_of_zero_leaves_out():
    sources = {"a": Lengths("a", [30]), "b": Lengths("b", [30])}
    assert make_sampler(sources, SamplingSettings({"a": 1.0, "b": 0.0}), 0).sources == [sources["a"]]
    with pytest.raises(ConfigError, match=r"\['a', 'c'\].*\['a', 'b'\]"):
        make_sampler(sources, SamplingSettings({"a": 1.0, "c": 1.0}), 0)
    with pytest.raises(ConfigError, match="must match"):
        make_sampler(sources, SamplingSettings({"a": 1.0}), 0)
    with pytest.raises(ConfigError, match="rule"):
        Sampler([sources["a"]], [1.0], 3, 3, 200, 0, "newest")


@pytest.mark.parametrize("index", range(20))
def test_the_rule_any_draws_source_target_and_frames_in_this_order(index):
    """From one generator seeded by (seed, index): trained networks can be trained again only while that stays so."""
    sources, shares = {"a": Lengths("a", [6, 9]), "b": Lengths("b", [7] * 5)}, {"a": 0.3, "b": 0.7}
    sampler = make_sampler(sources, SamplingSettings(shares, 2, 2, 30, "any"), seed=4)
    choice = sampler.choose(sampler.rng(index))
    rng = np.random.default_rng((4, index))
    source = sources["a"] if rng.random() < 0.3 else sources["b"]
    target = int(rng.random() * len(source))
    assert (choice.source, choice.target) == (source, target)
    assert (choice.train_frames, choice.test_frames) == causal_frames(source.visible(target), 2, 2, 30, rng)


def test_interval_frames_are_on_either_side():
    """ATOM's pairs: within 200 frames before or after the first one, visible, and about as often on each side."""
    visible = np.ones(1000, bool)
    visible[300:500] = False
    rng = np.random.default_rng(0)
    gaps = [test[0] - train[0] for train, test in (interval_frames(visible, 1, 1, 200, rng) for _ in range(2000))]
    assert min(gaps) < -150 and max(gaps) > 150 and max(map(abs, gaps)) <= 200
    assert 0.4 < np.mean(np.array(gaps) < 0) < 0.6
    drawn = [frame for _ in range(200) for part in interval_frames(visible, 2, 3, 200, rng) for frame in part]
    assert visible[drawn].all()
