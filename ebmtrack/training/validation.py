"""How good a network is in the middle of its training: on held-back targets, and in short tracking runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ebmtrack.boxes import iou_xywh, xywh_to_xyxy
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings

Batch = dict[str, Tensor]
SCALES = {"last": 1000.0}  # the last filter iterate's hinge loss is a few thousandths


class Validation:
    """Losses and box overlap after ascent on held-back targets, the same ones each time.

    dataset: its first `samples` samples are used. objective: network -> what is minimised, by default the classifier's
    hinge loss and NCE+, in bfloat16 on a CPU. They are read when the first figures are asked for, and kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        train_frames: int,
        samples: int = 60,
        batch: int = 10,
        objective: Callable[[TrackerNet], Callable] | None = None,
    ):
        self.dataset, self.train_frames, self.samples, self.batch = dataset, train_frames, samples, batch
        self.objective = objective or self._usual_objective
        self.batches: list[Batch] = []

    @torch.no_grad()
    def __call__(self, net: TrackerNet) -> dict[str, float]:
        """val_loss, val_box, val_last (losses), val_iou (mean overlap after ten steps from jittered boxes)."""
        net.eval()
        self.batches = self.batches or self._read()
        objective, rows = self.objective(net), []
        for batch in self.batches:
            generator = torch.Generator().manual_seed(7)
            loss, logs = objective(batch, generator)
            logs = {key: SCALES.get(key, 1.0) * logs[key].item() for key in ("box", "last") if key in logs}
            overlap = overlap_after_ascent(net, batch, self.train_frames, generator)
            rows.append({"loss": loss.item(), **logs, "iou": overlap})
        return {f"val_{key}": sum(row[key] for row in rows) / len(rows) for key in rows[0]}

    def _read(self) -> list[Batch]:
        """The samples as batches."""
        items = [self.dataset[index] for index in range(self.samples)]
        parts = [items[first : first + self.batch] for first in range(0, self.samples, self.batch)]
        return [{key: torch.stack([item[key] for item in part]) for key in part[0]} for part in parts]

    def _usual_objective(self, net: TrackerNet) -> Objective:
        """That of a run with default settings."""
        on_cpu = next(net.parameters()).device.type == "cpu"
        return Objective(net, self.train_frames, ObjectiveSettings(), on_cpu)


def overlap_after_ascent(net: TrackerNet, batch: Batch, train_frames: int, generator: torch.Generator) -> float:
    """Mean IoU with the truth after ten steps of 2.5e-3 from boxes displaced by 10 % and resized by up to 40 %.

    batch: `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4), of which the first train frame modulates and the
    first test frame is searched.
    """
    device = next(net.parameters()).device
    crops, truth = batch["crops"][:, [0, train_frames]], batch["boxes_xywh"][:, [0, train_frames]].to(device)
    images = normalize_images(crops.to(device).permute(0, 1, 4, 2, 3).flatten(0, 1)).unflatten(0, crops.shape[:2])
    noise = torch.randn(len(truth), 4, generator=generator).to(device)
    size = truth[:, 1, 2:] * (0.2 * noise[:, 2:]).clamp(-0.4, 0.4).exp()
    centre = truth[:, 1, :2] + truth[:, 1, 2:] / 2 + 0.1 * noise[:, :2] * truth[:, 1, 2:]
    layer2, layer3 = net.feature_extractor(images.flatten(0, 1))
    modulation = net.bb_regressor.modulation(layer2[::2], layer3[::2], xywh_to_xyxy(truth[:, 0]))
    features = net.bb_regressor.features(layer2[1::2], layer3[1::2])
    y = torch.cat([centre / size, size.log()], dim=1)
    for _ in range(10):
        with torch.enable_grad():
            y.requires_grad_()
            boxes = torch.cat([y[:, :2] * size - y[:, 2:].exp() / 2, y[:, :2] * size + y[:, 2:].exp() / 2], dim=1)
            (gradient,) = torch.autograd.grad(net.bb_regressor(modulation, features, boxes[:, None]).sum(), y)
        y = (y + 2.5e-3 * gradient).detach()
    boxes = torch.cat([y[:, :2] * size - y[:, 2:].exp() / 2, y[:, 2:].exp()], dim=1)
    return iou_xywh(boxes, truth[:, 1]).mean().item()


class TrackingRun:
    """Tracks the beginning of every sequence of a folder with the network as it stands.

    folder: sequences as for `ebmtrack eval folder`; DatasetError where there are none, or frames are missing. params:
    set-up in tracker_params. frames: how many of each sequence at most, the first included.
    """

    def __init__(self, folder: str | Path, params: str = "dimp18_nce_plus", frames: int = 100):
        from ebmtrack.tracking.params import load_params
        from ebmtrack.videos import open_dataset

        found = open_dataset("folder", folder)
        self.sequences = [found.load(name) for name in found.select()]
        self.paths = {sequence.name: sequence.frame_paths()[:frames] for sequence in self.sequences}
        self.params = load_params(params)

    def __call__(self, net: TrackerNet) -> dict[str, float]:
        """track_auc: the mean over sequences of the area under the success curve (protocol `ope`)."""
        from ebmtrack.engines.torch_engine import TorchEngine
        from ebmtrack.nets.inference import InferenceNet
        from ebmtrack.tracking.tracker import Tracker

        net.eval()
        tracker = Tracker(TorchEngine(InferenceNet(net, next(net.parameters()).device)), self.params)
        values = [self._auc(tracker, sequence) for sequence in self.sequences]
        known = [value for value in values if not np.isnan(value)]  # a sequence may have no box after its first
        return {"track_auc": sum(known) / len(known) if known else float("nan")}

    def _auc(self, tracker, sequence) -> float:
        """Area under the success curve of one sequence's beginning."""
        from ebmtrack.evaluation.metrics import score_sequence
        from ebmtrack.evaluation.worker import read_rgb
        from ebmtrack.tracking.sequence import track_frames

        paths = self.paths[sequence.name]
        truth = sequence.boxes_xywh[: len(paths)]
        track = track_frames(tracker, map(read_rgb, paths), truth[0], name=sequence.name)
        return float(score_sequence(track.boxes_xywh, truth, where=sequence.name).success.mean())
