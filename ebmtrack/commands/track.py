"""Verbs that track recorded video: track, demo, bench."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ebmtrack.commands.options import Flat, Positional, TrackerOptions, VisdomOptions
from ebmtrack.viewers.track_options import TrackOptions


@dataclass(frozen=True, kw_only=True)
class Track:
    """Track one object or several through a video, a folder of frames, a camera or a stream.

    Attributes:
        source: Video file, folder of pictures, camera number or URL.
    """

    source: Positional[str]
    options: Flat[TrackOptions] = field(default_factory=TrackOptions)
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)
    panel: Flat[VisdomOptions] = field(default_factory=VisdomOptions)

    def run(self) -> None:
        """Track and print a summary."""
        from ebmtrack.viewers.track_video import track

        track(self.source, self.tracker.load, visdom=self.panel.url, **asdict(self.options))


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
