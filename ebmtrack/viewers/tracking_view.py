"""A tracker's view, frame by frame, on a visdom panel: frame, score map, energy, candidates before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import current_process
from typing import Any

import cv2
import numpy as np

from ebmtrack.viewers.corner_map import corner_map
from ebmtrack.viewers.drawing import GREY, ORANGE, SKY, WHITE, draw_box
from ebmtrack.viewers.visdom import DEFAULT_SERVER, VisdomPanel

GRID = 21  # points of the energy map in each direction
REACH = 0.3  # of the energy map to each side of the corner, in box widths and heights
FLOOR = -10.0  # energies lower than this below the highest look alike: there the density is e^-10 of its peak
CLOSE_UP = 480  # side of the picture of the candidates, pixels


class TrackingView:
    """Shows each frame of a tracker on a panel; frames that come while the panel is busy are passed over.

    tracker: its `candidates` and `corner_log_density` are asked for what the last update saw; one without them, or
    whose results are not TrackResults, is shown by what there is. curves: the score of every frame as a curve as well.
    """

    def __init__(self, panel: VisdomPanel, tracker: Any, curves: bool = False):
        self.panel, self.tracker, self.curves = panel, tracker, curves

    def __call__(self, name: str, number: int, image_rgb: np.ndarray, result: Any) -> None:
        """Show frame `number` of the sequence `name`, (h, w, 3), and the TrackResult that the tracker gave for it."""
        if self.curves and hasattr(result, "score"):
            self.panel.curve("score", name, number, result.score)
        if self.panel.ready:
            self.panel.image("frame", drawn_frame(image_rgb, result), f"{name}, frame {number}")
            self._show_maps(image_rgb, result)

    def _show_maps(self, image_rgb: np.ndarray, result: Any) -> None:
        """Score map, energy and candidates, as far as the tracker has them."""
        if getattr(result, "score_map", None) is not None:
            self.panel.heat_map("score map", result.score_map, "classifier score")
        if not getattr(result, "found", True):
            return
        if hasattr(self.tracker, "corner_log_density"):
            energy = energy_map(self.tracker, result.box_xywh)
            self.panel.heat_map("energy", energy, "energy, by top right corner")
        if hasattr(self.tracker, "candidates"):
            before, after = self.tracker.candidates()
            picture = candidates_picture(image_rgb, before, after, result.box_xywh)
            self.panel.image("candidates", picture, "dashed: before the climb, blue: after it, white: the result")


def drawn_frame(image_rgb: np.ndarray, result: Any) -> np.ndarray:
    """Return a copy of the frame with the box and, dashed, the search region."""
    drawn = image_rgb.copy()
    if hasattr(result, "search_xywh"):
        draw_box(drawn, result.search_xywh, colour=GREY, dashed=True)
    lost, score = not getattr(result, "found", True), getattr(result, "score", None)
    label = "" if lost else getattr(result, "verdict", "").replace("_", " ")
    return draw_box(drawn, result.box_xywh, label, score, lost=lost)


def energy_map(tracker: Any, box_xywh: Sequence[float]) -> np.ndarray:
    """Return f - max f (GRID, GRID), at least FLOOR, of boxes whose top right corner moves around that of the box.

    Their bottom left corner stays (ECCV 2020, figure 1). Row 0 is the top.
    """
    return np.maximum(corner_map(tracker.corner_log_density, box_xywh, GRID, REACH)[0], FLOOR)


def candidates_picture(
    image_rgb: np.ndarray, before_xywh: np.ndarray, after_xywh: np.ndarray, box_xywh: Sequence[float]
) -> np.ndarray:
    """Return a close-up (CLOSE_UP, CLOSE_UP, 3) with candidate boxes (R, 4) before and after the climb."""
    boxes = np.concatenate([before_xywh, after_xywh, [box_xywh]]).astype(np.float64)
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    zoom = CLOSE_UP / (1.1 * max(*(high - low), 8.0))
    shift = CLOSE_UP / 2 - zoom * (low + high) / 2
    to_view = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    view = cv2.warpAffine(image_rgb, to_view, (CLOSE_UP, CLOSE_UP))
    boxes = np.concatenate([boxes[:, :2] * zoom + shift, boxes[:, 2:] * zoom], axis=1)
    for box in boxes[: len(before_xywh)]:
        draw_box(view, box, colour=ORANGE, dashed=True)
    for box in boxes[len(before_xywh) : -1]:
        draw_box(view, box, colour=SKY)
    return draw_box(view, boxes[-1], colour=WHITE)


@dataclass(frozen=True)
class ShowingFactory:
    """Makes the trackers of another factory for `ebmtrack eval`, and lets each process show what its tracker sees.

    The processes' environments are ebmtrack_eval_1 and so on. Showing happens outside of the time that is measured.
    """

    inner: Any
    server: str = DEFAULT_SERVER

    def __call__(self, params: str, device: str) -> Any:
        """Return a tracker of the inner factory, with a `watch` that the runner calls after each frame."""
        tracker = self.inner(params, device)
        number = current_process().name.rpartition("-")[2]
        env = f"ebmtrack_eval_{number}" if number.isdigit() else "ebmtrack_eval"
        tracker.watch = TrackingView(_panel(env, self.server), tracker)
        return tracker

    def describe(self, params: str) -> Any:
        """Return what the inner factory does: showing changes no result."""
        return self.inner.describe(params)


@cache
def _panel(env: str, server: str) -> VisdomPanel:
    """Return the one panel of this process for an environment: trackers come and go, where sequences fail."""
    return VisdomPanel(env, server)


class ScoreCurves:
    """A listener of `ebmtrack eval` for finished sequences: its AUC, and the mean so far, as curves on a panel."""

    def __init__(self, panel: VisdomPanel):
        self.panel = panel
        self.aucs: dict[str, list[float]] = {}

    def __call__(self, task: Any, auc: float) -> None:
        """Note one sequence's area under the success curve (0 to 1)."""
        name, aucs = f"{task.params} run {task.run}", self.aucs.setdefault(f"{task.params} run {task.run}", [])
        aucs.append(auc)
        good = [value for value in aucs if math.isfinite(value)]
        self.panel.curve("AUC", f"{name}, sequence", len(aucs), auc)
        self.panel.curve("AUC", f"{name}, mean so far", len(aucs), sum(good) / len(good) if good else math.nan)
