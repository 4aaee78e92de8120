"""Stand-ins for live tests: a source whose frames come when the test says so, and a tracker that only notes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.tracking.uncertainty import BoxDensity
from ebmtrack.viewers.frames import FrameSource

WAIT_S = 20.0  # for what takes milliseconds; only a failing test waits so long


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture (h, w, 3) that carries its number, 0 to 255, in every pixel."""
    return np.full((height, width, 3), number, np.uint8)


class ListSource(FrameSource):
    """Gives pictures 0 to count - 1, then ends, or fails with an error where one is given; `closed` tells its end."""

    def __init__(self, count: int, fps: float = 1000.0, error: Exception | None = None, name: str = "list"):
        super().__init__(name, fps, count)
        self.count, self.error, self.closed = count, error, threading.Event()

    def close(self) -> None:
        self.closed.set()

    def _read(self) -> np.ndarray | None:
        if self.frames_read < self.count:
            return picture(self.frames_read % 256)
        if self.error is not None:
            raise self.error
        return None


class GatedSource(ListSource):
    """Gives each picture only when `let` has allowed it; hangs in between, as a camera that is silent does.

    `asked` tells that a first one was asked for.
    """

    def __init__(self, count: int = 256, **options):
        super().__init__(count, **options)
        self._allowed, self.asked = threading.Semaphore(0), threading.Event()

    def let(self, count: int = 1) -> None:
        """Allow that many more reads."""
        for _ in range(count):
            self._allowed.release()

    def _read(self) -> np.ndarray | None:
        self.asked.set()
        self._allowed.acquire()
        return super()._read()


@dataclass(frozen=True)
class Seen:
    """A result as the tracker's: all that a session reads of it."""

    box_xywh: tuple[float, float, float, float]
    score: float = 0.75
    found: bool = True
    search_xywh: tuple[float, float, float, float] = (0.0, 0.0, 60.0, 40.0)
    density: BoxDensity | None = None


class NotingTracker:
    """Keeps each target where it was drawn; notes the images that it is given, and the threads that call it.

    Boxes left of the image are refused. Targets named in `lost` are not found. Where `gate` is set, each update waits
    for the gate to be opened once.
    """

    def __init__(self, gate: threading.Semaphore | None = None):
        self.boxes: dict[int, tuple] = {}
        self.images: list[int] = []
        self.threads: set[str] = set()
        self.lost: set[int] = set()
        self.gate, self.updating = gate, threading.Event()
        self._next, self.unsure = 0, False

    def add(self, image_rgb: np.ndarray, box_xywh) -> int:
        self.threads.add(threading.current_thread().name)
        if box_xywh[0] < 0:
            raise ConfigError("that box lies outside")
        self._next += 1
        self.boxes[self._next] = tuple(box_xywh)
        return self._next

    def update(self, image_rgb: np.ndarray) -> dict[int, Seen]:
        self.images.append(int(image_rgb[0, 0, 0]))
        self.updating.set()
        if self.gate is not None:
            assert self.gate.acquire(timeout=WAIT_S)
        ones = np.ones(4)
        density = BoxDensity(ones, ones, ones, ones, 1.0, 1.0) if self.unsure else None
        return {name: Seen(box, found=name not in self.lost, density=density) for name, box in self.boxes.items()}

    def remove(self, target: int) -> None:
        del self.boxes[target]

    def show_intervals(self, wanted: bool | None = None) -> None:
        self.unsure = not self.unsure if wanted is None else wanted

    def corner_log_density(self, target: int, points_xy: np.ndarray) -> np.ndarray:
        """-|p - corner|^2: highest at the top right corner of the box."""
        x, y, w, _ = self.boxes[target]
        return -((points_xy - [x + w, y]) ** 2).sum(axis=1)
