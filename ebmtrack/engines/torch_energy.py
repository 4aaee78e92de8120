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
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ebmtrack.engines.pooling import FAR, SLACK, PoolingKernel, bin_edges
from ebmtrack.engines.torch_box_features import BoxFeatures, channels_last
from ebmtrack.nets.box_energy import POOL, BoxEnergy
from ebmtrack.nets.roi_pool import precise_roi_pool_rows


class TargetEnergy:
    """The energy branch with one target's modulation multiplied in."""

    def __init__(self, net: BoxEnergy, vectors: list[Tensor], dtype: torch.dtype = torch.float32):
        """Multiply the modulation into the weights.

        Args:
            net: the branch with folded batch norm.
            vectors: modulation (256,) at stride 8 and 16.
            dtype: of the large products.
        """
        self.vectors = tuple(vectors)
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


def target_energy(
    net: BoxEnergy, layer2: Tensor, layer3: Tensor, box_xyxy: Tensor, dtype: torch.dtype = torch.float32
) -> TargetEnergy:
    """Return the energy of boxes for the target that reference features show.

    Args:
        net: the branch with folded batch norm.
        layer2: backbone features (1, c, h, w) of the reference image; `layer3` likewise.
        layer3: see layer2.
        box_xyxy: (1, 4), the target in crop pixels, on the network's device.
        dtype: of the large products.
    """
    reference3, reference4 = net.conv3_1r(layer2).float(), net.conv4_1r(layer3).float()
    return TargetEnergy(net, [vector[0] for vector in net.modulation_of(reference3, reference4, box_xyxy)], dtype)


class EnergyMap:
    """f(x, y) for one target in one search region: what the energy of boxes needs, computed where boxes look."""

    def __init__(self, target: TargetEnergy, features: BoxFeatures):
        self.target, self.features = target, features
        self.projections: list[Projection | None] = [None, None]

    def value(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies (R,) of boxes (R, 4) in crop pixels."""
        return JointEnergy([self]).value(boxes_xyxy[None])[0]

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (R,) and their gradients (R, 4) of boxes (R, 4) in crop pixels."""
        energies, gradients = JointEnergy([self]).value_and_gradient(boxes_xyxy[None])
        return energies[0], gradients[0]

    def hidden_units(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the hidden units (R, 512) of boxes (R, 4), zeros for boxes out of sight.

        Features are pooled first, then projected, which takes fewer multiplications for boxes all over the region.
        """
        boxes, lost = _in_sight(boxes_xyxy[None])
        features = [channels_last(two(one(layer))) for one, two, layer in self.features.branches]
        units = []
        for feature, weight, bias, (bins, scale) in zip(features, self.target.weights, self.target.biases, POOL):
            rows = precise_roi_pool_rows(
                feature.permute(2, 0, 1)[None], torch.from_numpy(boxes).to(feature.device), bins, scale
            )
            units.append((rows[0] @ weight.float().flatten(0, 1) + bias).relu())
        values = _numpy(torch.cat(units, dim=1))
        values[lost[0]] = 0
        return values

    def project(self, level: int, low: np.ndarray, high: np.ndarray) -> Projection:
        """Return the projection of a level around bins (2, s) from low to high; project anew, larger, if need be."""
        known = self.projections[level]
        if known is not None and known.holds(low, high):
            return known
        if known is not None:
            low, high = np.minimum(low, known.first_xy), np.maximum(high, known.first_xy + known.length - 1)
        low, high = low - SLACK, high + SLACK
        part, first = self.features.part(level, low.min(1).tolist(), high.max(1).tolist())
        projection = self.projections[level] = Projection(part, first, self.target.weights[level], low, high)
        return projection


class JointEnergy:
    """f(x, y) for several targets of one network, each in its own search region, computed together.

    Small products cost little more for several targets than for one. Energies and gradients are, to the bit, those of
    each EnergyMap alone: computations in one batch have the same shape for each of them. Boxes and results are NumPy
    arrays.
    """

    def __init__(self, maps: Sequence[EnergyMap]):
        self.maps, target = list(maps), maps[0].target
        self.bias, self.biases = target.bias, target.biases
        outs = zip(*(one.target.out for one in maps))  # each target may have a last layer of its own
        self.outs = [torch.stack(level)[:, None] if len(maps) > 1 else level[0][None, None] for level in outs]
        self.groups: list[list[Group]] = [[] for _ in POOL]

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute the features that boxes (T, R, 4) in the crop pixels of T search regions will need."""
        boxes, _ = _in_sight(boxes_xyxy)
        for level, (bins, scale) in enumerate(POOL):
            self._group_boxes(level, bin_edges(boxes * scale, bins))

    def value(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies (T, R) of boxes (T, R, 4) in T search regions; NaN for boxes that are out of sight."""
        boxes, lost = _in_sight(boxes_xyxy)
        energies = self.bias.repeat(boxes.shape[:2])
        for part in self._parts(boxes):
            energies[part.group.members] += part.energies()
        values = _numpy(energies)
        values[lost] = math.nan
        return values

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies' gradients (T, R, 4) at boxes (T, R, 4); NaN for boxes that climbed out of sight."""
        boxes, lost = _in_sight(boxes_xyxy)
        gradients = np.zeros_like(boxes)
        for part in self._parts(boxes):
            gradients[part.group.members] += part.gradients()
        gradients[lost] = math.nan
        return gradients

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (T, R) and their gradients (T, R, 4) at boxes (T, R, 4).

        Both are NaN for boxes that climbed out of sight.
        """
        boxes, lost = _in_sight(boxes_xyxy)
        energies, gradients = self.bias.repeat(boxes.shape[:2]), np.zeros_like(boxes)
        for part in self._parts(boxes):
            energies[part.group.members] += part.energies()
            gradients[part.group.members] += part.gradients()
        values = _numpy(energies)
        values[lost], gradients[lost] = math.nan, math.nan
        return values, gradients

    def _parts(self, boxes_xyxy: np.ndarray) -> Iterator[HiddenUnits]:
        """Return the hidden units of boxes (T, R, 4), level by level and group by group."""
        for level, (bins, scale) in enumerate(POOL):
            edges = bin_edges(boxes_xyxy * scale, bins)
            for group in self._group_boxes(level, edges):
                yield HiddenUnits(group, edges[group.members], self.biases[level], scale)

    def _group_boxes(self, level: int, edges: np.ndarray) -> list[Group]:
        """Return the targets in groups, with the projected features around the bins of their boxes.

        A larger part is projected anew if boxes leave the present one.

        Args:
            level: 0 at stride 8, 1 at stride 16.
            edges: (T, R, 2, s + 1), of the bins of R boxes in each of T search regions, in cells.
        """
        known = self.groups[level]
        if known and all(group.holds(edges[group.members]) for group in known):
            return known
        last = self.maps[0].features.side(level) - 1
        low = edges[..., :-1].min(axis=1).clip(0, last)  # (T, 2, s)
        high = edges[..., 1:].max(axis=1).clip(0, last)
        if not known and len(self.maps) > 1:
            wishes = (low - SLACK).min(axis=2).tolist(), (high + SLACK).max(axis=2).tolist()
            BoxFeatures.prepare([energy.features for energy in self.maps], level, *wishes)
        projections = [energy.project(level, a, b) for energy, a, b in zip(self.maps, low, high)]
        self.groups[level] = groups_of(projections, last, edges.dtype)
        for group in self.groups[level]:
            group.out = self.outs[level][group.members]
        return self.groups[level]


class Group:
    """Targets whose projected features have the same shape: which ones, and their features stacked.

    out: (t, 1, 256) each target's weights of the hidden units in the energy.
    """

    out: Tensor

    def __init__(self, members: list[int] | slice, projections: list[Projection], last: int, dtype: np.dtype):
        """Stack the projections of some targets.

        Args:
            members: places of the projections' targets among all.
            projections: of t targets, with windows of the same length.
            last: the map's last cell.
            dtype: of edges.
        """
        self.members = members
        zs = [projection.z for projection in projections]
        self.z = torch.stack(zs) if len(zs) > 1 else zs[0][None]  # (t, s length s length, 256)
        first = np.stack([projection.first_xy for projection in projections])  # (t, 2, s)
        length = projections[0].length
        self.cells = (first[..., None] + np.arange(length)).astype(dtype)  # (t, 2, s, length)
        end = first + length - 1
        self.least = np.where(first == 0, -math.inf, first)[:, None].astype(dtype)
        self.most = np.where(end == last, math.inf, end)[:, None].astype(dtype)

    def holds(self, edges: np.ndarray) -> bool:
        """Return whether all cells of the map that bins touch are here, from the bins' edges (t, R, 2, s + 1)."""
        return bool((edges[..., :-1] >= self.least).all() and (edges[..., 1:] <= self.most).all())


class HiddenUnits:
    """The hidden units of the boxes of a group at one level, with the energies and gradients that follow from them."""

    def __init__(self, group: Group, edges: np.ndarray, bias: Tensor, scale: float):
        """Pool the boxes' features and apply the linear layer.

        Args:
            group: t targets.
            edges: (t, R, 2, s + 1), of the bins of their boxes, in cells.
            bias: (256,) of the linear layer.
            scale: cells per crop pixel.
        """
        self.group, self.out, self.scale = group, group.out, scale
        t, r = edges.shape[:2]
        cells = group.cells if t == 1 else np.repeat(group.cells, r, axis=0)
        self.pool = PoolingKernel(edges.reshape(t * r, *edges.shape[2:]), cells)
        kernel = torch.from_numpy(self.pool.kernel).view(t, r, -1).to(group.z.device, group.z.dtype)
        self.values = _products(kernel, group.z).float() + bias  # (t, R, 256), before the ReLU

    def energies(self) -> Tensor:
        """Return the level's part of the energies (t, R)."""
        return (self.values.relu() * self.out).sum(-1)

    def gradients(self) -> np.ndarray:
        """Return the gradients (t, R, 4) of that part, in crop pixels."""
        slopes = ((self.values > 0) * self.out).to(self.group.z.dtype)
        of_kernel = _numpy(_products(slopes, self.group.z.mT).float())
        return self.scale * self.pool.gradient(of_kernel).reshape(*slopes.shape[:2], 4)


def _in_sight(boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (T, R, 4) with zeros in place of those that are out of sight, and which these are, (T, R)."""
    lost = ~(np.abs(boxes_xyxy) < FAR).all(axis=-1)
    return np.where(lost[..., None], 0, boxes_xyxy).astype(boxes_xyxy.dtype, copy=False), lost


def groups_of(projections: list[Projection], last: int, dtype: np.dtype) -> list[Group]:
    """Return groups of projections of equally long windows; `last` is the map's last cell."""
    lengths = sorted({projection.length for projection in projections})
    if len(lengths) == 1:
        return [Group(slice(None), projections, last, dtype)]
    members = [[t for t, projection in enumerate(projections) if projection.length == length] for length in lengths]
    return [Group(places, [projections[t] for t in places], last, dtype) for places in members]


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix products (T, m, n) of T pairs, each equal to the bit to the product alone.

    MKL, which multiplies float32 on CPUs, sums a batch in another order (seen on Zen 5, two threads).
    """
    if a.dtype != torch.float32 or a.device.type != "cpu":
        return torch.bmm(a, b)
    return (a[0] @ b[0])[None] if len(a) == 1 else torch.stack([one @ other for one, other in zip(a, b)])


def _numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values."""
    return tensor.detach().cpu().numpy()


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
        """Return whether all cells touched by bins (2, s) from low to high (within the map) are here."""
        end_xy = self.first_xy + self.length
        return bool((np.floor(low_xy) >= self.first_xy).all() and (np.ceil(high_xy) < end_xy).all())
