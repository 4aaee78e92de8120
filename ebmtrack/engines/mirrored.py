"""An engine that sees each search region twice, as it is and mirrored, and takes the mean of both energies.

A network's errors for a picture and for its mirror image differ: the mean of both energies has better boxes than one of
them, for twice the network's work. Scores are those of the region as it is: the mean of two score maps whose peaks are
a cell apart has a lower peak, and targets that are covered for a while were lost more often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ebmtrack.engines.base import (
    Ascent,
    BoxEnergies,
    Climb,
    Engine,
    EngineInfo,
    FirstFrame,
    InnerLook,
    Look,
    Mark,
    OneProcess,
    RegionFeatures,
    Sight,
    TargetModel,
    WholeLook,
    no_mark,
)
from ebmtrack.engines.box_ascent import climb_boxes

PREFIX = "mirrored_"  # of the names of arrays


@dataclasses.dataclass
class MirroredTarget:
    """What the engine learned of a target, and of its mirror image, of which the modulation alone is used."""

    straight: TargetModel
    mirrored: TargetModel


@dataclasses.dataclass(frozen=True)
class MirroredRegion:
    """A search region's features, those of its mirror image, and its side in crop pixels."""

    straight: RegionFeatures
    mirrored: RegionFeatures
    side: int


class MirroredEngine(OneProcess):
    """Another engine's network on regions and their mirror images; see `ebmtrack.engines.base.Engine` for the methods.

    Energies are the means of both: those of a mirrored box in the mirror image are the same.
    """

    def __init__(self, engine: Engine):
        self.engine = engine

    @property
    def info(self) -> EngineInfo:
        """Return what the tracker must know of the network."""
        return self.engine.info

    def start(self, first: FirstFrame) -> tuple[MirroredTarget, list[MirroredRegion]]:
        """Learn a target from the first frame, and the modulation of its mirror image."""
        side = first.patches.shape[2]
        patches = np.ascontiguousarray(first.patches[:, :, ::-1])
        image = FirstFrame(patches[:1], mirror(first.boxes_xyxy[:1], side), first.channel_factors[:0], 1, 1)
        (target, straight), (other, mirrored) = self.engine.start(first), self.engine.start(image)
        further = self.engine.look([WholeLook(other, patch) for patch in patches[1 : first.regions]])
        mirrored += [sight.features for sight in further]
        regions = [MirroredRegion(one, another, side) for one, another in zip(straight, mirrored)]
        return MirroredTarget(target, other), regions

    def look(self, looks: Sequence[Look], mark: Mark = no_mark) -> list[Sight]:
        """Look at search regions and their mirror images, those of equal size in one pass of the network."""
        sights = self.engine.look([half for look in looks for half in _halves(look)], mark)
        return [
            Sight(MirroredRegion(straight.features, mirrored.features, self._side(look)), straight.scores)
            for look, straight, mirrored in zip(looks, sights[::2], sights[1::2])
        ]

    def _side(self, look: Look) -> int:
        """Return the side of a look's whole search region in crop pixels."""
        margin = look.margin_cells if isinstance(look, InnerLook) else 0
        return look.patch.shape[1] + 2 * margin * self.info.stride

    def climb(
        self, regions: Sequence[MirroredRegion], boxes_xywh: np.ndarray, ascent: Ascent, mark: Mark = no_mark
    ) -> Climb:
        """Let boxes climb the mean energy, for each target in its own search region."""
        return climb_boxes(self.energy_of(regions), boxes_xywh, ascent, mark)

    def energy_of(self, regions: Sequence[MirroredRegion]) -> MeanEnergies:
        """Return the mean energies of boxes in search regions."""
        straight, mirrored = ([getattr(region, name) for region in regions] for name in ("straight", "mirrored"))
        sides = np.array([region.side for region in regions], np.float32)[:, None]
        return MeanEnergies(self.engine.energy_of(straight), self.engine.energy_of(mirrored), sides)

    def energies(self, region: MirroredRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the mean energies (n,) of boxes (n, 4) in a search region."""
        straight = self.engine.energies(region.straight, boxes_xyxy)
        return (straight + self.engine.energies(region.mirrored, mirror(boxes_xyxy, region.side))) / 2

    def hidden_units(self, region: MirroredRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the means (n, c) of the hidden units of boxes (n, 4) and of those of their mirror images."""
        straight = self.engine.hidden_units(region.straight, boxes_xyxy)
        return (straight + self.engine.hidden_units(region.mirrored, mirror(boxes_xyxy, region.side))) / 2

    def last_layer(self, target: MirroredTarget) -> np.ndarray:
        """Return the weights of the energy's last layer, which a target and its mirror image share."""
        return self.engine.last_layer(target.straight)

    def use_last_layer(self, target: MirroredTarget, weights: np.ndarray) -> None:
        """Let both energies have other weights in their last layer."""
        self.engine.use_last_layer(target.straight, weights)
        self.engine.use_last_layer(target.mirrored, weights)

    def remember(self, target: MirroredTarget, slot: int, region: MirroredRegion, box_xyxy: np.ndarray) -> None:
        """Store a search region's classification features as a sample."""
        self.engine.remember(target.straight, slot, region.straight, box_xyxy)

    def learn(self, target: MirroredTarget, weights: np.ndarray, iterations: int) -> None:
        """Improve the filter on its stored samples."""
        self.engine.learn(target.straight, weights, iterations)

    def pack(self, target: MirroredTarget, region: MirroredRegion) -> dict[str, np.ndarray]:
        """Return the arrays of a target's model and of one region's features, and those of their mirror images."""
        mirrored = self.engine.pack(target.mirrored, region.mirrored)
        straight = self.engine.pack(target.straight, region.straight)
        return {**straight, **{PREFIX + name: values for name, values in mirrored.items()}}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[MirroredTarget, MirroredRegion]:
        """Return a target's model and a region's features from their arrays.

        The region's side is that of whole cells; trackers ask a region that was unpacked for no energies.
        """
        mirrored = {name.removeprefix(PREFIX): v for name, v in arrays.items() if name.startswith(PREFIX)}
        straight = {name: values for name, values in arrays.items() if not name.startswith(PREFIX)}
        side = arrays["layer3"].shape[-1] * self.info.stride
        (target, region), (other, image) = self.engine.unpack(straight), self.engine.unpack(mirrored)
        return MirroredTarget(target, other), MirroredRegion(region, image, side)


def as_set_up(engine: Engine, mirrored: bool) -> Engine:
    """Return an engine as a set-up asks for it: with mirror images or without."""
    plain = engine.engine if isinstance(engine, MirroredEngine) else engine
    return MirroredEngine(plain) if mirrored else plain


class MeanEnergies:
    """The mean of the energies of boxes in search regions and of their mirror images in the mirrored ones."""

    def __init__(self, straight: BoxEnergies, mirrored: BoxEnergies, sides: np.ndarray):
        """Take both energies of T targets, and the sides (T, 1) of their search regions in crop pixels."""
        self.straight, self.mirrored, self.sides = straight, mirrored, sides

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute now what boxes (T, R, 4) will need."""
        self.straight.look_at(boxes_xyxy)
        self.mirrored.look_at(mirror(boxes_xyxy, self.sides))

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        other = self.mirrored.gradient(mirror(boxes_xyxy, self.sides))
        return (self.straight.gradient(boxes_xyxy) + _mirror_back(other)) / 2

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (T, R) and gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        energies, gradients = self.straight.value_and_gradient(boxes_xyxy)
        others, slopes = self.mirrored.value_and_gradient(mirror(boxes_xyxy, self.sides))
        return (energies + others) / 2, (gradients + _mirror_back(slopes)) / 2


def mirror(boxes_xyxy: np.ndarray, side: np.ndarray | int) -> np.ndarray:
    """Return boxes (..., 4) in a region's mirror image; `side` is the region's, in crop pixels, or one for each row."""
    mirrored = boxes_xyxy.copy()
    mirrored[..., 0], mirrored[..., 2] = side - boxes_xyxy[..., 2], side - boxes_xyxy[..., 0]
    return mirrored


def _mirror_back(gradients: np.ndarray) -> np.ndarray:
    """Return gradients (..., 4) by the sides of boxes from those by the sides of mirrored boxes."""
    return gradients[..., [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], gradients.dtype)


def _halves(look: Look) -> tuple[Look, Look]:
    """Return a look of a target of ours as two of the other engine: at the region and at its mirror image."""
    patch = np.ascontiguousarray(look.patch[:, ::-1])
    if isinstance(look, InnerLook):
        margin, whole = look.margin_cells, look.whole
        return (
            InnerLook(look.target.straight, look.patch, margin, whole.straight),
            InnerLook(look.target.mirrored, patch, margin, whole.mirrored),
        )
    return WholeLook(look.target.straight, look.patch), WholeLook(look.target.mirrored, patch)
