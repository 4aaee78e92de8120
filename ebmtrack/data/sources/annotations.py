"""The text files that video data sets annotate with: boxes, labels and .ini entries, checked line by line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.base import read_lines
from ebmtrack.errors import DatasetError


def read_boxes(path: Path) -> np.ndarray:
    """Boxes (n, 4) float64 from lines of four numbers with commas, tabs or blanks between them.

    "nan" is a number (annotators write it for an absent target); all else is a DatasetError with the line.
    """
    rows = [_parse_row(path, number, line) for number, line in enumerate(read_lines(path), 1)]
    if not rows:
        raise DatasetError(f"{path}, line 1: no boxes in the file")
    return np.array(rows, dtype=np.float64)


def read_labels(path: Path, count: int, highest: int) -> np.ndarray:
    """Labels (count,) int64 in 0..highest, one a line or all in one line with commas between them."""
    lines = read_lines(path)
    if len(lines) == 1 and count != 1:
        fields = [(1, field.strip()) for field in lines[0].rstrip(",").split(",")]
    else:
        fields = list(enumerate(lines, start=1))
    if len(fields) != count:
        line = fields[min(len(fields), count + 1) - 1][0] if fields else 1
        raise DatasetError(f"{path}, line {line}: {len(fields)} labels, but {count} boxes in groundtruth.txt")
    return np.array([_parse_label(path, line, field, highest) for line, field in fields], dtype=np.int64)


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


def read_names(path: Path) -> list[str]:
    """The names of sequences in a list file, one a line; plain names, none twice."""
    names = read_lines(path)
    for number, name in enumerate(names, 1):
        if not re.fullmatch(r"[\w.+ ()-]+", name) or name in (".", ".."):
            raise DatasetError(f"{path}, line {number}: {name[:60]!r} is not the name of a sequence")
    if len(set(names)) != len(names):
        twice = next(number for number, name in enumerate(names, 1) if name in names[: number - 1])
        raise DatasetError(f"{path}, line {twice}: {names[twice - 1]!r} is listed twice")
    return names


def _parse_row(path: Path, number: int, line: str) -> list[float]:
    try:
        row = [float(field) for field in line.replace(",", " ").replace("_", "?").split()]
    except ValueError as error:
        raise DatasetError(f"{path}, line {number}: {line[:60]!r} is not a row of numbers") from error
    if len(row) != 4:
        raise DatasetError(f"{path}, line {number}: {len(row)} numbers instead of the four x,y,w,h")
    return row


def _parse_label(path: Path, number: int, text: str, highest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > highest:
        raise DatasetError(f"{path}, line {number}: label {text[:40]!r} is not one of 0..{highest}")
    return int(text)
