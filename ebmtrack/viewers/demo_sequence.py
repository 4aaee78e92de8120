"""The built-in test sequence: a coffee cup pushed about on a table full of photographs, with known truth.

A hand-held camera pans, zooms and tilts; a second cup that is almost the same crosses the path of the first, and a
print is pushed over the cup until it is all but hidden. `tools/render_demo.py` drew the film from photographs that
scikit-image carries; the noise of the sensor is added here, because it would make the file five times as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.viewers.frames import open_frames

WIDTH, HEIGHT, FPS = 640, 480, 30.0
FILM = Path(__file__).parent / "film" / "coffee.mp4"
TRUTH = FILM.with_suffix(".csv")
PARTS = [
    ("motion", 0, 39),
    ("scale", 40, 69),
    ("light", 70, 89),
    ("distractor", 90, 119),
    ("occlusion", 120, 144),
    ("return", 145, 164),
]
LENGTH = PARTS[-1][2] + 1
NOISE = 2.5  # standard deviation of the sensor noise, grey levels


@dataclass(frozen=True)
class DemoSequence:
    """A sequence with its truth: frames (RGB uint8), boxes_xywh (n, 4), visible (n,).

    `visible` is the part in 0..1 of the target's area that is not covered; `parts` lists (name, first frame,
    last frame).
    """

    frames: Sequence[np.ndarray]
    boxes_xywh: np.ndarray
    visible: np.ndarray
    parts: list[tuple[str, int, int]] = field(default_factory=lambda: list(PARTS))
    fps: float = FPS
    name: str = "coffee"


def demo_sequence() -> DemoSequence:
    """Return the built-in sequence, 165 frames of 640 x 480 pixels. Raises DatasetError if the film is damaged."""
    truth = np.loadtxt(TRUTH, delimiter=",", skiprows=1)
    if truth.shape != (LENGTH, 5):
        raise DatasetError(f"{TRUTH}: {truth.shape} numbers instead of {(LENGTH, 5)}; install ebmtrack again")
    return DemoSequence(FilmFrames(FILM), truth[:, :4], truth[:, 4])


class FilmFrames(Sequence):
    """The frames of the film, decoded when the first one is asked for, and kept: 152 MB; each gets its noise once."""

    def __init__(self, path: Path):
        self._path = path
        self._frames: list[np.ndarray] = []
        self._with_noise: set[int] = set()

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index):
        if not self._frames:
            with open_frames(self._path) as frames:
                self._frames = list(frames)
            if len(self._frames) != LENGTH:
                count = len(self._frames)
                raise DatasetError(f"{self._path}: {count} frames instead of {LENGTH}; install ebmtrack again")
        numbers = range(LENGTH)[index]
        for number in [numbers] if isinstance(numbers, int) else numbers:
            if number not in self._with_noise:
                self._frames[number] = _noisy(self._frames[number], number)
                self._with_noise.add(number)
        return self._frames[index]


def _noisy(image: np.ndarray, index: int) -> np.ndarray:
    """Return a frame with the noise of a sensor; the same frame always has the same."""
    noise = np.random.default_rng(index).normal(0, NOISE, image.shape).astype(np.float32)
    return np.rint(np.clip(image + noise, 0, 255)).astype(np.uint8)
