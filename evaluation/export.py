"""`ebmtrack export`: stored results in the layouts of other toolkits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.comparison import discover
from ebmtrack.evaluation.datasets import open_dataset
from ebmtrack.evaluation.results import Result, export, find_results

# What pytracking puts before the names of a data set's sequences.
# Sequences that toolkits call otherwise than OTB's site, by data set and layout.
_TWO_TARGETS = {f"{name}_{number}": f"{name}.{number}" for name in ("Jogging", "Skating2") for number in (1, 2)}
NAMES: Mapping[tuple[str, str], Mapping[str, str]] = {
    (f"otb{which}", layout): names
    for which in ("100", "50", "2013")
    for layout, names in (("got10k-otb", _TWO_TARGETS), ("pytracking", {"Human4": "Human4_2"}))
}
PREFIXES: Mapping[str, str] = {"uav123": "uav_", "nfs30": "nfs_", "tcolor128": "tpl_"}


def export_stored(
    dataset: str,
    root: str | os.PathLike,
    layout: str,
    to: str | os.PathLike,
    *,
    out: str | os.PathLike = "results",
    params_names: Items[str] = (),
    integers: bool = False,
) -> list[Path]:
    """Write what `ebmtrack eval` left in `out` as another toolkit wants it, and return the files of boxes.

    layout: as in `results.export`; the folder's name is `ebmtrack` for pytracking, which has the parameters in the next
    one, and the parameters' name elsewhere. params_names: all without any. What lacks is said, sequence by sequence.
    Raises ConfigError where nothing can be written, ResultError for results that are changed.
    """
    found, written = open_dataset(dataset, root), []
    names = {**{name: name for name in found.names}, **NAMES.get((found.name, layout), {})}
    for params, path in discover(out, found.name, params_names).items():
        folder = find_results(path)
        runs = {name: {run: folder.read(name, run) for run in folder.runs(name)} for name in found.names}
        results = {names[name]: those for name, those in runs.items() if those}
        _say_what_lacks(params, runs)
        tracker, prefix = ("ebmtrack", PREFIXES.get(dataset, "")) if layout == "pytracking" else (params, "")
        try:
            written += export(results, to, layout, tracker, params, integers, prefix)
        except OSError as reason:
            raise ConfigError(f"{to}: cannot be written ({reason.strerror}); choose another place") from reason
    return written


def _say_what_lacks(params: str, runs: Mapping[str, Mapping[int, Result]]) -> None:
    """Print which sequences lack which of the runs that others have."""
    wanted = sorted({run for those in runs.values() for run in those})
    for name, those in runs.items():
        lacking = [str(run) for run in wanted if run not in those]
        if lacking:
            print(f"{params}: {name} has no result" + (f" of run {', '.join(lacking)}" if those else ""))
