"""The outermost structure of video files: whether one is text or is cut short, and how long its edit plays."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

TEXT_MARKS = (b"YUV4MPEG2", b"#EXTM3U", b"ffconcat", b"v=0")  # videos and lists of videos that begin as text
UPRIGHT = (1, 0, 0, 1)  # the display matrix of a video that is shown as it is stored
HEAD = 4096  # bytes that are looked at


def is_text(path: str | os.PathLike) -> bool:
    """Return whether a file is text, which FFmpeg would play as a film of a terminal."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    controls = set(range(32)) - set(b"\t\n\r\f\v\x1b")
    return bool(head) and not head.startswith(TEXT_MARKS) and not controls & set(head)


def is_cut_short(path: str | os.PathLike) -> bool:
    """Return whether an MP4, QuickTime, AVI or Matroska file ends before the end that it announces."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            return struct.unpack("<I", head[4:8])[0] + 8 > size + 1  # an odd last chunk may go without its padding
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_end(head) > size
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return False
        return any(begin + length > size for begin, _, length in _boxes(file, size))


def edited_seconds(path: str | os.PathLike) -> float | None:
    """Return how long the shortest edit of an MP4 or QuickTime file plays; None without an edit list.

    A clip that was cut without encoding it anew holds, and announces, frames that its edit list leaves out.
    """
    data = _movie_header(Path(path))
    at = data.find(b"mvhd")
    if at < 0:
        return None
    timescale = struct.unpack(">I", data[at + 20 : at + 24] if data[at + 4] else data[at + 16 : at + 20])[0]
    durations, at = [], data.find(b"elst")
    while at >= 0:
        wide = data[at + 4]
        count = struct.unpack(">I", data[at + 8 : at + 12])[0]
        entry, form = (20, ">Qq") if wide else (12, ">Ii")
        edits = [
            struct.unpack_from(form, data, at + 12 + k * entry)
            for k in range(min(count, (len(data) - at - 12) // entry))
        ]
        durations.append(sum(duration for duration, begin in edits if begin >= 0))
        at = data.find(b"elst", at + 4)
    return min(durations) / timescale if durations and timescale else None


def display_matrix(path: str | os.PathLike) -> tuple[int, int, int, int]:
    """Return how the first video track of an MP4 or QuickTime file is turned and mirrored for the screen.

    Returns:
        The signs (a, b, c, d) of the matrix: column x and row y of what is stored are shown at a x + c y, b x + d y.
        (1, 0, 0, 1) for files of other kinds, and for turns that are no quarter turns.
    """
    for track in _movie_header(Path(path)).split(b"trak")[1:]:
        handler, header = track.find(b"hdlr"), track.find(b"tkhd")
        if handler < 0 or header < 0 or track[handler + 12 : handler + 16] != b"vide":
            continue
        at = header + (56 if track[header + 4] else 44)
        return matrix_signs(struct.unpack(">5i", track[at : at + 20])) if len(track) >= at + 20 else UPRIGHT
    return UPRIGHT


def matrix_signs(values: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the signs (a, b, c, d) of a display matrix a, b, u, c, d ..; those of an upright one for odd angles."""
    a, b, c, d = ((value > 0) - (value < 0) for value in (values[0], values[1], values[3], values[4]))
    return (a, b, c, d) if abs(a * d - b * c) == 1 and a * b == 0 else UPRIGHT


def _movie_header(path: Path) -> bytes:
    """Return the content of the box moov, or nothing."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        for begin, kind, length in _boxes(file, size):
            if kind == b"moov":
                file.seek(begin)
                return file.read(min(length, size))
    return b""


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield where each top box of an MP4 or QuickTime file of `size` bytes begins, its kind and its length."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        length = max(length, 8) if length else size - at  # 0: up to the end of the file
        yield at, header[4:8], length
        at += length


def _matroska_end(head: bytes) -> int:
    """Return where the first segment of a Matroska or WebM file ends, by its header; 0 if that does not say."""
    at = 4
    length, at = _variable_number(head, at)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, begin = _variable_number(head, at + 4)
    unknown = length == (1 << 7 * (begin - at - 4)) - 1
    return 0 if unknown else begin + length


def _variable_number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of EBML's variable length, and where it ends."""
    if at >= len(data) or data[at] == 0:
        return 0, at + 1
    width = 9 - data[at].bit_length()
    number = int.from_bytes(data[at : at + width], "big")
    return number & ((1 << 7 * width) - 1), at + width
