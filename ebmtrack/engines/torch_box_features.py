"""Box features of a search region on torch, computed where boxes look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmtrack.engines.pooling import MARGIN, WINDOWS
from ebmtrack.nets.box_energy import BoxEnergy


class BoxFeatures:
    """Box features of one search region: of a window around the boxes, of a larger one when boxes leave it.

    Values do not depend on earlier queries. Maps are square, [side, side, 256], float32.
    """

    def __init__(self, net: BoxEnergy, layer2: Tensor, layer3: Tensor):
        """Take a branch with folded batch norm, and backbone features (1, c, side, side) of one image."""
        self.branches = ((net.conv3_1t, net.conv3_2t, layer2), (net.conv4_1t, net.conv4_2t, layer3))
        self.parts: list[tuple[int, int, Tensor] | None] = [None, None]

    def part(self, level: int, low_xy: list[float], high_xy: list[float]) -> tuple[Tensor, list[int]]:
        """Return a square part [L, L, 256] of a map that holds all cells that intervals from low to high touch.

        Its first cell (x, y) comes with it. Level 0 has stride 8, level 1 stride 16.
        """
        first, length = self._cells(level, low_xy, high_xy)
        return self._compute(level, first, length), first

    @staticmethod
    def prepare(
        several: Sequence[BoxFeatures], level: int, lows_xy: list[list[float]], highs_xy: list[list[float]]
    ) -> None:
        """Compute the windows that `part` will take, in regions of one network for which nothing is computed yet.

        Windows of the same side go through the convolutions together.
        """
        by_side: dict[int, list[tuple[BoxFeatures, int, int]]] = {}
        for features, low_xy, high_xy in zip(several, lows_xy, highs_xy):
            place = features._place(level, *features._cells(level, low_xy, high_xy))
            if place is not None and features.parts[level] is None:
                by_side.setdefault(place[2], []).append((features, *place[:2]))
        for side, members in by_side.items():
            cut = torch.cat([features._cut(level, x, y, side) for features, x, y in members])
            for (features, x, y), values in zip(members, members[0][0]._convolve(level, cut).split(1)):
                features.parts[level] = x, y, channels_last(values)

    def _cells(self, level: int, low_xy: list[float], high_xy: list[float]) -> tuple[list[int], int]:
        """Return first cell (x, y) and side of the square part that holds all cells that intervals touch."""
        side = self.branches[level][2].shape[-1]
        first = [min(max(math.floor(v), 0), side - 1) for v in low_xy]
        last = [min(max(math.ceil(v), f), side - 1) for v, f in zip(high_xy, first)]
        length = max(b - a for a, b in zip(first, last)) + 1
        return [min(f, side - length) for f in first], length

    def side(self, level: int) -> int:
        """Return the number of cells along each side of a map."""
        return self.branches[level][2].shape[-1]

    def _compute(self, level: int, first: list[int], length: int) -> Tensor:
        """Return the part of `length` cells from `first`; compute a larger window if it is not in the known one."""
        known = self.parts[level]
        if known is None or not self._holds((*known[:2], len(known[2])), first, length):
            known_side = 0 if known is None else len(known[2])
            known = self.parts[level] = self._window(level, first, length, known_side + 1)
        x, y, values = known
        return values[first[1] - y : first[1] - y + length, first[0] - x : first[0] - x + length]

    @staticmethod
    def _holds(known: tuple[int, int, int], first: list[int], length: int) -> bool:
        """Return whether a part is inside a square, given by its first cell (x, y) and its side."""
        x, y, side = known
        return x <= first[0] and y <= first[1] and max(first[0] - x, first[1] - y) + length <= side

    def _window(self, level: int, first: list[int], length: int, least: int) -> tuple[int, int, Tensor]:
        """Return a window of at least `least` cells around a part, or the whole map if no window can hold the part."""
        place = self._place(level, first, length, least)
        if place is None:
            return self._whole(level)
        x, y, side = place
        return x, y, channels_last(self._convolve(level, self._cut(level, x, y, side)))

    def _place(self, level: int, first: list[int], length: int, least: int = 1) -> tuple[int, int, int] | None:
        """Return first cell (x, y) and side of a window around a part, moved into the map; None if none fits.

        Few different sides, because convolutions are prepared once for each shape.
        """
        features = self.branches[level][2]
        window = next((side for side in WINDOWS[level] if side >= max(length, least)), features.shape[-1])
        last = features.shape[-1] - window - MARGIN
        x, y = (max(MARGIN, min(f - (window - length) // 2, last)) for f in first)
        return None if last < MARGIN or not self._holds((x, y, window), first, length) else (x, y, window)

    def _cut(self, level: int, x: int, y: int, side: int) -> Tensor:
        """Return the backbone features that a window of `side` cells from (x, y) sees."""
        features = self.branches[level][2]
        return features[..., y - MARGIN : y + side + MARGIN, x - MARGIN : x + side + MARGIN]

    def _convolve(self, level: int, cut: Tensor) -> Tensor:
        """Return the box features of cuts (N, c, h, w), without padding."""
        for block in self.branches[level][:2]:
            convolution = cast(nn.Conv2d, block[0])
            cut = F.conv2d(cut, convolution.weight, convolution.bias).relu_()
        return cut

    def _whole(self, level: int) -> tuple[int, int, Tensor]:
        one, two, features = self.branches[level]
        return 0, 0, channels_last(two(one(features)))


def channels_last(features: Tensor) -> Tensor:
    """Return features (1, c, h, w) as [h, w, c], float32, contiguous."""
    return features[0].permute(1, 2, 0).float().contiguous()
