"""The energy of boxes for one target, as the tracker climbs it: value and gradient in closed form.

f = v . relu(W P + b), where P = D F A pools the features F with bin weights D in y and A in x (precise RoI pooling).
Three rearrangements make it cheap to climb. The modulation vectors are multiplied into W once per target. W is
applied to every feature cell near the boxes once per frame, Z = W F, so that a box costs K Z with K = D x A. And since
the layers are piecewise linear, the gradient in the boxes is one more product with Z, without a graph.

The large products run on the network's device; the arithmetic of the few boxes runs in numpy, whose calls cost a third
of torch's and which no GPU would make faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ebmtrack.nets.box_energy import POOL, BoxEnergy

WINDOWS = ((12, 16, 20, 24), (8, 10, 12, 14))  # sides, in cells, of parts of the two maps that are computed at once
SLACK = 1       # cells by which boxes may wander, to each side, before a larger part is needed
MARGIN = 2      # cells that two 3 x 3 convolutions see beyond their output


class BoxFeatures:
    """Box features of one search region, computed where boxes look: first a window around them, all of it if need be.

    Values do not depend on what was asked before. Maps are square, [side, side, 256], float32.
    """

    def __init__(self, net: BoxEnergy, layer2: Tensor, layer3: Tensor):
        """net: with folded batch norm; backbone features (1, c, side, side) of one image."""
        self.branches = ((net.conv3_1t, net.conv3_2t, layer2), (net.conv4_1t, net.conv4_2t, layer3))
        self.parts: list[tuple[int, int, Tensor] | None] = [None, None]

    def part(self, level: int, low_xy: list[float], high_xy: list[float]) -> tuple[Tensor, list[int]]:
        """A square part [L, L, 256] of a map that holds all cells that intervals from low to high touch.

        Returns it with its first cell (x, y). Level 0 has stride 8, level 1 stride 16.
        """
        side = self.branches[level][2].shape[-1]
        first = [min(max(math.floor(v), 0), side - 1) for v in low_xy]
        last = [min(max(math.ceil(v), f), side - 1) for v, f in zip(high_xy, first)]
        length = max(b - a for a, b in zip(first, last)) + 1
        first = [min(f, side - length) for f in first]
        return self._computed(level, first, length), first

    def side(self, level: int) -> int:
        """Cells along each side of a map."""
        return self.branches[level][2].shape[-1]

    def _computed(self, level: int, first: list[int], length: int) -> Tensor:
        """The part of `length` cells from `first`; computes a window, or the whole map, where it is not yet there."""
        known = self.parts[level]
        if known is None or not self._holds((*known[:2], len(known[2])), first, length):
            known = self.parts[level] = self._window(level, first, length) if known is None else self._whole(level)
            if not self._holds((*known[:2], len(known[2])), first, length):
                known = self.parts[level] = self._whole(level)
        x, y, values = known
        return values[first[1] - y : first[1] - y + length, first[0] - x : first[0] - x + length]

    @staticmethod
    def _holds(known: tuple[int, int, int], first: list[int], length: int) -> bool:
        """Whether the part lies in a square: its first cell (x, y) and its side."""
        x, y, side = known
        return x <= first[0] and y <= first[1] and max(first[0] - x, first[1] - y) + length <= side

    def _window(self, level: int, first: list[int], length: int) -> tuple[int, int, Tensor]:
        """A window around the wished part, moved into the map, or the whole map where the window cannot hold the part.

        Few different sides, because convolutions are prepared once for each shape.
        """
        one, two, features = self.branches[level]
        window = next((side for side in WINDOWS[level] if side >= length), features.shape[-1])
        last = features.shape[-1] - window - MARGIN
        x, y = (max(MARGIN, min(f - (window - length) // 2, last)) for f in first)
        if last < MARGIN or not self._holds((x, y, window), first, length):
            return self._whole(level)
        part = features[..., y - MARGIN : y + window + MARGIN, x - MARGIN : x + window + MARGIN]
        for convolution in (one[0], two[0]):
            part = F.conv2d(part, convolution.weight, convolution.bias).relu_()
        return x, y, _channels_last(part)

    def _whole(self, level: int) -> tuple[int, int, Tensor]:
        one, two, features = self.branches[level]
        return 0, 0, _channels_last(two(one(features)))


def _channels_last(features: Tensor) -> Tensor:
    """(1, c, h, w) -> [h, w, c], float32, contiguous."""
    return features[0].permute(1, 2, 0).float().contiguous()


class TargetEnergy:
    """The energy branch with one target's modulation multiplied in."""

    def __init__(self, net: BoxEnergy, vectors: list[Tensor], dtype: torch.dtype = torch.float32):
        """net: with folded batch norm; vectors: modulation (256,) at stride 8 and 16; dtype: of the large products."""
        self.weights, self.biases = [], []
        for block, vector, (bins, _) in zip((net.fc3_rt, net.fc4_rt), vectors, POOL):
            weight = block.linear.weight.unflatten(1, (len(vector), bins, bins)) * vector[:, None, None]
            self.weights.append(weight.permute(1, 2, 3, 0).flatten(1).to(dtype).contiguous())  # (c, s s 256)
            self.biases.append(block.linear.bias.to(dtype))
        self.out = net.iou_predictor.weight[0].split(len(vectors[0]))
        self.bias = net.iou_predictor.bias

    def over(self, features: BoxFeatures) -> EnergyMap:
        """The energy of boxes in one search region."""
        return EnergyMap(self, features)


class EnergyMap:
    """f(x, y) for one target in one search region: values and gradients of any boxes y. Boxes and results: CPU."""

    def __init__(self, target: TargetEnergy, features: BoxFeatures):
        self.target, self.features = target, features
        self.projections: list[Projection | None] = [None, None]

    def look_at(self, boxes_xyxy: Tensor) -> None:
        """Compute now what boxes (R, 4) in crop pixels will need."""
        for level, (_, scale) in enumerate(POOL):
            self.projection(level, _numpy(boxes_xyxy) * scale)

    def value(self, boxes_xyxy: Tensor) -> Tensor:
        """Energies (R,) of boxes (R, 4) in crop pixels."""
        boxes, energies = _numpy(boxes_xyxy), self.target.bias.expand(len(boxes_xyxy))
        for level, (_, scale) in enumerate(POOL):
            hidden, _ = EnergyStack([self]).hidden(level, boxes * scale)
            energies = energies + hidden.relu() @ self.target.out[level]
        return energies.cpu()

    def value_and_gradient(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (R,) and their gradients (R, 4) of boxes (R, 4) in crop pixels."""
        return EnergyStack([self]).value_and_gradient(boxes_xyxy)

    def projection(self, level: int, cells: np.ndarray) -> Projection:
        """The projected features around boxes in cells; made anew, larger, when boxes leave what is there."""
        last = self.features.side(level) - 1
        low, high = cells[:, :2].min(0).clip(0, last), cells[:, 2:].max(0).clip(0, last)
        known = self.projections[level]
        if known is not None:
            if known.holds(low, high):
                return known
            low, high = np.minimum(low, known.first_xy), np.maximum(high, known.first_xy + known.length - 1)
        part, first = self.features.part(level, (low - SLACK).tolist(), (high + SLACK).tolist())
        self.projections[level] = Projection(part, first, self.target.weights[level], POOL[level][0])
        return self.projections[level]


class EnergyStack:
    """The energies of several targets, each in its own search region, for as many boxes each, in shared arithmetic."""

    def __init__(self, maps: Sequence[EnergyMap]):
        """maps: T of them, of one network."""
        self.maps, self.net = maps, maps[0].target

    def value_and_gradient(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (T R,) and their gradients (T R, 4) of boxes (T R, 4) in crop pixels, R for each map in turn."""
        boxes, energies = _numpy(boxes_xyxy), self.net.bias.expand(len(boxes_xyxy))
        gradients = np.zeros_like(boxes)
        for level, (_, scale) in enumerate(POOL):
            out = self.net.out[level]
            hidden, pool = self.hidden(level, boxes * scale)
            energies = energies + hidden.relu() @ out
            of_hidden = (hidden > 0) * out
            gradients += scale * pool.gradient(self._of_kernel(level, of_hidden, pool))
        return energies.cpu(), torch.from_numpy(gradients)

    def hidden(self, level: int, cells: np.ndarray) -> tuple[Tensor, PoolingKernel]:
        """Hidden units (T R, 256) of boxes (T R, 4) before the ReLU, with the kernel that gave them."""
        each = len(cells) // len(self.maps)
        parts = [one.projection(level, cells[k * each : (k + 1) * each]) for k, one in enumerate(self.maps)]
        first = np.repeat([part.first_xy for part in parts], each, axis=0)
        pool = PoolingKernel(cells, first, max(part.length for part in parts), POOL[level][0])
        hidden = []
        for k, (one, part) in enumerate(zip(self.maps, parts)):
            used = part.length * POOL[level][0]
            kernel = pool.kernel[k * each : (k + 1) * each, :used, :used].reshape(each, -1)
            kernel = torch.from_numpy(kernel).to(part.z.device, part.z.dtype)
            hidden.append(torch.addmm(one.target.biases[level], kernel, part.z))
        return torch.cat(hidden).float(), pool

    def _of_kernel(self, level: int, of_hidden: Tensor, pool: PoolingKernel) -> np.ndarray:
        """Chain rule from hidden units (T R, 256) to the kernel, in its shape; 0 beyond a map's own part."""
        each, bins = len(of_hidden) // len(self.maps), POOL[level][0]
        parts = [(one.projections[level].z, one.projections[level].length * bins) for one in self.maps]
        products = [rows.to(z.dtype) @ z.t() for rows, (z, _) in zip(of_hidden.split(each), parts)]
        if len({used for _, used in parts}) == 1:
            return _numpy(torch.cat(products).float())
        of_kernel = np.zeros_like(pool.kernel)
        for k, (product, (_, used)) in enumerate(zip(products, parts)):
            of_kernel[k * each : (k + 1) * each, :used, :used] = _numpy(product.float()).reshape(each, used, used)
        return of_kernel


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


class Projection:
    """Z = W F for a square part of a feature map: what every cell contributes to the hidden units, per bin."""

    def __init__(self, part: Tensor, first_xy: list[int], weight: Tensor, bins: int):
        """part [L, L, c] with first cell first_xy; weight (c, s s 256). z (L s L s, 256): cell, bin in y, in x."""
        self.first_xy, self.length = np.array(first_xy), len(part)
        z = part.reshape(-1, part.shape[-1]).to(weight.dtype) @ weight
        width = weight.shape[1] // bins**2
        self.z = z.view(self.length, self.length, bins, bins, width).transpose(1, 2).reshape(-1, width)

    def holds(self, low_xy: np.ndarray, high_xy: np.ndarray) -> bool:
        """Whether all cells touched by intervals from low to high (within the map) are here."""
        end_xy = self.first_xy + self.length
        return bool((np.floor(low_xy) >= self.first_xy).all() and (np.ceil(high_xy) < end_xy).all())


class PoolingKernel:
    """The weight of every cell in every bin of a box, K = D x A, and the chain rule from K to the box."""

    def __init__(self, boxes_cells: np.ndarray, first_xy: np.ndarray, length: int, bins: int):
        """boxes (R, 4): x0, y0, x1, y1 in cells; first_xy: first cell, (2,) or one for each box, (R, 2).

        `kernel` is (R, L s, L s): cell and bin in y, cell and bin in x.
        """
        dtype = boxes_cells.dtype
        low, size = boxes_cells[:, :2], boxes_cells[:, 2:] - boxes_cells[:, :2]
        has_area = (size > 0).all(axis=1, keepdims=True)
        self.per_bin = np.where(has_area, bins / np.where(has_area, size, 1), 0).astype(dtype)  # 1 / bin width, (R, 2)
        self.fraction = np.arange(bins + 1, dtype=dtype) / bins
        edges = (low - first_xy.astype(dtype))[..., None] + size[..., None] * self.fraction
        distance = edges[:, :, None] - np.arange(length, dtype=dtype)[:, None]
        np.clip(distance, -1, 1, out=distance)                                         # (R, 2, L, s + 1)
        reach = np.abs(distance)
        self.hat = 1 - reach
        integral = distance * (1 - 0.5 * reach)                                        # of the hat, up to a constant
        self.weights = (integral[..., 1:] - integral[..., :-1]) * self.per_bin[..., None, None]
        self.across, self.down = (self.weights[:, axis].reshape(len(low), -1) for axis in (0, 1))   # (R, L s)
        self.kernel = self.down[:, :, None] * self.across[:, None, :]

    def gradient(self, of_kernel: np.ndarray) -> np.ndarray:
        """Gradient (R, 4) in x0, y0, x1, y1 (cells) of the sum of of_kernel, as large as the kernel, times it."""
        of_kernel = of_kernel.reshape(self.kernel.shape)
        of_across, of_down = self.down[:, None] @ of_kernel, of_kernel @ self.across[:, :, None]
        of_weights = np.stack([of_across[:, 0], of_down[..., 0]], axis=1).reshape(self.weights.shape)
        of_edges = np.zeros_like(self.hat)                                             # each edge ends two bins
        of_edges[..., 1:] = of_weights
        of_edges[..., :-1] -= of_weights
        of_edges = (self.hat * of_edges).sum(2) * self.per_bin[..., None]              # (R, 2, s + 1)
        of_width = (of_weights * self.weights).sum((2, 3)) * self.per_bin / (len(self.fraction) - 1)
        of_low, of_high = of_edges @ (1 - self.fraction), of_edges @ self.fraction
        return np.concatenate([of_low + of_width, of_high - of_width], axis=1)
