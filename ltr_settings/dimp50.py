"""DiMP on ResNet-50 as of ICCV 2019: the losses, data and search region of dimp18 on the larger network.

    ebmtrack train dimp50 --device cuda --workers 8

Batches of 10, 26,000 samples an epoch, LaSOT's share of 0.25, no flips and a backbone that trains as a whole are what
BMVC 2020 says that it changed of this run (supplement D.1). Assumptions, because no source was at hand: the learning
rates (SuperDiMP's, with that of layer3 for the whole backbone); the largest gap between frames and the boxes, which are
those of dimp18. The network fits `ebmtrack track --params dimp50`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import dimp18

RATES = {**dimp18.RATES, "backbone": 2e-5}
plan = dimp18.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp18.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "dimp50"
    backbone: str = "resnet50"
    steps: int = 130_000  # 50 epochs of 26,000 samples
    batch: int = 10  # BMVC, supplement D.1
    validate_every: int = 13_000
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    params: str = "dimp50"
