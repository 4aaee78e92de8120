"""What a run keeps of its settings beside its weights, and whether it may go on under others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ebmtrack.errors import CheckpointError
from ebmtrack.training.overrides import as_json, flat

# What may change while a run is interrupted: where things lie, what it is computed on, how it is watched, how long it
# goes on, and how its samples are cut into steps.
FREE = ("out", "data", "device", "workers", "resume", "steps", "batch", "params", "validation_samples", "tensorboard")
FREE_BEGINNINGS, FREE_ENDINGS = ("visdom", "track_"), ("_every",)
FILES = ("backbone", "start", "vot_list")  # count by their names: they may have been moved
FOLDERS = ("packs", "prepared")  # count by whether there is one
NAMED_AT_MOST = 3


def settings_text(settings: Any) -> str:
    """All settings of a run as JSON, for its checkpoint."""
    return json.dumps(as_json(settings))


def check_same_settings(path: Path, stored: str, settings: Any) -> None:
    """CheckpointError where the checkpoint `path` is of a run with other settings; `stored`: as `settings_text` wrote.

    Settings that the version which wrote it did not know are not compared.
    """
    before, now = _essential(json.loads(stored)), _essential(as_json(settings))
    changed = [key for key, value in before.items() if key not in now or now[key] != value]
    if changed:
        named = [f"{key} is {now.get(key, 'unknown')} and was {before[key]}" for key in changed[:NAMED_AT_MOST]]
        more = f" and {len(changed) - NAMED_AT_MOST} more" if len(changed) > NAMED_AT_MOST else ""
        raise CheckpointError(
            f"{path} is of a run with other settings: {', '.join(named)}{more}; "
            "go on with those, begin afresh with --restart, or give the new run a folder of its own with --out"
        )


def _essential(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of what decides how the weights come out."""
    kept = {}
    for key, value in flat(settings).items():
        if key in FREE or key.startswith(FREE_BEGINNINGS) or key.endswith(FREE_ENDINGS):
            continue
        kept[key] = value
        if key in FILES and value is not None:
            kept[key] = Path(value).name
        elif key in FOLDERS:
            kept[key] = "none" if value is None else "given"
    return kept
