"""An engine that follows a script, for tests of the tracker without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from ebmtrack.engines.base import (
    Ascent,
    Climb,
    EngineInfo,
    FirstFrame,
    InnerLook,
    Look,
    Mark,
    Sight,
    no_mark,
)
from ebmtrack.tracking.params import TrackerParams

PARAMS = TrackerParams(  # super_dimp's; of the first frame's views only the plain one and two dropout copies
    sample_size=288,
    crop_rule="pre2022",
    border="replicate",
    half_pixel_late=False,
    shift_fracs=(),
    flip=False,
    blur_sigmas=(),
    rotations_deg=(),
)
IMAGE = np.zeros((400, 400, 3), np.uint8)
BOX = np.array([92.5, 68.5, 36.0, 64.0])  # its centre (x, y) is (110, 100)


def scores(*peaks: tuple[int, int, float]) -> np.ndarray:
    """Return a score map (19, 19): peaks (y, x, score) on zeros."""
    out = np.zeros((19, 19), np.float32)
    for y, x, score in peaks:
        out[y, x] = score
    return out


@dataclasses.dataclass(frozen=True)
class Learned:
    """One call of `learn`: the weights of the samples and the number of iterations."""

    weights: np.ndarray
    iterations: int


class ScriptedEngine:
    """An engine that shows the score maps that it is given and writes down what it is asked for.

    The features of a region are its score map. Boxes climb to where `arrive` sends them; by default all become
    infinite, so that the target keeps its size and the position of the score's peak.
    """

    info = EngineInfo(classifier="dimp", channels=64, stride=16, device="cpu", precision="float32")

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []
        self.first: list[FirstFrame] = []
        self.looks: list[Look] = []
        self.stored: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.learned: list[Learned] = []
        self.climbed: list[np.ndarray] = []
        self.arrive = lambda boxes: np.full_like(boxes, np.inf)

    def show(self, *maps: np.ndarray) -> ScriptedEngine:
        """Let the next frame's regions have these score maps, in the order in which they are looked at."""
        self.shown, self.looks = list(maps), []
        return self

    def start(self, first: FirstFrame) -> tuple[str, list[str]]:
        """Write the samples down."""
        self.first.append(first)
        return "model", ["first frame"] * len(first.patches)

    def look(self, looks: Sequence[Look], mark: Mark = no_mark) -> list[Sight]:
        """Return the next maps to show, one for each look."""
        self.looks += looks
        maps, self.shown = self.shown[: len(looks)], self.shown[len(looks) :]
        assert len(maps) == len(looks)
        return [Sight(one, one.copy()) for one in maps]

    @property
    def inner(self) -> list[bool]:
        """Whether each look of the last frame was an inner one."""
        return [isinstance(look, InnerLook) for look in self.looks]

    def climb(self, regions: Sequence, boxes_xywh: np.ndarray, ascent: Ascent, mark: Mark = no_mark) -> Climb:
        """Send the boxes where the script says; all have the same energy."""
        assert len(regions) == len(boxes_xywh) and boxes_xywh.dtype == np.float32
        self.climbed.append(boxes_xywh)
        return Climb(self.arrive(boxes_xywh), np.zeros(boxes_xywh.shape[:2], np.float32))

    def energy_of(self, regions: Sequence) -> NoReturn:
        """Refuse: boxes go where the script says, whatever their energy."""
        raise AssertionError("a scripted climb asks for no energies")

    def energies(self, region: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the boxes' widths."""
        return boxes_xyxy[:, 2] - boxes_xyxy[:, 0]

    def hidden_units(self, region: np.ndarray, boxes_xyxy: np.ndarray) -> NoReturn:
        """Refuse: a script has no hidden units."""
        raise AssertionError("a script has no hidden units")

    def last_layer(self, target: str) -> NoReturn:
        """Refuse: a script has no layers."""
        raise AssertionError("a script has no layers")

    def use_last_layer(self, target: str, weights: np.ndarray) -> NoReturn:
        """Refuse: a script has no layers."""
        raise AssertionError("a script has no layers")

    def remember(self, target: str, slot: int, region: np.ndarray, box_xyxy: np.ndarray) -> None:
        """Write the sample down under its slot."""
        self.stored[slot] = region, box_xyxy

    def learn(self, target: str, weights: np.ndarray, iterations: int) -> None:
        """Write the call down."""
        self.learned.append(Learned(weights.copy(), iterations))

    def pack(self, target: str, region: object) -> dict[str, np.ndarray]:
        """Return nothing: a script has no arrays."""
        return {}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
        """Return the handles of `start`."""
        return "model", "first frame"
