"""Frames by PyAV, for codecs that OpenCV lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.viewers.containers import display_matrix, is_cut_short
from ebmtrack.viewers.frame_source import FrameSource, turn


class AvFrames(FrameSource):
    """The frames of a video file by PyAV, for codecs that OpenCV lacks (AV1); empty ones with `pictures=False`."""

    def __init__(self, path: str | os.PathLike, pictures: bool = True):
        import av

        self._path, self._pictures = path, pictures
        self._container = av.open(os.path.abspath(path))
        stream = self._container.streams.video[0]
        self._packets: Iterator[Any] = self._container.demux(stream)
        self._waiting: list[Any] = []
        self._time = 0.0
        super().__init__(Path(path).name, float(stream.average_rate or 0), stream.frames or None)
        self._matrix = display_matrix(path)
        aspect = float(stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if self._matrix[0] == 0 else aspect

    def close(self) -> None:
        self._container.close()
        self._packets, self._waiting = iter(()), []

    def _moment_s(self) -> float:
        """See FrameSource."""
        return self._time

    def _time_stamps(self) -> Iterator[float]:
        """See FrameSource."""
        return AvFrames(self._path, pictures=False).moments()

    def _read(self) -> np.ndarray | None:
        from av.error import FFmpegError

        while not self._waiting:
            try:
                packet = next(self._packets, None)
                if packet is None:
                    if is_cut_short(self._path):
                        self._note_early_end(f"{self.frames_read} frames, then the file is cut short")
                    return None
                self._waiting = packet.decode()
            except FFmpegError:
                self._pass_over(1)
        frame = self._waiting.pop(0)
        self._time = float(frame.time) if frame.time is not None else self.position / self.fps
        picture = frame.to_ndarray(format="rgb24") if self._pictures else np.zeros((0, 0, 3), np.uint8)
        return turn(picture, self._matrix)
