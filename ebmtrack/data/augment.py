"""The random parts of a training crop: its place in the image, and its look."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from ebmtrack.data.crops import search_side

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


@dataclasses.dataclass(frozen=True)
class Jitter:
    """The random displacement and size of a search region, as in DiMP.

    Its centre moves by U(-0.5, 0.5) * `centre` target sizes, its size changes by the factor exp(N(0, 1) * `scale`).
    `stretch` is the deviation of the log of the crop's aspect ratio (ours; DiMP has none).
    """

    centre: float
    scale: float
    stretch: float = 0.0

    @classmethod
    def per_side(cls, centre: float, scale: float) -> Jitter:
        """Return DiMP's jitter, which draws the changes of width and height independently with deviation `scale`.

        Only the root of their product matters for a square search region: its log has the deviation scale / sqrt(2).
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
    noise: float = 0.0  # probability
    noise_deviation: float = 8.0  # the largest, grey levels


def without_augmentation(look: Look) -> Look:
    """Return a look for validation: without flips, blur, noise, and changes of light and colour, but for grey."""
    return Look(grey=look.grey, joint_flip=0.0, flip=0.0, brightness=0.0)


def draw_window(
    box_xywh: np.ndarray, jitter: Jitter, search_factor: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a search region (x, y, w, h) around a box, displaced and resized at random."""
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
    """Move a search region off edges at which a frame was cut `cut_at` target sizes from the target.

    Such an edge is not the end of the scene, and a network that sees padding there learns to look for padding. An edge
    counts as cut if it is at least 0.8 * cut_at target sizes away from the target's centre.
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
    """Return the part of a window's area that is inside the image."""
    covered = 1.0
    for start, size, length in zip(window_xywh[:2], window_xywh[2:], image_wh):
        covered *= max(0.0, min(start + size, length) - max(start, 0.0)) / size
    return covered


@dataclasses.dataclass(frozen=True)
class LookDraws:
    """The draws for the look of one frame.

    saturation (0 is grey), contrast, brightness: factors. blur: deviation of a Gaussian blur in pixels; motion, angle:
    length in pixels and direction in radians of a motion blur; noise: deviation in grey levels; each 0 for none.
    noise_pixels: the noise itself, or None, then noise_seed is the seed of who makes it.
    """

    saturation: float = 1.0
    contrast: float = 1.0
    brightness: float = 1.0
    blur: float = 0.0
    motion: int = 0
    angle: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    noise_pixels: np.ndarray | None = None


def draw_look(
    look: Look, grey: bool, rng: np.random.Generator, noise_shape: tuple[int, ...] | None = None
) -> LookDraws:
    """Draw how the look of a frame changes.

    Args:
        look: Probabilities and strengths.
        grey: Whether the frame loses its colours.
        rng: The sample's generator.
        noise_shape: The frame's shape, if its noise is to be drawn here; otherwise a seed is.

    Returns:
        The draws for `apply_look`, or for a batch on the device.
    """
    saturation = 0.0 if grey else _factor(look.saturation, rng) if look.saturation else 1.0
    contrast = _factor(look.contrast, rng) if look.contrast else 1.0
    brightness = _factor(look.brightness, rng)
    blur = rng.uniform(0.3, 2.0) if rng.random() < look.blur else 0.0
    motion, angle = (int(rng.integers(3, 10)), rng.uniform(0, math.pi)) if rng.random() < look.motion_blur else (0, 0.0)
    if rng.random() >= look.noise:
        return LookDraws(saturation, contrast, brightness, blur, motion, angle)
    pixels, seed = None, 0
    if noise_shape is not None:
        pixels = rng.standard_normal(noise_shape, dtype=np.float32)
    else:
        seed = int(rng.integers(2**62))
    deviation = rng.uniform(0, look.noise_deviation)
    return LookDraws(saturation, contrast, brightness, blur, motion, angle, deviation, seed, pixels)


def apply_look(patch: np.ndarray, drawn: LookDraws) -> np.ndarray:
    """Return a uint8 RGB patch (H, W, 3) with the drawn light, colour, blur and noise."""
    x: np.ndarray = patch.astype(np.float32)
    if drawn.saturation != 1:
        luma = (x @ LUMA)[..., None]
        x = luma + (x - luma) * drawn.saturation
    if drawn.contrast != 1:
        mean = x.mean()
        x = mean + (x - mean) * drawn.contrast
    x = x * drawn.brightness
    if drawn.blur:
        x = cv2.GaussianBlur(x, (0, 0), drawn.blur)
    if drawn.motion:
        x = cv2.filter2D(x, -1, motion_kernel(drawn.motion, drawn.angle))
    if drawn.noise_pixels is not None:
        x = x + drawn.noise_pixels * drawn.noise
    return np.clip(x, 0, 255).astype(np.uint8)


def change_look(patch: np.ndarray, look: Look, grey: bool, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 RGB patch (H, W, 3) with random light, colour, blur and noise."""
    return apply_look(patch, draw_look(look, grey, rng, patch.shape))


def _factor(strength: float, rng: np.random.Generator) -> float:
    """Draw a factor U(1 - strength, 1 + strength)."""
    return 1 + strength * (2 * rng.random() - 1)


def motion_kernel(length: int, angle: float) -> np.ndarray:
    """Return a line of `length` pixels at `angle` radians, (length, length) float32, summing to one."""
    kernel = np.zeros((length, length), np.float32)
    centre, dx, dy = (length - 1) / 2, math.cos(angle), math.sin(angle)
    for t in np.linspace(-centre, centre, 2 * length):
        kernel[round(centre + t * dy), round(centre + t * dx)] = 1
    return kernel / kernel.sum()


def blur_kernel(sigma: float) -> np.ndarray:
    """Return the kernel (k, k) of a Gaussian blur of deviation `sigma` pixels, as cv2.GaussianBlur makes it."""
    reach = round(4 * sigma)
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    profile /= profile.sum()
    return np.outer(profile, profile).astype(np.float32)


def flip_box(box_xywh: np.ndarray, width: float) -> np.ndarray:
    """Return the box after mirroring a patch of `width` pixels, with edges at 0 and width."""
    return np.array([width - box_xywh[0] - box_xywh[2], *box_xywh[1:]])
