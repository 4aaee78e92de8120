"""The energy of 3D boxes on synthetic scenes: toy backbone and branch are trained by NCE, jittered boxes climb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.boxes3d.average_precision import average_precision
from ebmtrack.boxes3d.energy import BevFrame, BoxEnergy3D, nce_loss, refine
from ebmtrack.boxes3d.overlap import corners_bev, overlap_pairs
from ebmtrack.boxes3d.raster import ToyBackbone, rasterize
from ebmtrack.boxes3d.scenes import CALIBRATION, SIDE, as_objects, jitter_boxes, make_scene
from ebmtrack.studies.records import (
    check_counts,
    claim_folder,
    keep_record,
    load_records,
    markdown_table,
    mean_cell,
    missing_runs,
    seeds_cell,
)

FRAME = BevFrame(0.4, (0.0, -SIDE / 2))
CELLS = round(SIDE / FRAME.cell)
HELD_BACK = 100_000  # seeds of scenes that no training sees begin here
DRAWN = 8e-4  # step length of the picture
VARIANTS = {"start boxes": 0.0} | {f"refined, step {step:g}": step for step in (2e-4, DRAWN, 3.2e-3)}  # paper's first
HEADS = ("", "overlap in the plane", "in space", "AP plane 0.7", "AP space 0.7")
WHERE: tuple[Literal["bev", "3d"], ...] = ("bev", "3d")


@dataclass(frozen=True)
class Boxes3dStudySettings:
    """The size of the study."""

    steps: int = 1500
    held_back_scenes: int = 60
    samples: int = 64  # noise boxes for each true box
    channels: int = 16
    hidden: int = 128
    learning_rate: float = 2e-3


class ToyDetector(nn.Module):
    """A toy backbone with an energy branch."""

    def __init__(self, settings: Boxes3dStudySettings):
        super().__init__()
        self.backbone = ToyBackbone(settings.channels)
        self.energy = BoxEnergy3D(settings.channels, settings.hidden, FRAME)

    def look(self, points: np.ndarray) -> Tensor:
        """Return the map (C, H, W) of points (N, 4)."""
        return self.backbone(rasterize(torch.from_numpy(points), FRAME, CELLS, CELLS))


def train_toy(seed: int, settings: Boxes3dStudySettings) -> ToyDetector:
    """Train on a new scene in each step; the same arguments give the same network."""
    torch.manual_seed(seed)
    net, generator = ToyDetector(settings), Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.4)
    for step in range(settings.steps):
        points, boxes = make_scene(seed * settings.steps + step)
        loss = nce_loss(net.energy, net.look(points), torch.from_numpy(boxes).float(), settings.samples, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def run_scenes(net: ToyDetector, seeds: Sequence[int], step: float | Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the true, jittered and refined boxes of scenes."""
    found = []
    for seed in seeds:
        points, boxes = make_scene(seed)
        start = torch.from_numpy(jitter_boxes(boxes, seed)).float()
        found.append((torch.from_numpy(boxes).float(), start, refine(net.energy, net.look(points), start, step)))
    return found


def mean_overlaps(scenes: list[tuple[Tensor, Tensor, Tensor]]) -> np.ndarray:
    """Return the mean overlaps of refined boxes with the truth in each scene, in the plane and in space (N, 2)."""
    return np.array([[each.mean().item() for each in overlap_pairs(end, truth)] for truth, _, end in scenes])


def precision(scenes: list[tuple[Tensor, Tensor, Tensor]], where: Literal["bev", "3d"], iou: float = 0.7) -> float:
    """Return the average precision (40 points) of refined boxes with random scores, equal in all calls."""
    rng, labels, found = np.random.default_rng(0), [], []
    for truth, _, end in scenes:
        cars, boxes = (CALIBRATION.boxes_to_camera(each.double().numpy()) for each in (truth, end))
        labels.append(as_objects(cars, np.ones(len(cars))))
        found.append(as_objects(boxes, rng.random(len(boxes))))
    return average_precision(labels, found, iou=iou, where=where)


def study_boxes3d(
    out: Path,
    seeds: int = 3,
    settings: Boxes3dStudySettings = Boxes3dStudySettings(),
    log: Callable[[str], None] = print,
) -> str:
    """Train what is missing under `out`, write table.md and scene.png there, and return the table (Markdown).

    Args:
        out: folder of results; finished runs are kept there as JSON.
        seeds: networks.
        settings: what they share.
        log: is told of each run.

    Raises:
        ConfigError: no run, or an `out` with other settings.
    """
    check_counts(runs=seeds, steps=settings.steps)
    claim_folder(out, settings)
    for name in missing_runs(out, map(str, range(seeds))):
        keep_record(out, name, run_one(int(name), settings, out), log)
        make_table(out, settings)
    return make_table(out, settings)


def run_one(seed: int, settings: Boxes3dStudySettings, out: Path) -> dict[str, Any]:
    """Return the record of a seed: for each of VARIANTS overlaps by scene and AP; seed 0 draws scene.png in `out`."""
    net, record = train_toy(seed, settings), dict[str, Any]()
    for name, step in VARIANTS.items():
        scenes = run_scenes(net, range(HELD_BACK, HELD_BACK + settings.held_back_scenes), step)
        for where, overlaps in zip(WHERE, mean_overlaps(scenes).T):
            record |= {f"{name} {where}": overlaps.tolist(), f"{name} {where} AP": precision(scenes, where)}
        if seed == 0 and step == DRAWN:
            draw_scene(make_scene(HELD_BACK)[0], scenes[0], out / "scene.png")
    return record


def make_table(out: Path, settings: Boxes3dStudySettings) -> str:
    """Write table.md of the finished runs to `out`, and return it."""
    keys = [f"{name} {where}" for name in VARIANTS for where in WHERE]
    records = load_records(out, keys, "[0-9]*")
    head = (
        f"{settings.steps} steps, M = {settings.samples}; {settings.held_back_scenes} held-back scenes, "
        f"{len(records)} seeds."
    )
    rows = []
    for name in VARIANTS if records else ():
        cells = [mean_cell([each[f"{name} {where}"] for each in records]) for where in WHERE]
        rows.append([name, *cells, *(seeds_cell([each[f"{name} {where} AP"] for each in records]) for where in WHERE)])
    table = "\n".join([head, "", *markdown_table(HEADS, rows)]) + "\n"
    files.write_text(out / "table.md", table)
    return table


def draw_scene(points: np.ndarray, boxes: tuple[Tensor, Tensor, Tensor], path: Path) -> None:
    """Write a picture of a scene from above: points, true boxes filled, start boxes dashed, refined ones solid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.8), layout="constrained")
    axes = figure.add_subplot(xlabel="y in metres (left is left)", ylabel="x in metres (forward is up)", aspect="equal")
    axes.scatter(points[:, 1], points[:, 0], s=0.6, c="0.55", linewidths=0)
    styles = (("true", "0.8", "-", True), ("before", "#e69f00", "--", False), ("after", "#0072b2", "-", False))
    for each, (label, colour, line, fill) in zip(boxes, styles):
        for place, corners in enumerate(corners_bev(each).numpy()):
            options: dict[str, Any] = {"color": colour, "linestyle": line, "label": label if place == 0 else None}
            if fill:
                axes.fill(corners[:, 1], corners[:, 0], zorder=0, **options)
            else:
                axes.plot(np.append(corners[:, 1], corners[0, 1]), np.append(corners[:, 0], corners[0, 0]), **options)
    axes.set(xlim=(SIDE / 2, -SIDE / 2), ylim=(0, SIDE))
    axes.legend(loc="upper right")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=90)
