"""Writing video files: H.264 by PyAV, or else MPEG-4 by OpenCV; a file appears only when whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, EbmtrackError, missing_extra
from ebmtrack.files import expand_home, replacing
from ebmtrack.images import PICTURES
from ebmtrack.names import is_unicode
from ebmtrack.viewers.drawing import fit

log = logging.getLogger(__name__)

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".gif")
NEED_AV = (".webm", ".gif")
OFF_THE_GRID = 0.25  # frames by which a frame of a constant rate may come early or late


class VideoWriter:
    """Writes RGB frames (h, w, 3) to a video file, which takes its name when `close` is called, not before.

    The first frame sets the size (made even, as H.264 asks, by repeating the last row or column); later
    frames of another size are scaled to fit. As a context manager it finishes the file even if the block ends with an
    error, so that what was written is kept; without a frame there is no file.
    """

    def __init__(
        self, path: str | os.PathLike, fps: float = 30.0, sound: Path | None = None, pixel_aspect: float = 1.0
    ):
        """Prepare a video; its file is opened with the first frame.

        Args:
            path: The file; its ending says what kind.
            fps: Frames per second; with moments, the rate of files that can hold no moments (AVI, and without PyAV).
            sound: A file whose sound is copied, as far as the frames go, if PyAV is there.
            pixel_aspect: A pixel's width divided by its height.
        """
        self.path = checked_video_path(path)
        self._sound, self._aspect = sound, pixel_aspect
        self._began_s: float | None = None
        if not (np.isfinite(fps) and 0 < fps <= 1000):
            raise ConfigError(f"a video's frame rate is between 0 and 1000 frames/s, not {fps}")
        self.fps = fps
        self.frames_written = 0
        self._encoder: _AvEncoder | _OpenCvEncoder | None = None
        self._stack = ExitStack()
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, image: np.ndarray, moment_s: float | None = None) -> None:
        """Add a frame, RGB uint8 (h, w, 3), and when it is shown, in seconds; by default one after the other."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ConfigError(f"a video frame is RGB uint8 (h, w, 3), not {image.dtype} {image.shape}")
        encoder = self._encoder or self._open(image.shape[1], image.shape[0])
        width, height = self._size
        if image.shape[:2] != (height, width):
            image = fit(image, width, height)
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        moment_s = self.frames_written / self.fps if moment_s is None else moment_s
        self._began_s = moment_s if self._began_s is None else self._began_s
        try:
            encoder.write(np.ascontiguousarray(image), moment_s - self._began_s, self._began_s)
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
            self._encoder = encoder = kind(temporary, even, self.fps, self._sound, self._aspect)
            self._stack = stack.pop_all()
        return encoder


class _AvEncoder:
    """H.264 (VP9 for WebM, GIF) through PyAV, at the moments of the frames, with sound copied from another file."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float, sound: Path | None, pixel_aspect: float):
        import av

        self._av, suffix = av, path.suffix.lower()
        options = {"movflags": "+faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}  # browsers play it at once
        self._container = av.open(os.path.abspath(path), "w", options=options)
        codec = {".webm": "libvpx-vp9", ".gif": "gif"}.get(suffix, "libx264")
        stream: Any = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        self._stream = stream
        stream.width, stream.height = size_wh
        stream.pix_fmt = "rgb8" if suffix == ".gif" else "yuv420p"  # the one layout that every browser plays
        quality = {"libx264": {"crf": "20", "preset": "veryfast"}, "libvpx-vp9": {"crf": "30", "cpu-used": "6"}}
        stream.options = quality.get(codec, {})
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(1000)
        self._grid = _FrameGrid(fps, "save an .mp4 or .mkv") if suffix == ".avi" else None
        self._tick = Fraction(1, 100) if suffix == ".gif" else Fraction(1, 90000)
        if self._grid is None:
            self._stream.codec_context.time_base = self._tick
        self._last = -1
        self._sound = _Sound(self._container, sound) if sound is not None and suffix != ".gif" else None

    def write(self, image: np.ndarray, at_s: float, began_s: float) -> None:
        """Add a frame `at_s` after the first one, which is `began_s` after the start of the sound."""
        for picture, slot in [(image, None)] if self._grid is None else self._grid.slots(image, at_s):
            frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
            if slot is None:
                self._last = max(self._last + 1, round(at_s / self._tick))
                frame.pts, frame.time_base = self._last, self._tick
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        if self._sound is not None:
            self._sound.copy_until(at_s, began_s)

    def close(self) -> None:
        """Finish the file."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        if self._sound is not None:
            self._sound.close()
        self._container.close()


class _Sound:
    """The first sound track of a file, copied packet by packet into a video that is being written."""

    def __init__(self, container: Any, path: Path):
        import av

        self._container, self._file, self._to, self._name = container, None, None, path.name
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        try:
            self._file = av.open(os.path.abspath(path))
            stream = next(iter(self._file.streams.audio), None)
            if stream is not None:
                self._to = container.add_stream_from_template(stream)
                self._packets = self._file.demux(stream)
        except (OSError, ValueError) as error:
            log.warning("the sound of %s is dropped: %s", path.name, error)

    def copy_until(self, at_s: float, began_s: float) -> None:
        """Copy what is heard from the first frame on, `began_s`, up to `at_s` after it; damaged sound ends there."""
        try:
            self._copy_until(at_s, began_s)
        except ValueError as error:  # PyAV's InvalidDataError
            self._to = None
            log.warning("the sound of %s is dropped from %.2f s on: %s", self._name, began_s + at_s, error)

    def _copy_until(self, at_s: float, began_s: float) -> None:
        """Copy the packets, as `copy_until` describes."""
        while self._to is not None:
            packet = self._next or next(self._packets, None)
            if packet is None or packet.dts is None or packet.pts is None:
                self._to, self._next = None, None
                return
            heard_s = float(packet.pts * packet.time_base) - began_s
            if heard_s > at_s:
                self._next = packet
                return
            self._next = None
            if heard_s >= 0:
                shift = round(began_s / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._to
                self._container.mux(packet)

    def close(self) -> None:
        """Close the file that is read."""
        if self._file is not None:
            self._file.close()


class _FrameGrid:
    """Frames at irregular moments put on the grid of a video of constant rate: repeated, or left out.

    Frames that come between the moments of the grid are pointed out once, with what keeps their moments.
    """

    def __init__(self, fps: float, advice: str):
        self._fps, self._filled, self._advice = fps, 0, advice
        self._last: np.ndarray | None = None

    def slots(self, image: np.ndarray, at_s: float) -> list[tuple[np.ndarray, int]]:
        """Return the pictures that are due before and at a moment, and their places."""
        due = round(at_s * self._fps)
        if self._advice and abs(at_s * self._fps - due) > OFF_THE_GRID:
            log.warning(
                "frames are moved to a constant %.4g frames/s; to keep their times: %s", self._fps, self._advice
            )
            self._advice = ""
        filled = self._filled
        pictures = [(self._last, slot) for slot in range(filled, due) if self._last is not None]
        if due >= filled:
            pictures.append((image, due))
        self._filled, self._last = max(filled, due + 1), image
        return pictures


class _OpenCvEncoder:
    """MPEG-4 part 2 (or Motion JPEG for .avi) through OpenCV: most players know it, browsers do not."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float, sound: Path | None, pixel_aspect: float):
        if not is_unicode(str(path)):
            raise ConfigError(
                f"{path}: OpenCV cannot write to a name that is no Unicode: pip install 'ebmtrack[video]'"
            )
        is_avi = path.suffix.lower() == ".avi"
        code = "MJPG" if is_avi else "mp4v"
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size_wh)
        if not self._writer.isOpened():
            raise EbmtrackError(f"OpenCV cannot write {path.suffix} here: pip install 'ebmtrack[video]'")
        if sound is not None or pixel_aspect != 1:
            log.warning("sound and the shape of pixels are dropped; to keep them: pip install 'ebmtrack[video]'")
        self._grid = _FrameGrid(fps, "pip install 'ebmtrack[video]'" + " and save an .mp4" * is_avi)

    def write(self, image: np.ndarray, at_s: float, began_s: float) -> None:
        """Add a frame `at_s` after the first one."""
        for picture, _ in self._grid.slots(image, at_s):
            self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()


def checked_video_path(path: str | os.PathLike) -> Path:
    """Return the path of a video to write; ConfigError if its ending is not that of a video, or if it is a folder."""
    path = expand_home(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a video's name ends in one of {' '.join(SUFFIXES)}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file name for the video")
    if path.suffix.lower() in NEED_AV and not has_h264():
        raise missing_extra("av", f"writing {path.suffix}")
    return path


def check_is_not_source(output: str | os.PathLike | None, source: str | os.PathLike | int) -> None:
    """Raise ConfigError if writing `output` would replace the very file that is read, or a picture of the folder."""
    if output is None or isinstance(source, int) or not (os.path.isfile(output) and os.path.exists(source)):
        return
    in_folder = os.path.isdir(source) and os.path.samefile(os.path.dirname(os.path.abspath(output)), source)
    if os.path.samefile(output, source) or (in_folder and Path(output).suffix.lower() in PICTURES):
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
