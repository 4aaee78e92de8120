"""Reading small text tables of numbers, with errors that name file and line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ebmtrack.errors import EbmtrackError

LARGEST_BYTES = 16 << 20  # 200,000 boxes with every digit take 15 MB; what is larger is not an annotation or a result
_SEPARATORS = str.maketrans({",": " ", ";": " ", "\t": " "})


def read_text(path: str | os.PathLike, error: type[EbmtrackError]) -> str:
    """The text of a file of at most 16 MB, UTF-8 with or without a byte order mark.

    Raises `error` for a file that is missing, not a regular file, too large, or not text.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise error(f"{path}: no such file")
        if path.stat().st_size > LARGEST_BYTES:
            raise error(f"{path}: larger than {LARGEST_BYTES >> 20} MB, so not a table of boxes")
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as reason:  # ValueError: not UTF-8, or a null byte in the name
        raise error(f"{path}: cannot be read as text ({reason})") from reason
    if "\0" in text:
        raise error(f"{path}: holds null bytes; this is not a text file")
    return text


def split_lines(text: str) -> list[str]:
    """Lines without their ends (any of \\n, \\r\\n, \\r) and without blank lines at the end of the file."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n") if text.strip() else []


def read_table(
    path: str | os.PathLike, columns: Sequence[int], error: type[EbmtrackError], empty: bool = False
) -> np.ndarray:
    """Rows of numbers separated by commas, tabs, semicolons or spaces, mixed as it comes -> (N, C) float64.

    columns: the row lengths that are allowed; all rows have the same. NaN may be written NaN or nan.
    Raises `error` naming file and line (from 1) for anything else, and for no rows unless `empty`.
    """
    lines = split_lines(read_text(path, error))
    if not lines:
        if empty:
            return np.zeros((0, columns[0]))
        raise error(f"{path}: is empty")
    rows = [line.translate(_SEPARATORS).split() for line in lines]
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width or width not in columns:
            allowed = str(width) if width in columns else _choice(columns)
            shown = lines[number - 1][:80]
            raise error(f"{path}, line {number}: {len(row)} numbers, expected {allowed}: {shown!r}")
    return to_numbers(rows, path, error)


def to_numbers(
    rows: list[list[str]], path: str | os.PathLike, error: type[EbmtrackError], first_line: int = 1
) -> np.ndarray:
    """Rows of words, all of one length, as float64 (N, C); `error` names the line of a word that is none."""
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError:
        table = None
    if table is None or any("_" in "".join(row) for row in rows):
        for number, row in enumerate(rows, first_line):
            for word in row:
                _check_number(word, f"{path}, line {number}", error)
        raise error(f"{path}: cannot be read as a table of numbers")
    return table


def _choice(columns: Sequence[int]) -> str:
    """Row lengths that are allowed, in words."""
    return " or ".join(map(str, columns)) if len(columns) < 5 else f"{columns[0]} to {columns[-1]}"


def _check_number(word: str, where: str, error: type[EbmtrackError]) -> None:
    try:
        if "_" not in word:
            float(word)
            return
    except ValueError:
        pass
    raise error(f"{where}: {word[:40]!r} is not a number")


def polygon_to_xywh(points: np.ndarray) -> np.ndarray:
    """The axis-aligned boxes (N, 4) around polygons (N, 2 K) given as x1, y1, x2, y2 ..."""
    xs, ys = points[:, 0::2], points[:, 1::2]
    low = np.stack([xs.min(axis=1), ys.min(axis=1)], axis=1)
    high = np.stack([xs.max(axis=1), ys.max(axis=1)], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite corners are refused by the caller
        return np.concatenate([low, high - low], axis=1)
