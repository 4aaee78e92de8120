"""The tracker's knowledge of one target between two frames."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ebmtrack.data.crops import CropMap
from ebmtrack.engines.base import RegionFeatures, TargetModel
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers


@dataclasses.dataclass(frozen=True)
class Region:
    """A search region, cut from the image.

    patch: (side, side, 3) uint8 RGB, what the network will see: all of the region or its inner part.
    map: between image and the whole region's pixels.
    window_xywh: the whole region in the image.
    is_inner: whether the patch shows the inner part only.
    """

    patch: np.ndarray = dataclasses.field(repr=False)
    map: CropMap
    window_xywh: tuple[float, float, float, float]
    is_inner: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """A search region as the network sees it, with the score map (h, w) of the target's filter."""

    region: Region
    features: RegionFeatures
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Candidate boxes (R, 4) float32, x, y, w, h in crop pixels of a view."""

    view: View
    candidates_xywh: np.ndarray


@dataclasses.dataclass(frozen=True)
class TargetState:
    """One target after a frame. Positions and sizes are (y, x) and (h, w), as in pytracking.

    params: the set-up.
    model, memory, random: what the engine learned, the weights of its samples, the target's random numbers. These three
        change in place; all other fields are values.
    base_area: the area (crop pixels) that the target has in its search region.
    first_log_aspect: log(h / w) in the first frame.
    log_excess_hw: log ratio of the size that the energy prefers to the target's, (2,), from the first frame.
    excess_yx: distance of the centre that it prefers from the target's, in the target's height and width, (2,).
    phase: number of frames by which the target's whole looks and checks of its size come earlier than with phase 0.
    frame: number of the last frame; the first one is 1.
    position_yx, size_hw: the target's centre (pixel centres are integers) and size in image pixels, (2,).
    scale: image pixels per pixel of the search region.
    first_scale: the same in the first frame.
    box_xywh: the same box as the user sees it.
    lost_frames: number of frames since the target was last found.
    doubt: number of frames for which the target, which looking around has found, may still turn out to be where it was
        before.
    found_yx, found_hw: its position and size when it was last found without that doubt.
    is_calm: whether the last frame left no doubt and little motion, so that an inner look may do in the next one.
    whole: the features of the last whole look at the first search region.
    proposals: the last frame's proposal, or nothing if the target was not found, nor a weak peak followed.
    """

    params: TrackerParams
    model: TargetModel
    memory: SampleMemory
    random: RandomNumbers
    base_area: float
    first_log_aspect: float
    log_excess_hw: np.ndarray
    excess_yx: np.ndarray
    phase: int
    frame: int
    position_yx: np.ndarray
    size_hw: np.ndarray
    scale: float
    first_scale: float
    box_xywh: tuple[float, float, float, float]
    lost_frames: int
    doubt: int
    found_yx: np.ndarray
    found_hw: np.ndarray
    is_calm: bool
    whole: RegionFeatures
    proposals: tuple[Proposal, ...]

    def box_in(self, crop_map: CropMap) -> np.ndarray:
        """Return the target's box x, y, w, h (4,) float32 in crop pixels."""
        return crop_map.to_crop(self.position_yx, self.size_hw).astype(np.float32)

    def preferred_box_in(self, crop_map: CropMap) -> np.ndarray:
        """Return the box x, y, w, h (4,) float32 in crop pixels that the energy prefers for the target's."""
        return crop_map.to_crop(*self.preferred(self.position_yx, self.size_hw)).astype(np.float32)

    def preferred(self, positions_yx: np.ndarray, sizes_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return centres and sizes (..., 2) that the energy prefers for the target's, in image pixels."""
        return positions_yx + self.excess_yx * sizes_hw, sizes_hw * np.exp(self.log_excess_hw)

    def own(self, positions_yx: np.ndarray, sizes_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the target's centres and sizes (..., 2) in image pixels from those of boxes that climbed."""
        own_hw = sizes_hw * np.exp(-self.log_excess_hw)
        return positions_yx - self.excess_yx * own_hw, own_hw

    def boxes_in_image(self, proposal: Proposal, boxes_xywh: np.ndarray) -> np.ndarray:
        """Return boxes (R, 4) in image pixels from climbed ones in crop pixels, as the tracker would answer them."""
        positions, sizes = self.own(*proposal.view.region.map.to_image(boxes_xywh))
        return np.concatenate([(positions - (sizes - 1) / 2)[:, ::-1], sizes[:, ::-1]], axis=1)

    @property
    def climbed_log_aspect(self) -> float:
        """Return log(w / h) of the boxes that climb, if the target has the first frame's aspect ratio."""
        excess_h, excess_w = self.log_excess_hw
        return float(excess_w - excess_h) - self.first_log_aspect

    @property
    def at_found(self) -> TargetState:
        """Return the state moved to where the target was last found without doubt."""
        return self.move(self.found_yx, self.found_hw)

    def move(self, position_yx: np.ndarray, size_hw: np.ndarray) -> TargetState:
        """Return the state with another position and size."""
        return dataclasses.replace(
            self,
            position_yx=position_yx,
            size_hw=size_hw,
            scale=math.sqrt(size_hw.prod() / self.base_area),
            box_xywh=centred_box(position_yx, size_hw),
        )


def centred_box(position_yx: np.ndarray, size_hw: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box x, y, w, h of a centre (y, x) and a size (h, w)."""
    (y, x), (h, w) = position_yx.tolist(), size_hw.tolist()
    return x - (w - 1) / 2, y - (h - 1) / 2, w, h
