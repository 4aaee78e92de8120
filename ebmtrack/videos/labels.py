"""Labels of several targets beside the frames of a sequence, as `ebmtrack track` and labelling tools write them.

CSV, JSON, COCO, CVAT, MOTChallenge and YOLO. Frames and pixels count from 0 here, whatever the file does; frames in
which a target is lost, outside or not labelled have no box. Labels that say for which size of frame they were made are
refused beside frames of another one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.videos.image_store import read_bytes
from ebmtrack.videos.label_sizes import check_sizes, parse_labels, picture_size_wh, whole_number
from ebmtrack.videos.sequence import Frames, Sequence
from ebmtrack.videos.text import first_repeated, parse_csv, read_text, split_lines
from ebmtrack.videos.yolo import class_names, frames_by_name, yolo_boxes, yolo_files

LOST = ("not_found", "unreadable")  # verdicts of `ebmtrack track` under which a box is a guess
FILES = ("labels.csv", "labels.mot.txt", "labels.coco.json", "labels.json", "labels.xml", "gt/gt.txt")  # or labels/
CVAT_SHAPES = ("polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")
NO_CATEGORY = "target"  # how `ebmtrack track` calls targets of which nobody said what they are


@dataclass
class Labels:
    """The boxes of the targets in a file of labels.

    Attributes:
        path: The file, or YOLO's folder.
        key_frames: Whether they are to be key frames: boxes that a tool has interpolated are left out, and targets and
            frames that there cannot be are refused.
        tracks: For each target, by frame, its box x, y, w, h in pixels; in YOLO's in parts of the frame.
        names: What the targets are, such as person, as far as the file says it.
        shapes: How often there are shapes other than boxes, such as polygons, which are not read.
        without_box: Targets of rows of which none has a box that can be used.
    """

    path: Path
    key_frames: bool = False
    tracks: dict[int, dict[int, list[float]]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    shapes: Counter[str] = field(default_factory=Counter)
    without_box: set[int] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)  # of categories that are targets

    def add(self, where: str, target: int, frame: int, box_xywh: list[float], name: str | None = None) -> None:
        """Note down a box; DatasetError with its place, `where`, if it cannot be used."""
        if self.key_frames and min(target - 1, frame) < 0:
            raise DatasetError(f"{where}: target {target}, frame {frame}: targets count from 1, and frames from 0")
        if frame in self.tracks.setdefault(target, {}):
            by_category = self._numbers or self.path.is_dir()
            called, own = f" ({name})" if by_category and name else "", "category" if by_category else "number"
            raise DatasetError(
                f"{where}: target {target}{called} has two boxes in frame {frame}; give each target a {own} of its own"
            )
        self.tracks[target][frame] = box_xywh
        self.without_box.discard(target)
        if name not in (None, NO_CATEGORY, unnamed(target)):
            self.names.setdefault(target, str(name))

    def add_nothing(self, target: int) -> None:
        """Note down that a target has a row or track without a box."""
        if target not in self.tracks:
            self.without_box.add(target)

    def left_out(self) -> str:
        """Return what the file holds that is not used, in words; nothing if all of it is."""
        shapes = [f"{n} {shape}{'s' * (n > 1 and shape[-1] != 's')}" for shape, n in sorted(self.shapes.items())]
        lost = sorted(self.without_box)
        parts = [f"{', '.join(shapes)} (boxes alone are read)"] if shapes else []
        if lost:
            parts.append(f"target{'s' * (len(lost) > 1)} {', '.join(map(str, lost))}, without a box")
        return "left out: " + "; ".join(parts) if parts else ""

    def number(self, category: str) -> int:
        """Return the number, from 1, of the target that is the only one of its category."""
        return self._numbers.setdefault(category, len(self._numbers) + 1)


def unnamed(target: int) -> str:
    """Return how the class of a target is called of which nobody said what it is.

    >>> unnamed(2)
    'target 2'
    """
    return f"{NO_CATEGORY} {target}"


def find_labels(place: Path) -> Path | None:
    """Return the file of labels in a sequence's folder, or its folder `labels` of YOLO files; None without them."""
    found = [place / name for name in FILES if (place / name).is_file()]
    if not found and yolo_files(place / "labels"):
        found = [place / "labels"]
    if len(found) > 1:
        raise DatasetError(f"{place}: {found[0].name} or {found[1].name}? Keep one file of labels")
    return found[0] if found else None


def read_labels(path: Path, files: list[Path], key_frames: bool = False) -> Labels:
    """Return the boxes of all targets; those of YOLO files are parts of their frames (`load_target` has pixels).

    Args:
        path: Of `find_labels`, or any file of labels.
        files: The frames, to which YOLO's files and pictures without a number belong by their names; none for a video.
        key_frames: See Labels.

    Raises:
        DatasetError: On a file that cannot be used; the message names the line or entry.
    """
    labels, reader = Labels(path, key_frames), READERS.get(path.suffix.lower())
    if path.is_dir():
        reader = _read_yolo
    elif not path.exists():
        raise DatasetError(f"{path}: no such file")
    elif reader is None:
        raise DatasetError(
            f"{path}: boxes are read from {', '.join(READERS)} and folders of YOLO files; unpack archives, and give "
            "the folder that data.yaml is in"
        )
    parse_labels(partial(reader, labels, files), path)
    if not labels.tracks:
        is_above = path.is_dir() and any(path.glob("*/*.txt"))
        raise DatasetError(
            f"{path}: holds no box"
            + is_above * "; give the folder of the .txt files, such as labels/train"
            + f"; {labels.left_out()}" * bool(labels.left_out())
        )
    return labels


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
    check_sizes(path, files)
    track, boxes = read_labels(path, files).tracks[target], np.full((len(files), 4), np.nan)
    for frame, box in track.items():
        if not 0 <= frame < len(files) or not np.isfinite(box).all():
            where = f"{path}: target {target}, frame {frame}"
            raise DatasetError(f"{where}: {box}; there are {len(files)} frames in {images}")
        boxes[frame] = np.array(box) * np.tile(picture_size_wh(files[frame]), 2) if path.is_dir() else box
    first = min(track)
    return Sequence(name, "folder", boxes[first:], frames, skip=first, annotation=path)


def _read_csv(labels: Labels, _: list[Path]) -> None:
    columns, rows = parse_csv(read_text(labels.path), labels.path)
    lacking = [column for column in ("frame", *"xywh") if column not in columns]
    if columns and lacking:
        near = {column.strip().lower() for column in columns} >= set(lacking)
        raise DatasetError(
            f"{labels.path}: no column {', '.join(lacking)} in its first line, {','.join(columns)[:80]!r}; write "
            "frame,id,x,y,w,h there" + near * ", in small letters without blanks"
        )
    for number, row in rows:
        where = f"{labels.path}, line {number}"
        try:
            target, frame, is_lost = int(row.get("id") or 1), int(row["frame"]), row.get("verdict") in LOST
            box = [] if is_lost else [float(row[key]) for key in "xywh"]
        except (KeyError, ValueError) as error:
            what = "too short, without" if isinstance(error, KeyError) else "not a number:"
            raise DatasetError(f"{where}: {what} {error}; it needs frame,id,x,y,w,h") from error
        if is_lost:
            labels.add_nothing(target)
        else:
            labels.add(where, target, frame, box)


def _read_mot(labels: Labels, _: list[Path]) -> None:
    """Read MOTChallenge; in a file gt.txt a confidence of 0 means that the row is to be ignored."""
    for number, line in enumerate(split_lines(read_text(labels.path)), 1):
        where = f"{labels.path}, line {number}"
        try:
            words = [float(word) for word in line.split(",")]
            (x, y, w, h), rest = words[2:6], words[6:]
            target, frame = whole_number(words[1]), whole_number(words[0]) - 1
        except (ValueError, OverflowError) as error:
            raise DatasetError(f"{where}: {line[:80]!r} is no row frame,id,x,y,w,h") from error
        if frame < 0:
            raise DatasetError(f"{where}: frame {frame + 1}: MOTChallenge counts frames from 1")
        if labels.path.name == "gt.txt" and rest and rest[0] == 0:
            labels.add_nothing(target)
        else:
            labels.add(where, target, frame, [x - 1, y - 1, w, h])


def _read_json(labels: Labels, files: list[Path]) -> None:
    """Read the JSON of `ebmtrack track`, or COCO."""
    content: dict[str, Any] = json.loads(read_text(labels.path))
    for row in content.get("results", ()):
        target = whole_number(row.get("id", 1))
        if row.get("verdict") in LOST:
            labels.add_nothing(target)
        else:
            labels.add(str(labels.path), target, whole_number(row["frame"]), [float(row[key]) for key in "xywh"])
    _read_coco(labels, content, files)


def _read_coco(labels: Labels, content: dict[str, Any], files: list[Path]) -> None:
    """Read COCO with track ids; of key frames also without them, where each category is one target."""
    frame_of, entries = _coco_frames(labels.path, content.get("images", ()), files), content.get("annotations", ())
    names = {category["id"]: category["name"] for category in content.get("categories", ())}
    targets = [_coco_target(entry) for entry in entries]
    are_numbered = any(target is not None for target in targets)
    for entry, target in zip(entries, targets):
        name = names.get(entry.get("category_id"))
        if target is None and (are_numbered or name is None or not labels.key_frames):
            raise DatasetError(
                f"{labels.path}: annotation {entry.get('id')} has no track_id: photographs go to FOLDER/coco"
            )
        number = labels.number(str(name)) if target is None else target
        if labels.key_frames and (entry.get("attributes") or {}).get("keyframe", True) is False:
            labels.add_nothing(number)
            continue
        if labels.key_frames and not entry.get("bbox"):
            labels.shapes["annotation without bbox"] += 1
            continue
        x, y, w, h = (float(value) for value in entry["bbox"])
        box = extent_xywh([x, y, w, h], turned_deg(entry))
        labels.add(f"{labels.path}: annotation {entry.get('id')}", number, frame_of[entry["image_id"]], box, name)


def turned_deg(entry: dict[str, Any]) -> float:
    """Return by how much CVAT has turned the box of an annotation of COCO, in degrees."""
    attributes = entry.get("attributes")
    return float(attributes.get("rotation") or 0) if isinstance(attributes, dict) else 0.0


def _coco_target(entry: dict[str, Any]) -> int | None:
    """Return the number of an annotation's target; None if it has none. CVAT counts in the attributes, from 0."""
    number = entry.get("track_id", entry.get("instance_id"))
    if number is None and "track_id" in (entry.get("attributes") or {}):
        number = whole_number(entry["attributes"]["track_id"]) + 1
    return None if number is None else whole_number(number)


def _coco_frames(path: Path, images: list[dict[str, Any]], files: list[Path]) -> dict[Any, int]:
    """Return the frame of each image, by its id: `frame_id`, or by its name if there are none."""
    if len(videos := {image.get("video_id") for image in images}) > 1:
        raise DatasetError(f"{path}: has images of {len(videos)} videos; give each video a file of its own")
    if any("frame_id" in image for image in images):
        if (bare := next((image for image in images if "frame_id" not in image), None)) is not None:
            raise DatasetError(f"{path}: image {bare.get('id')} has no frame_id, and others have one; give it to all")
        placed = {(image["id"], whole_number(image["frame_id"])) for image in images}
    else:
        by_name = frames_by_name([image["file_name"] for image in images], files, f"{path}: image ")
        placed = {(image["id"], by_name[image["file_name"]]) for image in images}
    if (twice := first_repeated(number for number, _ in placed)) is not None:
        raise DatasetError(f"{path}: two images have the id {twice!r}; give the images of merged files new ids")
    return dict(placed)


def _read_cvat(labels: Labels, files: list[Path]) -> None:
    """Read CVAT 1.1: for video, with tracks, or for images, in which each label is one target."""
    root = ElementTree.fromstring(read_bytes(labels.path))
    for place in (*root.iter("track"), *root.iter("image")):
        labels.shapes.update(shape.tag for shape in place if shape.tag in CVAT_SHAPES)
    if root.find(".//track/box") is not None and root.find(".//image/box") is not None:
        raise DatasetError(
            f"{labels.path}: has tracks and images, whose numbers would mix; give each a file of its own"
        )
    for track in root.iter("track"):
        target, where = int(track.attrib["id"]) + 1, f"{labels.path}: track {track.attrib['id']}"
        if not any(shape.tag in CVAT_SHAPES for shape in track):  # these are counted
            labels.add_nothing(target)
        for box in track.iter("box"):
            is_interpolated = box.get("keyframe") == "0"
            if box.get("outside") == "1" or (labels.key_frames and is_interpolated):
                labels.add_nothing(target)
            else:
                labels.add(where, target, int(box.attrib["frame"]), _cvat_box(box), track.get("label"))
    names = [image.attrib["name"] for image in root.iter("image")]
    frame_of = frames_by_name(names, files, f"{labels.path}: image ")
    for name, image in zip(names, root.iter("image")):
        for box in image.iter("box"):
            label = box.attrib["label"]
            labels.add(f"{labels.path}: image {name}", labels.number(label), frame_of[name], _cvat_box(box), label)


def _cvat_box(box: ElementTree.Element) -> list[float]:
    """Return x, y, w, h of a box by its corners, before it was turned."""
    left, top, right, bottom = (float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    return extent_xywh([left, top, right - left, bottom - top], float(box.get("rotation") or 0))


def extent_xywh(box_xywh: list[float], angle_deg: float) -> list[float]:
    """Return the upright box around a box that is turned about its centre, as CVAT turns boxes.

    >>> extent_xywh([10.0, 20.0, 40.0, 20.0], 90)
    [20.0, 10.0, 20.0, 40.0]

    Raises:
        ValueError: The angle is not finite.
    """
    if not math.isfinite(angle_deg):
        raise ValueError(f"a rotation of {angle_deg} degrees")
    if angle_deg % 180 == 0:
        return box_xywh
    x, y, w, h = box_xywh
    cos, sin = abs(math.cos(math.radians(angle_deg))), abs(math.sin(math.radians(angle_deg)))
    wide, high = round(w * cos + h * sin, 9), round(w * sin + h * cos, 9)  # a quarter turn leaves 1e-15 of the other
    return [x + (w - wide) / 2, y + (h - high) / 2, wide, high]


def _read_yolo(labels: Labels, files: list[Path]) -> None:
    """Read a folder of YOLO files; the class is the target, and boxes are parts of the frame."""
    names = class_names(labels.path)
    for where, kind, frame, box in yolo_boxes(labels.path, files):
        labels.add(where, kind + 1, frame, box, names.get(kind))


READERS = {".csv": _read_csv, ".json": _read_json, ".xml": _read_cvat, ".txt": _read_mot, ".mot": _read_mot}
