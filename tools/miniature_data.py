"""Miniature data sets with a moving block, in the layouts on disk of the real ones, and files of random backbones."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

FRAMES = 24
TARGET_WH = (24, 18)


def write_data(root: Path) -> None:
    """Write lasot, got10k, trackingnet, coco, cutouts and backgrounds below `root`: public sets and a pool in one."""
    for part, names in {"train": ("DAVIS_camel", "DAVIS_libby"), "val": ("GOT-10k_Val_000001",)}.items():
        for name in names:
            folder = root / "got10k" / part / name
            write_video([folder / f"{i + 1:08d}.jpg" for i in range(FRAMES)], folder / "groundtruth.txt")
            for file, value in (("absence.label", 0), ("cover.label", 8)):
                write_text(folder / file, f"{value}\n" * FRAMES)
            write_text(folder / "meta_info.ini", "[METAINFO]\nobject_class: block\n")
        write_text(root / "got10k" / part / "list.txt", "".join(f"{name}\n" for name in names))
    lasot = root / "lasot" / "cat" / "cat-1"
    write_video([lasot / "img" / f"{i + 1:08d}.jpg" for i in range(FRAMES)], lasot / "groundtruth.txt")
    for name in ("full_occlusion", "out_of_view"):
        write_text(lasot / f"{name}.txt", ",".join("0" * FRAMES))
    write_text(root / "lasot" / "testing_set.txt", "dog-1\n")
    for number in range(4):
        folder, name = root / "trackingnet" / f"TRAIN_{number}", f"video_{number}"
        write_video([folder / "frames" / name / f"{i}.jpg" for i in range(FRAMES)], folder / "anno" / f"{name}.txt")
    write_coco(root / "coco")
    write_material(root)


def write_video(frames: list[Path], truth: Path) -> None:
    """Write frames with a block that moves over a textured background, and the file of its boxes."""
    rng = np.random.default_rng(zlib.crc32("/".join(truth.parts[-3:]).encode()))  # whatever the folder of the data sets
    background, block = texture(rng, (160, 120)), texture(rng, TARGET_WH, cells=4)
    w, h = TARGET_WH
    for i, path in enumerate(frames):
        image, x, y = background.copy(), 30 + 2 * i, 25 + i
        image[y : y + h, x : x + w] = block
        write_image(path, image)
    write_text(truth, "".join(f"{30 + 2 * i},{25 + i},{w},{h}\n" for i in range(len(frames))))


def write_coco(root: Path) -> None:
    """Write two photographs of a block; the file name of the second one belongs to the pool's validation part."""
    rng, names, (w, h) = np.random.default_rng(1), ("web_set_1.jpg", "web_elephant_2.jpg"), TARGET_WH
    for name in names:
        image = texture(rng, (160, 120))
        image[50 : 50 + h, 60 : 60 + w] = texture(rng, TARGET_WH, cells=4)
        write_image(root / "train2017" / name, image)
    images = [{"id": i, "file_name": name, "width": 160, "height": 120} for i, name in enumerate(names, 1)]
    target = {"category_id": 3, "bbox": [60, 50, w, h], "iscrowd": 0}
    boxes = [{"id": 9 + i, "image_id": i, **target} for i in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "block"}]}
    write_text(root / "annotations" / "instances_train2017.json", json.dumps(content))


def write_material(root: Path) -> None:
    """Write 24 cut-outs with alpha and 24 backgrounds, as many as both parts of the pool need."""
    rng = np.random.default_rng(2)
    for number in range(24):
        cutout = np.zeros((80, 100, 4), np.uint8)
        cutout[10:-10, 10:-10] = np.dstack([texture(rng, (80, 60)), np.full((60, 80), 255, np.uint8)])
        write_image(root / "cutouts" / f"thing_{number}.png", cutout)
        write_image(root / "backgrounds" / f"scene_{number}.jpg", texture(rng, (320, 240)))


def texture(rng: np.random.Generator, size_wh: tuple[int, int], cells: int = 12) -> np.ndarray:
    """Return a random smooth colour image (h, w, 3), uint8."""
    return cv2.resize(rng.integers(0, 256, (cells, cells, 3), np.uint8), size_wh, interpolation=cv2.INTER_LINEAR)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path}: OpenCV could not write the image")


def write_text(path: Path, text: str) -> None:
    """Write a text and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_backbones(folder: Path) -> None:
    """Write resnet18.pth and resnet50.pth with random weights, entries named as torchvision names them."""
    for name in ("resnet18", "resnet50"):
        torch.manual_seed(0)
        net = torchvision.models.get_model(name)
        for key, value in net.state_dict().items():
            if key.startswith("layer") and key.endswith("bn3.weight" if name == "resnet50" else "bn2.weight"):
                value.fill_(0.25)  # of each block's residual, so that activations do not grow with depth
        torch.save(net.state_dict(), folder / f"{name}.pth")
