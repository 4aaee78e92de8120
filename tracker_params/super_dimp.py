"""pytracking's super_dimp. Needs its weights: `ebmtrack convert super_dimp.pth.tar super_dimp.safetensors`."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(weights="super_dimp")
