"""A raster of LiDAR points from above, and a small dense backbone on it: for synthetic scenes and first experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmtrack.boxes3d.energy import BevFrame

RASTER_CHANNELS = 6


def rasterize(points: Tensor, frame: BevFrame, height: int, width: int) -> Tensor:
    """Return a raster (6, H, W) of points (N, 4): x, y, z in metres and intensity.

    Channels: log(1 + number of points), mean x and mean y from the cell's centre in cells, largest z, mean z, mean
    intensity; cells without points are 0. Points outside of the raster are left out.
    """
    place = (points[:, :2] - points.new_tensor(frame.origin_xy)) / frame.cell
    column, row = place.floor().long().unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    points, place, cell = points[inside], place[inside], (row * width + column)[inside]
    ones = torch.ones(len(points), 1, dtype=points.dtype, device=points.device)
    values = torch.cat([ones, place - place.floor() - 0.5, points[:, 2:]], dim=1)  # count, dx, dy, z, intensity
    sums = points.new_zeros(height * width, 5).index_add(0, cell, values)
    means = sums[:, 1:] / sums[:, :1].clamp(min=1)
    top = points.new_zeros(height * width).scatter_reduce(0, cell, points[:, 2], "amax", include_self=False)
    raster = torch.stack([sums[:, 0].log1p(), means[:, 0], means[:, 1], top, means[:, 2], means[:, 3]])
    return raster.view(RASTER_CHANNELS, height, width)


class ToyBackbone(nn.Module):
    """Three convolutions on a raster, without stride: (6, H, W) -> (C, H, W).

    It takes the place of a frozen detector's backbone where there is none, and is trained with the energy.
    """

    def __init__(self, channels: int = 16, width: int = 24):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(RASTER_CHANNELS, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, raster: Tensor) -> Tensor:
        return self.layers(raster[None])[0]
