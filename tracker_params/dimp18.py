"""pytracking's dimp18. Needs its weights: `ebmtrack convert dimp18.pth dimp18.safetensors`."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(
        weights="dimp18",
        sample_size=288,
        search_factor=5.0,
        border="replicate",
        ascent_steps=5,
        position_step=1.0,
        size_step=1.0,
        relative_space=False,
    )
