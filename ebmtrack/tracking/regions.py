"""The search regions of a frame: where a target is looked for, and how much of each region the network sees.

A calm target may get inner looks: the network sees the inner two thirds of the region's side, at four ninths of the
work; the rest of the feature maps is zero, as beyond an image's edge. At most `inner_looks` of them follow a look at
the whole region, which sees in time what comes near.

A frame in which the target is not found gets `looks_around` more regions at once. They take turns over the image, the
nearest places first: what a jolt of the camera has moved, or what leaves the image and returns elsewhere, is not in the
region around its last place. What is found there must be seen clearly (`clear_score`). It may be something else while
the target is covered, so for `doubtful_frames` it is not learned, and the place before is looked at, too. (A target
that leaps again and again within that time is not learned at all.)
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
GRID_STEP = 0.75  # of a search region's side: distance of neighbouring places in which a lost target is looked for
THIN = 0.1  # of a search region's side: a strip at the image's edge for which there is no place of its own
GRID_MOST = 64  # places in each direction, for tiny regions


def search_region(state: TargetState, image: np.ndarray, inner_looks: int, stride: int) -> Region:
    """Return the region around the last position, in which a target is looked for first.

    Args:
        state: the target after the last frame.
        image: (height, width, 3) uint8 RGB.
        inner_looks: frames with an inner look after each one with a whole look.
        stride: crop pixels per cell of the network.
    """
    region = cut_region(image, state.position_yx, state.scale, state.params)
    return crop_inner(region, stride) if can_use_inner_crop(state, inner_looks) else region


def region_before(state: TargetState, image: np.ndarray) -> list[Region]:
    """Return the region around the place that looking around has taken the target from, while that is in doubt."""
    if not state.doubt:
        return []
    return [cut_region(image, state.found_yx, state.at_found.scale, state.params)]


def regions_around(state: TargetState, image: np.ndarray) -> list[Region]:
    """Return further regions for a frame in which a target is not in the first one; none if the image ends there.

    Args:
        state: the target after the last frame.
        image: (height, width, 3) uint8 RGB.
    """
    places = places_around(state.position_yx, state.scale * state.params.sample_size, image.shape)
    centres = next_places(places, state.lost_frames, state.params.looks_around)
    return [cut_region(image, centre, state.scale, state.params) for centre in centres]


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
    looks: list[Look] = [
        InnerLook(state.model, region.patch, margin_cells(region.map.side, engine.info.stride), state.whole)
        if region.is_inner
        else WholeLook(state.model, region.patch)
        for state, region in flat
    ]
    sights = iter(engine.look(looks, mark) if looks else [])
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
    """Return the region with the inner part of its patch; a region of few cells, which have no margin, as it is."""
    side = region.map.side
    margin = stride * margin_cells(side, stride)
    if not margin:
        return region
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


def places_around(position_yx: np.ndarray, side: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return centres (n, 2), as y, x, of regions that cover an image with the one around a position, nearest first.

    They lie on a grid around the position with steps of three quarters of a region's side, at most 64 in each
    direction. The outermost ones are moved, so that their regions end with the image. A strip of up to a tenth of a
    side beside the target's own region, half a target or less, is left out.

    Args:
        position_yx: the target's last position, whose own region is left out.
        side: of the regions, in image pixels.
        shape: the image's (height, width, ...).

    >>> places_around(np.array([50.0, 50.0]), 100, (100, 250)).tolist()
    [[50.0, 125.0], [50.0, 200.0]]
    """
    axes = [_steps(float(centre), side, extent) for centre, extent in zip(position_yx, shape[:2])]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return centres[np.linalg.norm(centres - position_yx, axis=1).argsort(kind="stable")][1:]


def _steps(centre: float, side: float, extent: int) -> np.ndarray:
    """Return the coordinates of regions along an axis of an image from 0 to `extent`, one of them `centre`."""
    step = GRID_STEP * side
    strips = (distance - side / 2 - THIN * side for distance in (centre, extent - centre))
    before, after = (min(GRID_MOST, max(0, math.ceil(strip / step))) for strip in strips)
    steps = centre + step * np.arange(-before, after + 1)
    if 0 < before < GRID_MOST:
        steps[0] = side / 2
    if 0 < after < GRID_MOST:
        steps[-1] = extent - side / 2
    return steps


def next_places(places: np.ndarray, lost_frames: int, looks: int) -> np.ndarray:
    """Return the next `looks` places; successive frames without the target go through all of them in turn.

    Args:
        places: (n, 2) centres.
        lost_frames: number of frames before this one for which the target is lost.
        looks: number of places in a frame.

    >>> [next_places(np.arange(5), frames, 2).tolist() for frames in range(3)]
    [[0, 1], [2, 3], [4, 0]]
    """
    looks = min(looks, len(places))
    return places[(np.arange(looks) + lost_frames * looks) % max(len(places), 1)]
