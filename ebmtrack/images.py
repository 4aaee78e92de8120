"""Pictures: the one door for reading and writing them, as RGB uint8 (height, width, 3).

Files are read as bytes and decoded from memory: names in any script work on every system, and a file that was cut
short is refused. (OpenCV's `imread` returns the upper half of half a JPEG as if it were whole.)
"""

from __future__ import annotations

import functools
import logging
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import expand_home, write_bytes

T = TypeVar("T")

log = logging.getLogger(__name__)

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})
DEEP = 65535  # the largest value of a 16-bit picture
MARGIN_FRAC = 0.125  # of the first frame's range is added on either side, so that later frames may be a little brighter
LAST_ZEROS = 16  # zeros at the end of a JPEG that has no end mark before them: the rest of it was never written
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of segments that have the size
JPEG_SCAN = 0xDA  # begins the pixels; what turns them comes before
PIXELS_OF_ONE_THREAD = 2**16  # up to which OpenCV converts a picture's colours without waking a second thread
TAILS = (0.1, 99.9)  # percentiles that give the range: a few dead or hot pixels do not decide it


@dataclass(frozen=True)
class ValueRange:
    """The values of deep pictures (16 bits or floating point) that become 0 and 255."""

    low: float
    high: float

    def to_uint8(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture of any depth, scaled to 0..255 and clipped."""
        scaled = (np.nan_to_num(picture.astype(np.float32)) - self.low) * (255 / (self.high - self.low))
        return np.rint(scaled.clip(0, 255)).astype(np.uint8)


class SequenceReader:
    """A reader of the pictures of one sequence; deep pictures are all scaled by the range of the first one.

    `note` says in one sentence how, or is None.
    """

    def __init__(self) -> None:
        self.note: str | None = None
        self._range: ValueRange | None = None

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """Return a picture file as RGB uint8 (h, w, 3); DatasetError names the file."""
        return self.to_rgb(decode_bgr(read_picture_bytes(path), path))

    def to_rgb(self, picture_bgr: np.ndarray) -> np.ndarray:
        """Return a decoded picture, BGR (h, w, 3) of any depth, as RGB uint8."""
        if picture_bgr.dtype != np.uint8:
            if self._range is None:
                self._range = value_range(picture_bgr)
                self.note = _range_note(picture_bgr, self._range)
            picture_bgr = self._range.to_uint8(picture_bgr)
        return bgr_to_rgb(picture_bgr)


def bgr_to_rgb(picture_bgr: np.ndarray) -> np.ndarray:
    """Return a picture (h, w, 3) of uint8 with red and blue exchanged.

    In bands of rows: for more pixels at once OpenCV wakes its threads, which go on spinning for half a millisecond and
    take a core from the network.
    """
    picture_rgb, rows = np.empty(picture_bgr.shape, np.uint8), max(1, PIXELS_OF_ONE_THREAD // picture_bgr.shape[1])
    for top in range(0, len(picture_bgr), rows):
        band = slice(top, top + rows)
        cv2.cvtColor(picture_bgr[band], cv2.COLOR_BGR2RGB, dst=picture_rgb[band])
    return picture_rgb


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator; a thread makes the next one while the caller works on the present one.

    An error comes when its item is asked for, as without the thread. When the caller stops early, the item that is
    being made is waited for and dropped.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        waiting = pool.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, items, end)
            yield item


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Return a picture file of any depth and number of channels as RGB uint8 (h, w, 3).

    A deep picture is scaled by its own range: use a `SequenceReader` for the frames of a sequence.
    Raises DatasetError, which names the file, if it cannot be read.
    """
    return decode_rgb(read_picture_bytes(path), path)


def decode_rgb(data: bytes | np.ndarray, name: str | os.PathLike) -> np.ndarray:
    """Return an encoded picture as RGB uint8 (h, w, 3).

    Args:
        data: the content of a picture file, bytes or uint8 (n,).
        name: names the picture in errors.

    Raises:
        DatasetError: on what is no picture, or only a part of one.
    """
    return SequenceReader().to_rgb(decode_bgr(data, name))


def decode_rgb_as_stored(data: bytes | np.ndarray, name: str | os.PathLike) -> np.ndarray:
    """Return an encoded picture as `decode_rgb` does, but with the pixels as they are stored, whatever EXIF says."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return SequenceReader().to_rgb(_decode(data, name, flags))


def decode_bgr(data: bytes | np.ndarray, name: str | os.PathLike) -> np.ndarray:
    """Return an encoded picture as BGR (h, w, 3) in its own depth; see `decode_rgb`."""
    fast = _fast_jpeg() if bytes(data[:2]) == b"\xff\xd8" and not _ends_in_zeros(data) else None
    picture = fast(data) if fast is not None else None
    return _decode(data, name, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if picture is None else picture


def decode_rgba(data: bytes | np.ndarray, name: str | os.PathLike) -> np.ndarray:
    """Return an encoded picture with alpha as RGBA uint8 (h, w, 4); DatasetError if it has no alpha."""
    picture = _decode(data, name, cv2.IMREAD_UNCHANGED)
    if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        raise DatasetError(f"{name}: a picture with alpha is needed, 8 bits a channel, not {_form(picture)}")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)


def read_pages(path: str | os.PathLike) -> tuple[list[np.ndarray], list[float]]:
    """Return all pages of a TIFF stack or frames of an animation (WebP, PNG), and how long each is shown.

    Returns:
        The pages, BGR (h, w, 3) in their own depth, and for an animation the seconds of each (empty for a stack).

    Raises:
        DatasetError: if the file cannot be read.
    """
    data = np.frombuffer(read_picture_bytes(path), np.uint8)
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        with quiet_opencv():
            read_pages = cv2.imdecodemulti(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else (False, ())
        done, pages = read_pages
        if not done or not pages:
            raise DatasetError(f"{path}: not a readable image ({data.size} bytes); is it damaged?")
        return list(pages), []
    if not hasattr(cv2, "imdecodeanimation"):  # before OpenCV 4.11
        return [decode_bgr(data, path)], []
    with quiet_opencv():
        done, animation = cv2.imdecodeanimation(data)
    if not done or not len(animation.frames):
        return [decode_bgr(data, path)], []
    frames = [cv2.cvtColor(one, cv2.COLOR_BGRA2BGR) if one.shape[2] == 4 else one for one in animation.frames]
    return frames, [max(0, int(duration)) / 1000 for duration in animation.durations]


def read_picture_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a picture file; DatasetError names the file and the reason."""
    try:
        return expand_home(path).read_bytes()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_size_wh(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of a picture as `read_rgb` returns it; only what its header does not say is decoded."""
    data = read_picture_bytes(path)
    width, height = _header_size_wh(data)
    if not (width and height):
        height, width = decode_rgb(data, path).shape[:2]
    return width, height


def turned_note(path: str | os.PathLike) -> str:
    """Return what to do if boxes do not fit a picture because EXIF data turn it on its side; "" if they do not."""
    data = read_picture_bytes(path)
    try:
        shown, stored = decode_rgb(data, path), decode_rgb_as_stored(data, path)
    except DatasetError:
        return ""
    if shown.shape == stored.shape:  # mirrored or upside down it would hold the same boxes
        return ""
    return (
        "it is stored turned (EXIF orientation) and used as it is shown; if its boxes are those of the stored pixels, "
        "take the orientation out of the pictures (exiftool -Orientation= FILES), or label them anew"
    )


def encode_picture(image_rgb: np.ndarray, suffix: str = ".png", quality: int = 95) -> bytes:
    """Return a picture as the content of a file.

    Args:
        image_rgb: RGB uint8 (h, w, 3).
        suffix: the kind of file, such as ".jpg".
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        ConfigError: on a kind that OpenCV cannot write.
    """
    kind = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [kind[suffix.lower()], quality] if suffix.lower() in kind else []
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise ConfigError(f"OpenCV cannot write a picture as {suffix!r} ({short_reason(error)})") from None
    if not done:
        raise ConfigError(f"OpenCV cannot write a picture as {suffix!r}; use .png or .jpg")
    return data.tobytes()


def write_picture(path: str | os.PathLike, image_rgb: np.ndarray, quality: int = 95) -> None:
    """Write an RGB uint8 picture (h, w, 3) to a file, atomically; its ending says what kind of file.

    Args:
        path: the file, in any script.
        image_rgb: the picture.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        ConfigError: on a kind that OpenCV cannot write, or if the file cannot be written.
    """
    data = encode_picture(image_rgb, Path(path).suffix, quality)
    try:
        write_bytes(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write here: {error.strerror or error}") from None


def value_range(picture: np.ndarray) -> ValueRange:
    """Return the range by which a deep picture is scaled: all 16 bits if it uses many of them, else what it uses."""
    values = picture[np.isfinite(picture)] if picture.dtype.kind == "f" else picture
    low, high = (float(value) for value in np.percentile(values, TAILS)) if values.size else (0.0, 1.0)
    whole = 1.0 if picture.dtype.kind == "f" and 0 <= low and high <= 1 else float(DEEP)
    if high - low <= 0 or high - low >= whole / 4:
        return ValueRange(min(0.0, low), max(whole, high))
    margin = MARGIN_FRAC * (high - low)
    return ValueRange(low - margin, high + margin)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Turn OpenCV's log off, and afterwards back to what it was."""
    module = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # OpenCV 4, OpenCV 5
    level = module.getLogLevel()
    module.setLogLevel(0)
    try:
        yield
    finally:
        module.setLogLevel(level)


def short_reason(error: cv2.error) -> str:
    """Return the first words of OpenCV's error, without its file names."""
    return str(getattr(error, "err", None) or error).strip().splitlines()[0][:120]


def _decode(data: bytes | np.ndarray, name: str | os.PathLike, flags: int) -> np.ndarray:
    """Return what OpenCV makes of an encoded picture, or raise DatasetError."""
    array = np.frombuffer(data, np.uint8)
    try:
        with quiet_opencv():
            picture = cv2.imdecode(array, flags) if array.size and not _ends_in_zeros(data) else None
            if picture is None and bytes(array[:2]) in (b"II", b"MM"):
                picture = _one_channel_tiff(array)
    except cv2.error as error:
        raise DatasetError(f"{name}: OpenCV cannot read this picture ({short_reason(error)})") from None
    if picture is None:
        raise DatasetError(f"{name}: not a readable image ({array.size} bytes); is it damaged?")
    return picture


def _header_size_wh(data: bytes) -> tuple[int, int]:
    """Return the size in the header of a PNG or JPEG; zeros without one, or with EXIF data, which may turn it."""
    if data[:16] == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" and b"eXIf" not in data:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    position, size = 2, (0, 0)
    while data[:2] == b"\xff\xd8" and data[position : position + 1] == b"\xff" and position + 9 <= len(data):
        kind, length, height, width = struct.unpack_from(">xBHxHH", data, position)
        if kind in JPEG_FRAMES:
            size = width, height
        if kind == JPEG_SCAN:
            return size
        if kind == 0xFF or data[position + 4 : position + 8] == b"Exif":
            break
        position += 2 + length
    return 0, 0


def _ends_in_zeros(data: bytes | np.ndarray) -> bool:
    """Return whether a JPEG ends in zeros instead of its end mark, as a copy does that was never finished."""
    if bytes(data[:2]) != b"\xff\xd8" or bytes(data[-LAST_ZEROS:]) != bytes(LAST_ZEROS):
        return False
    return not bytes(data).rstrip(b"\0").endswith(b"\xff\xd9")


def _one_channel_tiff(array: np.ndarray) -> np.ndarray | None:
    """Return a grey TIFF of floating-point numbers, which OpenCV does not read as BGR, as BGR; else None."""
    grey = cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    return None if grey is None or grey.ndim != 2 else np.repeat(grey[..., None].astype(np.float32), 3, axis=2)


def _form(picture: np.ndarray) -> str:
    """Return the size and depth of a picture in words."""
    channels = picture.shape[2] if picture.ndim == 3 else 1
    return f"{picture.shape[1]} x {picture.shape[0]} with {channels} channels of {picture.dtype}"


def _range_note(picture: np.ndarray, used: ValueRange) -> str:
    """Return a sentence that says how deep pictures are scaled."""
    return (
        f"pictures of {8 * picture.dtype.itemsize} bits are shown in 8: the values {used.low:.6g} to {used.high:.6g} "
        "become 0 to 255 (by the range of the first frame, the same in all frames)"
    )


@functools.cache
def _fast_jpeg() -> Callable[[bytes | np.ndarray], np.ndarray | None] | None:
    """Return jpeg4py's decoder to BGR if that package is installed (extra `jpeg`), else None.

    It returns None for what it cannot read, and for JPEGs with EXIF data, whose orientation it would not apply.
    """
    try:
        import jpeg4py
    except ImportError:
        return None
    except OSError:
        log.warning("jpeg4py is installed, but not its library libturbojpeg: OpenCV decodes JPEGs instead")
        return None

    def decode(data: bytes | np.ndarray) -> np.ndarray | None:
        array = np.frombuffer(data, np.uint8)
        if b"Exif" in array[:65536].tobytes():
            return None
        picture = jpeg4py.JPEG(array)
        try:
            picture.parse_header()
            if picture.width and picture.height:  # 0 would mean any size: pixels beyond the end of the array
                return np.ascontiguousarray(picture.decode(pixfmt=jpeg4py.TJPF_BGR))
        except Exception:  # jpeg4py has no error class of its own for all of these; OpenCV says what is wrong
            pass
        picture.decompressor = None  # jpeg4py would use it again; after an error it finds size 0 in good pictures
        return None

    return decode
