"""Photographs with all their boxes, from COCO's annotation files, and the batches that training makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmtrack.errors import DatasetError
from ebmtrack.images import read_rgb

LEAST_SIDE = 1.0  # pixels; smaller boxes are damage, and so are those that are no numbers


@dataclass(frozen=True)
class Photograph:
    """A photograph with its boxes.

    Attributes:
        id: of the annotation file.
        path: of the picture.
        boxes_xyxy: (G, 4) float32, in pixels; crowds are left out.
        category_ids: (G,), as in the annotation file.
    """

    id: int
    path: Path
    boxes_xyxy: np.ndarray
    category_ids: np.ndarray


def read_photographs(annotations: str | Path, folder: str | Path) -> tuple[list[Photograph], dict[int, str]]:
    """Return the photographs of a COCO annotation file, and its categories' names by id.

    Args:
        annotations: file such as instances_train2017.json.
        folder: of the pictures.

    Raises:
        DatasetError: the file is missing or not of COCO's kind.
    """
    path = Path(annotations)
    try:
        content = json.loads(path.read_text("utf-8"))
        names = {int(each["id"]): str(each["name"]) for each in content["categories"]}
        boxes: dict[int, list[Any]] = {int(each["id"]): [] for each in content["images"]}
        for each in content["annotations"]:
            x, y, w, h = map(float, each["bbox"])
            is_sound = np.isfinite((x, y, w, h)).all() and min(w, h) >= LEAST_SIDE
            if not each.get("iscrowd") and is_sound:
                boxes[int(each["image_id"])].append((x, y, x + w, y + h, int(each["category_id"])))
        files = {int(each["id"]): Path(folder) / each["file_name"] for each in content["images"]}
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; give the path of COCO's instances_*.json") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(f"{path}: no annotation file of COCO's kind ({reason}); fetch it again") from error
    rows = {key: np.array(value, np.float64).reshape(-1, 5) for key, value in boxes.items()}
    found = [Photograph(k, files[k], v[:, :4].astype(np.float32), v[:, 4].astype(int)) for k, v in rows.items()]
    return found, names


class CategoryLabels:
    """Labels of categories: the ids themselves if the host has a place for each, as torchvision's, else 1, 2, 3, ..."""

    def __init__(self, category_ids: Sequence[int], classes: int):
        """Raise a DatasetError if there are more categories than `classes`, the background included."""
        ids = sorted(category_ids)
        if len(ids) >= classes:
            raise DatasetError(
                f"the annotations have {len(ids)} categories, the host {classes - 1}; take a host that was trained on "
                "these categories"
            )
        self.of_id = {each: each if ids[-1] < classes else place for place, each in enumerate(ids, start=1)}
        self.id_of = {label: each for each, label in self.of_id.items()}

    def of(self, category_ids: np.ndarray) -> Tensor:
        """Return the labels (G,) of categories."""
        return torch.tensor([self.of_id[int(each)] for each in category_ids], dtype=torch.long)


def to_input(image_rgb: np.ndarray) -> Tensor:
    """Return a picture (H, W, 3) uint8 as the host takes it: (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image_rgb)).permute(2, 0, 1).float() / 255


class PhotographBatches:
    """Batches of photographs that have boxes, in a new order each epoch, flipped at random (`plan.BatchMaker`)."""

    def __init__(
        self, photographs: Sequence[Photograph], labels: CategoryLabels, samples: int, seed: int = 0, threads: int = 8
    ):
        """Keep what is needed to read; `samples` is the length of the run, `threads` read pictures."""
        self.photographs = [each for each in photographs if len(each.boxes_xyxy)]
        if not self.photographs:
            raise DatasetError("no photograph has a box; check the annotation file")
        self.labels, self.samples, self.seed = labels, samples, seed
        self.readers = ThreadPoolExecutor(max(1, threads))

    def __len__(self) -> int:
        return self.samples

    def batch(self, numbers: list[int]) -> dict[str, Any]:
        """Return images (3, H, W), boxes_xyxy (G, 4) and labels (G,), a list of each."""
        rows = list(self.readers.map(self._sample, numbers))
        return {key: [row[place] for row in rows] for place, key in enumerate(("images", "boxes_xyxy", "labels"))}

    def _sample(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return one photograph, flipped or not, with its boxes and labels."""
        epoch, place = divmod(number, len(self.photographs))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photographs))
        photograph = self.photographs[order[place]]
        image, boxes = to_input(read_rgb(photograph.path)), torch.from_numpy(photograph.boxes_xyxy)
        if np.random.default_rng((self.seed, 1, number)).random() < 0.5:
            image, width = image.flip(2), image.shape[2]
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return image, boxes, self.labels.of(photograph.category_ids)
