"""What a training step minimises: the classifier's hinge loss on every filter iterate plus NCE+ on box energies."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.data.pipeline import nce_candidates
from ebmtrack.energy.losses import nce_plus
from ebmtrack.energy.noise import GaussianMixture
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.classifier import FEATURE_STRIDE, distance_maps
from ebmtrack.nets.tracker_net import TrackerNet


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """Weights of the losses (super_dimp; BMVC 2020, supplement) and the noise of NCE+."""

    box_weight: float = 0.01
    final_weight: float = 100.0
    initial_weight: float = 100.0
    inner_weight: float = 400.0          # shared by the iterates between the first and the last
    hinge_threshold: float = 0.05
    label_sigma: float = 0.9             # feature cells
    sigmas: tuple[float, ...] = (0.05, 0.5)  # BMVC 2020, section 5.3
    beta: float = 0.1                    # BMVC 2020, section 5.3
    samples: int = 128


def score_labels(boxes_xywh: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Gaussian target scores (..., h', w') centred on boxes (..., 4); sigma in feature cells (DiMP, section 3.4)."""
    centres = (boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2) / FEATURE_STRIDE
    return (-0.5 * (distance_maps(centres, size) / sigma).square()).exp()


def hinge_loss(scores: Tensor, labels: Tensor, threshold: float = 0.05) -> Tensor:
    """Mean squared error, one-sided on the background: there scores below zero cost nothing (DiMP, equation 7)."""
    background = labels < threshold
    target = torch.where(background, 0.0, labels)
    return (torch.where(background, scores.clamp(min=0), scores) - target).square().mean()


def classifier_loss(
    scores: list[Tensor], labels: Tensor, settings: ObjectiveSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted hinge losses of all filter iterates; scores: one (t, s, h', w') per iterate, first guess first."""
    losses = [hinge_loss(s, labels, settings.hinge_threshold) for s in scores]
    total = settings.final_weight * losses[-1] + settings.initial_weight * losses[0]
    if len(losses) > 2:
        total = total + settings.inner_weight / (len(losses) - 2) * sum(losses[1:-1])
    return total, {"first": losses[0].detach(), "last": losses[-1].detach()}


class Objective:
    """Batch -> (loss, what to log). A batch holds `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4)."""

    def __init__(self, net: TrackerNet, train_frames: int, settings: ObjectiveSettings, bfloat16: bool = False):
        self.net, self.train_frames, self.settings, self.bfloat16 = net, train_frames, settings, bfloat16
        self.mixture = GaussianMixture.isotropic(settings.sigmas, dims=4)

    def __call__(
        self, batch: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(self.net.parameters()).device
        crops, boxes = batch["crops"].to(device), batch["boxes_xywh"].transpose(0, 1)
        images = normalize_images(crops.transpose(0, 1).permute(0, 1, 4, 2, 3).flatten(0, 1))
        images = images.contiguous(memory_format=torch.channels_last).unflatten(0, crops.shape[1::-1])
        n, settings = self.train_frames, self.settings
        candidates, log_q = nce_candidates(boxes[n:], self.mixture, settings.samples, settings.beta, generator)
        train_boxes = xywh_to_xyxy(boxes[:n]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            scores, energies = self.net(images[:n], train_boxes, images[n:], candidates.to(device))
        box = nce_plus(energies.float(), log_q.to(device))
        labels = score_labels(boxes[n:].to(device), tuple(scores[0].shape[-2:]), settings.label_sigma)
        classifier, parts = classifier_loss([s.float() for s in scores], labels, settings)
        logs = {**parts, "box": box.detach(), "classifier": classifier.detach()}
        return classifier + settings.box_weight * box, logs
