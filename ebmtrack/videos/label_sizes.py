"""The sizes of frames that files of labels declare, and that frames have."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ebmtrack.errors import DatasetError
from ebmtrack.images import read_size_wh
from ebmtrack.videos.image_store import read_bytes, wrong_size
from ebmtrack.videos.index_cache import stamp
from ebmtrack.videos.text import read_text

WRITERS = {".json": "COCO or `ebmtrack track`", ".xml": "CVAT", ".txt": "MOTChallenge", ".mot": "MOTChallenge"}

Size = tuple[int, int]  # width, height
Sizes = list[tuple[int, frozenset[Size]]]  # frames from 0, and the sizes that labels declare for them


def parse_labels(read: Callable[[], Any], path: Path) -> Any:
    """Return what `read` makes of a file; DatasetError if it is of another kind."""
    try:
        return read()
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
        ElementTree.ParseError,
    ) as error:
        writer = WRITERS.get(path.suffix.lower(), "`ebmtrack track`")
        raise DatasetError(
            f"{path}: not labels as {writer} writes them ({type(error).__name__}: {error}); give a file of another "
            "layout the ending of that, and make a damaged one anew"
        ) from error


def whole_number(value: Any) -> int:
    """Return a number of a frame or target; ValueError for one between two."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value!r} is no whole number")
    return number


def declared_sizes(path: Path) -> Sizes:
    """Return the sizes of frames that a file of labels names: frames from which on they hold, and sizes that may be."""
    readers = {".json": _json_sizes, ".xml": _cvat_sizes, ".txt": _mot_sizes}
    reader = readers.get(path.suffix.lower())
    return parse_labels(partial(reader, path), path) if reader else []


def check_sizes(path: Path, files: list[Path]) -> None:
    """Raise DatasetError if the labels name sizes of frames, and a frame has another one; one of each size is read."""
    first_of: dict[frozenset[Size], int] = {}
    for frame, sizes in declared_sizes(path):
        first_of.setdefault(sizes, frame)
    for sizes, frame in first_of.items():
        if sizes and 0 <= frame < len(files) and picture_size_wh(files[frame]) not in sizes:
            raise wrong_size(files[frame], picture_size_wh(files[frame]), min(sizes), str(_size_file(path)))


def _json_sizes(path: Path) -> Sizes:
    """Return the sizes in the JSON of `ebmtrack track` or in COCO."""
    content: dict[str, Any] = json.loads(read_text(path))
    images = content.get("images", ())
    frames = [(0, content), *((whole_number(image["frame_id"]), image) for image in images if "frame_id" in image)]
    sizes = [(frame, _size_in(entry.get("width"), entry.get("height"))) for frame, entry in frames]
    others = [_size_in(image.get("width"), image.get("height")) for image in images if "frame_id" not in image]
    return [*sizes, (0, frozenset[Size]().union(*others))]


def _cvat_sizes(path: Path) -> Sizes:
    """Return the sizes of the tasks in a file of CVAT, which may be of several videos."""
    root = ElementTree.fromstring(read_bytes(path))
    sizes = [_size_in(size.findtext("width"), size.findtext("height")) for size in root.iter("original_size")]
    sizes += [_size_in(image.get("width"), image.get("height")) for image in root.iter("image")]
    return [(0, frozenset[Size]().union(*sizes))]


def _mot_sizes(path: Path) -> Sizes:
    """Return the size in MOTChallenge's seqinfo.ini, if that is there."""
    place = _size_file(path)
    data = place.read_bytes() if place.is_file() else b""
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace").lower()
    matches = [re.fullmatch(r"\s*im(width|height)\s*=\s*([^\s;#]+)\s*([;#].*)?", line) for line in text.splitlines()]
    found = {match[1]: match[2] for match in matches if match}
    return [(0, _size_in(found.get("width"), found.get("height")))]


def _size_file(path: Path) -> Path:
    """Return the file that declares the size of a file of labels' frames: of MOTChallenge's a seqinfo.ini."""
    if path.suffix != ".txt":
        return path
    return (path.parent.parent if path.name == "gt.txt" else path.parent) / "seqinfo.ini"


def _size_in(width: Any, height: Any) -> frozenset[Size]:
    """Return the size that labels declare, or nothing if they declare none that a picture can have."""
    try:
        size = int(float(width)), int(float(height))
    except (TypeError, ValueError, OverflowError):
        return frozenset()
    return frozenset({size} if min(size) > 0 else ())


def picture_size_wh(file: Path) -> Size:
    """Return width and height of a picture, read once as long as it does not change."""
    return _read_size_wh(file, stamp(file))


@functools.lru_cache(maxsize=2**15)
def _read_size_wh(file: Path, _: tuple[int, ...]) -> Size:
    return read_size_wh(file)
