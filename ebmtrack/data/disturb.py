"""Disturbances of training crops that make a tracker robust: occluders, look-alikes, low resolution.

The target's box stays as it is. All draws come from the sample's generator, so that a sample depends on its number
alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import cv2
import numpy as np


@runtime_checkable
class Material(Protocol):
    """A store of pictures that occluders are made of."""

    def draw_cutout(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random cut-out (h, w, 4) uint8 RGBA."""

    def draw_photograph(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random photograph (H, W, 3) uint8 RGB."""


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """Probabilities of what disturbs a sample.

    occlude_train, occlude_test: of an occluder over part of the target, for each frame. look_alike: of an altered copy
    of the target beside it, for a whole sample. low_resolution: of a sample that is reduced, so that its target has 10
    to 35 pixels, and enlarged again.
    """

    occlude_train: float = 0.0
    occlude_test: float = 0.0
    look_alike: float = 0.0
    low_resolution: float = 0.0


@dataclasses.dataclass(frozen=True)
class SampleDisturbance:
    """The draws that all frames of one sample share.

    look_alike: altered target (h, w, 4) uint8 RGBA and its bearing in radians, or None. reduction: factor on the crop's
    resolution, 1 for none.
    """

    look_alike: tuple[np.ndarray, float] | None
    reduction: float


def draw_sample_disturbance(
    settings: Disturbance, patch: np.ndarray, box_xywh: np.ndarray, rng: np.random.Generator
) -> SampleDisturbance:
    """Draw what is shared by the frames of a sample whose first crop is `patch` (H, W, 3) with the target's box."""
    copy = None
    if rng.random() < settings.look_alike:
        altered = _altered_copy(patch, box_xywh, rng)
        copy = None if altered is None else (altered, float(rng.uniform(0, 2 * math.pi)))
    reduction = 1.0
    if rng.random() < settings.low_resolution:
        side = math.sqrt(max(float(box_xywh[2] * box_xywh[3]), 1.0))
        reduction = min(1.0, math.exp(rng.uniform(math.log(10), math.log(35))) / side)
    return SampleDisturbance(copy, reduction)


def disturb(
    patch: np.ndarray,
    box_xywh: np.ndarray,
    shared: SampleDisturbance,
    occlude: float,
    material: Material | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a disturbed copy of a crop (H, W, 3) uint8; `occlude` is the probability of an occluder."""
    patch = np.ascontiguousarray(patch)
    if shared.look_alike is not None:
        patch = patch.copy()
        _paste_look_alike(patch, box_xywh, *shared.look_alike, rng)
    if material is not None and rng.random() < occlude:
        patch = patch.copy()
        _occlude(patch, box_xywh, material, rng)
    if shared.reduction < 0.95:
        patch = _reduce_detail(patch, shared.reduction * math.exp(rng.normal(0, 0.05)))
    return patch


def _altered_copy(patch: np.ndarray, box_xywh: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the target in other colours, often mirrored, with a soft elliptic mask; None if it is too small."""
    x, y, w, h = np.round(box_xywh).astype(int)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, patch.shape[1]), min(y + h, patch.shape[0])
    if x1 - x0 < 8 or y1 - y0 < 8:
        return None
    own = cv2.cvtColor(np.ascontiguousarray(patch[y0:y1, x0:x1]), cv2.COLOR_RGB2HSV).astype(np.float32)
    own[..., 0] = (own[..., 0] + rng.choice([-1, 1]) * rng.uniform(8, 40)) % 180
    own[..., 1] *= rng.uniform(0.6, 1.4)
    own[..., 2] *= rng.uniform(0.7, 1.3)
    rgb = cv2.cvtColor(np.clip(own, 0, [179, 255, 255]).astype(np.uint8), cv2.COLOR_HSV2RGB)
    if rng.random() < 0.6:
        rgb = rgb[:, ::-1]
    ys, xs = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
    alpha = np.clip((1.05 - np.sqrt(xs**2 + ys**2)) * 5, 0, 1) * 255
    return np.dstack([rgb, alpha.astype(np.uint8)])


def _paste_look_alike(
    patch: np.ndarray, box_xywh: np.ndarray, copy: np.ndarray, bearing: float, rng: np.random.Generator
) -> None:
    """Paste the altered copy, in place, 1.0 to 1.8 target sizes from the target; it drifts between frames."""
    w, h = float(box_xywh[2]), float(box_xywh[3])
    scale = math.sqrt(max(w * h, 1.0) / (copy.shape[0] * copy.shape[1])) * rng.uniform(0.8, 1.2)
    size = max(4, round(copy.shape[1] * scale)), max(4, round(copy.shape[0] * scale))
    angle = bearing + rng.normal(0, 0.5)
    direction = np.array([math.cos(angle), math.sin(angle)])
    reach = 1 / max(abs(direction[0]) / (w + size[0]), abs(direction[1]) / (h + size[1])) / 2  # boxes that touch
    centre = box_xywh[:2] + box_xywh[2:] / 2 + direction * reach * rng.uniform(0.9, 1.6)
    _paste(patch, cv2.resize(copy, size, interpolation=cv2.INTER_AREA), centre - np.array(size) / 2)


def _occlude(patch: np.ndarray, box_xywh: np.ndarray, material: Material, rng: np.random.Generator) -> None:
    """Cover 15 to 55 % of the target from one side, in place, with a cut-out or a piece of a photograph."""
    w, h = np.maximum(box_xywh[2:], 4)
    side, cover = rng.integers(4), rng.uniform(0.15, 0.55)
    size = np.array([w, h]) * rng.uniform(0.7, 1.6, 2)
    along = rng.uniform(-0.35, 0.35)
    centre = box_xywh[:2] + box_xywh[2:] / 2
    axis, sign = side % 2, 1 if side < 2 else -1
    extent = (w, h)[axis]
    centre[axis] += sign * (extent / 2 + size[axis] / 2 - cover * extent)
    centre[1 - axis] += along * (w, h)[1 - axis]
    wh = max(4, round(float(size[0]))), max(4, round(float(size[1])))
    if rng.random() < 0.5:
        piece = material.draw_cutout(rng)
    else:
        photo = material.draw_photograph(rng)
        ph, pw = min(photo.shape[0], wh[1] * 2), min(photo.shape[1], wh[0] * 2)
        y, x = rng.integers(photo.shape[0] - ph + 1), rng.integers(photo.shape[1] - pw + 1)
        piece = np.dstack([photo[y : y + ph, x : x + pw], np.full((ph, pw), 255, np.uint8)])
    _paste(patch, cv2.resize(piece, wh, interpolation=cv2.INTER_AREA), centre - np.array(wh) / 2)


def _paste(patch: np.ndarray, rgba: np.ndarray, corner_xy: np.ndarray) -> None:
    """Blend RGBA pixels over a patch, in place; what reaches beyond it is cut."""
    x, y = (round(float(v)) for v in corner_xy)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + rgba.shape[1], patch.shape[1]), min(y + rgba.shape[0], patch.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = rgba[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.float32)
    alpha, under = part[..., 3:] / 255, patch[y0:y1, x0:x1]
    under[:] = (alpha * part[..., :3] + (1 - alpha) * under + 0.5).astype(np.uint8)


def _reduce_detail(patch: np.ndarray, factor: float) -> np.ndarray:
    """Return the patch at its own size after a reduction by `factor` below 1."""
    h, w = patch.shape[:2]
    factor = min(1.0, factor)
    small = cv2.resize(patch, (max(8, round(w * factor)), max(8, round(h * factor))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
