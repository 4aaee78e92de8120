"""pytracking's dimp50. Needs its weights: `ebmtrack convert dimp50.pth dimp50.safetensors`."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return DiMP-18's set-up with other weights."""
    return dimp18.parameters().replace(weights="dimp50")
