"""How much of the picture around a target search regions need, for frames that were cut before: packs, prepared frames.

Where a picture ends because it was cut, a search region is moved and shrunk into it: too narrow a cut makes the jitter
of training smaller than its settings say.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ebmtrack.data.device_draws import SampleRandom, jittered_windows
from ebmtrack.data.on_device import read_manifest
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.videos.source import Source

DRAWS = 20_000
ENOUGH_FRAC = 0.95  # of the search regions; the largest have no bound, the jitter of the size is a normal one


def needed_context(crops: CropSettings, share: float = ENOUGH_FRAC) -> float:
    """The context, in target sizes, that holds this share of the search regions of train frames and of test frames."""
    return float(np.quantile(_contexts(crops), share, axis=0).max())


def share_within(crops: CropSettings, context: float) -> float:
    """The share of search regions that a context holds whole, of train or of test frames, whichever is less."""
    return float((_contexts(crops) <= context).mean(axis=0).min())


def _contexts(crops: CropSettings) -> np.ndarray:
    """(DRAWS, 2): the contexts that drawn search regions of train and of test frames need."""
    boxes_xywh = np.tile([-500.0, -500.0, 1000.0, 1000.0], (DRAWS, 2, 1))
    jitters, rng = [crops.train_jitter, crops.test_jitter], SampleRandom.of(0, np.arange(DRAWS))
    windows = jittered_windows(boxes_xywh, jitters, crops.search_factor, rng)
    reach = np.concatenate([-windows[..., :2], windows[..., :2] + windows[..., 2:]], axis=-1).max(axis=-1)
    return 2 * reach / 1000.0


def with_cut_at(crops: CropSettings, sources: Mapping[str, Source]) -> CropSettings:
    """`crops` that keep off the edges where these sources were cut, as far as they know (`PackedSource.cut_at`)."""
    known = {source.name: source.cut_at for source in sources.values() if source.cut_at is not None}
    return dataclasses.replace(crops, cut_at=known | crops.cut_at)


def contexts_of(sources: Mapping[str, Source]) -> dict[str, float]:
    """Name -> context of the sources that were cut."""
    return {name: 2 * source.cut_at for name, source in sources.items() if source.cut_at is not None}


def prepared_contexts(folder: str | Path) -> dict[str, float]:
    """Name -> context of the sources of prepared frames, as far as the folder says."""
    facts = read_manifest(folder)
    usual = facts.get("settings", {}).get("context", math.inf)
    return {source["name"]: source.get("context", usual) for source in facts["sources"]}


def warn_of_narrow(crops: CropSettings, contexts: Mapping[str, float]) -> None:
    """A warning where contexts hold less than `ENOUGH_FRAC` of the search regions: it names one that is enough."""
    shares = {name: share_within(crops, context) for name, context in contexts.items()}
    narrow = {name: f"{name} {shares[name]:.0%}" for name in contexts if shares[name] < ENOUGH_FRAC}
    if narrow:
        context = math.ceil(needed_context(crops))
        output = math.ceil(context * crops.output / crops.search_factor)
        warnings.warn(
            f"pictures cut {min(contexts[name] for name in narrow):g} target sizes wide are too narrow for the crops. "
            f"Search regions that fit in: {', '.join(narrow.values())}. The others are moved and shrunk, so that "
            f"training sees less jitter than its settings say. Write them with `ebmtrack pack --context {context} "
            f"--output {output}` or `ebmtrack prepare --context {context}`",
            stacklevel=2,
        )
