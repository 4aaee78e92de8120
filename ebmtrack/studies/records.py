"""The folder of a study: its settings, a JSON record for each finished part, so that a killed study goes on, tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebmtrack import files
from ebmtrack.errors import ConfigError, ResultError


def claim_folder(out: Path, settings: Any) -> None:
    """Write the settings, a dataclass, into `out`, or raise ConfigError if it holds runs with other settings."""
    path, text = out / "settings.json", json.dumps(asdict(settings), indent=1)
    if path.exists() and path.read_text("utf-8") != text:
        raise ConfigError(f"{path} belongs to a study with other settings: choose another folder or delete it")
    files.write_text(path, text)


def load_records(out: Path, keys: Iterable[str]) -> list[dict]:
    """Return the records under `out` in the order of their names; ResultError names a file that lacks one of `keys`."""
    records = []
    for path in sorted((out / "runs").glob("*.json")):
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
