"""Verbs that track live video: webcam."""

from __future__ import annotations

from dataclasses import dataclass, field

from ebmtrack.commands.options import Flat, TrackerOptions
from ebmtrack.live.webcam_options import WebcamOptions


@dataclass(frozen=True, kw_only=True)
class Webcam:
    """Track live: draw boxes with the mouse in the picture of a camera; the keys are shown in the window."""

    options: Flat[WebcamOptions] = field(default_factory=WebcamOptions)
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)

    def run(self) -> None:
        """Track until the user ends it."""
        from ebmtrack.live.webcam import webcam

        webcam(self.tracker.load_multi, self.options)
