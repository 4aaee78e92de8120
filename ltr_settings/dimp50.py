"""DiMP on ResNet-50 as of ICCV 2019: the losses, data and search region of dimp18 on the larger network.

    ebmtrack train dimp50 --device cuda --workers 8

Assumptions, because no source was at hand: batch, learning rates and the frozen first half of the backbone are those of
SuperDiMP, the largest gap between frames (30) is that of dimp18. The network fits
`ebmtrack track --params dimp50`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings import dimp18, dimp50_nce_plus
from ebmtrack.training.objective import ObjectiveSettings

plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "dimp50"
    steps: int = 65_000  # 50 epochs of 26,000 samples
    validate_every: int = 6500
    sampling: SamplingSettings = dimp18.SAMPLING
    crops: CropSettings = dimp18.CROPS
    objective: ObjectiveSettings = dimp18.OBJECTIVE
    params: str = "dimp50"
