"""The ECCV 2020 tracker: ATOM's classifier and an energy for boxes, which `ebmtrack train atom18_ml_is` trains.

Without `--weights` the boxes climb the energy of the network that ships.
"""

from __future__ import annotations

from ebmtrack.tracker_params import atom
from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return ATOM's set-up with the ECCV paper's ascent: T = 10, steps of 2e-4 and 1e-3 in relative space."""
    return atom.parameters().replace(
        weights=None, ascent_steps=10, position_step=2e-4, size_step=1e-3, relative_space=True
    )
