"""One contender of `ebmtrack bench`, in a process of its own: memory and import time are nobody else's.

A line of JSON on stdin says what to measure; the answer is a line of JSON about the start. Each further line is a
number of frames, and its answer is a line of JSON with their times and boxes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ebmtrack.tracking.sequence import TrackedFrame

Box = tuple[float, ...]


class StageClock:
    """Collects the time since the last mark, in milliseconds, under the name of the stage that it ends."""

    def __init__(self, device: str):
        self.device, self.last = device, 0.0
        self.spent_ms: defaultdict[str, list[float]] = defaultdict(list)

    def read(self) -> np.ndarray:
        """Return the time and this process's processor time (2,) in seconds; the next stage begins."""
        import numpy as np

        self.last = time_on(self.device)
        return np.array([self.last, time.process_time()])

    def __call__(self, stage: str) -> None:
        """End a stage."""
        now = time_on(self.device)
        self.spent_ms[stage].append(round(1000 * (now - self.last), 3))
        self.last = now


def open_ours(request: dict[str, Any]) -> Any:
    """Return a tracker of ours with a clock for its stages."""
    from ebmtrack import Tracker

    names = ("params", "weights", "device", "precision", "engine")
    tracker = Tracker.from_pretrained(**{name: request[name] for name in names})
    tracker.mark = StageClock(tracker.engine.info.device)
    return tracker


class OpenCvTracker:
    """One of OpenCV's trackers."""

    def __init__(self, kind: str):
        self.create, self.mark = opencv_tracker(kind), StageClock("cpu")

    def init(self, image: np.ndarray, box_xywh: Box) -> None:
        """Start on a target."""
        self.tracker = self.create()
        self.tracker.init(image, tuple(map(round, box_xywh)))

    def update(self, image: np.ndarray) -> SimpleNamespace:
        """Return the target's box in the next frame; no size if it was not found."""
        found, box_xywh = self.tracker.update(image)
        return SimpleNamespace(box_xywh=tuple(map(float, box_xywh)) if found else (0.0, 0.0, 0.0, 0.0))


def opencv_tracker(kind: str) -> Any:
    """Return the function that makes a tracker such as CSRT, or None if the installed OpenCV has none of this kind."""
    import cv2

    places = (cv2, getattr(cv2, "legacy", None))
    return next((made for place in places if (made := getattr(place, f"Tracker{kind}_create", None))), None)


def time_on(device: str) -> float:
    """Return the time in seconds when a device is done with its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_megabytes() -> float | None:
    """Return the most memory that this process has had, None if the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) / 1e3 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def track_clip(tracker: Any, source: str, box_xywh: Box) -> Iterator[TrackedFrame]:
    """Track a target through a clip, again and again from its first frame; ConfigError for a clip of one frame."""
    from ebmtrack.errors import ConfigError
    from ebmtrack.tracking.sequence import NumberedFrame, run_tracker
    from ebmtrack.viewers.frames import open_frames

    while True:
        with open_frames(source) as frames:
            numbered = (NumberedFrame(number, image) for number, image in enumerate(frames))
            start = partial(tracker.init, box_xywh=box_xywh)
            passed = 0
            for step in run_tracker(start, tracker.update, numbered, tracker.mark.read):
                yield step
                passed += 1
        if passed < 2:
            raise ConfigError(f"{source}: has one frame, in which tracking starts; measuring needs two or more")


def main() -> None:
    """Serve the requests on stdin."""
    request, answers = json.loads(sys.stdin.readline()), sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not get between the answers
    began = time.perf_counter()
    import ebmtrack.tracking.tracker  # noqa: F401

    imported = time.perf_counter()
    if request["threads"]:
        from ebmtrack.evaluation.worker import limit_threads

        limit_threads(request["threads"])
    ours = request["engine"] != "opencv"
    tracker: Any = open_ours(request) if ours else OpenCvTracker(request["precision"])
    opened = time.perf_counter()
    steps = track_clip(tracker, request["source"], request["box_xywh"])
    init_s = next(steps).spent[0]
    info = tracker.engine.info if ours else None
    about = {"precision": info.precision, "device": info.device, "params": request["params"]} if info else {}
    seconds = {"import_s": imported - began, "load_s": opened - imported, "init_s": init_s}
    print(json.dumps({**seconds, **about}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(steps, int(line), tracker.mark)), file=answers, flush=True)


def measure(steps: Iterator[TrackedFrame], count: int, clock: StageClock) -> dict[str, Any]:
    """Return times, boxes and frame numbers of the next frames; those in which tracking starts anew do not count."""
    clock.spent_ms.clear()
    later = islice((step for step in steps if step.frame.number), count)
    rows = [(round(1000 * spent[0], 3), spent[1], answer.box_xywh, frame.number) for frame, answer, spent in later]
    frame_ms, cpu_s, boxes, numbers = (list(column) for column in zip(*rows))
    found = {"frame_ms": frame_ms, "cpu_s": sum(cpu_s), "boxes": boxes, "numbers": numbers}
    return {**found, "peak_mb": peak_megabytes(), "stages_ms": dict(clock.spent_ms)}


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # for the process that shows it
        from ebmtrack.errors import EbmtrackError

        if not isinstance(error, EbmtrackError):
            raise
        print(json.dumps({"error": str(error)}), file=sys.__stdout__, flush=True)
        os._exit(1)
