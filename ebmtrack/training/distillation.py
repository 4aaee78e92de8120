"""A network learns to compute a trained one's features, or its answers, instead of the labels of a small pool."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.nets.backbone import fold_batch_norm, normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings, draw_candidates
from ebmtrack.training.plan import Batch, Logs, Share

FIRST = ("conv3_1r", "conv3_1t", "conv4_1r", "conv4_1t")  # the box branch's first layers; r: reference, t: test
FEATURES = ("reference8", "test8", "reference16", "test16", "classifier")


def first_features(net: Any, images: Tensor) -> list[Tensor]:
    """Return what the heads of a `TrackerNet` compute first of normalised images (n, 3, H, W).

    Returns:
        Features (n, c, h, w): those of the box branch behind its first convolutions and their batch norms (strides 8
        and 16, each for reference and test), and those of the classifier (stride 16), as `FEATURES` names them.
    """
    layer2, layer3 = net.feature_extractor(images)
    first = (getattr(net.bb_regressor, name) for name in FIRST)
    made = [norm(conv(layer)) for layer, (conv, norm, *_) in zip((layer2, layer2, layer3, layer3), first)]
    return [*made, net.classifier.features(layer3)]


class Distillation:
    """The squared difference between a network's first features and a trained network's, in shares of their variance.

    The variance is that within channels for the box branch, and of all values for the classifier, where a batch holds
    all samples. Each feature counts alike; the figures of the log are the shares that are explained (R^2).
    """

    def __init__(self, teacher: TrackerNet, bfloat16: bool = False):
        """Take the trained network, whose batch norms are folded in place, and whether convolutions are in bfloat16."""
        self.teacher, self.bfloat16 = _fixed(teacher), bfloat16

    def __call__(self, net: nn.Module, batch: Batch, generator: torch.Generator, share: Share) -> tuple[Tensor, Logs]:
        """Return the sum over the features, and the figures; `crops` (s, f, H, W, 3) uint8 is used of a batch."""
        device = next(net.parameters()).device
        self.teacher.to(device)
        crops = batch["crops"].to(device).flatten(0, 1).permute(0, 3, 1, 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            with torch.no_grad():
                wanted = first_features(self.teacher, _normalized(crops, self.teacher))
            made = first_features(net, _normalized(crops, net))
        errors = []
        for name, ours, theirs in zip(FEATURES, made, wanted):
            theirs = theirs.float()
            within = theirs.var() if name == "classifier" else theirs.var(dim=(0, 2, 3)).mean()
            errors.append((ours.float() - theirs).square().mean() / within)
        return torch.stack(errors).sum(), {name: 1 - error.detach() for name, error in zip(FEATURES, errors)}


class ResponseDistillation:
    """The differences between a network's answers and a trained network's, whatever the shapes of their features.

    Both have classifiers with filters of the same size and the same number of iterations. The box loss is the KL
    divergence KL(p_teacher || p) of densities over the noise boxes of each test frame, whose weights are exp f / q,
    normalised. The classifier's is the squared difference of the score maps, in which scores below zero are zero, in
    shares of the variance of the trained network's; the first and the last filter iterate count one each, and those
    between them one together.
    """

    def __init__(self, teacher: TrackerNet, train_frames: int, settings: ObjectiveSettings, bfloat16: bool = False):
        """Take the trained network, whose batch norms are folded in place.

        Args:
            teacher: the trained network.
            train_frames: number of frames of a sample from which the filter is learned.
            settings: the noise of the boxes; its losses and weights are not used.
            bfloat16: whether convolutions are computed in bfloat16.
        """
        self.teacher, self.train_frames, self.settings = _fixed(teacher), train_frames, settings
        self.objective = Objective(train_frames, settings, bfloat16)

    def __call__(self, net: nn.Module, batch: Batch, generator: torch.Generator, share: Share) -> tuple[Tensor, Logs]:
        """Return the sum of both, and the figures: the divergence in nats, and explained shares of the score maps."""
        device, n = next(net.parameters()).device, self.train_frames
        boxes = batch["boxes_xywh"].transpose(0, 1).to(device)  # (f, s, 4)
        candidates = draw_candidates(boxes[n:], self.settings, generator, share)
        given = batch, boxes[:n], candidates.boxes_xyxy
        with torch.no_grad():
            wanted_scores, wanted = self.objective.answers(self.teacher.to(device), *given)
        scores, energies = self.objective.answers(net, *given)
        divergence = density_divergence(energies.float(), wanted.float(), candidates.log_q)
        errors = [score_error(made.float(), theirs.float()) for made, theirs in zip(scores, wanted_scores, strict=True)]
        between = errors[1:-1]
        total = divergence + errors[0] + errors[-1] + sum(between) / max(1, len(between))
        logs = {"divergence": divergence, "first": 1 - errors[0], "last": 1 - errors[-1]}
        return total, {name: value.detach() for name, value in logs.items()}


def density_divergence(f: Tensor, wanted: Tensor, log_q: Tensor) -> Tensor:
    """Return the mean KL divergence, in nats, of the density of energies `f` from that of the energies `wanted`.

    Args:
        f: energies (..., P) of boxes that are drawn from q.
        wanted: the trained network's energies of the same boxes.
        log_q: log density of the noise at the boxes.
    """
    log_p, wanted_log_p = (torch.log_softmax(values - log_q, dim=-1) for values in (f, wanted))
    return (wanted_log_p.exp() * (wanted_log_p - log_p)).sum(-1).mean()


def score_error(scores: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared difference of scores above zero, in shares of the variance of the wanted ones."""
    wanted = wanted.clamp(min=0)
    return (scores.clamp(min=0) - wanted).square().mean() / wanted.var()


def _fixed(teacher: TrackerNet) -> TrackerNet:
    """Return a trained network with its batch norms folded, in place, that learns nothing."""
    return fold_batch_norm(teacher.eval()).requires_grad_(False).to(memory_format=torch.channels_last)


def _normalized(crops: Tensor, net: Any) -> Tensor:
    """Return crops (n, 3, H, W) as the network's trunk takes them."""
    return normalize_images(crops.float(), net.feature_extractor).contiguous(memory_format=torch.channels_last)
