"""dimp18_nce_plus with nothing but the papers: DiMP-18's search region, BMVC 2020's steps. For networks of your own.

Those of the default set-up, its calibration and its looks around were chosen for the network that ships.
"""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value."""
    return dimp18_nce_plus.parameters().replace(
        position_step=2.5e-3,  # BMVC 2020, supplement D.1
        size_step=2.5e-3,
        calibration=0.0,
        aspect_scale=0.0,
        looks_around=0,
        interval_scale=TrackerParams().interval_scale,  # not calibrated
        lost_logit=None,
    )
