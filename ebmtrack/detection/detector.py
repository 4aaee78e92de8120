"""Whole detectors: a host with an energy branch or with another distribution of offsets; their files."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ebmtrack.checkpoints.untrusted import fit_entries, read_safetensors
from ebmtrack.detection.baselines import BASELINES, OffsetModel, as_predictor
from ebmtrack.detection.branch import CANONICAL_SIZE, DetectionEnergy
from ebmtrack.detection.host import Boxes, FeatureMaps, Host, load_host
from ebmtrack.detection.refine import STEP_LENGTHS, StepLengths, guided_nms, per_class, refine_boxes
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import replacing
from ebmtrack.names import check_name

KEEP = 100  # boxes of an image: ECCV 2020, appendix C
HEADER = "ebmtrack_detection"


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """The configuration of a detector, which its file of weights holds.

    Attributes:
        host: name for `load_host`.
        method: loss of the energy branch (`losses.LossName`), or a baseline (`baselines.BASELINES`).
        min_size: shorter side, in pixels, to which the host scales images.
        max_size: longest side.
        hidden: width of the branch.
        canonical: see `DetectionEnergy`.
    """

    host: str = "fasterrcnn_resnet50_fpn"
    method: str = "nce_plus"
    min_size: int = 800
    max_size: int = 1333
    hidden: int = 1024
    canonical: float = CANONICAL_SIZE

    def __post_init__(self) -> None:
        check_name("method", self.method, (*STEP_LENGTHS, *BASELINES))


def class_count(host: Host) -> int:
    """Return the number of classes that a host tells apart, the background included."""
    detector = host.detector
    predictor = getattr(getattr(detector, "roi_heads", None), "box_predictor", None)
    if predictor is not None:
        return predictor.cls_score.out_features
    return detector.head.classification_head.num_classes


def apply_energy(
    energy: DetectionEnergy,
    maps: FeatureMaps,
    found: Boxes,
    lengths: StepLengths,
    steps: int = 10,
    keep: int = KEEP,
) -> Boxes:
    """Suppress an image's boxes in the order of their energies, and let those that stay climb.

    Neither suppression nor scoring follows the ascent (BMVC 2020, appendix C).

    Args:
        energy: the branch.
        maps: of one image.
        found: its boxes before suppression, in pixels of the network's input.
        lengths: first step lengths.
        steps: of the ascent.
        keep: boxes that stay at most, of all classes together, those with the best scores.
    """
    sides = found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]
    found = found.select((sides > 0).all(dim=1))

    def scores_as(labels: Tensor, boxes_xyxy: Tensor) -> Tensor:
        return energy(maps, boxes_xyxy, torch.zeros_like(labels), labels)

    with torch.no_grad():
        f = scores_as(found.labels, found.boxes_xyxy)
    kept, scores = [found.labels[:0]], [found.scores[:0]]
    for rows in per_class(found.labels):
        stay, best = guided_nms(found.boxes_xyxy[rows], found.scores[rows], f[rows])
        kept.append(rows[stay])
        scores.append(best)
    rows, score = torch.cat(kept), torch.cat(scores)
    top = score.argsort(descending=True, stable=True)[:keep]
    boxes, labels = found.boxes_xyxy[rows[top]], found.labels[rows[top]]
    if len(boxes):
        boxes = refine_boxes(lambda each: scores_as(labels, each), boxes, lengths, steps)
    return Boxes(boxes, labels, score[top])


class EnergyDetector(nn.Module):
    """A frozen host with an energy branch."""

    def __init__(self, host: Host, config: DetectorConfig):
        super().__init__()
        self.host, self.config = host, config
        self.energy = DetectionEnergy(host.channels, class_count(host), config.hidden, canonical=config.canonical)
        self.energy.start_from(host)

    def forward(self, images: Sequence[Tensor], steps: int = 10) -> list[Boxes]:
        """Return the boxes of images (3, H, W) in [0, 1], in their pixels; with `steps` 0 they are not refined."""
        maps, found = self.host.candidates(images)
        lengths = STEP_LENGTHS[self.config.method]
        out = []
        for index, boxes in enumerate(found):
            done = apply_energy(self.energy, maps.image(index), boxes, lengths, steps)
            scale = maps.scales_xy[index].repeat(2)
            height, width = images[index].shape[1:]
            limits = scale.new_tensor([width, height, width, height])
            out.append(
                dataclasses.replace(done, boxes_xyxy=torch.minimum((done.boxes_xyxy / scale).clamp(min=0), limits))
            )
        return out

    def trainable_part(self) -> nn.Module:
        """Return the part that training changes and a file holds."""
        return self.energy


class BaselineDetector(nn.Module):
    """A frozen host whose offsets are the mean of a trained distribution, with the host's own suppression."""

    def __init__(self, host: Host, config: DetectorConfig):
        super().__init__()
        self.host, self.config = host, config
        heads: Any = getattr(host.detector, "roi_heads", None)
        if not hasattr(getattr(heads, "box_predictor", None), "bbox_pred"):
            raise ConfigError(f"{config.host} has no offsets of region proposals; baselines need Faster R-CNN")
        predictor = heads.box_predictor
        self.model = OffsetModel(config.method, predictor.cls_score.in_features, class_count(host))
        heads.box_predictor = as_predictor(predictor.cls_score, self.model)

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor]) -> list[Boxes]:
        """Return the boxes of images (3, H, W) in [0, 1], in their pixels."""
        found = self.host.detector(list(images))
        return [Boxes(each["boxes"], each["labels"], each["scores"]) for each in found]

    def trainable_part(self) -> nn.Module:
        """Return the part that training changes and a file holds."""
        return self.model


def new_detector(config: DetectorConfig, host_weights: str) -> EnergyDetector | BaselineDetector:
    """Return a detector whose trainable part is new; `host_weights` as for `load_host`."""
    baseline = config.method in BASELINES
    sizes = {"min_size": config.min_size, "max_size": config.max_size}
    host = load_host(config.host, host_weights, suppress=baseline, **sizes)
    return BaselineDetector(host, config) if baseline else EnergyDetector(host, config)


def save_detector(path: str | os.PathLike, net: EnergyDetector | BaselineDetector, run: dict[str, Any]) -> None:
    """Write the trained part, without the host's weights, with its configuration and facts of its training."""
    entries = {name: value.detach().cpu().contiguous() for name, value in net.trainable_part().state_dict().items()}
    text = json.dumps({"config": dataclasses.asdict(net.config), "run": run}, sort_keys=True)
    with replacing(path) as temporary:
        save_file(entries, temporary, {HEADER: text})


def load_detector(path: str | os.PathLike, host_weights: str = "COCO_V1") -> EnergyDetector | BaselineDetector:
    """Return the detector that `save_detector` wrote, on its host.

    Args:
        path: the file.
        host_weights: as for `load_host`.

    Raises:
        CheckpointError: the file is of another kind, or does not fit the host.
    """
    header, tensors = read_safetensors(path)
    try:
        config = DetectorConfig(**json.loads(header[HEADER])["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: was not written by `ebmtrack detect train` ({error}); give such a file"
        ) from error
    net = new_detector(config, host_weights)
    net.trainable_part().load_state_dict(fit_entries(tensors, net.trainable_part().state_dict(), Path(path)))
    return net.eval()
