"""The surroundings of a target that search regions need, for pictures that were cut before: packs, the small pool.

If a picture ends because it was cut, a search region is moved and shrunk into it: too narrow a cut makes the jitter of
training smaller than its settings say.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Mapping

import numpy as np

from ebmtrack.data.augment import Jitter, draw_window
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.videos.source import Source

DRAWS = 20_000
ENOUGH_FRAC = 0.95  # of the search regions; the largest have no bound, because the jitter of the size is a normal one


def needed_context(crops: CropSettings, share: float = ENOUGH_FRAC) -> float:
    """Return the context, in target sizes, that holds this share of the search regions of train and of test frames."""
    return float(np.quantile(_contexts(crops), share, axis=0).max())


def share_within(crops: CropSettings, context: float) -> float:
    """Return the share of search regions that a context holds whole, of train or of test frames, whichever is less."""
    return float((_contexts(crops) <= context).mean(axis=0).min())


def _contexts(crops: CropSettings) -> np.ndarray:
    """Return (DRAWS, 2): the contexts that drawn search regions of train and of test frames need."""
    jitters = (crops.train_jitter, crops.test_jitter)
    return np.stack([_contexts_of(*dataclasses.astuple(jitter), crops.search_factor) for jitter in jitters], axis=1)


@functools.lru_cache(maxsize=16)
def _contexts_of(centre: float, scale: float, stretch: float, search_factor: float) -> np.ndarray:
    """Return (DRAWS,): the contexts that drawn search regions of one jitter need."""
    rng, box_xywh = np.random.default_rng(0), np.array([-500.0, -500, 1000, 1000])
    jitter = Jitter(centre, scale, stretch)
    windows = np.array([draw_window(box_xywh, jitter, search_factor, rng) for _ in range(DRAWS)])
    reach = np.concatenate([-windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1).max(axis=1)
    return 2 * reach / 1000.0


def with_cut_at(crops: CropSettings, sources: Mapping[str, Source]) -> CropSettings:
    """Return `crops` that keep off the edges at which these sources were cut, as far as they know (`Source.cut_at`)."""
    known = {source.name: source.cut_at for source in sources.values() if source.cut_at is not None}
    return dataclasses.replace(crops, cut_at=known | crops.cut_at)


def contexts_of(sources: Mapping[str, Source]) -> dict[str, float]:
    """Return name -> context of the sources that were cut."""
    return {name: 2 * source.cut_at for name, source in sources.items() if source.cut_at is not None}


def warn_of_narrow(crops: CropSettings, contexts: Mapping[str, float]) -> None:
    """Warn if contexts hold less than `ENOUGH_FRAC` of the search regions, and name one that is enough."""
    shares = {name: share_within(crops, context) for name, context in contexts.items()}
    narrow = {name: f"{name} {shares[name]:.0%}" for name in contexts if shares[name] < ENOUGH_FRAC}
    if narrow:
        context = math.ceil(needed_context(crops))
        output = math.ceil(context * crops.output / crops.search_factor)
        warnings.warn(
            f"pictures cut {min(contexts[name] for name in narrow):g} target sizes wide are too narrow for the crops. "
            f"Search regions that fit in: {', '.join(narrow.values())}. The others are moved and shrunk, so that "
            f"training sees less jitter than its settings say. Write them with `ebmtrack pack --context {context} "
            f"--output {output}`",
            stacklevel=2,
        )
