"""EfficientNet-Lite0 with the energy trained by NCE+: faster than the default network on a CPU, and less exact."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    uncalibrated = TrackerParams()  # intervals and lost-probability were fitted for the default network alone
    return dimp18_nce_plus.parameters().replace(
        weights="ebm_lite", interval_scale=uncalibrated.interval_scale, lost_logit=uncalibrated.lost_logit
    )
