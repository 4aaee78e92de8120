"""Miniature trees of data sets, made in a folder of a test's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.videos import got10k, lasot, trackingnet
from ebmtrack.videos.source import VideoSource

BOXES = "3,4,10,12\n4.5,4,10.25,12\n5,5,0,12\nnan,nan,nan,nan\n6,6,9,9\n"
RED = (200, 10, 20)


def save_image(path: Path, rgb: tuple[int, int, int] = RED, size_wh: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size_wh[1], size_wh[0], 3), rgb[::-1], np.uint8)
    assert cv2.imwrite(str(path), image)


def exif_jpeg(path: Path, size_wh: tuple[int, int], orientation: int) -> None:
    """Write a JPEG of stored size `size_wh`, red on the left, with EXIF data that turn it when it is shown."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    image[:, : size_wh[0] // 2] = (20, 10, 200)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    segment = b"Exif\x00\x00" + exif(orientation)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])


def exif(orientation: int) -> bytes:
    """Return EXIF data with an orientation alone."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2, "big") + b"\x00\x00"
    return b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"


def save_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def got10k_tree(root: Path, names: tuple[str, ...] = ("GOT-10k_Train_000001", "GOT-10k_Train_000002")) -> Path:
    for name in names:
        folder = root / name
        save_text(folder / "groundtruth.txt", BOXES)
        save_text(folder / "absence.label", "0\n1\n0\n0\n0\n")
        save_text(folder / "cover.label", "8\n8\n8\n8\n3\n")
        save_text(folder / "meta_info.ini", "[METAINFO]\nurl: https://a.b/c?d\nobject_class: goat\n")
        for number in range(5):
            save_image(folder / f"{number + 1:08d}.jpg")
    save_text(root / "list.txt", "\n".join(names) + "\n")
    return root


def lasot_tree(root: Path) -> Path:
    for name in ("cat-10", "cat-2", "dog-1"):
        folder = root / name.split("-")[0] / name
        save_text(folder / "groundtruth.txt", BOXES)
        save_text(folder / "full_occlusion.txt", "0,1,0,0,0")
        save_text(folder / "out_of_view.txt", "0,0,0,0,1\n")
        for number in range(5):
            save_image(folder / "img" / f"{number + 1:08d}.jpg")
    return root


def trackingnet_tree(root: Path) -> Path:
    for number, name in ((0, "ab_1"), (0, "cd_2"), (1, "ef_3")):
        folder = root / f"TRAIN_{number}"
        save_text(folder / "anno" / f"{name}.txt", BOXES)
        for frame in range(5):
            save_image(folder / "frames" / name / f"{frame}.jpg", (frame * 40, 0, 0))
    return root


def coco_content() -> dict:
    """Two photographs of 40 x 30; boxes: usable, crowd, tiny, whole image, reaching out of the image."""
    boxes = [[5, 6, 20, 15], [5, 6, 20, 15], [1, 1, 4, 20], [0, 0, 40, 30], [30, 10, 100, 15.5]]
    annotations = [
        {"id": 10 + i, "image_id": 1 + i % 2, "category_id": 3, "bbox": box, "iscrowd": int(i == 1)}
        for i, box in enumerate(boxes)
    ]
    images = [{"id": i, "file_name": f"web_set_{i}.jpg", "width": 40, "height": 30} for i in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}


def coco_tree(root: Path) -> Path:
    save_text(root / "annotations" / "instances_train2017.json", json.dumps(coco_content(), indent=1))
    for number in (1, 2):
        save_image(root / "train2017" / f"web_set_{number}.jpg")
    return root


def save_cutout(path: Path, rgb: tuple[int, int, int] = (255, 255, 255), size_wh: tuple[int, int] = (80, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((size_wh[1] + 20, size_wh[0] + 20, 4), np.uint8)
    image[10:-10, 10:-10] = (*rgb[::-1], 255)
    assert cv2.imwrite(str(path), image)


def material_tree(root: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    for number in range(24):
        save_cutout(root / "cutouts" / f"thing_{number}.png", tuple(rng.integers(0, 255, 3).tolist()))
        save_image(root / "backgrounds" / f"scene_{number}.jpg", (number * 10, 40, 90), (320, 240))
    return root / "cutouts", root / "backgrounds"


def got10k_source(root: Path, split: str = "train", least_cover: int = 1, exclude: Iterable[str] = ()) -> VideoSource:
    """Return a split of GOT-10k as a training source."""
    return VideoSource(got10k.find(root, split, least_cover).without(exclude), "got10k")


def lasot_source(root: Path, split: str = "train") -> VideoSource:
    """Return a split of LaSOT as a training source."""
    return VideoSource(lasot.find(root, split), "lasot")


def trackingnet_source(root: Path, sets: str = "") -> VideoSource:
    """Return sets of TrackingNet as a training source."""
    return VideoSource(trackingnet.find(root, sets))
