"""DiMP-NCE+ on ResNet-50 as in BMVC 2020: SuperDiMP with the energy trained by NCE+. Needs weights of your own."""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return the set-up as a value; `parameters().replace(...)` changes it."""
    return TrackerParams(weights="dimp50_nce_plus")
