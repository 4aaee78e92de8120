"""Verbs that track live video: webcam."""

from __future__ import annotations

from dataclasses import dataclass, field

from ebmtrack.commands.options import Flat, Repeated, TrackerOptions


@dataclass(frozen=True, kw_only=True)
class Webcam:
    """Track live: draw boxes with the mouse in the picture of a camera; the keys are shown in the window.

    Attributes:
        camera: The camera's number, 0 by default.
        source: A stream (URL), a video file or a folder of pictures instead of a camera.
        init: A target in the first frame: x,y,w,h in pixels. Give it once for each of several targets.
        save: Write a video of what is seen, such as out.mp4.
        boxes: Write where the targets are, in the layout that the ending names (.csv, .json ...).
        headless: Open no window; needs --init, and --save or --boxes.
        loop: Play a video again and again.
        seconds: End after this time.
    """

    camera: int | None = None
    source: str | None = None
    init: Repeated[str] = ()
    save: str | None = None
    boxes: str | None = None
    headless: bool = False
    loop: bool = False
    seconds: float | None = None
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)

    def run(self) -> None:
        """Track until the user ends it."""
        from ebmtrack.live.webcam import webcam

        webcam(
            self.tracker.load_multi,
            camera=self.camera,
            source=self.source,
            init=self.init,
            save=self.save,
            boxes=self.boxes,
            headless=self.headless,
            loop=self.loop,
            seconds=self.seconds,
        )
