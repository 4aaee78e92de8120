"""The energy of boxes in NumPy: one target, one search region, value and gradient in closed form.

The mathematics is that of engines/torch_energy.py: Z = W F projects the features around each bin once, a box then costs
K Z with its pooling kernel K, and the gradient in the boxes is one more product with Z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ebmtrack.engines.onnx_box_maps import BoxMaps
from ebmtrack.engines.onnx_filter import pool_box
from ebmtrack.engines.pooling import FAR, PoolingKernel, bin_edges
from ebmtrack.engines.products import multiply, multiply_pairs

SLACK = 0.2  # cells by which edges of bins may wander, to each side, before more cells are projected
CUT_SLACK = 0.1  # the same, before another part of what is projected is needed
COUNTS, SCALES = (5, 3), (1 / 8, 1 / 16)  # of both levels: bins per axis, and cells per crop pixel
PARTS = (slice(0, 5), slice(5, 8), slice(8, 13), slice(13, 16))  # all bins: in x of both levels, then in y
BINS = PARTS[-1].stop
LEVEL_OF = np.tile(np.repeat([0, 1], COUNTS), 2)  # of each bin
SCALE = np.array(SCALES, np.float32)[LEVEL_OF]


def corners_to_ends() -> np.ndarray:
    """Return the matrix (4, 2, BINS) from a box x0, y0, x1, y1 to where its bins begin and, negated, end, in cells."""
    low = np.concatenate([np.arange(bins) / bins for bins in COUNTS])
    high = np.concatenate([np.arange(1, bins + 1) / bins for bins in COUNTS])
    to_ends = np.zeros((4, 2, BINS))
    for axis, bins in ((0, slice(0, BINS // 2)), (1, slice(BINS // 2, BINS))):
        to_ends[axis, :, bins] = 1 - low, high - 1
        to_ends[axis + 2, :, bins] = low, -high
    return (to_ends * SCALE).astype(np.float32)


CORNERS_TO_ENDS = corners_to_ends()
FACTORS = [np.float32((bins / scale / 2) ** 2) for bins, scale in zip(COUNTS, SCALES)]  # see HiddenUnits
TINY = np.float32(1e-30)  # pixels


def modulation_vectors(
    reference8: np.ndarray, reference16: np.ndarray, box_xyxy: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Return the two modulation vectors (256,) of a target.

    Args:
        reference8: features (c, h, w) of the reference branch at stride 8.
        reference16: those at stride 16.
        box_xyxy: (4,) float32, the target in crop pixels.
        arrays: "reference/..." of the exported network.
    """
    pooled8, pooled16 = pool_box(reference8, box_xyxy, 3, 1 / 8), pool_box(reference16, box_xyxy, 1, 1 / 16)
    hidden = np.maximum(arrays["reference/fc3_weight"] @ pooled8.reshape(-1) + arrays["reference/fc3_bias"], 0)
    joined = np.concatenate([hidden, pooled16.reshape(-1)])
    levels = ("8", "16")
    return [np.maximum(arrays[f"reference/w{n}"] @ joined + arrays[f"reference/b{n}"], 0) for n in levels]


class ModulatedWeights:
    """The energy branch's weights with one target's modulation multiplied in."""

    def __init__(self, vectors: Sequence[np.ndarray], arrays: Mapping[str, np.ndarray]):
        """Take two modulation vectors (256,) and "energy/..." of the exported network."""
        self.vectors = tuple(vectors)
        self.weights = [
            arrays[f"energy/w{n}"] * (vector * factor)[:, None]
            for n, vector, factor in zip(("8", "16"), vectors, FACTORS)
        ]
        self.biases = arrays["energy/b8"], arrays["energy/b16"]
        self.out, self.bias = arrays["energy/out"].reshape(2, -1), arrays["energy/out_bias"][0]


class NumpyProjection:
    """Z = W F: what the cells of a feature map contribute to the hidden units, for each bin those that it can touch.

    Along an axis all bins have equally many cells, so that one batch of products does it.

    first, last: (2, s) the bins' first and last cells in x and in y.
    products: one row of 256 for each bin in y, bin in x, cell in y and cell in x.
    base, stride: (2, s); the row of a cell (x, y) in a bin is base + stride x, plus base + stride y.
    """

    def __init__(self, maps: BoxMaps, level: int, weight: np.ndarray, low: np.ndarray, high: np.ndarray):
        """Project the cells of a map by weight (s s, c, 256) for bins from low to high (2, s), in cells of the map."""
        s, side = low.shape[1], maps.side(level)
        first = np.floor(low - np.float32(SLACK)).clip(0, side - 1).astype(int)
        last = np.ceil(high + np.float32(SLACK)).clip(first, side - 1).astype(int)
        lengths = (last - first).max(axis=1, keepdims=True) + 1
        first = (first - (lengths - 1 - last + first) // 2).clip(0, side - lengths)
        self.first, self.last = first, first + (lengths - 1)
        part, corner = maps.part(level, first.min(axis=1), first.max(axis=1) + lengths[:, 0] - 1)
        (across,), (down,) = lengths.tolist()
        x, y = first - corner[:, None]
        x, y = x[:, None] + np.arange(across), y[:, None] + np.arange(down)
        cells = part[y[:, None, :, None], x[:, None, :]]  # (s, s, down, across, c)
        products = multiply(cells.reshape(s * s, down * across, -1), weight)
        self.products = products.reshape(-1, products.shape[-1])
        numbers = np.arange(s) * (down * across)
        self.base = np.stack([numbers - first[0], numbers * s - first[1] * across])
        self.stride = np.repeat([[1], [across]], s, axis=1)

    def holds(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Return whether all cells touched by bins with intervals (2, s) from low to high (within the map) are here."""
        return bool((np.floor(low) >= self.first).all() and (np.ceil(high) <= self.last).all())


class Windows:
    """The projected features of both levels around some boxes, and the cells of all bins side by side.

    There are P cells: in x those of level 8 and of level 16, then those in y.
    """

    def __init__(self, projections: Sequence[NumpyProjection], sides: Sequence[int], low: np.ndarray, high: np.ndarray):
        """Cut what bins within low to high (BINS,) need from the projections of both levels.

        Args:
            projections: of the levels.
            sides: the number of cells along each side of their maps.
            low: where bins begin, at the least, in cells.
            high: where they end, at the most.
        """
        self.projections = projections
        known_first, known_last, base, stride = (
            np.concatenate([getattr(one, name)[axis] for axis in (0, 1) for one in projections])
            for name in ("first", "last", "base", "stride")
        )
        first = np.floor(low - np.float32(CUT_SLACK)).clip(known_first, known_last)
        last = np.ceil(high + np.float32(CUT_SLACK)).clip(first, known_last)
        first, counts = first.astype(int), (last - first).astype(int) + 1
        ends = counts.cumsum()
        bins = np.repeat(np.arange(BINS), counts)
        cells = np.arange(len(bins)) + (first - ends + counts)[bins]
        self.tables = CORNERS_TO_ENDS[..., bins].reshape(4, -1)
        self.slopes = 2 * self.tables.T
        self.shift = np.concatenate([-cells, cells]).astype(np.float32)
        least = np.where(first == 0, -FAR * SCALE, first)
        most = np.where(last == np.array(sides)[LEVEL_OF] - 1, FAR * SCALE, last)
        self.bound = np.concatenate([least[bins], -most[bins]]).astype(np.float32) + self.shift
        rows = base[bins] + stride[bins] * cells
        a, b, c, d = (int(ends[part.stop - 1]) for part in PARTS)
        self.across, self.down = (slice(0, a), slice(a, b)), (slice(b, c), slice(c, d))
        self.in_x, self.in_y = slice(0, b), slice(b, d)
        self.z = [
            one.products.take((rows[down, None] + rows[across]).reshape(-1), axis=0)
            for one, across, down in zip(projections, self.across, self.down)
        ]

    def distances(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return by how much bins of boxes (R, 4) begin after each cell, and end before it, side by side (R, 2 P)."""
        distances = boxes_xyxy @ self.tables
        distances += self.shift
        return distances

    def hold(self, distances: np.ndarray) -> bool:
        """Return whether all cells of the maps that bins at distances (R, 2 P) touch are here.

        They are not if a box is out of sight.
        """
        return bool((distances >= self.bound).all())


class HiddenUnits:
    """The hidden units of boxes at both levels, with the energies and gradients that follow from them.

    A cell at distances a and b (from a bin's low end to the cell, from the cell to its high end, both within -1 and 1)
    has the weight -(I(a) + I(b)) / width in the bin, with I(t) = t - t |t| / 2, the integral of the hat 1 - |t|. The
    sums 2 I(a) + 2 I(b) are kept; what is left of widths and signs is in the weights and 1 / area.
    """

    def __init__(self, windows: Windows, distances: np.ndarray, boxes_xyxy: np.ndarray, biases: Sequence[np.ndarray]):
        """Pool the features of boxes and apply the linear layers.

        Args:
            windows: they hold all cells that the bins touch.
            distances: of the boxes in these windows, (R, 2 P); overwritten.
            boxes_xyxy: (R, 4) in crop pixels.
            biases: (256,) of the linear layer of each level.
        """
        self.windows = windows
        size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
        self.per_size = (size > 0) / np.maximum(size, TINY)
        self.per_area = (self.per_size[:, 0] * self.per_size[:, 1])[:, None]
        np.minimum(distances, 1, out=distances)
        np.maximum(distances, -1, out=distances)
        self.hat = 1 - np.abs(distances)
        distances += distances * self.hat
        cells = distances.shape[1] // 2
        self.cells = distances[:, :cells] + distances[:, cells:]
        self.cells[:, windows.in_x] *= self.per_area
        kernels = [
            (self.cells[:, down, None] * self.cells[:, None, across]).reshape(len(size), -1)
            for down, across in zip(windows.down, windows.across)
        ]
        self.values = multiply_pairs(kernels, windows.z)  # (R, 256) of each level, before the ReLU
        for values, bias in zip(self.values, biases):
            values += bias

    def energies(self, out: np.ndarray) -> np.ndarray:
        """Return the energies (R,), up to the last layer's bias, with its weights (2, 256)."""
        level8, level16 = (np.maximum(values, 0) @ weights for values, weights in zip(self.values, out))
        return level8 + level16

    def gradients(self, out: np.ndarray) -> np.ndarray:
        """Return the energies' gradients (R, 4) in crop pixels."""
        windows, of_cells = self.windows, np.empty_like(self.cells)
        slopes = [(values > 0) * weights for values, weights in zip(self.values, out)]
        products = multiply_pairs(slopes, windows.z, transposed=True)
        for of_kernel, down, across in zip(products, windows.down, windows.across):
            in_y, in_x = self.cells[:, None, down], self.cells[:, across, None]
            of_kernel = of_kernel.reshape(len(of_kernel), in_y.shape[2], in_x.shape[1])
            np.matmul(in_y, of_kernel, out=of_cells[:, None, across])
            np.matmul(of_kernel, in_x, out=of_cells[:, down, None])
        of_area = np.einsum("rp,rp->r", of_cells[:, windows.in_y], self.cells[:, windows.in_y])
        of_cells[:, windows.in_x] *= self.per_area
        r, cells = of_cells.shape
        gradients = (self.hat.reshape(r, 2, cells) * of_cells[:, None]).reshape(r, -1) @ windows.slopes
        of_size = of_area[:, None] * self.per_size
        gradients[:, :2] += of_size
        gradients[:, 2:] -= of_size
        return gradients


class RegionEnergy:
    """f(x, y) for one target in one search region: values and gradients of any boxes y in crop pixels."""

    def __init__(self, target: ModulatedWeights, maps: BoxMaps):
        self.target, self.maps = target, maps
        self.windows: Windows | None = None

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute now what boxes (1, R, 4) will need."""
        self._windows(_in_sight(boxes_xyxy[0])[0])

    def value(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return energies (R,) of boxes (R, 4); NaN for boxes out of sight."""
        hidden, lost = self._pool(boxes_xyxy)
        energies = hidden.energies(self.target.out) + self.target.bias
        energies[lost] = math.nan
        return energies

    def hidden_units(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the hidden units (R, 512) of boxes (R, 4), zeros for boxes out of sight."""
        boxes, lost = _in_sight(boxes_xyxy)
        units = np.concatenate([self._pooled_units(level, boxes) for level in range(len(COUNTS))], axis=1)
        units[lost] = 0
        return units

    def _pooled_units(self, level: int, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return a level's hidden units (R, 256): features are pooled first, then projected.

        For boxes all over the region that takes a fifth of the multiplications of projecting all cells for each bin.
        """
        side, bins, r = self.maps.side(level), COUNTS[level], len(boxes_xyxy)
        part, _ = self.maps.part(level, np.zeros(2), np.full(2, side - 1))
        edges = bin_edges(boxes_xyxy * np.float32(SCALES[level]), bins)
        cells = np.broadcast_to(np.arange(side, dtype=np.float32), (1, 2, bins, side))
        across, down = PoolingKernel(edges, cells).weights.swapaxes(0, 1)  # (R, s, side) each
        rows = multiply(np.ascontiguousarray(down).reshape(r * bins, side), part.reshape(side, -1))
        pooled = across[:, None] @ rows.reshape(r, bins, side, -1)
        weight = self.target.weights[level] / FACTORS[level]
        values = multiply(pooled.reshape(r, -1), weight.reshape(-1, weight.shape[-1]))
        return np.maximum(values + self.target.biases[level], 0)

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return gradients (1, R, 4) at boxes (1, R, 4); NaN for boxes out of sight."""
        hidden, lost = self._pool(boxes_xyxy[0])
        gradients = hidden.gradients(self.target.out)
        gradients[lost] = math.nan
        return gradients[None]

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (1, R) and gradients (1, R, 4) at boxes (1, R, 4); NaN for boxes out of sight."""
        hidden, lost = self._pool(boxes_xyxy[0])
        energies, gradients = hidden.energies(self.target.out) + self.target.bias, hidden.gradients(self.target.out)
        energies[lost], gradients[lost] = math.nan, math.nan
        return energies[None], gradients[None]

    def _pool(self, boxes_xyxy: np.ndarray) -> tuple[HiddenUnits, np.ndarray | slice]:
        """Return the hidden units of boxes (R, 4), and which of the boxes are out of sight and have none."""
        windows = self.windows
        if windows is not None and windows.hold(distances := windows.distances(boxes_xyxy)):
            return HiddenUnits(windows, distances, boxes_xyxy, self.target.biases), slice(0)
        boxes, lost = _in_sight(boxes_xyxy)
        windows = self._windows(boxes)
        return HiddenUnits(windows, windows.distances(boxes), boxes, self.target.biases), lost

    def _windows(self, boxes_xyxy: np.ndarray) -> Windows:
        """Return the projected features around boxes (R, 4), and perhaps around others, too."""
        if self.windows is not None and self.windows.hold(self.windows.distances(boxes_xyxy)):
            return self.windows
        least = (boxes_xyxy @ CORNERS_TO_ENDS.reshape(4, -1)).min(axis=0)
        low, high = least[:BINS], -least[BINS:]
        made = [self._projection(level, low, high) for level in range(len(COUNTS))]
        self.windows = Windows(made, [self.maps.side(level) for level in range(len(COUNTS))], low, high)
        return self.windows

    def _projection(self, level: int, low: np.ndarray, high: np.ndarray) -> NumpyProjection:
        """Return a level's projected features around bins from low to high (BINS,)."""
        last = self.maps.side(level) - 1
        low, high = (np.stack([ends[PARTS[level]], ends[PARTS[level + 2]]]).clip(0, last) for ends in (low, high))
        if self.windows is not None and (known := self.windows.projections[level]).holds(low, high):
            return known
        return NumpyProjection(self.maps, level, self.target.weights[level], low, high)


class RegionEnergies:
    """The energies of boxes of several targets, each in its own search region."""

    def __init__(self, regions: Sequence[RegionEnergy]):
        self.regions = regions

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute now what boxes (T, R, 4) will need."""
        for region, boxes in zip(self.regions, boxes_xyxy):
            region.look_at(boxes[None])

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return gradients (T, R, 4) at boxes (T, R, 4); NaN for boxes out of sight."""
        return np.concatenate([region.gradient(boxes[None]) for region, boxes in zip(self.regions, boxes_xyxy)])

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (T, R) and gradients (T, R, 4) at boxes (T, R, 4); NaN for boxes out of sight."""
        both = [region.value_and_gradient(boxes[None]) for region, boxes in zip(self.regions, boxes_xyxy)]
        energies, gradients = (np.concatenate(parts) for parts in zip(*both))
        return energies, gradients


def _in_sight(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (R, 4), others in place of those that are not finite or too far away, and which these are (R,)."""
    lost = ~(np.abs(boxes) < FAR).all(axis=-1)
    if not lost.any():
        return boxes, lost
    seen = boxes[~lost][:1] if not lost.all() else np.zeros((1, 4), boxes.dtype)
    return np.where(lost[:, None], seen, boxes), lost
