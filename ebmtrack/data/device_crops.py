"""Search regions cut from images of any size in device memory: the law of `crops.crop_window`, as matrix products.

`crop_window` first averages large windows down (cells of at most 4 x 4 pixels), then interpolates between cells, and
repeats the image's edge. Both are linear and act on rows and columns separately, so a crop is Y I X' with one matrix
for the rows and one for the columns, and a batch of crops is two batched matrix products.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

LEAST_SHRINK = 1.5  # image pixels per crop pixel above which a window is averaged down (crops.crop_window)
MOST_SHRINK = 4.0  # the largest cells that are averaged


@dataclasses.dataclass(frozen=True)
class AxisPlan:
    """How n crops are resampled along one axis.

    start, stop: (n,) int64, the part of the image that is read. low: (n,) where cell 0 begins, in pixels from `start`;
    cell: (n,) the cells' width in pixels; cells: (n,) their number. first, step: (n,) crop pixel j lies at first +
    j * step, in cells, from the middle of cell 0.
    """

    start: np.ndarray
    stop: np.ndarray
    low: np.ndarray
    cell: np.ndarray
    cells: np.ndarray
    first: np.ndarray
    step: np.ndarray

    def part(self, rows: np.ndarray) -> AxisPlan:
        """The plan of some of the crops."""
        return AxisPlan(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def matrix(self, output: int, columns: int, device: torch.device) -> Tensor:
        """Weights (n, output, columns): crop pixel j is the sum of pixels k from `start` times matrix[j, k]."""
        values = np.stack([self.low, self.cell, self.cells, self.first, self.step, self.stop - self.start], axis=1)
        parameters = torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
        return resampling_matrix(*parameters.unbind(1), output=output, columns=columns)


def plan_axis(
    window_start: np.ndarray, window_size: np.ndarray, shrink: np.ndarray, length: np.ndarray, output: int
) -> AxisPlan:
    """The plan for windows (n,) along one axis of images of `length` (n,) pixels.

    shrink: (n,) image pixels per crop pixel along the longer side, which decides on both axes whether to average.
    """
    low = np.floor(window_start)
    high = np.maximum(np.ceil(window_start + window_size), low + 2)
    cells = np.maximum(np.rint((high - low) / np.where(shrink > LEAST_SHRINK, np.minimum(shrink, MOST_SHRINK), 1.0)), 1)
    cell = (high - low) / cells
    step = window_size / output / cell
    first = (window_start - low) / cell + 0.5 * step - 0.5
    start = np.clip(low, 0, length - 1).astype(np.int64)
    stop = np.maximum(np.minimum(high, length), start + 1).astype(np.int64)
    return AxisPlan(start, stop, low - start, cell, cells, first, step)


def mirrored(plan: AxisPlan, which: np.ndarray, output: int) -> AxisPlan:
    """The plan with crops where `which` (n,) bool is set seen in a mirror."""
    first = np.where(which, plan.first + (output - 1) * plan.step, plan.first)
    return dataclasses.replace(plan, first=first, step=np.where(which, -plan.step, plan.step))


def resampling_matrix(
    low: Tensor, cell: Tensor, cells: Tensor, first: Tensor, step: Tensor, length: Tensor, *, output: int, columns: int
) -> Tensor:
    """Weights (n, output, columns) of `AxisPlan`'s crops, from its values (n,); `length`: pixels that are read.

    Each row sums to one. Cells beyond the ends take the end's pixel, columns from `length` on have weight zero.
    """
    at = first[:, None] + step[:, None] * torch.arange(output, device=low.device)  # (n, output)
    left = at.floor()
    share = (at - left)[..., None]
    begin, end = _territories(length, columns)
    weights = torch.zeros(())
    for cell_number, weight in ((left, 1 - share), (left + 1, share)):
        number = torch.minimum(cell_number.clamp(min=0), cells[:, None] - 1)
        start = (low[:, None] + number * cell[:, None])[..., None]  # (n, output, 1)
        covered = torch.minimum(start + cell[:, None, None], end) - torch.maximum(start, begin)
        weights = covered.clamp_(min=0).mul_(weight).add_(weights.to(covered))
    return weights.div_(cell[:, None, None])


def _territories(length: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Where each pixel (n, 1, columns) begins and ends: the first and last of `length` (n,) reach to infinity."""
    column = torch.arange(columns, device=length.device, dtype=length.dtype).expand(len(length), columns)
    begin = column.masked_fill(column == 0, -torch.inf).masked_fill(column >= length[:, None], torch.inf)
    end = torch.where(column == length[:, None] - 1, torch.inf, column + 1)
    return begin[:, None], end[:, None]


def resample(
    pixels: Tensor, offset: Tensor, width: np.ndarray, rows: AxisPlan, columns: AxisPlan, output: int
) -> Tensor:
    """Crops (n, 3, output, output) float32 with whole values 0..255.

    pixels: (P, 3) uint8, images one after another, row by row. offset: (n,) int64 first pixel of each crop's image, on
    the device of `pixels`; width: (n,) its width.
    """
    canvas = _read(pixels, offset, width, rows, columns)
    y = rows.matrix(output, canvas.shape[1], pixels.device)
    x = columns.matrix(output, canvas.shape[2], pixels.device)
    canvas = canvas.permute(0, 3, 1, 2).to(torch.float32)
    return (y[:, None] @ canvas @ x[:, None].mT).round_().clamp_(0, 255)


def _read(pixels: Tensor, offset: Tensor, width: np.ndarray, rows: AxisPlan, columns: AxisPlan) -> Tensor:
    """The parts of the images that the crops need, (n, h, w, 3) uint8; h and w fit the largest, the rest is filler."""
    extents = np.stack([rows.start, rows.stop - 1, columns.start, columns.stop - 1, width])
    top, bottom, left, right, stride = torch.from_numpy(extents).to(pixels.device, non_blocking=True)
    height, breadth = int((rows.stop - rows.start).max()), int((columns.stop - columns.start).max())
    y = torch.minimum(top[:, None] + torch.arange(height, device=pixels.device), bottom[:, None])
    x = torch.minimum(left[:, None] + torch.arange(breadth, device=pixels.device), right[:, None])
    return pixels[(offset[:, None] + y * stride[:, None])[:, :, None] + x[:, None]]
