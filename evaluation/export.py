"""`ebmtrack export`: stored results in the layouts of other toolkits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.comparison import discover
from ebmtrack.evaluation.datasets import open_dataset
from ebmtrack.evaluation.results import export, find_results

# What pytracking puts before the names of a data set's sequences.
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
    one, and the parameters' name elsewhere. params_names: all without any. Raises ConfigError where nothing can be
    written, ResultError for results that are missing or changed.
    """
    found, written = open_dataset(dataset, root), []
    for params, path in discover(out, found.name, params_names).items():
        folder = find_results(path)
        results = {name: {run: folder.read(name, run) for run in folder.run_numbers(name)} for name in found.names}
        tracker, prefix = ("ebmtrack", PREFIXES.get(dataset, "")) if layout == "pytracking" else (params, "")
        try:
            written += export(results, to, layout, tracker, params, integers, prefix)
        except OSError as reason:
            raise ConfigError(f"{to}: cannot be written ({reason.strerror}); choose another place") from reason
    return written
