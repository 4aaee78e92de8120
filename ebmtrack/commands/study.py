"""The verb for studies: ebmtrack study NAME."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ebmtrack.commands.options import DEFAULT_SET_UP, Changes, DatasetOptions, Flat, Group, Names, Repeated, flatten


@dataclass(frozen=True, kw_only=True)
class Study1d:
    """Compare losses in one dimension (BMVC 2020, section 4.1).

    Attributes:
        methods: Such as nce+ and ml-is; by default all that the device can do in reasonable time.
        runs: Networks for each method, data set and M.
        samples: Numbers of noise samples M; 1 4 16 64 256 1024 by default.
        out: Folder of results; what it holds is not trained again.
        seed: Seed of data and networks; another seed needs another folder.
        device: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
        compile: Use torch.compile: about twice as fast on a CPU, needs a C++ compiler.
    """

    methods: Names = ()
    runs: int = 20
    samples: Repeated[tuple[int, ...]] = ()
    out: Path = Path("study1d")
    seed: int = 0
    device: str = "auto"
    compile: bool = False

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.energy_1d import StudySettings, study_1d

        settings, samples = StudySettings(seed=self.seed), flatten(self.samples) or (1, 4, 16, 64, 256, 1024)
        print(
            study_1d(self.out, flatten(self.methods), self.runs, samples, self.device, settings, compiled=self.compile),
        )


@dataclass(frozen=True, kw_only=True)
class StudyProposals:
    """Compare learned proposals in one dimension (AISTATS 2022).

    Attributes:
        methods: Such as nce and ebm; by default all.
        runs: Networks for each method and data set.
        samples: Number of samples M.
        out: Folder of results; what it holds is not trained again.
        seed: Seed of data and networks; another seed needs another folder.
        device: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
        compile: Use torch.compile: about twice as fast on a CPU, needs a C++ compiler.
    """

    methods: Names = ()
    runs: int = 20
    samples: int = 1024
    out: Path = Path("study_proposals")
    seed: int = 0
    device: str = "auto"
    compile: bool = False

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.energy_1d import StudySettings
        from ebmtrack.studies.proposals_1d import study_proposals

        settings = StudySettings(seed=self.seed)
        table = study_proposals(
            self.out, flatten(self.methods), self.runs, self.samples, self.device, settings, compiled=self.compile
        )
        print(table)


@dataclass(frozen=True, kw_only=True)
class StudyRegression:
    """Compare methods of regression on drawn images, whose labels are known exactly.

    Attributes:
        methods: Such as mdn, or TASK/METHOD such as cells/proposal; by default the usual ones on all tasks.
        runs: Networks for each method and task, with seeds 0, 1, 2, ...
        samples: Noise samples M for each label.
        steps: Optimiser steps of each training.
        out: Folder of results; what it holds is not trained again.
    """

    methods: Names = ()
    runs: int = 3
    samples: int = 64
    steps: int = 1000
    out: Path = Path("study_regression")

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.regressions import study_regressions

        print(study_regressions(self.out, flatten(self.methods), self.runs, self.steps, self.samples))


@dataclass(frozen=True, kw_only=True)
class StudyBoxes:
    """Compare losses of the tracker's box branch, on the frozen features of one network.

    Attributes:
        data: The training pool, as for the run ebm18_small.
        weights: Network whose backbone is used instead of the one that comes with ebmtrack.
        methods: nce+, nce, kld-is, ml-is; by default all.
        runs: Networks for each method and M, with seeds 0, 1, 2, ...
        samples: Numbers of noise samples M; 128 by default.
        steps: Optimiser steps of each training.
        track_on: Folder of sequences; gives the AUC of their first 100 frames for runs with the most samples.
        set: Changes of ebm18_small's settings for the training pairs, such as sampling.shares.video=1.
        out: Folder of results; what it holds is not trained again.
    """

    data: Path = Path("data/train")
    weights: str | None = None
    methods: Names = ()
    runs: int = 3
    samples: Repeated[tuple[int, ...]] = ()
    steps: int = 1000
    track_on: Path | None = None
    set: Changes = ()
    out: Path = Path("study_boxes")

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.box_losses import BoxStudySettings, all_runs
        from ebmtrack.studies.box_losses_parts import study_boxes

        runs = all_runs(flatten(self.methods), flatten(self.samples) or (128,), self.runs)
        settings = BoxStudySettings(steps=self.steps, changes=flatten(self.set))
        print(study_boxes(self.out, self.data, runs, settings, self.weights, self.track_on))


@dataclass(frozen=True, kw_only=True)
class StudyDetection:
    """Compare losses of the detection branch on photographs: jittered true boxes climb the energy.

    Attributes:
        data: The training pool, as for the run ebm18_small; its coco/ is used.
        methods: nce_plus, nce, ml_is, kld_is, iou_net_star, or others of `ebmtrack detect train`; by default these
            five.
        runs: Networks for each method, with seeds 0, 1, 2, ...
        steps: Optimiser steps of each training.
        out: Folder of results; what it holds is not trained again.
    """

    data: Path = Path("data/train")
    methods: Names = ()
    runs: int = 3
    steps: int = 1000
    out: Path = Path("study_detection")

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.detection import DetectionStudySettings, study_detection

        settings = DetectionStudySettings(steps=self.steps)
        print(study_detection(self.out, self.data, flatten(self.methods), self.runs, settings))


@dataclass(frozen=True, kw_only=True)
class StudyBoxes3d:
    """Train a toy detector of 3D boxes with an energy on synthetic scenes: jittered true boxes climb it.

    Attributes:
        runs: Networks, with seeds 0, 1, 2, ...
        steps: Optimiser steps of each training.
        out: Folder of results; what it holds is not trained again.
    """

    runs: int = 3
    steps: int = 1500
    out: Path = Path("study_boxes3d")

    def run(self) -> None:
        """Train what is missing and print the table."""
        from ebmtrack.studies.boxes3d import Boxes3dStudySettings, study_boxes3d

        print(study_boxes3d(self.out, self.runs, Boxes3dStudySettings(steps=self.steps)))


@dataclass(frozen=True, kw_only=True)
class StudyIntervals:
    """Fit a set-up's intervals and lost-probability to own video with known boxes (after `ebmtrack eval --intervals`).

    Attributes:
        params: Tracker set-up whose results are read.
        results: Folder of results of `ebmtrack eval`.
        by_source: Hold out together the sequences whose names agree up to the first underscore, as video of one kind.
    """

    data: Flat[DatasetOptions]
    params: str = DEFAULT_SET_UP
    results: Path = Path("results")
    by_source: bool = False

    def run(self) -> None:
        """Print the set-up's new values, and their coverage on sequences that did not take part in the fit."""
        from ebmtrack.evaluation.comparison import discover
        from ebmtrack.studies.intervals import calibrate, read_frames
        from ebmtrack.tracking.params import set_up_name

        root, name = self.data.locate(), set_up_name(self.params)
        folder = discover(self.results, self.data.dataset, (name,))[name]
        print(calibrate(read_frames(self.data.dataset, root, folder), self.by_source))


class Study(Group):
    """Compare ways to train an energy (in one dimension, images, boxes, detection, 3D), or calibrate intervals."""

    verbs = {
        "1d": Study1d,
        "proposals-1d": StudyProposals,
        "regression": StudyRegression,
        "boxes": StudyBoxes,
        "detection": StudyDetection,
        "boxes3d": StudyBoxes3d,
        "intervals": StudyIntervals,
    }
