"""The settings that every training run has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ebmtrack.device import pick_device
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import cpu_has_bfloat16
from ebmtrack.training.distributed import world_size


def is_bfloat16_fast() -> bool:
    """Return whether to train in bfloat16: not on a CPU without instructions for it, which takes four times as long."""
    return pick_device("auto") != "cpu" or cpu_has_bfloat16()


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings that every run has; a training file adds its own. All `*_every` are steps.

    Attributes:
        out: folder of the run.
        data: folder of training data, for runs on a pool or on own videos.
        arch: architecture of the network, a name in `nets.tracker_net.ARCHITECTURES`.
        backbone: weights of the network's trunk: a file of torchvision's, or a name to download (resnet18).
        start: weights file, or name of a network that comes with ebmtrack, to go on from.
        steps: optimiser steps.
        batch: sequences in a step of each process; `torchrun` with n processes makes steps of n times as many.
        workers: processes that read and cut the data.
        seed: of samples, weights and noise.
        device: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
        bfloat16: whether convolutions are computed in bfloat16; if not said, on GPUs and CPUs that multiply it.
        channels_last: memory format of the network.
        clip_norm: longest gradient; None for no limit.
        warmup: steps in which learning rates rise.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
        track_on: folder of sequences (as for `ebmtrack eval folder`) whose beginnings are tracked now and then.
        track_every: steps between tracking runs.
        track_frames: frames of each sequence that are tracked.
        tensorboard: whether curves are written for TensorBoard, besides log.csv.
        visdom: whether curves are sent to a visdom server.
        visdom_server: its address.
        visdom_port: its port.
        resume: whether to go on from the checkpoint in `out`.
    """

    out: Path = Path("runs/unnamed")
    data: Path | None = None
    arch: str = "dimp18"
    backbone: str = "resnet18"
    start: str | None = None
    steps: int = 2000
    batch: int = 10
    workers: int = 1
    seed: int = 0
    device: str = "auto"
    bfloat16: bool = dataclasses.field(default_factory=is_bfloat16_fast)
    channels_last: bool = True
    clip_norm: float | None = None
    warmup: int = 100
    checkpoint_every: int = 100
    validate_every: int = 200
    track_on: Path | None = None
    track_every: int = 2000
    track_frames: int = 100
    tensorboard: bool = False
    visdom: bool = False
    visdom_server: str = "http://localhost"
    visdom_port: int = 8097
    resume: bool = True

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch": 1, "workers": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("checkpoint_every", "validate_every", "track_every", "track_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; a number above that of the steps means never")

    def explicit(self) -> RunSettings:
        """Return the settings with what None stands for, in fields to which a training file gives a meaning of its own.

        The checkpoints of runs hold None all the same, so that older ones can go on.
        """
        return self

    @property
    def checkpoint(self) -> Path:
        """Return the file from which the run goes on."""
        return self.out / "checkpoint.pt"

    @property
    def samples(self) -> int:
        """Return the number of samples that all processes together use, the least length of the data set."""
        return self.steps * self.batch * world_size()
