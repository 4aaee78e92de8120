"""dimp18_nce_plus with nothing but the papers: DiMP-18's search region, BMVC 2020's steps. For networks of your own.

The default set-up's steps with momentum, candidates, averages, thresholds, looks around and checks of the size were
chosen for the network that ships.
"""

from __future__ import annotations

from ebmtrack.tracker_params import dimp18_nce_plus
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value."""
    return dimp18_nce_plus.parameters().replace(
        sample_size=288,  # DiMP-18 (pytracking)
        search_factor=5.0,
        ascent_steps=10,  # BMVC 2020, supplement D.1
        position_step=2.5e-3,
        size_step=2.5e-3,
        ascent_momentum=0.0,
        position_jitter=0.1,
        average_temperature=0.0,
        between_cells=False,
        weak_score=0.0,
        calibration=0.0,
        centre_calibration=(0.0, 0.0),
        energy_adaptation=0.0,
        aspect_scale=0.0,
        looks_around=0,
        clear_score=TrackerParams().clear_score,
        doubtful_frames=0,
        size_check=0,
        interval_scale=TrackerParams().interval_scale,  # not calibrated
        lost_logit=None,
    )
