"""The ECCV 2020 tracker's refinement (ATOM + energy): steps of 2e-4 in position and 1e-3 in size."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """The set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(
        sample_size=288,
        search_factor=5.0,
        border="replicate",
        crop_rule="pre2022",
        half_pixel_late=False,
        position_step=2e-4,
        size_step=1e-3,
    )
