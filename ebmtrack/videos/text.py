"""Small text files of data sets and results: tables of numbers, labels, lists of names; errors name file and line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import DatasetError, EbmtrackError
from ebmtrack.files import expand_home

LARGEST_BYTES = 16 << 20  # 200,000 boxes with every digit take 15 MB; a larger file is not an annotation or a result
_SEPARATORS = str.maketrans({",": " ", ";": " ", "\t": " "})
_NUMBER = re.compile(r"[+-]?\d+(,\d+)?|nan", re.IGNORECASE)  # with a decimal comma or whole


def read_text(path: str | os.PathLike, error: type[EbmtrackError] = DatasetError) -> str:
    """Return the text of a file of at most 16 MB, UTF-8 with or without a byte order mark.

    Args:
        path: The file.
        error: The class of the error to raise.

    Raises:
        EbmtrackError: `error`, for a file that is missing, not a regular file, too large, or not text.
    """
    path = expand_home(path)
    try:
        if not path.is_file():
            raise error(f"{path}: no such file")
        if path.stat().st_size > LARGEST_BYTES:
            raise error(f"{path}: larger than {LARGEST_BYTES >> 20} MB, so not a table of boxes")
        data = path.read_bytes()
    except (OSError, ValueError) as reason:  # ValueError: a null byte in the name
        raise error(f"{path}: cannot be read as text ({reason})") from reason
    return decode_text(data, path, error)


def decode_text(data: bytes, path: str | os.PathLike, error: type[EbmtrackError] = DatasetError) -> str:
    """Return the text of a file's bytes, UTF-8 with or without a byte order mark; `error` with the line otherwise."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = data.count(b"\n", 0, reason.start) + 1
        raise error(f"{path}, line {line}: not in UTF-8 ({reason.reason}): save it so") from reason
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{path}, line {line}: holds null bytes: no text, or in UTF-16; save it as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Return the lines without their ends (any of \\n, \\r\\n, \\r) and without blank lines at the end of the file."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n") if text.strip() else []


def parse_csv(text: str, path: str | os.PathLike) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns and rows of a CSV file with a header: for each row its line (from 1) and its fields by column.

    A row is one line: a quotation mark without its pair would otherwise take in the rows after it. Blank lines are left
    out, and a short row has no fields for the last columns.

    Args:
        text: The file's text.
        path: The file, for the error.

    Raises:
        DatasetError: With file and line, for a quotation mark without its pair, two columns of one name, and a row with
            more fields than the header, such as one with decimal commas.
    """
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(split_lines(text), 1):
        try:
            fields = next(csv.reader([line], strict=True), []) if line.strip() else []
        except csv.Error as reason:
            raise DatasetError(f"{path}, line {number}: {line[:80]!r} is no row of a CSV file ({reason})") from reason
        if rows and any(map(str.strip, fields[len(rows[0][1]) :])):
            raise DatasetError(
                f"{path}, line {number}: {line[:80]!r} has {len(fields)} fields for {len(rows[0][1])} columns; write "
                "decimal points, and fields with commas in quotation marks"
            )
        rows += [(number, fields)] * bool(fields)
    columns = rows[0][1] if rows else []
    if twice := first_repeated(filter(str.strip, columns)):
        raise DatasetError(f"{path}, line {rows[0][0]}: two columns are called {twice!r}; name each otherwise")
    return columns, [(number, dict(zip(columns, fields))) for number, fields in rows[1:]]


def first_repeated(values: Iterable[Any]) -> Any:
    """Return the first of some values that was there before; None if all differ."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def split_words(line: str) -> list[str]:
    """Return the words of a line between commas, semicolons, tabs and blanks."""
    return line.translate(_SEPARATORS).split()


def read_table(
    path: str | os.PathLike,
    columns: Sequence[int],
    error: type[EbmtrackError] = DatasetError,
    empty: bool = False,
    form: str = "",
) -> np.ndarray:
    """Read rows of numbers separated by commas, tabs, semicolons or blanks in any mixture.

    Args:
        path: The file. NaN may be written NaN or nan.
        columns: The row lengths that are allowed; all rows have the same.
        error: The class of the error to raise.
        empty: Whether a file without rows is allowed.
        form: How a row is written, for the error.

    Returns:
        The numbers, (N, C) float64.

    Raises:
        EbmtrackError: `error` with file and line (from 1) for anything else.
    """
    lines = split_lines(read_text(path, error))
    if not lines:
        if empty:
            return np.zeros((0, columns[0]))
        raise error(f"{path}, line 1: is empty")
    if columns[-1] <= 8:  # boxes and polygons, not labels in one line
        lines = with_decimal_points(lines, lambda count: count in columns, path, error)
    rows = [split_words(line) for line in lines]
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width or width not in columns:
            allowed = str(width) if width in columns else _choice(columns)
            shown = lines[number - 1][:80]
            absent = "; a frame without the target has nan,nan,nan,nan" if not row and 4 in columns else ""
            problem = f"{len(row)} numbers, expected {allowed}: {shown!r}{_written(form)}{absent}"
            raise error(f"{path}, line {number}: {problem}")
    return to_numbers(rows, path, error, form=form)


def with_decimal_points(
    lines: Sequence[str],
    allowed: Callable[[int], bool],
    path: str | os.PathLike,
    error: type[EbmtrackError] = DatasetError,
) -> list[str]:
    """Replace decimal commas by points where the rows are unmistakably written with them.

    `69,5;48;26,1;39` can only be four numbers. `69,5;48,0;26,1;39,0` can also be four corners of a polygon: such a file
    is refused if both row lengths are allowed.

    Args:
        lines: All rows of the file.
        allowed: Says whether a row may have this many numbers.
        path: The file, for the error.
        error: The class of the error to raise.

    Returns:
        The lines, unchanged if commas separate numbers.

    Raises:
        EbmtrackError: `error` for rows that can be read both ways.
    """
    fields = [re.split(r"[;\s]+", line.strip(" \t;")) for line in lines]
    counts = {len(row) for row in fields}
    commas = any("," in word for row in fields for word in row)
    if not commas or len(counts) > 1 or min(counts) < 4 or not allowed(min(counts)):
        return list(lines)
    if not all(_NUMBER.fullmatch(word) for row in fields for word in row):
        return list(lines)
    plain = {len(split_words(line)) for line in lines}
    if len(plain) == 1 and allowed(min(plain)):
        row = lines[0][:80]
        raise error(
            f"{path}, line 1: {row!r} is either {min(counts)} numbers with decimal commas or {min(plain)} whole "
            "numbers; write decimal points, and commas between the numbers"
        )
    return [" ".join(word.replace(",", ".") for word in row) for row in fields]


def to_numbers(
    rows: list[list[str]],
    path: str | os.PathLike,
    error: type[EbmtrackError] = DatasetError,
    first_line: int = 1,
    form: str = "",
) -> np.ndarray:
    """Convert rows of words, all of one length, to numbers.

    Args:
        rows: N rows of C words.
        path: The file, for the error.
        error: The class of the error to raise.
        first_line: The number of the first row's line.
        form: How a row is written, for the error.

    Returns:
        The numbers, (N, C) float64.

    Raises:
        EbmtrackError: `error` with the line of a word that is no number.
    """
    try:
        table = None if any("_" in word for row in rows for word in row) else np.array(rows, dtype=np.float64)
    except ValueError:
        table = None
    if table is not None:
        return table
    for number, row in enumerate(rows, first_line):
        for word in row:
            _check_number(word, f"{path}, line {number}", error, form)
    raise error(f"{path}: cannot be read as a table of numbers")


def read_boxes(path: Path, columns: tuple[int, ...] = (4, 8)) -> np.ndarray:
    """Read the boxes of an annotation file: x, y, w, h, or polygons, whose bounding boxes are taken.

    Args:
        path: The file, with any separators. NaN means "not annotated".
        columns: The row lengths that are allowed.

    Returns:
        Boxes (N, 4) float64.

    Raises:
        DatasetError: With the line, for anything else and for infinite numbers.
    """
    table = read_table(path, columns, form="x,y,w,h")
    return finite_boxes(polygon_to_xywh(table) if table.shape[1] == 8 else table, path)


def finite_boxes(boxes_xywh: np.ndarray, path: Path) -> np.ndarray:
    """Return the same boxes (N, 4); DatasetError with the line if one has an infinite number."""
    infinite = np.isinf(boxes_xywh).any(axis=1)
    if infinite.any():
        raise DatasetError(f"{path}, line {int(infinite.argmax()) + 1}: an infinite number")
    return boxes_xywh


def read_labels(path: Path, count: int | None, highest: int, what: str = "boxes in the annotation") -> np.ndarray:
    """Read one whole number from 0 to `highest` for each frame: one a line, or all in one line.

    Args:
        path: The file.
        count: How many there must be; None for any number.
        highest: The largest label.
        what: What is labelled, for the error.

    Returns:
        Labels (N,) int64.

    Raises:
        DatasetError: With the line, for another number of labels or another label.
    """
    values = read_table(path, range(1, 200_000))
    if values.shape[0] > 1 and values.shape[1] > 1:
        raise DatasetError(f"{path}: expected one label per line, or all in one line")
    in_lines, labels = values.shape[0] > 1, values.reshape(-1)
    wrong = ~((labels >= 0) & (labels <= highest))
    wrong[~wrong] = labels[~wrong] % 1 != 0
    if wrong.any():
        number = int(wrong.argmax())
        line = number + 1 if in_lines else 1
        raise DatasetError(f"{path}, line {line}: label {number + 1} is {labels[number]:g}, not one of 0..{highest}")
    if count is not None and len(labels) != count:
        line = min(len(labels), count + 1) if in_lines else 1
        raise DatasetError(f"{path}, line {line}: {len(labels)} labels for {count} {what}")
    return labels.astype(np.int64)


def read_flags(path: Path, count: int | None = None, what: str = "boxes in the annotation") -> np.ndarray:
    """Read flags of 0 and 1 as `read_labels` does; return them as (N,) bool."""
    return read_labels(path, count, 1, what).astype(bool)


def read_names(path: Path) -> tuple[str, ...]:
    """Read names of sequences from a list, one per line; blank lines and repetitions do not count.

    Raises:
        DatasetError: With the line, for a name that cannot be that of a folder: a list never leads outside its data.
    """
    names = [line.strip() for line in split_lines(read_text(path))]
    for number, name in enumerate(names, 1):
        if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable() or len(name.encode()) > 200:
            raise DatasetError(f"{path}, line {number}: {name[:80]!r} cannot be the name of a sequence's folder")
    return tuple(dict.fromkeys(name for name in names if name))


def polygon_to_xywh(points: np.ndarray) -> np.ndarray:
    """Return the axis-aligned boxes (N, 4) around polygons (N, 2 K) given as x1, y1, x2, y2 ..."""
    xs, ys = points[:, 0::2], points[:, 1::2]
    low = np.stack([xs.min(axis=1), ys.min(axis=1)], axis=1)
    high = np.stack([xs.max(axis=1), ys.max(axis=1)], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite corners are refused by the caller
        return np.concatenate([low, high - low], axis=1)


def _choice(columns: Sequence[int]) -> str:
    """Return the row lengths that are allowed, in words."""
    return " or ".join(map(str, columns)) if len(columns) < 5 else f"{columns[0]} to {columns[-1]}"


def _written(form: str) -> str:
    """Return what an error adds about the form of a row, if there is one."""
    return f"; a row is {form}" if form else ""


def _check_number(word: str, where: str, error: type[EbmtrackError], form: str) -> None:
    try:
        if "_" not in word:
            float(word)
            return
    except ValueError:
        pass
    raise error(f"{where}: {word[:40]!r} is not a number{_written(form)}")
