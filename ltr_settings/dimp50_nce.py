"""DiMP-NCE of BMVC 2020: dimp50_nce_plus, but the label takes part in the box loss without noise.

ebmtrack train dimp50_nce --device cuda --workers 8
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

    objective: ObjectiveSettings = dataclasses.replace(dimp50_nce_plus.OBJECTIVE, box_loss="nce")


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return dimp50_nce_plus.run(settings)
