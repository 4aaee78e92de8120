"""A training plan: a network, its data and its objective, each of which a training file may replace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ebmtrack.checkpoints.native import architecture_name, backbone_weights, load_checkpoint, resolve_weights
from ebmtrack.errors import ConfigError
from ebmtrack.nets.tracker_net import TrackerNet, architecture

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a step's samples that one process handles: the `rank`-th of `size` equal parts."""

    rank: int = 0
    size: int = 1

    def of(self, values: Tensor, dim: int) -> Tensor:
        """Return this process's part of values that were drawn for all processes, cut along `dim`."""
        return values.chunk(self.size, dim)[self.rank]


class StepObjective(Protocol):
    """The function that a training step minimises."""

    def __call__(self, net: nn.Module, batch: Batch, generator: torch.Generator, share: Share) -> tuple[Tensor, Logs]:
        """Return the mean loss of a batch, and figures for the log.

        Args:
            net: the network that is trained.
            batch: this process's samples, and their numbers as `number` (s,).
            generator: seeded by the step, equal in all processes.
            share: this process's part. An objective that draws its noise for all `share.size * s` samples and uses its
                own part gives n processes the noise of one process with the whole batch.
        """


@runtime_checkable
class BatchMaker(Protocol):
    """A data set that makes whole batches in the training process, instead of samples in workers."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(self, numbers: list[int]) -> Batch:
        """Return the batch of the samples with these numbers."""


@dataclasses.dataclass
class Network:
    """A network and how it is optimised.

    Attributes:
        net: the network; it is trained in place.
        groups: Adam's parameter groups with their base learning rates.
        thaw: (part of the steps, modules): modules that are frozen for that part of the steps and train from then on.
        set_mode: sets training or evaluation mode of the network's parts before each step.
        rate: step -> factor on every learning rate, for example `step_decay(2000)`; None for a linear warm-up and then
            a half cosine to zero.
        weight_decay: decoupled weight decay (AdamW), times the learning rate.
        average: decay of a moving average of the weights, which is validated and returned; 0 for none.
        finish: trained network -> network of the weights file.
        optimizer: groups -> optimiser, for another one than Adam.
        gradients: "ddp" lets DistributedDataParallel average gradients over processes, see `training.distributed`.
    """

    net: nn.Module
    groups: list[dict[str, Any]]
    thaw: tuple[float, list[nn.Module]] = (1.0, [])
    set_mode: Callable[[Any], object] = lambda net: net.train()
    rate: Callable[[int], float] | None = None
    weight_decay: float = 0.0
    average: float = 0.0
    finish: Callable[[Any], nn.Module] = lambda net: net
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None
    gradients: Literal["average", "ddp"] = "average"


@dataclasses.dataclass
class HeldBack:
    """Samples for validation, the same ones each time.

    Attributes:
        samples: `crops` (f, H, W, 3) uint8 and `boxes_xywh` (f, 4) by number.
        train_frames: number of frames of a sample that the classifier learns from; the others are searched.
        number: samples that are used.
        batch: samples in a batch.
    """

    samples: Dataset
    train_frames: int
    number: int = 60
    batch: int = 10


@dataclasses.dataclass
class Data:
    """The samples on which a network is trained and validated.

    Attributes:
        train: samples by number, each a dict of tensors, or a maker of whole batches; at least `settings.samples`.
        held_back: samples for validation; None for no validation.
    """

    train: Dataset | BatchMaker
    held_back: HeldBack | None = None


@dataclasses.dataclass
class Plan:
    """The parts of a run besides its settings; a training file makes them.

    Attributes:
        network: the network and how it is optimised.
        data: training and validation samples.
        objective: what is minimised.
        validation: objective that is computed on the held-back samples; None for `objective`.
        validate: network -> figures for the log, instead of `training.validation.Validation` on the held-back samples.
        params: set-up in tracker_params for tracking runs.
        save: path, trained network, facts of the run -> None, for networks of another kind than the tracker's.
    """

    network: Network
    data: Data
    objective: StepObjective
    validation: StepObjective | None = None
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    params: str = "dimp18_nce_plus"
    save: Callable[[Path, nn.Module, dict[str, Any]], None] | None = None


def starting_network(arch: str, backbone: str, start: str | None = None) -> TrackerNet:
    """Return a new network on a backbone with given weights, or a trained one to go on from.

    Args:
        arch: name in `nets.tracker_net.ARCHITECTURES`.
        backbone: weights of the trunk: a file, or a name that torchvision downloads ("resnet18").
        start: weights file, or name of a network that comes with ebmtrack; its trunk is used instead of `backbone`.

    Raises:
        ConfigError: `start` has another architecture than `arch`.
        CheckpointError: a file is missing or does not fit.
    """
    if start is None:
        net = TrackerNet(arch)
        net.feature_extractor.load_state_dict(backbone_weights(backbone, net.config.backbone))
        return net
    net = load_checkpoint(resolve_weights(start))
    found, wanted = architecture_name(net.config), architecture_name(architecture(arch))
    if found != wanted:
        raise ConfigError(
            f"start={start} is a network of architecture {found}, this run trains {wanted}; give other weights, "
            f"or take a training file of {found}"
        )
    return net


def branches(net: TrackerNet) -> dict[str, nn.Module]:
    """Return the parts of a network behind its backbone, as the rates name them."""
    return {
        "box": net.bb_regressor,
        "classifier": net.classifier.feature_extractor,
        "initializer": net.classifier.filter_initializer,
        "filter_optimizer": net.classifier.filter_optimizer,
    }


def parameter_groups(parts: Mapping[str, nn.Module], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return Adam's groups: the parameters of each part with the learning rate of its name."""
    return [{"params": list(parts[name].parameters()), "lr": rate} for name, rate in rates.items()]


def step_decay(steps_per_epoch: int, epochs: int = 15, factor: float = 0.2) -> Callable[[int], float]:
    """Return step -> learning-rate factor, multiplied by `factor` after every `epochs` epochs (DiMP: 0.2 each 15).

    >>> rate = step_decay(steps_per_epoch=2000)
    >>> [round(rate(step), 4) for step in (0, 29_999, 30_000, 60_000)]
    [1.0, 1.0, 0.2, 0.04]
    """
    if steps_per_epoch < 1 or epochs < 1 or factor <= 0:
        raise ConfigError(f"step_decay({steps_per_epoch}, {epochs}, {factor}): all must be positive")
    return lambda step: factor ** (step // (steps_per_epoch * epochs))
