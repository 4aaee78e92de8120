"""DiMP-NCE of BMVC 2020: dimp50_nce_plus, but the label takes part in the box loss without noise.

ebmtrack train dimp50_nce --device cuda --workers 8
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import dimp50_nce_plus
from ebmtrack.training.objective import ObjectiveSettings

OBJECTIVE = dataclasses.replace(dimp50_nce_plus.OBJECTIVE, box_loss="nce")
plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of dimp50_nce_plus with another box loss."""

    objective: ObjectiveSettings = OBJECTIVE
