"""COCO: every annotated box of every photograph is a target with one frame."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ebmtrack.data import index_cache
from ebmtrack.data.index_cache import code_digest, settled, stamp
from ebmtrack.data.sources.base import ImageStore, Source, read_text
from ebmtrack.errors import DatasetError

TEXTS = ("names", "files", "kinds")  # columns of the index that are lists of texts
LARGEST = 1e6  # pixels; sizes and coordinates beyond are damage


class CocoSource(Source):
    """The boxes of root/annotations/instances_<split>.json over the photographs in root/<split>."""

    is_video = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train2017",
        name: str = "coco",
        store: ImageStore | None = None,
        least_side: float = 0.0,
        largest_frac: float = 1.0,
    ) -> None:
        """Open one split, from the index in the user's cache directory if the annotation file has not changed.

        Boxes are clipped at the photograph. Left out: crowds and boxes without area, as in pytracking's training;
        boxes with a side under `least_side` pixels, and boxes over more than `largest_frac` of the photograph.
        """
        self.name = name
        self._folder = Path(root) / split
        self._store = store if store is not None else ImageStore()
        path = Path(root) / "annotations" / f"instances_{split}.json"
        if not self._folder.is_dir():
            raise DatasetError(f"{self._folder}: the folder of photographs is missing")
        columns = _columns(path, least_side, largest_frac, code_digest(type(self)))
        self._boxes, self._file, self._kind = (columns[key] for key in ("boxes_xywh", "photo", "category"))
        self._names, self._files, self._kinds = (json.loads(columns[key].tobytes()) for key in TEXTS)

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        """File name without suffix, '#', annotation id."""
        return self._names[index]

    def category(self, index: int) -> str:
        """Name of the category of target `index`."""
        return self._kinds[self._kind[index]]

    @property
    def categories(self) -> list[str]:
        """The names of all categories that occur, sorted."""
        return sorted(set(self._kinds))

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._boxes[index][None]

    def visible(self, index: int) -> np.ndarray:
        return np.ones(1, dtype=bool)

    def frame(self, index: int, frame: int) -> np.ndarray:
        if frame != 0:
            raise DatasetError(f"{self._names[index]}: a photograph has frame 0 only, not {frame}")
        return self._store.rgb(self._folder / self._files[self._file[index]])

    def preload(self) -> None:
        """Read all photographs' files into the store now."""
        self._store.preload(sorted(str(self._folder / file) for file in self._files))

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """What is wrong with the photographs that have usable boxes: missing or, with `every_frame`, unreadable."""
        present = set(os.listdir(self._folder))
        lost = [file for file in self._files if file not in present]
        if lost:
            more = f", and {len(lost) - 1} more photographs" if len(lost) > 1 else ""
            yield f"{self._folder / lost[0]}: missing{more}"
        kept = [file for file in self._files if file in present]
        for file in kept if every_frame else kept[:1] + kept[1:][-1:]:
            try:
                self._store.rgb(self._folder / file)
            except DatasetError as error:
                yield str(error)


def _columns(path: Path, least_side: float, largest_frac: float, code: str) -> dict[str, np.ndarray]:
    """The usable boxes of an annotation file: `boxes_xywh`, numbers of `photo` and `category`, and `TEXTS`."""
    now, found = time.time_ns(), stamp(path)
    key, version = ("CocoSource", os.path.abspath(path), least_side, largest_frac), (code, *found)
    columns = index_cache.load(key, version)
    if columns is None:
        columns = _read_columns(path, least_side, largest_frac)
        if settled(np.array(found), now):
            index_cache.store(key, version, columns)
    columns["boxes_xywh"].setflags(write=False)
    return columns


def _read_columns(path: Path, least_side: float, largest_frac: float) -> dict[str, np.ndarray]:
    """The columns, from the file, in its order."""
    content = _read_json(path)
    images = {entry["id"]: entry for entry in _entries(path, content, "images", _check_image)}
    kinds = {entry["id"]: entry["name"] for entry in _entries(path, content, "categories", _check_category)}
    boxes, names, files, kinds_used, file, kind = [], [], {}, {}, [], []
    for number, entry in enumerate(_entries(path, content, "annotations", _check_annotation)):
        if entry["image_id"] not in images or entry["category_id"] not in kinds:
            raise _fault(path, "annotations", number, "names an image or category that is not listed")
        image = images[entry["image_id"]]
        box = _clipped(entry["bbox"], image["width"], image["height"])
        shortest, largest = min(box[2:]), largest_frac * image["width"] * image["height"]
        if not entry.get("iscrowd", 0) and shortest > 0 and shortest >= least_side and box[2] * box[3] <= largest:
            boxes.append(box)
            names.append(f"{Path(image['file_name']).stem}#{entry['id']}")
            file.append(files.setdefault(image["file_name"], len(files)))
            kind.append(kinds_used.setdefault(kinds[entry["category_id"]], len(kinds_used)))
    columns = {key: _as_json(values) for key, values in zip(TEXTS, (names, list(files), list(kinds_used)))}
    numbers = {"photo": np.array(file, np.int32), "category": np.array(kind, np.int32)}
    return columns | numbers | {"boxes_xywh": np.array(boxes, np.float64).reshape(-1, 4)}


def _as_json(values: list[str]) -> np.ndarray:
    """Texts as bytes of JSON, (n,) uint8."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def _read_json(path: Path) -> dict:
    """The content of an annotation file."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {error.lineno}: not JSON ({error.msg}); fetch it again") from error
    except (RecursionError, ValueError) as error:
        raise DatasetError(f"{path}, line 1: not a COCO annotation file ({error})") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}, line 1: not a COCO annotation file (no object at the top)")
    return content


def _entries(path: Path, content: dict, key: str, check: Callable[[dict], bool]) -> list[dict]:
    """The list `content[key]`, every entry checked."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DatasetError(f"{path}, line 1: no list {key!r}; is it an instances file?")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not check(entry):
            raise _fault(path, key, number, "lacks a field, or has one of a wrong kind or size")
    return entries


def _fault(path: Path, key: str, number: int, what: str) -> DatasetError:
    """The error for entry `number` of the list `key`, with its line in the file."""
    line = _entry_line(read_text(path), key, number)
    return DatasetError(f"{path}, line {line}: {key}[{number}] {what}; fetch the file again")


def _entry_line(text: str, key: str, number: int) -> int:
    """The line of entry `number` of the list `key` in a JSON text; 1 where it cannot be told."""
    start = re.search(rf'"{key}"\s*:\s*\[', text)
    if start is None:
        return 1
    position, decoder = start.end(), json.JSONDecoder()
    try:
        for _ in range(number):
            position = decoder.raw_decode(text, _next_entry(text, position))[1]
    except ValueError:  # the key's first occurrence was not the list that was read
        return 1
    return text.count("\n", 0, _next_entry(text, position)) + 1


def _next_entry(text: str, position: int) -> int:
    """The first position from `position` on that holds neither white space nor a comma."""
    found = re.compile(r"[^\s,]").search(text, position)
    return found.start() if found else position


def _check_image(entry: dict) -> bool:
    sizes = (entry.get("width"), entry.get("height"))
    name = entry.get("file_name")
    return (
        all(_is_id(size) and 0 < size < LARGEST for size in sizes)
        and isinstance(name, str)
        and Path(name).name == name != ""
    )


def _check_category(entry: dict) -> bool:
    return isinstance(entry.get("name"), str)


def _check_annotation(entry: dict) -> bool:
    box = entry.get("bbox")
    right = isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)
    return right and _is_id(entry.get("image_id")) and _is_id(entry.get("category_id"))


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _clipped(box_xywh: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a box inside an image; sides may be zero or negative where there is none."""
    x, y = max(box_xywh[0], 0.0), max(box_xywh[1], 0.0)
    right, bottom = min(box_xywh[0] + box_xywh[2], width), min(box_xywh[1] + box_xywh[3], height)
    return x, y, right - x, bottom - y
