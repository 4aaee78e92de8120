"""Labels of several targets beside the frames of a sequence, as `ebmtrack track` and labelling tools write them.

CSV, JSON, COCO video, CVAT for video, MOTChallenge and YOLO. Frames and pixels count from 0 here, whatever the file
does; frames in which a target is lost, outside or not labelled have no box. Labels that say for which size of frame
they were made are refused beside frames of another one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.images import read_size_wh
from ebmtrack.videos.image_store import wrong_size
from ebmtrack.videos.index_cache import stamp
from ebmtrack.videos.sequence import Frames, Sequence, visible_paths
from ebmtrack.videos.text import first_repeated, parse_csv, read_text, split_lines

LOST = ("not_found", "unreadable")  # verdicts of `ebmtrack track` under which a box is a guess
FILES = ("labels.csv", "labels.mot.txt", "labels.coco.json", "labels.json", "labels.xml", "gt/gt.txt")  # or labels/

MOST_YOLO = 7  # words in a row: class, x, y, w, h, and of a tracker's box its confidence and id
MOST_PART = 10.0  # of the frame; a box may reach beyond it, but one in pixels has larger numbers

Tracks = dict[int, dict[int, list[float]]]  # target -> frame -> x, y, w, h
Size = tuple[int, int]  # width, height
Sizes = list[tuple[int, frozenset[Size]]]  # frames from 0, and the sizes that labels declare for them


def find_labels(place: Path) -> Path | None:
    """Return the file of labels in a sequence's folder, or its folder `labels` of YOLO files; None without them."""
    found = [place / name for name in FILES if (place / name).is_file()]
    if not found and yolo_files(place / "labels"):
        found = [place / "labels"]
    if len(found) > 1:
        raise DatasetError(f"{place}: {found[0].name} or {found[1].name}? Keep one file of labels")
    return found[0] if found else None


def read_labels(path: Path, files: list[Path]) -> Tracks:
    """Return the boxes of all targets; those of YOLO files are parts of their frames (`load_target` has pixels).

    Args:
        path: Of `find_labels`.
        files: The frames, to which YOLO's files belong by their names or numbers.

    Raises:
        DatasetError: On a file that cannot be used; the message names the line or entry.
    """
    if path.is_dir():
        return _read_yolo(path, files)
    readers: dict[str, Callable[[Path], Tracks]] = {".csv": _read_csv, ".json": _read_json, ".xml": _read_cvat}
    tracks = _parse(readers.get(path.suffix, _read_mot), path)
    if not tracks:
        raise DatasetError(f"{path}: holds no box")
    return tracks


def load_target(name: str, path: Path, images: Path, target: int) -> Sequence:
    """Return the sequence of one target, from its first labelled frame on.

    Args:
        name: Of the sequence.
        path: Of `find_labels`.
        images: The folder of its frames.
        target: Its number in the labels.

    Raises:
        DatasetError: As `read_labels`, and for frames of another size than that of the labels.
    """
    frames = Frames(images)
    files = frames.paths()
    _check_sizes(path, files)
    track, boxes = read_labels(path, files)[target], np.full((len(files), 4), np.nan)
    for frame, box in track.items():
        if not 0 <= frame < len(files) or not np.isfinite(box).all():
            where = f"{path}: target {target}, frame {frame}"
            raise DatasetError(f"{where}: {box}; there are {len(files)} frames in {images}")
        boxes[frame] = np.array(box) * np.tile(_size_wh(files[frame]), 2) if path.is_dir() else box
    first = min(track)
    return Sequence(name, "folder", boxes[first:], frames, skip=first, annotation=path)


def _parse(reader: Callable[[Path], Any], path: Path) -> Any:
    """Return what `reader` makes of a file; DatasetError if it is of another kind."""
    try:
        return reader(path)
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
        ElementTree.ParseError,
    ) as error:
        raise DatasetError(
            f"{path}: not labels as `ebmtrack track` writes them ({type(error).__name__}: {error})"
        ) from error


def _check_sizes(path: Path, files: list[Path]) -> None:
    """Raise DatasetError if the labels name sizes of frames, and a frame has another one; one of each size is read."""
    readers: dict[str, Callable[[Path], Sizes]] = {".json": _json_sizes, ".xml": _cvat_sizes, ".txt": _mot_sizes}
    declared: Sizes = _parse(readers[path.suffix], path) if path.suffix in readers else []
    first_of: dict[frozenset[Size], int] = {}
    for frame, sizes in declared:
        first_of.setdefault(sizes, frame)
    for sizes, frame in first_of.items():
        if sizes and 0 <= frame < len(files) and _size_wh(files[frame]) not in sizes:
            raise wrong_size(files[frame], _size_wh(files[frame]), min(sizes), str(_size_file(path)))


def _json_sizes(path: Path) -> Sizes:
    """Return the sizes in the JSON of `ebmtrack track` or in COCO video."""
    content: dict[str, Any] = json.loads(read_text(path))
    frames = [(0, content), *((_whole(image["frame_id"]), image) for image in content.get("images", ()))]
    return [(frame, _size_in(entry.get("width"), entry.get("height"))) for frame, entry in frames]


def _cvat_sizes(path: Path) -> Sizes:
    """Return the sizes of the tasks in a file of CVAT, which may be of several videos."""
    found = ElementTree.fromstring(path.read_bytes()).iter("original_size")
    sizes = (_size_in(size.findtext("width"), size.findtext("height")) for size in found)
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


def _size_wh(file: Path) -> Size:
    """Return width and height of a picture, read once as long as it does not change."""
    return _read_size_wh(file, stamp(file))


@functools.lru_cache(maxsize=2**15)
def _read_size_wh(file: Path, _: tuple[int, ...]) -> Size:
    return read_size_wh(file)


def _add(tracks: Tracks, path: Path, target: int, frame: int, box_xywh: list[float]) -> None:
    """Note down a box; DatasetError if the target has one in that frame."""
    if frame in tracks.setdefault(target, {}):
        raise DatasetError(
            f"{path}: target {target} has two boxes in frame {frame}; give each target a number of its own"
        )
    tracks[target][frame] = box_xywh


def _read_csv(path: Path) -> Tracks:
    tracks: Tracks = {}
    for number, row in parse_csv(read_text(path), path)[1]:
        try:
            box = [float(row[key]) for key in "xywh"]
            target, frame = int(row.get("id") or 1), int(row["frame"])
        except (KeyError, ValueError) as error:
            what = "no column" if isinstance(error, KeyError) else "not a number:"
            raise DatasetError(f"{path}, line {number}: {what} {error}; it needs frame,id,x,y,w,h") from error
        if row.get("verdict") not in LOST:
            _add(tracks, path, target, frame, box)
    return tracks


def _read_mot(path: Path) -> Tracks:
    """Read MOTChallenge; in a file gt.txt a confidence of 0 means that the row is to be ignored."""
    tracks: Tracks = {}
    for number, line in enumerate(split_lines(read_text(path)), 1):
        try:
            words = [float(word) for word in line.split(",")]
            (x, y, w, h), rest = words[2:6], words[6:]
            target, frame = int(words[1]), int(words[0]) - 1
        except (ValueError, OverflowError) as error:
            raise DatasetError(f"{path}, line {number}: {line[:80]!r} is no row frame,id,x,y,w,h") from error
        if not (path.name == "gt.txt" and rest and rest[0] == 0):
            _add(tracks, path, target, frame, [x - 1, y - 1, w, h])
    return tracks


def _whole(value: Any) -> int:
    """Return a number of a frame or target; ValueError for one between two."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value!r} is no whole number")
    return number


def _read_json(path: Path) -> Tracks:
    """Read the JSON of `ebmtrack track`, or COCO video."""
    content: dict[str, Any] = json.loads(read_text(path))
    tracks: Tracks = {}
    for row in content.get("results", ()):
        if row.get("verdict") not in LOST:
            _add(tracks, path, _whole(row.get("id", 1)), _whole(row["frame"]), [float(row[key]) for key in "xywh"])
    frame_of = {image["id"]: _whole(image["frame_id"]) for image in content.get("images", ())}
    if len(videos := {image.get("video_id") for image in content.get("images", ())}) > 1:
        raise DatasetError(f"{path}: has images of {len(videos)} videos; give each video a file of its own")
    placed = {(image["id"], _whole(image["frame_id"])) for image in content.get("images", ())}
    if (twice := first_repeated(number for number, _ in placed)) is not None:
        raise DatasetError(f"{path}: two images have the id {twice!r}; give the images of merged files new ids")
    for entry in content.get("annotations", ()):
        target = entry.get("track_id", entry.get("instance_id"))
        if target is None:
            raise DatasetError(f"{path}: annotation {entry.get('id')} has no track_id: photographs go to FOLDER/coco")
        x, y, w, h = (float(value) for value in entry["bbox"])
        _add(tracks, path, _whole(target), frame_of[entry["image_id"]], [x, y, w, h])
    return tracks


def _read_cvat(path: Path) -> Tracks:
    """Read CVAT for video 1.1."""
    tracks: Tracks = {}
    for track in ElementTree.fromstring(path.read_bytes()).iter("track"):
        for box in track.iter("box"):
            left, top, right, bottom = (float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
            if box.get("outside") != "1":
                corner = [left, top, right - left, bottom - top]
                _add(tracks, path, int(track.attrib["id"]) + 1, int(box.attrib["frame"]), corner)
    return tracks


def yolo_files(folder: Path) -> list[Path]:
    """Return a folder's YOLO files in the order of their names; the list of classes that LabelImg adds is none."""
    return [file for file in visible_paths(folder.glob("*.txt")) if file.name != "classes.txt"]


def _read_yolo(path: Path, files: list[Path]) -> Tracks:
    """Read a folder of YOLO files; the class is the target, and boxes are parts of the frame."""
    tracks: Tracks = {}
    for file, frame in _yolo_frames(path, files).items():
        for number, line in enumerate(split_lines(read_text(file)), 1):
            try:
                words = line.split()
                kind, x, y, w, h = (float(word) for word in words[:5])
                target = int(kind) + 1
                is_polygon = (
                    len(words) > MOST_YOLO
                    or (  # class and three points; a tracker's ids are whole
                        len(words) == MOST_YOLO and not any(float(word).is_integer() for word in words[5:])
                    )
                )
            except (ValueError, OverflowError) as error:
                raise DatasetError(f"{file}, line {number}: {line[:80]!r} is no row class x y w h") from error
            if is_polygon or max(map(abs, (x, y, w, h))) > MOST_PART:
                what = "a polygon" if is_polygon else "a box in pixels"
                raise DatasetError(
                    f"{file}, line {number}: {line[:80]!r} looks like {what}; write boxes, class x y w h in parts of "
                    "the frame"
                )
            _add(tracks, file, target, frame, [x - w / 2, y - h / 2, w, h])
    return tracks


def _yolo_frames(path: Path, files: list[Path]) -> dict[Path, int]:
    """Return the frame of each YOLO file: by the frames' names if all files have those, or by numbers from 0.

    `ebmtrack track` counts from 0 whatever the frames are called, and its files begin with frame_000000. Of all others
    a file without its frame is refused if another one has it: nobody can know which frame is meant. So are files with
    such names if both readings are possible and differ.
    """
    labels, by_stem = yolo_files(path), {file.stem: number for number, file in enumerate(files)}
    strays = [file for file in labels if file.stem not in by_stem]
    if not strays:
        frames = {file: by_stem[file.stem] for file in labels}
        numbers = {file: int(file.stem[len("frame_") :]) for file in labels} if _are_ours(labels) else {}
        for file, number in numbers.items() if max(numbers.values(), default=0) < len(files) else ():
            if frames[file] != number:
                raise DatasetError(
                    f"{file}: is it frame {frames[file]}, which has this name, or frame {number} as `ebmtrack track` "
                    "counts? Write the labels in another layout, such as labels.csv"
                )
        return frames
    if len(strays) < len(labels) and not _are_ours(labels):
        raise DatasetError(f"{strays[0]}: no frame is called {strays[0].stem}; remove it or rename it like its frame")
    file_of: dict[int, Path] = {}
    for file in labels:
        digits = re.findall(r"\d+", file.stem)
        if not digits:
            raise DatasetError(f"{file}: no frame is called {file.stem}; rename it like its frame or by number, from 0")
        first = file_of.setdefault(int(digits[-1]), file)
        if first is not file:
            raise DatasetError(f"{file}: has the number of {first.name}; rename both like their frames")
    return {file: number for number, file in file_of.items()}


def _are_ours(labels: list[Path]) -> bool:
    """Return whether YOLO files have the names that `ebmtrack track` gives them."""
    return labels[0].stem == "frame_000000" and all(re.fullmatch(r"frame_\d{6,}", file.stem) for file in labels)
