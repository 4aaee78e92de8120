"""Labels of several targets beside the frames of a sequence, as `ebmtrack track` and labelling tools write them.

CSV, JSON, COCO video, CVAT for video, MOTChallenge and YOLO. Frames and pixels count from 0 here, whatever the file
does; frames in which a target is lost, outside or not labelled have no box.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.images import read_rgb
from ebmtrack.videos.sequence import Frames, Sequence
from ebmtrack.videos.text import read_text, split_lines

LOST = ("not_found", "unreadable")  # verdicts of `ebmtrack track` under which a box is a guess
FILES = ("labels.csv", "labels.mot.txt", "labels.coco.json", "labels.json", "labels.xml", "gt/gt.txt")  # or labels/

Tracks = dict[int, dict[int, list[float]]]  # target -> frame -> x, y, w, h


def find_labels(place: Path) -> Path | None:
    """Return the file of labels in a sequence's folder, or its folder `labels` of YOLO files; None without them."""
    found = [place / name for name in FILES if (place / name).is_file()]
    if not found and any((place / "labels").glob("*.txt")):
        found = [place / "labels"]
    if len(found) > 1:
        raise DatasetError(f"{place}: {found[0].name} or {found[1].name}? Keep one file of labels")
    return found[0] if found else None


def read_labels(path: Path, files: list[Path]) -> Tracks:
    """Return the boxes of all targets.

    Args:
        path: Of `find_labels`.
        files: The frames, to which YOLO's files belong by their names or numbers.

    Raises:
        DatasetError: On a file that cannot be used; the message names the line or entry.
    """
    if path.is_dir():
        return _read_yolo(path, files)
    readers: dict[str, Callable[[Path], Tracks]] = {".csv": _read_csv, ".json": _read_json, ".xml": _read_cvat}
    try:
        tracks = readers.get(path.suffix, _read_mot)(path)
    except (KeyError, TypeError, ValueError, AttributeError, ElementTree.ParseError) as error:
        raise DatasetError(
            f"{path}: not labels as `ebmtrack track` writes them ({type(error).__name__}: {error})"
        ) from error
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
    """
    frames = Frames(images)
    files = frames.paths()
    track, boxes = read_labels(path, files)[target], np.full((len(files), 4), np.nan)
    for frame, box in track.items():
        if not 0 <= frame < len(files) or not np.isfinite(box).all():
            where = f"{path}: target {target}, frame {frame}"
            raise DatasetError(f"{where}: {box}; there are {len(files)} frames in {images}")
        boxes[frame] = box
    first = min(track)
    return Sequence(name, "folder", boxes[first:], frames, skip=first, annotation=path)


def _add(tracks: Tracks, path: Path, target: int, frame: int, box_xywh: list[float]) -> None:
    """Note down a box; DatasetError if the target has one in that frame."""
    if frame in tracks.setdefault(target, {}):
        raise DatasetError(
            f"{path}: target {target} has two boxes in frame {frame}; give each target a number of its own"
        )
    tracks[target][frame] = box_xywh


def _read_csv(path: Path) -> Tracks:
    tracks: Tracks = {}
    for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), 2):
        try:
            box = [float(row[key]) for key in "xywh"]
            target, frame = int(row.get("id") or 1), int(row["frame"])
        except (KeyError, TypeError, ValueError) as error:
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
            frame, target, x, y, w, h, *rest = (float(word) for word in line.split(","))
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: {line[:80]!r} is no row frame,id,x,y,w,h") from error
        if not (path.name == "gt.txt" and rest and rest[0] == 0):
            _add(tracks, path, int(target), int(frame) - 1, [x - 1, y - 1, w, h])
    return tracks


def _read_json(path: Path) -> Tracks:
    """Read the JSON of `ebmtrack track`, or COCO video."""
    content: dict[str, Any] = json.loads(read_text(path))
    tracks: Tracks = {}
    for row in content.get("results", ()):
        if row.get("verdict") not in LOST:
            _add(tracks, path, int(row.get("id", 1)), int(row["frame"]), [float(row[key]) for key in "xywh"])
    frame_of = {image["id"]: int(image["frame_id"]) for image in content.get("images", ())}
    for entry in content.get("annotations", ()):
        target = entry.get("track_id", entry.get("instance_id"))
        if target is None:
            raise DatasetError(f"{path}: annotation {entry.get('id')} has no track_id: photographs go to FOLDER/coco")
        _add(tracks, path, int(target), frame_of[entry["image_id"]], [float(value) for value in entry["bbox"]])
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


def _read_yolo(path: Path, files: list[Path]) -> Tracks:
    """Read a folder of YOLO files; the class is the target."""
    height, width = read_rgb(files[0]).shape[:2]
    by_stem, tracks = {file.stem: number for number, file in enumerate(files)}, Tracks()
    for file in sorted(path.glob("*.txt")):
        digits = re.findall(r"\d+", file.stem)
        frame = by_stem.get(file.stem, int(digits[-1]) if digits else -1)
        for number, line in enumerate(split_lines(read_text(file)), 1):
            try:
                kind, x, y, w, h = (float(word) for word in line.split()[:5])
            except ValueError as error:
                raise DatasetError(f"{file}, line {number}: {line[:80]!r} is no row class x y w h") from error
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            _add(tracks, file, int(kind) + 1, frame, box)
    return tracks
