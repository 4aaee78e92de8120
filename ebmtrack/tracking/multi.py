"""Several targets in one video: add(image, box) -> id, then update(image) -> {id: TrackResult} for every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.tracker import Tracker, TrackResult


class MultiTracker:
    """Follows any number of targets; each has its own memory, filter and random numbers, all share one network.

    Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels. Targets may be added and removed at any frame.

    >>> tracker = MultiTracker.from_pretrained()                     # doctest: +SKIP
    >>> left = tracker.add(first_image, (80, 60, 40, 90))            # doctest: +SKIP
    >>> right = tracker.add(first_image, (180, 60, 40, 90))          # doctest: +SKIP
    >>> for image in images: print(tracker.update(image)[left])      # doctest: +SKIP
    """

    def __init__(self, net: InferenceNet, params: TrackerParams):
        self.net, self.params = net, params
        self._trackers: dict[int, Tracker] = {}
        self._next_id = 0

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams | None = None,
        weights: str | Path | None = None,
        device: str | None = None,
        precision: str = "auto",
    ) -> MultiTracker:
        """The tracker of a set-up in tracker_params, with its weights or those of another file; as for Tracker."""
        one = Tracker.from_pretrained(params or "dimp18_nce_plus", weights, device or "cpu", precision)
        return cls(one.net, one.params)

    @property
    def targets(self) -> tuple[int, ...]:
        """The ids of all targets, in the order in which they were added."""
        return tuple(self._trackers)

    def add(self, image_rgb: np.ndarray, box_xywh, seed: int | None = None) -> int:
        """Start on one more target: its box in the image. Returns its id, which is never used again.

        `seed` overrides the parameters' one. Raises ConfigError on a bad image or box.
        """
        tracker = Tracker(self.net, self.params)
        tracker.init(image_rgb, box_xywh, seed)
        self._trackers[self._next_id] = tracker
        self._next_id += 1
        return self._next_id - 1

    def update(self, image_rgb: np.ndarray) -> dict[int, TrackResult]:
        """Find all targets in the next frame: result by id, in the order of `targets`."""
        return {target: tracker.update(image_rgb) for target, tracker in self._trackers.items()}

    def remove(self, target: int) -> None:
        """Forget a target. Raises ConfigError where there is none of this id."""
        if target not in self._trackers:
            raise ConfigError(f"there is no target {target}; there are {list(self._trackers)}")
        del self._trackers[target]
