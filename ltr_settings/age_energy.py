"""Ages on UTKFace, by an energy trained with ML-IS, which refines the predictions of any baseline (ECCV 2020).

    ebmtrack train age_energy --data UTKFACE --backbone resnet50.safetensors --out runs/age_energy

UTKFACE holds the images AGE_GENDER_RACE_DATE.jpg. With the lists utk_train.csv and utk_test.csv of coral-cnn in it, the
test images are theirs; without them they are a random 20 %. The baselines have the same settings: `--set method=l2`
(huber, gaussian, laplace, softmax, softmax-variance). Numbers: ECCV 2020, section 4.3 and supplement E; the learning
rate is that of the authors' other code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ebmtrack.regression.training import RegressionSettings, plan_of
from ebmtrack.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Settings(RegressionSettings):
    """The settings of the run."""

    data: Path | None = Path("data/utkface")
    source: str = "utkface"
    method: str = "energy-ml-is"
    trunk: Literal["small", "resnet18", "resnet50"] = "resnet50"
    image_size: int = 200
    parts: tuple[float, float, float] = (0.7, 0.1, 0.2)  # 11,503, 1,644 and 3,287 of 16,434
    standardise: bool = False
    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (100.0,)  # of 101 classes, one year each
    sigmas: tuple[float, ...] = (0.1, 20.0)
    decay: float = 0.001
    augment: bool = True
    steps: int = 75 * 360  # 75 epochs of 11,503 images
    step: float = 3.0


def plan(settings: Settings) -> Plan:
    """Return the run on the images in the folder `data`."""
    return plan_of(settings)
