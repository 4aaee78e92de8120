"""`ebmtrack export`: stored results in the layouts of other toolkits."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import TextIO

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.comparison import discover
from ebmtrack.evaluation.results import Result, export, find_results, layout_runs, run_folders
from ebmtrack.videos import open_dataset


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
    """Write what `ebmtrack eval` left in `out` as another toolkit wants it, and return the files of boxes.

    layout: as in `results.export`; the folder's name is `ebmtrack` for pytracking, which has the parameters in the next
    one, and the parameters' name elsewhere. params_names: all without any. Sequences and runs of which there is no
    result are left out and printed to `stream` (stdout by default). Raises ConfigError where nothing can be
    written, ResultError for results that are changed, or where there are none.
    """
    found, written = open_dataset(dataset, root), []
    names = (*found.names, *found.missing)
    for params, path in discover(out, found.name, params_names).items():
        folder = find_results(path, names=names)
        results = {name: {run: folder.read(name, run) for run in folder.run_numbers(name)} for name in names}
        tracker = "ebmtrack" if layout == "pytracking" else params
        try:
            written += export(results, to, layout, tracker, params, integers, found.name)
        except OSError as reason:
            raise ConfigError(f"{to}: cannot be written ({reason.strerror}); choose another place") from reason
        _print_missing(results, layout, path, stream or sys.stdout)
    return written


def _print_missing(results: Mapping[str, Mapping[int, Result]], layout: str, path: Path, stream: TextIO) -> None:
    """A line for each run that a layout has room for and that lacks sequences; path: of the runs, without a number."""
    known = {run for runs in results.values() for run in runs}
    begun = known if layout == "got10k-otb" else {*known, *run_folders(path)}  # with one run, that which was written
    for run in layout_runs(layout, begun) or (0,):
        lacking = [name for name, runs in results.items() if run not in runs]
        if lacking:
            of = f"{len(lacking)} of {len(results)} sequences"
            print(f"{path.name}, run {run}: no result of {of}: {', '.join(lacking)}", file=stream)
