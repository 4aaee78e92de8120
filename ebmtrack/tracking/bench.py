"""Milliseconds a frame, by stage of the tracker, on this machine."""

from __future__ import annotations

import json
import platform
import time
from collections import defaultdict

import numpy as np
import torch

from ebmtrack import __version__
from ebmtrack.errors import ConfigError
from ebmtrack.tracking.target import no_mark
from ebmtrack.tracking.tracker import Tracker

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
        self.device, self.seconds, self.last = device, defaultdict(list), 0.0

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
    """A textured patch wandering over a texture: images and boxes; enough to keep every stage of the tracker busy."""
    w, h = size_wh
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(60, 160, (h // 20 + 1, w // 20 + 1, 3)), np.ones((20, 20, 1)))[:h, :w].astype(np.uint8)
    side = max(8, min(w, h) // 8)
    patch = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((side // 4 + 1, side // 4 + 1, 1)))[:side, :side]
    images, boxes = [], []
    for t in range(frames):
        x, y = int(w / 2 + w / 5 * np.sin(t / 15)), int(h / 2 + h / 5 * np.cos(t / 11))
        image = scene.copy()
        image[y : y + side, x : x + side] = patch.astype(np.uint8)
        images.append(image)
        boxes.append((float(x), float(y), float(side), float(side)))
    return images, boxes


def measure(tracker: Tracker, frames: int = 100, size_wh: tuple[int, int] = (640, 480), warmup: int = 10) -> dict:
    """Median milliseconds by stage and in all, and frames per second, over `frames` frames after a warm-up.

    Learning runs every 20th frame, so that its mean is given instead of its median.
    """
    if frames < 1 or warmup < 1:
        raise ConfigError(f"bench needs at least one frame and one to warm up, got {frames} and {warmup}")
    images, boxes = moving_square(frames + warmup + 1, size_wh)
    clock, totals = StageClock(tracker.net.device), []
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


def bench(
    params: str = "dimp18_nce_plus",
    weights: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
    frames: int = 100,
    width: int = 640,
    height: int = 480,
) -> dict:
    """Measure a tracker set-up on this machine; returns what `ebmtrack bench --json` prints."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    tracker = Tracker.from_pretrained(params, weights, device, precision)
    report = measure(tracker, frames, (width, height))
    device_name = torch.cuda.get_device_name(tracker.net.device) if tracker.net.device.type == "cuda" else cpu_name()
    report["setup"] = {
        "params": params,
        "device": device,
        "device_name": device_name,
        "precision": str(tracker.net.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ebmtrack": __version__,
    }
    return report


def cpu_name() -> str:
    """The processor's name as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def as_table(report: dict) -> str:
    """The report for the screen."""
    setup = report["setup"]
    lines = [f"{setup['params']} on {setup['device_name']}, {setup['threads']} threads, {setup['precision']}"]
    lines += [f"  {name:<24}{value:8.2f} ms" for name, value in report["stages_ms"].items()]
    lines.append(f"  {'frame':<24}{report['frame_ms']:8.2f} ms   {report['frames_per_s']:.1f} frames/s")
    return "\n".join(lines)


def print_report(report: dict, as_json: bool) -> None:
    """Write the report to the screen, as a table or as JSON."""
    print(json.dumps(report, indent=2) if as_json else as_table(report))
