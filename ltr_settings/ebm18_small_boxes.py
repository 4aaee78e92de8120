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
from ebmtrack.data.pipeline import TrainingSet
from ebmtrack.data.pool import open_training_folder
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.errors import ConfigError
from ebmtrack.ltr_settings import ebm18_small
from ebmtrack.ltr_settings.atom18_ml_is import train_box_branch
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import device_of_process, world_size
from ebmtrack.training.frozen_features import FrozenPairs, Rounds
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.plan import Data, HeldBack, Network, Plan, parameter_groups
from ebmtrack.weights import DEFAULT_WEIGHTS

SAMPLING = dataclasses.replace(ebm18_small.SAMPLING, train_frames=1, test_frames=2)
OBJECTIVE = ObjectiveSettings(box_weight=1.0, classifier_loss="none", statistics="together")


@dataclasses.dataclass(frozen=True)
class Settings(ebm18_small.PoolSettings):
    """The settings of the run.

    Attributes:
        batch: pairs of frames in a step.
        round_steps: steps of a round, in which the features of the same samples are used.
        round_samples: samples of a round, of three frames, 1.5 MB each in memory; each pair is used about once.
        rate: learning rate of the box branch.
        start_share: part of the start's weights in the box branch that is returned.
    """

    steps: int = 1800
    batch: int = 16
    validate_every: int = 800
    round_steps: int = 200
    round_samples: int = 1600
    rate: float = 3e-4
    start_share: float = 0.4
    sampling: SamplingSettings = SAMPLING
    objective: ObjectiveSettings = OBJECTIVE

    def explicit(self) -> Settings:
        """Return the settings with the name of the network that training begins with."""
        return dataclasses.replace(self, start=self.start or DEFAULT_WEIGHTS)


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`, from the weights `start`, or those that come with ebmtrack."""
    ebm18_small.pool_folder(settings)
    if settings.objective.classifier_loss != "none":
        raise ConfigError(
            f"objective: classifier_loss={settings.objective.classifier_loss} needs more than the pairs' features, on "
            "which the box branch is trained alone; set objective.classifier_loss=none"
        )
    net = load_checkpoint(resolve_weights(settings.start))
    net.to(device_of_process(settings.device)).to(memory_format=torch.channels_last)
    samples = HeldBack(ebm18_small.held_back(settings, samples=240), train_frames=1, number=240)
    objective = Objective(1, settings.objective, settings.bfloat16)
    return Plan(network(net, settings), Data(frozen_pairs(net, settings), samples), objective)


def network(net: TrackerNet, settings: Settings) -> Network:
    """Return the network, of which the box branch trains and ends as the weighted mean of its start and its end."""
    for module in (net.feature_extractor, net.classifier):
        module.requires_grad_(False)
    start = copy.deepcopy(net.bb_regressor)

    def finish(trained: TrackerNet) -> TrackerNet:
        mix_in(trained.bb_regressor, start, settings.start_share)
        return trained

    groups = parameter_groups({"box": net.bb_regressor}, {"box": settings.rate})
    return Network(net, groups, set_mode=train_box_branch, finish=finish)


@torch.no_grad()
def mix_in(branch: nn.Module, other: nn.Module, share: float) -> None:
    """Let weights and statistics of `branch` be (1 - share) of its own plus `share` of the other's."""
    others = other.state_dict()
    for name, value in branch.state_dict().items():
        if value.is_floating_point():
            value.lerp_(others[name].to(value), share)


def frozen_pairs(net: TrackerNet, settings: Settings) -> FrozenPairs:
    """Return the pairs of all rounds."""
    round_pairs = settings.round_steps * settings.batch * world_size()
    rounds = -(-settings.samples // round_pairs)
    pool = open_training_folder(ebm18_small.pool_folder(settings), "train", decoded_limit=2 * 2**30)
    sampling = ebm18_small.with_shares_of(settings.sampling, pool)
    sampler = make_sampler(pool, sampling, settings.seed + 1)
    samples = TrainingSet(sampler, settings.crops, rounds * settings.round_samples)
    size = Rounds(settings.round_samples, round_pairs)
    return FrozenPairs(net, samples, size, settings.samples, settings.seed, settings.bfloat16, settings.workers)
