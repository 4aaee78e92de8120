"""A tracker without a network for tests of the runner: it walks at random from its seed."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np


class Walker:
    """Moves its box by a pixel or so per frame; its last digits depend on the seed and on the image."""

    def __init__(self, factory: StubFactory) -> None:
        self.factory, self.mark = factory, lambda stage: None

    def init(self, image: np.ndarray, box_xywh: tuple, seed: int | None = None) -> None:
        """Start, and leave a line in the log of starts."""
        self.box, self.random, self.frame = np.array(box_xywh), np.random.default_rng(seed), 0
        if self.factory.log:
            with open(self.factory.log, "a") as file:
                file.write(f"{image.shape[1]} {seed}\n")

    def update(self, image: np.ndarray) -> SimpleNamespace:
        """One step; fails, dies or returns nonsense where the factory says so (told by the image's width)."""
        self.frame += 1
        if image.shape[1] == self.factory.trouble_width and self.frame == 2:
            if self.factory.trouble == "raise":
                raise RuntimeError("the stub was told to fail")
            if self.factory.trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            return SimpleNamespace(box_xywh=(0, 0, float("nan"), 1), score=0.0)
        while self.factory.gate and not os.path.exists(self.factory.gate):
            time.sleep(0.005)
        time.sleep(self.factory.frame_s)
        self.mark("walk")
        self.box[:2] += self.random.normal(0, 1, 2) + image.mean() / 1e3
        return SimpleNamespace(box_xywh=tuple(self.box), score=float(self.random.uniform()))


@dataclass(frozen=True)
class StubFactory:
    """Makes walkers; what is described goes into the markers. gate: a file for which updates wait."""

    log: str = ""
    trouble: str = ""
    trouble_width: int = -1
    frame_s: float = 0.0
    weights: str = "none"
    gate: str = ""
    engine: str = ""
    precision: str = ""
    parameters: tuple[tuple[str, float], ...] = ()

    def __call__(self, params: str, device: str) -> Walker:
        """A new walker."""
        return Walker(self)

    def describe(self, params: str) -> dict[str, object]:
        """What results depend on."""
        facts = {"engine": self.engine, "precision": self.precision}
        known = {name: value for name, value in facts.items() if value}
        return {"params": {"name": params, **dict(self.parameters)}, "weights": self.weights, **known}


def make_sequences(root: Path, count: int = 4, frames: int = 6) -> Path:
    """Sequences seq0, seq1 .. of small images, 40 + index wide, with a box that moves to the right."""
    for index in range(count):
        folder = root / f"seq{index}"
        (folder / "img").mkdir(parents=True)
        rows = []
        for frame in range(frames):
            image = np.full((32, 40 + index, 3), 10 * frame, np.uint8)
            cv2.imwrite(str(folder / "img" / f"{frame + 1:04d}.jpg"), image)
            rows.append(f"{5 + frame},6,10,12\n")
        (folder / "groundtruth_rect.txt").write_text("".join(rows))
    return root
