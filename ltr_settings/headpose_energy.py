"""Head poses on BIWI (protocol 2 of FSA-Net), by an energy trained with ML-IS, which refines baselines (ECCV 2020).

    ebmtrack train headpose_energy --data BIWI --backbone resnet50.safetensors --out runs/headpose_energy

BIWI holds BIWI_train.npz and BIWI_test.npz of FSA-Net. The baselines have the same settings: `--set method=l2` (huber,
gaussian, laplace, softmax, softmax-variance). Numbers: ECCV 2020, section 4.4 and supplement F; the learning rate is
that of the authors' other code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ebmtrack.ltr_settings import age_energy
from ebmtrack.regression.training import plan_of
from ebmtrack.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Settings(age_energy.Settings):
    """The settings of the run; those that it does not name are the same for ages."""

    data: Path | None = Path("data/biwi")
    source: str = "biwi"
    image_size: int = 64
    parts: tuple[float, float, float] = (0.905, 0.095, 0.0)  # 1,010 of the 10,613 training images validate
    low: tuple[float, ...] = (-80.0, -80.0, -80.0)
    high: tuple[float, ...] = (80.0, 80.0, 80.0)
    classes: int = 161  # one degree each (the paper: 151, from -75 to 75)
    sigmas: tuple[float, ...] = (1.0, 20.0)
    flip_signs: tuple[float, ...] = (-1.0, 1.0, -1.0)  # yaw, pitch, roll
    steps: int = 75 * 301  # 75 epochs of 9,603 images
    step: float = 0.1


def plan(settings: Settings) -> Plan:
    """Return the run on the arrays in the folder `data`."""
    return plan_of(settings)
