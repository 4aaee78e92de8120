"""The energy branch f(x, y): one score per class for a box, differentiable in the box (ECCV 2020, appendix C)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.detection.host import FeatureMaps, Host
from ebmtrack.nets.roi_pool import precise_roi_pool_indexed

CANONICAL_SIZE = 224.0  # a box of this size is pooled at stride 16 (maskrcnn-benchmark)


def box_levels(boxes_xyxy: Tensor, strides: list[int], canonical: float = CANONICAL_SIZE) -> Tensor:
    """Return the index (R,) of the feature map on which each box is pooled: the larger the box, the coarser the map.

    The map's stride is 2 ** floor(4 + log2(sqrt(area) / canonical + 1e-6)), within the strides that there are.
    Source: Lin et al., "Feature Pyramid Networks", CVPR 2017, equation 1.

    >>> sides = torch.tensor([112.0, 224.0, 448.0, 896.0])
    >>> box_levels(torch.stack([0 * sides, 0 * sides, sides, sides], dim=1), [4, 8, 16, 32])
    tensor([1, 2, 3, 3])
    """
    sizes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).detach().clamp(min=0).prod(dim=1).sqrt()
    levels = torch.floor(4 + torch.log2(sizes / canonical + 1e-6))
    first = strides[0].bit_length() - 1
    return (levels.clamp(first, first + len(strides) - 1) - first).long()


class DetectionEnergy(nn.Module):
    """Energies of boxes: precise RoI pooling on the map of the box's level, then three layers."""

    def __init__(
        self,
        in_channels: int = 256,
        classes: int = 91,
        hidden: int = 1024,
        resolution: int = 7,
        canonical: float = CANONICAL_SIZE,
    ):
        """Make a branch with random weights; the last layer's are N(0, 0.001^2).

        Args:
            in_channels: of the feature maps.
            classes: number of classes, the background (0) included.
            hidden: width of the two hidden layers.
            resolution: bins of the pooling in each direction.
            canonical: size in pixels of a box that is pooled at stride 16.
        """
        super().__init__()
        self.resolution, self.canonical = resolution, canonical
        self.fc1 = nn.Linear(in_channels * resolution**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.scores = nn.Linear(hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.scores.weight, std=0.001)
        nn.init.zeros_(self.scores.bias)

    def start_from(self, host: Host) -> bool:
        """Copy the two hidden layers of the host's box head; return whether it has two that fit."""
        head = getattr(getattr(host.detector, "roi_heads", None), "box_head", None)
        pairs: list[tuple[nn.Linear, Any]] = [
            (self.fc1, getattr(head, "fc6", None)),
            (self.fc2, getattr(head, "fc7", None)),
        ]
        if any(theirs is None or theirs.weight.shape != ours.weight.shape for ours, theirs in pairs):
            return False
        for ours, theirs in pairs:
            ours.load_state_dict(theirs.state_dict())
        return True

    def pool(self, maps: FeatureMaps, boxes_xyxy: Tensor, image_index: Tensor) -> Tensor:
        """Return the pooled features (R, C * resolution^2) of boxes; the level is chosen without gradient."""
        levels, parts, order = box_levels(boxes_xyxy, maps.strides, self.canonical), [], []
        for level, (features, stride) in enumerate(zip(maps.maps, maps.strides)):
            chosen = (levels == level).nonzero()[:, 0]
            order.append(chosen)
            images = image_index[chosen]
            parts.append(
                precise_roi_pool_indexed(features, boxes_xyxy[chosen], images, self.resolution, 1 / stride).flatten(1)
            )
        return torch.cat(parts)[torch.cat(order).argsort()]

    def forward(self, maps: FeatureMaps, boxes_xyxy: Tensor, image_index: Tensor, labels: Tensor) -> Tensor:
        """Return the energies (R,) of boxes (R, 4), in input pixels, of images (R,), as members of classes (R,)."""
        x = self.fc2(self.fc1(self.pool(maps, boxes_xyxy, image_index)).relu()).relu()
        return self.scores(x).gather(1, labels[:, None])[:, 0]
