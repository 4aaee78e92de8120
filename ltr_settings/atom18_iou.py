"""ATOM*, the baseline of ECCV 2020: atom18_ml_is, but the network predicts the box's overlap (squared error).

ebmtrack train atom18_iou --device cuda --workers 8
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import atom18_ml_is
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import ObjectiveSettings

plan = atom18_ml_is.plan


@dataclasses.dataclass(frozen=True)
class Settings(atom18_ml_is.Settings):
    """Those of atom18_ml_is, the samples included (ECCV, supplement D.1), with another loss."""

    objective: ObjectiveSettings = dataclasses.replace(atom18_ml_is.OBJECTIVE, box_loss="iou")


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return atom18_ml_is.run(settings)
