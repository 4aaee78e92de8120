"""Pictures of a sequence on a page: frames around failures, with the annotation and every tracker's box."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ResultError
from ebmtrack.evaluation.charts import COLORS
from ebmtrack.evaluation.metrics import SequenceScore
from ebmtrack.images import encode_picture, read_rgb

Array = np.ndarray

FAILURE = 0.2  # overlap of the best frame of a failure
_FAR = 1e5  # pixels; boxes are cut there, because a lost tracker's may be anywhere


@dataclass(frozen=True)
class Rectangle:
    """A box over a picture, in pixels of the frame, with the page's class for its colour."""

    label: str
    style: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Shot:
    """A part of a frame as a JPEG inside the page, with boxes in pixels of the frame.

    Attributes:
        view: The part that is shown: x, y, width, height.
        image: The JPEG as a `data:` address.
    """

    frame: int
    overlap: float
    view: tuple[int, int, int, int]
    image: str
    rectangles: tuple[Rectangle, ...]

    @property
    def text(self) -> str:
        """The line below the picture."""
        return f"frame {self.frame}, overlap {max(self.overlap, 0):.2f}"


def failures(score: SequenceScore) -> list[tuple[int, int]]:
    """Return first and last frame of each stretch of judged frames with an overlap of at most 0.2, in order."""
    bad = (score.overlap <= FAILURE) & score.valid
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(int), [0]])))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2])]


def longest(stretches: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the longest of some stretches, the first of equals; None without any."""
    return max(stretches, key=lambda stretch: stretch[1] - stretch[0], default=None)


def frames_around(stretch: tuple[int, int]) -> list[int]:
    """Return the frame before a failure, its first, middle and last frame."""
    first, last = stretch
    return sorted({max(first - 1, 0), first, (first + last) // 2, last})


def shots(
    paths: Sequence[Path],
    truth_xywh: Array,
    overlap: Array,
    boxes_xywh: Mapping[tuple[str, int], Array],
    frames: Iterable[int],
    width: int = 480,
) -> list[Shot]:
    """Return pictures of some frames.

    Args:
        paths: Image files of all frames of the sequence.
        truth_xywh: Annotated boxes (N, 4), NaN where there are none.
        overlap: Overlap of the first tracker (N,).
        boxes_xywh: (label, position) of each tracker -> its boxes (M, 4). M may differ from N: another toolkit may
            have stopped early. The surroundings of the first tracker's box are shown.
        frames: Numbers of the frames, from 0.
        width: Width of the pictures in pixels.

    Raises:
        DatasetError: An image cannot be read.
        ResultError: There is no tracker.
    """
    if not boxes_xywh:
        raise ResultError("a picture of a frame needs at least one tracker's boxes")
    return [_shot(read_rgb(paths[i]), i, float(overlap[i]), truth_xywh[i], boxes_xywh, width) for i in frames]


def _shot(
    image_rgb: Array, frame: int, overlap: float, truth: Array, boxes: Mapping[tuple[str, int], Array], width: int
) -> Shot:
    here = {who: those[frame] for who, those in boxes.items() if frame < len(those)}
    first = next(iter(boxes))
    shown = [box for box in (truth, here.get(first)) if box is not None and np.isfinite(box).all()]
    height_px, width_px = image_rgb.shape[:2]
    left, top, right, bottom = window(width_px, height_px, np.clip(np.array(shown).reshape(-1, 4), -_FAR, _FAR))
    scale = width / (right - left)
    part = cv2.resize(image_rgb[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rectangles = [_rectangle(label, f"c{position % len(COLORS)}", box) for (label, position), box in here.items()]
    known = [r for r in (*reversed(rectangles), _rectangle("annotation", "truth", truth)) if r is not None]
    return Shot(frame, overlap, (left, top, right - left, bottom - top), _jpeg(part), tuple(known))


def _rectangle(label: str, style: str, box: Array) -> Rectangle | None:
    if not np.isfinite(box).all():
        return None
    x, y, w, h = (round(float(v), 1) for v in np.clip(box, -_FAR, _FAR))
    return Rectangle(label, style, x, y, w, h)


def _jpeg(image_rgb: Array) -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_picture(image_rgb, '.jpg', quality=75)).decode()}"


def window(width: int, height: int, boxes_xywh: Array) -> tuple[int, int, int, int]:
    """Return the part of an image to show around boxes (N, 4): left, top, right, bottom.

    It is three times as large as what encloses the boxes, at least a quarter of the image's width, of the image's
    shape and inside it; the whole image if that does not fit, or without boxes.
    """
    if not len(boxes_xywh):
        return 0, 0, width, height
    low, high = boxes_xywh[:, :2].min(axis=0), (boxes_xywh[:, :2] + boxes_xywh[:, 2:]).max(axis=0)
    share = float(max((3 * (high - low) / [width, height]).max(), 0.25))
    if share >= 1:
        return 0, 0, width, height
    size = np.maximum(np.rint([share * width, share * height]), 1)
    left, top = np.clip(np.rint((low + high - size) / 2), 0, [width, height] - size)
    return int(left), int(top), int(left + size[0]), int(top + size[1])
