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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Box = tuple[float, ...]


class StageClock:
    """Collects the time since the last mark, in milliseconds, under the name of the stage that it ends."""

    def __init__(self, device: str):
        self.device, self.last = device, 0.0
        self.spent_ms: defaultdict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        """Begin a frame."""
        self.last = time_on(self.device)

    def __call__(self, stage: str) -> None:
        """End a stage."""
        now = time_on(self.device)
        self.spent_ms[stage].append(round(1000 * (now - self.last), 3))
        self.last = now


class OurTracker:
    """A tracker of ours with a clock for its stages."""

    def __init__(self, request: dict[str, Any]):
        from ebmtrack import Tracker

        names = ("params", "weights", "device", "precision", "engine")
        self.tracker = Tracker.from_pretrained(**{name: request[name] for name in names})
        self.info = self.tracker.engine.info
        self.clock = self.tracker.mark = StageClock(self.info.device)

    def init(self, image: np.ndarray, box_xywh: Box) -> None:
        """Start on a target."""
        self.tracker.init(image, box_xywh)

    def update(self, image: np.ndarray) -> Box:
        """Return the target's box in the next frame."""
        self.clock.start()
        return self.tracker.update(image).box_xywh


class OpenCvTracker:
    """One of OpenCV's trackers."""

    def __init__(self, kind: str):
        self.create, self.clock = opencv_tracker(kind), StageClock("cpu")

    def init(self, image: np.ndarray, box_xywh: Box) -> None:
        """Start on a target."""
        self.tracker = self.create()
        self.tracker.init(image, tuple(map(round, box_xywh)))

    def update(self, image: np.ndarray) -> Box:
        """Return the target's box in the next frame; no size if it was not found."""
        found, box_xywh = self.tracker.update(image)
        return tuple(map(float, box_xywh)) if found else (0.0, 0.0, 0.0, 0.0)


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


def clip(source: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and image of a clip's frames, again and again."""
    from ebmtrack.viewers.frames import open_frames

    while True:
        with open_frames(source) as frames:
            yield from enumerate(frames)


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
    frames = clip(request["source"])
    tracker = OpenCvTracker(request["precision"]) if request["engine"] == "opencv" else OurTracker(request)
    image = next(frames)[1]
    opened = time.perf_counter()
    tracker.init(image, request["box_xywh"])
    seconds = {"import_s": imported - began, "load_s": opened - imported, "init_s": time.perf_counter() - opened}
    info = getattr(tracker, "info", None)
    about = {"precision": info.precision, "device": info.device} if info else {}
    print(json.dumps({**seconds, **about}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(tracker, frames, int(line), request["box_xywh"])), file=answers, flush=True)


def measure(
    tracker: OurTracker | OpenCvTracker, frames: Iterator[tuple[int, np.ndarray]], count: int, box_xywh: Box
) -> dict[str, Any]:
    """Return times, boxes and frame numbers of the next frames; at the clip's beginning tracking starts anew."""
    tracker.clock.spent_ms.clear()
    spent: list[float] = []
    boxes: list[Any] = []
    numbers: list[int] = []
    device, cpu_s = tracker.clock.device, 0.0
    while len(spent) < count:
        number, image = next(frames)
        if number == 0:
            tracker.init(image, box_xywh)
            continue
        began, cpu_began = time_on(device), time.process_time()
        boxes.append(tracker.update(image))
        spent.append(round(1000 * (time_on(device) - began), 3))
        cpu_s += time.process_time() - cpu_began
        numbers.append(number)
    found = {"boxes": boxes, "numbers": numbers, "stages_ms": dict(tracker.clock.spent_ms)}
    return {"frame_ms": spent, "cpu_s": cpu_s, "peak_mb": peak_megabytes(), **found}


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # for the process that shows it
        from ebmtrack.errors import EbmtrackError

        if not isinstance(error, EbmtrackError):
            raise
        print(json.dumps({"error": str(error)}), file=sys.__stdout__, flush=True)
        os._exit(1)
