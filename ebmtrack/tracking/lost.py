"""Where a target that is lost is looked for besides its last place: over the whole image, the nearest places first.

A search region sees two and a half target sizes to each side. What leaves the image and returns elsewhere, or moves on
behind something large, is never in it again. So a lost target gets `looks_around` more search regions in every frame,
which take turns over the image. What is found there must be seen clearly (`clear_score`), and the frame is not learned.
"""

from __future__ import annotations

import math

import numpy as np

STEP = 0.5  # of a search region's side: most that neighbouring places are apart
MOST = 64  # places along each axis, where the region is tiny


def places(position_yx: np.ndarray, side: float, shape: tuple[int, ...]) -> np.ndarray:
    """Centres (n, 2), as y, x, of search regions of `side` image pixels that cover an image of `shape`.

    Sorted by their distance from the position. The image is cut into equal cells of at most half a region's side, but
    no more than 64 along each axis; each has a region around its centre.

    >>> places(np.array([10.0, 90.0]), 100, (50, 100)).tolist()
    [[25.0, 75.0], [25.0, 25.0]]
    """
    counts = [min(MOST, math.ceil(extent / (STEP * side))) for extent in shape[:2]]
    axes = [(np.arange(n) + 0.5) / n * extent for n, extent in zip(counts, shape)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return centres[np.linalg.norm(centres - position_yx, axis=1).argsort(kind="stable")]


def turn(centres: np.ndarray, frames: int, looks: int) -> np.ndarray:
    """The places (at most `looks`, 2) whose turn it is in the `frames`-th frame, from 1, in which a target is lost.

    >>> [turn(np.arange(5), frames, 2).tolist() for frames in (1, 2, 3)]
    [[0, 1], [2, 3], [4, 0]]
    """
    looks = min(looks, len(centres))
    return centres[(np.arange(looks) + (frames - 1) * looks) % len(centres)]
