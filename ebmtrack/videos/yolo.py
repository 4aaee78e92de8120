"""YOLO's layout of labels: a file for each frame, with rows `class x y w h` in parts of it, and names of the classes.

A data set is a folder with `images/`, `labels/` and `data.yaml`, as docs.ultralytics.com/datasets/detect has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from ebmtrack.errors import DatasetError
from ebmtrack.videos.sequence import visible_paths
from ebmtrack.videos.text import read_text, split_lines

NAMES_FILE, LABELS, CLASSES = "data.yaml", "labels", "classes.txt"
MOST_WORDS = 7  # in a row: class, x, y, w, h, and of a tracker's box its confidence and id
HASH = re.compile(r"\.rf\.\w+$")  # that Roboflow adds to names of pictures: frame_000030_jpg.rf.1a2b3c
MOST_PART = 10.0  # of the frame; a box may reach beyond it, but one in pixels has larger numbers

_ENTRY = re.compile(r"\s+(?:-|(\d+)\s*:)\s*(.+)|-\s+(.+)")  # "  0: person", "  - person", "- person"
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'"""
_FLOW_ENTRY = re.compile(rf"(?:(\d+)\s*:\s*)?({_QUOTED}|[^\s,\[\]{{}}][^,\[\]{{}}]*)")  # of [person, dog], {0: person}


def labels_folder(folder: Path) -> Path:
    """Return the folder of the label files of a data set, which may also be named itself."""
    return folder if folder.name == LABELS else folder / LABELS


def yolo_files(folder: Path) -> list[Path]:
    """Return a folder's label files in the order of their names; the list of classes that LabelImg adds is none."""
    return [file for file in visible_paths(folder.glob("*.txt")) if file.name != CLASSES]


def class_names(folder: Path) -> dict[int, str]:
    """Return the names of the classes, by their numbers from 0; none if no file beside the labels has them.

    Args:
        folder: That of the label files, `labels` in a data set or a folder in that, such as `labels/train`.
    """
    root = next((place.parent for place in (folder, folder.parent) if place.name == LABELS), folder)
    for place in (root, folder):
        if (place / NAMES_FILE).is_file():
            return _yaml_names(read_text(place / NAMES_FILE))
        if (place / CLASSES).is_file():
            return dict(enumerate(split_lines(read_text(place / CLASSES))))
    return {}


def names_text(names: Sequence[str]) -> str:
    """Return the content of a data.yaml in the folder of `images/` and `labels/`; the frames are for both splits."""
    entries = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(names))
    return f"train: images\nval: images\nnames:\n{entries}"


def _yaml_names(text: str) -> dict[int, str]:
    """Return `names` of a data.yaml: in brackets or braces, or an entry a line, with or without numbers."""
    lines = iter(split_lines(text))
    first = next((line.partition(":")[2] for line in lines if re.match(r"names\s*:", line)), "").strip()
    if first.startswith(("[", "{")):
        flow = " ".join([first, *takewhile(re.compile(r"[\s\]}]").match, lines)])  # it may go on in more lines
        entries = _FLOW_ENTRY.findall(re.split(r"[\]}]\s*(?:#|$)", flow)[0])
        return {int(number or place): _unquoted(word) for place, (number, word) in enumerate(entries)}
    names: dict[int, str] = {}
    for line in lines:
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            if line.strip() and not line.lstrip().startswith("#"):
                break
            continue
        names[int(entry[1] or len(names))] = _unquoted(entry[2] or entry[3])
    return names


def _unquoted(word: str) -> str:
    """Return a text of YAML without its quotation marks or the comment after it."""
    word = word.strip()
    if quoted := re.match(_QUOTED, word):
        return str(json.loads(quoted[0])) if word.startswith('"') else quoted[0][1:-1].replace("''", "'")
    return word.partition(" #")[0].rstrip()


def yolo_boxes(folder: Path, frames: Sequence[Path]) -> Iterator[tuple[str, int, int, list[float]]]:
    """Yield the boxes of a folder of label files: file and line, class, frame, and x, y, w, h in parts of the frame.

    Args:
        folder: The folder.
        frames: The pictures to which the files belong, by names or numbers; none for a video.

    Raises:
        DatasetError: On a row that is no box, with its line, and on files without a frame.
    """
    names = [file.name for file in yolo_files(folder)]
    for name, frame in frames_by_name(names, frames, f"{folder / '_'}"[:-1]).items():
        for number, line in enumerate(split_lines(read_text(folder / name)), 1):
            kind, x, y, w, h = _row(line, where := f"{folder / name}, line {number}")
            yield where, int(kind), frame, [x - w / 2, y - h / 2, w, h]


def _row(line: str, where: str) -> list[float]:
    """Return class, x, y, w, h of a row; DatasetError for another one."""
    try:
        words = line.split()
        kind, x, y, w, h = row = [float(word) for word in words[:5]]
        if not kind.is_integer():
            raise ValueError
        is_polygon = (
            len(words) > MOST_WORDS
            or (  # class and three points; a tracker's ids are whole
                len(words) == MOST_WORDS and not any(float(word).is_integer() for word in words[5:])
            )
        )
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{where}: {line[:80]!r} is no row class x y w h") from error
    if is_polygon or max(map(abs, (x, y, w, h))) > MOST_PART:
        what = "a polygon" if is_polygon else "a box in pixels"
        raise DatasetError(
            f"{where}: {line[:80]!r} looks like {what}; write boxes, class x y w h in parts of the frame"
        )
    return row


def frames_by_name(names: Sequence[str], frames: Sequence[Path], prefix: str) -> dict[str, int]:
    """Return the number of the frame to which each name belongs: that of this name, or the last number in it, from 0.

    Names count if all of them are those of frames. `ebmtrack track` counts from 0 whatever the frames are called, and
    its names begin with frame_000000. Of all others a name without its frame is refused if another one has it: nobody
    can know which frame is meant. So are such names if both readings are possible and differ.

    Args:
        names: Of label files or pictures, with or without folder; their endings do not count.
        frames: The pictures that are the frames; none for a video.
        prefix: What the error says before a name.

    Raises:
        DatasetError: On a name without a frame, or one that can mean two.
    """
    stems, by_stem = {name: Path(name).stem for name in names}, {file.stem: k for k, file in enumerate(frames)}
    strays = [name for name in stems if stems[name] not in by_stem]
    if not strays:
        found = {name: by_stem[stem] for name, stem in stems.items()}
        _check_frames_differ(found, prefix)
        numbers = {name: int(stem[len("frame_") :]) for name, stem in stems.items()} if _are_ours(stems) else {}
        for name, number in numbers.items() if max(numbers.values(), default=0) < len(frames) else ():
            if found[name] != number:
                raise DatasetError(
                    f"{prefix}{name}: is it frame {found[name]}, which has this name, or frame {number} as `ebmtrack "
                    "track` counts? Write the labels in another layout, such as labels.csv"
                )
        return found
    if len(strays) < len(stems) and not _are_ours(stems):
        raise DatasetError(
            f"{prefix}{strays[0]}: no frame is called {stems[strays[0]]}; remove it or rename it like its frame"
        )
    numbered: dict[str, int] = {}
    for name, stem in stems.items():
        digits = re.findall(r"\d+", HASH.sub("", stem))
        if not digits:
            raise DatasetError(
                f"{prefix}{name}: no frame is called {stem}; rename it like its frame or by number, from 0"
            )
        numbered[name] = int(digits[-1])
    _check_frames_differ(numbered, prefix)
    return numbered


def _check_frames_differ(frame_of: dict[str, int], prefix: str) -> None:
    """Raise DatasetError if two names are those of one frame, such as a/0001.jpg and b/0001.jpg."""
    name_of: dict[int, str] = {}
    for name, frame in frame_of.items():
        if (first := name_of.setdefault(frame, name)) != name:
            raise DatasetError(f"{prefix}{name}: is of the same frame as {first}; rename both like their frames")


def _are_ours(stems: dict[str, str]) -> bool:
    """Return whether names are those that `ebmtrack track` gives to frames."""
    return min(stems.values(), default="") == "frame_000000" and all(
        map(re.compile(r"frame_\d{6,}").fullmatch, stems.values())
    )
