"""Writes MAT-files of level 5 for tests, in either byte order and with values stored as small as MATLAB does."""

from __future__ import annotations

import struct
import zlib

import numpy as np

STORED = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}


def entry(kind: int, content: bytes, order: str) -> bytes:
    """A tag and its content: short ones in the small form, all but compressed ones padded to eight bytes."""
    if len(content) <= 4 and kind != 14:
        size_and_kind = (len(content), kind) if order == ">" else (kind, len(content))
        return struct.pack(f"{order}2H", *size_and_kind) + content.ljust(4, b"\0")
    padding = 0 if kind == 15 else -len(content) % 8
    return struct.pack(f"{order}2I", kind, len(content)) + content + bytes(padding)


def numbers(values: np.ndarray, order: str) -> bytes:
    """An entry of numbers, column by column."""
    name = values.dtype.str[1:]
    return entry(STORED[name], values.astype(order + name).tobytes("F"), order)


def smallest(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest type that holds them, as MATLAB stores them; others unchanged."""
    for name in ("u1", "i1", "u2", "i2", "i4"):
        limits = np.iinfo(name)
        if values.size and ((values >= limits.min) & (values <= limits.max) & (values % 1 == 0)).all():
            return values.astype(name)
    return values


def matrix(value: object, order: str = "<", name: str = "", small: bool = True) -> bytes:
    """An array: numbers (NumPy arrays), text (str), cells (object arrays), structs (dict, list of dicts)."""
    if isinstance(value, str):
        kind, shape, content = 4, (1, len(value)), entry(4, value.encode(f"utf-16-{'lb'[order == '>']}e"), order)
    elif isinstance(value, dict | list):
        kind, shape, content = 2, (1, 1 if isinstance(value, dict) else len(value)), fields(value, order, small)
    elif value.dtype == object:
        kind, shape = 1, value.shape
        content = b"".join(matrix(item, order, small=small) for item in value.ravel("F"))
    else:
        kind, shape = CLASSES[value.dtype.str[1:]], value.shape
        content = numbers(smallest(value) if small else value, order)
    head = numbers(np.array([kind, 0], np.uint32), order) + numbers(np.array(shape, np.int32), order)
    return entry(14, head + entry(1, name.encode(), order) + content, order)


def fields(value: dict | list, order: str, small: bool) -> bytes:
    """The content of a struct or of a row of structs."""
    rows = [value] if isinstance(value, dict) else value
    names = b"".join(name.encode().ljust(32, b"\0") for name in rows[0])
    items = b"".join(matrix(item, order, small=small) for row in rows for item in row.values())
    return numbers(np.array([32], np.int32), order) + entry(1, names, order) + items


def mat_file(variables: dict[str, object], order: str = "<", compressed: bool = False, small: bool = True) -> bytes:
    """A whole file."""
    parts = [matrix(value, order, name, small) for name, value in variables.items()]
    if compressed:
        parts = [entry(15, zlib.compress(part), order) for part in parts]
    return header(order) + b"".join(parts)


def header(order: str = "<", level: int = 0x0100) -> bytes:
    """The first 128 bytes."""
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file, written by a test".ljust(124) + struct.pack(f"{order}H", level) + mark
