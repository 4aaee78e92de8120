"""`ebmtrack export-results`: stored results in the layouts of other toolkits and of evaluation servers."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import TextIO

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.comparison import discover
from ebmtrack.evaluation.foreign import find_results
from ebmtrack.evaluation.results import Result, format_boxes, run_folders
from ebmtrack.files import write_bytes, write_text
from ebmtrack.videos import open_dataset
from ebmtrack.videos.spelling import name_in

LAYOUTS = ("pytracking", "got10k", "got10k-otb", "got10k-server", "trackingnet-server")
_ONE_RUN = ("got10k-otb", "trackingnet-server")  # layouts with one file per sequence
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the time of every file in an archive, so that equal results give equal bytes


def export_stored(
    dataset: str,
    root: str | os.PathLike,
    layout: str,
    to: str | os.PathLike,
    *,
    out: str | os.PathLike = "results",
    params_names: Items[str] = (),
    integers: bool = False,
    stream: TextIO | None = None,
) -> list[Path]:
    """Write what `ebmtrack eval` left in `out` as another toolkit or a server wants it, and return the files.

    Args:
        dataset: Name of the data set.
        root: Its folder.
        layout: As in `layout_files`. A server's layout gives one archive for each set-up, `<params>.zip`.
        to: Folder to write to. Below it is a folder `ebmtrack` for pytracking, which has the parameters in the next
            one, and one with the set-up's name elsewhere.
        out: Folder of results.
        params_names: Set-ups; all if empty.
        integers: Truncate boxes as pytracking does.
        stream: Where to print which sequences and runs have no result; stdout by default.

    Raises:
        ConfigError: Nothing can be written, or the layout is unknown.
        ResultError: Results are changed, or there are none.
    """
    found, written = open_dataset(dataset, root), []
    names = (*found.names, *found.missing)
    for params, path in discover(out, found.name, params_names).items():
        folder = find_results(path, names=names)
        results = {name: {run: folder.read(name, run) for run in folder.run_numbers(name)} for name in names}
        boxes, times = layout_files(results, layout, params, integers, found.name)
        try:
            written += _write(boxes, times, layout, Path(to), params)
        except OSError as reason:
            raise ConfigError(f"{to}: cannot be written ({reason.strerror}); choose another place") from reason
        _print_missing(results, layout, path, stream or sys.stdout)
    return written


def layout_files(
    results: Mapping[str, Mapping[int, Result]],
    layout: str,
    params: str = "default",
    integers: bool = False,
    dataset: str = "",
) -> tuple[dict[str, str], dict[str, str]]:
    """Return files of boxes and files of times in another toolkit's layout: path below the tracker's folder -> text.

    | layout | boxes | for |
    |---|---|---|
    | `pytracking` | `<params>_<run>/<seq>.txt`, tabs | pytracking |
    | `got10k` | `<seq>/<seq>_001.txt`, commas | the got10k toolkit's GOT-10k |
    | `got10k-otb` | `<seq>.txt`, commas, the first run only | its OTB-like data sets |
    | `got10k-server` | as `got10k`, packed | the server of GOT-10k |
    | `trackingnet-server` | `<seq>.txt`, commas, the first run only, no times, packed | the server of TrackingNet |

    Args:
        results: Sequence -> number of the run -> result.
        layout: One of the table.
        params: Name of the set-up.
        integers: Truncate as pytracking writes boxes; else fractions are kept.
        dataset: Data set of the sequences, for the toolkit's names of them (`videos.spelling.name_in`).

    Raises:
        ConfigError: Unknown layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}: choose {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
    boxes: dict[str, str] = {}
    times: dict[str, str] = {}
    wanted = layout_runs(layout, {run for runs in results.values() for run in runs})
    for name, runs in results.items():
        for run in (run for run in wanted if run in runs):
            box_path, time_path = _paths(layout, name_in(layout.removesuffix("-server"), dataset, name), params, run)
            separator = "\t" if layout == "pytracking" else ","
            boxes[box_path] = format_boxes(runs[run].boxes_xywh, separator, integers)
            if time_path and len(runs[run].times_s):
                times[time_path] = _times_text(runs, run, several=layout in ("got10k", "got10k-server"))
    return boxes, times


def layout_runs(layout: str, numbers: Iterable[int]) -> tuple[int, ...]:
    """Return the runs for which a layout has room, in order: the first alone if it has one file per sequence."""
    return tuple(sorted(numbers))[: 1 if layout in _ONE_RUN else None]


def _times_text(runs: Mapping[int, Result], run: int, several: bool) -> str:
    """Return seconds per frame of a run, or of all runs in columns."""
    times_s = runs[run].times_s
    columns = [runs[number].times_s for number in sorted(runs)] if several else [times_s]
    rows = np.stack([t for t in columns if len(t) == len(times_s)], axis=1)
    return "".join(",".join(f"{t:.8f}" for t in row) + "\n" for row in rows)


def _paths(layout: str, name: str, params: str, run: int) -> tuple[str, str]:
    """Return where another toolkit expects boxes and times; no place for times if it takes none."""
    if layout == "pytracking":
        return f"{params}_{run:03d}/{name}.txt", f"{params}_{run:03d}/{name}_time.txt"
    if layout in ("got10k", "got10k-server"):
        return f"{name}/{name}_{run + 1:03d}.txt", f"{name}/{name}_time.txt"
    return f"{name}.txt", f"times/{name}_time.txt" if layout == "got10k-otb" else ""


def _write(boxes: dict[str, str], times: dict[str, str], layout: str, to: Path, params: str) -> list[Path]:
    """Write files, or an archive of them for a server, and return the files of boxes or the archive."""
    if layout.endswith("-server"):
        write_bytes(to / f"{params}.zip", _archive({**boxes, **times}))
        return [to / f"{params}.zip"]
    base = to / ("ebmtrack" if layout == "pytracking" else params)
    for path, text in {**boxes, **times}.items():
        write_text(base / path, text)
    return [base / path for path in boxes]


def _archive(files: Mapping[str, str]) -> bytes:
    """Return a zip archive of text files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, _OLDEST), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _print_missing(results: Mapping[str, Mapping[int, Result]], layout: str, path: Path, stream: TextIO) -> None:
    """Print a line for each run that a layout has room for and that lacks sequences.

    Args:
        results: Sequence -> number of the run -> result.
        layout: The layout.
        path: What the folders of the runs begin with.
        stream: Where to print.
    """
    known = {run for runs in results.values() for run in runs}
    begun = known if layout in _ONE_RUN else {*known, *run_folders(path)}  # with one run, that which was written
    for run in layout_runs(layout, begun) or (0,):
        lacking = [name for name, runs in results.items() if run not in runs]
        if lacking:
            of = f"{len(lacking)} of {len(results)} sequences"
            print(f"{path.name}, run {run}: no result of {of}: {', '.join(lacking)}", file=stream)
