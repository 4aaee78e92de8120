"""COCO's average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebmtrack.detection.host import Boxes
from ebmtrack.detection.photographs import CategoryLabels, Photograph
from ebmtrack.errors import missing_extra

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def coco_ap(
    truth: str | Path | Mapping[str, Any], found: Mapping[int, Boxes], labels: CategoryLabels
) -> dict[str, float]:
    """Return AP over overlaps 0.5 to 0.95, AP50, AP75 and AP by size, as fractions; -1 if nothing has that size.

    Args:
        truth: annotation file, or its content.
        found: boxes of every photograph that was looked at, in its pixels, by its id; the others do not count.
        labels: labels of the categories.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise missing_extra("pycocotools", "COCO evaluation") from error
    rows = [row for key, boxes in found.items() for row in _rows(key, boxes, labels)]
    if not rows:
        return dict.fromkeys(FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(None if isinstance(truth, Mapping) else str(truth))
        if isinstance(truth, Mapping):
            reference.dataset = dict(truth)
            reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(rows), "bbox")
        evaluation.params.imgIds = sorted(found)
        for stage in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            stage()
    return dict(zip(FIGURES, map(float, evaluation.stats)))


def as_content(photographs: list[Photograph]) -> dict[str, Any]:
    """Return photographs as the content of an annotation file, for figures on a part of one."""
    annotations: list[dict[str, Any]] = []
    for each in photographs:
        for (x0, y0, x1, y1), category in zip(each.boxes_xyxy.tolist(), each.category_ids.tolist()):
            row = {"id": len(annotations) + 1, "image_id": each.id, "category_id": category, "iscrowd": 0}
            annotations.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
    categories = sorted({row["category_id"] for row in annotations})
    return {
        "info": {},
        "images": [{"id": each.id} for each in photographs],
        "annotations": annotations,
        "categories": [{"id": each, "name": str(each)} for each in categories],
    }


def _rows(image_id: int, boxes: Boxes, labels: CategoryLabels) -> list[dict[str, Any]]:
    """Return the boxes of a photograph as COCO's results; boxes of classes without a category are left out."""
    triples = zip(boxes.boxes_xyxy.tolist(), boxes.labels.tolist(), boxes.scores.tolist())
    return [
        {
            "image_id": image_id,
            "category_id": labels.id_of[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (x0, y0, x1, y1), label, score in triples
        if label in labels.id_of
    ]
