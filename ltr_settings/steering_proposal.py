"""Steering angles (UBC, as CcGAN's authors prepare them), by an energy that learns its proposal, K = 4 (Paper IV).

    ebmtrack train steering_proposal --data STEERING --backbone resnet18.safetensors --out runs/steering_proposal

STEERING holds SteeringAngle_64x64.h5. Other methods as in cells_proposal. Numbers: the released code
fregu856/ebms_proposals. The number of steps is an assumption: 75 epochs of 9,800 images; 1 % of the images validate
here, none there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ebmtrack.ltr_settings import cells_proposal
from ebmtrack.regression.training import plan_of
from ebmtrack.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Settings(cells_proposal.Settings):
    """The settings of the run; those that it does not name are the same for cell counts."""

    data: Path | None = Path("data/steering")
    source: str = "steering"
    parts: tuple[float, float, float] = (0.79, 0.01, 0.2)  # 80 % and 20 % in the released code
    low: tuple[float, ...] = (-100.0,)
    high: tuple[float, ...] = (100.0,)
    steps: int = 75 * 307


def plan(settings: Settings) -> Plan:
    """Return the run on the file in the folder `data`."""
    return plan_of(settings)
