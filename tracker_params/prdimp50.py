"""pytracking's prdimp50. Needs its weights: `ebmtrack convert prdimp50.pth.tar prdimp50.safetensors`."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(weights="prdimp50", softmax_scores=True, not_found_threshold=0.04)
