"""Cell counts on Cell-200, by an energy that learns its proposal, K = 4 (Paper IV, AISTATS 2022).

    ebmtrack train cells_proposal --data CELLS --backbone resnet18.safetensors --out runs/cells_proposal

CELLS holds Cell200_64x64.h5 of the authors of CcGAN. `--set method=teacher` trains an MDN with an energy as teacher,
`--set method=mdn` one without, `--set method=energy-nce` an energy with fixed noise. Numbers: the released code
fregu856/ebms_proposals; 1 % of the images validate here, none there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ebmtrack.regression.training import RegressionSettings, plan_of
from ebmtrack.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Settings(RegressionSettings):
    """The settings of the run."""

    data: Path | None = Path("data/cell200")
    source: str = "cell200"
    parts: tuple[float, float, float] = (0.49, 0.01, 0.5)  # 10,000 train and 10,000 test in the released code
    standardise: bool = False
    low: tuple[float, ...] = (1.0,)
    high: tuple[float, ...] = (200.0,)
    sigmas: tuple[float, ...] = (1.0, 40.0)  # of method=energy-nce
    frozen_frac: float = 20 / 75
    steps: int = 75 * 313  # 75 epochs of 10,000 images


def plan(settings: Settings) -> Plan:
    """Return the run on the file in the folder `data`."""
    return plan_of(settings)
