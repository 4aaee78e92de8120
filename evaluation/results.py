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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import mat_file
from ebmtrack.files import write_text
from ebmtrack.videos import text as tables
from ebmtrack.videos.spelling import canonical, name_in

Array = np.ndarray

_SIDE_FILES = ("_time", "_object_presence_scores", "_stages")


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
    rows = [tables.split_words(line) for line in _lines(path)]
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


@dataclass(frozen=True)
class ResultFile:
    """A file of boxes: the sequence as it is spelled there, and the run (from 0)."""

    sequence: str
    run: int
    path: Path


@dataclass(frozen=True)
class ResultFolder:
    """Somebody's results on disk, in any of the layouts: which file holds which sequence and run.

    label: the name in plots. files: canonical sequence name -> files in order of name and run. names: the data set's
    sequences, where known: a file that is called as one of them holds no other, whatever the spelling.
    """

    label: str
    path: Path
    files: Mapping[str, tuple[ResultFile, ...]]
    names: frozenset[str] = frozenset()

    def run_numbers(self, sequence: str) -> tuple[int, ...]:
        """Which runs there are of a sequence, in order; a run that was lost leaves a gap. Raises ResultError where two
        files hold the same one."""
        return tuple(sorted(self._by_run(sequence)))

    def _by_run(self, sequence: str) -> dict[int, ResultFile]:
        """Files of a sequence: those of exactly its name, if there are such, else those of another spelling."""
        files = self.files.get(canonical(sequence), ())
        exact = [file for file in files if file.sequence == sequence]
        found: dict[int, ResultFile] = {}
        others = [file for file in files if file.sequence not in self.names or sequence not in self.names]
        for file in exact or others:
            if file.run in found:
                raise ResultError(f"{found[file.run].path} and {file.path}: both hold run {file.run} of {sequence!r}")
            found[file.run] = file
        return found

    def read(self, sequence: str, run: int | None = None) -> Result:
        """One run over one sequence, by default the first there is. Raises ResultError where there is none, or where
        our marker disagrees."""
        files = self._by_run(sequence)
        file = files.get(min(files, default=0) if run is None else run)
        if file is None:
            raise ResultError(f"{self.path}: no result of {sequence!r}, run {run or 0}; run it or leave it out")
        path = file.path
        boxes = read_boxes(path)
        marker = read_marker(path.parent, path.stem)
        if marker is None and marker_path(path.parent, path.stem).is_file():
            raise ResultError(f"{path}: changed since it was written, or its marker is damaged; run the sequence again")
        columns = [read_column(times, len(boxes)) for times in _time_paths(file)]
        times = next((column for column in columns if len(column)), np.zeros(0))
        stages = read_stages(path.with_name(f"{path.stem}_stages.txt"))
        return Result(boxes, times, made_by=marker["made_by"] if marker else {}, stages_s=stages, path=path)

    def is_ours(self, sequence: str, run: int) -> bool:
        """Whether `ebmtrack eval` wrote a result: its marker lies beside it."""
        path = self._by_run(sequence)[run].path
        return marker_path(path.parent, path.stem).is_file()


def find_results(path: str | os.PathLike, label: str | None = None, names: Iterable[str] = ()) -> ResultFolder:
    """Look through a folder of results of one tracker, or of its runs.

    Recognised below `path`: `<seq>.txt`; `<seq>/<seq>_001.txt` (got10k, pysot); `<seq>_001.txt`; `<seq>.mat` and
    `<seq>_<tracker>.mat` (OTB); `baseline/<seq>/<seq>_001.txt` (VOT); and folders of runs `path_000`, `path_001` ..
    beside it (ours, pytracking), for sequences that are not in `path` itself. OTB keeps all trackers in one folder:
    there `path` is `<folder>/<tracker>`, although no such folder exists. names: the data set's sequences; they tell
    `car_001`, a sequence, from the first run over `car`. In our own folders, those with markers, nothing is guessed.
    Raises ResultError where nothing is found.
    """
    path, names = Path(path), frozenset(names)
    known = frozenset(canonical(name) for name in names)
    files = _by_name(_files_of(path, 0, known) if path.is_dir() else ())
    runs = (file for run, folder in run_folders(path).items() for file in _files_of(folder, run, known))
    files = {**_by_name(runs), **files}
    if not files and path.parent.is_dir():
        beside = list(path.parent.glob(f"*_{glob.escape(path.name)}.mat"))
        files = _by_name(_mat_files(beside, f"_{path.name}", 0))
    if not files:
        raise ResultError(f"{path}: no result files here; expected <sequence>.txt or a toolkit's layout")
    return ResultFolder(label or path.name, path, files, names)


def run_folders(path: str | os.PathLike) -> dict[int, Path]:
    """The folders of runs `path_000`, `path_001` .. beside a path, by the number of the run, in order."""
    path = Path(path)
    pattern = re.compile(re.escape(path.name) + r"_(\d{3,})$")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    found = {int(match[1]): p for p in beside if (match := pattern.match(p.name)) and p.is_dir()}
    return dict(sorted(found.items()))


def check_names(names: Iterable[str]) -> None:
    """Raise ResultError where files of two sequences would have one name: `lap_time.txt` holds the times of `lap`."""
    names = set(names)
    for name in sorted(names):
        for end in _SIDE_FILES:
            if name + end in names:
                raise ResultError(f"sequences {name!r} and {name + end!r} would share a file; rename one of them")


def export(
    results: Mapping[str, Mapping[int, Result]],
    out: str | os.PathLike,
    layout: str,
    tracker: str = "ebmtrack",
    params: str = "default",
    integers: bool = False,
    dataset: str = "",
) -> list[Path]:
    """Write results (sequence -> number of the run -> result) in another toolkit's layout and return the box files.

    `pytracking`: `<out>/<tracker>/<params>_<run>/<seq>.txt`, tabs; `got10k` (GOT-10k):
    `<out>/<tracker>/<seq>/<seq>_001.txt`, commas; `got10k-otb` (the toolkit's OTB-like sets):
    `<out>/<tracker>/<seq>.txt`, the first run only (`layout_runs`). integers: truncate, as pytracking writes them; the
    default keeps fractions. dataset: whose sequences they are, for the toolkit's names of them (`name_in`). Raises
    ConfigError for a layout.
    """
    if layout not in ("pytracking", "got10k", "got10k-otb"):
        raise ConfigError(f"unknown layout {layout!r}: choose pytracking, got10k or got10k-otb")
    written, base = [], Path(out) / tracker
    wanted = layout_runs(layout, {run for runs in results.values() for run in runs})
    for name, runs in results.items():
        for run, result in ((run, runs[run]) for run in wanted if run in runs):
            boxes, times = _export_paths(base, layout, name_in(layout, dataset, name), params, run)
            separator = "\t" if layout == "pytracking" else ","
            write_text(boxes, format_boxes(result.boxes_xywh, separator, integers))
            written.append(boxes)
            if len(result.times_s):
                same = [runs[number].times_s for number in sorted(runs)] if layout == "got10k" else [result.times_s]
                rows = np.stack([t for t in same if len(t) == len(result.times_s)], axis=1)
                write_text(times, "".join(",".join(f"{t:.8f}" for t in row) + "\n" for row in rows))
    return written


def layout_runs(layout: str, numbers: Iterable[int]) -> tuple[int, ...]:
    """Those of the runs for which a layout has room, in order: the first alone where it has one per sequence."""
    return tuple(sorted(numbers))[: 1 if layout == "got10k-otb" else None]


def _export_paths(base: Path, layout: str, name: str, params: str, run: int) -> tuple[Path, Path]:
    """Where another toolkit expects boxes and times."""
    if layout == "pytracking":
        return base / f"{params}_{run:03d}" / f"{name}.txt", base / f"{params}_{run:03d}" / f"{name}_time.txt"
    if layout == "got10k":
        return base / name / f"{name}_{run + 1:03d}.txt", base / name / f"{name}_time.txt"
    return base / f"{name}.txt", base / "times" / f"{name}_time.txt"


def _by_name(files: Iterable[ResultFile]) -> dict[str, tuple[ResultFile, ...]]:
    found: dict[str, list[ResultFile]] = {}
    for file in files:
        found.setdefault(canonical(file.sequence), []).append(file)
    return {key: tuple(those) for key, those in found.items()}


def _files_of(folder: Path, run: int, known: frozenset[str]) -> Iterable[ResultFile]:
    """Box files of one folder in order of name and run; runs inside it count on from `run`. known: canonical names of
    the data set."""
    if (folder / "baseline").is_dir():
        folder = folder / "baseline"
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    texts = [entry for entry in entries if entry.suffix == ".txt" and entry.is_file()]
    marked = [entry for entry in texts if marker_path(folder, entry.stem).is_file()]
    if marked or (folder / ".claims").is_dir():  # ours: the stem is the name, and what has no marker is not finished
        yield from (ResultFile(entry.stem, run, entry) for entry in marked)
        return
    mat_files = [entry for entry in entries if entry.suffix == ".mat"]
    yield from _mat_files(mat_files, _shared_end(mat_files), run)
    for entry in entries:
        if entry.is_dir():
            numbers = {f: _split_number(f.stem)[1] for f in sorted(entry.glob(f"{glob.escape(entry.name)}_???.txt"))}
            numbers = {f: number for f, number in numbers.items() if number >= 0}
            start = min([1, *numbers.values()])
            yield from (ResultFile(entry.name, run + number - start, f) for f, number in numbers.items())
    yield from _text_files(texts, run, known)


def _text_files(texts: list[Path], run: int, known: frozenset[str]) -> Iterable[ResultFile]:
    """Box files among the text files of one folder: `<seq>.txt` or `<seq>_001.txt`, without times and scores."""
    stems = {path.stem for path in texts}
    for path in texts:
        name, number = _split_number(path.stem)
        if canonical(path.stem) in known:
            yield ResultFile(path.stem, run, path)
        elif _is_side_file(path.stem, stems):
            continue
        elif number >= 0 and name not in stems and (canonical(name) in known or f"{name}_001" in stems):
            yield ResultFile(name, run + number - (f"{name}_000" not in stems), path)
        else:
            yield ResultFile(path.stem, run, path)


def _split_number(stem: str) -> tuple[str, int]:
    """`car_002` -> `car`, 2; a stem without such an end and -1."""
    match = re.fullmatch(r"(.+)_(\d{3})", stem)
    return (match[1], int(match[2])) if match else (stem, -1)


def _mat_files(files: list[Path], end: str, run: int) -> Iterable[ResultFile]:
    """OTB's results, whose stems may end in the tracker's name."""
    yield from (ResultFile(path.stem.removesuffix(end), run, path) for path in sorted(files))


def _shared_end(files: list[Path]) -> str:
    """`_<tracker>` where all of several stems end in it, else nothing."""
    shared = os.path.commonprefix([path.stem[::-1] for path in files])[::-1] if len(files) > 1 else ""
    _, mark, tracker = shared.partition("_")
    return mark + tracker if tracker and not tracker.isdigit() else ""


def _is_side_file(stem: str, stems: set[str]) -> bool:
    """Times and scores, told from a sequence of such a name by the boxes beside them, numbered or not."""
    owners = {stem[: -len(end)] for end in _SIDE_FILES if stem.endswith(end)}
    return bool(owners) and not owners.isdisjoint(stems | {_split_number(other)[0] for other in stems})


def _time_paths(file: ResultFile) -> tuple[Path, ...]:
    return (
        file.path.with_name(f"{file.path.stem}_time.txt"),
        file.path.with_name(f"{file.sequence}_time.txt"),
        file.path.parent / "times" / f"{file.path.stem}_time.txt",
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
