"""ATOM*, the baseline of ECCV 2020: atom18_ml_is, but the network predicts the box's overlap (squared error).

ebmtrack train atom18_iou --device cuda --workers 8
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import atom18_ml_is
from ebmtrack.training.objective import ObjectiveSettings

OBJECTIVE = dataclasses.replace(atom18_ml_is.OBJECTIVE, box_loss="iou")  # with the same samples: ECCV, supplement D.1
plan = atom18_ml_is.plan


@dataclasses.dataclass(frozen=True)
class Settings(atom18_ml_is.Settings):
    """The settings of atom18_ml_is with another loss."""

    objective: ObjectiveSettings = OBJECTIVE
