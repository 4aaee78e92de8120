"""The options of `ebmtrack webcam`, light to import: the command line is made from them."""

from __future__ import annotations

from dataclasses import dataclass

from ebmtrack.viewers.track_options import Repeated


@dataclass(frozen=True, kw_only=True)
class WebcamOptions:
    """The options of a live run: the source of its pictures, the targets, and the files that are written.

    Attributes:
        camera: The camera's number, 0 by default.
        source: A stream (URL), a video file, - (a video from a pipe) or a folder of pictures instead of a camera.
        init: A target in the first frame: x,y,w,h in pixels. Give it once for each of several targets.
        save: Write a video of what is seen, such as out.mp4.
        boxes: Write where the targets are, in the layout that the ending names: .csv, .json, .coco.json, .xml (CVAT),
            .txt (one file for each target), .mot.txt, or .yolo (a folder).
        layout: Layout of the boxes if the ending does not say it: csv, json, mot, coco, cvat, yolo, pytracking.
        headless: Open no window; needs --init, and --save or --boxes.
        loop: Play a video again and again.
        seconds: End after this time.
    """

    camera: int | None = None
    source: str | None = None
    init: Repeated = ()
    save: str | None = None
    boxes: str | None = None
    layout: str | None = None
    headless: bool = False
    loop: bool = False
    seconds: float | None = None
