"""The command line: each verb is a function whose typed signature gives its options and its help.

To add a verb, write a function below and name it in `VERBS`. What is heavy is imported inside the function,
so that `ebmtrack --help` stays quick.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ebmtrack._version import __version__
from ebmtrack.errors import ConfigError, EbmtrackError

VISDOM_SERVER = "http://localhost:8097"
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC)  # what a user can do something about
Engine = Literal["auto", "torch", "onnx"]
ABOUT = "Track any object in a video by climbing an energy."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit code.

    An EbmtrackError is one line on stderr and code 2, as is a wrong option; Ctrl-C is code 130.
    """
    _share_the_cores()
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
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        return 141
    except EbmtrackError as error:
        print(f"ebmtrack: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.errno not in REFUSED:
            raise
        print(f"ebmtrack: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ebmtrack: interrupted", file=sys.stderr)
        return 130
    except SystemExit as leave:  # tyro leaves in this way after --help (0) and wrong options (2)
        return leave.code if isinstance(leave.code, int) else 2
    return code or 0


def _share_the_cores() -> None:
    """Let PyTorch's threads, before it is loaded, not spin for long where they wait for one another.

    By default they spin for milliseconds: beside one other busy process on two cores that leaves a twentieth of the
    speed, with this two fifths, and nothing is lost on a quiet machine (README, how fast).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "3000"


def _reader_has_gone() -> bool:
    """Whether nobody reads our output any more, as after `| head`; False on systems that cannot tell."""
    if not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def track(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    /,
    init: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    select: bool = False,
    params: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    engine: Engine = "auto",
    save: str | None = None,
    boxes: str | None = None,
    show: bool = False,
    max_frames: int | None = None,
    visdom: bool = False,
    visdom_server: str = VISDOM_SERVER,
) -> None:
    """Track one object or several through a video, a folder of frames, a camera or a stream.

    Args:
        source: Video file, folder of pictures, camera number or URL.
        init: The target's box in the first frame: x,y,w,h in pixels, x and y of the top left corner. Give it once for
            each of several targets.
        select: Draw the target's box with the mouse (this is done as well where --init is not given).
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
        engine: torch, onnx (no torch needed), or auto.
        save: Write a video with the boxes drawn, such as out.mp4.
        boxes: Write the boxes as text, a line x,y,w,h for each frame; a file for each of several targets.
        show: Show the frames in a window while tracking; q ends it.
        max_frames: Stop after this many frames.
        visdom: Show frame, score map, energy and candidate boxes on a visdom server.
        visdom_server: The server's URL.
    """
    from ebmtrack.viewers.track_video import track as run

    load = partial(_tracker, params, weights, device, engine=engine)
    run(source, load, init, select, save, boxes, show, max_frames, visdom_server if visdom else None)


def webcam(
    camera: int | None = None,
    source: str | None = None,
    init: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    save: str | None = None,
    headless: bool = False,
    loop: bool = False,
    seconds: float | None = None,
    params: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    engine: Engine = "auto",
) -> None:
    """Track live: draw boxes with the mouse in the picture of a camera; the keys are shown in the window.

    Args:
        camera: The camera's number, 0 by default.
        source: A stream (URL), a video file or a folder of pictures instead of a camera.
        init: A target in the first frame: x,y,w,h in pixels. Give it once for each of several targets.
        save: Write a video of what is seen, such as out.mp4.
        headless: No window; needs --save and --init.
        loop: Play a video again and again.
        seconds: End after this time.
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
        engine: torch, onnx (no torch needed), or auto.
    """
    from ebmtrack.live.webcam import webcam as run

    def load():
        from ebmtrack.tracking.tracker import MultiTracker

        return _tracker(params, weights, device, MultiTracker, engine)

    run(load, camera, source, init, save, headless, loop, seconds)


def demo(
    out: str = "out/demo",
    params: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    seed: int = 1,
) -> None:
    """Track the built-in sequence, whose truth is known: overlap by part, speed, a video and a picture.

    Args:
        out: Folder for the video and the picture.
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
        seed: Of the tracker; what is followed during the occlusion depends on it.
    """
    from ebmtrack.viewers.demo import run_demo

    tracker = _tracker(params, weights, device)
    tracker.params = tracker.params.replace(seed=seed)
    print(run_demo(out, tracker).text())


def bench(
    params: str = "dimp18_nce_plus",
    weights: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
    engine: Engine = "auto",
    threads: int | None = None,
    frames: int = 100,
    width: int = 640,
    height: int = 480,
    targets: int = 1,
    json: bool = False,
) -> None:
    """Measure the tracker on this machine: milliseconds a frame by stage, median over frames.

    Args:
        params: Tracker set-up, such as dimp18_nce_plus.
        weights: Network weights (.safetensors) instead of those of the set-up.
        device: cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16.
        engine: torch, onnx (no torch needed), or auto.
        threads: CPU threads (torch's own choice by default).
        frames: Frames to measure.
        width: Their width in pixels.
        height: Their height in pixels.
        targets: Compare so many targets in one video with one target.
        json: Print JSON instead of a table.
    """
    from ebmtrack.studies import bench_tracker as measuring

    report = measuring.bench(params, weights, device, precision, threads, frames, width, height, targets, engine)
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
    from ebmtrack.checkpoints.convert import convert as run

    print(run(source, target, half=half))


def train(
    name: Annotated[str, tyro.conf.Positional],
    /,
    data: Path | None = None,
    backbone: str | None = None,
    out: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    workers: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    float32: bool = False,
    resume: bool = False,
    restart: bool = False,
    track_on: Path | None = None,
    tensorboard: bool = False,
    visdom: bool = False,
    set: tuple[str, ...] = (),
    show: bool = False,
) -> None:
    """Run a training of ltr_settings, or go on with it where it was stopped.

    Args:
        name: File in ltr_settings, such as ebm18_small.
        data: Folder of the training data, for runs on a pool; the others ask `ebmtrack paths`.
        backbone: File of torchvision's ImageNet weights (they are downloaded by default).
        out: Folder of the run: checkpoint, log.csv, the network (runs/NAME by default).
        steps: Optimiser steps (the run's own number by default).
        batch: Sequences in a step of each process (torchrun starts several).
        workers: Processes that read and cut the data.
        seed: Seed of samples, weights and noise.
        device: cpu, cuda, cuda:N or auto.
        float32: No bfloat16.
        resume: Insist on a checkpoint to go on from, instead of starting afresh where there is none.
        restart: Start afresh even where there is a checkpoint.
        track_on: Folder of sequences; their beginnings are tracked every few steps, the mean AUC goes to the log.
        tensorboard: Curves for TensorBoard in the run's folder, besides log.csv.
        visdom: Curves on a visdom server as well.
        set: Changes of the run's settings, key=value, one or more.
        show: Print all that --set can change, with its values, and stop.
    """
    from ebmtrack.training.command import check_resume, settings_for, train_named
    from ebmtrack.training.distributed import is_leader
    from ebmtrack.training.overrides import describe

    chosen = {"data": data, "backbone": backbone, "out": out, "steps": steps, "batch": batch, "workers": workers}
    chosen |= {"seed": seed, "device": device, "bfloat16": False if float32 else None}
    chosen |= {"resume": False if restart else None, "track_on": track_on}
    chosen |= {"tensorboard": tensorboard or None, "visdom": visdom or None}
    settings = settings_for(name, {key: value for key, value in chosen.items() if value is not None}, set)
    if show:
        print(describe(settings))
        return
    if resume:
        check_resume(settings)
    path = train_named(name, settings)
    if is_leader():
        print(f"the network is in {path}")


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
    json: bool = False,
    visdom: bool = False,
    visdom_server: str = VISDOM_SERVER,
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
        overwrite: Remove what is finished and run it again; no other runner may be at work there.
        out: Folder of results.
        json: Print the scores as JSON (which `ebmtrack report --peers` reads), and the progress to stderr.
        visdom: Show on a visdom server what each worker's tracker sees, and the scores.
        visdom_server: The server's URL.
    """
    from json import dumps

    from ebmtrack.evaluation.evaluate import EvaluateOptions
    from ebmtrack.evaluation.evaluate import evaluate as run
    from ebmtrack.videos.opening import locate

    options = EvaluateOptions(
        sequences, runs, workers, threads, device, out, overwrite, weights, protocol, seed, allow_missing
    )
    shown = _shown_evaluation(visdom_server, weights) if visdom else {}
    stream = sys.stderr if json else sys.stdout
    evaluation = run(params, dataset, locate(dataset, root), options, stream=stream, **shown)
    if json:
        print(dumps(evaluation.as_json(), indent=1))
    return evaluation.exit_code


def report(
    dataset: str,
    root: Path | None = None,
    results: Path = Path("results"),
    page: Path = Path("report.html"),
    params: tuple[str, ...] = (),
    sequences: tuple[str, ...] = (),
    others: dict[str, Path] | None = None,
    peers: Path | None = None,
    protocol: str | None = None,
    worst: int = 5,
    plots: Path | None = None,
    pages: bool = True,
) -> None:
    """Compare stored results on one HTML page: tables, curves, the worst sequences.

    Args:
        dataset: folder (any directory of sequences), otb100, uav123, nfs30, lasot ...: see `ebmtrack datasets`.
        root: Where the data set lies; by default it is looked for below the folder in EBMTRACK_DATA.
        results: Folder of results of `ebmtrack eval`.
        page: The page to write.
        params: Tracker set-ups to show, all by default.
        sequences: Names of sequences, all by default.
        others: Other trackers' raw results (pytracking, got10k, pysot, OTB): NAME FOLDER NAME FOLDER ...
        peers: JSON file with other trackers' figures.
        protocol: Scoring rules (the data set's own by default).
        worst: How many of the first tracker's worst sequences are shown in detail.
        plots: Folder for the curves as PDF, SVG, PNG and CSV, in the size of a paper's column, and for the tables as
            CSV, JSON and LaTeX.
        pages: Also write a page for each sequence, with a film strip around each failure.
    """
    from ebmtrack.evaluation.report import ReportOptions
    from ebmtrack.evaluation.report import report as write
    from ebmtrack.videos.opening import locate

    options = ReportOptions(
        out=results,
        params_names=params,
        results=others or {},
        peers=peers,
        protocol=protocol,
        sequences=sequences,
        worst=worst,
        plots=plots,
        pages=pages,
    )
    print(f"the report is in {write(dataset, locate(dataset, root), page, options)}")


def export(
    dataset: str,
    layout: Literal["pytracking", "got10k", "got10k-otb", "got10k-server", "trackingnet-server"],
    root: Path | None = None,
    results: Path = Path("results"),
    params: tuple[str, ...] = (),
    integers: bool = False,
    out: Path = Path("export"),
) -> None:
    """Write stored results in the layout of another toolkit.

    Args:
        dataset: folder (any directory of sequences), otb100, uav123, nfs30, lasot ...: see `ebmtrack datasets`.
        layout: pytracking; got10k (the toolkit's GOT-10k); got10k-otb (its other data sets); got10k-server or
            trackingnet-server (an archive to upload).
        root: Where the data set lies; by default it is looked for below the folder in EBMTRACK_DATA.
        results: Folder of results of `ebmtrack eval`.
        params: Tracker set-ups, all by default.
        integers: Cut fractions off, as pytracking does.
        out: Folder to write to.
    """
    from ebmtrack.evaluation.export import export_stored
    from ebmtrack.videos.opening import locate

    options = {"out": results, "params_names": params, "integers": integers}
    written = export_stored(dataset, locate(dataset, root), layout, out, **options)
    what = "archives" if layout.endswith("-server") else "files of boxes"
    print(f"{len(written)} {what} are in {out}")


def export_network(
    weights: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None,
    /,
    out: Path = Path("exported"),
    precision: Literal["float32", "float16", "int8"] = "float32",
    calibration: Path | None = None,
    params: str = "dimp18_nce_plus",
) -> None:
    """Write a trained network for ONNX Runtime, which tracks without torch, and print how far it is from PyTorch.

    Args:
        weights: A .safetensors file or the name of a network that comes with ebmtrack.
        out: Folder to write to; give it as --weights when tracking.
        precision: float32; float16 (half the size, arithmetic in float32); int8 (convolutions in 8 bits).
        calibration: Folder of sequences (pictures with groundtruth.txt) that int8 is calibrated on.
        params: Tracker set-up whose search regions are cut from them.
    """
    from ebmtrack.commands.export_network import export_network as run

    run(weights, out, precision, calibration, params)


def datasets(
    action: Annotated[Literal["list", "check"], tyro.conf.Positional] = "list",
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None,
    path: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = None,
    /,
    root: Path | None = None,
    every_frame: bool = False,
) -> int:
    """List the benchmarks found below a folder, or check one data set: counts, what is missing, what is damaged.

    Args:
        action: list benchmarks, or check a data set; what is damaged gives exit code 1.
        name: The data set to check: lasot, got10k, trackingnet, coco, pool, pack, or a benchmark such as otb100.
        path: Where it lies; by default where `ebmtrack paths` says.
        root: A folder that holds data sets, to be listed; by default that in EBMTRACK_DATA.
        every_frame: Read every frame when checking, not only the first and the last of a sequence.
    """
    from ebmtrack.videos.opening import describe_datasets
    from ebmtrack.videos.paths import data_root

    if action == "check":
        return _check(name, path, every_frame)
    if root is None and data_root() is None:
        raise ConfigError("give --root, or set EBMTRACK_DATA to the folder that holds your data sets")
    print(describe_datasets(root or data_root().path), end="")
    return 0


def paths() -> None:
    """Show where each data set would be read from, who says so, and whether it is there."""
    from ebmtrack.videos.paths import describe_paths

    print(describe_paths())


def pack(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    /,
    context: float = 10.0,
    output: int = 576,
    quality: int = 90,
    png: bool = False,
    every: int = 1,
    most_frames: int = 0,
    targets: int | None = None,
    skip_damaged: bool = False,
    split: str | None = None,
    exclude: Path | None = None,
    part: Literal["train", "validation", "all"] = "train",
    clips: int = 2000,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Write a training source into a pack: target-centred crops with boxes; interrupted, it goes on where it was.

    Args:
        name: lasot, got10k, trackingnet, coco, synthetic, pack, pool (three packs), or the file of a data set.
        path: Folder of the source.
        out: Folder of the pack.
        context: Side of a crop in target sizes; the picture's end cuts it.
        output: Its side in pixels at most; larger ones are scaled down.
        quality: Of JPEG, 1 to 100.
        png: PNG instead: no loss, several times as large.
        every: Keep every N-th visible frame.
        most_frames: Keep at most N frames of a video, evenly spread; 0 keeps all.
        targets: Keep the first N targets only.
        skip_damaged: Leave out what cannot be read, instead of stopping there.
        split: train, val, test or all; of COCO train2017 or val2017; of TrackingNet its sets, such as 0-3.
        exclude: File of sequences to leave out.
        part: Of the small pool: what is trained on, what is held back, or all.
        clips: Number of the pool's compositions.
        seed: Of the compositions.
        threads: Threads that read and cut.
    """
    from ebmtrack.data.catalogue import open_source
    from ebmtrack.data.packing import PackSettings, write_pack
    from ebmtrack.data.pool import open_pool

    pool = name == "pool"
    sources = open_pool(path, part, seed=seed, clips=clips) if pool else {"": open_source(name, path, split, exclude)}
    settings = PackSettings(context, output, quality, png, every, most_frames, targets, skip_damaged=skip_damaged)
    origin = {"path": str(path.resolve()), "split": split, "exclude": str(exclude) if exclude else None}
    for place, source in sources.items():
        facts = write_pack(source, out / place, settings, threads, progress=True, origin=origin)
        megabytes = facts["bytes"] / 1e6
        print(f"{facts['frames']} crops of {facts['targets']} targets, {megabytes:.1f} MB, are in {out / place}")
        for line in facts["left_out"]:
            print(f"left out: {line}")


def study(
    name: Annotated[Literal["1d", "boxes"], tyro.conf.Positional],
    /,
    methods: tuple[str, ...] = (),
    runs: int | None = None,
    samples: tuple[int, ...] = (),
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    compile: bool = False,
    data: Path = Path("data/train"),
    weights: str | None = None,
    steps: int = 1000,
    track_on: Path | None = None,
    set: tuple[str, ...] = (),
) -> None:
    """Compare ways to train an energy: 1d is the BMVC 2020 paper's regression study, boxes trains box branches.

    Args:
        name: 1d, or boxes (with the backbone of a trained network, on a pool of training data).
        methods: Such as nce+ and ml-is; by default all that the device can do in reasonable time.
        runs: Networks for each method (and data set): 20 in 1d, 3 in boxes.
        samples: Numbers of noise samples M: 1 4 16 64 256 1024 in 1d, 128 in boxes.
        out: Folder of results; what it holds is not trained again. Default: study1d or study_boxes.
        seed: Of data and networks; another seed needs another folder (1d).
        device: auto, cpu or cuda (1d).
        compile: Go through torch.compile: about twice as fast on a CPU, needs a C++ compiler (1d).
        data: The training pool, as for the run ebm18_small (boxes).
        weights: Network whose backbone is used instead of the one that comes with ebmtrack (boxes).
        steps: Of each training (boxes).
        track_on: Folder of sequences; gives the AUC of their first 100 frames for runs with the most samples (boxes).
        set: Changes of ebm18_small's settings for the training pairs, such as sampling.shares.video=1 (boxes).
    """
    if name == "1d":
        from ebmtrack.studies.energy_1d import StudySettings, study_1d

        samples, settings = samples or (1, 4, 16, 64, 256, 1024), StudySettings(seed=seed)
        table = study_1d(out or Path("study1d"), methods, runs or 20, samples, device, settings, compiled=compile)
    else:
        from ebmtrack.studies.box_losses_parts import study_boxes

        table = study_boxes(
            out or Path("study_boxes"), data, weights, methods, runs or 3, samples or (128,), steps, track_on, set
        )
    print(table)


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


def vot(
    action: Annotated[Literal["init"], tyro.conf.Positional],
    /,
    params: str = "dimp18_nce_plus",
    workspace: Path = Path("."),
    name: str | None = None,
    weights: Path | None = None,
    device: str = "cpu",
) -> None:
    """Register the tracker in a workspace of the VOT toolkit: an entry of its trackers.ini.

    Args:
        action: There is one.
        params: Tracker set-up.
        workspace: The workspace's folder.
        name: The tracker's name there (ebmtrack_PARAMS by default).
        weights: Network weights (.safetensors) instead of those of the set-up.
        device: cpu, cuda or cuda:N.
    """
    from ebmtrack.plugins.vot_setup import init

    print(init(params, workspace, name, weights, device))


def stress(
    root: Path,
    params: tuple[str, ...] = ("dimp18_nce_plus",),
    changes: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    weights: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    out: Path = Path("results/stress"),
) -> None:
    """Change sequences on purpose (jumps, occlusions, missing frames, grey, noise) and see what becomes of the boxes.

    Args:
        root: Folder of sequences, as for `ebmtrack eval --dataset folder`.
        params: Tracker set-ups, one or more.
        changes: none, jump, hidden, gaps, grey, noise; all by default.
        set: A change of the set-ups' parameters, such as looks_around=0; the set-ups as they are come first then.
        weights: Network weights (.safetensors) instead of those that come with ebmtrack.
        device: cpu, cuda or cuda:N.
        seed: Of the changes and the trackers.
        out: Folder of trials, which are not run again, and of the page stress.html.
    """
    from ebmtrack.evaluation.evaluate import facts_of
    from ebmtrack.files import write_text
    from ebmtrack.studies.stress import Store, stress_page
    from ebmtrack.studies.stress import stress as run
    from ebmtrack.tracking.params import load_params
    from ebmtrack.tracking.tracker import Tracker
    from ebmtrack.training.overrides import override
    from ebmtrack.videos import open_dataset

    chosen = {name: load_params(name) for name in params}
    if set:
        chosen |= {f"{name} {' '.join(set)}": override(load_params(name), set) for name in params}
    trackers = {name: Tracker.from_pretrained(one, weights, device) for name, one in chosen.items()}
    store = Store(out / root.resolve().name, {name: facts_of(one, weights) for name, one in chosen.items()})
    trials = run(trackers, open_dataset("folder", root), changes, seed, store=store)
    write_text(store.folder / "stress.html", stress_page(trials, f"Stress on the folder “{root.resolve().name}”"))
    print(f"the page is {store.folder / 'stress.html'}")


VERBS: dict[str, Callable[..., int | None]] = {
    "track": track,
    "webcam": webcam,
    "demo": demo,
    "bench": bench,
    "convert": convert,
    "train": train,
    "eval": evaluate,
    "stress": stress,
    "report": report,
    "export": export,
    "export-network": export_network,
    "datasets": datasets,
    "paths": paths,
    "pack": pack,
    "study": study,
    "pytracking": pytracking,
    "vot": vot,
}


def _check(name: str | None, path: Path | None, every_frame: bool) -> int:
    """Print the findings about a data set; 1 where it is damaged."""
    from ebmtrack.data.checking import check

    if name is None:
        raise ConfigError("which data set? For example: ebmtrack datasets check got10k /data/got10k")
    damaged = 0
    for finding in check(name, path, every_frame):
        damaged += finding.kind != "info"
        print(finding.line)
    print(f"{damaged} faults" if damaged else "no fault found")
    return 1 if damaged else 0


def _tracker(params: str | None, weights: str | None, device: str | None, kind=None, engine: str | None = None):
    """Return the tracker (or one of another class) with what the user chose, and its own defaults for the rest."""
    from ebmtrack.tracking.tracker import Tracker

    chosen = {"params": params, "weights": weights, "device": device, "engine": engine}
    return (kind or Tracker).from_pretrained(**{name: value for name, value in chosen.items() if value is not None})


def _shown_evaluation(visdom_server: str, weights: Path | None) -> dict[str, object]:
    """What makes `evaluate` show its trackers and scores on a visdom server."""
    from ebmtrack.evaluation.evaluate import ParamsFactory
    from ebmtrack.viewers.tracking_view import ScoreCurves, ShowingFactory
    from ebmtrack.viewers.visdom import VisdomPanel

    inner = ParamsFactory(None if weights is None else str(weights.absolute()))
    curves = ScoreCurves(VisdomPanel("ebmtrack_eval", visdom_server))
    return {"factory": ShowingFactory(inner, visdom_server), "on_score": curves}
