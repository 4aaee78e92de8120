"""Second stage of the network that ships: the box branch goes on alone, on features of the now frozen trunk.

    ebmtrack train ebm18_small_boxes --data POOL --set start=runs/ebm18_small/ebm18_small.safetensors

POOL is that of ebm18_small. Boxes need more steps than the classifier, and steps of the box branch alone cost a fifth:
the features of a sample's three frames are computed once and make two pairs. One CPU core takes about 40 minutes. The
weights at the end are averaged with those of the start: on held-back targets better than either. What ships is the mean
of two such runs (docs/training.md).
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_pool
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.errors import ConfigError
from ebmtrack.ltr_settings import ebm18_small
from ebmtrack.ltr_settings.atom18_ml_is import train_box_branch
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import pick_device, world_size
from ebmtrack.training.frozen_features import FrozenObjective, FrozenPairs
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, train
from ebmtrack.training.validation import Validation

SAMPLING = dataclasses.replace(ebm18_small.SAMPLING, train_frames=1, test_frames=2)
OBJECTIVE = ObjectiveSettings(box_weight=1.0, classifier_loss="none")


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """What --set can change. A round is `round_samples` samples, which give the pairs of `round_steps` steps."""

    start: str | None = None  # weights file; the network that comes with ebmtrack unless given
    steps: int = 1800
    batch: int = 16  # pairs of frames
    validate_every: int = 800
    round_steps: int = 200
    round_samples: int = 1600  # of three frames, 1.5 MB each in memory; a pair of each frame is used about once
    rate: float = 3e-4
    start_share: float = 0.4  # of the start's weights in the box branch that is returned
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = ebm18_small.CROPS
    objective: ObjectiveSettings = OBJECTIVE


def run(settings: Settings) -> TrackerNet:
    """Train and return the network, whose box branch is the weighted mean of the start's and the end's."""
    planned = plan(settings)
    start = copy.deepcopy(planned.net.bb_regressor)
    net = train(planned, settings)
    mix_in(net.bb_regressor, start, settings.start_share)
    return net


@torch.no_grad()
def mix_in(branch: nn.Module, other: nn.Module, share: float) -> None:
    """Let the weights and statistics of `branch` be the mean of its own and, by its share, the other's."""
    others = other.state_dict()
    for name, value in branch.state_dict().items():
        if value.is_floating_point():
            value.lerp_(others[name].to(value), share)


def plan(settings: Settings) -> Plan:
    """The run on the pool in the folder `data`."""
    if not settings.data.is_dir():
        raise ConfigError(f"no training data at {settings.data}: give the pool's folder with --data")
    net = load_checkpoint(resolve_weights(settings.start))
    net.to(pick_device(settings.device), memory_format=torch.channels_last)
    for module in (net.feature_extractor, net.classifier):
        module.requires_grad_(False)
    return Plan(
        net=net,
        objective=FrozenObjective(net, 1, settings.objective, settings.bfloat16),
        dataset=frozen_pairs(net, settings),
        groups=[{"params": list(net.bb_regressor.parameters()), "lr": settings.rate}],
        set_mode=train_box_branch,
        validate=Validation(
            ebm18_small.held_back(settings, samples=240),
            train_frames=1,
            samples=240,
            objective=lambda net: Objective(net, 1, settings.objective, settings.bfloat16),
        ),
    )


def frozen_pairs(net: nn.Module, settings: Settings) -> FrozenPairs:
    """Pairs of all rounds."""
    round_pairs = settings.round_steps * settings.batch * world_size()
    rounds = -(-settings.samples // round_pairs)
    pool = open_pool(settings.data, "train", decoded_limit=2 * 2**30)
    samples = TrainingSet(
        make_sampler(pool, settings.sampling, settings.seed + 1), settings.crops, rounds * settings.round_samples
    )
    rest = (settings.samples, settings.seed, settings.bfloat16, settings.workers)
    return FrozenPairs(net, samples, settings.round_samples, round_pairs, *rest)
