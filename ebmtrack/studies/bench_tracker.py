"""Milliseconds a frame, by stage of the tracker, on this machine."""

from __future__ import annotations

import json
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch

from ebmtrack._version import __version__
from ebmtrack.engines.base import Engine, no_mark
from ebmtrack.errors import ConfigError
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.tracker import MultiTracker, Tracker

WARMUP = 10  # frames that are not measured
STAGES = (
    "crop",
    "backbone",
    "classifier features",
    "score and localisation",
    "box features",
    "refinement",
    "learning",
)


class StageClock:
    """Collects the time since the last mark under the name of the stage that it ends."""

    def __init__(self, device: torch.device):
        self.device, self.last = device, 0.0
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        """Begin a frame."""
        self.last = self._now()

    def __call__(self, stage: str) -> None:
        now = self._now()
        self.seconds[stage].append(now - self.last)
        self.last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def moving_square(frames: int, size_wh: tuple[int, int]) -> tuple[list[np.ndarray], list[tuple[float, ...]]]:
    """Return a textured patch that wanders over a texture: images and boxes that keep every stage busy."""
    images, boxes = moving_squares(frames, size_wh, 1, max(8, min(size_wh) // 8))
    return images, [tuple(box) for box in boxes[:, 0].tolist()]


def moving_squares(frames: int, size_wh: tuple[int, int], count: int, side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Several such patches, each about its own place: images and boxes (frames, count, 4)."""
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


def measure(tracker: Tracker, frames: int = 100, size_wh: tuple[int, int] = (640, 480), warmup: int = WARMUP) -> dict:
    """Median milliseconds by stage and in all, and frames per second, over `frames` frames after a warm-up.

    Learning runs every 20th frame, so that its mean is given instead of its median.
    """
    if frames < 1 or warmup < 1:
        raise ConfigError(f"bench needs at least one frame and one to warm up, got {frames} and {warmup}")
    images, boxes = moving_square(frames + warmup + 1, size_wh)
    clock, totals = StageClock(torch.device(tracker.engine.info.device)), []
    tracker.init(images[0], boxes[0])
    for image in images[1 : warmup + 1]:
        tracker.update(image)
    tracker.mark = clock
    for image in images[warmup + 1 :]:
        clock.start()
        begin = time.perf_counter()
        tracker.update(image)
        totals.append(time.perf_counter() - begin)
    tracker.mark = no_mark
    stages = {name: 1000 * float(np.median(clock.seconds[name])) for name in STAGES if clock.seconds[name]}
    if "learning" in stages:
        stages["learning"] = 1000 * float(np.sum(clock.seconds["learning"])) / frames
    return {
        "stages_ms": {name: round(value, 3) for name, value in stages.items()},
        "frame_ms": round(1000 * float(np.median(totals)), 3),
        "frames_per_s": round(frames / float(np.sum(totals)), 2),
        "frames": frames,
        "image_wh": list(size_wh),
    }


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
            spent = _timed(lambda: either.update(image), torch.device(engine.info.device))  # noqa: B023 (called at once)
            if number >= WARMUP:
                times[name].append(spent)
    medians = {name: 1000 * np.median(spent, axis=0) for name, spent in times.items()}
    report = {"side": side, "one_ms": _rounded(medians["one"])}
    for name in several:
        report[f"{name}_ms"] = _rounded(medians[name])
        report[f"{name}_ratio"] = _rounded(medians[name] / medians["one"])
    return report


def _timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of wall time and of this process's processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _rounded(wall_cpu: np.ndarray) -> dict[str, float]:
    return {"wall": round(float(wall_cpu[0]), 2), "cpu": round(float(wall_cpu[1]), 2)}


def bench(
    params: str = "dimp18_nce_plus",
    weights: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    frames: int = 100,
    width: int = 640,
    height: int = 480,
    targets: int = 1,
    engine: str = "auto",
) -> dict:
    """Measure a tracker set-up on this machine; returns what `ebmtrack bench --json` prints.

    Several targets are compared with one, when they are an eighth of the frame's height and when they are a quarter.
    """
    if targets < 1:
        raise ConfigError(f"--targets must be at least 1, got {targets}")
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    tracker = Tracker.from_pretrained(params, weights, device, precision, engine)
    if targets == 1:
        report = measure(tracker, frames, (width, height))
    else:
        sides = [max(8, min(width, height) // part) for part in (8, 4)]
        rows = [
            measure_targets(tracker.engine, tracker.params, targets, side, frames, (width, height)) for side in sides
        ]
        report = {"targets": targets, "frames": frames, "image_wh": [width, height], "by_side": rows}
    report["setup"] = setup_of(tracker, params)
    return report


def setup_of(tracker: Tracker, params: str) -> dict:
    """Which set-up was measured on what."""
    device = torch.device(tracker.engine.info.device)
    return {
        "params": params,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "precision": tracker.engine.info.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ebmtrack": __version__,
    }


def cpu_name() -> str:
    """Return the processor's name as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def as_table(report: dict) -> str:
    """Return the report for the screen."""
    setup = report["setup"]
    lines = [f"{setup['params']} on {setup['device_name']}, {setup['threads']} threads, {setup['precision']}"]
    if "targets" in report:
        return "\n".join([*lines, *_target_lines(report)])
    lines += [f"  {name:<24}{value:8.2f} ms" for name, value in report["stages_ms"].items()]
    lines.append(f"  {'frame':<24}{report['frame_ms']:8.2f} ms   {report['frames_per_s']:.1f} frames/s")
    return "\n".join(lines)


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


def print_report(report: dict, as_json: bool) -> None:
    """Write the report to the screen, as a table or as JSON."""
    print(json.dumps(report, indent=2) if as_json else as_table(report))
