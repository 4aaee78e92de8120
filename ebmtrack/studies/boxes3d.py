"""The energy of 3D boxes on synthetic scenes: toy backbone and branch are trained by NCE, jittered boxes climb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.boxes3d.average_precision import average_precision
from ebmtrack.boxes3d.energy import BevFrame, BoxEnergy3D, nce_loss, refine
from ebmtrack.boxes3d.overlap import corners_bev, overlap_pairs
from ebmtrack.boxes3d.raster import ToyBackbone, rasterize
from ebmtrack.boxes3d.scenes import CALIBRATION, SIDE, as_objects, jitter_boxes, make_scene
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.intervals import bootstrap

FRAME = BevFrame(0.4, (0.0, -SIDE / 2))
CELLS = round(SIDE / FRAME.cell)
HELD_BACK = 100_000  # seeds of scenes that no training sees begin here
STEP_LENGTHS = (2e-4, 8e-4, 3.2e-3)  # the paper's, and longer ones


@dataclass(frozen=True)
class Boxes3dStudySettings:
    """The size of the study."""

    steps: int = 600
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


def mean_overlaps(scenes: list[tuple[Tensor, Tensor, Tensor]], which: int) -> np.ndarray:
    """Return the mean overlaps with the truth in each scene, in the plane and in space (N, 2)."""
    return np.array([[each.mean().item() for each in overlap_pairs(scene[which], scene[0])] for scene in scenes])


def precision(scenes: list[tuple[Tensor, Tensor, Tensor]], which: int, where: str, iou: float = 0.7) -> float:
    """Return the average precision (40 points) of boxes with random scores, the same for start and end."""
    rng = np.random.default_rng(0)
    labels, found = [], []
    for scene in scenes:
        truth, boxes = (CALIBRATION.boxes_to_camera(scene[i].double().numpy()) for i in (0, which))
        labels.append(as_objects(truth, np.ones(len(truth))))
        found.append(as_objects(boxes, rng.random(len(boxes))))
    return average_precision(labels, found, iou=iou, where=where)  # type: ignore[arg-type]


def study_boxes3d(out: Path, seeds: int = 3, settings: Boxes3dStudySettings = Boxes3dStudySettings()) -> str:
    """Train with every seed, write table.md and scene.png to `out` and return the table."""
    if seeds < 1 or settings.steps < 1:
        raise ConfigError(f"study: seeds and steps must be at least 1, got {seeds} and {settings.steps}")
    held_back = range(HELD_BACK, HELD_BACK + settings.held_back_scenes)
    runs: dict[float, list] = {step: [] for step in STEP_LENGTHS}
    for seed in range(seeds):
        net = train_toy(seed, settings)
        for step in STEP_LENGTHS:
            runs[step].append(run_scenes(net, held_back, step))
        if seed == 0:
            draw_scene(make_scene(HELD_BACK)[0], runs[STEP_LENGTHS[1]][0][0], out / "scene.png")
    head = (
        f"{settings.steps} steps, M = {settings.samples}; {settings.held_back_scenes} held-back scenes, {seeds} seeds."
    )
    lines = [head, "", "| | overlap in the plane | in space | AP plane 0.7 | AP space 0.7 |", "|---|---|---|---|---|"]
    lines.append(_row("start boxes", runs[STEP_LENGTHS[0]], 1))
    lines += [_row(f"refined, step {step:g}", found, 2) for step, found in runs.items()]
    files.write_text(out / "table.md", "\n".join(lines) + "\n")
    return "\n".join(lines) + "\n"


def _row(name: str, runs: list, which: int) -> str:
    """Return one row: overlaps with 95 % bootstrap intervals over scenes, AP with the range over seeds."""
    overlaps = np.mean([mean_overlaps(scenes, which) for scenes in runs], axis=0)
    cells = [name]
    for column in range(2):
        interval = bootstrap(overlaps[:, column])
        cells.append(f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})")
    for where in ("bev", "3d"):
        values = [precision(scenes, which, where) for scenes in runs]
        cells.append(f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    return f"| {' | '.join(cells)} |"


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
