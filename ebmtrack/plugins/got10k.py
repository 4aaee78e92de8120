"""The tracker for the got10k toolkit: ExperimentOTB, ExperimentGOT10k and the others run it as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from got10k.trackers import Tracker as ToolkitTracker
from PIL.Image import Image

from ebmtrack.tracking.params import TrackerParams, set_up_name
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.weights import DEFAULT_SET_UP


class EbmTracker(ToolkitTracker):
    """Images come as PIL RGB, boxes as x, y, w, h; the same seed gives the same boxes, so one run is enough.

    >>> from got10k.experiments import ExperimentOTB                     # doctest: +SKIP
    >>> experiment = ExperimentOTB("/data/OTB100", version=2015)         # doctest: +SKIP
    >>> experiment.run(EbmTracker("dimp18_nce_plus", device="cuda"))     # doctest: +SKIP

    params, weights, device: as in Tracker.from_pretrained. name: the toolkit's folder of results,
    "ebmtrack_<set-up>" by default, of a set-up's path the file's stem.
    """

    def __init__(
        self,
        params: str | TrackerParams = DEFAULT_SET_UP,
        weights: str | Path | None = None,
        device: str = "auto",
        name: str | None = None,
    ):
        label = "custom" if isinstance(params, TrackerParams) else set_up_name(params)
        super().__init__(name or f"ebmtrack_{label}", is_deterministic=True)
        self.tracker = Tracker.from_pretrained(params, weights, device)

    def init(self, image: Image, box: np.ndarray) -> None:
        """Start on `box` (4,) in the first image."""
        self.tracker.init(np.array(image), box)

    def update(self, image: Image) -> np.ndarray:
        """Return the box (4,) in the next image."""
        return np.array(self.tracker.update(np.array(image)).box_xywh)
