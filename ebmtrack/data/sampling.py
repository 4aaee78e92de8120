"""The choice of source, target and frames for each training sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.videos.source import Source

FrameRule = Literal["dimp", "interval", "any"]
LEAST_FRAMES = 20  # of a video in DiMP's training (pytracking)


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Shares of the sources and the rule for frames; defaults are SuperDiMP's, which BMVC 2020 uses (supplement D.1).

    shares: source name -> share of the samples, not normalised; 0 leaves the source out. rule: see `Sampler`.
    """

    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    train_frames: int = 3
    test_frames: int = 3
    max_gap: int = 200  # frames between the base frame and any other
    rule: FrameRule = "dimp"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One training sample before any pixel is read."""

    source: Source
    target: int
    train_frames: tuple[int, ...]
    test_frames: tuple[int, ...]


def causal_frames(
    visible: np.ndarray, train: int, test: int, max_gap: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw train frames up to a base frame and test frames after it, all visible, drawn with replacement.

    visible: (n,) bool. The base frame is drawn from those that leave room on both sides; the others are within
    `max_gap` of it, a gap that grows by 5 until there are some (DiMP). A sequence with visible frames on one side only,
    or with a single frame, repeats what it has.
    """
    where = np.flatnonzero(visible)
    if len(where) == 0:
        raise ConfigError("cannot sample frames: the target is visible in none")
    early, late = where[0], where[-1]
    room = where[(where >= min(early + train - 1, late)) & (where < max(late - test + 1, early + 1))]
    base = int(rng.choice(room if len(room) else where))
    before, after, gap = np.array([]), np.array([]), max_gap
    while len(before) == 0 or len(after) == 0:
        before = where[(where >= base - gap) & (where < base)]
        after = where[(where > base) & (where <= base + gap)]
        gap += 5
        if gap > max_gap + len(visible):
            break
    before = before if len(before) else np.array([base])
    after = after if len(after) else np.array([base])
    train_frames = sorted([base, *rng.choice(before, train - 1).tolist()])
    return tuple(int(f) for f in train_frames), tuple(int(f) for f in sorted(rng.choice(after, test).tolist()))


def dimp_frames(
    visible: np.ndarray, train: int, test: int, max_gap: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw frames of a video as DiMP does: the base frame, train - 1 before it; `test` after it; with replacement.

    visible: (n,) bool. The base frame is uniform over the visible ones among train - 1 .. n - test - 1; the earlier
    ones come from [base - gap, base), the later ones from (base, base + gap). If a side is empty, the gap grows by 5
    and the base frame is drawn again. The base frame is the first of the train frames: it modulates the box branch.
    Raises ConfigError if no frame has visible ones on both sides; see `long_enough`.
    """
    where = np.flatnonzero(visible)
    bases = where[(where >= train - 1) & (where < len(visible) - test)]
    bases = bases[((bases > where[:1]) | (train == 1)) & (bases < where[-1:])]
    if len(bases) == 0:
        raise ConfigError("cannot sample frames: none has visible frames both before and after it")
    before, after, gap = where[:0], where[:0], max_gap
    while (len(before) == 0 and train > 1) or len(after) == 0:
        base = int(rng.choice(bases))
        before = where[(where >= base - gap) & (where < base)]
        after = where[(where > base) & (where < base + gap)]
        gap += 5
    earlier = rng.choice(before, train - 1).tolist() if train > 1 else []
    return (base, *earlier), tuple(rng.choice(after, test).tolist())


def interval_frames(
    visible: np.ndarray, train: int, test: int, max_gap: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw frames of a video as ATOM does: all others on either side of the first one, with replacement.

    visible: (n,) bool. The first train frame is uniform over the visible ones, the others come from those in
    [first - max_gap, first + max_gap), the first one included. Raises ConfigError if none is visible.
    """
    where = np.flatnonzero(visible)
    if len(where) == 0:
        raise ConfigError("cannot sample frames: the target is visible in none")
    first = int(rng.choice(where))
    near = where[(where >= first - max_gap) & (where < first + max_gap)]
    return (first, *rng.choice(near, train - 1).tolist()), tuple(rng.choice(near, test).tolist())


def long_enough(visible: np.ndarray, train: int, test: int) -> bool:
    """Return whether DiMP would use a video: 20 frames or more, over 2 (train + test) visible (12 for 3 + 3)."""
    return len(visible) >= LEAST_FRAMES and int(visible.sum()) > 2 * (train + test)


FRAME_RULES = {"dimp": dimp_frames, "interval": interval_frames, "any": causal_frames}


class Sampler:
    """A sampler that draws a source by its share, a target by its weight, and frames causally; any index, any order.

    rule "dimp" takes frames by `dimp_frames` from videos that are `long_enough` and repeats photographs; it draws
    another target of the same source if one is not. rule "interval" does so by `interval_frames`. rule "any" takes what
    there is, also of short clips, by `causal_frames`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shares: Sequence[float],
        train: int,
        test: int,
        max_gap: int,
        seed: int,
        rule: FrameRule = "any",
    ):
        if rule not in get_args(FrameRule) or train < 1 or test < 1 or max_gap < 2:
            raise ConfigError(
                f"the rule must be one of {get_args(FrameRule)}, with at least one train and one test frame and a gap "
                f"of 2 frames, got {rule!r}, {train}, {test} and {max_gap}"
            )
        if len(sources) != len(shares) or not sources or min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError(f"need one non-negative share for each of the {len(sources)} sources, got {list(shares)}")
        self.sources, self.seed = list(sources), seed
        self.cumulative_shares = np.cumsum(shares) / np.sum(shares)
        self.train, self.test, self.max_gap, self.rule = train, test, max_gap, rule
        self.cumulative_weights = [np.cumsum(s.weights()) / np.sum(s.weights()) for s in sources]

    def rng(self, index: int) -> np.random.Generator:
        """Return the random generator of sample `index`; all that is random about a sample comes from it."""
        return np.random.default_rng((self.seed, index))

    def choose(self, rng: np.random.Generator) -> Choice:
        """Draw one sample; targets that are never visible, or too short for the rule, are drawn again."""
        number = self._source(rng)
        for _ in range(100):
            source, target = self.sources[number], self._target(number, rng)
            visible = source.visible(target)
            if self._usable(source, visible):
                return Choice(source, target, *self._frames(source, visible, rng))
            number = self._source(rng) if self.rule == "any" else number
        raise ConfigError(f"source {source.name}: 100 targets in a row cannot be used, {self._why()}: check the source")

    def _source(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self.cumulative_shares, rng.random(), side="right"))

    def _target(self, number: int, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self.cumulative_weights[number], rng.random(), side="right"))

    def _usable(self, source: Source, visible: np.ndarray) -> bool:
        if self.rule != "any" and source.is_video:
            return long_enough(visible, self.train, self.test)
        return bool(visible.any())

    def _why(self) -> str:
        if self.rule == "any":
            return "their targets are never visible"
        return f"they have fewer than {LEAST_FRAMES} frames, or at most {2 * (self.train + self.test)} visible ones"

    def _frames(self, source: Source, visible: np.ndarray, rng: np.random.Generator):
        """Draw train and test frames of a usable target."""
        draw = FRAME_RULES[self.rule] if source.is_video else causal_frames
        return draw(visible, self.train, self.test, self.max_gap, rng)


def make_sampler(sources: Mapping[str, Source], settings: SamplingSettings, seed: int) -> Sampler:
    """Return the sampler over `sources` (name -> source) that settings describe.

    ConfigError for a source without a share, or a share (other than 0) without a source.
    """
    shares = {name: share for name, share in settings.shares.items() if share != 0}
    if not set(shares) <= set(sources) <= set(settings.shares):
        raise ConfigError(f"there are shares for {list(settings.shares)}, but sources {list(sources)}: they must match")
    counts = (settings.train_frames, settings.test_frames, settings.max_gap)
    return Sampler([sources[name] for name in shares], list(shares.values()), *counts, seed, settings.rule)
