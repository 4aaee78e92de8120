"""dimp18_nce_plus by the mean of each search region and its mirror image: more exact, at half the speed."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value."""
    return dimp18_nce_plus.parameters().replace(mirrored=True)
