"""The first frame's training samples: shifted, mirrored, blurred and rotated views of the target.

Points and shifts are (y, x), in pixels of the patch. Source of the set and its order: DiMP's tracker.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from ebmtrack.data.crops import Crop, crop_around
from ebmtrack.tracking.params import TrackerParams

EXPANSION = 2  # side of the patch that the transforms work on, in samples


def augmented_samples(
    image: np.ndarray, centre_yx: np.ndarray, scale: float, params: TrackerParams, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, Crop]:
    """Views of the target: float32 patches (n, size, size, 3), their shifts (n, 2), and the crop they come from.

    centre_yx is rounded to whole pixels; `scale` is image pixels per patch pixel. Draws two random numbers from the
    generator for each mirrored, blurred or rotated view.
    """
    size = params.sample_size
    expanded = EXPANSION * size
    crop = crop_around(
        image, tuple(np.round(centre_yx)), (scale * expanded,) * 2, (expanded,) * 2, "replicate", rule=params.crop_rule
    )
    patch = crop.patch.astype(np.float32)
    views = [(patch, (0, 0))]
    views += [(patch, tuple(int(f * size / 2) for f in fracs)) for fracs in params.shift_fracs]

    def random_shift() -> tuple[int, int]:
        drawn = (torch.rand(2, generator=generator) - 0.5) * size * params.random_shift_frac
        return int(drawn[0]), int(drawn[1])

    if params.flip:
        views.append((patch[:, ::-1], random_shift()))
    views += [(blurred(patch, sigmas), random_shift()) for sigmas in params.blur_sigmas]
    views += [(rotated(patch, angle), random_shift()) for angle in params.rotations_deg]
    return np.stack([centred(view, size, shift) for view, shift in views]), np.array([s for _, s in views]), crop


def blurred(patch: np.ndarray, sigmas_yx: tuple[float, float]) -> np.ndarray:
    """The patch under a separable Gaussian of radius ceil(2 sigma), zeros outside."""
    kernels = []
    for sigma in sigmas_yx:
        x = np.arange(-math.ceil(2 * sigma), math.ceil(2 * sigma) + 1)
        kernel = np.exp(-(x**2) / (2 * sigma**2))
        kernels.append((kernel / kernel.sum()).astype(np.float32))
    return cv2.sepFilter2D(patch, -1, kernels[1], kernels[0], borderType=cv2.BORDER_CONSTANT)


def rotated(patch: np.ndarray, angle_deg: float) -> np.ndarray:
    """The patch turned by an angle about its centre, its edge repeated outside."""
    angle = math.radians(angle_deg)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = (np.array(patch.shape[1::-1]) - 1) / 2
    matrix = np.column_stack([turn, centre - turn @ centre])
    return cv2.warpAffine(patch, matrix, patch.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def centred(patch: np.ndarray, size: int, shift_yx: tuple[int, int]) -> np.ndarray:
    """The middle size x size pixels after the content moved down and right by the shift, the edge repeated."""
    ranges = []
    for length, shift in zip(patch.shape, shift_yx):
        first = -(math.floor((size - length) / 2) + shift)
        ranges.append(np.clip(np.arange(first, first + size), 0, length - 1))
    return patch[ranges[0]][:, ranges[1]]
