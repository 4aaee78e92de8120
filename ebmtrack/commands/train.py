"""The verb that trains networks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ebmtrack.commands.cluster import ClusterOptions, run_alone
from ebmtrack.commands.options import Changes, Flat, Positional, flatten
from ebmtrack.errors import ConfigError

SAME_NAME = ("data", "backbone", "out", "steps", "batch", "workers", "seed", "device", "track_on")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Run a training of ltr_settings, or go on with it where it was stopped.

    Attributes:
        name: File in ltr_settings, such as ebm18_small, or the path of a file like those.
        data: Folder of a pool or of own sequences; without it the papers' runs ask `ebmtrack paths`.
        backbone: File of torchvision's ImageNet weights (they are downloaded by default).
        out: Folder of the run: checkpoint, log.csv, the network (runs/NAME by default).
        steps: Optimiser steps (the run's own number by default).
        batch: Sequences in a step of each process (torchrun starts several).
        workers: Processes that read and cut the data.
        seed: Seed of samples, weights and noise.
        device: auto (a GPU if there is one; what all runs have that ship), cpu, mps, cuda or cuda:N.
        float32: Compute in float32 throughout, not partly in bfloat16.
        resume: Insist on a checkpoint to go on from, instead of starting afresh if there is none.
        restart: Start afresh even if there is a checkpoint.
        track_on: Folder of sequences; their beginnings are tracked every few steps, the mean AUC goes to the log.
        tensorboard: Write curves for TensorBoard into the run's folder, besides log.csv.
        visdom: Show curves on a visdom server as well.
        set: Changes of the run's settings, key=value, one or more.
        show: Print all that --set can change, with its values, and stop.
    """

    name: Positional[str]
    data: Path | None = None
    backbone: str | None = None
    out: Path | None = None
    steps: int | None = None
    batch: int | None = None
    workers: int | None = None
    seed: int | None = None
    device: str | None = None
    float32: bool = False
    resume: bool = False
    restart: bool = False
    track_on: Path | None = None
    tensorboard: bool = False
    visdom: bool = False
    set: Changes = ()
    show: bool = False
    jobs: Flat[ClusterOptions] = field(default_factory=ClusterOptions)

    def run(self) -> None:
        """Train, or print the settings."""
        from ebmtrack.device import pick_device
        from ebmtrack.training.command import check_resume, settings_for, train_named
        from ebmtrack.training.distributed import is_leader
        from ebmtrack.training.overrides import describe

        settings = settings_for(self.name, self._given_settings(), flatten(self.set))
        if self.show:
            print(describe(settings.explicit()))
            return
        if self.resume:
            check_resume(settings)
        self.jobs.check()
        if self.jobs.cluster:
            run_alone(replace(self, jobs=ClusterOptions()), self.jobs, settings.out)
            return
        pick_device(settings.device)  # here and not after a backbone has been downloaded
        if settings.data is not None and not settings.data.is_dir():
            raise ConfigError(f"no training data at {settings.data}: give their folder with --data")
        path = train_named(self.name, settings)
        if is_leader():
            print(f"the network is in {path}")

    def _given_settings(self) -> dict[str, Any]:
        """Return the fields of RunSettings that the user has chosen."""
        values = {name: getattr(self, name) for name in SAME_NAME}
        values |= {"bfloat16": False if self.float32 else None, "resume": False if self.restart else None}
        values |= {"tensorboard": self.tensorboard or None, "visdom": self.visdom or None}
        return {name: value for name, value in values.items() if value is not None}
