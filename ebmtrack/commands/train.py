"""Verbs that train networks: train, study."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ebmtrack.commands.cluster import ClusterOptions, run_alone
from ebmtrack.commands.options import Changes, Flat, Names, Positional, Repeated, joined
from ebmtrack.errors import ConfigError

SAME_NAME = ("data", "backbone", "out", "steps", "batch", "workers", "seed", "device", "track_on")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Run a training of ltr_settings, or go on with it where it was stopped.

    Attributes:
        name: File in ltr_settings, such as ebm18_small.
        data: Folder of a pool or of own sequences; without it the papers' runs ask `ebmtrack paths`.
        backbone: File of torchvision's ImageNet weights (they are downloaded by default).
        out: Folder of the run: checkpoint, log.csv, the network (runs/NAME by default).
        steps: Optimiser steps (the run's own number by default).
        batch: Sequences in a step of each process (torchrun starts several).
        workers: Processes that read and cut the data.
        seed: Seed of samples, weights and noise.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
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
        from ebmtrack.training.command import check_resume, settings_for, train_named
        from ebmtrack.training.distributed import is_leader
        from ebmtrack.training.overrides import describe

        settings = settings_for(self.name, self._chosen(), joined(self.set))
        if self.show:
            print(describe(settings))
            return
        if self.resume:
            check_resume(settings)
        self.jobs.check()
        if self.jobs.cluster:
            run_alone(replace(self, jobs=ClusterOptions()), self.jobs, settings.out)
            return
        path = train_named(self.name, settings)
        if is_leader():
            print(f"the network is in {path}")

    def _chosen(self) -> dict[str, Any]:
        """Return the fields of RunSettings that the user has chosen."""
        values = {name: getattr(self, name) for name in SAME_NAME}
        values |= {"bfloat16": False if self.float32 else None, "resume": False if self.restart else None}
        values |= {"tensorboard": self.tensorboard or None, "visdom": self.visdom or None}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare ways to train an energy: as in the papers in one dimension, on images, boxes, detection and 3D boxes.

    Attributes:
        name: 1d (BMVC 2020), proposals-1d (learned proposals, AISTATS 2022), regression (numbers from drawn images),
            boxes or detection (branches on the backbone of a trained network, with a pool of training data), or
            boxes3d (synthetic scenes).
        methods: Such as nce+ and ml-is; by default all that the device can do in reasonable time.
        runs: Networks for each method (and data set): 20 in 1d and proposals-1d, else 3.
        samples: Numbers of noise samples M: 1 4 16 64 256 1024 in 1d, else one: 1024 in proposals-1d, 64 in regression,
            128 in boxes.
        out: Folder of results; what it holds is not trained again. Default: study1d, study_proposals and so on.
        seed: Seed of data and networks; another seed needs another folder (1d, proposals-1d, regression).
        device: auto (a GPU if there is one), cpu, cuda or cuda:N (1d, proposals-1d, regression).
        compile: Use torch.compile: about twice as fast on a CPU, needs a C++ compiler (1d, proposals-1d, regression).
        data: The training pool, as for the run ebm18_small (boxes, detection).
        weights: Network whose backbone is used instead of the one that comes with ebmtrack (boxes).
        steps: Optimiser steps of each training (boxes and regression).
        track_on: Folder of sequences; gives the AUC of their first 100 frames for runs with the most samples (boxes).
        set: Changes of ebm18_small's settings for the training pairs, such as sampling.shares.video=1 (boxes).
    """

    name: Positional[Literal["1d", "proposals-1d", "regression", "boxes", "detection", "boxes3d"]]
    methods: Names = ()
    runs: int | None = None
    samples: Repeated[tuple[int, ...]] = ()
    out: Path | None = None
    seed: int = 0
    device: str = "auto"
    compile: bool = False
    data: Path = Path("data/train")
    weights: str | None = None
    steps: int = 1000
    track_on: Path | None = None
    set: Changes = ()

    def run(self) -> None:
        """Train what is missing and print a table."""
        studies = {"1d": self._study_1d, "proposals-1d": self._study_proposals, "regression": self._study_regression}
        studies |= {"detection": self._study_detection, "boxes3d": self._study_boxes3d}
        print(studies.get(self.name, self._study_boxes)())

    def _study_detection(self) -> str:
        """Return the table of the detection branch's losses."""
        from ebmtrack.studies.detection import study_detection

        return study_detection(self.out or Path("study_detection"), self.data, joined(self.methods), self.runs or 3)

    def _study_boxes3d(self) -> str:
        """Return the table of 3D boxes in synthetic scenes."""
        from ebmtrack.studies.boxes3d import study_boxes3d

        return study_boxes3d(self.out or Path("study_boxes3d"), self.runs or 3)

    def _study_1d(self) -> str:
        """Return the table of the regression study."""
        from ebmtrack.studies.energy_1d import StudySettings, study_1d

        return study_1d(
            self.out or Path("study1d"),
            joined(self.methods),
            self.runs or 20,
            joined(self.samples) or (1, 4, 16, 64, 256, 1024),
            self.device,
            StudySettings(seed=self.seed),
            compiled=self.compile,
        )

    def _study_proposals(self) -> str:
        """Return the table of the experiments with learned proposals."""
        from ebmtrack.studies.energy_1d import StudySettings
        from ebmtrack.studies.proposals_1d import study_proposals

        if len(joined(self.samples)) > 1:
            raise ConfigError(f"proposals-1d: --samples takes one number, got {joined(self.samples)}")
        return study_proposals(
            self.out or Path("study_proposals"),
            joined(self.methods),
            self.runs or 20,
            (joined(self.samples) or (1024,))[0],
            self.device,
            StudySettings(seed=self.seed),
            compiled=self.compile,
        )

    def _study_regression(self) -> str:
        """Return the table of the methods of regression on drawn images."""
        from ebmtrack.studies.regressions import study_regressions

        out, noise = self.out or Path("study_regression"), (joined(self.samples) or (64,))[0]
        return study_regressions(out, joined(self.methods), self.runs or 3, self.steps, noise)

    def _study_boxes(self) -> str:
        """Return the table of the study of box losses."""
        from ebmtrack.studies.box_losses_parts import study_boxes

        return study_boxes(
            self.out or Path("study_boxes"),
            self.data,
            self.weights,
            joined(self.methods),
            self.runs or 3,
            joined(self.samples) or (128,),
            self.steps,
            self.track_on,
            joined(self.set),
        )
