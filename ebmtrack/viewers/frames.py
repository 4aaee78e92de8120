"""Where frames come from: a video file, a folder of pictures, a camera or a stream, all read in one way."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import natural_key
from ebmtrack.images import PICTURES, SequenceReader, quiet_opencv

DEFAULT_FPS = 30.0  # of folders, and of videos and cameras that do not say

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET: our error says it in one line


class FrameSource(ABC):
    """An iterator over frames, RGB uint8 (h, w, 3), that is closed after use (or used as a context manager).

    `name` names the source in messages and file names, `fps` is its frame rate, `length` the number of frames
    that it announces (None for a camera or stream) and `frames_read` how many it has given. After the last
    frame `note` says in one line what was odd, such as a video that ended early, or is None.
    """

    def __init__(self, name: str, fps: float, length: int | None):
        self.name = name
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else DEFAULT_FPS
        self.length = length
        self.frames_read = 0
        self.note: str | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        frame = self._read()
        if frame is None:
            raise StopIteration
        self.frames_read += 1
        return frame

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what the source holds; reading after this ends at once."""

    @abstractmethod
    def _read(self) -> np.ndarray | None:
        """The next frame, or None after the last."""


class FolderFrames(FrameSource):
    """The pictures of a folder in natural order (frame2 before frame10), each in its own size."""

    def __init__(self, folder: str | os.PathLike, fps: float = DEFAULT_FPS):
        folder = Path(folder)
        names = [path for path in _listed(folder) if path.suffix.lower() in PICTURES]
        names = [path for path in names if not path.name.startswith(".")]
        if not names:
            kinds = " ".join(sorted(PICTURES))
            raise DatasetError(f"{folder}: no pictures in this folder; frames are files ending in {kinds}")
        self.paths = sorted(names, key=lambda path: natural_key(path.name))
        self._reader = SequenceReader()
        super().__init__(folder.resolve().name, fps, len(self.paths))

    def close(self) -> None:
        self.paths = self.paths[: self.frames_read]

    def _read(self) -> np.ndarray | None:
        if self.frames_read >= len(self.paths):
            return None
        path = self.paths[self.frames_read]
        try:
            image = self._reader.read(path)
        except DatasetError as error:
            raise DatasetError(f"frame {self.frames_read} of {len(self.paths)}: {error}") from None
        self.note = self._reader.note
        return image


class VideoFrames(FrameSource):
    """The frames of a video file or of a stream; one that ends early gives what it has and leaves a note."""

    def __init__(self, source: str | os.PathLike):
        source = os.fspath(source)
        self._is_stream = is_url(source)
        self._capture = _opened(source)
        if self._capture is None:
            raise DatasetError(_no_video(source, self._is_stream))
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        length = int(announced) if math.isfinite(announced) and 0 < announced < 2**31 else None
        name = without_password(source) if self._is_stream else Path(source).name
        super().__init__(name, self._capture.get(cv2.CAP_PROP_FPS), length)

    def close(self) -> None:
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        if not self._capture.isOpened():
            return None
        frame = _next_rgb(self._capture)
        if frame is None and self.frames_read == 0:
            raise DatasetError(f"{self.name}: not one frame of this video can be read; is it damaged?")
        if frame is None and self.frames_read < (self.length or 0):
            self.note = f"{self.name} ended early: {self.frames_read} of {self.length} announced frames"
        return frame


class CameraFrames(FrameSource):
    """The frames of a camera, by its number; it has no last frame, and one that goes away is an error."""

    def __init__(self, index: int):
        self._capture = _opened(index)
        if self._capture is None:
            raise DatasetError(f"no camera number {index}: is it plugged in, and free?")
        super().__init__(f"camera{index}", self._capture.get(cv2.CAP_PROP_FPS), None)

    def close(self) -> None:
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        if not self._capture.isOpened():
            return None
        frame = _next_rgb(self._capture)
        if frame is None:
            raise DatasetError(f"{self.name} gave no frame after {self.frames_read}: was it unplugged?")
        return frame


def open_frames(source: str | os.PathLike | int) -> FrameSource:
    """Open a video file, a folder of pictures, a camera (its number) or a stream (a URL such as rtsp://...).

    Raises DatasetError where it is missing, empty, unreadable or not a video, ConfigError where it is nothing
    of the kind. A name that exists as a file or folder is that, even if it looks like a number.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraFrames(source)
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise ConfigError(f"frames come from a file, folder, camera number or URL, not from {source!r}")
    text = os.fspath(source)
    if is_url(text):
        return VideoFrames(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return FolderFrames(path)
    if not path.exists():
        if re.fullmatch(r"\d{1,4}", text):
            return CameraFrames(int(text))
        raise DatasetError(f"{text}: no such file or folder")
    if path.suffix.lower() in PICTURES:
        raise DatasetError(f"{text} is a single picture: give its folder, whose pictures are the frames")
    return VideoFrames(path)


def is_url(source: str) -> bool:
    """Whether a source is a URL (scheme://...) rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def without_password(url: str) -> str:
    """The URL without user and password, for messages and file names."""
    return re.sub(r"//[^/@]*@", "//", url, count=1)


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: cannot list this folder: {error.strerror or error}") from None


def _opened(source: str | int) -> cv2.VideoCapture | None:
    """An open capture, or None; OpenCV's own messages are kept off the screen."""
    try:
        with quiet_opencv():
            capture = cv2.VideoCapture(source)
    except cv2.error:
        return None
    return capture if capture.isOpened() else None


def _no_video(source: str, is_stream: bool) -> str:
    """Why a file or stream could not be opened, in one line."""
    if is_stream:
        return f"{without_password(source)}: no video can be had from this address; is it reachable?"
    try:
        with open(source, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return f"{source}: {error.strerror or error}"
    return f"{source}: " + ("the file is empty" if empty else "not a video, or a damaged one")


def _next_rgb(capture: cv2.VideoCapture) -> np.ndarray | None:
    """The next frame of a capture as RGB, or None."""
    try:
        with quiet_opencv():
            there, frame = capture.read()
    except cv2.error:
        return None
    if not there or frame is None or frame.size == 0:
        return None
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB if frame.ndim == 2 else cv2.COLOR_BGR2RGB)
