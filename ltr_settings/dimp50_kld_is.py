"""DiMP-KLD-IS, the baseline of BMVC 2020: dimp50_nce_plus with PrDiMP's KL divergence for the boxes.

ebmtrack train dimp50_kld_is --device cuda --workers 8
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import dimp50_nce_plus
from ebmtrack.training.objective import ObjectiveSettings

OBJECTIVE = dataclasses.replace(
    dimp50_nce_plus.OBJECTIVE,
    box_loss="kld_is",
    target_sigma=0.05,  # of p(y|y_i): BMVC, supplement D.2
)
plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of dimp50_nce_plus with another box loss."""

    objective: ObjectiveSettings = OBJECTIVE
