"""Checks of a network in the middle of its training: on held-back targets, and in short tracking runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebmtrack.boxes import iou_xywh, rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.energy.ascent import plain_ascent
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.training.plan import Batch, HeldBack, Share, StepObjective

SCALES = {"last": 1000.0}  # the last filter iterate's hinge loss is a few thousandths
STEP_LENGTH, STEPS = 2.5e-3, 10  # of the ascent (pytracking's super_dimp)


class Validation:
    """Losses and box overlap after ascent on held-back targets, the same ones each time.

    Samples are read when the first figures are asked for, and kept.
    """

    def __init__(self, held_back: HeldBack, objective: StepObjective):
        self.held_back, self.objective = held_back, objective
        self.batches: list[Batch] = []

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> dict[str, float]:
        """Return val_loss, val_box, val_last (losses) and val_iou (mean overlap after ascent from jittered boxes)."""
        net.eval()
        self.batches = self.batches or self._read()
        rows: list[dict[str, float]] = []
        for batch in self.batches:
            generator = torch.Generator().manual_seed(7)
            loss, logs = self.objective(net, batch, generator, Share())
            parts: dict[str, float] = {
                key: SCALES.get(key, 1.0) * logs[key].item() for key in ("box", "last") if key in logs
            }
            overlap = overlap_after_ascent(net, batch, self.held_back.train_frames, generator)
            rows.append({"loss": loss.item(), **parts, "iou": overlap})
        return {f"val_{key}": sum(row[key] for row in rows) / len(rows) for key in rows[0]}

    def _read(self) -> list[Batch]:
        """Return the samples as batches."""
        number, batch = self.held_back.number, self.held_back.batch
        items = [self.held_back.samples[index] for index in range(number)]
        parts = [items[first : first + batch] for first in range(0, number, batch)]
        return [{key: torch.stack([item[key] for item in part]) for key in part[0]} for part in parts]


def overlaps_after_ascent(
    energies: Callable[[Tensor], Tensor],
    truth_xywh: Tensor,
    generator: torch.Generator,
    number: int = 1,
    step_length: float = STEP_LENGTH,
) -> Tensor:
    """Return the IoU (n, number) with the truth after ten plain steps from displaced boxes.

    The start boxes are displaced by 10 % of the size (one sigma) and resized by up to 40 %.

    Args:
        energies: boxes_xyxy (n, number, 4) in crop pixels -> energies (n, number).
        truth_xywh: true boxes (n, 4).
        generator: source of the displacements, on the CPU.
        number: starts for each true box.
        step_length: of the ascent in relative coordinates.
    """
    truth = truth_xywh[:, None]
    noise = torch.randn(len(truth), number, 4, generator=generator).to(truth)
    size = truth[..., 2:] * (0.2 * noise[..., 2:]).clamp(-0.4, 0.4).exp()
    corner = truth[..., :2] + truth[..., 2:] * (0.5 + 0.1 * noise[..., :2]) - size / 2
    start = xywh_to_rel(torch.cat([corner, size], dim=-1), size)
    end = plain_ascent(lambda y: energies(xywh_to_xyxy(rel_to_xywh(y, size))), start, step_length, STEPS).y
    end_xywh = rel_to_xywh(end, size)
    return iou_xywh(end_xywh, truth.expand_as(end_xywh)).nan_to_num(0.0)


def overlap_after_ascent(net: Any, batch: Batch, train_frames: int, generator: torch.Generator) -> float:
    """Return the mean IoU after ascent in one test frame of each sample.

    Args:
        net: a `TrackerNet` in evaluation mode.
        batch: `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4).
        train_frames: number of train frames; the first one modulates, and the first test frame is searched.
        generator: source of the displacements, on the CPU.
    """
    device = next(net.parameters()).device
    crops, boxes = batch["crops"][:, [0, train_frames]], batch["boxes_xywh"][:, [0, train_frames]].to(device)
    images = normalize_images(crops.to(device).permute(0, 1, 4, 2, 3).flatten(0, 1), net.feature_extractor)
    layer2, layer3 = net.feature_extractor(images)
    modulation = net.bb_regressor.modulation(layer2[::2], layer3[::2], xywh_to_xyxy(boxes[:, 0]))
    features = net.bb_regressor.features(layer2[1::2], layer3[1::2])
    energies = partial(net.bb_regressor, modulation, features)
    return overlaps_after_ascent(energies, boxes[:, 1], generator).mean().item()


class TrackingRun:
    """A tracking run over the beginning of every sequence of a folder."""

    def __init__(self, folder: str | Path, params: str = "dimp18_nce_plus", frames: int = 100, protocol: str = "ope"):
        """Read the sequences.

        Args:
            folder: sequences as for `ebmtrack eval folder`.
            params: set-up in tracker_params.
            frames: frames of each sequence at most, the first included.
            protocol: scoring protocol of `evaluation.metrics`.

        Raises:
            DatasetError: there is no sequence, or frames are missing.
        """
        from ebmtrack.tracking.params import load_params
        from ebmtrack.videos import open_dataset

        found = open_dataset("folder", folder)
        self.sequences = [found.load(name) for name in found.select()]
        self.paths = {sequence.name: sequence.frame_paths()[:frames] for sequence in self.sequences}
        self.params, self.protocol = load_params(params), protocol

    def __call__(self, net: nn.Module) -> dict[str, float]:
        """Return track_auc, the mean over sequences of the area under the success curve."""
        net.eval()
        known = [value for value in self.areas(net).values() if not np.isnan(value)]  # NaN: no box after the first
        return {"track_auc": sum(known) / len(known) if known else float("nan")}

    def areas(self, net: Any, **changes: float) -> dict[str, float]:
        """Return the area under the success curve of each sequence.

        Args:
            net: a `TrackerNet` in evaluation mode.
            changes: fields of the set-up with other values.
        """
        from ebmtrack.engines.torch_engine import TorchEngine
        from ebmtrack.nets.inference import InferenceNet
        from ebmtrack.tracking.tracker import Tracker

        engine = TorchEngine(InferenceNet(net, next(net.parameters()).device))
        tracker = Tracker(engine, self.params.replace(**changes))
        return {sequence.name: self._area(tracker, sequence) for sequence in self.sequences}

    def _area(self, tracker: Any, sequence: Any) -> float:
        """Return the area under the success curve of one sequence's beginning."""
        from ebmtrack.evaluation.metrics import score_sequence
        from ebmtrack.images import read_rgb
        from ebmtrack.tracking.sequence import track_frames

        paths = self.paths[sequence.name]
        truth = sequence.boxes_xywh[: len(paths)]
        track = track_frames(tracker, map(read_rgb, paths), truth[0], name=sequence.name, seed=0)
        return float(score_sequence(track.boxes_xywh, truth, self.protocol, where=sequence.name).success.mean())
