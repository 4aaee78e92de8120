"""The command line: each verb is a function whose typed signature gives its options and its help.

To add a verb, write a function below and name it in `VERBS`. What is heavy is imported inside the function,
so that `ebmtrack --help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import tyro

from ebmtrack import __version__
from ebmtrack.errors import EbmtrackError

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
        tyro.extras.subcommand_cli_from_dict(
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
    return 0


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


VERBS: dict[str, Callable[..., None]] = {"track": track, "demo": demo, "bench": bench}


def _tracker(params: str | None, weights: str | None, device: str | None):
    """The tracker with what the user chose, and its own defaults for the rest."""
    from ebmtrack.tracking.tracker import Tracker

    chosen = {"params": params, "weights": weights, "device": device}
    return Tracker.from_pretrained(**{name: value for name, value in chosen.items() if value is not None})
