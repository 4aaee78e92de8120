"""Writing video files: H.264 by PyAV, or else MPEG-4 by OpenCV; a file appears only when whole."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.files import replacing
from ebmtrack.viewers.drawing import fit

log = logging.getLogger(__name__)

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi")


class VideoWriter:
    """Writes RGB frames (h, w, 3) to a video file, which takes its name when `close` is called, not before.

    The first frame sets the size (made even, as H.264 asks, by repeating the last row or column); later
    frames of another size are scaled to fit. As a context manager it finishes the file also where the block
    ends with an error, so that what was written is kept; without a frame there is no file.
    """

    def __init__(self, path: str | os.PathLike, fps: float = 30.0):
        self.path = checked_video_path(path)
        if not (np.isfinite(fps) and 0 < fps <= 1000):
            raise ConfigError(f"a video's frame rate lies between 0 and 1000 frames/s, not at {fps}")
        self.fps = fps
        self.frames_written = 0
        self._encoder: _AvEncoder | _OpenCvEncoder | None = None
        self._stack = ExitStack()
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """Add a frame, RGB uint8 (h, w, 3)."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ConfigError(f"a video frame is RGB uint8 (h, w, 3), not {image.dtype} {image.shape}")
        encoder = self._encoder or self._open(image.shape[1], image.shape[0])
        width, height = self._size
        if image.shape[:2] != (height, width):
            image = fit(image, width, height)
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            encoder.write(np.ascontiguousarray(image))
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{self.path}: cannot write frame {self.frames_written}: {reason}") from None
        self.frames_written += 1

    def close(self) -> None:
        """Finish the file and give it its name; a second call does nothing."""
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        with self._stack:
            try:
                encoder.close()
            except OSError as error:
                raise ConfigError(f"{self.path}: cannot be finished: {error.strerror or error}") from None

    def _open(self, width: int, height: int) -> _AvEncoder | _OpenCvEncoder:
        """Start the encoder on a temporary file beside the final one and return it."""
        self._size = (width, height)
        even = (width + width % 2, height + height % 2)
        kind = _encoder_kind(self.path.suffix.lower())
        with ExitStack() as stack:
            try:
                temporary = stack.enter_context(replacing(self.path))
            except OSError as error:
                raise ConfigError(f"{self.path}: cannot write here: {error.strerror or error}") from None
            self._encoder = encoder = kind(temporary, even, self.fps)
            self._stack = stack.pop_all()
        return encoder


class _AvEncoder:
    """H.264 through PyAV, with the index at the front of the file so that browsers play it at once."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float):
        import av

        self._av = av
        options = {"movflags": "+faststart"} if path.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
        self._container = av.open(str(path), "w", options=options)
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height = size_wh
        self._stream.pix_fmt = "yuv420p"  # the one layout that every browser plays
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def write(self, image: np.ndarray) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()


class _OpenCvEncoder:
    """MPEG-4 part 2 (or Motion JPEG for .avi) through OpenCV: most players know it, browsers do not."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float):
        code = "MJPG" if path.suffix.lower() == ".avi" else "mp4v"
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size_wh)
        if not self._writer.isOpened():
            raise EbmtrackError(f"OpenCV cannot write {path.suffix} here: pip install 'ebmtrack[video]'")

    def write(self, image: np.ndarray) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._writer.release()


def checked_video_path(path: str | os.PathLike) -> Path:
    """Return the path of a video to write; ConfigError where its ending is not that of a video or it is a folder."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a video's name ends in one of {' '.join(SUFFIXES)}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file name for the video")
    return path


def check_is_not_source(output: str | os.PathLike | None, source: str | os.PathLike | int) -> None:
    """ConfigError where writing `output` would replace the very file that is read, or a picture of the folder."""
    if output is None or isinstance(source, int) or not (os.path.isfile(output) and os.path.exists(source)):
        return
    in_folder = os.path.isdir(source) and os.path.samefile(os.path.dirname(os.path.abspath(output)), source)
    if os.path.samefile(output, source) or (in_folder and cv2.haveImageReader(os.fspath(output))):
        raise ConfigError(f"{output} is what is to be tracked; give another name for the output")


def has_h264() -> bool:
    """Return whether PyAV with an H.264 encoder is installed."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def _encoder_kind(suffix: str) -> type[_AvEncoder] | type[_OpenCvEncoder]:
    """Return the best encoder there is for a file, with a note where browsers will not play the result."""
    if has_h264():
        return _AvEncoder
    if suffix != ".avi":
        log.warning("browsers do not play this kind of video; for H.264: pip install 'ebmtrack[video]'")
    return _OpenCvEncoder
