"""Results of other trackers as pytracking, the got10k toolkit, pysot, VOT and OTB lay them out, and ours."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebmtrack.errors import ResultError
from ebmtrack.evaluation import otb_mat
from ebmtrack.evaluation.results import (
    SIDE_FILES,
    WORKERS,
    Result,
    marker_path,
    read_column,
    read_marker,
    read_stages,
    read_sureness,
    run_folders,
)
from ebmtrack.videos import text as tables
from ebmtrack.videos.spelling import canonical

Array = np.ndarray


def read_boxes(path: str | os.PathLike) -> Array:
    """Return the boxes (N, 4) of a result file of any of the toolkits; coordinates are left as they are.

    Rows have 4 numbers (x, y, w, h) or 8 (polygon, its bounding box is taken), separated by tabs, commas or blanks.
    Files of VOT or pysot also have rows of one number (1 started, 2 failed, 0 skipped), which take the box before them,
    or an empty one. Files that end in `.mat` are those of the OTB benchmark (`otb_mat`). Raises ResultError naming file
    and line.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return otb_mat.read_boxes(path)
    rows = [tables.split_words(line) for line in tables.split_lines(tables.read_text(path, ResultError))]
    if not rows:
        raise ResultError(f"{path}: is empty; run the sequence again")
    if {len(row) for row in rows} in ({1, 4}, {1, 8}):
        return _read_vot_rows(rows, path)
    table = tables.read_table(path, (4, 8), ResultError)
    return tables.polygon_to_xywh(table) if table.shape[1] == 8 else table


@dataclass(frozen=True)
class ResultFile:
    """A file of boxes: the sequence as it is spelled there, and the number of the run from 0."""

    sequence: str
    run: int
    path: Path


@dataclass(frozen=True)
class ResultFolder:
    """The results of one tracker on disk, in any of the layouts.

    Attributes:
        label: Name of the tracker in plots.
        path: The folder, or what the folders of its runs begin with.
        files: Canonical name of a sequence -> files in order of name and run.
        names: The data set's sequences, if known. A file whose name equals one of them is that sequence.
    """

    label: str
    path: Path
    files: Mapping[str, tuple[ResultFile, ...]]
    names: frozenset[str] = frozenset()

    def run_numbers(self, sequence: str) -> tuple[int, ...]:
        """Return the numbers of the runs over a sequence, in order; a lost run leaves a gap.

        Raises ResultError if two files hold the same run.
        """
        return tuple(sorted(self._by_run(sequence)))

    def _by_run(self, sequence: str) -> dict[int, ResultFile]:
        """Return the files of a sequence by run: those of exactly its name if there are any, else other spellings."""
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
        """Return one run over one sequence, by default the first; ResultError if it is missing or was changed."""
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
        workers, made_by = int(stages.pop(WORKERS, 0)), marker["made_by"] if marker else {}
        sureness = read_sureness(path.with_name(f"{path.stem}_intervals.txt"), len(boxes))
        return Result(boxes, times, np.zeros(0), made_by, stages, path, workers, sureness)

    def is_ours(self, sequence: str, run: int) -> bool:
        """Return whether `ebmtrack eval` wrote a result: its marker is beside it."""
        path = self._by_run(sequence)[run].path
        return marker_path(path.parent, path.stem).is_file()


def find_results(path: str | os.PathLike, label: str | None = None, names: Iterable[str] = ()) -> ResultFolder:
    """Find the results of one tracker in a folder, or in the folders of its runs.

    Recognised below `path`: `<seq>.txt`; `<seq>/<seq>_001.txt` (got10k, pysot); `<seq>_001.txt`; `<seq>.mat` and
    `<seq>_<tracker>.mat` (OTB); `baseline/<seq>/<seq>_001.txt` (VOT); and folders of runs `path_000`, `path_001` ..
    beside it (ours, pytracking), for sequences that are not in `path` itself. OTB keeps all trackers in one folder:
    there `path` is `<folder>/<tracker>`, although no such folder exists. In our own folders, those with markers, the
    stem is the name.

    Args:
        path: The folder.
        label: Name of the tracker; by default that of the folder.
        names: The data set's sequences; they tell `car_001`, a sequence, from the first run over `car`.

    Raises:
        ResultError: Nothing was found.
    """
    path, own_names = Path(path), frozenset(names)
    known = frozenset(canonical(name) for name in own_names)
    files = _by_name(_files_of(path, 0, known) if path.is_dir() else ())
    runs = (file for run, folder in run_folders(path).items() for file in _files_of(folder, run, known))
    files = {**_by_name(runs), **files}
    if not files and path.parent.is_dir():
        beside = list(path.parent.glob(f"*_{glob.escape(path.name)}.mat"))
        files = _by_name(_mat_files(beside, f"_{path.name}", 0))
    if not files:
        raise ResultError(f"{path}: no result files here; expected <sequence>.txt or a toolkit's layout")
    return ResultFolder(label or path.name, path, files, own_names)


def _by_name(files: Iterable[ResultFile]) -> dict[str, tuple[ResultFile, ...]]:
    found: dict[str, list[ResultFile]] = {}
    for file in files:
        found.setdefault(canonical(file.sequence), []).append(file)
    return {key: tuple(those) for key, those in found.items()}


def _files_of(folder: Path, run: int, known: frozenset[str]) -> Iterator[ResultFile]:
    """Yield the box files of one folder in order of name and run.

    Args:
        folder: The folder.
        run: Number of the first run in it.
        known: Canonical names of the data set's sequences.
    """
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


def _text_files(texts: list[Path], run: int, known: frozenset[str]) -> Iterator[ResultFile]:
    """Yield the box files among text files: `<seq>.txt` or `<seq>_001.txt`, without times and scores."""
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
    """Split `car_002` into `car` and 2; a stem without a number has -1."""
    match = re.fullmatch(r"(.+)_(\d{3})", stem)
    return (match[1], int(match[2])) if match else (stem, -1)


def _mat_files(files: list[Path], end: str, run: int) -> Iterator[ResultFile]:
    """Yield OTB's results, whose stems may end in the tracker's name."""
    yield from (ResultFile(path.stem.removesuffix(end), run, path) for path in sorted(files))


def _shared_end(files: list[Path]) -> str:
    """Return `_<tracker>` if all of several stems end in it, else nothing."""
    shared = os.path.commonprefix([path.stem[::-1] for path in files])[::-1] if len(files) > 1 else ""
    _, mark, tracker = shared.partition("_")
    return mark + tracker if tracker and not tracker.isdigit() else ""


def _is_side_file(stem: str, stems: set[str]) -> bool:
    """Return whether a file holds times or scores: boxes of a sequence without the ending are beside it."""
    owners = {stem[: -len(end)] for end in SIDE_FILES if stem.endswith(end)}
    return bool(owners) and not owners.isdisjoint(stems | {_split_number(other)[0] for other in stems})


def _time_paths(file: ResultFile) -> tuple[Path, ...]:
    """Return the files in which a toolkit may keep the times of a file of boxes."""
    return (
        file.path.with_name(f"{file.path.stem}_time.txt"),
        file.path.with_name(f"{file.sequence}_time.txt"),
        file.path.parent / "times" / f"{file.path.stem}_time.txt",
    )


def _read_vot_rows(rows: list[list[str]], path: Path) -> Array:
    """Return boxes from rows of one number among rows of four or eight.

    A row of one number repeats the box before it; at the start it is an empty box.
    """
    boxes, last = [], np.zeros(4)
    for number, row in enumerate(rows, 1):
        values = tables.to_numbers([row], path, ResultError, number)
        if values.shape[1] == 8:
            last = tables.polygon_to_xywh(values)[0]
        elif values.shape[1] == 4:
            last = values[0]
        boxes.append(last)
    return np.stack(boxes)
