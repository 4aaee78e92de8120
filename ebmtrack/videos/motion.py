"""Random motion of the objects and the camera of composed clips; everything follows from the generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Motion:
    """The motion of one object: centres (n, 2), sizes (n,), log aspects (n,), angles (n,), mirrored (n,) +-1."""

    centres: np.ndarray
    sizes: np.ndarray
    log_aspects: np.ndarray
    angles: np.ndarray
    mirrored: np.ndarray


def random_walk(rng: np.random.Generator, frames: int, step: float | np.ndarray, shape: tuple = ()) -> np.ndarray:
    """Return a smooth random walk (frames, *shape) from zero; `step` is the deviation of its change per frame."""
    change = rng.normal(size=shape)
    changes = [np.zeros(shape)]
    for _ in range(frames - 1):
        changes.append(change * step)
        change = 0.8 * change + 0.6 * rng.normal(size=shape)
    return np.cumsum(changes, axis=0)


def draw_camera(
    rng: np.random.Generator, frames: int, size_wh: tuple[int, int], background_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return camera matrices (n, 2, 3) from background to frame, and the shift (n, 2) of what does not move."""
    size, photo = np.array(size_wh, float), np.array(background_wh, float)
    cover, zoom = np.max(size / photo) * rng.uniform(1.0, 1.2), 0.02 * (rng.random() < 0.5)
    scales = cover * np.exp(random_walk(rng, frames, zoom))
    drift = random_walk(rng, frames, rng.choice([0.0, 3.0, 12.0]), (2,))
    room = np.maximum(0, scales[:, None] * photo - size)  # how far the photograph reaches beyond the frame
    corners = np.clip(-room * rng.uniform(0.2, 0.8, 2) + drift, -room - 30, 30)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cameras = np.zeros((frames, 2, 3))
    cameras[:, 0, 0], cameras[:, 1, 1], cameras[:, :, 2] = flip * scales, scales, corners
    cameras[:, 0, 2] += scales * (photo[0] - 1) * (flip < 0)
    return cameras, corners - corners[0]


def draw_light(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return gain and offset (n, 2) of the scene's light: constant for most clips, drifting for some."""
    drift = random_walk(rng, frames, rng.choice([0.0, 0.01, 0.04]))
    gains = np.exp(rng.normal(0, 0.12) + drift)
    return np.stack([gains, np.full(frames, rng.normal(0, 6.0))], axis=1)


def draw_target_motion(rng: np.random.Generator, frames: int, size_wh: tuple[int, int]) -> Motion:
    """Return the motion of the target, wide enough to matter against its size, inside the frame."""
    frame = np.array(size_wh, float)
    size = np.exp(rng.uniform(np.log(28), np.log(np.clip(0.26 * frame.min(), 40, 100))))
    step = size * rng.choice([0.04, 0.15, 0.35])
    centres = frame * rng.uniform(0.25, 0.75, 2) + random_walk(rng, frames, step, (2,))
    margin = min(0.55 * size, 0.45 * frame.min())
    return Motion(reflect(centres, margin, frame - margin), *_shape_changes(rng, frames, size))


def _shape_changes(rng: np.random.Generator, frames: int, size: float) -> tuple[np.ndarray, ...]:
    """Return sizes, log aspects, angles and mirror signs (n,) of a moving object of about `size` pixels."""
    sizes = np.clip(size * np.exp(random_walk(rng, frames, rng.choice([0.01, 0.04, 0.09]))), 20, 150)
    log_aspects = np.clip(rng.normal(0, 0.12) + random_walk(rng, frames, rng.choice([0.0, 0.03, 0.08])), -0.8, 0.8)
    start = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0, 0.15)
    angles = start + random_walk(rng, frames, rng.choice([0.01, 0.05, 0.2], p=[0.5, 0.35, 0.15]))
    mirrored = np.full(frames, rng.choice([-1.0, 1.0]))
    if frames > 1 and rng.random() < 0.08:  # it turns round
        mirrored[rng.integers(1, frames) :] *= -1
    return sizes, log_aspects, angles, mirrored


def draw_distractor_motion(rng: np.random.Generator, path: Motion, drift: np.ndarray) -> Motion:
    """Return the motion of an object that starts one to three target sizes from the target and moves with the scene."""
    frames, size = len(path.sizes), float(path.sizes[0])
    angle, distance = rng.uniform(0, 2 * np.pi), size * rng.uniform(1.0, 3.0)
    start = path.centres[0] + distance * np.array([np.cos(angle), np.sin(angle)])
    own = random_walk(rng, frames, size * rng.choice([0.0, 0.05, 0.2]), (2,))
    return Motion(start + drift + own, *_shape_changes(rng, frames, size * rng.uniform(0.6, 1.4)))


def draw_occluder_motion(rng: np.random.Generator, path: Motion) -> Motion:
    """Return the motion of an object that passes in front of the target, nearest to it in one of the frames."""
    frames, size = len(path.sizes), float(path.sizes.mean())
    meeting, angle = rng.integers(frames), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    past = (np.arange(frames) - meeting)[:, None] * size * rng.uniform(0.4, 1.2) * direction
    miss = size * rng.uniform(-0.6, 0.6) * direction[::-1] * [1, -1]
    centres = path.centres[meeting] + past + miss
    return Motion(centres, *_shape_changes(rng, frames, size * rng.uniform(0.5, 1.1)))


def reflect(points: np.ndarray, low: np.ndarray | float, high: np.ndarray) -> np.ndarray:
    """Return points (n, 2) folded back into [low, high] at its walls."""
    span = high - low
    folded = np.mod(points - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)


def linear_map(motion: Motion, frame: int, own_size: float) -> np.ndarray:
    """Return the map (2, 2) of a cut-out of `own_size` pixels in one frame: mirror, stretch, scale, turn."""
    scale, half = motion.sizes[frame] / own_size, motion.log_aspects[frame] / 2
    cosine, sine = np.cos(motion.angles[frame]), np.sin(motion.angles[frame])
    stretch = np.diag([scale * np.exp(half) * motion.mirrored[frame], scale * np.exp(-half)])
    return np.array([[cosine, -sine], [sine, cosine]]) @ stretch
