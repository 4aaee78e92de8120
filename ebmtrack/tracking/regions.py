"""The search regions of a frame: where a target is looked for, and how much of each region the network sees.

A calm target may get inner looks: the network sees the inner two thirds of the region's side, at four ninths of the
work; the rest of the feature maps is zero, as beyond an image's edge. At most `inner_looks` of them follow a look at
the whole region, which sees in time what comes near.

A lost target gets `looks_around` more regions in every frame, which take turns over the image, the nearest places
first: what leaves the image and returns elsewhere is never in the region around its last place. What is found there
must be seen clearly (`clear_score`), and the frame is not learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ebmtrack.data.crops import CropMap, crop_around
from ebmtrack.engines.base import Engine, InnerLook, Look, Mark, WholeLook
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.state import Region, TargetState, View

CALM_SCORE = 2.0  # times the threshold below which a target is not found
CALM_MOTION = 1.5  # cells in the last frame
CALM_SIDE = 0.5  # of the inner part: longest side of the box
GRID_STEP = 0.5  # of a search region's side: largest distance of neighbouring centres of the grid
GRID_MOST = 64  # centres along each axis, for tiny regions


def search_regions(state: TargetState, image: np.ndarray, inner_looks: int, stride: int) -> list[Region]:
    """Return the regions in which a target is looked for in the next frame.

    Args:
        state: the target after the last frame.
        image: (height, width, 3) uint8 RGB.
        inner_looks: frames with an inner look after each one with a whole look.
        stride: crop pixels per cell of the network.

    Returns:
        The region around the last position, and more if the target is lost.
    """
    params, centres = state.params, [state.position_yx]
    if state.lost_frames and params.looks_around:
        grid = search_grid(state.position_yx, state.scale * params.sample_size, image.shape)
        centres.extend(next_centres(grid, state.lost_frames, params.looks_around))
    regions = [cut_region(image, centre, state.scale, params) for centre in centres]
    if can_use_inner_crop(state, inner_looks):
        return [crop_inner(regions[0], stride)]
    return regions


def cut_region(image: np.ndarray, centre_yx: np.ndarray, scale: float, params: TrackerParams) -> Region:
    """Return the whole region of `sample_size` pixels around a centre at `scale` image pixels each."""
    side, size = scale * params.sample_size, params.sample_size
    crop = crop_around(
        image, tuple(centre_yx), (side, side), (size, size), params.border, params.max_scale_change, params.crop_rule
    )
    crop_map = CropMap(crop.centre_yx, crop.scale, size, 0.5 if params.half_pixel_late else 0.0)
    return Region(crop.patch, crop_map, crop.window_xywh)


def look_at(
    engine: Engine, states: Sequence[TargetState], regions: Sequence[Sequence[Region]], mark: Mark
) -> list[list[View]]:
    """Return the views of each target's regions; all regions of a size go through the network together."""
    flat = [(state, region) for state, some in zip(states, regions) for region in some]
    margin = {state.params.sample_size: margin_cells(state.params.sample_size, engine.info.stride) for state in states}
    looks: list[Look] = [
        InnerLook(state.model, region.patch, margin[region.map.side], state.whole)
        if region.is_inner
        else WholeLook(state.model, region.patch)
        for state, region in flat
    ]
    sights = iter(engine.look(looks, mark))
    return [[_view(state, region, *next(sights)) for region in some] for state, some in zip(states, regions)]


def _view(state: TargetState, region: Region, features, scores: np.ndarray) -> View:
    """Return a view; PrDiMP's scores are turned into probabilities."""
    return View(region, features, softmax(scores) if state.params.softmax_scores else scores)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities (h, w) that are proportional to exp(scores) and sum to 1."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


# Inner looks.


def margin_cells(side: int, stride: int) -> int:
    """Return the number of cells that an inner look leaves out at each edge of a region: about a sixth of the side.

    >>> [margin_cells(side, 16) for side in (288, 352)]
    [3, 4]
    """
    return round(side / stride / 6)


def crop_inner(region: Region, stride: int) -> Region:
    """Return the region with the inner part of its patch."""
    side = region.map.side
    margin = stride * margin_cells(side, stride)
    return Region(region.patch[margin : side - margin, margin : side - margin], region.map, region.window_xywh, True)


def can_use_inner_crop(state: TargetState, inner_looks: int) -> bool:
    """Return whether an inner look will do: the target is calm, and it is not the turn of a whole look."""
    return inner_looks > 0 and state.is_calm and (state.frame + state.phase) % (inner_looks + 1) != 0


def is_calm(state: TargetState, found: Localization, stride: int) -> bool:
    """Return whether a frame left no doubt and little motion, and the target is small enough for inner looks.

    Args:
        state: the target after the frame.
        found: what the frame's score map said.
        stride: crop pixels per cell.
    """
    side = state.params.sample_size
    inner_side = side - 2 * stride * margin_cells(side, stride)
    return (
        found.verdict == "normal"
        and found.score >= CALM_SCORE * state.params.not_found_threshold
        and math.hypot(*found.displacement_yx) <= CALM_MOTION
        and float(state.size_hw.max()) / state.scale <= CALM_SIDE * inner_side
    )


# Looking around for a lost target.


def search_grid(position_yx: np.ndarray, side: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return centres (n, 2), as y, x, of search regions that cover an image, the nearest to a position first.

    The image is cut into equal cells of at most half a region's side, at most 64 along each axis; each cell has a
    region around its centre.

    Args:
        position_yx: the target's last position.
        side: of the regions, in image pixels.
        shape: the image's (height, width, ...).

    >>> search_grid(np.array([10.0, 90.0]), 100, (50, 100)).tolist()
    [[25.0, 75.0], [25.0, 25.0]]
    """
    counts = [min(GRID_MOST, math.ceil(extent / (GRID_STEP * side))) for extent in shape[:2]]
    axes = [(np.arange(n) + 0.5) / n * extent for n, extent in zip(counts, shape)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return centres[np.linalg.norm(centres - position_yx, axis=1).argsort(kind="stable")]


def next_centres(grid: np.ndarray, lost_frames: int, looks: int) -> np.ndarray:
    """Return the next `looks` search centres; successive lost frames cycle through the grid.

    Args:
        grid: (n, 2) centres.
        lost_frames: number of frames for which the target is lost, from 1.
        looks: number of centres in a frame.

    >>> [next_centres(np.arange(5), frames, 2).tolist() for frames in (1, 2, 3)]
    [[0, 1], [2, 3], [4, 0]]
    """
    looks = min(looks, len(grid))
    return grid[(np.arange(looks) + (lost_frames - 1) * looks) % len(grid)]
