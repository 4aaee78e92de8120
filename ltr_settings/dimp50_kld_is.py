"""DiMP-KLD-IS, the baseline of BMVC 2020: dimp50_nce_plus with PrDiMP's KL divergence for the boxes.

ebmtrack train dimp50_kld_is --device cuda --workers 8
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import dimp50_nce_plus
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import ObjectiveSettings

plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """Those of dimp50_nce_plus with another box loss."""

    objective: ObjectiveSettings = dataclasses.replace(
        dimp50_nce_plus.OBJECTIVE,
        box_loss="kld_is",
        target_sigma=0.05,  # of p(y|y_i): BMVC, supplement D.2
    )


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return dimp50_nce_plus.run(settings)
