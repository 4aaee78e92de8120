"""`ebmtrack bench`: engines, precisions and OpenCV's trackers side by side on one clip of real video.

Each contender runs in a process of its own (bench_worker.py). They take turns, a few frames each, so that other work on
the machine disturbs all of them alike.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack._version import __version__
from ebmtrack.engines import has_torch
from ebmtrack.engines.base import Engine
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.overlap import iou
from ebmtrack.names import nearest
from ebmtrack.studies.bench_worker import opencv_tracker, time_on
from ebmtrack.studies.records import check_counts
from ebmtrack.tracking.params import TrackerParams, list_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from ebmtrack.viewers.demo_sequence import FILM, TRUTH
from ebmtrack.viewers.selection import parse_boxes
from ebmtrack.weights import DEFAULT_SET_UP

WARMUP = 10  # frames that are not measured
TURN = 15  # frames that a contender tracks in a row
OPENCV = ("CSRT", "KCF", "MIL")
STAGES = ("crop", "backbone", "classifier features", "score and localisation", "box features", "refinement", "learning")


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """The options of a measurement.

    contenders: see `parse_contender`; none: all that this machine can run.
    params: the set-up of our trackers that name none. device: of PyTorch. threads: of each contender, None for its own
    choice. frames: to measure, of the clip again and again. source: another clip, with the target's box `init`
    "x,y,w,h".
    """

    contenders: Sequence[str] = ()
    params: str = DEFAULT_SET_UP
    device: str = "auto"
    threads: int | None = None
    frames: int = 150
    source: str | None = None
    init: str | None = None


def parse_contender(text: str) -> dict[str, Any]:
    """Return engine, precision and weights of a contender, and device and set-up if its name says these.

    Raises:
        ConfigError: if it is none, or one of OpenCV's trackers that the installed OpenCV does not have.

    >>> parse_contender("onnx@exported/int8")
    {'engine': 'onnx', 'precision': 'auto', 'weights': 'exported/int8', 'device': 'cpu'}
    >>> parse_contender("torch@lite_nce_plus")
    {'engine': 'torch', 'precision': 'auto', 'weights': None, 'params': 'lite_nce_plus'}
    """
    match = re.fullmatch(r"(torch|onnx|openvino|opencv)(?::(\w+))?(?:@(.+))?", text)
    if match is None or (match[1] == "opencv") != (match[2] is not None and match[2].isupper()):
        raise ConfigError(
            f"{text!r} is no contender: torch, torch:float32, torch:bfloat16, onnx, onnx:int8, openvino, "
            "openvino:float32, openvino:int8, opencv:CSRT ..., with a set-up or a network after @: "
            "onnx@lite_nce_plus, onnx:int8@FOLDER"
        )
    if match[1] == "opencv" and opencv_tracker(match[2]) is None:
        raise ConfigError(f"{text}: the installed OpenCV has no such tracker; opencv-contrib-python has CSRT and KCF")
    engine = "onnx" if match[1] == "openvino" else match[1]
    devices = {"onnx": {"device": "cpu"}, "openvino": {"device": "openvino"}}
    found = {"engine": engine, "precision": match[2] or "auto", "weights": match[3], **devices.get(match[1], {})}
    is_set_up = str(match[3]).endswith(".py") or match[3] in list_params()
    if match[3] and not is_set_up and not Path(match[3]).exists() and (near := nearest(match[3], list_params(), 0.8)):
        raise ConfigError(f"{text}: there is no {match[3]}; did you mean {near!r}?")
    return {**found, "weights": None, "params": match[3]} if is_set_up else found


def default_contenders() -> list[str]:
    """Return all contenders that this machine can run with the default network."""
    ours = ["torch:bfloat16", "torch:float32"] * has_torch() + ["onnx", "onnx:int8"]
    ours += ["openvino", "openvino:int8"] * (importlib.util.find_spec("openvino") is not None)
    return ours + [f"opencv:{kind}" for kind in OPENCV if opencv_tracker(kind)]


class Contender:
    """A process that tracks when it is asked to."""

    def __init__(self, text: str, options: BenchOptions, clip: tuple[str, list[float]]):
        """Start the process; `open` makes it load the tracker, for a clip and the target's box."""
        request = {"device": options.device, "params": options.params, **parse_contender(text)}
        request |= {"threads": options.threads or 0, "source": clip[0], "box_xywh": clip[1]}
        self.name, self.rounds = text, list[dict[str, Any]]()
        program = [sys.executable, "-m", "ebmtrack.studies.bench_worker"]
        environment = os.environ | ({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.request, self.about = json.dumps(request), dict[str, Any]()

    def open(self) -> None:
        """Load the tracker, start it on the target, and let it warm up."""
        self.about = self._ask(self.request)
        self.track(WARMUP)

    def track(self, frames: int) -> dict[str, Any]:
        """Track some more frames and return what the process measured."""
        return self._ask(str(frames))

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, line: str) -> dict[str, Any]:
        """Send a line and return the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None  # both are pipes
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        found = json.loads(answer) if answer else {"error": "its process ended; see its message above"}
        if "error" in found:
            raise ConfigError(f"{self.name}: {found['error']}")
        return found

    def row(self, truth: np.ndarray | None) -> dict[str, Any]:
        """Return the medians of all rounds; of learning, which few frames have, the mean over all frames."""
        frame_ms = [value for one in self.rounds for value in one["frame_ms"]]
        row = {"name": self.name, **self.about, "frame_ms": float(np.median(frame_ms))}
        row["cpu_ms"] = 1000 * sum(one["cpu_s"] for one in self.rounds) / len(frame_ms)
        row["frames_per_s"] = 1000 / float(np.mean(frame_ms))
        row["median_frames_per_s"] = 1000 / float(np.median(frame_ms))
        for stage in STAGES:
            spent = [value for one in self.rounds for value in one["stages_ms"].get(stage, ())]
            if spent:
                value = sum(spent) / len(frame_ms) if stage == "learning" else np.median(spent)
                row.setdefault("stages_ms", {})[stage] = round(float(value), 3)
        row["peak_mb"] = self.rounds[-1]["peak_mb"]
        if truth is not None:
            boxes, numbers = (np.array([v for one in self.rounds for v in one[key]]) for key in ("boxes", "numbers"))
            row["overlap"] = float(iou(boxes, truth[numbers]).mean())
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def bench(options: BenchOptions) -> dict[str, Any]:
    """Measure contenders side by side; return what `ebmtrack bench --json` prints.

    Raises:
        ConfigError: on contenders or numbers that cannot be used.
    """
    check_counts(frames=options.frames, threads=options.threads)
    clip, truth = choose_clip(options)
    with ExitStack() as stack:
        contenders = []
        for text in options.contenders or default_contenders():
            contenders.append(Contender(text, options, clip))
            stack.callback(contenders[-1].stop)
        for contender in contenders:
            contender.open()
        for done in range(0, options.frames, TURN):
            for contender in contenders:
                contender.rounds.append(contender.track(min(TURN, options.frames - done)))
        rows = [contender.row(truth) for contender in contenders]
    params = " and ".join(dict.fromkeys(row["params"] for row in rows if "params" in row)) or options.params
    return {"rows": rows, "frames": options.frames, "clip": clip[0], "setup": describe(params, options.threads)}


def choose_clip(options: BenchOptions) -> tuple[tuple[str, list[float]], np.ndarray | None]:
    """Return a clip's path with the target's first box, and the true boxes (n, 4) if they are known."""
    if (options.source is None) != (options.init is None):
        raise ConfigError("--source and --init belong together: a clip and the target's box in its first frame")
    if options.source is None:
        truth = np.loadtxt(TRUTH, delimiter=",", skiprows=1)[:, :4]
        return (str(FILM), truth[0].tolist()), truth
    return (options.source, list(parse_boxes([str(options.init)])[0])), None


def bench_targets(options: BenchOptions, targets: int) -> dict[str, Any]:
    """Compare several targets in one video with one, of an eighth and a quarter of the frame's height.

    Args:
        options: the first contender is measured, the default engine if there is none. `source` is not used.
        targets: number of them.
    """
    check_counts(frames=options.frames, threads=options.threads, targets=targets)
    if options.threads:
        from ebmtrack.evaluation.worker import limit_threads

        limit_threads(options.threads)
    chosen: dict[str, Any] = {"params": options.params, "device": options.device}
    chosen |= parse_contender(options.contenders[0]) if options.contenders else {}
    tracker = Tracker.from_pretrained(**chosen)
    size = (640, 480)
    rows = [
        measure_targets(tracker.engine, tracker.params, targets, size[1] // part, options.frames, size)
        for part in (8, 4)
    ]
    return {
        "targets": targets,
        "frames": options.frames,
        "by_side": rows,
        "setup": describe(chosen["params"], options.threads),
    }


def moving_squares(frames: int, size_wh: tuple[int, int], count: int, side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return textured patches that wander over a texture, each about its place: images, boxes (frames, count, 4)."""
    w, h = size_wh
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(60, 160, (h // 20 + 1, w // 20 + 1, 3)), np.ones((20, 20, 1)))[:h, :w].astype(np.uint8)
    tile = np.ones((side // 4 + 1, side // 4 + 1, 1))
    patches = [np.kron(rng.integers(0, 255, (4, 4, 3)), tile)[:side, :side] for _ in range(count)]
    rows = math.ceil(math.sqrt(count))
    reach_x, reach_y = w / 5 / rows, h / 5 / rows
    images, boxes = [], np.full((frames, count, 4), float(side))
    for t in range(frames):
        image = scene.copy()
        for k, patch in enumerate(patches):
            x = int(w * (2 * (k % rows) + 1) / (2 * rows) + reach_x * np.sin(t / 15 + k))
            y = int(h * (2 * (k // rows) + 1) / (2 * rows) + reach_y * np.cos(t / 11 + k))
            x, y = min(max(x, 0), w - side), min(max(y, 0), h - side)
            image[y : y + side, x : x + side] = patch
            boxes[t, k, :2] = x, y
        images.append(image)
    return images, boxes


def measure_targets(
    engine: Engine, params: TrackerParams, count: int, side: int, frames: int, size_wh: tuple[int, int]
) -> dict:
    """Return the cost of several targets of `side` pixels: medians over frames, and the ratio to one target.

    In every frame a Tracker of one target, a MultiTracker and one without inner looks take their turns, so that other
    work on the machine disturbs all of them alike. Wall time and processor time of this process, in milliseconds.
    """
    images, boxes = moving_squares(frames + WARMUP + 1, size_wh, count, side)
    one, seeds = Tracker(engine, params), range(count)
    several = {"usual": MultiTracker(engine, params), "exact": MultiTracker(engine, params, inner_looks=0)}
    one.init(images[0], boxes[0, 0])
    for tracker in several.values():
        for box, seed in zip(boxes[0], seeds):
            tracker.add(images[0], box, seed)
    times = defaultdict(list)
    trackers: dict[str, Tracker | MultiTracker] = {"one": one, **several}
    for number, image in enumerate(images[1:]):
        for name, either in trackers.items():
            spent = _time(lambda: either.update(image), engine.info.device)  # noqa: B023 (called at once)
            if number >= WARMUP:
                times[name].append(spent)
    medians = {name: 1000 * np.median(spent, axis=0) for name, spent in times.items()}
    report = {"side": side, "one_ms": _round(medians["one"])}
    for name in several:
        report[f"{name}_ms"] = _round(medians[name])
        report[f"{name}_ratio"] = _round(medians[name] / medians["one"])
    return report


def _time(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Return seconds of wall time and of this process's processor time."""
    wall, cpu = time_on(device), time.process_time()
    work()
    return time_on(device) - wall, time.process_time() - cpu


def _round(wall_cpu: np.ndarray) -> dict[str, float]:
    """Return both times in two digits."""
    return {"wall": round(float(wall_cpu[0]), 2), "cpu": round(float(wall_cpu[1]), 2)}


def describe(params: str, threads: int | None) -> dict[str, Any]:
    """Return what was measured on what."""
    return {"params": params, "processor": cpu_name(), "threads": threads or "own choice", "ebmtrack": __version__}


def cpu_name() -> str:
    """Return the processor's name if the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def as_table(report: dict[str, Any]) -> str:
    """Return the report for the screen."""
    setup = report["setup"]
    lines = [f"{setup['params']} on {setup['processor']}, threads: {setup['threads']}"]
    return "\n".join([*lines, *(_target_lines(report) if "targets" in report else _columns(report))])


def _columns(report: dict[str, Any]) -> list[str]:
    """Return a column for each contender."""
    rows, whole = report["rows"], [row["name"] for row in report["rows"]]
    short = [re.sub(r"@.*[/\\]", "@", name) for name in whole]
    names = short if len({*short}) == len({*whole}) else whole
    width = max(16, *(len(name) + 2 for name in names))
    lines = [
        f"{report['frames']} frames of {Path(report['clip']).name}",
        " " * 28 + "".join(f"{n:>{width}}" for n in names),
    ]
    values = [(f"{stage}, ms", [row.get("stages_ms", {}).get(stage) for row in rows]) for stage in STAGES]
    labels = {
        "frame_ms": "frame, ms (median)",
        "cpu_ms": "processor time, ms (mean)",
        "frames_per_s": "frames/s (mean)",
        "median_frames_per_s": "frames/s (median frame)",
        "overlap": "overlap with the truth",
        "peak_mb": "peak memory, MB",
        "import_s": "import, s",
        "load_s": "open the network, s",
        "init_s": "first frame, s",
    }
    values += [(label, [row.get(key) for row in rows]) for key, label in labels.items()]
    for label, cells in values:
        if any(cell is not None for cell in cells):
            texts = ["-" if cell is None else f"{cell:.0f}" if cell >= 1000 else f"{cell:.2f}" for cell in cells]
            lines.append(f"  {label:<26}" + "".join(f"{text:>{width}}" for text in texts))
    return lines


def _target_lines(report: dict) -> list[str]:
    """Return the comparison of several targets with one."""
    lines = []
    for row in report["by_side"]:
        lines.append(f"  targets of {row['side']} pixels{'':<10}wall ms  processor ms  times one target")
        lines.append(f"    {'one':<27}{row['one_ms']['wall']:8.1f}{row['one_ms']['cpu']:14.1f}")
        for name, text in (("usual", "with inner looks"), ("exact", "without inner looks")):
            spent, ratio = row[f"{name}_ms"], row[f"{name}_ratio"]
            text = f"{report['targets']}, {text}"
            lines.append(
                f"    {text:<27}{spent['wall']:8.1f}{spent['cpu']:14.1f}      {ratio['wall']:.2f} ({ratio['cpu']:.2f})"
            )
    return lines


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Write the report to the screen, as a table or as JSON."""
    print(json.dumps(report, indent=2) if as_json else as_table(report))
