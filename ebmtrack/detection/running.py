"""A trained detector on photographs: COCO's figures before and after refinement, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ebmtrack.detection.coco_ap import FIGURES, coco_ap
from ebmtrack.detection.detector import EnergyDetector, class_count, load_detector
from ebmtrack.detection.host import Boxes
from ebmtrack.detection.photographs import CategoryLabels, read_photographs, to_input
from ebmtrack.detection.training import coco_files
from ebmtrack.device import pick_device
from ebmtrack.errors import ConfigError
from ebmtrack.images import read_rgb, write_picture
from ebmtrack.viewers.drawing import ORANGE, SKY, draw_box


def evaluate(weights: Path, root: Path, split: str, host_weights: str, limit: int | None, device: str = "auto") -> str:
    """Return a table of COCO's figures in percent.

    Args:
        weights: file of `detector.save_detector`.
        root: COCO's folder.
        split: such as val2017.
        host_weights: as for `load_host`.
        limit: number of photographs; None for all.
        device: as for `pick_device`.

    Raises:
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}; leave it out for all photographs")
    annotations, folder = coco_files(root, split)
    net: Any = load_detector(weights, host_weights).to(pick_device(device))
    photographs, names = read_photographs(annotations, folder)
    labels = CategoryLabels(list(names), class_count(net.host))
    found: dict[str, dict[int, Boxes]] = {name: {} for name in _variants(net)}
    for each in photographs[:limit]:
        image = [to_input(read_rgb(each.path)).to(pick_device(device))]
        for name, options in _variants(net).items():
            found[name][each.id] = net(image, **options)[0]
    lines = [f"| | {' | '.join(FIGURES)} |", f"|{'---|' * (len(FIGURES) + 1)}"]
    for name, boxes in found.items():
        figures = coco_ap(annotations, boxes, labels)
        cells = ["" if figures[key] < 0 else f"{100 * figures[key]:.1f}" for key in FIGURES]  # no object of this size
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _variants(net: Any) -> dict[str, dict[str, int]]:
    """Return the ways to run a detector that are compared: name -> options of its forward pass."""
    if isinstance(net, EnergyDetector):
        return {"guided suppression alone": {"steps": 0}, f"{net.config.method}, refined": {"steps": 10}}
    return {net.config.method: {}}


def detect_in_picture(
    weights: Path, picture: Path, out: Path, host_weights: str, least_score: float, device: str = "auto"
) -> str:
    """Write a picture with the boxes before (dashed) and after refinement; return the boxes as text.

    Args:
        weights: file of `detector.save_detector`.
        picture: to look at.
        out: picture to write.
        host_weights: as for `load_host`.
        least_score: boxes with lower scores are left out.
        device: as for `pick_device`.
    """
    if out.exists() and out.samefile(picture):
        raise ConfigError(f"{out}: is the picture itself; name another file")
    net: Any = load_detector(weights, host_weights).to(pick_device(device))
    drawn = read_rgb(picture).copy()
    image = [to_input(drawn).to(pick_device(device))]
    runs = [net(image, **options)[0] for options in _variants(net).values()]
    likely = runs[-1].scores >= least_score
    before, after = runs[0].select(likely), runs[-1].select(likely)
    text = []
    for start, end, label, score in zip(before.boxes_xyxy, after.boxes_xyxy, after.labels, after.scores):
        box = _xywh(end)
        draw_box(drawn, _xywh(start), colour=ORANGE, dashed=True)
        draw_box(drawn, box, label=str(int(label)), score=float(score), colour=SKY)
        text.append(f"class {int(label)}, score {float(score):.2f}: " + ", ".join(f"{value:.1f}" for value in box))
    write_picture(out, drawn)
    return "\n".join([*text, f"{len(text)} boxes; the picture is {out}"])


def _xywh(box_xyxy: Tensor) -> list[float]:
    """Return a box of two corners as corner and size."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
