"""The energy of boxes in NumPy: one target, one search region, value and gradient in closed form.

The mathematics is that of nets/target_energy.py: Z = W F projects the features around each bin once, a box then costs
K Z with its pooling kernel K, and the gradient in the boxes is one more product with Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ebmtrack.engines.onnx_filter import pool_box
from ebmtrack.engines.pooling import FAR, MARGIN, SLACK, WINDOWS, PoolingKernel, bin_edges

POOL = ((5, np.float32(1 / 8)), (3, np.float32(1 / 16)))  # bins per axis and cells per crop pixel of the two levels

Convolve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Box features (n, n, 256) of a cut (c, n + 4, n + 4) and the mask (n + 2, n + 2) of its cells inside the map."""


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
        self.weights = [arrays[f"energy/w{n}"] * vector[:, None] for n, vector in zip(("8", "16"), vectors)]
        self.biases = [arrays["energy/b8"], arrays["energy/b16"]]
        self.out, self.bias = arrays["energy/out"].reshape(2, -1), arrays["energy/out_bias"][0]


class BoxMaps:
    """Box features of one search region, computed where boxes look: first a window around them, later all of it.

    Maps are square, (side, side, 256).
    """

    def __init__(self, layers: Sequence[np.ndarray], convolve: Sequence[Convolve]):
        """Take backbone features (c, side, side) at strides 8 and 16, and the convolutions of each."""
        self.layers, self.convolve = layers, convolve
        self.parts: list[tuple[int, int, np.ndarray] | None] = [None, None]

    def side(self, level: int) -> int:
        """Return the number of cells along each side of a map."""
        return self.layers[level].shape[-1]

    def part(self, level: int, low_xy: np.ndarray, high_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a part (h, w, 256) that holds all cells which intervals from low to high touch, and its first cell.

        Args:
            level: 0 for stride 8, 1 for stride 16.
            low_xy: (2,) in cells.
            high_xy: (2,) in cells.
        """
        last = self.side(level) - 1
        first = np.floor(low_xy).clip(0, last).astype(int)
        end = np.ceil(high_xy).clip(first, last).astype(int) + 1
        if not self._holds(level, first, end):
            self.parts[level] = self._window(level, first, end)
        x, y, values = self.parts[level]  # type: ignore[misc]
        return values[first[1] - y : end[1] - y, first[0] - x : end[0] - x], first

    def _holds(self, level: int, first: np.ndarray, end: np.ndarray) -> bool:
        """Return whether the computed part holds the cells from first to end."""
        known = self.parts[level]
        if known is None:
            return False
        corner = np.array(known[:2])
        return bool((corner <= first).all() and (end <= corner + len(known[2])).all())

    def _window(self, level: int, first: np.ndarray, end: np.ndarray) -> tuple[int, int, np.ndarray]:
        """Compute a window around the wished cells, or the whole map if a window is known already or none fits."""
        total, length = self.side(level), int((end - first).max())
        fits = [side for side in WINDOWS[level] if length <= side < total]
        side = total if self.parts[level] is not None or not fits else fits[0]
        x, y = (int(min(max(f - (side - length) // 2, 0), total - side)) for f in first)
        return x, y, self.convolve[level](*self._cut(level, x, y, side))

    def _cut(self, level: int, x: int, y: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what a window sees, zeros outside of the map, and the mask of the inner convolution's cells."""
        layer, total = self.layers[level], self.side(level)
        cut = np.zeros((len(layer), side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
        mask = np.zeros((side + MARGIN, side + MARGIN), np.float32)
        low, high = np.maximum((x - MARGIN, y - MARGIN), 0), np.minimum((x + side + MARGIN, y + side + MARGIN), total)
        to_x, to_y = low - (x - MARGIN, y - MARGIN)
        (width, height) = high - low
        cut[:, to_y : to_y + height, to_x : to_x + width] = layer[:, low[1] : high[1], low[0] : high[0]]
        inside_x, inside_y = ((np.arange(start - 1, start + side + 1)) for start in (x, y))
        rows, columns = ((0 <= cells) & (cells < total) for cells in (inside_y, inside_x))
        mask[rows[:, None] & columns] = 1
        return cut, mask


class NumpyProjection:
    """Z = W F: what cells contribute to the hidden units, for each bin those of a window of a feature map."""

    def __init__(
        self, part: np.ndarray, corner: np.ndarray, weight: np.ndarray, low_xy: np.ndarray, high_xy: np.ndarray
    ):
        """Project part (h, w, c), whose first cell is `corner` (x, y), by weight (s s, c, 256).

        The windows of all bins are `length` cells wide and begin at first_xy (2, s); the bins may move within
        low_xy to high_xy (2, s). z is (s length s length, 256): bin and cell in y, bin and cell in x.
        """
        corner, bins, size = corner[:, None], low_xy.shape[1], np.array(part.shape[1::-1])[:, None]
        first = np.floor(low_xy).astype(int).clip(corner, corner + size - 1)
        last = np.ceil(high_xy).astype(int).clip(first, corner + size - 1)
        self.length = min(int((last - first).max()) + 1, int(size.min()))
        self.first_xy = np.minimum(first, corner + size - self.length)
        self.cells = (self.first_xy[None, ..., None] + np.arange(self.length)).astype(low_xy.dtype)
        x, y = (self.first_xy - corner)[..., None] + np.arange(self.length)
        cells = part[y[:, None, :, None], x[None, :, None, :]]  # (s, s, length, length, c)
        z = cells.reshape(bins * bins, -1, part.shape[-1]) @ weight
        z = z.reshape(bins, bins, self.length, self.length, -1).transpose(0, 2, 1, 3, 4)
        self.z = np.ascontiguousarray(z.reshape(-1, z.shape[-1]))

    def holds(self, low_xy: np.ndarray, high_xy: np.ndarray) -> bool:
        """Return whether all cells touched by bins with intervals (2, s) from low to high (within the map) are here."""
        end_xy = self.first_xy + self.length
        return bool((np.floor(low_xy) >= self.first_xy).all() and (np.ceil(high_xy) < end_xy).all())


class NumpyHiddenUnits:
    """The hidden units of boxes at one level, with the energies and gradients that follow from them."""

    def __init__(
        self, projection: NumpyProjection, edges: np.ndarray, bias: np.ndarray, out: np.ndarray, scale: np.float32
    ):
        """Pool the features of boxes whose bins have `edges` (R, 2, s + 1) in cells, and apply the linear layer."""
        self.z, self.out, self.scale = projection.z, out, scale
        self.pool = PoolingKernel(edges, projection.cells)
        self.values = self.pool.kernel.reshape(len(edges), -1) @ self.z + bias  # (R, 256), before the ReLU

    def energies(self) -> np.ndarray:
        """Return the level's part of the energies (R,)."""
        return np.maximum(self.values, 0) @ self.out

    def gradients(self) -> np.ndarray:
        """Return the gradients (R, 4) of that part, in crop pixels."""
        of_kernel = self.z @ ((self.values > 0) * self.out).T  # (cells, R): a third faster than its transpose
        return self.scale * self.pool.gradient(of_kernel.T)


class RegionEnergy:
    """f(x, y) for one target in one search region: values and gradients of any boxes y in crop pixels."""

    def __init__(self, target: ModulatedWeights, maps: BoxMaps):
        self.target, self.maps = target, maps
        self.projections: list[NumpyProjection | None] = [None, None]

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute now what boxes (R, 4) will need."""
        boxes, _ = _in_sight(boxes_xyxy)
        for level, (bins, scale) in enumerate(POOL):
            self._projection(level, bin_edges(boxes * scale, bins))

    def value(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return energies (R,) of boxes (R, 4)."""
        return sum((part.energies() for part in self._parts(boxes_xyxy)), np.full(len(boxes_xyxy), self.target.bias))

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return gradients (1, R, 4) at boxes (1, R, 4); NaN for boxes out of sight."""
        boxes, lost = _in_sight(boxes_xyxy[0])
        gradients = sum((part.gradients() for part in self._parts(boxes)), np.zeros_like(boxes))
        gradients[lost] = math.nan
        return gradients[None]

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (1, R) and gradients (1, R, 4) at boxes (1, R, 4); NaN for boxes out of sight."""
        boxes, lost = _in_sight(boxes_xyxy[0])
        energies, gradients = np.full(len(boxes), self.target.bias), np.zeros_like(boxes)
        for part in self._parts(boxes):
            energies, gradients = energies + part.energies(), gradients + part.gradients()
        energies[lost], gradients[lost] = math.nan, math.nan
        return energies[None], gradients[None]

    def _parts(self, boxes: np.ndarray) -> Iterator[NumpyHiddenUnits]:
        """Return the hidden units of boxes (R, 4), level by level."""
        for level, (bins, scale) in enumerate(POOL):
            edges = bin_edges(boxes * scale, bins)
            yield NumpyHiddenUnits(
                self._projection(level, edges), edges, self.target.biases[level], self.target.out[level], scale
            )

    def _projection(self, level: int, edges: np.ndarray) -> NumpyProjection:
        """Return the projected features around bins (R, 2, s + 1), computed anew and larger if bins have left them."""
        last = self.maps.side(level) - 1
        low, high = edges[..., :-1].min(axis=0).clip(0, last), edges[..., 1:].max(axis=0).clip(0, last)
        known = self.projections[level]
        if known is not None and known.holds(low, high):
            return known
        if known is not None:
            low, high = np.minimum(low, known.first_xy), np.maximum(high, known.first_xy + known.length - 1)
        low, high = low - np.float32(SLACK), high + np.float32(SLACK)
        part, corner = self.maps.part(level, low.min(axis=1), high.max(axis=1))
        made = self.projections[level] = NumpyProjection(part, corner, self.target.weights[level], low, high)
        return made


def _in_sight(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (R, 4), zeros in place of those that are not finite or too far away, and which these are (R,)."""
    lost = ~(np.abs(boxes) < FAR).all(axis=-1)
    return (np.where(lost[:, None], np.float32(0), boxes) if lost.any() else boxes), lost
