"""What is random about a training crop: where it lies, and how it looks."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from ebmtrack.data.crops import search_side

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How far a search region strays from the target, as in DiMP.

    Its centre moves by U(-0.5, 0.5) * `centre` target sizes, its size changes by the factor exp(N(0, 1) * `scale`).
    `stretch` is the deviation of the log of the crop's aspect ratio (ours; DiMP has none).
    """

    centre: float
    scale: float
    stretch: float = 0.0

    @classmethod
    def per_side(cls, centre: float, scale: float) -> Jitter:
        """DiMP's jitter, which draws the changes of width and height independently, both with deviation `scale`.

        Only the root of their product counts for a square search region: its log has the deviation scale / sqrt(2).
        """
        return cls(centre, scale / math.sqrt(2))


@dataclasses.dataclass(frozen=True)
class Look:
    """Probabilities and strengths of changes of a frame's appearance."""

    grey: float = 0.05  # joint: all frames of the sample
    joint_flip: float = 0.5  # joint
    flip: float = 0.0  # each frame on its own
    brightness: float = 0.2  # factor U(1 - b, 1 + b)
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0  # probability; sigma U(0.3, 2)
    motion_blur: float = 0.0  # probability; length up to 9 pixels
    noise: float = 0.0  # probability; deviation up to 8 grey levels


def jittered_window(
    box_xywh: np.ndarray, jitter: Jitter, search_factor: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A search region (x, y, w, h) around a box, displaced and resized at random."""
    size = box_xywh[2:] * np.exp(rng.standard_normal() * jitter.scale)
    reach = math.sqrt(size[0] * size[1]) * jitter.centre
    centre = box_xywh[:2] + box_xywh[2:] / 2 + reach * (rng.random(2) - 0.5)
    side = search_side(size, search_factor)
    stretch = math.exp(rng.standard_normal() * jitter.stretch / 2)
    w, h = side * stretch, side / stretch
    return float(centre[0] - w / 2), float(centre[1] - h / 2), w, h


def keep_off_cut_edges(
    window_xywh: tuple[float, float, float, float], box_xywh: np.ndarray, image_wh: tuple[int, int], cut_at: float
) -> tuple[float, float, float, float]:
    """Move a search region off edges where a frame was cut `cut_at` target sizes from the target.

    Such an edge is not the end of the scene, and a network that sees padding there learns to look for padding. An edge
    counts as cut when it lies at least 0.8 * cut_at target sizes from the target's centre.
    """
    reach = 0.8 * cut_at * math.sqrt(box_xywh[2] * box_xywh[3])
    bounds = []
    for axis in (0, 1):
        centre = box_xywh[axis] + box_xywh[axis + 2] / 2
        low = 0.0 if centre >= reach else -math.inf
        high = float(image_wh[axis]) if image_wh[axis] - centre >= reach else math.inf
        bounds.append((low, high))
    shrink = min(1.0, *((high - low) / size for (low, high), size in zip(bounds, window_xywh[2:])))
    moved = []
    for (low, high), start, size in zip(bounds, window_xywh[:2], window_xywh[2:]):
        start, size = start + size * (1 - shrink) / 2, size * shrink
        moved.append(max(low, min(start, high - size)))
    return moved[0], moved[1], window_xywh[2] * shrink, window_xywh[3] * shrink


def scene_frac(window_xywh: tuple[float, float, float, float], image_wh: tuple[int, int]) -> float:
    """The part of a window's area that lies inside the image."""
    covered = 1.0
    for start, size, length in zip(window_xywh[:2], window_xywh[2:], image_wh):
        covered *= max(0.0, min(start + size, length) - max(start, 0.0)) / size
    return covered


def change_look(patch: np.ndarray, look: Look, grey: bool, rng: np.random.Generator) -> np.ndarray:
    """A uint8 RGB patch (H, W, 3) with random light, colour, blur and noise."""
    x = patch.astype(np.float32)
    if look.saturation and not grey:
        luma = (x @ GREY)[..., None]
        x = luma + (x - luma) * _factor(look.saturation, rng)
    if grey:
        x = np.repeat((x @ GREY)[..., None], 3, axis=2)
    if look.contrast:
        mean = x.mean()
        x = mean + (x - mean) * _factor(look.contrast, rng)
    x = x * _factor(look.brightness, rng)
    if rng.random() < look.blur:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 2.0))
    if rng.random() < look.motion_blur:
        x = cv2.filter2D(x, -1, _motion_kernel(int(rng.integers(3, 10)), rng.uniform(0, math.pi)))
    if rng.random() < look.noise:
        x = x + rng.standard_normal(x.shape, dtype=np.float32) * rng.uniform(0, 8)
    return np.clip(x, 0, 255).astype(np.uint8)


def _factor(strength: float, rng: np.random.Generator) -> float:
    """A factor U(1 - strength, 1 + strength)."""
    return 1 + strength * (2 * rng.random() - 1)


def _motion_kernel(length: int, angle: float) -> np.ndarray:
    """A line of `length` pixels at `angle` radians, summing to one."""
    kernel = np.zeros((length, length), np.float32)
    centre, dx, dy = (length - 1) / 2, math.cos(angle), math.sin(angle)
    for t in np.linspace(-centre, centre, 2 * length):
        kernel[round(centre + t * dy), round(centre + t * dx)] = 1
    return kernel / kernel.sum()


def flip_box(box_xywh: np.ndarray, width: float) -> np.ndarray:
    """The box after mirroring a patch of `width` pixels, with edges at 0 and width."""
    return np.array([width - box_xywh[0] - box_xywh[2], *box_xywh[1:]])
