"""pytracking's prdimp18. Needs its weights: `ebmtrack convert prdimp18.pth.tar prdimp18.safetensors`."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(
        weights="prdimp18",
        sample_size=288,
        search_factor=5.0,
        border="replicate",
        softmax_scores=True,
        not_found_threshold=0.04,
    )
