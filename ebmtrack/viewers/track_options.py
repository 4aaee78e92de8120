"""The options of `ebmtrack track`, light to import: the command line is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]  # an option that is given once for each value


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """The targets, the frames that are tracked, and the files that are written.

    Attributes:
        init: The target's box: x,y,w,h in pixels, x and y of the top left corner. Give it once for each of several
            targets. FRAME:x,y,w,h is a box in another frame; several of these are key frames of one target, which is
            tracked forward and backward between them. ID@FRAME:x,y,w,h names the target. A file of boxes (.csv, .json,
            .coco.json, .xml of CVAT, .mot.txt, or a folder of YOLO) gives key frames of all its targets.
        select: Draw boxes with the mouse, in any frame (this is done as well if --init is not given).
        save: Write a video with the boxes drawn, such as out.mp4.
        boxes: Write the boxes in the layout that the ending names: .csv, .json, .coco.json, .xml (CVAT), .txt (one
            file for each target), .mot.txt, or .yolo (a folder). Without --boxes, --save and --show they go to
            NAME_boxes.txt in the current folder.
        layout: Layout of the boxes if the ending does not say it: csv, json, mot, coco, cvat, yolo, pytracking.
        category: What the targets are, such as person: their category in .coco.json, their label in .xml, their class
            in .yolo. By default what a file of --init says.
        interval: Let .csv and .json hold, for each side of the box, the interval that holds the true side with this
            probability, such as 0.9, and the probability that the target is lost; drawn boxes get soft edges.
        start: First frame, a number from 0 or a time such as 12.5s or 1:02.5; boxes without a frame are in this one.
        end: Last frame to track, a number or a time.
        every: Track one of this many frames.
        backward: Track from the last frame to the first one; a box without a frame is in the last one.
        both: Track forward and backward from the key frames; each box needs its frame.
        show: Show the frames in a window while tracking; q ends it.
        max_frames: Stop after this many frames.
    """

    init: Repeated = ()
    select: bool = False
    save: str | None = None
    boxes: str | None = None
    layout: str | None = None
    category: str | None = None
    interval: float | None = None
    start: str | None = None
    end: str | None = None
    every: int = 1
    backward: bool = False
    both: bool = False
    show: bool = False
    max_frames: int | None = None

    @property
    def direction(self) -> Literal["forward", "backward", "both"]:
        """Return in which direction a target is tracked before its first and after its last key frame."""
        return "both" if self.both else "backward" if self.backward else "forward"
