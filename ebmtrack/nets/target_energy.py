"""The energy of boxes for one target, as the tracker climbs it: value and gradient in closed form.

f = v . relu(W P + b), where P = D F A pools the features F with bin weights D in y and A in x (precise RoI pooling).
Three rearrangements make it cheap to climb. The modulation vectors are multiplied into W once per target. W is
applied once per frame to the feature cells that a bin of any box can touch, Z = W F, so that a box costs K Z with
K = D x A. And since the layers are piecewise linear, the gradient in the boxes is one more product with Z, without a
graph.

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
SLACK = 0.5  # cells by which edges of bins may wander, to each side, before larger parts are needed
FAR = 1e6  # pixels; boxes that reach farther, or are not numbers, have no energy
MARGIN = 2  # cells that two 3 x 3 convolutions see beyond their output


class BoxFeatures:
    """Box features of one search region: first of a window around the boxes, of the whole map if boxes leave it.

    Values do not depend on earlier queries. Maps are square, [side, side, 256], float32.
    """

    def __init__(self, net: BoxEnergy, layer2: Tensor, layer3: Tensor):
        """net: with folded batch norm; backbone features (1, c, side, side) of one image."""
        self.branches = ((net.conv3_1t, net.conv3_2t, layer2), (net.conv4_1t, net.conv4_2t, layer3))
        self.parts: list[tuple[int, int, Tensor] | None] = [None, None]

    def part(self, level: int, low_xy: list[float], high_xy: list[float]) -> tuple[Tensor, list[int]]:
        """Return a square part [L, L, 256] of a map that holds all cells that intervals from low to high touch.

        Returns it with its first cell (x, y). Level 0 has stride 8, level 1 stride 16.
        """
        first, length = self._cells(level, low_xy, high_xy)
        return self._computed(level, first, length), first

    @staticmethod
    def prepare(
        several: Sequence[BoxFeatures], level: int, lows_xy: list[list[float]], highs_xy: list[list[float]]
    ) -> None:
        """Compute the windows that `part` will take, of regions of one network for which nothing is computed yet.

        Windows of the same side go through the convolutions together.
        """
        by_side: dict[int, list[tuple[BoxFeatures, int, int]]] = {}
        for features, low_xy, high_xy in zip(several, lows_xy, highs_xy):
            place = features._place(level, *features._cells(level, low_xy, high_xy))
            if place is not None and features.parts[level] is None:
                by_side.setdefault(place[2], []).append((features, *place[:2]))
        for side, members in by_side.items():
            cut = torch.cat([features._cut(level, x, y, side) for features, x, y in members])
            for (features, x, y), values in zip(members, members[0][0]._convolved(level, cut).split(1)):
                features.parts[level] = x, y, _channels_last(values)

    def _cells(self, level: int, low_xy: list[float], high_xy: list[float]) -> tuple[list[int], int]:
        """First cell (x, y) and side of the square part that holds all cells that intervals touch."""
        side = self.branches[level][2].shape[-1]
        first = [min(max(math.floor(v), 0), side - 1) for v in low_xy]
        last = [min(max(math.ceil(v), f), side - 1) for v, f in zip(high_xy, first)]
        length = max(b - a for a, b in zip(first, last)) + 1
        return [min(f, side - length) for f in first], length

    def side(self, level: int) -> int:
        """Cells along each side of a map."""
        return self.branches[level][2].shape[-1]

    def _computed(self, level: int, first: list[int], length: int) -> Tensor:
        """Return the part of `length` cells from `first`; compute a window, or the whole map, if it is missing."""
        known = self.parts[level]
        if known is None or not self._holds((*known[:2], len(known[2])), first, length):
            known = self.parts[level] = self._window(level, first, length) if known is None else self._whole(level)
            if not self._holds((*known[:2], len(known[2])), first, length):
                known = self.parts[level] = self._whole(level)
        x, y, values = known
        return values[first[1] - y : first[1] - y + length, first[0] - x : first[0] - x + length]

    @staticmethod
    def _holds(known: tuple[int, int, int], first: list[int], length: int) -> bool:
        """Return whether the part is inside a square, given by its first cell (x, y) and its side."""
        x, y, side = known
        return x <= first[0] and y <= first[1] and max(first[0] - x, first[1] - y) + length <= side

    def _window(self, level: int, first: list[int], length: int) -> tuple[int, int, Tensor]:
        """Return a window around the wished part, or the whole map if no window can hold the part."""
        place = self._place(level, first, length)
        if place is None:
            return self._whole(level)
        x, y, side = place
        return x, y, _channels_last(self._convolved(level, self._cut(level, x, y, side)))

    def _place(self, level: int, first: list[int], length: int) -> tuple[int, int, int] | None:
        """Return the first cell (x, y) and side of a window around the wished part inside the map; None if none fits.

        Few different sides, because convolutions are prepared once for each shape.
        """
        features = self.branches[level][2]
        window = next((side for side in WINDOWS[level] if side >= length), features.shape[-1])
        last = features.shape[-1] - window - MARGIN
        x, y = (max(MARGIN, min(f - (window - length) // 2, last)) for f in first)
        return None if last < MARGIN or not self._holds((x, y, window), first, length) else (x, y, window)

    def _cut(self, level: int, x: int, y: int, side: int) -> Tensor:
        """Return the backbone features that a window of `side` cells from (x, y) sees."""
        features = self.branches[level][2]
        return features[..., y - MARGIN : y + side + MARGIN, x - MARGIN : x + side + MARGIN]

    def _convolved(self, level: int, cut: Tensor) -> Tensor:
        """Box features of cuts (N, c, h, w), without padding."""
        for convolution in self.branches[level][:2]:
            cut = F.conv2d(cut, convolution[0].weight, convolution[0].bias).relu_()
        return cut

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
            self.weights.append(weight.permute(2, 3, 1, 0).flatten(0, 1).to(dtype).contiguous())  # (s s, c, 256)
            self.biases.append(block.linear.bias.float())
        self.out = net.iou_predictor.weight[0].split(len(vectors[0]))
        self.bias = net.iou_predictor.bias

    def over(self, features: BoxFeatures) -> EnergyMap:
        """Return the energy of boxes in one search region."""
        return EnergyMap(self, features)


class EnergyMap:
    """f(x, y) for one target in one search region: values and gradients of any boxes y. Boxes and results: CPU."""

    def __init__(self, target: TargetEnergy, features: BoxFeatures):
        self.target, self.features = target, features
        self.projections: list[Projection | None] = [None, None]

    def value(self, boxes_xyxy: Tensor) -> Tensor:
        """Energies (R,) of boxes (R, 4) in crop pixels."""
        return JointEnergy([self]).value(boxes_xyxy[None])[0]

    def value_and_gradient(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (R,) and their gradients (R, 4) of boxes (R, 4) in crop pixels."""
        energies, gradients = JointEnergy([self]).value_and_gradient(boxes_xyxy[None])
        return energies[0], gradients[0]

    def widen(self, level: int, low: np.ndarray, high: np.ndarray) -> None:
        """Project the features around bins (2, s) from low to high, and around those that were projected before."""
        known = self.projections[level]
        if known is not None:
            low, high = np.minimum(low, known.first_xy), np.maximum(high, known.first_xy + known.length - 1)
        low, high = low - SLACK, high + SLACK
        part, first = self.features.part(level, low.min(1).tolist(), high.max(1).tolist())
        self.projections[level] = Projection(part, first, self.target.weights[level], low, high)


class JointEnergy:
    """f(x, y) for several targets of one network, each in its own search region, computed together.

    Small products cost little more for several targets than for one. Energies and gradients are, to the bit, those of
    each EnergyMap alone: computations in one batch have the same shape for each of them.
    """

    def __init__(self, maps: Sequence[EnergyMap]):
        self.maps, target = list(maps), maps[0].target
        self.out, self.bias, self.biases = target.out, target.bias, target.biases
        self.groups: list[list[Group]] = [[] for _ in POOL]

    def look_at(self, boxes_xyxy: Tensor) -> None:
        """Compute the features that boxes (T, R, 4) in the crop pixels of T search regions will need."""
        for level, (bins, scale) in enumerate(POOL):
            self._grouped(level, bin_edges(_numpy(boxes_xyxy) * scale, bins))

    def value(self, boxes_xyxy: Tensor) -> Tensor:
        """Energies (T, R) of boxes (T, R, 4) in the crop pixels of T search regions."""
        boxes, energies = _numpy(boxes_xyxy), self.bias.repeat(boxes_xyxy.shape[:2])
        for level, (bins, scale) in enumerate(POOL):
            edges = bin_edges(boxes * scale, bins)
            for group in self._grouped(level, edges):
                hidden, _ = self._hidden(level, edges, group)
                energies[group.members] += (hidden.relu() * self.out[level]).sum(-1)
        return energies.cpu()

    def value_and_gradient(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (T, R) and their gradients (T, R, 4) of boxes (T, R, 4); NaN for boxes that climbed out of sight."""
        boxes, energies = _numpy(boxes_xyxy), self.bias.repeat(boxes_xyxy.shape[:2])
        lost = ~(np.abs(boxes) < FAR).all(axis=-1)
        if lost.any():
            boxes = np.where(lost[..., None], 0, boxes)
        gradients = np.zeros_like(boxes)
        for level, (bins, scale) in enumerate(POOL):
            edges, out = bin_edges(boxes * scale, bins), self.out[level]
            for group in self._grouped(level, edges):
                hidden, pool = self._hidden(level, edges, group)
                slopes = (hidden > 0) * out
                energies[group.members] += (hidden * slopes).sum(-1)
                of_kernel = _products(slopes.to(group.z.dtype), group.z.mT)
                gradient = pool.gradient(_numpy(of_kernel.float()))
                gradients[group.members] += scale * gradient.reshape(len(group.z), -1, 4)
        energies = energies.cpu()
        if lost.any():
            energies[torch.from_numpy(lost)], gradients[lost] = math.nan, math.nan
        return energies, torch.from_numpy(gradients)

    def _hidden(self, level: int, edges: np.ndarray, group: Group) -> tuple[Tensor, PoolingKernel]:
        """Hidden units (t, R, 256) of a group before the ReLU, float32, with the kernel that gave them."""
        edges, z = edges[group.members], group.z
        first_xy = np.repeat(group.first_xy, edges.shape[1], axis=0)
        pool = PoolingKernel(edges.reshape(-1, *edges.shape[2:]), first_xy, group.length)
        kernel = torch.from_numpy(pool.kernel).view(len(z), -1, z.shape[1]).to(z.device, z.dtype)
        return _products(kernel, z).float() + self.biases[level], pool

    def _grouped(self, level: int, edges: np.ndarray) -> list[Group]:
        """Return the targets in groups, with the projected features around the bins of their boxes.

        A larger part is projected anew if boxes leave the present one. edges (T, R, 2, s + 1): of the bins of R
        boxes in each of T search regions, in cells.
        """
        last = self.maps[0].features.side(level) - 1
        low = edges[..., :-1].min(axis=1).clip(0, last)  # (T, 2, s)
        high = edges[..., 1:].max(axis=1).clip(0, last)
        known = self.groups[level]
        if not known or not all(group.holds(low, high) for group in known):
            if not known and len(self.maps) > 1:
                wishes = (low - SLACK).min(axis=2).tolist(), (high + SLACK).max(axis=2).tolist()
                BoxFeatures.prepare([energy.features for energy in self.maps], level, *wishes)
            for energy, a, b in zip(self.maps, low, high):
                projection = energy.projections[level]
                if projection is None or not projection.holds(a, b):
                    energy.widen(level, a, b)
            known = self.groups[level] = groups_of([energy.projections[level] for energy in self.maps])
        return known


class Group:
    """Targets whose projected features have the same shape: which ones, and their features stacked."""

    def __init__(self, members: list[int] | slice, projections: list[Projection]):
        """members: places of the projections' targets among all; z (t, s length s length, 256), first_xy (t, 2, s)."""
        self.members, self.length = members, projections[0].length
        self.first_xy = np.stack([projection.first_xy for projection in projections])
        self.end_xy = self.first_xy + self.length
        zs = [projection.z for projection in projections]
        self.z = torch.stack(zs) if len(zs) > 1 else zs[0][None]

    def holds(self, low_xy: np.ndarray, high_xy: np.ndarray) -> bool:
        """Whether all cells touched by bins with intervals (T, 2, s) from low to high (within the map) are here."""
        low_xy, high_xy = low_xy[self.members], high_xy[self.members]
        return bool((np.floor(low_xy) >= self.first_xy).all() and (np.ceil(high_xy) < self.end_xy).all())


def groups_of(projections: list[Projection]) -> list[Group]:
    """Projections of equally long windows together."""
    lengths = sorted({projection.length for projection in projections})
    if len(lengths) == 1:
        return [Group(slice(None), projections)]
    members = [[t for t, projection in enumerate(projections) if projection.length == length] for length in lengths]
    return [Group(places, [projections[t] for t in places]) for places in members]


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix products (T, m, n) of T pairs, each equal to the bit to the product alone.

    MKL, which multiplies float32 on CPUs, sums a batch in another order (seen on Zen 5, two threads).
    """
    if a.dtype == torch.float32 and a.device.type == "cpu":
        return torch.stack([one @ other for one, other in zip(a, b)])
    return torch.bmm(a, b)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def bin_edges(boxes_cells: np.ndarray, bins: int) -> np.ndarray:
    """Edges (..., 2, s + 1), in x and y, of the bins of boxes (..., 4)."""
    low = boxes_cells[..., :2, None]
    size = boxes_cells[..., 2:, None] - low
    return low + size * (np.arange(bins + 1, dtype=boxes_cells.dtype) / bins)


class Projection:
    """Z = W F: contributions of cells to the hidden units, for each bin of a window of a feature map."""

    def __init__(self, part: Tensor, part_xy: list[int], weight: Tensor, low_xy: np.ndarray, high_xy: np.ndarray):
        """part [L, L, c] with first cell part_xy; weight (s s, c, 256); intervals (2, s) that the bins may cover.

        The windows of all bins are `length` cells wide and begin at first_xy (2, s). z (s length s length, 256): bin
        and cell in y, in x.
        """
        corner, bins = np.array(part_xy)[:, None], low_xy.shape[1]
        first = np.floor(low_xy).astype(int).clip(corner, corner + len(part) - 1)
        last = np.ceil(high_xy).astype(int).clip(first, corner + len(part) - 1)
        self.length = int((last - first).max()) + 1
        self.first_xy = np.minimum(first, corner + len(part) - self.length)
        x, y = torch.from_numpy((self.first_xy - corner)[..., None] + np.arange(self.length)).to(part.device)
        cells = part.to(weight.dtype)[y[:, None, :, None], x[None, :, None, :]]  # (s, s, length, length, c)
        z = torch.bmm(cells.view(bins * bins, -1, part.shape[-1]), weight)
        z = z.view(bins, bins, self.length, self.length, -1).transpose(1, 2)
        self.z = z.reshape(-1, z.shape[-1])

    def holds(self, low_xy: np.ndarray, high_xy: np.ndarray) -> bool:
        """Whether all cells touched by bins with intervals (2, s) from low to high (within the map) are here."""
        end_xy = self.first_xy + self.length
        return bool((np.floor(low_xy) >= self.first_xy).all() and (np.ceil(high_xy) < end_xy).all())


class PoolingKernel:
    """The weight of every cell of a bin's window in it, K = D x A, and the chain rule from K to the box."""

    def __init__(self, edges: np.ndarray, first_xy: np.ndarray, length: int):
        """edges (R, 2, s + 1): of the bins of boxes, in x and y, in cells; their windows begin at first_xy (..., 2, s).

        `kernel` is (R, s length, s length): bin and cell in y, bin and cell in x.
        """
        dtype, bins = edges.dtype, edges.shape[-1] - 1
        size = edges[..., -1] - edges[..., 0]
        has_area = (size > 0).all(axis=1, keepdims=True)
        self.per_bin = np.where(has_area, bins / np.where(has_area, size, 1), 0).astype(dtype)  # 1 / bin width, (R, 2)
        self.fraction = np.arange(bins + 1, dtype=dtype) / bins
        ends = np.stack([edges[..., :-1], edges[..., 1:]], axis=1)  # (R, 2 ends, 2, s)
        ends -= first_xy.astype(dtype)[..., None, :, :]
        distance = ends[..., None] - np.arange(length, dtype=dtype)
        np.clip(distance, -1, 1, out=distance)
        reach = np.abs(distance)
        self.hat = 1 - reach
        integral = distance * (1 - 0.5 * reach)  # of the hat, up to a constant
        self.weights = (integral[:, 1] - integral[:, 0]) * self.per_bin[..., None, None]  # (R, 2, s, length)
        self.across, self.down = (self.weights[:, axis].reshape(len(size), -1) for axis in (0, 1))
        self.kernel = self.down[:, :, None] * self.across[:, None, :]

    def gradient(self, of_kernel: np.ndarray) -> np.ndarray:
        """Gradient (R, 4) in x0, y0, x1, y1 (cells) of the sum of of_kernel, as large as the kernel, times it."""
        of_kernel = of_kernel.reshape(self.kernel.shape)
        of_across, of_down = self.down[:, None] @ of_kernel, of_kernel @ self.across[:, :, None]
        of_weights = np.stack([of_across[:, 0], of_down[..., 0]], axis=1).reshape(self.weights.shape)
        of_ends = (self.hat * of_weights[:, None]).sum(-1) * self.per_bin[:, None, :, None]  # (R, 2 ends, 2, s)
        of_width = (of_weights * self.weights).sum((2, 3)) * self.per_bin / (len(self.fraction) - 1)
        low, high = self.fraction[:-1], self.fraction[1:]
        of_low = of_ends[:, 1] @ (1 - high) - of_ends[:, 0] @ (1 - low)
        of_high = of_ends[:, 1] @ high - of_ends[:, 0] @ low
        return np.concatenate([of_low + of_width, of_high - of_width], axis=1)
