"""Several targets in one video: add(image, box) -> id, then update(image) -> {id: TrackResult} for every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.step import Mark, Target, TrackResult, no_mark, update_targets
from ebmtrack.tracking.tracker import Tracker, check_box, check_image

GLANCES = 4  # at each of several calm targets, after each look at the whole search region


class MultiTracker:
    """Follows any number of targets; each has its own memory, filter and random numbers, all share one network.

    All search regions go through the network at once, and all boxes climb together, but each is computed as if alone.
    Where there are several targets, each look at the whole search region of a calm one is followed by `glances` frames
    that see its inner part only (see glance.py), the targets taking turns: quicker, and a little less exact. With
    glances=0 the boxes are those of separate Trackers with the same seeds, to the bit on a CPU.

    Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels. Targets may be added and removed at any frame.

    >>> tracker = MultiTracker.from_pretrained()                     # doctest: +SKIP
    >>> left = tracker.add(first_image, (80, 60, 40, 90))            # doctest: +SKIP
    >>> right = tracker.add(first_image, (180, 60, 40, 90))          # doctest: +SKIP
    >>> for image in images: print(tracker.update(image)[left])      # doctest: +SKIP
    """

    def __init__(self, net: InferenceNet, params: TrackerParams, glances: int = GLANCES):
        """glances: for each of several targets; one alone has those of `params`."""
        self.net, self.params, self.glances = net, params, glances
        self.mark: Mark = no_mark  # called with each stage's name when it is done
        self._targets: dict[int, Target] = {}
        self._next_id = 0

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams | None = None,
        weights: str | Path | None = None,
        device: str | None = None,
        precision: str = "auto",
        glances: int = GLANCES,
    ) -> MultiTracker:
        """The tracker of a set-up in tracker_params, with its weights or those of another file; as for Tracker."""
        one = Tracker.from_pretrained(params or "dimp18_nce_plus", weights, device or "cpu", precision)
        return cls(one.net, one.params, glances)

    @property
    def targets(self) -> tuple[int, ...]:
        """The ids of all targets, in the order in which they were added."""
        return tuple(self._targets)

    @torch.inference_mode()
    def add(self, image_rgb: np.ndarray, box_xywh, seed: int | None = None) -> int:
        """Start on one more target: its box in the image. Returns its id, which is never used again.

        `seed` overrides the parameters' one. Raises ConfigError on a bad image or box.
        """
        image, box = check_image(image_rgb), check_box(box_xywh, image_rgb.shape)
        target, self._next_id = self._next_id, self._next_id + 1
        self._targets[target] = Target(self.net, self.params, image, box, seed, phase=target)
        return target

    @torch.inference_mode()
    def update(self, image_rgb: np.ndarray) -> dict[int, TrackResult]:
        """Find all targets in the next frame: result by id, in the order of `targets`."""
        image, targets = check_image(image_rgb), dict(self._targets)
        for target in targets.values():
            target.glances = self.glances if len(targets) > 1 else self.params.glances
        results = update_targets(self.net, list(targets.values()), image, self.mark)
        return dict(zip(targets, results))

    def remove(self, target: int) -> None:
        """Forget a target. Raises ConfigError where there is none of this id."""
        del self._targets[self._known(target)]

    @torch.inference_mode()
    def candidates(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """A target's candidate boxes before and after their climb; see Tracker.candidates."""
        return self._targets[self._known(target)].climbed_candidates()

    @torch.inference_mode()
    def corner_log_density(self, target: int, points_xy: np.ndarray) -> np.ndarray:
        """A target's energies over places of its top right corner; see Tracker.corner_log_density."""
        known = self._targets[self._known(target)]
        if known.energy is None:
            raise ConfigError(f"target {target} has no energy to look at: update() has not found it")
        return known.corner_log_density(np.asarray(points_xy, np.float64))

    def _known(self, target: int) -> int:
        """The id, if there is such a target, else ConfigError."""
        if target not in self._targets:
            raise ConfigError(f"there is no target {target}; there are {list(self._targets)}")
        return target
