"""Cut-outs for compositions, from the boxes of video and photographs, by GrabCut (Rother et al., SIGGRAPH 2004)."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import write_bytes
from ebmtrack.videos.source import Source

CONTEXT = 0.35  # of the box's longest side, around the box: what GrabCut learns the background from
LONGEST = 160  # pixels of the longest side of what is cut, context included
LEAST_SIDE = 24  # pixels of the shorter side of a box after that
LEAST_BACKGROUND = 5  # pixels outside the box after that: GrabCut fits as many Gaussians to them
ITERATIONS = 4
LEAST_PIECE = 0.9  # of the foreground in its largest piece: the object is one piece
LEAST_REACH = 0.88  # of the box's width and height; less is a part of the object
FILLS = (0.3, 0.93)  # of the box; more means that nothing was cut away
LEAST_CONVEX = 0.55  # of the convex hull's area
MOST_RAGGED = 1.7  # times the convex hull's outline
QUALITY = 90


def cut_out(image: np.ndarray, box_xywh: Sequence[float] | np.ndarray) -> np.ndarray | None:
    """Cut the object in a box out of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        box_xywh: (4,) the object's box in pixels, inside the image.

    Returns:
        (h, w, 4) uint8 RGBA at most 160 pixels long, with soft edges; None if the outline is not believable: the object
        touches the image's edge, is in pieces, does not reach the sides of its box, or fills it.
    """
    found = _patch(image, np.asarray(box_xywh, np.float64))
    if found is None:
        return None
    patch, box = found
    solid = _largest_piece(_foreground(patch, box), box)
    if solid is None or not _is_believable(solid):
        return None
    alpha = cv2.GaussianBlur(solid.astype(np.float32) * 255, (3, 3), 0)
    x, y, width, height = cv2.boundingRect(solid)
    return np.dstack([patch, alpha.astype(np.uint8)])[y : y + height, x : x + width]


def write_cutouts(source: Source, out: Path, least_side: float = 48.0, frames: int = 2) -> Iterator[Path | None]:
    """Write the cut-outs of a source's targets into a folder; those that are there are left as they are.

    An image that cannot be read is left out, with a warning. A file's name is cut-FAMILY-KIND_NUMBER.webp: compositions
    take its beginning for the kind of object.

    Args:
        source: targets, such as a part of `open_training_folder`.
        out: folder of the cut-outs; made with the first one, since training refuses a pool's if it is empty.
        least_side: of a box, in pixels.
        frames: number of frames of a video that are tried, evenly spread.

    Yields:
        For each frame that is tried the file of its cut-out, or None if there is none.

    Raises:
        ConfigError: if `least_side` or `frames` is not positive, or `out` is a file.
    """
    if not (least_side > 0 and frames > 0):
        raise ConfigError(f"least_side={least_side}, frames={frames}: both must be above 0")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: cut-outs go to a folder, and this is none; choose another")
    for index in range(len(source)):
        boxes = source.boxes_xywh(index)
        able = np.flatnonzero(source.visible(index) & (boxes[:, 2:].min(axis=1) >= least_side))
        for frame in able[:: -(-len(able) // frames)] if len(able) else able:
            file = out / f"{_file_stem(source, index, int(frame))}.webp"
            if file.exists():
                yield file
                continue
            try:
                image = source.frame(index, int(frame))
            except DatasetError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                yield None
                continue
            piece = cut_out(image, boxes[frame])
            if piece is not None:
                write_bytes(file, _webp(piece))
            yield None if piece is None else file


def _file_stem(source: Source, index: int, frame: int) -> str:
    """Return the name of a cut-out: kind of object, then a number that follows from target and frame."""
    name = source.target_name(index)
    parts = [*name.split("_")[: 2 if name.islower() else 1], source.category(index)]
    kind = "-".join(filter(None, (re.sub("[^A-Za-z]", "", part) for part in parts)))
    return f"cut-{kind}_{zlib.crc32(f'{name}:{frame}'.encode())}"


def _webp(piece: np.ndarray) -> bytes:
    """Return a file's bytes of an RGBA image."""
    encoded = cv2.imencode(".webp", cv2.cvtColor(piece, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    return encoded.tobytes()


def _patch(image: np.ndarray, box_xywh: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the scaled surroundings of a box, and the box in them (4,) int; None at the image's edge or if small.

    None as well if the box fills the image so far that hardly a pixel around it is left after scaling.
    """
    height, width = image.shape[:2]
    x, y, w, h = box_xywh
    if x < 2 or y < 2 or x + w > width - 2 or y + h > height - 2:
        return None
    margin = CONTEXT * max(w, h)
    left, top = int(max(0, x - margin)), int(max(0, y - margin))
    patch = image[top : int(min(height, y + h + margin)), left : int(min(width, x + w + margin))]
    scale = min(1.0, LONGEST / max(patch.shape[:2]))
    patch = cv2.resize(patch, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    box = np.rint(np.array([x - left, y - top, w, h]) * scale).astype(int)
    inside = np.minimum(box[:2] + box[2:], patch.shape[1::-1]) - box[:2]
    has_background = patch.shape[0] * patch.shape[1] - inside.prod() >= LEAST_BACKGROUND
    return (patch, box) if box[2:].min() >= LEAST_SIDE and has_background else None


def _foreground(patch: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return GrabCut's foreground (h, w) uint8, 0 or 1, without specks."""
    mask = np.zeros(patch.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(patch[..., ::-1].copy(), mask, box.tolist(), *models, ITERATIONS, cv2.GC_INIT_WITH_RECT)
    foreground = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    return cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def _largest_piece(foreground: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Return the largest piece with its holes filled, (h, w) uint8; None if it does not suit the box."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(foreground)
    if count < 2:
        return None
    piece = 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))
    area = facts[piece, cv2.CC_STAT_AREA]
    reach = facts[piece, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]] / box[2:]
    fill = area / (box[2] * box[3])
    if area < LEAST_PIECE * foreground.sum() or reach.min() <= LEAST_REACH or not FILLS[0] < fill < FILLS[1]:
        return None
    outlines, _ = cv2.findContours((labels == piece).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(foreground), outlines, -1, 1, cv2.FILLED)


def _is_believable(solid: np.ndarray) -> bool:
    """Return whether the outline of a solid piece is neither ragged nor a thin frame."""
    outline = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
    hull = cv2.convexHull(outline)
    is_ragged = cv2.arcLength(outline, True) > MOST_RAGGED * cv2.arcLength(hull, True)
    return not is_ragged and cv2.contourArea(outline) >= LEAST_CONVEX * cv2.contourArea(hull)
