"""A small reader of MATLAB's MAT-files of level 5 (what `save` writes by default, -v6 or -v7), for files from anywhere.

It knows numbers, text, cells and structs, in either byte order, compressed or not. Nothing in a file is run, and
nothing that a file claims about its size is believed: sizes are compared with the bytes that are there, a compressed
part may not grow beyond LARGEST_BYTES, and nesting and the number of arrays are limited. Source: MathWorks,
MAT-File Format, chapter 1, Level 5 MAT-File Format.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ebmtrack.errors import ResultError

LARGEST_BYTES = 16 << 20  # of a file, and of all that it inflates to; OTB's largest results take 1 MB
MOST_ARRAYS = 50_000  # cells and fields included; OTB's largest results have about 200
DEEPEST = 16

# Table 1-1, data types: their numbers, and how values are stored. Text comes as any of the last three, too.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

# Table 1-3, array types.
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OPAQUE = 17  # MATLAB's classes of its own (string, table, datetime ..); not in the documentation
_OTHERS = {3: "an object", 5: "a sparse matrix", 16: "a function handle", _OPAQUE: "an object"}
_COMPLEX = 0x08


@dataclass
class _Part:
    """A stretch of bytes that is read from front to back.

    at, end: positions in data. order: `<` or `>`. where: names the file in errors. left: how many arrays may still
    be read, one counter for all parts of a file.
    """

    data: memoryview
    at: int
    end: int
    order: str
    where: str
    left: list[int]

    def error(self, what: str) -> ResultError:
        """An error that says where this part stands."""
        return ResultError(f"{self.where}, byte {self.at}: {what}")

    def words(self, count: int) -> tuple[int, ...]:
        """The next unsigned 32-bit numbers, without moving on."""
        if self.end - self.at < 4 * count:
            raise self.error("the file ends in the middle of an entry")
        return struct.unpack_from(f"{self.order}{count}I", self.data, self.at)

    def entry(self) -> tuple[int, _Part]:
        """The type and the content of the next entry; this part moves on behind it."""
        kind, size = self.words(1)[0], 0
        if kind >> 16:  # a small entry: the size lies in the upper half, and the content behind it
            kind, size, start = kind & 0xFFFF, kind >> 16, self.at + 4
            if size > 4:
                raise self.error(f"a small entry of {size} bytes, which holds at most 4")
        else:
            (_, size), start = self.words(2), self.at + 8
        if size > self.end - start:
            raise self.error(f"an entry of {size} bytes where {max(self.end - start, 0)} are left")
        content = replace(self, at=start, end=start + size)
        padded = start + size if kind == _COMPRESSED else self.at + 8 * math.ceil((start + size - self.at) / 8)
        self.at = min(padded, self.end)
        return kind, content

    def numbers(self) -> np.ndarray:
        """The next entry as numbers (N,) in the type in which they are stored."""
        kind, content = self.entry()
        if kind not in _STORED:
            raise content.error(f"numbers expected, but the entry is of type {kind}")
        dtype = np.dtype(self.order + _STORED[kind])
        if (content.end - content.at) % dtype.itemsize:
            raise content.error(f"{content.end - content.at} bytes are no whole number of values")
        return np.frombuffer(content.data[content.at : content.end], dtype).astype(dtype.newbyteorder("="))

    def text(self) -> str:
        """The next entry as text."""
        kind, content = self.entry()
        if kind not in _TEXT:
            raise content.error(f"text expected, but the entry is of type {kind}")
        wide = "" if _TEXT[kind] in ("latin-1", "utf-8") else {"<": "-le", ">": "-be"}[self.order]
        try:
            return bytes(content.data[content.at : content.end]).decode(_TEXT[kind] + wide)
        except UnicodeDecodeError as reason:
            raise content.error(f"text that cannot be decoded ({reason.reason})") from reason


def read_variable(path: str | os.PathLike, name: str) -> object:
    """The variable of that name in a MAT-file; other variables are skipped unread.

    Numbers are arrays in MATLAB's shape and class (logical ones uint8); a row of text is a str, several rows a list
    of them; cells are object arrays; a struct is a dict, an array of structs an object array of dicts. Raises
    ResultError naming file and byte for everything else: files that are missing, damaged, too large, of another level
    (-v4, -v7.3), and contents that are neither.
    """
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else None
        data = path.read_bytes() if size is not None and size <= LARGEST_BYTES else b""
    except (OSError, ValueError) as reason:
        raise ResultError(f"{path}: cannot be read ({reason})") from reason
    if size is None:
        raise ResultError(f"{path}: no such file")
    if size > LARGEST_BYTES:
        raise ResultError(f"{path}: larger than {LARGEST_BYTES >> 20} MB")
    return _find(_open(data, str(path)), name)


def _open(data: bytes, where: str) -> _Part:
    """The part behind the header of 128 bytes, which tells the level and the byte order."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ResultError(f"{where}, byte 126: not a MAT-file of level 5; save it with -v7")
    level = struct.unpack_from(f"{order}H", data, 124)[0] >> 8
    if level != 1:
        raise ResultError(f"{where}, byte 124: a MAT-file of another level ({level}, HDF5 if 2); save it with -v7")
    return _Part(memoryview(data), 128, len(data), order, where, [MOST_ARRAYS])


def _find(file: _Part, name: str) -> object:
    """Look through the variables of a file."""
    room = LARGEST_BYTES
    while file.at < file.end:
        kind, content = file.entry()
        if kind == _COMPRESSED:
            kind, content = _inflate(content, room).entry()
            room -= len(content.data)
        if kind != _MATRIX:
            raise content.error(f"a variable expected, but the entry is of type {kind}")
        head = replace(content)
        if _head(head)[3] == name:
            return _matrix(content, 0)
    raise ResultError(f"{file.where}: holds no variable {name!r}")


def _inflate(packed: _Part, room: int) -> _Part:
    """What a compressed entry holds, if that takes at most `room` bytes."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed.data[packed.at : packed.end], room + 1)
    except zlib.error as reason:
        raise packed.error(f"damaged compressed data ({reason})") from reason
    if len(data) > room:
        raise packed.error(f"compressed data that inflates to more than {LARGEST_BYTES >> 20} MB")
    if not inflater.eof:
        raise packed.error("compressed data that ends too early")
    where = f"{packed.where}, inside the compressed data from byte {packed.at} on"
    return replace(packed, data=memoryview(data), at=0, end=len(data), where=where)


def _head(part: _Part) -> tuple[int, bool, tuple[int, ...], str]:
    """Class, whether complex, shape and name of the array that begins here; `part` moves on to its content."""
    flags = part.numbers()
    if len(flags) != 2 or flags.dtype != np.uint32:
        raise part.error("an array without its flags")
    if int(flags[0]) & 0xFF == _OPAQUE:  # these have no shape
        return _OPAQUE, False, (0, 0), part.text()
    shape = tuple(part.numbers().tolist())
    if not 2 <= len(shape) <= 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise part.error(f"an array of the impossible shape {shape[:8]}")
    if math.prod(n for n in shape if n) > LARGEST_BYTES:
        raise part.error(f"an array of shape {shape[:8]}, which is too large")
    return int(flags[0]) & 0xFF, bool(int(flags[0]) >> 8 & _COMPLEX), shape, part.text()


def _matrix(part: _Part, depth: int) -> object:
    """The value of an array."""
    part.left[0] -= 1
    if depth > DEEPEST or part.left[0] < 0:
        raise part.error(f"more than {DEEPEST} levels of nesting, or {MOST_ARRAYS} arrays")
    if part.at == part.end:
        return np.zeros((0, 0))  # what MATLAB writes for a cell or field that was never filled
    kind, is_complex, shape, _ = _head(part)
    if kind == _CELL:
        return _items(part, math.prod(shape), depth).reshape(shape, order="F")
    if kind == _STRUCT:
        return _struct(part, shape, depth)
    if kind == _CHAR:
        return _rows_of_text(part, shape)
    if kind not in _NUMBERS:
        raise part.error(f"{_OTHERS.get(kind, f'an array of class {kind}')} instead of numbers, text, cells or structs")
    values = _values(part, shape, kind)
    return _complex(values, _values(part, shape, kind)) if is_complex else values


def _complex(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    values = np.empty(real.shape, np.result_type(real, np.complex64))
    values.real, values.imag = real, imaginary
    return values


def _items(part: _Part, count: int, depth: int) -> np.ndarray:
    """The next `count` arrays, (N,) of objects."""
    if count > min((part.end - part.at) // 8, part.left[0]):
        raise part.error(f"{count} arrays announced where {part.end - part.at} bytes are left")
    values = np.empty(count, dtype=object)
    for i in range(count):
        kind, content = part.entry()
        if kind != _MATRIX:
            raise content.error(f"an array expected, but the entry is of type {kind}")
        values[i] = _matrix(content, depth + 1)
    return values


def _struct(part: _Part, shape: tuple[int, ...], depth: int) -> object:
    """One struct as a dict, several as an object array of dicts."""
    length, text, count = part.numbers().tolist(), part.text(), math.prod(shape)
    if len(length) != 1 or not isinstance(length[0], int) or length[0] < 1 or len(text) % length[0]:
        raise part.error("a struct whose field names have no common length")
    names = [text[i : i + length[0]].split("\0")[0] for i in range(0, len(text), length[0])]
    if len(set(names)) != len(names) or count > part.left[0]:
        raise part.error(f"{count} structs with the fields {names[:8]}")
    fields = _items(part, count * len(names), depth).reshape(count, len(names))
    found = np.empty(count, dtype=object)
    for i in range(count):
        found[i] = dict(zip(names, fields[i]))
    return found[0] if count == 1 else found.reshape(shape, order="F")


def _values(part: _Part, shape: tuple[int, ...], kind: int) -> np.ndarray:
    """Numbers in their class; they may be stored in a smaller type."""
    stored, dtype = part.numbers(), np.dtype(_NUMBERS[kind])
    if len(stored) != math.prod(shape):
        raise part.error(f"{len(stored)} values for an array of shape {shape[:8]}")
    if dtype.kind != "f" and stored.dtype.kind == "f":
        raise part.error("whole numbers that are stored as fractions")
    with np.errstate(over="ignore"):
        values = stored.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(values, stored):
        raise part.error(f"values that do not fit their class {dtype}")
    return values.reshape(shape, order="F")


def _rows_of_text(part: _Part, shape: tuple[int, ...]) -> str | list[str]:
    """Text of one row as a str, of several rows as a list; MATLAB stores it column by column."""
    rows, columns = shape[0], math.prod(shape[1:])
    text = part.text() if part.at < part.end else ""
    if len(shape) > 2 or len(text) > rows * columns or (rows > 1 and len(text) < rows * columns):
        raise part.error(f"text of {len(text)} characters in the shape {shape[:8]}")
    return text if rows <= 1 else [text[i::rows] for i in range(rows)]
