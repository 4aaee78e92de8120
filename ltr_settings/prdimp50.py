"""PrDiMP on ResNet-50 (CVPR 2020): the losses, data and search region of prdimp18 on the larger network.

    ebmtrack train prdimp50 --device cuda --workers 8

Assumptions, because no source was at hand: the batch and the backbone, which trains as a whole at a rate of 2e-5, are
those of dimp50; the other rates are prdimp18's. The network fits `ebmtrack track --params prdimp50`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.ltr_settings import prdimp18

RATES = {**prdimp18.RATES, "backbone": 2e-5}
plan = prdimp18.plan


@dataclasses.dataclass(frozen=True)
class Settings(prdimp18.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "prdimp50"
    backbone: str = "resnet50"
    steps: int = 130_000  # 50 epochs of 26,000 samples
    batch: int = 10
    validate_every: int = 13_000
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    params: str = "prdimp50"
