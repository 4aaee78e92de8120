"""KITTI's files of a scene: calibration, points and labels; boxes between the camera's and the LiDAR's frame.

Source of the formats: Geiger et al., "Are we ready for autonomous driving?", CVPR 2012, and the benchmark's readme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebmtrack import files
from ebmtrack.errors import DatasetError

FIELDS = 15  # of a line of labels; results have a 16th, the score
Array = np.ndarray


@dataclass(frozen=True)
class KittiObjects:
    """The objects of a frame, in the camera's frame as in the file.

    Attributes:
        kinds: such as Car, Van, DontCare.
        truncation: part outside of the image, 0 to 1 (N,).
        occlusion: 0 visible to 3 unknown (N,).
        boxes_2d: corners x0, y0, x1, y1 in the image (N, 4).
        camera: x, y, z of the bottom's centre, h, w, l, ry (N, 7), in metres and radians.
        scores: (N,); 1 in labels.
    """

    kinds: list[str]
    truncation: Array
    occlusion: Array
    boxes_2d: Array
    camera: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.kinds)


def read_objects(path: str | Path) -> KittiObjects:
    """Return the objects of a file of labels or results; DatasetError names the line that is malformed."""
    rows, kinds = [], []
    for number, line in enumerate(_lines(Path(path)), start=1):
        kind, *values = line.split()
        try:
            row = [float(value) for value in values]
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: {error}; fetch the file again") from error
        if len(row) not in (FIELDS - 1, FIELDS) or not np.isfinite(row).all():
            raise DatasetError(f"{path}, line {number}: {len(row)} numbers after the kind, expected 14 or 15, finite")
        kinds.append(kind)
        rows.append([*row, 1.0][:FIELDS])
    table = np.array(rows, np.float64).reshape(-1, FIELDS)
    camera = table[:, [10, 11, 12, 7, 8, 9, 13]]
    return KittiObjects(kinds, table[:, 0], table[:, 1], table[:, 3:7], camera, table[:, 14])


def write_objects(path: str | Path, objects: KittiObjects) -> None:
    """Write objects as a file of results, the alpha of which is -10 (unknown)."""
    lines = []
    for i, kind in enumerate(objects.kinds):
        x, y, z, h, w, length, ry = objects.camera[i]
        numbers = [objects.truncation[i], objects.occlusion[i], -10, *objects.boxes_2d[i], h, w, length, x, y, z, ry]
        values = " ".join(f"{value:.4f}" for value in [*numbers, objects.scores[i]])
        lines.append(f"{kind} {values}\n")
    files.write_text(path, "".join(lines))


@dataclass(frozen=True)
class Calibration:
    """The matrix (4, 4) from the LiDAR's frame to the rectified camera's, and the camera's own, P2 (3, 4)."""

    to_camera: Array
    projection: Array

    def points_to_camera(self, points_xyz: Array) -> Array:
        """Return points (N, 3) of the LiDAR's frame in the camera's."""
        return _apply(self.to_camera, points_xyz)

    def points_to_lidar(self, points_xyz: Array) -> Array:
        """Return points (N, 3) of the camera's frame in the LiDAR's."""
        return _apply(np.linalg.inv(self.to_camera), points_xyz)

    def boxes_to_lidar(self, camera: Array) -> Array:
        """Return boxes x, y, z, w, l, h, theta (N, 7) of those of `KittiObjects.camera`; the angle is kept."""
        centres = self.points_to_lidar(camera[:, :3])
        return np.concatenate([centres, camera[:, [4, 5, 3]], camera[:, 6:]], axis=1)

    def boxes_to_camera(self, boxes: Array) -> Array:
        """Return the boxes of `KittiObjects.camera` (N, 7) of x, y, z, w, l, h, theta in the LiDAR's frame."""
        centres = self.points_to_camera(boxes[:, :3])
        return np.concatenate([centres, boxes[:, [5, 3, 4]], boxes[:, 6:]], axis=1)


def read_calibration(path: str | Path) -> Calibration:
    """Return a frame's calibration; DatasetError says which matrix is missing or malformed."""
    values: dict[str, list[str]] = {}
    for line in _lines(Path(path)):
        key, _, rest = line.partition(":")
        values[key.strip()] = rest.split()
    matrices = {}
    for key, shape in (("R0_rect", (3, 3)), ("Tr_velo_to_cam", (3, 4)), ("P2", (3, 4))):
        try:
            matrices[key] = np.array(values[key], np.float64).reshape(shape)
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{path}: {key} is missing or no {shape[0]} x {shape[1]} matrix: {error}") from error
    rectify, to_camera = np.eye(4), np.eye(4)
    rectify[:3, :3], to_camera[:3] = matrices["R0_rect"], matrices["Tr_velo_to_cam"]
    return Calibration(rectify @ to_camera, matrices["P2"])


def read_points(path: str | Path) -> Array:
    """Return a scene's points (N, 4) float32: x, y, z in metres in the LiDAR's frame, and intensity."""
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file of points")
    values = np.fromfile(path, np.float32)
    if len(values) % 4 or not np.isfinite(values).all():
        raise DatasetError(f"{path}: {len(values)} numbers; points are four finite ones each; fetch the file again")
    return values.reshape(-1, 4)


@dataclass(frozen=True)
class KittiFrame:
    """A frame in KITTI's layout: points, boxes in the LiDAR's frame, objects as in the labels, and calibration."""

    name: str
    points: Array
    boxes: Array
    objects: KittiObjects
    calibration: Calibration


def read_frame(root: str | Path, name: str, kinds: Sequence[str] = ("Car", "Van")) -> KittiFrame:
    """Return frame `name` of `<root>/{velodyne,calib,label_2}/`, such as 000007.

    `boxes` has the objects of `kinds` only; the paper counts vans as cars in training.
    """
    root = Path(root)
    objects = read_objects(root / "label_2" / f"{name}.txt")
    calibration = read_calibration(root / "calib" / f"{name}.txt")
    rows = np.array([kind in kinds for kind in objects.kinds], dtype=bool)
    boxes = calibration.boxes_to_lidar(objects.camera)[rows]
    return KittiFrame(name, read_points(root / "velodyne" / f"{name}.bin"), boxes, objects, calibration)


def _apply(matrix: Array, points_xyz: Array) -> Array:
    """Return points (N, 3) moved by a matrix (4, 4)."""
    return points_xyz @ matrix[:3, :3].T + matrix[:3, 3]


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; KITTI's layout is velodyne/, calib/ and label_2/") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no text file: {error.reason}") from error
