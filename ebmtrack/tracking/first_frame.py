"""The first frame: training views of the target, the target's model, and how the energy sees its size.

Points and shifts are (y, x), in pixels of the patch. Source of the set of views and its order: DiMP's tracker.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from ebmtrack.data.crops import CropMap, crop_around
from ebmtrack.engines.base import Engine, FirstFrame, RegionFeatures
from ebmtrack.tracking.adaptation import adapt_energy, adapts
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.refine import ascent_of, average_box, candidate_boxes
from ebmtrack.tracking.state import TargetState

EXPANSION = 2  # side of the patch that the views are cut from, in search regions
CALIBRATION_ROUNDS = 3  # climbs, each from where the one before has ended
MOST_EXCESS = 0.5  # of the size, natural logarithm
MOST_DISTANCE = 0.25  # of the centre, in the box's size


def start_target(
    engine: Engine,
    params: TrackerParams,
    image: np.ndarray,
    box_xywh: np.ndarray,
    seed: int,
    phase: int = 0,
) -> TargetState:
    """Learn a target from its first frame.

    Args:
        engine: the network.
        params: the set-up.
        image: (height, width, 3) uint8 RGB.
        box_xywh: (4,) float64, the target in image pixels.
        seed: of the target's random numbers.
        phase: number of frames by which its whole looks and checks of its size come earlier, for targets that take
            turns.

    Returns:
        The target's state after frame 1.
    """
    random, size_hw = RandomNumbers(seed), box_xywh[[3, 2]]
    position_yx = box_xywh[[1, 0]] + (size_hw - 1) / 2
    scale = math.sqrt(size_hw.prod()) * params.search_factor / params.sample_size
    first, labels = draw_first_frame(image, position_yx, size_hw, scale, params, engine, random)
    model, regions = engine.start(first)
    if adapts(params):
        adapt_energy(engine, model, regions, first, labels, params.energy_adaptation)
    count = len(first.patches) + len(first.channel_factors)
    log_excess_hw, excess_yx = excess(engine, regions[0], labels[0], params, seed)
    return TargetState(
        params=params,
        model=model,
        memory=SampleMemory(count, first.capacity, params.initial_samples_least_weight),
        random=random,
        base_area=float((size_hw / scale).prod()),
        first_log_aspect=math.log(size_hw[0] / size_hw[1]),
        log_excess_hw=params.calibration * log_excess_hw,
        excess_yx=np.array(params.centre_calibration) * excess_yx,
        phase=phase,
        frame=1,
        position_yx=position_yx,
        size_hw=size_hw,
        scale=scale,
        first_scale=scale,
        box_xywh=tuple(box_xywh.tolist()),
        lost_frames=0,
        doubt=0,
        found_yx=position_yx,
        found_hw=size_hw,
        is_calm=False,
        whole=regions[0],
        proposals=(),
    )


def excess(
    engine: Engine, whole: RegionFeatures, box_xywh: np.ndarray, params: TrackerParams, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return how the box that the energy prefers in frame 1 differs from the annotated one.

    What counts as the target is the user's choice: with or without its shadow, limbs, the rider's horse. If the energy
    sees it otherwise, it does so in every frame, and by about as much.

    Args:
        engine: the network.
        whole: the first frame's features.
        box_xywh: (4,) float32, where the annotated box is in the search region.
        params: the set-up; without calibration nothing is measured, and there is no difference.
        seed: of the random candidates.

    Returns:
        The log ratio (h, w) of the sizes, at most 0.5 either way, and the distance (y, x) of the centres in the
        annotated height and width, at most a quarter.
    """
    if not (params.calibration or any(params.centre_calibration)):
        return np.zeros(2), np.zeros(2)
    random, box = RandomNumbers(seed), box_xywh
    for _ in range(CALIBRATION_ROUNDS):
        climb = engine.climb([whole], candidate_boxes(box, params, random)[None], ascent_of(params))
        average = average_box(climb.boxes_xywh[0], climb.energies[0], params)
        box = box if average is None else average
    log_ratio_wh = np.log((box[2:] / box_xywh[2:]).astype(np.float64))
    distance_xy = ((box[:2] + box[2:] / 2 - box_xywh[:2] - box_xywh[2:] / 2) / box_xywh[2:]).astype(np.float64)
    log_ratio_wh = log_ratio_wh.astype(np.float32).clip(-MOST_EXCESS, MOST_EXCESS).astype(np.float64)
    return log_ratio_wh[::-1], distance_xy.clip(-MOST_DISTANCE, MOST_DISTANCE)[::-1]


def draw_first_frame(
    image: np.ndarray,
    position_yx: np.ndarray,
    size_hw: np.ndarray,
    scale: float,
    params: TrackerParams,
    engine: Engine,
    random: RandomNumbers,
) -> tuple[FirstFrame, np.ndarray]:
    """Return the training samples of the first frame, and where the target is in them.

    DiMP's samples have the box that the target would have if regions were not cut to whole pixels, in mirrored and
    rotated views, too. For small targets that is several hundredths of their size off.

    Args:
        image: (height, width, 3) uint8 RGB.
        position_yx: the target's centre in the image.
        size_hw: its size.
        scale: image pixels per patch pixel.
        params: the set-up.
        engine: the network.
        random: two numbers are drawn for each mirrored, blurred or rotated view, then dropout's.

    Returns:
        The samples, and the boxes (n, 4) float32 x, y, w, h that the target has in the patches; rotated views have an
        upright box around the turned centre.
    """
    views = augmented_views(image, position_yx, scale, params, random)
    crop_map = CropMap(np.round(position_yx), scale, params.sample_size)
    box_xywh = crop_map.to_crop(position_yx, size_hw).astype(np.float32)
    boxes = np.repeat(box_xywh[None], len(views.patches), axis=0)
    boxes[:, :2] += views.shifts[:, ::-1].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    kept = random.bernoulli(1 - params.dropout, params.dropout_copies, engine.info.channels)
    first = FirstFrame(
        patches=views.patches,
        boxes_xyxy=boxes,
        channel_factors=kept.astype(np.float32) / np.float32(1 - params.dropout),
        iterations=params.initial_iterations,
        capacity=max(params.memory_size, len(views.patches) + params.dropout_copies),
        regions=len(views.patches) if adapts(params) else 1,
    )
    return first, views.boxes_xywh(position_yx, size_hw).astype(np.float32)


class Views(NamedTuple):
    """Views of a target's surroundings.

    patches: (n, size, size, 3) float32. shifts: (n, 2), y and x, whole pixels by which the content is moved after it
    was turned. turns: (n, 2, 2), how offsets (x, y) from the patch's middle are turned or mirrored. map: between the
    image and the first view.
    """

    patches: np.ndarray
    shifts: np.ndarray
    turns: np.ndarray
    map: CropMap

    def boxes_xywh(self, position_yx: np.ndarray, size_hw: np.ndarray) -> np.ndarray:
        """Return the upright boxes (n, 4) that a box of the image has around its centre in each view."""
        x, y, w, h = self.map.to_crop(position_yx, size_hw)
        centres = self.turns @ (np.array([x + w / 2, y + h / 2]) - self.map.side / 2) + self.map.side / 2
        size = np.array([w, h])
        return np.concatenate([centres + self.shifts[:, ::-1] - size / 2, np.tile(size, (len(centres), 1))], axis=1)


def augmented_views(
    image: np.ndarray, position_yx: np.ndarray, scale: float, params: TrackerParams, random: RandomNumbers
) -> Views:
    """Return views of the target.

    Args:
        image: (height, width, 3) uint8 RGB.
        position_yx: the target's centre; it is rounded to whole pixels.
        scale: image pixels per patch pixel.
        params: the set-up.
        random: two numbers are drawn for each mirrored, blurred or rotated view.
    """
    size, same = params.sample_size, np.eye(2)
    expanded = EXPANSION * size
    centre, side = tuple(np.round(position_yx)), scale * expanded
    crop = crop_around(image, centre, (side, side), (expanded, expanded), "replicate", rule=params.crop_rule)
    patch = crop.patch.astype(np.float32)
    views = [(patch, same, (0, 0))]
    views += [(patch, same, (int(y * size / 2), int(x * size / 2))) for y, x in params.shift_fracs]
    changed = [(patch[:, ::-1], np.diag([-1.0, 1.0]))] if params.flip else []
    changed += [(blur(patch, sigmas), same) for sigmas in params.blur_sigmas]
    changed += [(rotate(patch, angle), turn_of(angle)) for angle in params.rotations_deg]
    views += [(view, turn, random_shift(size, params.random_shift_frac, random)) for view, turn in changed]
    patches, turns, shifts = zip(*((crop_centre(view, size, shift), turn, shift) for view, turn, shift in views))
    return Views(np.stack(patches), np.array(shifts), np.stack(turns), CropMap(crop.centre_yx, crop.scale, size))


def count_samples(params: TrackerParams) -> int:
    """Return how many samples the first frame gives: its views (`augmented_views`) and the copies with dropout."""
    changed = params.flip + len(params.shift_fracs) + len(params.blur_sigmas) + len(params.rotations_deg)
    return 1 + changed + params.dropout_copies


def random_shift(size: int, frac: float, random: RandomNumbers) -> tuple[int, int]:
    """Draw a shift (y, x) of at most half of `frac` of the size, in whole pixels."""
    y, x = (random.uniform(2) - np.float32(0.5)) * np.float32(size) * np.float32(frac)
    return int(y), int(x)


def blur(patch: np.ndarray, sigmas_yx: tuple[float, float]) -> np.ndarray:
    """Return the patch under a separable Gaussian of radius ceil(2 sigma), zeros outside."""
    kernels = []
    for sigma in sigmas_yx:
        x = np.arange(-math.ceil(2 * sigma), math.ceil(2 * sigma) + 1)
        kernel = np.exp(-(x**2) / (2 * sigma**2))
        kernels.append((kernel / kernel.sum()).astype(np.float32))
    return cv2.sepFilter2D(patch, -1, kernels[1], kernels[0], borderType=cv2.BORDER_CONSTANT)


def turn_of(angle_deg: float) -> np.ndarray:
    """Return the matrix (2, 2) by which `rotate` turns offsets (x, y) from the patch's middle."""
    angle = math.radians(angle_deg)
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def rotate(patch: np.ndarray, angle_deg: float) -> np.ndarray:
    """Return the patch turned by an angle about its centre, its edge repeated outside."""
    turn = turn_of(angle_deg)
    centre = (np.array(patch.shape[1::-1]) - 1) / 2
    matrix = np.column_stack([turn, centre - turn @ centre])
    return cv2.warpAffine(patch, matrix, patch.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def crop_centre(patch: np.ndarray, size: int, shift_yx: tuple[int, int]) -> np.ndarray:
    """Return the middle size x size pixels after a shift of the content down and right, the edge repeated."""
    ranges = []
    for length, shift in zip(patch.shape, shift_yx):
        first = -(math.floor((size - length) / 2) + shift)
        ranges.append(np.clip(np.arange(first, first + size), 0, length - 1))
    return patch[ranges[0]][:, ranges[1]]
