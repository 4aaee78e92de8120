"""Sources of frames: a video file, pictures, a camera or a stream, all read in one way."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import expand_home
from ebmtrack.images import PICTURES, bgr_to_rgb, quiet_opencv
from ebmtrack.names import is_unicode
from ebmtrack.viewers.av_frames import AvFrames
from ebmtrack.viewers.containers import UPRIGHT, display_matrix, edited_seconds, is_cut_short, is_text
from ebmtrack.viewers.frame_source import FrameSource, turn
from ebmtrack.viewers.picture_frames import ArrayFrames, open_folder, open_picture
from ebmtrack.viewers.source_names import camera_number, is_url, without_password

MOST_FAILURES = 300  # reads that fail one after the other before a video is given up
STREAM_FAILURES = 10  # the same for a stream, which announces no frames
PIPE_ADVICE = "a pipe can carry Motion JPEG, MPEG-TS or Matroska only; save this video to a file and track the file"
STREAM_TIMEOUT_MS = 30_000  # after which a stream that does not answer, or sends nothing more, is given up

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET: our error says it in one line
# OpenCV gives up after 4,096 packets of sound between two frames; screen recordings with a pause have more.
os.environ.setdefault("OPENCV_FFMPEG_READ_ATTEMPTS", "10000000")


class VideoFrames(FrameSource):
    """The frames of a video file or of a stream.

    A read that fails is not the end: as long as frames are announced, reading goes on, and `unreadable` holds the
    numbers of the frames that were passed over. With `pictures=False` frames are empty (0, 0, 3), which is quicker.
    """

    def __init__(self, source: str | os.PathLike, pictures: bool = True):
        self._source, self._pictures = os.fspath(source), pictures
        self._is_stream = is_url(self._source)
        if not is_unicode(self._source):
            raise DatasetError(f"{self._source}: OpenCV cannot open a name that is no Unicode: rename the file")
        if not self._is_stream and os.path.isfile(self._source) and is_text(self._source):
            raise DatasetError(f"{self._source}: a text file, not a video")
        capture = _open_capture(self._source)
        if capture is None:
            raise DatasetError(_no_video(self._source, self._is_stream))
        self._capture = capture
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        length = int(announced) if math.isfinite(announced) and 0 < announced < 2**31 else None
        name = without_password(self._source) if self._is_stream else Path(self._source).name
        super().__init__(name, self._capture.get(cv2.CAP_PROP_FPS), length)
        self._matrix = self._upright()
        wide, high = (self._capture.get(name) for name in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if self._matrix[0] == 0 or self._capture.get(cv2.CAP_PROP_ORIENTATION_META) in (90, 270):
            wide, high = high, wide
        self.pixel_aspect = wide / high if wide > 0 and high > 0 else 1.0

    def _upright(self) -> tuple[int, int, int, int]:
        """Return the display matrix that is left to us: OpenCV turns videos, but takes mirrored ones for turned."""
        a, b, c, d = matrix = display_matrix(self._source) if os.path.isfile(self._source) else UPRIGHT
        if a * d - b * c > 0:
            return UPRIGHT
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return matrix

    def close(self) -> None:
        self._capture.release()

    @property
    def codec(self) -> str:
        """The codec's four letters."""
        return int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")

    def skip_to(self, number: int) -> bool:
        """See FrameSource; after damage or in files without an index OpenCV may arrive elsewhere."""
        self.frames_read, self.unreadable = number, []
        return self._capture.set(cv2.CAP_PROP_POS_FRAMES, number)

    def _moment_s(self) -> float:
        """See FrameSource; by the file's time stamps, and by the frame rate if there are none."""
        moment_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if math.isfinite(moment_s) and (moment_s > self.moment_s or self.position == 0):
            return moment_s
        return self.moment_s + 1 / self.fps

    def _time_stamps(self) -> Iterator[float] | None:
        """See FrameSource; a stream or pipe cannot be read twice."""
        return VideoFrames(self._source, pictures=False).moments() if os.path.isfile(self._source) else None

    def _read(self) -> np.ndarray | None:
        if not self._capture.isOpened():
            return None
        failures = 0
        while (frame := _next_rgb(self._capture) if self._pictures else _grab(self._capture)) is None:
            failures += 1
            left = STREAM_FAILURES if self.length is None else min(MOST_FAILURES, self.length - self.position)
            if failures > left or not self._capture.isOpened():
                self._end()
                return None
        self._pass_over(failures)
        return turn(frame, self._matrix)

    def _end(self) -> None:
        """Note how a video ended after which no frame comes any more."""
        if self.frames_read == 0:
            cure = PIPE_ADVICE if Path(self._source).is_fifo() else "is it damaged?"
            raise DatasetError(f"{self.name}: not one frame of this video can be read; {cure}")
        if self._is_stream and self.length is None:
            self.complete = False
            self._notes["end"] = f"{self.name} gave no more frames after {self.frames_read}: is it still there?"
        elif self.position < (expected := self._expected_length()):
            self._note_early_end(f"{self.frames_read} of {expected} announced frames")

    def _expected_length(self) -> int:
        """Return how many frames the file should give; 0 if the number that it announces means nothing.

        It counts frames that an edit list leaves out (MP4), or is the length of the sound (other kinds).
        """
        announced = self.length or 0
        if not os.path.isfile(self._source):
            return (
                announced if self._is_stream else 0
            )  # a pipe cannot be looked into, and its number may be the sound's
        if not self.unreadable and not is_cut_short(self._source):
            seconds = edited_seconds(self._source)
            return 0 if seconds is None else min(announced, int(seconds * self.fps - 0.5))
        return announced


class CameraFrames(FrameSource):
    """The frames of a camera, by its number; it has no last frame, and one that goes away is an error."""

    def __init__(self, index: int):
        capture = _open_capture(index)
        if capture is None:
            raise DatasetError(f"no camera number {index}: is it plugged in, and free?")
        self._capture = capture
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


def open_frames(source: str | os.PathLike | int | Iterable[np.ndarray]) -> FrameSource:
    """Open a video file, a folder of pictures, a TIFF stack, a camera (its number or /dev/video0) or a stream (a URL).

    Images (RGB uint8, height, width, 3) in a list or from an iterator are a source, too. A name that exists as a file
    or folder is that, even if it looks like a number.

    Raises:
        DatasetError: If the source is missing, empty, unreadable or not a video.
        ConfigError: If it is nothing of the kind.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraFrames(source)
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes, os.PathLike)):
        return ArrayFrames(source)
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        what = repr(source) if source == "" else type(source).__name__
        raise ConfigError(f"frames come from a file, folder, camera number, URL or list of images, not from {what}")
    text = os.fspath(source)
    if is_url(text):
        return VideoFrames(text)
    if (number := camera_number(text)) is not None:
        return CameraFrames(number)
    path = expand_home(text)
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise DatasetError(f"{text}: no such file or folder")
    if path.suffix.lower() in PICTURES:
        return open_picture(path)
    frames = VideoFrames(path)
    if frames.codec.lower() == "av01" and importlib.util.find_spec("av"):
        frames.close()
        return AvFrames(path)
    return frames


def _open_capture(source: str | int) -> cv2.VideoCapture | None:
    """Return an open capture, or None; OpenCV's own messages are kept off the screen."""
    try:
        with quiet_opencv():
            if isinstance(source, str) and is_url(source):
                limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
                capture = cv2.VideoCapture(
                    source, cv2.CAP_ANY, [n for prop in limits for n in (prop, STREAM_TIMEOUT_MS)]
                )
            else:  # FFmpeg takes what is before a colon of a relative path for a protocol
                capture = cv2.VideoCapture(os.path.abspath(source) if isinstance(source, str) else source)
    except cv2.error:
        return None
    return capture if capture.isOpened() else None


def _no_video(source: str, is_stream: bool) -> str:
    """Return in one line why a file or stream could not be opened."""
    if is_stream:
        return f"{without_password(source)}: no video could be read from this address; is it reachable?"
    if Path(source).is_fifo():
        return f"{source}: no video came through this pipe; {PIPE_ADVICE}"
    try:
        with open(source, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return f"{source}: {error.strerror or error}"
    return f"{source}: " + ("the file is empty" if empty else "not a video, or a damaged one")


def _grab(capture: cv2.VideoCapture) -> np.ndarray | None:
    """Go to the next frame of a capture and return an empty picture, or None if there is none."""
    try:
        with quiet_opencv():
            return np.zeros((0, 0, 3), np.uint8) if capture.grab() else None
    except cv2.error:
        return None


def _next_rgb(capture: cv2.VideoCapture) -> np.ndarray | None:
    """Return the next frame of a capture as RGB, or None."""
    try:
        with quiet_opencv():
            there, frame = capture.read()
    except cv2.error:
        return None
    if not there or frame is None or frame.size == 0:
        return None
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB) if frame.ndim == 2 else bgr_to_rgb(frame)
