"""COCO (Lin et al., ECCV 2014): every annotated box of every photograph is a target with one frame.

`<root>/annotations/instances_<split>.json` over photographs in `<root>/<split>/` (the official layout) or in
`<root>/images/<split>/` (pytracking's), for train2017, val2017, train2014 and val2014.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos import index_cache
from ebmtrack.videos.image_store import ImageStore, read_bytes, wrong_size
from ebmtrack.videos.index_cache import code_digest, is_settled, stamp
from ebmtrack.videos.labels import extent_xywh, turned_deg
from ebmtrack.videos.source import Source

SPLITS = ("train2017", "val2017", "train2014", "val2014")
TEXTS = ("names", "files", "kinds", "odd")  # columns of the index that are lists of texts
LARGEST = 1e6  # pixels; sizes and coordinates beyond are damage
MOST_ODD = 20  # entries that cannot be used and are named
ADVICE = "correct the entry, or fetch the file again"


class CocoSource(Source):
    """The boxes of one annotation file over its photographs."""

    is_video = False

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        name: str = "coco",
        store: ImageStore | None = None,
        least_side: float = 0.0,
        largest_frac: float = 1.0,
    ) -> None:
        """Open one split, from the index in the user's cache directory if the annotation file has not changed.

        Boxes are clipped at the photograph. Left out: crowds and boxes without area, as in pytracking's training; boxes
        with a side under `least_side` pixels, boxes over more than `largest_frac` of the photograph, and entries that
        cannot be used, of which a warning tells.

        Args:
            root: The folder of annotations and photographs.
            split: Such as train2017; by default the first one of `SPLITS` that is there.
            name: What samplers call the source.
            store: Reads and keeps photographs.
            least_side: In pixels.
            largest_frac: Of the photograph's area.

        Raises:
            DatasetError: If photographs or annotations are missing, or the file is not of COCO's kind.
        """
        self.name, root = name, Path(root)
        split = split or next((each for each in SPLITS if _photographs(root, each).is_dir()), SPLITS[0])
        self._folder = _photographs(root, split)
        self._store = store if store is not None else ImageStore()
        path = root / "annotations" / f"instances_{split}.json"
        if not self._folder.is_dir():
            raise DatasetError(f"{self._folder}: no such folder of photographs; is the data set complete?")
        columns = _columns(path, least_side, largest_frac)
        self._boxes, self._file, self._kind = (columns[key] for key in ("boxes_xywh", "photo", "category"))
        self._sizes_wh = columns["sizes_wh"]
        self._names, self._files, self._kinds, self._odd = (json.loads(columns[key].tobytes()) for key in TEXTS)
        if self._odd:
            more = f", and {len(self._odd) - 1} more or over" if len(self._odd) > 1 else ""
            warnings.warn(f"left out: {self._odd[0]}{more}; `ebmtrack datasets check coco` lists them", stacklevel=2)

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        """Return the file name without suffix, '#', annotation id."""
        return self._names[index]

    def category(self, index: int) -> str:
        """Return the name of the category of target `index`."""
        return self._kinds[self._kind[index]]

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._boxes[index][None]

    def visible(self, index: int) -> np.ndarray:
        return np.ones(1, dtype=bool)

    def frame(self, index: int, frame: int) -> np.ndarray:
        """Return the photograph, turned so that it has the size by which it was annotated."""
        if frame != 0:
            raise DatasetError(f"{self._names[index]}: a photograph has frame 0 only, not {frame}")
        return self._photograph(int(self._file[index]))

    def frame_size_wh(self, index: int, frame: int) -> tuple[int, int]:
        width, height = self._sizes_wh[self._file[index]].tolist()
        return width, height

    def preload(self) -> None:
        """Read all photographs' files into the store now."""
        self._store.preload(sorted(str(self._folder / file) for file in self._files))

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """Yield what is wrong with entries and photographs: missing or, with `every_frame`, unreadable, another size.

        Args:
            every_frame: Decode all photographs instead of two.
        """
        yield from self._odd
        present = set(os.listdir(self._folder))
        lost = [file for file in self._files if file not in present]
        if lost:
            more = f", and {len(lost) - 1} more photographs" if len(lost) > 1 else ""
            yield f"{self._folder / lost[0]}: missing{more}"
        kept = [number for number, file in enumerate(self._files) if file in present]
        for number in kept if every_frame else kept[:1] + kept[1:][-1:]:
            try:
                self._photograph(number)
            except DatasetError as error:
                yield str(error)

    def _photograph(self, number: int) -> np.ndarray:
        """Return photograph `number` as it is stored, as COCO counts pixels; turned by its EXIF data if that fits."""
        path, wanted = self._folder / self._files[number], tuple(self._sizes_wh[number][::-1].tolist())
        image = self._store.rgb_as_stored(path)
        if image.shape[:2] != wanted:
            turned = self._store.rgb(path)
            if turned.shape[:2] != wanted:
                raise wrong_size(path, image.shape[1::-1], wanted[::-1], "the annotation file")
            return turned
        return image


def open_coco(root: Path, split: str | None, store: ImageStore) -> CocoSource:
    """Open one split for training. ConfigError for an unknown one."""
    if split is not None and split not in SPLITS:
        raise ConfigError(f"COCO has no split {split!r}; there are {', '.join(SPLITS)}")
    return CocoSource(root, split, store=store)


def splits_in(root: Path) -> list[str]:
    """Return the splits of which photographs or annotations are in `root`."""
    annotated = {split for split in SPLITS if (root / "annotations" / f"instances_{split}.json").is_file()}
    return [split for split in SPLITS if split in annotated or _photographs(root, split).is_dir()]


def _photographs(root: Path, split: str) -> Path:
    """Return the folder of a split's photographs, in pytracking's layout if only that is there."""
    inside = root / "images" / split
    return inside if inside.is_dir() and not (root / split).is_dir() else root / split


def _columns(path: Path, least_side: float, largest_frac: float) -> dict[str, np.ndarray]:
    """Return the usable boxes of an annotation file: `boxes_xywh`, numbers of `photo` and `category`, and `TEXTS`."""
    now, found = time.time_ns(), stamp(path)
    key, version = ("CocoSource", os.path.abspath(path), least_side, largest_frac), (code_digest(__name__), *found)
    columns = index_cache.load(key, version)
    if columns is None:
        columns = _read_columns(path, least_side, largest_frac)
        if is_settled(np.array(found), now):
            index_cache.store(key, version, columns)
    columns["boxes_xywh"].setflags(write=False)
    return columns


def _read_columns(path: Path, least_side: float, largest_frac: float) -> dict[str, np.ndarray]:
    """Return the columns of a file, in its order."""
    content = _Content(path)
    images = {entry["id"]: entry for entry in content.entries("images")}
    kinds = {entry["id"]: entry["name"] for entry in content.entries("categories")}
    boxes, names, file, kind = [], [], [], []
    files: dict[str, int] = {}
    kinds_used: dict[str, int] = {}
    sizes = []
    for entry in content.entries("annotations", images, kinds):
        image = images[entry["image_id"]]
        box = _clip(extent_xywh(entry["bbox"], turned_deg(entry)), image["width"], image["height"])
        shortest, largest = min(box[2:]), largest_frac * image["width"] * image["height"]
        if (
            entry.get("iscrowd", 0) not in (0, "0", None)
            or shortest <= 0
            or shortest < least_side
            or box[2] * box[3] > largest
        ):
            continue
        if image["file_name"] not in files:
            sizes.append((image["width"], image["height"]))
        boxes.append(box)
        names.append(f"{Path(image['file_name']).stem}#{entry['id']}")
        file.append(files.setdefault(image["file_name"], len(files)))
        kind.append(kinds_used.setdefault(kinds[entry["category_id"]], len(kinds_used)))
    odd = content.odd
    if odd and not boxes:
        raise DatasetError(odd[0])
    columns: dict[str, np.ndarray] = {
        key: _as_json(values) for key, values in zip(TEXTS, (names, list(files), list(kinds_used), odd))
    }
    columns |= {"photo": np.array(file, np.int32), "category": np.array(kind, np.int32)}
    columns["sizes_wh"] = np.array(sizes, np.int64).reshape(-1, 2)
    return columns | {"boxes_xywh": np.array(boxes, np.float64).reshape(-1, 4)}


class _Content:
    """An annotation file's lists; entries that cannot be used are left out and described in `odd`."""

    def __init__(self, path: Path) -> None:
        self.path, self.odd = path, list[str]()
        self.text = _read_json_text(path)
        try:
            self.content = json.loads(self.text)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {error.lineno}: not JSON ({error.msg}); fetch it again") from error
        except (RecursionError, ValueError) as error:
            raise DatasetError(f"{path}, line 1: not a COCO annotation file ({error})") from error
        if not isinstance(self.content, dict):
            raise DatasetError(f"{path}, line 1: not a COCO annotation file (no object at the top)")

    def entries(self, key: str, images: dict | None = None, kinds: dict | None = None) -> list[dict[str, Any]]:
        """Return the usable entries of the list `key`; annotations must name known images and categories."""
        found = self.content.get(key)
        if not isinstance(found, list):
            raise DatasetError(
                f"{self.path}, line 1: no list {key!r}; give an instances file, such as instances_train2017.json"
            )
        faults = [_fault(key, entry) for entry in found]
        first: dict[int, dict[str, Any]] = {}
        sound = [entry for entry, fault in zip(found, faults) if fault is None and key != "annotations"]
        shared = {entry["id"] for entry in sound if first.setdefault(entry["id"], entry) != entry}
        usable = []
        for number, (entry, fault) in enumerate(zip(found, faults)):
            if fault is None and key != "annotations" and entry["id"] in shared:
                fault = f"id {entry['id']} is that of another entry, too"
            if fault is None and images is not None and entry["image_id"] not in images:
                fault = f"image_id {entry['image_id']} is not in the list of images"
            if fault is None and kinds is not None and entry["category_id"] not in kinds:
                fault = f"category_id {entry['category_id']} is not in the list of categories"
            if fault is None:
                usable.append(entry)
            elif len(self.odd) < MOST_ODD:
                line = _entry_line(self.text, key, number)
                self.odd.append(f"{self.path}, line {line}: {key}[{number}]: {fault}; {ADVICE}")
        return usable


def _read_json_text(path: Path) -> str:
    """Return the text of an annotation file of any size; DatasetError with the line if it is not UTF-8."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; the file is damaged") from error


def _fault(key: str, entry: object) -> str | None:
    """Return what is wrong with an entry of the list `key`, with the field and its value."""
    if not isinstance(entry, dict):
        return f"{str(entry)[:40]!r} is not an object"
    every: dict[str, dict[str, Callable[[Any], bool]]] = {
        "images": {"id": _is_id, "width": _is_size, "height": _is_size, "file_name": _is_file_name},
        "categories": {"id": _is_id, "name": lambda value: isinstance(value, str)},
        "annotations": {
            "id": _is_id,
            "image_id": _is_id,
            "category_id": _is_id,
            "bbox": _is_box,
            "attributes": _has_angle,
        },
    }
    checks = every[key]
    wrong = next((name for name, check in checks.items() if not check(entry.get(name))), None)
    if wrong is None:
        return None
    return f"{wrong} is {str(entry[wrong])[:60]!r}" if wrong in entry else f"{wrong} is missing"


def _has_angle(attributes: object) -> bool:
    """Return whether attributes, if there are any, have no rotation or one that is a finite number of degrees."""
    try:
        return math.isfinite(turned_deg({"attributes": attributes}))
    except (TypeError, ValueError, OverflowError):
        return False


def _as_json(values: list[str]) -> np.ndarray:
    """Return texts as bytes of JSON, (n,) uint8."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def _entry_line(text: str, key: str, number: int) -> int:
    """Return the line of entry `number` of the list `key` in a JSON text; 1 if it cannot be found."""
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
    """Return the first position from `position` on that holds neither white space nor a comma."""
    found = re.compile(r"[^\s,]").search(text, position)
    return found.start() if found else position


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return _is_number(value) and float(value) > 0 and float(value) % 1 == 0  # type: ignore[arg-type]  # it is a number


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and Path(value).name == value != ""


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(each) for each in value)


def _clip(box_xywh: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """Return the part of a box inside an image; sides may be zero or negative if there is none."""
    x, y = max(box_xywh[0], 0.0), max(box_xywh[1], 0.0)
    right, bottom = min(box_xywh[0] + box_xywh[2], width), min(box_xywh[1] + box_xywh[3], height)
    return x, y, right - x, bottom - y
