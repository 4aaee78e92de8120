"""GOT-10k: one target a sequence, boxes x,y,w,h, labels of absence and cover, as on the authors' disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ebmtrack.data.sources.base import MEBIBYTE, ImageStore, LimitedCache, Source, read_lines, well_formed
from ebmtrack.errors import DatasetError

LEAST_COVER = (
    3  # of 8; cover.label counts visible eighths, and below three little but the occluder is in the box
)


class GOT10kSource(Source):
    """The sequences that list.txt names, under a folder such as got10k/train."""

    is_video = True

    def __init__(self, root: str | Path, name: str = "got10k", store: ImageStore | None = None) -> None:
        """Open `root`: checks that each sequence of list.txt has a folder; annotations are read when needed."""
        self.name, self.root = name, Path(root)
        self._store = store if store is not None else ImageStore()
        self._names = _listed_sequences(self.root)
        self._annotations = LimitedCache(64 * MEBIBYTE)

    def __len__(self) -> int:
        return len(self._names)

    def target_name(self, index: int) -> str:
        return self._names[index]

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self._annotation(index)[0]

    def visible(self, index: int) -> np.ndarray:
        """Present, at least three eighths visible (`LEAST_COVER`), and a box of at least one pixel."""
        return self._annotation(index)[1]

    def frame(self, index: int, frame: int) -> np.ndarray:
        return self._store.rgb(self.frame_path(index, frame))

    def frame_path(self, index: int, frame: int) -> Path:
        """Where frame number `frame` (from 0) of sequence `index` lies; files count from 1."""
        if not 0 <= frame < len(self.boxes_xywh(index)):
            count = len(self.boxes_xywh(index))
            raise DatasetError(
                f"{self.root / self._names[index]}: frame {frame} of {count} frames does not exist"
            )
        return self.root / self._names[index] / f"{frame + 1:08d}.jpg"

    def meta(self, index: int) -> dict[str, str]:
        """The entries of meta_info.ini (object_class, motion_class, ...); empty where the file is absent."""
        path = self.root / self._names[index] / "meta_info.ini"
        return read_meta(path) if path.is_file() else {}

    def preload(self) -> None:
        """Read all frames' files into the store now."""
        for index in range(len(self)):
            self._store.preload([self.frame_path(index, i) for i in range(len(self.boxes_xywh(index)))])

    def _annotation(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        folder = self.root / self._names[index]
        return self._annotations.get(
            index, lambda: _read_annotation(folder), lambda pair: pair[0].nbytes + 500
        )


def read_boxes(path: Path) -> np.ndarray:
    """Boxes (n, 4) float64 from lines of four numbers with commas, tabs or blanks between them.

    "nan" is a number (annotators write it for an absent target); anything else is a DatasetError with the line.
    """
    rows = [_parse_row(path, number, line) for number, line in enumerate(read_lines(path), start=1)]
    if not rows:
        raise DatasetError(f"{path}: no boxes in the file")
    return np.array(rows, dtype=np.float64)


def read_labels(path: Path, count: int, highest: int) -> np.ndarray:
    """Labels (count,) int64 in 0..highest, one a line; DatasetError with the line where one is not."""
    lines = read_lines(path)
    if len(lines) != count:
        where = f"{path}, line {min(len(lines), count) + 1}"
        raise DatasetError(f"{where}: {len(lines)} labels for {count} boxes in groundtruth.txt")
    labels = [_parse_label(path, number, line, highest) for number, line in enumerate(lines, start=1)]
    return np.array(labels, dtype=np.int64)


def read_meta(path: Path) -> dict[str, str]:
    """Keys and values of an .ini file whose values may hold any character; sections are ignored."""
    entries = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line or line.startswith(("[", "#", ";")):
            continue
        key, separator, value = line.partition(":")
        if not separator:
            raise DatasetError(f"{path}, line {number}: {line[:40]!r} is not 'key: value'")
        entries[key.strip()] = value.strip()
    return entries


def _listed_sequences(root: Path) -> list[str]:
    """The names in list.txt, each of which must be a folder."""
    if not (root / "list.txt").is_file():
        raise DatasetError(
            f"{root}: list.txt is missing; give the folder that holds it, such as got10k/train"
        )
    names = []
    for number, line in enumerate(read_lines(root / "list.txt"), start=1):
        if not line or not (root / line).is_dir() or Path(line).name != line:
            raise DatasetError(
                f"{root / 'list.txt'}, line {number}: no sequence folder {line[:80]!r} beside the list"
            )
        names.append(line)
    if not names:
        raise DatasetError(f"{root / 'list.txt'}: names no sequence")
    return names


def _read_annotation(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and visibility (n,) of one sequence; the label files may be absent."""
    boxes = read_boxes(folder / "groundtruth.txt")
    visible = well_formed(boxes)
    if (folder / "absence.label").is_file():
        visible &= read_labels(folder / "absence.label", len(boxes), 1) == 0
    if (folder / "cover.label").is_file():
        visible &= read_labels(folder / "cover.label", len(boxes), 8) >= LEAST_COVER
    return boxes, visible


def _parse_row(path: Path, number: int, line: str) -> list[float]:
    fields = line.replace(",", " ").split()
    try:
        row = [float(field) for field in fields]
    except ValueError as error:
        raise DatasetError(
            f"{path}, line {number}: {line[:60]!r} holds something that is no number"
        ) from error
    if len(row) != 4:
        raise DatasetError(f"{path}, line {number}: {len(row)} numbers instead of the four x,y,w,h")
    return row


def _parse_label(path: Path, number: int, line: str, highest: int) -> int:
    if not line.isdecimal() or not line.isascii() or len(line) > 9 or int(line) > highest:
        raise DatasetError(f"{path}, line {number}: label {line[:40]!r} is not one of 0..{highest}")
    return int(line)
