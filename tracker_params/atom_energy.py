"""The ECCV 2020 tracker's refinement (ATOM + energy): steps of 2e-4 in position and 1e-3 in size."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus_paper
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the papers' set-up with the ECCV paper's step lengths (section 5.4)."""
    return dimp18_nce_plus_paper.parameters().replace(position_step=2e-4, size_step=1e-3)
