"""Synthetic scenes: cars of random poses, points on the sides that the sensor sees, ground and clutter."""

from __future__ import annotations

import math

import numpy as np

from ebmtrack.boxes3d.kitti import Array, Calibration, KittiObjects

MEAN_SIZE = (1.6, 3.9, 1.56)  # w, l, h in metres (KITTI's cars)
GROUND = -1.7  # z of the ground in the LiDAR's frame
SIDE = 32.0  # of the scene: x from 0, y on both sides of 0
TO_CAMERA = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
PROJECTION = np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]])
CALIBRATION = Calibration(TO_CAMERA, PROJECTION)


def make_scene(seed: int, cars: int = 5) -> tuple[Array, Array]:
    """Return points (N, 4) float32 and boxes (cars, 7), see `boxes3d.energy`; the same seed gives the same scene."""
    rng = np.random.default_rng((20210, seed))
    boxes = np.zeros((0, 7))
    while len(boxes) < cars:
        centre = rng.uniform((4, 4 - SIDE / 2), (SIDE - 4, SIDE / 2 - 4))
        if (np.hypot(*(boxes[:, :2] - centre).T) > 6).all():
            size = np.array(MEAN_SIZE) * rng.normal(1, 0.07, 3).clip(0.8, 1.2)
            theta = rng.uniform(-math.pi, math.pi)
            boxes = np.vstack([boxes, [*centre, GROUND + rng.normal(0, 0.05), *size, theta]])
    ground = rng.uniform((0, -SIDE / 2, 0), (SIDE, SIDE / 2, 1), (1500, 3))
    ground[:, 2] = GROUND + rng.normal(0, 0.02, len(ground))
    clutter = rng.uniform((0, -SIDE / 2, GROUND), (SIDE, SIDE / 2, 0.5), (150, 3))
    parts = [ground, clutter, *(_car_points(box, rng) for box in boxes)]
    points = np.concatenate(parts)
    intensity = np.concatenate([np.full(len(p), level) for p, level in zip(parts, [0.1, 0.3] + [0.6] * cars)])
    return np.column_stack([points, intensity + rng.normal(0, 0.05, len(points))]).astype(np.float32), boxes


def _car_points(box: Array, rng: np.random.Generator, number: int = 200) -> Array:
    """Return points (M, 3) on the sides of a car that face the sensor at the origin, and on its roof."""
    x, y, z, w, length, h, theta = box
    face, u, v = rng.integers(0, 5, number), rng.uniform(-0.5, 0.5, number), rng.uniform(0, 1, number)
    a = np.choose(face, [np.full(number, 0.5), np.full(number, -0.5), u, u, u])
    b = np.choose(face, [u, u, np.full(number, 0.5), np.full(number, -0.5), v - 0.5])
    up = np.where(face == 4, 1.0, v)
    normal = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]], float)[face]
    turn = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    plane = np.array([x, y]) + np.column_stack([a * w, b * length]) @ turn.T
    seen = (face == 4) | (((normal @ turn.T) * -plane).sum(axis=1) > 0)
    points = np.column_stack([plane, z + up * h])[seen]
    return points + rng.normal(0, 0.02, points.shape)


def jitter_boxes(boxes: Array, seed: int, scale: float = 1.0) -> Array:
    """Return boxes (N, 7) with the noise of a mediocre detector; `scale` multiplies its widths."""
    widths = scale * np.array([0.25, 0.25, 0.12, 0.12, 0.25, 0.12, 0.08])  # x y z w l h in metres, theta in radians
    return boxes + np.random.default_rng((77, seed)).normal(0, 1, boxes.shape) * widths


def as_objects(camera: Array, scores: Array) -> KittiObjects:
    """Return wholly visible cars, 100 pixels high in the image, of boxes as in `KittiObjects.camera`."""
    zeros = np.zeros(len(camera))
    flat = np.column_stack([zeros, zeros, zeros + 100, zeros + 100])
    return KittiObjects(["Car"] * len(camera), zeros, zeros, flat, camera, scores)
