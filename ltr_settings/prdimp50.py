"""PrDiMP on ResNet-50 (CVPR 2020): the losses, data and search region of prdimp18 on the larger network.

    ebmtrack train prdimp50 --device cuda --workers 8

Assumptions, because no source was at hand: batch, learning rates and the frozen first half of the backbone are those of
SuperDiMP. The network fits
`ebmtrack track --params prdimp50`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings import dimp50_nce_plus, prdimp18
from ebmtrack.training.objective import ObjectiveSettings

plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "prdimp50"
    steps: int = 65_000  # 50 epochs of 26,000 samples
    validate_every: int = 6500
    sampling: SamplingSettings = prdimp18.SAMPLING
    crops: CropSettings = prdimp18.CROPS
    objective: ObjectiveSettings = prdimp18.OBJECTIVE
    params: str = "prdimp50"
