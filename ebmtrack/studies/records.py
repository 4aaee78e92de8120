"""The folder of a study: its settings, a JSON record for each finished part, so that a killed study goes on, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack import files
from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation.intervals import Interval, bootstrap


def claim_folder(out: Path, settings: Any) -> None:
    """Write the settings, a dataclass, into `out`, or raise ConfigError if it holds runs with other settings."""
    path, text = out / "settings.json", json.dumps(asdict(settings), indent=1)
    if path.exists() and (names := ", ".join(_changed(path, json.loads(text)))):
        raise ConfigError(
            f"{path} belongs to a study with other settings ({names}): choose another folder or delete it"
        )
    files.write_text(path, text)


def _changed(path: Path, now: dict[str, Any]) -> list[str]:
    """Return the names of settings that have another value in a file, or are in one of both alone."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        return ["the file is damaged"]
    return [name for name in now | before if name not in before or name not in now or before[name] != now[name]]


def check_counts(**counts: int | None) -> None:
    """Raise ConfigError if an option of this name is a number below 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1, got {value}")


def missing_runs(out: Path, names: Iterable[str]) -> list[str]:
    """Return the names of runs that `out` does not hold."""
    return [name for name in names if not (out / "runs" / f"{name}.json").exists()]


def keep_record(out: Path, name: str, record: dict[str, Any], log: Callable[[str], None] = print) -> None:
    """Write a finished run, and tell `log` its numbers and the means of its lists of numbers."""
    files.write_text(out / "runs" / f"{name}.json", json.dumps(record))
    log(f"{name}: " + ", ".join(f"{key} {np.mean(value):.3f}" for key, value in record.items()))


def load_records(out: Path, keys: Iterable[str], pattern: str = "*") -> list[dict]:
    """Return the records under `out`, in the order of their names.

    Args:
        out: folder of the study.
        keys: what each record must hold; ResultError names a file that lacks one.
        pattern: of the names, such as nce_[0-9].
    """
    records = []
    for path in sorted((out / "runs").glob(f"{pattern}.json")):
        try:
            record = json.loads(path.read_text("utf-8"))
            _ = [record[key] for key in keys]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultError(f"{path} is no record of this study ({error}): delete it to run it again") from error
        records.append(record)
    return records


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return [lines[0], "|---" * len(heads) + "|", *lines[1:]]


def interval_cell(interval: Interval, form: str = ".3f") -> str:
    """Return a cell of a table: the value and its interval."""
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def mean_cell(values: Sequence[Sequence[float]]) -> str:
    """Return a cell for values (seeds, samples): their mean, its 95 % bootstrap interval over samples, seeds' s.d."""
    table = np.array(values)
    cell = interval_cell(bootstrap(table.mean(axis=0)))
    return f"{cell}, s.d. {table.mean(axis=1).std(ddof=1):.3f}" if len(table) > 1 else cell


def seeds_cell(values: Sequence[float]) -> str:
    """Return a cell for one figure of each seed: mean and standard deviation."""
    return f"{np.mean(values):.1f}" + (f" (s.d. {np.std(values, ddof=1):.1f})" if len(values) > 1 else "")
