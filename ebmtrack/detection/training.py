"""The training of a branch, or of a baseline, on photographs: objective, optimiser, schedule and plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.detection.baselines import BASELINES
from ebmtrack.detection.detector import BaselineDetector, DetectorConfig, EnergyDetector, class_count, new_detector
from ebmtrack.detection.losses import EnergyLoss, energy_loss
from ebmtrack.detection.photographs import CategoryLabels, PhotographBatches, read_photographs
from ebmtrack.errors import DatasetError
from ebmtrack.training.plan import Data, Logs, Network, Plan, Share

BASE_RATES = {"iou_net": 0.01, "iou_net_star": 0.01, **dict.fromkeys(BASELINES, 0.005)}  # ECCV 2020, appendix C
ENERGY_RATE = 0.001


class DetectionObjective:
    """The loss of a batch of photographs, for a detector with an energy branch or a baseline."""

    def __init__(self, loss: EnergyLoss):
        self.loss = loss

    def __call__(
        self, net: nn.Module, batch: dict[str, Any], generator: torch.Generator, share: Share
    ) -> tuple[Tensor, Logs]:
        """Return the mean loss over true boxes; see `plan.StepObjective` and `PhotographBatches.batch`."""
        detector: Any = net
        device = next(detector.trainable_part().parameters()).device
        images, boxes, labels = ([each.to(device) for each in batch[key]] for key in ("images", "boxes_xyxy", "labels"))
        if isinstance(net, BaselineDetector):
            return _baseline_loss(net, images, boxes, labels, generator), {}
        maps = detector.host.look(images)
        truth = torch.cat([each * scale.repeat(2) for each, scale in zip(boxes, maps.scales_xy)])
        index = torch.repeat_interleave(torch.tensor([len(each) for each in boxes], device=device))
        classes = torch.cat(labels)

        def energies(candidates: Tensor) -> Tensor:
            rows = [each[:, None].expand(candidates.shape[:2]).flatten() for each in (index, classes)]
            return detector.energy(maps, candidates.flatten(0, 1), *rows).view(candidates.shape[:2])

        return energy_loss(energies, truth, self.loss, generator, share), {}


def _baseline_loss(
    net: BaselineDetector, images: list[Tensor], boxes: list[Tensor], labels: list[Tensor], generator: torch.Generator
) -> Tensor:
    """Return a baseline's loss on the positive ones of the regions that torchvision samples for its own training."""
    detector = net.host.detector
    heads = detector.roi_heads
    with torch.no_grad():
        targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels)]
        prepared, targets = detector.transform(images, targets)
        features = detector.backbone(prepared.tensors)
        proposals, _ = detector.rpn(prepared, features, None)
        regions, _, classes, offsets = heads.select_training_samples(proposals, targets)
        positive = torch.cat(classes) > 0
        pooled = heads.box_head(heads.box_roi_pool(features, regions, prepared.image_sizes))[positive].flatten(1)
    return net.model.loss(pooled, torch.cat(offsets)[positive], torch.cat(classes)[positive], generator)


def stepwise_rate(drops: tuple[int, ...], warmup: int = 500, start: float = 1 / 3) -> Callable[[int], float]:
    """Return step -> factor: linear from `start` to 1 in the warm-up, a tenth after each of `drops`.

    >>> rate = stepwise_rate((40_000, 50_000))
    >>> [round(rate(step), 3) for step in (0, 250, 500, 39_999, 40_000, 50_000)]
    [0.333, 0.667, 1.0, 1.0, 0.1, 0.01]
    """

    def rate(step: int) -> float:
        warm = 1.0 if step >= warmup else start + (1 - start) * step / warmup
        return warm * 0.1 ** sum(step >= drop for drop in drops)

    return rate


def sgd(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9 (maskrcnn-benchmark)."""
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9)


def weight_groups(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Return parameter groups: weights with decay 1e-4, and biases without, at twice the rate (maskrcnn-benchmark)."""
    named = list(module.named_parameters())
    weights = [value for name, value in named if not name.endswith("bias")]
    biases = [value for name, value in named if name.endswith("bias")]
    return [
        {"params": weights, "lr": rate, "weight_decay": 1e-4},
        {"params": biases, "lr": 2 * rate, "weight_decay": 0.0},
    ]


def coco_files(root: Path, split: str) -> tuple[Path, Path]:
    """Return the annotation file and the folder of photographs of a split; DatasetError if one is missing."""
    annotations = root / "annotations" / f"instances_{split}.json"
    folder = next((each for each in (root / split, root / "images" / split) if each.is_dir()), root / split)
    for path in (annotations, folder):
        if not path.exists():
            raise DatasetError(f"{path}: missing; --data is COCO's folder, with annotations/ and {split}/")
    return annotations, folder


def detection_plan(
    settings: Any,
    config: DetectorConfig,
    loss: EnergyLoss,
    root: Path,
    drops: tuple[int, ...],
    split: str = "train2017",
) -> Plan:
    """Return the plan of a run; the host stays as it is, and the weights file holds the trained part alone.

    Args:
        settings: with samples, seed, rate (None for the paper's), warmup, and host_weights for `load_host`.
        config: the detector.
        loss: of an energy branch.
        root: COCO's folder.
        drops: steps after which the learning rate falls to a tenth.
        split: its part to train on.
    """
    photographs, names = read_photographs(*coco_files(root, split))  # before a download of the host
    torch.manual_seed(settings.seed)
    net = new_detector(config, settings.host_weights)
    data = PhotographBatches(
        photographs, CategoryLabels(list(names), class_count(net.host)), settings.samples, settings.seed
    )
    rate = settings.rate if settings.rate is not None else BASE_RATES.get(config.method, ENERGY_RATE)
    network = Network(net, weight_groups(net.trainable_part(), rate), optimizer=sgd)
    network.rate = stepwise_rate(drops, settings.warmup)
    return Plan(network, Data(data), DetectionObjective(loss), save=_save)


def _save(path: Path, net: nn.Module, run: dict[str, Any]) -> None:
    """Write the trained part; see `plan.Plan.save`."""
    from ebmtrack.detection.detector import save_detector

    assert isinstance(net, EnergyDetector | BaselineDetector)
    save_detector(path, net, run)
