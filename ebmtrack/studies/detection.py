"""Losses of the detection branch compared on photographs, on a small machine: jittered truth climbs the energy.

The feature maps are those of a trained tracker's frozen ResNet-18, and no detector is trained: the start boxes are the
true ones with noise N(0, 0.15^2) in relative coordinates, and random scores. All kinds of object are one class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ebmtrack import files
from ebmtrack.boxes import iou_xywh, xyxy_to_xywh
from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.data.pipeline import displaced_boxes
from ebmtrack.data.pool import held_back
from ebmtrack.detection.branch import DetectionEnergy
from ebmtrack.detection.coco_ap import as_content, coco_ap
from ebmtrack.detection.host import Boxes, FeatureMaps
from ebmtrack.detection.losses import energy_loss, paper_loss
from ebmtrack.detection.photographs import CategoryLabels, Photograph, read_photographs
from ebmtrack.detection.refine import STEP_LENGTHS, StepLengths, refine_boxes
from ebmtrack.energy.density import corner_sweep, heat_map
from ebmtrack.images import read_rgb, write_picture
from ebmtrack.nets.backbone import normalize_images
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
from ebmtrack.viewers.drawing import ORANGE, SKY, draw_box, overlay_heat

LOSSES = ("nce_plus", "nce", "ml_is", "kld_is", "iou_net_star")
START = "start-boxes"
PRECISIONS = ("AP", "AP50", "AP75")
HEADS = ("", "seeds", "mean IoU", *PRECISIONS, "frames/s")
SIDE = 256  # pixels of the pictures, padded to a square
STRIDES = [8, 16]
CHANNELS = 64
CANONICAL = 128.0  # of `box_levels`, for these small pictures
JITTER = 0.15
ONE_CLASS = CategoryLabels([1], 2)


@dataclass(frozen=True)
class DetectionStudySettings:
    """The settings that all runs share; the losses and their noise are the paper's."""

    train_photographs: int = 400
    held_back_photographs: int = 150
    steps: int = 1000
    batch: int = 4  # photographs
    samples: int = 32  # boxes for each true box
    most_boxes: int = 2  # of a photograph in a step
    hidden: int = 128
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class PhotographMaps:
    """Photographs scaled to SIDE, with their frozen feature maps in half precision."""

    photographs: list[Photograph]
    maps: list[Tensor]

    def take(self, rows: Sequence[int]) -> FeatureMaps:
        """Return the maps of some photographs in float32."""
        return FeatureMaps([each[list(rows)].float() for each in self.maps], STRIDES, torch.ones(len(rows), 2))


class Pyramid(nn.Module):
    """Maps at strides 8 and 16, random projections of the trunk's layers with variance 1.

    Half of the finer map's channels are the coarser layer's, as in a feature pyramid.
    """

    def __init__(self, trunk: nn.Module, seed: int = 0):
        super().__init__()
        self.trunk, generator = trunk.eval().requires_grad_(False), Generator().manual_seed(seed)
        self.projections = [torch.randn(n, c, generator=generator) for n, c in ((32, 128), (32, 256), (64, 256))]

    @torch.no_grad()
    def forward(self, images_rgb: np.ndarray) -> list[Tensor]:
        """Return the maps of pictures (N, SIDE, SIDE, 3) uint8."""
        layers = self.trunk(normalize_images(torch.from_numpy(images_rgb).permute(0, 3, 1, 2)))
        inputs = (layers[0], layers[1], layers[1])
        fine, upper, coarse = (torch.einsum("oc,nchw->nohw", p, y) for p, y in zip(self.projections, inputs))
        upper = functional.interpolate(upper, scale_factor=2, mode="bilinear")
        maps = [torch.cat([y / y.std() for y in (fine, upper)], dim=1), coarse]
        return [each / each.std(dim=(1, 2, 3), keepdim=True) for each in maps]


def look_at(photographs: Sequence[Photograph], pyramid: Pyramid) -> PhotographMaps:
    """Read photographs and compute their maps."""
    scaled, maps = [], []
    for each in photographs:
        picture, factor = fit_picture(read_rgb(each.path))
        scaled.append(replace(each, boxes_xyxy=each.boxes_xyxy * factor, category_ids=np.ones_like(each.category_ids)))
        maps.append([y.half() for y in pyramid(picture[None])])
    return PhotographMaps(scaled, [torch.cat(level) for level in zip(*maps)])


def fit_picture(image_rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a picture in the upper left corner of a grey square of SIDE pixels, and the factor of its scaling."""
    factor = SIDE / max(image_rgb.shape[:2])
    small = cv2.resize(image_rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)[:SIDE, :SIDE]
    square = np.full((SIDE, SIDE, 3), 114, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square, factor


def pool_photographs(data: Path, settings: DetectionStudySettings, seed: int = 0) -> tuple[list[Photograph], ...]:
    """Return training and held-back photographs of the pool, whose kinds differ (`data.pool.held_back`)."""
    root = data / "coco"
    everything, _ = read_photographs(root / "annotations" / "instances_train2017.json", root / "train2017")
    usable = [each for each in everything if len(each.boxes_xyxy)]
    parts = ([e for e in usable if not held_back(e.path.stem)], [e for e in usable if held_back(e.path.stem)])
    rng = np.random.default_rng(seed)
    numbers = (settings.train_photographs, settings.held_back_photographs)
    return tuple([part[i] for i in rng.permutation(len(part))[:number]] for part, number in zip(parts, numbers))


def train_branch(seen: PhotographMaps, loss_name: str, seed: int, settings: DetectionStudySettings) -> DetectionEnergy:
    """Train one branch; the same arguments give the same branch."""
    torch.manual_seed(seed)
    branch = DetectionEnergy(CHANNELS, classes=2, hidden=settings.hidden, canonical=CANONICAL)
    optimizer = torch.optim.Adam(branch.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps + 1)
    generator, loss = Generator().manual_seed(seed), paper_loss(loss_name, settings.samples)
    for _ in range(settings.steps):
        rows = torch.randint(len(seen.photographs), (settings.batch,), generator=generator).tolist()
        maps, image, boxes = seen.take(rows), [], []
        for place, row in enumerate(rows):
            truth = torch.from_numpy(seen.photographs[row].boxes_xyxy)
            truth = truth[torch.randperm(len(truth), generator=generator)[: settings.most_boxes]]
            boxes.append(truth)
            image += [place] * len(truth)
        index = torch.tensor(image)

        def energies(candidates: Tensor, maps: FeatureMaps = maps, index: Tensor = index) -> Tensor:
            images = index[:, None].expand(candidates.shape[:2]).flatten()
            return branch(maps, candidates.flatten(0, 1), images, torch.ones_like(images)).view(candidates.shape[:2])

        optimizer.zero_grad(set_to_none=True)
        energy_loss(energies, torch.cat(boxes), loss, generator).backward()
        optimizer.step()
        schedule.step()
    return branch.eval().requires_grad_(False)


def jitter_boxes(seen: PhotographMaps, seed: int) -> list[Boxes]:
    """Return the start boxes of each photograph: its true ones with noise, with random scores."""
    generator, found = Generator().manual_seed(1000 + seed), []
    for each in seen.photographs:
        truth = xyxy_to_xywh(torch.from_numpy(each.boxes_xyxy))
        noise = JITTER * torch.randn(len(truth), 1, 4, generator=generator)
        scores = torch.rand(len(truth), generator=generator)
        found.append(Boxes(displaced_boxes(truth, noise)[:, 0], torch.ones(len(truth), dtype=torch.long), scores))
    return found


def refine_all(branch: DetectionEnergy, seen: PhotographMaps, start: list[Boxes], lengths: StepLengths) -> list[Boxes]:
    """Return the boxes of each photograph after the ascent."""
    return [
        replace(boxes, boxes_xyxy=refine_boxes(scores_in(branch, seen.take([row])), boxes.boxes_xyxy, lengths))
        for row, boxes in enumerate(start)
    ]


def scores_in(branch: DetectionEnergy, maps: FeatureMaps):
    """Return the energies of boxes (R, 4) in one photograph."""

    def scores(boxes_xyxy: Tensor) -> Tensor:
        zeros = torch.zeros(len(boxes_xyxy), dtype=torch.long)
        return branch(maps, boxes_xyxy, zeros, zeros + 1)

    return scores


def overlaps(seen: PhotographMaps, found: list[Boxes]) -> np.ndarray:
    """Return the mean overlap with the truth in each photograph (N,)."""
    means = [
        iou_xywh(xyxy_to_xywh(boxes.boxes_xyxy), xyxy_to_xywh(torch.from_numpy(each.boxes_xyxy))).mean().item()
        for each, boxes in zip(seen.photographs, found)
    ]
    return np.array(means)


def figures_of(seen: PhotographMaps, found: list[Boxes]) -> dict[str, Any]:
    """Return overlaps by photograph, and AP, AP50 and AP75 of all."""
    by_id = {each.id: boxes for each, boxes in zip(seen.photographs, found)}
    precision = coco_ap(as_content(seen.photographs), by_id, ONE_CLASS)
    return {"iou": overlaps(seen, found).tolist()} | {key: precision[key] for key in PRECISIONS}


def draw_example(
    branch: DetectionEnergy, seen: PhotographMaps, row: int, lengths: StepLengths, path: Path, seed: int = 0
) -> None:
    """Write a picture of two panels: a box before (dashed) and after, and the density of its top right corner.

    The corner at the bottom left stays that of the refined box, as in figure 1 of ECCV 2020.

    Args:
        branch: the trained branch.
        seen: photographs.
        row: which of them; its largest box is shown.
        lengths: of the ascent.
        path: picture to write.
        seed: of the start box.
    """
    truth = torch.from_numpy(seen.photographs[row].boxes_xyxy)
    largest = int((truth[:, 2:] - truth[:, :2]).prod(dim=1).argmax())
    start = jitter_boxes(seen, seed)[row].boxes_xyxy[largest : largest + 1]
    scores = scores_in(branch, seen.take([row]))
    end = refine_boxes(scores, start, lengths)
    x0, y0, x1, y1 = end[0].tolist()
    w, h = x1 - x0, y1 - y0
    xs, ys = torch.linspace(x1 - w / 2, x1 + w / 2, 41), torch.linspace(y0 - h / 2, y0 + h / 2, 41)
    heat = heat_map(scores, corner_sweep(end[0], xs, ys), chunk=256).numpy()
    image = read_rgb(seen.photographs[row].path)
    picture, factor = fit_picture(image)
    rows, columns = (round(factor * side) for side in image.shape[:2])  # without the grey
    panels = [cv2.resize(picture[:rows, :columns], None, fx=2, fy=2) for _ in range(2)]
    for box, colour, dashed in ((start[0], ORANGE, True), (end[0], SKY, False)):
        draw_box(panels[0], xyxy_to_xywh(2 * box).tolist(), colour=colour, dashed=dashed)
    overlay_heat(panels[1], heat / heat.max(), (2 * (x1 - w / 2), 2 * (y0 - h / 2), 2 * w, 2 * h))
    draw_box(panels[1], xyxy_to_xywh(2 * end[0]).tolist(), colour=SKY)
    write_picture(path, np.concatenate(panels, axis=1), quality=85)


def frames_per_second(branch: DetectionEnergy, seen: PhotographMaps, number: int = 100, repeats: int = 5) -> float:
    """Return how many photographs have `number` boxes refined in ten steps each second of processor time."""
    truth = torch.from_numpy(seen.photographs[0].boxes_xyxy[:1]).repeat(number, 1)
    start, scores = truth + torch.randn(number, 4), scores_in(branch, seen.take([0]))
    begin = time.process_time()
    for _ in range(repeats):
        refine_boxes(scores, start, STEP_LENGTHS["nce_plus"])
    return repeats / (time.process_time() - begin)


def study_detection(
    out: Path,
    data: Path,
    methods: Sequence[str] = (),
    seeds: int = 3,
    settings: DetectionStudySettings = DetectionStudySettings(),
    log: Callable[[str], None] = print,
) -> str:
    """Train what is missing under `out`, write table.md there after each run, and return it (Markdown).

    Args:
        out: folder of results; finished runs are kept there as JSON.
        data: the training pool.
        methods: losses, names for `paper_loss`; LOSSES by default.
        seeds: networks for each loss.
        settings: what all runs share.
        log: is told of each run.

    Raises:
        ConfigError: an unknown loss, no run, or an `out` with other settings.
    """
    methods = list(methods) or list(LOSSES)
    for name in methods:
        paper_loss(name)
    check_counts(runs=seeds, steps=settings.steps)
    claim_folder(out, settings)
    todo = missing_runs(out, [f"{name}_{seed}" for seed in range(seeds) for name in (START, *methods)])
    if todo:
        pyramid = Pyramid(load_checkpoint(resolve_weights()).feature_extractor)
        train, held = (look_at(part, pyramid) for part in pool_photographs(data, settings))
        for name in todo:
            keep_record(out, name, run_one(name, train, held, settings, out), log)
            make_table(out, methods, settings)
    return make_table(out, methods, settings)


def run_one(
    name: str, train: PhotographMaps, held: PhotographMaps, settings: DetectionStudySettings, out: Path
) -> dict[str, Any]:
    """Return the record of run "LOSS_SEED", or of its start boxes; write a picture of each loss's seed 0 to `out`."""
    method, _, number = name.rpartition("_")
    seed = int(number)
    start = jitter_boxes(held, seed)
    if method == START:
        return figures_of(held, start)
    branch, lengths = train_branch(train, method, seed, settings), STEP_LENGTHS[method]
    if seed == 0:
        draw_example(branch, held, 0, lengths, out / f"{method}.jpg")
    return figures_of(held, refine_all(branch, held, start, lengths)) | {"frames_s": frames_per_second(branch, held)}


def make_table(out: Path, methods: Sequence[str], settings: DetectionStudySettings) -> str:
    """Write table.md of the finished runs to `out`, and return it."""
    head = (
        f"{settings.train_photographs} photographs, {settings.steps} steps of {settings.batch}, M = {settings.samples}"
        f"; {settings.held_back_photographs} held-back photographs of other kinds."
    )
    rows = []
    for method in (START, *methods):
        records = load_records(out, ("iou", *PRECISIONS), f"{method}_[0-9]*")
        if records:
            cells = [method, str(len(records)), mean_cell([each["iou"] for each in records])]
            cells += [seeds_cell([100 * each[key] for each in records]) for key in PRECISIONS]
            rows.append([*cells, "" if method == START else f"{np.mean([e['frames_s'] for e in records]):.1f}"])
    table = "\n".join([head, "", *markdown_table(HEADS, rows)]) + "\n"
    files.write_text(out / "table.md", table)
    return table
