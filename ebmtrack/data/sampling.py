"""Which source, which target and which frames one training sample uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ebmtrack.data.sources.base import Source
from ebmtrack.errors import ConfigError


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
    """Train frames up to a base frame and test frames after it, all visible, drawn with replacement.

    visible: (n,) bool. The base frame is drawn from those that leave room on both sides; the others lie within
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


class Sampler:
    """Draws a source by its share, a target by the source's weights, and frames causally; any index, any order."""

    def __init__(
        self, sources: Sequence[Source], shares: Sequence[float], train: int, test: int, max_gap: int, seed: int
    ):
        if len(sources) != len(shares) or not sources or min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError(f"need one non-negative share for each of the {len(sources)} sources, got {list(shares)}")
        self.sources, self.seed = list(sources), seed
        self.cumulative_shares = np.cumsum(shares) / np.sum(shares)
        self.train, self.test, self.max_gap = train, test, max_gap
        self.cumulative_weights = [np.cumsum(s.weights()) / np.sum(s.weights()) for s in sources]

    def rng(self, index: int) -> np.random.Generator:
        """The random generator of sample `index`; all that is random about a sample comes from it."""
        return np.random.default_rng((self.seed, index))

    def choose(self, rng: np.random.Generator) -> Choice:
        """Draw one sample; targets that are never visible are drawn again."""
        for _ in range(100):
            number = int(np.searchsorted(self.cumulative_shares, rng.random(), side="right"))
            source = self.sources[number]
            target = int(np.searchsorted(self.cumulative_weights[number], rng.random(), side="right"))
            visible = source.visible(target)
            if visible.any():
                frames = causal_frames(visible, self.train, self.test, self.max_gap, rng)
                return Choice(source, target, *frames)
        raise ConfigError("100 targets in a row are never visible: check the sources")
