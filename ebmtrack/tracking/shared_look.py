"""One pass of the network over a larger region where the search regions of several targets lie close together.

A cell of the backbone's map sees the same whatever patch it lies in, but for the patch's border. So targets of similar
size share a region, and each takes its window out of the maps. This is no longer to the bit what the target's own
search region gives: its scale is the region's (see MAX_RATIO), its centre lies on a cell, and it is moved into the
image where it can be, because nothing is to be seen outside. Lengths below are in pixels of the patch, from the image's
edge, unless they say image pixels; points are (y, x).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ebmtrack.nets.classifier import FEATURE_STRIDE
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.target import Mark, Target, View, look_closely

MAX_RATIO = 1.3  # of the scales of two targets in one region: each is seen at most 14 % larger or smaller than alone
STEP = 32        # sides of regions are a search region's plus multiples of this: few shapes, prepared once each
ROOM = 1.5       # target sizes that a window holds to each side of the target's centre, even outside the image


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of the image for one pass: whose it is, where each one's window begins, and its scale.

    members: numbers of targets. scale: image pixels per patch pixel. low: its corner, (2,). size: its sides, (2,).
    firsts: each member's window in cells of stride 16 from the corner, (members, 2).
    """

    members: tuple[int, ...]
    scale: float
    low: np.ndarray
    size: tuple[int, int]
    firsts: np.ndarray

    @property
    def cost(self) -> int:
        """Pixels that the network has to see."""
        return self.size[0] * self.size[1]


def look_together(net: InferenceNet, targets: Sequence[Target], image: np.ndarray, mark: Mark) -> list[View]:
    """A View for each target: from a shared region where that costs less than its own, else its own."""
    size = targets[0].params.sample_size
    regions = plan(targets, image.shape[:2]) if size % FEATURE_STRIDE == 0 else []
    shared = {member for region in regions for member in region.members}
    alone = [number for number in range(len(targets)) if number not in shared]
    views = dict(zip(alone, look_closely(net, [targets[k] for k in alone], image, mark))) if alone else {}
    for region in regions:
        views.update(zip(region.members, region_views(net, region, size, image, mark)))
    return [views[number] for number in range(len(targets))]


def plan(targets: Sequence[Target], image_hw: tuple[int, int]) -> list[Region]:
    """Regions for those targets that share one; the cheapest pair of groups is joined while that saves anything."""
    groups = [region_of((number,), targets, image_hw) for number in range(len(targets))]
    own = targets[0].params.sample_size ** 2
    while True:
        best, saving = None, 0
        for i, one in enumerate(groups):
            for two in groups[:i]:
                joined = region_of(one.members + two.members, targets, image_hw)
                costs = [own if len(group.members) == 1 else group.cost for group in (one, two)]
                if joined is not None and sum(costs) - joined.cost > saving:
                    best, saving = (one, two, joined), sum(costs) - joined.cost
        if best is None:
            return [group for group in groups if len(group.members) > 1]
        groups = [group for group in groups if group not in best[:2]] + [best[2]]


def region_of(members: tuple[int, ...], targets: Sequence[Target], image_hw: tuple[int, int]) -> Region | None:
    """The region that these targets would share, or None where their sizes differ too much."""
    scales = [targets[number].scale for number in members]
    if max(scales) > MAX_RATIO * min(scales):
        return None
    scale, side = (max(scales) * min(scales)) ** 0.5, targets[0].params.sample_size
    firsts = np.array([window_start(targets[number], scale, image_hw) for number in members])
    low, extent = firsts.min(0), np.ptp(firsts, axis=0)
    size = side + STEP * np.ceil(extent / STEP - 1e-6).astype(int)
    low = low - (size - side - extent) / 2
    cells = np.clip(np.round((firsts - low) / FEATURE_STRIDE), 0, (size - side) // FEATURE_STRIDE).astype(int)
    return Region(members, scale, low, (int(size[0]), int(size[1])), cells)


def window_start(target: Target, scale: float, image_hw: tuple[int, int]) -> np.ndarray:
    """Where a target's window should begin, (2,): around its position, inside the image as far as it has room.

    Along an axis on which all of the image fits into the window, the image lies in the window's middle.
    """
    side, centre = target.params.sample_size, (target.position + 0.5) / scale
    end = np.array(image_hw) / scale - side
    start = np.where(end < 0, end / 2, np.clip(centre - side / 2, 0, np.maximum(0, end)))
    room = np.minimum(ROOM * np.sqrt(target.size.prod()) / scale, side / 2)
    return np.clip(start, centre + room - side, centre - room)


def region_views(
    net: InferenceNet, region: Region, side: int, image: np.ndarray, mark: Mark
) -> list[View]:
    """The members' views of a region, in their order; `side` is that of their windows."""
    patch = resample(image, region.low * region.scale, region.scale, region.size)
    mark("crop")
    layer2, layer3 = net.extract(torch.from_numpy(patch[None]))
    mark("backbone")
    features = net.classifier_features(layer3)
    views = []
    for y, x in region.firsts.tolist():
        n = side // FEATURE_STRIDE
        cut2 = layer2[..., 2 * y : 2 * (y + n), 2 * x : 2 * (x + n)]
        cut3, own = layer3[..., y : y + n, x : x + n], net.normalized(features[..., y : y + n, x : x + n])
        corner, extent = (region.low + [FEATURE_STRIDE * y, FEATURE_STRIDE * x]) * region.scale, side * region.scale
        window_xywh = (float(corner[1]), float(corner[0]), extent, extent)
        views.append(View(corner + (extent - 1) / 2, region.scale, window_xywh, cut2, cut3, own))
    mark("classifier features")
    return views


def resample(image: np.ndarray, corner: np.ndarray, scale: float, size: tuple[int, int]) -> np.ndarray:
    """A patch of `size` whose window begins at `corner`, in image pixels; linear, the image's edge repeated.

    Large scales first take every n-th pixel, as crops.crop_around does.
    """
    stride = max(1, int(scale - 0.1))
    image = image[::stride, ::stride]
    start = (corner + (scale - 1) / 2) / stride
    low = np.clip(np.floor(start).astype(int), 0, np.array(image.shape[:2]) - 1)
    high = np.ceil(start + np.array(size) * scale / stride).astype(int) + 1
    part = np.ascontiguousarray(image[low[0] : max(high[0], low[0] + 1), low[1] : max(high[1], low[1] + 1)])
    zoom, (y, x) = scale / stride, start - low
    move = np.array([[zoom, 0, x], [0, zoom, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, move, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
