"""Result files of ours: boxes, times, scores and a marker for each sequence.

`<out>/<dataset>/<params>_<run>/<sequence>.txt` has a box x, y, w, h per line, tab separated, with every digit. Beside
it are `<sequence>_time.txt` (seconds per frame) and `<sequence>_object_presence_scores.txt`, as pytracking has them,
`<sequence>_stages.txt` (seconds by stage of the tracker), `<sequence>_intervals.txt` (how sure the tracker was, see
`reliability`; `eval --intervals`), and `<sequence>.json`: the marker, written last, with a checksum of the boxes and
what made them. A sequence is done when its marker and its boxes agree. pytracking reads the folder as it is
(results_path = <out>, tracker name = <dataset>, parameter = <params>, run id = <run>). `foreign` reads other toolkits'
files and `export` (the verb `export-results`) writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ResultError
from ebmtrack.files import write_text
from ebmtrack.videos import text as tables

Array = np.ndarray

WORKERS = "workers"  # a row of the file of stages: how many workers shared the cores
SIDE_FILES = ("_time", "_object_presence_scores", "_stages", "_intervals")
SURENESS = 19  # columns of the file of intervals: see reliability.COLUMNS


@dataclass(frozen=True)
class Result:
    """The answers of one run over one sequence of N frames.

    Attributes:
        boxes_xywh: Boxes (N, 4) in pixels.
        times_s: Seconds per frame (N,), the first for the start; empty if unknown.
        scores: Confidence of the tracker (N,); empty if unknown.
        made_by: Weights, seed, versions and whatever else made it.
        stages_s: Seconds by stage of the tracker over all frames; empty if unknown.
        path: The file that it was read from.
        workers: Number of workers that shared the cores of the machine while it was made; 0 if unknown.
        sureness: How sure the tracker was (N, 19), see `reliability.COLUMNS`; no rows if unknown.
    """

    boxes_xywh: Array
    times_s: Array = field(default_factory=lambda: np.zeros(0))
    scores: Array = field(default_factory=lambda: np.zeros(0))
    made_by: Mapping[str, object] = field(default_factory=dict)
    stages_s: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None
    workers: int = 0
    sureness: Array = field(default_factory=lambda: np.zeros((0, SURENESS)))

    @property
    def frames_per_s(self) -> float:
        """Frames after the first over the time that they took; NaN if times are unknown."""
        later = self.times_s[1:]
        return len(later) / float(later.sum()) if len(later) and later.sum() > 0 else float("nan")


def format_boxes(boxes_xywh: Array, separator: str = "\t", integers: bool = False) -> str:
    """Return boxes (N, 4) as text, one per line.

    Args:
        boxes_xywh: The boxes.
        separator: Between the numbers of a box.
        integers: Truncate as pytracking does, instead of writing every digit that float64 needs.
    """
    cast = (lambda v: str(int(v))) if integers else (lambda v: repr(float(v)))
    return "".join(separator.join(map(cast, box)) + "\n" for box in np.asarray(boxes_xywh, np.float64))


def write_result(folder: str | os.PathLike, name: str, result: Result) -> None:
    """Write boxes, times, scores and, last, the marker of one sequence, each atomically.

    Raises ResultError, before anything is written, for boxes that are not finite numbers in rows of four.
    """
    folder, boxes = Path(folder), np.asarray(result.boxes_xywh, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ResultError(f"{folder / name}: expected boxes of shape (N, 4), got {boxes.shape}")
    if not np.isfinite(boxes).all():
        frame = int((~np.isfinite(boxes)).any(axis=1).argmax())
        raise ResultError(f"{folder / name}, frame {frame} (from 0): {boxes[frame].tolist()} is no box")
    text = format_boxes(boxes)
    write_text(box_path(folder, name), text)
    shared = [f"{WORKERS}\t{result.workers}\n"] * bool(result.workers)
    sides = (
        [f"{t:.6f}\n" for t in result.times_s],
        [f"{float(s)!r}\n" for s in result.scores],
        shared + [f"{stage}\t{seconds:.6f}\n" for stage, seconds in result.stages_s.items()],
        ["\t".join(f"{v:.7g}" for v in row) + "\n" for row in result.sureness],
    )
    for path, lines in zip(_side_paths(folder, name), sides):
        if lines:
            write_text(path, "".join(lines))
        else:
            path.unlink(missing_ok=True)  # that of an earlier attempt, which was killed before its marker
    marker = {"frames": len(boxes), "made_by": dict(result.made_by), "sha256": _sha256(text.encode())}
    write_text(marker_path(folder, name), json.dumps(marker, indent=1, sort_keys=True) + "\n")


def remove_result(folder: str | os.PathLike, name: str) -> None:
    """Remove what `write_result` wrote of one sequence, the marker first, so that a killed removal leaves no result."""
    for path in (marker_path(folder, name), box_path(folder, name), *_side_paths(folder, name)):
        path.unlink(missing_ok=True)


def _side_paths(folder: str | os.PathLike, name: str) -> list[Path]:
    return [Path(folder) / f"{name}{end}.txt" for end in SIDE_FILES]


def box_path(folder: str | os.PathLike, name: str) -> Path:
    """Return the file of the boxes of a sequence."""
    return Path(folder) / f"{name}.txt"


def marker_path(folder: str | os.PathLike, name: str) -> Path:
    """Return the file of the marker of a sequence."""
    return Path(folder) / f"{name}.json"


def read_marker(folder: str | os.PathLike, name: str) -> dict[str, Any] | None:
    """Return the marker of a finished sequence; None if it is missing, malformed or disagrees with the boxes."""
    try:
        marker = json.loads(marker_path(folder, name).read_bytes())
        boxes = box_path(folder, name).read_bytes()
    except (OSError, ValueError, RecursionError):
        return None  # not there, or damaged: in both cases the sequence is to be run
    good = isinstance(marker, dict) and isinstance(marker.get("made_by"), dict)
    return marker if good and marker.get("sha256") == _sha256(boxes) else None


def read_result(folder: str | os.PathLike, name: str) -> Result:
    """Return a result of ours; raise ResultError if it is missing, unfinished or malformed."""
    marker = read_marker(folder, name)
    if marker is None:
        raise ResultError(f"{box_path(folder, name)}: missing, unfinished or changed; run the sequence again")
    boxes = tables.read_table(box_path(folder, name), (4,), ResultError)
    times = read_column(Path(folder) / f"{name}_time.txt", len(boxes))
    scores = read_column(Path(folder) / f"{name}_object_presence_scores.txt", len(boxes))
    stages = read_stages(Path(folder) / f"{name}_stages.txt")
    workers = int(stages.pop(WORKERS, 0))
    sureness = read_sureness(Path(folder) / f"{name}_intervals.txt", len(boxes))
    return Result(boxes, times, scores, marker["made_by"], stages, box_path(folder, name), workers, sureness)


def read_column(path: str | os.PathLike, length: int | None = None) -> Array:
    """Return one number per line (N,), the first of several, as the got10k toolkit writes times of several runs.

    Args:
        path: The file.
        length: Number of lines to expect; None for any.

    Returns:
        The numbers; none if the file is missing or has another length, because times and scores are extras.

    Raises:
        ResultError: The file holds something else.
    """
    if not Path(path).is_file():
        return np.zeros(0)
    column = tables.read_table(path, range(1, 65), ResultError, empty=True)[:, 0]
    return column if length is None or len(column) == length else np.zeros(0)


def read_sureness(path: Path, length: int) -> Array:
    """Return the rows (length, 19) of a file of intervals; none if it is missing.

    Args:
        path: The file.
        length: Number of rows to expect.

    Raises:
        ResultError: The file has another number of rows, a lost-probability outside 0 to 1, or a scale that is not
            positive.
    """
    if not path.is_file():
        return np.zeros((0, SURENESS))
    rows, mend = tables.read_table(path, (SURENESS,), ResultError), "run the sequence again, or remove the file"
    if len(rows) != length:
        raise ResultError(f"{path}: {len(rows)} rows for {length} boxes; {mend}")
    said, scale = rows[:, 0], rows[:, 5:9]
    for bad, what in (
        ((said < 0) | (said > 1), "a lost-probability (first number) outside 0 to 1"),
        (((scale <= 0) | np.isinf(scale)).any(axis=1), "a scale (numbers 6 to 9) that is not positive"),
    ):
        if bad.any():
            raise ResultError(f"{path}, line {bad.argmax() + 1}: {what}; {mend}")
    return rows


def read_stages(path: str | os.PathLike) -> dict[str, float]:
    """Return seconds by stage from rows of a name, a tab and a number; none if the file is missing.

    Raises ResultError for other rows.
    """
    stages = {}
    lines = tables.split_lines(tables.read_text(path, ResultError)) if Path(path).is_file() else []
    for number, line in enumerate(lines, 1):
        stage, _, seconds = line.rpartition("\t")
        stages[stage] = float(tables.to_numbers([[seconds]], path, ResultError, number)[0, 0])
    return stages


def run_folders(path: str | os.PathLike) -> dict[int, Path]:
    """Return the folders of runs `path_000`, `path_001` .. beside a path by the number of the run, in order."""
    path = Path(path)
    pattern = re.compile(re.escape(path.name) + r"_(\d{3,})$")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    found = {int(match[1]): p for p in beside if (match := pattern.match(p.name)) and p.is_dir()}
    return dict(sorted(found.items()))


def check_names(names: Iterable[str]) -> None:
    """Raise ResultError if files of two sequences would have one name: `lap_time.txt` holds the times of `lap`."""
    known = set(names)
    for name in sorted(known):
        for end in SIDE_FILES:
            if name + end in known:
                raise ResultError(f"sequences {name!r} and {name + end!r} would share a file; rename one of them")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
