"""KITTI's files, frames and average precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmtrack.boxes3d.average_precision import average_precision
from ebmtrack.boxes3d.energy import BevFrame
from ebmtrack.boxes3d.kitti import KittiObjects, read_calibration, read_frame, read_objects, read_points, write_objects
from ebmtrack.boxes3d.overlap import overlap_pairs
from ebmtrack.boxes3d.raster import rasterize
from ebmtrack.boxes3d.scenes import CALIBRATION, PROJECTION, TO_CAMERA, as_objects, jitter_boxes, make_scene
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.studies import boxes3d as study

LINE = "Car 0.00 1 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56"


def test_labels(tmp_path):
    path = tmp_path / "000000.txt"
    path.write_text(f"{LINE}\nDontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10\n\n")
    objects = read_objects(path)
    assert objects.kinds == ["Car", "DontCare"] and objects.occlusion[0] == 1 and objects.scores[0] == 1
    assert objects.camera[0].tolist() == [0.47, 1.49, 69.44, 2.85, 2.63, 12.34, -1.56]
    for bad, text in (
        (LINE + " 0.5 7", "line 1: 16 numbers"),
        (LINE[:-5] + "x", "line 1"),
        (LINE[:-5] + "nan", "line 1"),
    ):
        path.write_text(bad)
        with pytest.raises(DatasetError, match=text):
            read_objects(path)
    with pytest.raises(DatasetError, match="velodyne/, calib/ and label_2/"):
        read_objects(tmp_path / "none.txt")


def test_calibration_and_frames(tmp_path):
    """A box of the camera's frame in front of it is in front of the LiDAR; there and back is the same."""
    path = tmp_path / "calib.txt"
    tilt = "0.9999 0.01 -0.01 -0.01 0.9999 0.005 0.01 -0.005 0.9999"
    path.write_text(f"P2: {' '.join(['1'] * 12)}\nR0_rect: {tilt}\nTr_velo_to_cam: 0 -1 0 0.1 0 0 -1 -0.2 1 0 0 -0.3\n")
    calibration = read_calibration(path)
    camera = np.array([[2.0, 1.5, 20, 1.5, 1.6, 3.9, 0.3]])
    (box,) = calibration.boxes_to_lidar(camera)
    assert box[:3] == pytest.approx([20.3, -2, -1.5], abs=0.4) and box[3:].tolist() == [1.6, 3.9, 1.5, 0.3]
    np.testing.assert_allclose(calibration.boxes_to_camera(box[None]), camera, atol=1e-9)
    plain = CALIBRATION.boxes_to_lidar(camera)[0]
    assert plain[:3].tolist() == [20, -2, -1.5]
    path.write_text("P2: 1 2 3\n")
    with pytest.raises(DatasetError, match="R0_rect is missing"):
        read_calibration(path)


def test_points(tmp_path):
    np.arange(8, dtype=np.float32).tofile(tmp_path / "a.bin")
    assert read_points(tmp_path / "a.bin").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    np.arange(7, dtype=np.float32).tofile(tmp_path / "a.bin")
    with pytest.raises(DatasetError, match="7 numbers"):
        read_points(tmp_path / "a.bin")


def test_raster_of_known_points():
    """Three points in two cells of 0.5 m; one outside of the raster is left out."""
    points = torch.tensor([[0.1, -0.9, 1.0, 0.2], [0.4, -0.6, 3.0, 0.4], [0.6, 0.1, -2.0, 1.0], [9.0, 0, 0, 0]])
    raster = rasterize(points, BevFrame(0.5, (0.0, -1.0)), 4, 2)
    assert raster.shape == (6, 4, 2) and (raster[0] > 0).sum() == 2
    first = [np.log(3), 0.0, 0.0, 3.0, 2.0, 0.3]  # means of x and y: the cell's centre
    assert raster[:, 0, 0].tolist() == pytest.approx(first, abs=1e-6)
    assert raster[:, 2, 1].tolist() == pytest.approx([np.log(2), -0.3, -0.3, -2.0, -2.0, 1.0], abs=1e-6)


def write_scene(root: Path, name: str, points: np.ndarray, boxes: np.ndarray) -> None:
    """Write a scene in KITTI's layout: velodyne/, calib/ and label_2/ below `root`."""
    for folder in ("velodyne", "calib"):
        (root / folder).mkdir()
    (root / "velodyne" / f"{name}.bin").write_bytes(points.astype(np.float32).tobytes())
    write_objects(root / "label_2" / f"{name}.txt", as_objects(CALIBRATION.boxes_to_camera(boxes), np.ones(len(boxes))))
    rows = {"P2": PROJECTION, "R0_rect": np.eye(3), "Tr_velo_to_cam": TO_CAMERA[:3]}
    lines = [f"{key}: {' '.join(f'{v:.12e}' for v in value.ravel())}\n" for key, value in rows.items()]
    (root / "calib" / f"{name}.txt").write_text("".join(lines))


def test_whole_path_on_files_in_kittis_layout(tmp_path):
    """A scene is written, read, rastered, trained on for some steps, and its boxes are refined."""
    points, boxes = make_scene(3)
    write_scene(tmp_path, "000003", points, boxes)
    frame = read_frame(tmp_path, "000003")
    np.testing.assert_array_equal(frame.points, points)
    np.testing.assert_allclose(frame.boxes, boxes, atol=1e-3)
    settings = study.Boxes3dStudySettings(steps=3, samples=8, channels=4, hidden=8)
    net = study.train_toy(0, settings)
    start = torch.from_numpy(jitter_boxes(frame.boxes, 0)).float()
    bev = net.look(frame.points)
    after = study.refine(net.energy, bev, start, 1e-3)
    assert (net.energy(bev, after) >= net.energy(bev, start)).all() and after.isfinite().all()


def test_cars_have_points_on_the_sides_that_face_the_sensor():
    from ebmtrack.boxes3d.scenes import _car_points

    for seed in range(5):
        _, (box, *_) = make_scene(seed)
        points = _car_points(box, np.random.default_rng(seed))
        assert 30 < len(points) < 200
        thin = np.concatenate([points[:, :3], np.tile([0.01, 0.01, 0.01, 0.0], (len(points), 1))], axis=1)
        grown = box + np.array([0, 0, -0.1, 0.2, 0.2, 0.3, 0])
        inside = overlap_pairs(torch.from_numpy(thin), torch.from_numpy(np.tile(grown, (len(points), 1))))[1] > 0
        assert inside.double().mean() > 0.99
        middle = points[:, :2].mean(axis=0)
        assert np.hypot(*middle) < np.hypot(*box[:2]) + 0.05


def objects(*rows) -> KittiObjects:
    """Objects of (kind, x, height in the image, occlusion, truncation, score), cars of 1.6 x 3.9 m side by side."""
    values = np.array([row[1:] for row in rows], float).reshape(-1, 5)
    zero = np.zeros(len(rows))
    camera = np.stack([values[:, 0], zero, zero + 20, zero + 1.5, zero + 1.6, zero + 3.9, zero], axis=1)
    flat = np.stack([values[:, 0] * 50, zero, values[:, 0] * 50 + 40, values[:, 1]], axis=1)
    return KittiObjects([row[0] for row in rows], values[:, 3], values[:, 2], flat, camera, values[:, 4])


def car(x, score=1.0, height=50.0, occluded=0, truncated=0.0, kind="Car"):
    return (kind, x, height, occluded, truncated, score)


def test_perfect_boxes_and_none():
    labels = [objects(*(car(10 * i) for i in range(80)))]
    for points in (40, 41):
        assert average_precision(labels, labels, points=points) == pytest.approx(100)
        assert average_precision(labels, [objects()], points=points) == 0
    assert average_precision([objects()], [objects(car(0))]) == 0


def test_half_found_and_false_ones():
    """40 of 80 cars found: half of the recall points. 41 points count the one at recall 0 as well.

    With as many false ones below in score nothing changes; above, the precision falls to n / (n + 40).
    """
    labels = [objects(*(car(10 * i) for i in range(80)))]
    right = [car(10 * i, 0.9 - i / 1000) for i in range(40)]
    assert average_precision(labels, [objects(*right)], points=40) == pytest.approx(50, abs=2.6)
    assert average_precision(labels, [objects(*right)], points=41) == pytest.approx(50, abs=2.6)
    low = [car(5 + 1000 * i, 0.1) for i in range(1, 41)]
    alone = average_precision(labels, [objects(*right)])
    assert average_precision(labels, [objects(*right, *low)]) == alone
    high = [car(5 + 1000 * i, 0.99) for i in range(1, 41)]
    assert average_precision(labels, [objects(*right, *high)]) == pytest.approx(alone / 2, rel=0.01)


def test_difficulties_and_what_does_not_count():
    """A label that is too hard is neither missed nor does it make a detection false; vans neither."""
    hard = [car(10 * i, height=30) for i in range(8)] + [car(100 + 10 * i, occluded=2) for i in range(8)]
    hard += [car(200 + 10 * i, truncated=0.4) for i in range(8)] + [car(300 + 10 * i, kind="Van") for i in range(8)]
    usual = [car(1000 + 10 * i) for i in range(80)]
    easy_found = [car(100 * j + 10 * i) for i in range(8) for j in range(4)]
    labels, all_found = [objects(*usual, *hard)], [objects(*usual, *easy_found)]
    assert average_precision(labels, all_found, "easy") == pytest.approx(100)
    assert average_precision(labels, [objects(*usual)], "easy") == pytest.approx(100)
    assert average_precision(labels, [objects(*usual)], "moderate") < 100  # the low one counts there
    assert average_precision(labels, [objects(*usual)], "hard") < average_precision(
        labels, [objects(*usual)], "moderate"
    )
    low = [objects(*usual, car(5000, height=20))]
    assert average_precision([objects(*usual)], low, "easy") == pytest.approx(100)
    wrong = [objects(*usual, car(5000))]
    assert average_precision([objects(*usual)], wrong) < 100
    region = objects(*usual, car(5000, kind="DontCare"))
    assert average_precision([region], wrong) == average_precision([objects(*usual)], wrong)  # KITTI's, in 3D


def test_a_small_detection_with_the_best_score_hides_the_threshold_of_a_usual_one():
    """As in KITTI's program: thresholds come from the best score at a label, counts from the best overlap."""
    labels = [objects(*(car(10 * i) for i in range(80)))]
    usual, small = ([car(10 * i, score, height) for i in range(80)] for score, height in ((0.5, 50), (0.9, 20)))
    assert average_precision(labels, [objects(*usual, *small)], "easy") == 0
    assert average_precision(labels, [objects(*small[:40], *usual[40:])], "easy") == average_precision(
        labels, [objects(*usual[40:])], "easy"
    )
    late = [(*each[:-1], 0.4) for each in small]
    assert average_precision(labels, [objects(*usual, *late)], "easy") == pytest.approx(100)


def test_overlap_threshold_and_duplicates():
    """A box half a metre off along its length has overlap 0.77; of two boxes on a car one is false."""
    labels = [objects(*(car(10 * i) for i in range(80)))]
    moved = [objects(*(car(10 * i + 0.5) for i in range(80)))]
    assert average_precision(labels, moved, iou=0.7) == pytest.approx(100)
    assert average_precision(labels, moved, iou=0.8) == 0
    doubled = [objects(*(car(10 * i, 0.9) for i in range(80)), *(car(10 * i + 0.1, 0.9) for i in range(80)))]
    assert average_precision(labels, doubled) == pytest.approx(50, abs=1)
    raised = dataclasses.replace(labels[0], camera=labels[0].camera - np.array([0, 0.6, 0, 0, 0, 0, 0]))
    assert average_precision(labels, [raised], where="bev") == pytest.approx(100)
    assert average_precision(labels, [raised], where="3d") == 0
    with pytest.raises(ConfigError, match="unknown difficulty 'eazy'"):
        average_precision(labels, labels, "eazy")


def test_scenes_round_trip_through_the_camera():
    _, boxes = make_scene(0)
    camera = CALIBRATION.boxes_to_camera(boxes)
    np.testing.assert_allclose(CALIBRATION.boxes_to_lidar(camera), boxes, atol=1e-9)
    scenes = [as_objects(camera, np.ones(len(boxes)))]
    assert average_precision(scenes, scenes, points=41) > 0


def test_study(tmp_path):
    settings = study.Boxes3dStudySettings(steps=2, held_back_scenes=2, samples=4, channels=4, hidden=8)
    told: list[str] = []
    table = study.study_boxes3d(tmp_path, 1, settings, told.append)
    assert "| start boxes |" in table and (tmp_path / "table.md").read_text() == table
    assert study.study_boxes3d(tmp_path, 1, settings, told.append) == table and len(told) == 1
    with pytest.raises(ConfigError, match="--runs must be at least 1, got 0"):
        study.study_boxes3d(tmp_path, 0, settings)
    assert (tmp_path / "scene.png").stat().st_size > 5000
