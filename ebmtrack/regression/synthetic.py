"""Drawn images with known numbers, for the four tasks whose data need a request: cells, road, face disc, turned head.

They are stand-ins: what holds on them is a statement about the methods, not about the papers' data sets.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ebmtrack.regression.examples import POSE, Examples

Drawn = tuple[np.ndarray, tuple[float, ...]]


def draw_examples(name: str, number: int, size: int = 64, seed: int = 0) -> Examples:
    """Return drawn examples, equal for equal arguments.

    Args:
        name: cells, steering, age or headpose.
        number: how many.
        size: side of the images in pixels.
        seed: of the numbers and the images.
    """
    draw, targets = DRAWINGS[name]
    rng = np.random.default_rng([seed, number])
    drawn = [draw(rng) for _ in range(number)]
    images = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image, _ in drawn])
    return Examples(images, np.array([label for _, label in drawn], np.float32), targets)


def draw_cells(rng: np.random.Generator) -> Drawn:
    """Return 1 to 200 blurred discs at random places, 64 x 64: certain for few, uncertain for many."""
    count = int(rng.integers(1, 201))
    image = np.zeros((64, 64), np.float32)
    for _ in range(count):
        disc = np.zeros((64, 64), np.float32)
        x, y = (int(v) for v in rng.integers(0, 64, 2))
        cv2.circle(disc, (x, y), int(rng.integers(2, 5)), float(rng.uniform(0.5, 1)), -1)
        image += disc
    image = cv2.GaussianBlur(image, (0, 0), 1.0).clip(0, 1)
    return _grey(image), (float(count),)


def draw_road(rng: np.random.Generator) -> Drawn:
    """Return a road in perspective with curvature c; the angle is 80 c + N(0, (1 + |c|)^2), often near 0."""
    c = rng.uniform(-0.15, 0.15) if rng.random() < 1 / 3 else rng.uniform(-1, 1)  # straight ones twice as frequent
    rows = np.arange(24, 64)
    depth = (64 - rows) / 40  # 0 at the bottom, 1 at the horizon
    middle = 32 + rng.uniform(-4, 4) * (1 - depth) + 26 * c * depth**2
    half = 2 + 20 * (1 - depth)
    image = np.full((64, 64), 0.35, np.float32) + 0.05 * rng.standard_normal((64, 64)).astype(np.float32)
    image[:24] = 0.8
    columns = np.arange(64)
    away = np.abs(columns - middle[:, None])
    image[24:] = np.where(away < half[:, None], 0.55, image[24:])
    image[24:] = np.where(np.abs(away - half[:, None]) < 1.2, 0.95, image[24:])
    return _grey(image), (float(80 * c + rng.normal(0, 1 + abs(c))),)


def draw_face(rng: np.random.Generator) -> Drawn:
    """Return a disc with wrinkles, more with age, which is noisy by 1 + age / 20 years; ages 20 to 60."""
    age = rng.uniform(20, 60)
    image = np.full((64, 64), 0.2, np.float32)
    cv2.circle(image, (32, 32), 28, float(rng.uniform(0.6, 0.9)), -1)
    for _ in range(rng.poisson((age - 15) / 2)):
        centre = tuple(int(v) for v in rng.integers(14, 51, 2))
        axes = (int(rng.integers(3, 10)), int(rng.integers(1, 4)))
        start = float(rng.uniform(0, 360))
        cv2.ellipse(
            image, centre, axes, float(rng.uniform(0, 180)), start, start + 150, float(rng.uniform(0.3, 0.5)), 1
        )
    label = float(np.clip(age + rng.normal(0, 1 + age / 20), 10, 75))
    return _grey(image), (label,)


def draw_head(rng: np.random.Generator) -> Drawn:
    """Return an ellipsoid with two eyes, a nose and a mouth, turned by yaw, pitch and roll in degrees.

    In one image of four a mask hides the face but for two marks that look the same from left and right, so that the
    sign of the yaw cannot be known: two answers are right.
    """
    yaw, pitch, roll = rng.uniform(-60, 60), rng.uniform(-40, 40), rng.uniform(-40, 40)
    turn = _rotation(yaw, pitch, roll)
    masked = rng.random() < 0.25
    image = np.full((64, 64), float(rng.uniform(0.1, 0.4)), np.float32)
    cv2.ellipse(image, (32, 32), (20, 26), float(roll), 0, 360, float(rng.uniform(0.6, 0.9)), -1)
    if masked:  # as wide as the nose is off the middle, on both sides of it
        for side in (-1, 1):
            _spot(image, _rotation(side * abs(yaw), pitch, roll) @ (0.0, 0.1, 1.0), 3, 0.0)
        return _grey(image), (float(yaw), float(pitch), float(roll))
    marks = {"eyes": ((-0.4, -0.3, 0.85), (0.4, -0.3, 0.85)), "nose": ((0.0, 0.1, 1.0),), "mouth": ((0.0, 0.5, 0.85),)}
    for name, radius, value in (("eyes", 4, 0.05), ("nose", 3, 0.3), ("mouth", 3, 0.0)):
        for place in marks[name]:
            _spot(image, turn @ place, radius, value)
    return _grey(image), (float(yaw), float(pitch), float(roll))


def _spot(image: np.ndarray, place: np.ndarray, radius: int, value: float) -> None:
    """Draw a disc at a place on the head's surface (x right, y down, z to the viewer), if it is in front."""
    if place[2] > 0:
        cv2.circle(image, (round(32 + 20 * place[0]), round(32 + 26 * place[1])), radius, value, -1, cv2.LINE_AA)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation matrix of three angles in degrees: roll after pitch after yaw."""
    (a, b, c), sin, cos = np.radians([yaw, pitch, roll]), np.sin, np.cos
    turn_yaw = np.array([[cos(a), 0, sin(a)], [0, 1, 0], [-sin(a), 0, cos(a)]])
    turn_pitch = np.array([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]])
    turn_roll = np.array([[cos(c), -sin(c), 0], [sin(c), cos(c), 0], [0, 0, 1]])
    return turn_roll @ turn_pitch @ turn_yaw


def _grey(image: np.ndarray) -> np.ndarray:
    """Return values 0..1 (H, W) as a grey uint8 RGB image."""
    return np.repeat((image.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


DRAWINGS: dict[str, tuple[Callable[[np.random.Generator], Drawn], tuple[str, ...]]] = {
    "cells": (draw_cells, ("count",)),
    "steering": (draw_road, ("angle",)),
    "age": (draw_face, ("age",)),
    "headpose": (draw_head, POSE),
}
