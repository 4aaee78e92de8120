"""The command line: each verb is a function whose typed signature gives its options and its help.

To add a verb, write a function below and name it in `VERBS`. What is heavy is imported inside the function,
so that `ebmtrack --help` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ebmtrack import __version__
from ebmtrack.errors import ConfigError, EbmtrackError

ABOUT = "Track any object in a video by climbing an energy."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit code.

    An EbmtrackError is one line on stderr and code 2, as is a wrong option; Ctrl-C is code 130.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in (["--version"], ["-V"]):
        print(f"ebmtrack {__version__}")
        return 0
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="ebmtrack",
            description=ABOUT,
            args=argv or ["--help"],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except EbmtrackError as error:
        print(f"ebmtrack: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ebmtrack: interrupted", file=sys.stderr)
        return 130
    except SystemExit as leave:  # tyro leaves in this way after --help (0) and wrong options (2)
        return leave.code if isinstance(leave.code, int) else 2
    return code or 0


def track(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    /,
    init: str | None = None,
    select: bool = False,
    params: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    save: str | None = None,
    boxes: str | None = None,
    show: bool = False,
    max_frames: int | None = None,
) -> None:
    """Track an object through a video, a folder of frames, a camera or a stream.

    Args:
        source: Video file, folder of pictures, camera number or URL.
        init: The target's box in the first frame: x,y,w,h in pixels, x and y of the top left corner.
        select: Draw the target's box with the mouse (this is done as well where --init is not given).
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
        save: Write a video with the boxes drawn, such as out.mp4.
        boxes: Write the boxes as text, a line x,y,w,h for each frame.
        show: Show the frames in a window while tracking; q ends it.
        max_frames: Stop after this many frames.
    """
    from ebmtrack.viewers.track_command import track as run

    load = partial(_tracker, params, weights, device)
    run(source, load, init, select, save, boxes, show, max_frames)


def demo(
    out: str = "out/demo", params: str | None = None, weights: str | None = None, device: str | None = None
) -> None:
    """Track the built-in sequence, whose truth is known: overlap by part, speed, a video and a picture.

    Args:
        out: Folder for the video and the picture.
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
    """
    from ebmtrack.viewers.demo import run_demo

    print(run_demo(out, _tracker(params, weights, device)).text())


def bench(
    params: str = "dimp18_nce_plus",
    weights: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
    frames: int = 100,
    width: int = 640,
    height: int = 480,
    json: bool = False,
) -> None:
    """Measure the tracker on this machine: milliseconds a frame by stage, median over frames.

    Args:
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those of the set-up.
        device: cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16.
        threads: CPU threads (torch's own choice by default).
        frames: Frames to measure.
        width: Their width in pixels.
        height: Their height in pixels.
        json: Print JSON instead of a table.
    """
    from ebmtrack.tracking import bench as measuring

    report = measuring.bench(params, weights, device, precision, threads, frames, width, height)
    measuring.print_report(report, json)


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    /,
    half: bool = False,
) -> None:
    """Convert weights between ebmtrack (.safetensors) and pytracking (.pth.tar); nothing in a file is ever run.

    Args:
        source: A file of either kind.
        target: What to write; its ending says which kind.
        half: Store .safetensors in float16, half as large.
    """
    from ebmtrack.nets.convert import convert as run

    print(run(source, target, half=half))


def train(
    name: Annotated[str, tyro.conf.Positional],
    /,
    data: Path = Path("data/train"),
    backbone: str | None = None,
    out: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    float32: bool = False,
    restart: bool = False,
) -> None:
    """Run a training of ltr_settings, or go on with it where it was stopped.

    Args:
        name: File in ltr_settings, such as ebm18_small.
        data: Folder of the training data.
        backbone: File of torchvision's ImageNet weights (they are downloaded by default).
        out: Folder of the run: checkpoint, log.csv, the network (runs/NAME by default).
        steps: Optimiser steps (the run's own number by default).
        batch: Sequences in a step.
        workers: Processes that read and cut the data.
        seed: Seed of samples, weights and noise.
        device: cpu, cuda or cuda:N.
        float32: No bfloat16.
        restart: Start afresh even where there is a checkpoint.
    """
    from ebmtrack.training.command import train_named
    from ebmtrack.training.run import RunSettings

    chosen = {"backbone": backbone, "steps": steps, "batch": batch, "workers": workers}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    settings = RunSettings(
        out=out or Path("runs") / name,
        data=data,
        seed=seed,
        device=device,
        bfloat16=not float32,
        resume=not restart,
        **chosen,
    )
    print(f"the network is in {train_named(name, settings)}")


def evaluate(
    dataset: str,
    root: Path | None = None,
    params: tuple[str, ...] = ("dimp18_nce_plus",),
    sequences: tuple[str, ...] = (),
    runs: int = 1,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    weights: Path | None = None,
    protocol: str | None = None,
    seed: int = 0,
    allow_missing: bool = False,
    overwrite: bool = False,
    out: Path = Path("results"),
) -> int:
    """Run trackers over a benchmark and score them; what is finished is not run again.

    Args:
        dataset: folder (any directory of sequences), otb100, uav123, nfs30, lasot ...: see `ebmtrack datasets`.
        root: Where the data set lies; by default it is looked for below the folder in EBMTRACK_DATA.
        params: Tracker set-ups, one or more.
        sequences: Names of sequences, all by default.
        runs: Runs with different seeds.
        workers: Processes (one per GPU or core by default).
        threads: CPU threads of each worker.
        device: auto, cpu, cuda or cuda:N.
        weights: Network weights instead of those of the set-ups.
        protocol: Scoring rules (the data set's own by default).
        seed: First seed.
        allow_missing: Go on with the sequences that are there.
        overwrite: Run again what is finished.
        out: Folder of results.
    """
    from ebmtrack.evaluation.datasets import locate
    from ebmtrack.evaluation.evaluate import evaluate as run

    evaluation = run(
        params,
        dataset,
        locate(dataset, root),
        sequences,
        runs,
        workers,
        device,
        out,
        threads=threads,
        protocol=protocol,
        seed=seed,
        allow_missing=allow_missing,
        overwrite=overwrite,
        weights=weights,
    )
    return evaluation.exit_code


def report(
    dataset: str,
    root: Path | None = None,
    results: Path = Path("results"),
    page: Path = Path("report.html"),
    params: tuple[str, ...] = (),
    others: dict[str, Path] | None = None,
    peers: Path | None = None,
    protocol: str | None = None,
    worst: int = 5,
) -> None:
    """Compare stored results on one HTML page: tables, curves, the worst sequences.

    Args:
        dataset: folder (any directory of sequences), otb100, uav123, nfs30, lasot ...: see `ebmtrack datasets`.
        root: Where the data set lies; by default it is looked for below the folder in EBMTRACK_DATA.
        results: Folder of results of `ebmtrack eval`.
        page: The page to write.
        params: Tracker set-ups to show, all by default.
        others: Other trackers' raw results (pytracking, got10k, pysot, OTB): NAME FOLDER NAME FOLDER ...
        peers: JSON file with other trackers' figures.
        protocol: Scoring rules (the data set's own by default).
        worst: How many of the first tracker's worst sequences are shown in detail.
    """
    from ebmtrack.evaluation.datasets import locate
    from ebmtrack.evaluation.report import report as write

    options = {"out": results, "params_names": params, "peers": peers, "protocol": protocol, "worst": worst}
    print(f"the report is in {write(dataset, locate(dataset, root), page, results=others, **options)}")


def datasets(root: Path | None = None) -> None:
    """List the benchmarks found below a folder, with counts and what is missing.

    Args:
        root: A folder that holds data sets; by default that in EBMTRACK_DATA.
    """
    from ebmtrack.evaluation.datasets import print_datasets

    root = root or (Path(os.environ["EBMTRACK_DATA"]) if os.environ.get("EBMTRACK_DATA") else None)
    if root is None:
        raise ConfigError("give --root, or set EBMTRACK_DATA to the folder that holds your data sets")
    print(print_datasets(root), end="")


def study(
    name: Annotated[Literal["1d"], tyro.conf.Positional],
    /,
    methods: tuple[str, ...] = (),
    runs: int = 20,
    samples: tuple[int, ...] = (1, 4, 16, 64, 256, 1024),
    device: str = "auto",
    out: Path = Path("study1d"),
    compile: bool = False,
) -> None:
    """Reproduce the 1D regression study of the BMVC 2020 paper: table, densities, D_KL against samples.

    Args:
        name: The study; there is one.
        methods: Such as nce+ and ml-is; by default all that the device can do in reasonable time.
        runs: Networks for each method and data set.
        samples: Numbers of noise samples M.
        device: auto, cpu or cuda.
        out: Folder of results; what it holds is not trained again.
        compile: Go through torch.compile: about twice as fast on a CPU, needs a C++ compiler.
    """
    from ebmtrack.energy.study1d import study_1d as run

    print(run(out, methods, runs, samples, device, compiled=compile))


def pytracking(action: Annotated[Literal["enable", "disable", "status"], tyro.conf.Positional], /) -> None:
    """Let pytracking find this tracker in an untouched checkout: run_tracker.py ebmtrack dimp18_nce_plus.

    Args:
        action: Switch it on for this Python, off again, or say how it stands.
    """
    from ebmtrack.plugins import pytracking_setup as setup

    if action == "enable":
        print(f"enabled by {setup.enable()}")
    elif action == "disable":
        print("\n".join(f"removed {path}" for path in setup.disable()) or "it was not enabled")
    else:
        print(setup.status())


VERBS: dict[str, Callable[..., int | None]] = {
    "track": track,
    "demo": demo,
    "bench": bench,
    "convert": convert,
    "train": train,
    "eval": evaluate,
    "report": report,
    "datasets": datasets,
    "study": study,
    "pytracking": pytracking,
}


def _tracker(params: str | None, weights: str | None, device: str | None):
    """The tracker with what the user chose, and its own defaults for the rest."""
    from ebmtrack.tracking.tracker import Tracker

    chosen = {"params": params, "weights": weights, "device": device}
    return Tracker.from_pretrained(**{name: value for name, value in chosen.items() if value is not None})
