"""Verbs that track recorded video: track, demo, bench."""

from __future__ import annotations

from dataclasses import dataclass, field

from ebmtrack.commands.options import Flat, Positional, Repeated, TrackerOptions, VisdomOptions


@dataclass(frozen=True, kw_only=True)
class Track:
    """Track one object or several through a video, a folder of frames, a camera or a stream.

    Attributes:
        source: Video file, folder of pictures, camera number or URL.
        init: The target's box in the first frame: x,y,w,h in pixels, x and y of the top left corner. Give it once for
            each of several targets.
        select: Draw the target's box with the mouse (this is done as well if --init is not given).
        save: Write a video with the boxes drawn, such as out.mp4.
        boxes: Write the boxes in the layout that the ending names (.txt, .csv, .json ...).
        layout: Layout of the boxes if the ending does not say it: csv, json, mot, coco, cvat, yolo, pytracking.
        start: First frame, a number from 0 or a time such as 12.5s or 1:02.5; the boxes are those in this frame.
        end: Last frame to track, a number or a time.
        every: Track one of this many frames.
        show: Show the frames in a window while tracking; q ends it.
        max_frames: Stop after this many frames.
    """

    source: Positional[str]
    init: Repeated[str] = ()
    select: bool = False
    save: str | None = None
    boxes: str | None = None
    layout: str | None = None
    start: str | None = None
    end: str | None = None
    every: int = 1
    show: bool = False
    max_frames: int | None = None
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)
    panel: Flat[VisdomOptions] = field(default_factory=VisdomOptions)

    def run(self) -> None:
        """Track and print a summary."""
        from ebmtrack.viewers.track_video import track

        track(
            self.source,
            self.tracker.load,
            init=self.init,
            select=self.select,
            save=self.save,
            boxes=self.boxes,
            show=self.show,
            max_frames=self.max_frames,
            visdom=self.panel.url,
            layout=self.layout,
            start=self.start,
            end=self.end,
            every=self.every,
        )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Track the built-in sequence, whose truth is known: overlap by part, speed, a video and a picture.

    Attributes:
        out: Folder for the video and the picture.
        seed: Seed of the tracker; what is followed during the occlusion depends on it.
    """

    out: str = "out/demo"
    seed: int = 1
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)

    def run(self) -> None:
        """Track and print a table."""
        from ebmtrack.viewers.demo import run_demo

        tracker = self.tracker.load()
        tracker.params = tracker.params.replace(seed=self.seed)
        print(run_demo(self.out, tracker).text())


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure the tracker on this machine: milliseconds a frame by stage, median over frames.

    Attributes:
        precision: auto, float32 or bfloat16.
        threads: CPU threads (torch's own choice by default).
        frames: Frames to measure.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        targets: Compare this many targets in one video with one target.
        json: Print JSON instead of a table.
    """

    precision: str = "auto"
    threads: int | None = None
    frames: int = 100
    width: int = 640
    height: int = 480
    targets: int = 1
    json: bool = False
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)

    def run(self) -> None:
        """Measure and print a table or JSON."""
        from ebmtrack.studies import bench_tracker

        report = bench_tracker.bench(
            params=self.tracker.params,
            weights=self.tracker.weights,
            device=self.tracker.device,
            precision=self.precision,
            threads=self.threads,
            frames=self.frames,
            width=self.width,
            height=self.height,
            targets=self.targets,
            engine=self.tracker.engine,
        )
        bench_tracker.print_report(report, self.json)
