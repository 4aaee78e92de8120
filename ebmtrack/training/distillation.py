"""A network learns to compute a trained one's features: no labels are needed, so a small pool lasts longer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.nets.backbone import fold_batch_norm, normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
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
        self.teacher = fold_batch_norm(teacher.eval()).requires_grad_(False).to(memory_format=torch.channels_last)
        self.bfloat16 = bfloat16

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


def _normalized(crops: Tensor, net: Any) -> Tensor:
    """Return crops (n, 3, H, W) as the network's trunk takes them."""
    return normalize_images(crops.float(), net.feature_extractor).contiguous(memory_format=torch.channels_last)
