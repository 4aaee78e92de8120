"""The first frame: training views of the target, the target's model, and how the energy sees its size.

Points and shifts are (y, x), in pixels of the patch. Source of the set of views and its order: DiMP's tracker.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ebmtrack.data.crops import CropMap, crop_around
from ebmtrack.engines.base import Engine, FirstFrame, RegionFeatures
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.refine import ascent_of, average_box, candidate_boxes
from ebmtrack.tracking.state import TargetState

EXPANSION = 2  # side of the patch that the views are cut from, in search regions
CALIBRATION_ROUNDS = 3  # climbs, each from where the one before has ended
MOST_EXCESS = 0.5  # natural logarithm


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
        phase: number of frames by which its whole looks are put off.

    Returns:
        The target's state after frame 1.
    """
    random, size_hw = RandomNumbers(seed), box_xywh[[3, 2]]
    position_yx = box_xywh[[1, 0]] + (size_hw - 1) / 2
    scale = math.sqrt(size_hw.prod()) * params.search_factor / params.sample_size
    crop_map = CropMap(np.round(position_yx), scale, params.sample_size)
    box_in_crop = crop_map.to_crop(position_yx, size_hw).astype(np.float32)
    first = draw_first_frame(image, position_yx, scale, box_in_crop, params, engine.info.channels, random)
    model, whole = engine.start(first)
    count = len(first.patches) + len(first.channel_factors)
    return TargetState(
        params=params,
        model=model,
        memory=SampleMemory(count, first.capacity, params.initial_samples_least_weight),
        random=random,
        base_area=float((size_hw / scale).prod()),
        first_log_aspect=math.log(size_hw[0] / size_hw[1]),
        log_excess_hw=params.calibration * size_excess(engine, whole, box_in_crop, params, seed),
        phase=phase,
        frame=1,
        position_yx=position_yx,
        size_hw=size_hw,
        scale=scale,
        box_xywh=tuple(box_xywh.tolist()),
        lost_frames=0,
        found_yx=position_yx,
        found_hw=size_hw,
        is_calm=False,
        whole=whole,
        proposals=(),
    )


def size_excess(
    engine: Engine, whole: RegionFeatures, box_xywh: np.ndarray, params: TrackerParams, seed: int
) -> np.ndarray:
    """Return the log ratio (h, w) of the energy's preferred box to the annotated one in frame 1, at most 0.5.

    What counts as the target is the user's choice: with or without its shadow, limbs, the rider's horse. If the energy
    sees it otherwise, it does so in every frame, and by about the same ratio.

    Args:
        engine: the network.
        whole: the first frame's features.
        box_xywh: (4,) float32, the annotated box in crop pixels.
        params: the set-up; without `calibration` the ratio is not measured and its log is 0.
        seed: of the random candidates.
    """
    if not params.calibration:
        return np.zeros(2)
    random, box = RandomNumbers(seed), box_xywh
    for _ in range(CALIBRATION_ROUNDS):
        climb = engine.climb([whole], candidate_boxes(box, params, random)[None], ascent_of(params))
        average = average_box(climb.boxes_xywh[0], climb.energies[0], params)
        box = box if average is None else average
    excess_wh = np.log((box[2:] / box_xywh[2:]).astype(np.float64))
    return excess_wh.astype(np.float32).clip(-MOST_EXCESS, MOST_EXCESS).astype(np.float64)[::-1]


def draw_first_frame(
    image: np.ndarray,
    position_yx: np.ndarray,
    scale: float,
    box_xywh: np.ndarray,
    params: TrackerParams,
    channels: int,
    random: RandomNumbers,
) -> FirstFrame:
    """Return the training samples of the first frame.

    Args:
        image: (height, width, 3) uint8 RGB.
        position_yx: the target's centre in the image.
        scale: image pixels per patch pixel.
        box_xywh: (4,) float32, the target in the plain view.
        params: the set-up.
        channels: of the classification features.
        random: two numbers are drawn for each mirrored, blurred or rotated view, then dropout's.
    """
    patches, shifts = augmented_views(image, position_yx, scale, params, random)
    boxes = np.repeat(box_xywh[None], len(patches), axis=0)
    boxes[:, :2] += shifts[:, ::-1].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    kept = random.bernoulli(1 - params.dropout, params.dropout_copies, channels)
    return FirstFrame(
        patches=patches,
        boxes_xyxy=boxes,
        channel_factors=kept.astype(np.float32) / np.float32(1 - params.dropout),
        iterations=params.initial_iterations,
        capacity=max(params.memory_size, len(patches) + params.dropout_copies),
    )


def augmented_views(
    image: np.ndarray, position_yx: np.ndarray, scale: float, params: TrackerParams, random: RandomNumbers
) -> tuple[np.ndarray, np.ndarray]:
    """Return views of the target and by how much each is shifted.

    Args:
        image: (height, width, 3) uint8 RGB.
        position_yx: the target's centre; it is rounded to whole pixels.
        scale: image pixels per patch pixel.
        params: the set-up.
        random: two numbers are drawn for each mirrored, blurred or rotated view.

    Returns:
        Patches (n, size, size, 3) float32, and their shifts (n, 2), y and x, whole pixels.
    """
    size = params.sample_size
    expanded = EXPANSION * size
    centre, side = tuple(np.round(position_yx)), scale * expanded
    crop = crop_around(image, centre, (side, side), (expanded, expanded), "replicate", rule=params.crop_rule)
    patch = crop.patch.astype(np.float32)
    views = [(patch, (0, 0))]
    views += [(patch, (int(y * size / 2), int(x * size / 2))) for y, x in params.shift_fracs]
    changed = [patch[:, ::-1]] if params.flip else []
    changed += [blur(patch, sigmas) for sigmas in params.blur_sigmas]
    changed += [rotate(patch, angle) for angle in params.rotations_deg]
    views += [(view, random_shift(size, params.random_shift_frac, random)) for view in changed]
    patches = np.stack([crop_centre(view, size, shift) for view, shift in views])
    return patches, np.array([shift for _, shift in views])


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


def rotate(patch: np.ndarray, angle_deg: float) -> np.ndarray:
    """Return the patch turned by an angle about its centre, its edge repeated outside."""
    angle = math.radians(angle_deg)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
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
