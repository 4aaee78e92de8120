"""KITTI's average precision of 3D boxes: difficulty rules, 40 or 41 recall points.

Source: the benchmark's rules (Geiger et al., CVPR 2012; 40 points: Simonelli et al., ICCV 2019). Labels that are harder
than the difficulty, and vans for cars, neither count as missed nor make a detection false; a detection whose height in
the image is too small counts neither. DontCare regions have no 3D box, so that KITTI's program, in the plane and in
space, counts detections there as false: so does this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ebmtrack.boxes3d.kitti import Array, KittiObjects
from ebmtrack.boxes3d.overlap import overlap_matrix
from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name

NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}  # kinds that may be taken for the one that counts


@dataclass(frozen=True)
class Difficulty:
    """A rule for the labels that count: least height in the image in pixels, most occlusion and truncation."""

    least_height: float
    most_occluded: int
    most_truncated: float


DIFFICULTIES = {"easy": Difficulty(40, 0, 0.15), "moderate": Difficulty(25, 1, 0.30), "hard": Difficulty(25, 2, 0.50)}


@dataclass(frozen=True)
class _Scene:
    """A scene's overlaps (labels, detections), whether each label counts, and scores of detections.

    `optional` detections are no false ones if they match nothing.
    """

    overlap: Array
    counts: Array
    optional: Array
    scores: Array


def average_precision(
    labels: Sequence[KittiObjects],
    found: Sequence[KittiObjects],
    difficulty: str = "moderate",
    kind: str = "Car",
    iou: float = 0.7,
    where: Literal["bev", "3d"] = "3d",
    points: Literal[40, 41] = 40,
) -> float:
    """Return the average precision in percent; 0 if no label counts.

    As in KITTI's program, fewer than 41 labels cannot reach 100: each threshold is the score of one of them.

    Args:
        labels: of each scene.
        found: detections of each scene.
        difficulty: easy, moderate or hard.
        kind: such as Car.
        iou: least overlap of a match, more than which counts.
        where: overlap in the plane or in space.
        points: recalls at which precision is averaged: 1/40 to 1, or also 0.
    """
    check_name("difficulty", difficulty, DIFFICULTIES)
    check_name("overlap", where, ("bev", "3d"))
    if len(labels) != len(found) or points not in (40, 41):
        raise ConfigError(f"{len(labels)} scenes of labels and {len(found)} of detections; points is {points}")
    rule = DIFFICULTIES[difficulty]
    scenes = [_scene(label, each, rule, kind, where) for label, each in zip(labels, found)]
    total = sum(int(scene.counts.sum()) for scene in scenes)
    thresholds = _thresholds(
        np.sort(np.concatenate([_true_scores(s, iou) for s in scenes] or [np.zeros(0)]))[::-1], total
    )
    precision = np.zeros(41)
    for place, threshold in enumerate(thresholds):
        right, wrong = np.sum([_count(scene, iou, threshold) for scene in scenes], axis=0)
        precision[place] = right / max(right + wrong, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(best[1:].mean() if points == 40 else best.mean())


def _scene(labels: KittiObjects, found: KittiObjects, rule: Difficulty, kind: str, where: str) -> _Scene:
    """Return the labels and detections of a scene that matter for a kind of object."""
    right, neighbour = ([each in names for each in labels.kinds] for names in ((kind,), (NEIGHBOURS.get(kind),)))
    heights = labels.boxes_2d[:, 3] - labels.boxes_2d[:, 1]
    easy_enough = (heights > rule.least_height) & (labels.occlusion <= rule.most_occluded)
    counts = np.array(right, bool) & easy_enough & (labels.truncation <= rule.most_truncated)
    rows, columns = np.array(right, bool) | np.array(neighbour, bool), np.array([k == kind for k in found.kinds], bool)
    boxes = [torch.from_numpy(_upright(each.camera)) for each in (labels, found)]
    overlap = overlap_matrix(*boxes)[0 if where == "bev" else 1].numpy()
    optional = (found.boxes_2d[:, 3] - found.boxes_2d[:, 1]) < rule.least_height
    return _Scene(overlap[rows][:, columns], counts[rows], optional[columns], found.scores[columns])


def _upright(camera: Array) -> Array:
    """Return boxes as x, y, z of the bottom, w, l, h, theta in a frame with z up, of `KittiObjects.camera` (N, 7)."""
    x, y, z, h, w, length, ry = camera.T
    return np.stack([z, -x, -y, w, length, h, ry], axis=1)


def _matches(scene: _Scene, iou: float, threshold: float, by: Array) -> list[tuple[int, int]]:
    """Return (label, detection) pairs: each label in turn takes the free detection with the highest `by`.

    If `by` are overlaps (labels, detections), detections that are too small are taken only if there is no other; if
    they are scores (detections,), as for the thresholds, their size does not matter.
    """
    free, pairs = scene.scores >= threshold, []
    for row in range(len(scene.counts)):
        near = free & (scene.overlap[row] > iou)
        usual = near & ~scene.optional
        choice = usual if by.ndim == 2 and usual.any() else near
        if choice.any():
            best = int(np.where(choice, by if by.ndim == 1 else by[row], -np.inf).argmax())
            free[best] = False
            pairs.append((row, best))
    return pairs


def _true_scores(scene: _Scene, iou: float) -> Array:
    """Return the scores of detections that match labels which count, each label with its best score."""
    pairs = _matches(scene, iou, -np.inf, scene.scores)
    return np.array([scene.scores[c] for r, c in pairs if scene.counts[r] and not scene.optional[c]], float)


def _thresholds(scores: Array, total: int) -> list[float]:
    """Return at most 41 scores, those of true detections at which recall comes nearest to 0, 1/40, 2/40, ..., 1."""
    chosen, recall = [], 0.0
    for place, score in enumerate(scores):
        here = (place + 1) / total
        ahead = (place + 2) / total if place + 1 < len(scores) else here
        if place + 1 < len(scores) and ahead - recall < recall - here:
            continue
        chosen.append(float(score))
        recall += 1 / 40
    return chosen[:41]


def _count(scene: _Scene, iou: float, threshold: float) -> tuple[int, int]:
    """Return the numbers of true and false detections with at least a score, labels matched by overlap."""
    pairs = _matches(scene, iou, threshold, scene.overlap)
    right = sum(bool(scene.counts[r]) and not scene.optional[c] for r, c in pairs)
    taken = {c for _, c in pairs}
    left = [c for c in range(len(scene.scores)) if scene.scores[c] >= threshold and c not in taken]
    return right, sum(not scene.optional[c] for c in left)
