"""dimp18_nce_plus, quicker: where the target is calm, four of five frames see the inner part of the search region."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value."""
    return dimp18_nce_plus.parameters().replace(inner_looks=4)
