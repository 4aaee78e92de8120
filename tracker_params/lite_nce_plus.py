"""EfficientNet-Lite0 with the energy trained by NCE+: faster than the default network on a CPU, and less exact."""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return dimp18_nce_plus.parameters().replace(
        weights="ebm_lite",
        sample_size=256,  # a fifth less work, the target as large; chosen on held-back video (docs/experiments.md)
        search_factor=4.5,
        # `ebmtrack study intervals` on 42 held-back sequences of the training pool, three seeds (docs/uncertainty.md)
        interval_scale=(5.34, 2.34, -0.0604, -0.707),
        lost_logit=(0.395, -5.62),
    )
