"""Result files: ours, and those of pytracking, the got10k toolkit, pysot and OTB.

Ours: `<out>/<dataset>/<params>_<run>/<sequence>.txt`, a box x, y, w, h per line, tab separated, every digit kept.
Beside it `<sequence>_time.txt` (seconds per frame) and `<sequence>_object_presence_scores.txt`, as pytracking has
them, `<sequence>_stages.txt` (seconds by stage of the tracker), and `<sequence>.json`: the marker, written last,
with a checksum of the boxes and what made them. A sequence is done when its marker and its boxes agree. pytracking
reads the folder as it is (results_path = <out>, tracker name = <dataset>, parameter = <params>, run id = <run>);
`export` writes the layouts of both toolkits.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import mat_file, tables
from ebmtrack.files import write_text

Array = np.ndarray

_SIDE_FILES = ("_time", "_object_presence_scores", "_stages")
_OTHER_NAMES = {"human4_2": "human4"}  # OTB's Human4 has its boxes in groundtruth_rect.2.txt
_PREFIXES = ("uav_", "nfs_", "tpl_")  # pytracking puts the data set's name before some sequences


@dataclass(frozen=True)
class Result:
    """One run over one sequence.

    boxes_xywh (N, 4) in pixels; times_s (N,) seconds per frame, the first one for the start, empty where
    unknown; scores (N,) the tracker's confidence, empty where unknown; made_by: what made it (weights, seed,
    versions); stages_s: seconds by stage of the tracker over all frames but the first, empty where unknown.
    """

    boxes_xywh: Array
    times_s: Array = field(default_factory=lambda: np.zeros(0))
    scores: Array = field(default_factory=lambda: np.zeros(0))
    made_by: Mapping[str, object] = field(default_factory=dict)
    stages_s: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None

    @property
    def frames_per_s(self) -> float:
        """Frames after the first over the time they took; NaN where times are unknown."""
        later = self.times_s[1:]
        return len(later) / float(later.sum()) if len(later) and later.sum() > 0 else float("nan")


def format_boxes(boxes_xywh: Array, separator: str = "\t", integers: bool = False) -> str:
    """Boxes (N, 4) as text, one per line; every digit that float64 needs, or truncated to integers as
    pytracking does."""
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
    if len(result.times_s):
        write_text(folder / f"{name}_time.txt", "".join(f"{t:.6f}\n" for t in result.times_s))
    if len(result.scores):
        scores = "".join(f"{float(s)!r}\n" for s in result.scores)
        write_text(folder / f"{name}_object_presence_scores.txt", scores)
    if result.stages_s:
        lines = [f"{stage}\t{seconds:.6f}\n" for stage, seconds in result.stages_s.items()]
        write_text(folder / f"{name}_stages.txt", "".join(lines))
    marker = {"frames": len(boxes), "made_by": dict(result.made_by), "sha256": _sha256(text.encode())}
    write_text(marker_path(folder, name), json.dumps(marker, indent=1, sort_keys=True) + "\n")


def remove_result(folder: str | os.PathLike, name: str) -> None:
    """Remove what `write_result` wrote of one sequence, the marker first: killed on the way, it is unfinished."""
    for path in (marker_path(folder, name), box_path(folder, name), *_side_paths(folder, name)):
        path.unlink(missing_ok=True)


def _side_paths(folder: str | os.PathLike, name: str) -> list[Path]:
    return [Path(folder) / f"{name}{end}.txt" for end in _SIDE_FILES]


def box_path(folder: str | os.PathLike, name: str) -> Path:
    """Where the boxes of a sequence lie in our layout."""
    return Path(folder) / f"{name}.txt"


def marker_path(folder: str | os.PathLike, name: str) -> Path:
    """Where the marker of a sequence lies in our layout."""
    return Path(folder) / f"{name}.json"


def read_marker(folder: str | os.PathLike, name: str) -> dict | None:
    """The marker of a finished sequence, or None where it is missing, malformed or disagrees with the
    boxes."""
    try:
        marker = json.loads(marker_path(folder, name).read_bytes())
        boxes = box_path(folder, name).read_bytes()
    except (OSError, ValueError, RecursionError):
        return None  # not there, or damaged: in both cases the sequence is to be run
    good = isinstance(marker, dict) and isinstance(marker.get("made_by"), dict)
    return marker if good and marker.get("sha256") == _sha256(boxes) else None


def read_result(folder: str | os.PathLike, name: str) -> Result:
    """A result in our layout. Raises ResultError where it is missing, unfinished or malformed."""
    marker = read_marker(folder, name)
    if marker is None:
        raise ResultError(f"{box_path(folder, name)}: missing, unfinished or changed; run the sequence again")
    boxes = read_boxes(box_path(folder, name))
    times = read_column(Path(folder) / f"{name}_time.txt", len(boxes))
    scores = read_column(Path(folder) / f"{name}_object_presence_scores.txt", len(boxes))
    stages = read_stages(Path(folder) / f"{name}_stages.txt")
    return Result(boxes, times, scores, marker["made_by"], stages, box_path(folder, name))


def read_boxes(path: str | os.PathLike) -> Array:
    """Boxes (N, 4) from a result file of any of the toolkits.

    Rows of 4 (x, y, w, h) or 8 numbers (polygon, its bounding box is taken), separated by tabs, commas or
    spaces; whole files of VOT or pysot with rows of one number (1 started, 2 failed, 0 skipped), which take
    the box before them, or an empty one; `.mat` files of the OTB benchmark (see `_read_otb_mat`). Coordinates are left
    as they are. Raises ResultError naming file and line.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return _read_otb_mat(path)
    rows = [line.translate(tables._SEPARATORS).split() for line in _lines(path)]
    if not rows:
        raise ResultError(f"{path}: is empty; run the sequence again")
    widths = {len(row) for row in rows}
    if widths in ({1, 4}, {1, 8}):
        return _read_vot_rows(rows, path)
    table = tables.read_table(path, (4, 8), ResultError)
    return tables.polygon_to_xywh(table) if table.shape[1] == 8 else table


def read_column(path: str | os.PathLike, length: int | None = None) -> Array:
    """One number per line (the first of several, as the got10k toolkit writes times of several runs) -> (N,).

    Empty where the file is missing, or where it does not have the expected length: times and scores are
    extras. Raises ResultError for a file that holds something else.
    """
    if not Path(path).is_file():
        return np.zeros(0)
    column = tables.read_table(path, range(1, 65), ResultError, empty=True)[:, 0]
    return column if length is None or len(column) == length else np.zeros(0)


def read_stages(path: str | os.PathLike) -> dict[str, float]:
    """Seconds by stage from rows of a name, a tab and a number; empty where the file is missing.

    Raises ResultError for other rows.
    """
    stages = {}
    for number, line in enumerate(_lines(Path(path)) if Path(path).is_file() else (), 1):
        stage, _, seconds = line.rpartition("\t")
        stages[stage] = float(tables.to_numbers([[seconds]], path, ResultError, number)[0, 0])
    return stages


def canonical(name: str) -> str:
    """A sequence's name without what toolkits vary: case, `-`, `.` and blanks for `_`, pytracking's
    prefixes."""
    key = re.sub(r"[-. ]+", "_", name.lower())
    key = next((key[len(p) :] for p in _PREFIXES if key.startswith(p)), key)
    return _OTHER_NAMES.get(key, key)


@dataclass(frozen=True)
class ResultFolder:
    """Somebody's results on disk, in any of the layouts: which file holds which sequence and run.

    label: the name in plots. files: canonical sequence name -> files of the runs in order.
    """

    label: str
    path: Path
    files: Mapping[str, tuple[Path, ...]]

    def runs(self, sequence: str) -> int:
        """How many runs there are of a sequence."""
        return len(self._paths(sequence))

    def _paths(self, sequence: str) -> list[Path]:
        """Files of a sequence: those of exactly its name, if there are such, else those of another spelling."""
        paths = list(self.files.get(canonical(sequence), ()))
        exact = [p for p in paths if sequence in (p.stem, p.parent.name, re.sub(r"_\d{3}$", "", p.stem))]
        return exact or paths

    def read(self, sequence: str, run: int = 0) -> Result:
        """One run over one sequence. Raises ResultError where there is none, or where our marker disagrees."""
        paths = self._paths(sequence)
        if run >= len(paths):
            raise ResultError(f"{self.path}: no result of {sequence!r}, run {run}; run it or leave it out")
        path = paths[run]
        boxes = read_boxes(path)
        marker = read_marker(path.parent, path.stem)
        if marker is None and marker_path(path.parent, path.stem).is_file():
            raise ResultError(f"{path}: changed since it was written, or its marker is damaged; run the sequence again")
        columns = [read_column(times, len(boxes)) for times in _time_paths(path)]
        times = next((column for column in columns if len(column)), np.zeros(0))
        stages = read_stages(path.with_name(f"{path.stem}_stages.txt"))
        return Result(boxes, times, made_by=marker["made_by"] if marker else {}, stages_s=stages, path=path)


def find_results(path: str | os.PathLike, label: str | None = None) -> ResultFolder:
    """Look through a folder of results of one tracker, or of its runs.

    Recognised below `path`: `<seq>.txt`; `<seq>/<seq>_001.txt` (got10k, pysot); `<seq>_001.txt`; `<seq>.mat` and
    `<seq>_<tracker>.mat` (OTB); `baseline/<seq>/<seq>_001.txt` (VOT); and folders of runs `path_000`, `path_001` ..
    beside it (ours, pytracking). OTB keeps all trackers in one folder: there `path` is `<folder>/<tracker>`, although
    no such folder exists. Raises ResultError where nothing is found.
    """
    path = Path(path)
    folders = [path] if path.is_dir() else []
    pattern = re.compile(re.escape(path.name) + r"_\d{3,}$")
    if path.parent.is_dir():
        folders += sorted(p for p in path.parent.iterdir() if p.is_dir() and pattern.match(p.name))
    files: dict[str, list[Path]] = {}
    for folder in folders:
        for key, file in _files_of(folder):
            files.setdefault(key, []).append(file)
    if not files and path.parent.is_dir():
        beside = list(path.parent.glob(f"*_{glob.escape(path.name)}.mat"))
        files = {key: [file] for key, file in _mat_files(beside, f"_{path.name}")}
    if not files:
        raise ResultError(f"{path}: no result files here; expected <sequence>.txt or a toolkit's layout")
    return ResultFolder(label or path.name, path, {key: tuple(found) for key, found in files.items()})


def export(
    results: Mapping[str, Sequence[Result]],
    out: str | os.PathLike,
    layout: str,
    tracker: str = "ebmtrack",
    params: str = "default",
    integers: bool = False,
    prefix: str = "",
) -> list[Path]:
    """Write results (sequence -> runs) in another toolkit's layout and return the box files.

    `pytracking`: `<out>/<tracker>/<params>_<run>/<prefix><seq>.txt`, tabs; `got10k` (GOT-10k):
    `<out>/<tracker>/<seq>/ <seq>_001.txt`, commas; `got10k-otb` (the toolkit's OTB-like sets):
    `<out>/<tracker>/<seq>.txt`, first run only. integers: truncate, as pytracking writes them; the default
    keeps fractions. Raises ConfigError for a layout.
    """
    if layout not in ("pytracking", "got10k", "got10k-otb"):
        raise ConfigError(f"unknown layout {layout!r}: choose pytracking, got10k or got10k-otb")
    written, base = [], Path(out) / tracker
    for name, runs in results.items():
        for run, result in enumerate(runs[:1] if layout == "got10k-otb" else runs):
            boxes, times = _export_paths(base, layout, prefix + name, params, run)
            separator = "\t" if layout == "pytracking" else ","
            write_text(boxes, format_boxes(result.boxes_xywh, separator, integers))
            written.append(boxes)
            if len(result.times_s):
                same = [r.times_s for r in runs] if layout == "got10k" else [result.times_s]
                rows = np.stack([t for t in same if len(t) == len(result.times_s)], axis=1)
                write_text(times, "".join(",".join(f"{t:.8f}" for t in row) + "\n" for row in rows))
    return written


def _export_paths(base: Path, layout: str, name: str, params: str, run: int) -> tuple[Path, Path]:
    """Where another toolkit expects boxes and times."""
    if layout == "pytracking":
        return base / f"{params}_{run:03d}" / f"{name}.txt", base / f"{params}_{run:03d}" / f"{name}_time.txt"
    if layout == "got10k":
        return base / name / f"{name}_{run + 1:03d}.txt", base / name / f"{name}_time.txt"
    return base / f"{name}.txt", base / "times" / f"{name}_time.txt"


def _files_of(folder: Path) -> Iterable[tuple[str, Path]]:
    """Canonical names and box files of one folder, in order of name and run."""
    if (folder / "baseline").is_dir():
        folder = folder / "baseline"
    entries = sorted(folder.iterdir())
    mat_files = [entry for entry in entries if entry.suffix == ".mat" and not entry.name.startswith(".")]
    yield from _mat_files(mat_files, _shared_end(mat_files))
    for entry in entries:
        if entry.is_dir():
            stem = re.compile(re.escape(entry.name) + r"_\d{3}\.txt$")
            inside = [f for f in sorted(entry.iterdir()) if stem.match(f.name)]
            yield from ((canonical(entry.name), file) for file in inside)
        elif entry.suffix == ".txt" and not entry.name.startswith(".") and not _is_side_file(entry):
            yield canonical(re.sub(r"_\d{3}$", "", entry.stem) if _is_numbered(entry) else entry.stem), entry


def _mat_files(files: list[Path], end: str) -> Iterable[tuple[str, Path]]:
    """Canonical names and files of OTB's results, whose stems may end in the tracker's name."""
    yield from ((canonical(path.stem.removesuffix(end)), path) for path in sorted(files))


def _shared_end(files: list[Path]) -> str:
    """`_<tracker>` where all of several stems end in it, else nothing."""
    shared = os.path.commonprefix([path.stem[::-1] for path in files])[::-1] if len(files) > 1 else ""
    _, mark, tracker = shared.partition("_")
    return mark + tracker if tracker and not tracker.isdigit() else ""


def _is_side_file(path: Path) -> bool:
    """Times and scores, told from a sequence of such a name by the boxes beside them."""
    return any(
        path.stem.endswith(end) and path.with_name(path.stem[: -len(end)] + ".txt").exists() for end in _SIDE_FILES
    ) or path.stem.endswith("_time")


def _is_numbered(path: Path) -> bool:
    """Whether `<seq>_002.txt` is a run of `<seq>`: true where `<seq>_001.txt` lies beside it."""
    match = re.match(r"(.*)_(\d{3})$", path.stem)
    return bool(match) and path.with_name(f"{match[1]}_001{path.suffix}").exists()


def _time_paths(path: Path) -> tuple[Path, ...]:
    stem = re.sub(r"_\d{3}$", "", path.stem)
    return (
        path.with_name(f"{path.stem}_time.txt"),
        path.with_name(f"{stem}_time.txt"),
        path.parent / "times" / f"{path.stem}_time.txt",
    )


def _lines(path: Path) -> list[str]:
    return tables.split_lines(tables.read_text(path, ResultError))


def _read_vot_rows(rows: list[list[str]], path: Path) -> Array:
    """Rows of one number among rows of four or eight: the box before is repeated, an empty one stands at the
    start."""
    boxes, last = [], np.zeros(4)
    for number, row in enumerate(rows, 1):
        values = tables.to_numbers([row], path, ResultError, number)
        if values.shape[1] == 8:
            last = tables.polygon_to_xywh(values)[0]
        elif values.shape[1] == 4:
            last = values[0]
        boxes.append(last)
    return np.stack(boxes)


def _read_otb_mat(path: Path) -> Array:
    """The boxes (N, 4) of one pass over a sequence in a MAT-file of the OTB benchmark.

    `results` is a cell of segments, structs with `res` (rows x, y, w, h), `type` (`rect` if missing), `len`,
    `annoBegin` and `startFrame`. The first segment is taken if it is the only one or the longest (temporal robustness,
    TRE: it begins at the first frame, the others later); segments of one length, or with a `shiftType`, are runs from
    shifted boxes (spatial robustness, SRE) and no one-pass evaluation. Rows of NaN or without a positive size repeat
    the row before, as in the benchmark's toolkit. Raises ResultError for everything else.
    """
    segments = mat_file.read_variable(path, "results")
    segments = list(segments.flat) if isinstance(segments, np.ndarray) else [segments]
    if not segments or not all(isinstance(segment, dict) and "res" in segment for segment in segments):
        raise ResultError(f"{path}: not a result file of the OTB benchmark: 'results' holds no structs with 'res'")
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


def _res(segment: Mapping[str, object], path: Path) -> Array:
    """The boxes (N, 4) of one segment, as many as its `len` says. Raises ResultError for other types of results."""
    kind, rows = segment.get("type", "rect"), segment["res"]
    if kind != "rect":
        raise ResultError(
            f"{path}: results of type {str(kind)[:40]!r}; only 'rect' (rows of x, y, w, h) can be read: "
            "convert them with the benchmark's own toolkit"
        )
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1:] != (4,):
        raise ResultError(f"{path}: 'res' holds no rows of four numbers")
    count = _whole_number(segment, "len", len(rows), path)
    if not 1 <= count <= len(rows):
        raise ResultError(f"{path}: {len(rows)} boxes for a sequence of {count} frames ('len')")
    return rows[:count].astype(np.float64)


def _whole_number(segment: Mapping[str, object], name: str, default: int, path: Path) -> int:
    """A field that holds one whole number, or the default where there is no such field."""
    value = np.asarray(segment.get(name, default))
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all() or value.item() % 1:
        raise ResultError(f"{path}: {name!r} is no whole number")
    return int(value.item())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
