"""Verbs that track recorded video: track, demo, bench."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from ebmtrack.commands.options import DEFAULT_SET_UP, Flat, Positional, TrackerOptions, VisdomOptions
from ebmtrack.viewers.track_options import TrackOptions

if TYPE_CHECKING:
    from ebmtrack.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Track:
    """Track one object or several through a video, a folder of frames, a camera or a stream.

    Attributes:
        source: Video file, folder of pictures, camera number or URL; - is a video from a pipe.
        seed: Seed of the tracker, instead of the set-up's.
    """

    source: Positional[str]
    seed: int | None = None
    options: Flat[TrackOptions] = field(default_factory=TrackOptions)
    tracker: Flat[TrackerOptions] = field(default_factory=TrackerOptions)
    panel: Flat[VisdomOptions] = field(default_factory=VisdomOptions)

    def run(self) -> None:
        """Track and print a summary."""
        from ebmtrack.viewers.source_names import path_or_stdin
        from ebmtrack.viewers.track_video import track

        track(path_or_stdin(self.source), self._load, visdom=self.panel.url, **asdict(self.options))

    def _load(self) -> Tracker:
        """Return the tracker."""
        tracker = self.tracker.load()
        if self.seed is not None:
            tracker.params = tracker.params.replace(seed=self.seed)
        return tracker


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
    """Compare engines, precisions and OpenCV's trackers on this machine: stages, frames/s, memory, import time.

    Attributes:
        contenders: torch, torch:float32, torch:bfloat16, onnx, openvino, openvino:float32, openvino:bfloat16,
            opencv:CSRT, opencv:KCF, opencv:MIL; a set-up (with its network) or a network comes after @:
            onnx@lite_nce_plus, onnx@./mine.py, onnx@FOLDER. By default all that this machine can run.
        params: Tracker set-up of contenders that name none.
        device: Of PyTorch: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
        threads: CPU threads of each contender (its own choice by default).
        frames: Frames to measure.
        source: A clip of your own instead of the built-in sequence; needs --init.
        init: The target's box in its first frame: x,y,w,h.
        targets: Compare this many targets in one video with one target, of the first contender.
        json: Print JSON instead of a table.
    """

    contenders: Positional[tuple[str, ...]] = ()
    params: str = DEFAULT_SET_UP
    device: str = "auto"
    threads: int | None = None
    frames: int = 150
    source: str | None = None
    init: str | None = None
    targets: int = 1
    json: bool = False

    def run(self) -> None:
        """Measure and print a table or JSON."""
        from ebmtrack.studies import bench_tracker as study

        chosen = {field.name: getattr(self, field.name) for field in fields(study.BenchOptions)}
        options = study.BenchOptions(**chosen)
        report = study.bench(options) if self.targets == 1 else study.bench_targets(options, self.targets)
        study.print_report(report, self.json)
