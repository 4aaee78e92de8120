"""Results in MAT-files of the OTB benchmark; SciPy reads them (extra `mat`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ResultError, missing_extra

Array = np.ndarray

LARGEST_BYTES = 16 << 20  # OTB's largest results take 1 MB


def read_boxes(path: Path) -> Array:
    """Return the boxes (N, 4) of one pass over a sequence from a file of the OTB benchmark.

    `results` is a cell of segments, structs with `res` (rows x, y, w, h), `type` (`rect` if missing), `len`,
    `annoBegin` and `startFrame`. The first segment is taken if it is the only one or the longest (temporal robustness,
    TRE: it begins at the first frame, the others later). Segments of one length, or with a `shiftType`, are runs from
    shifted boxes (spatial robustness, SRE) and no one-pass evaluation. Rows of NaN or without a positive size repeat
    the row before, as in the benchmark's toolkit. Raises ResultError for everything else, ConfigError without SciPy.
    """
    segments = _segments(path)
    lengths = [len(_res(segment, path)) for segment in segments]
    if "shiftType" in segments[0] or lengths[0] <= max(lengths[1:], default=0):
        raise ResultError(f"{path}: {len(segments)} runs from shifted boxes (SRE); only one pass (OPE) can be compared")
    begin, start = (_whole_number(segments[0], name, 1, path) for name in ("annoBegin", "startFrame"))
    if start != begin:
        raise ResultError(f"{path}: starts at frame {start} and not at the sequence's first, {begin}")
    boxes = _res(segments[0], path)
    bad = np.isnan(boxes).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    for i in np.flatnonzero(bad[1:]) + 1:
        boxes[i] = boxes[i - 1]
    return boxes


def _segments(path: Path) -> list[dict[str, Any]]:
    """Return the structs of `results`."""
    found: Any = _load(path).get("results")
    several = isinstance(found, (list, np.ndarray)) and np.ndim(found) == 1
    segments: list[Any] = list(found) if several else [found]
    if not segments or not all(isinstance(segment, dict) and "res" in segment for segment in segments):
        raise ResultError(f"{path}: not a result file of the OTB benchmark: 'results' holds no structs with 'res'")
    return segments


def _load(path: Path) -> dict[str, Any]:
    """Return the variables of a MAT-file; cells are lists and structs are dicts."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("scipy", f"{path}: a MAT-file") from error
    if not path.is_file():
        raise ResultError(f"{path}: no such file")
    if path.stat().st_size > LARGEST_BYTES:
        raise ResultError(f"{path}: larger than {LARGEST_BYTES >> 20} MB, so not a result of the OTB benchmark")
    try:
        return loadmat(path, simplify_cells=True)
    except Exception as reason:  # SciPy documents no errors of damaged files; nearly any class occurs
        raise ResultError(
            f"{path}: cannot be read as a MAT-file of level 5 ({type(reason).__name__}: {reason}); "
            "save it in MATLAB with -v7, or export it as text"
        ) from reason


def _res(segment: Mapping[str, Any], path: Path) -> Array:
    """Return the boxes (N, 4) of one segment, as many as its `len` says; ResultError for other types of results."""
    kind, rows = segment.get("type", "rect"), segment["res"]
    if not isinstance(kind, str) or kind != "rect":
        raise ResultError(
            f"{path}: results of type {str(kind)[:40]!r}; only 'rect' (rows of x, y, w, h) can be read: "
            "convert them with the benchmark's own toolkit"
        )
    rows = np.asarray(rows)
    rows = rows[None] if rows.shape == (4,) else rows  # SciPy drops axes of length 1
    if rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1] != 4:
        raise ResultError(f"{path}: 'res' holds no rows of four numbers")
    count = _whole_number(segment, "len", len(rows), path)
    if not 1 <= count <= len(rows):
        raise ResultError(f"{path}: {len(rows)} boxes for a sequence of {count} frames ('len')")
    return rows[:count].astype(np.float64)


def _whole_number(segment: Mapping[str, Any], name: str, default: int, path: Path) -> int:
    """Return a field that holds one whole number, or the default if there is no such field."""
    value = np.asarray(segment.get(name, default))
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all() or value.item() % 1:
        raise ResultError(f"{path}: {name!r} is no whole number")
    return int(value.item())
