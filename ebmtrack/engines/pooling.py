"""The bin weights of precise RoI pooling and their chain rule, in NumPy.

The arithmetic of ten boxes is many small steps: NumPy's calls cost a third of torch's, and no GPU would make them
faster. Source of the formula: Jiang et al., "Acquisition of Localization Confidence", ECCV 2018, equation 6.
"""

from __future__ import annotations

import numpy as np

WINDOWS = ((12, 16, 20, 24), (8, 10, 12, 14))  # sides, in cells, of parts of the two maps that are computed at once
SLACK = 0.5  # cells by which edges of bins may wander, to each side, before larger parts are needed
FAR = 1e6  # pixels; boxes that reach farther, or are not numbers, have no energy
MARGIN = 2  # cells that two 3 x 3 convolutions see beyond their output


def bin_edges(boxes_cells: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges (..., 2, s + 1), in x and y, of the s = `bins` bins of boxes (..., 4)."""
    low = boxes_cells[..., :2, None]
    size = boxes_cells[..., 2:, None] - low
    return low + size * (np.arange(bins + 1, dtype=boxes_cells.dtype) / bins)


class BinWeights:
    """The weights of cells in bins along an axis, and the chain rule to the bins' edges."""

    def __init__(self, low: np.ndarray, high: np.ndarray, cells: np.ndarray, per_bin: np.ndarray):
        """Compute `values`, the weight of each cell in its bin, and `hat`: how they change with low and high ends.

        At fixed width a weight's derivative by the bin's high end is hat[1] per_bin, by its low end -hat[0] per_bin.
        All arrays have the same shape after broadcasting.

        Args:
            low: where bins begin, in cells.
            high: where they end.
            cells: positions of cells.
            per_bin: 1 / bin width; 0 for boxes without area.
        """
        shape = np.broadcast_shapes(low.shape, cells.shape)
        distance = np.empty((2, *shape), low.dtype)  # of both ends
        np.subtract(low, cells, out=distance[0])
        np.subtract(high, cells, out=distance[1])
        np.minimum(distance, 1, out=distance)
        np.maximum(distance, -1, out=distance)
        reach = np.abs(distance)
        self.hat = 1 - reach
        reach *= 0.5
        np.subtract(1, reach, out=reach)
        reach *= distance  # the integral of the hat, up to a constant
        self.values = reach[1] - reach[0]
        self.values *= per_bin


class PoolingKernel:
    """The weight of every cell of a bin's window in the bin, K = D x A, and the chain rule from K to the box."""

    def __init__(self, edges: np.ndarray, cells: np.ndarray):
        """Compute `kernel` (R, s length, s length): bin and cell in y, bin and cell in x.

        Args:
            edges: (R, 2, s + 1), of the bins of R boxes, in x and y, in cells.
            cells: (R or 1, 2, s, length), the positions of the cells of each bin's window, in the edges' dtype.
        """
        size = edges[..., -1] - edges[..., 0]
        has_area = (size > 0).all(axis=1, keepdims=True)
        bins = edges.shape[-1] - 1
        self.per_bin = np.divide(bins, size, out=np.zeros_like(size), where=has_area)  # 1 / bin width, (R, 2)
        self.bins = BinWeights(edges[..., :-1, None], edges[..., 1:, None], cells, self.per_bin[..., None, None])
        self.weights = self.bins.values  # (R, 2, s, length)
        self.across, self.down = (self.weights[:, axis].reshape(len(size), -1) for axis in (0, 1))
        self.kernel = self.down[:, :, None] * self.across[:, None, :]

    def gradient(self, of_kernel: np.ndarray) -> np.ndarray:
        """Return the gradient (R, 4) in x0, y0, x1, y1 (cells) of the sum of `of_kernel` times the kernel.

        Args:
            of_kernel: as large as the kernel, in any shape.
        """
        of_kernel = of_kernel.reshape(self.kernel.shape)
        r, _, bins, length = self.weights.shape
        of_weights = np.empty_like(self.weights)
        np.matmul(self.down[:, None], of_kernel, out=of_weights[:, 0].reshape(r, 1, bins * length))
        np.matmul(of_kernel, self.across[:, :, None], out=of_weights[:, 1].reshape(r, bins * length, 1))
        of_ends = (self.bins.hat * of_weights).sum(-1)
        of_ends *= self.per_bin[..., None]
        of_low_ends, of_high_ends = of_ends  # (R, 2, s) each
        of_weights *= self.weights
        of_width = of_weights.sum((2, 3)) * self.per_bin / bins
        fraction = np.arange(bins + 1, dtype=of_weights.dtype) / bins
        low, high = fraction[:-1], fraction[1:]
        of_low = of_high_ends @ (1 - high) - of_low_ends @ (1 - low)
        of_high = of_high_ends @ high - of_low_ends @ low
        return np.concatenate([of_low + of_width, of_high - of_width], axis=1)
