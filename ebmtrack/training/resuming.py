"""Checkpoints of a run: weights, optimiser, random states, and the settings under which it may go on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ebmtrack.errors import CheckpointError, reason_of
from ebmtrack.files import as_json, replacing
from ebmtrack.training.overrides import flat

# These settings may change while a run is interrupted: places of files, device, logs, length of the run, and the cut of
# its samples into steps.
FREE = ("out", "data", "device", "workers", "resume", "steps", "batch", "params", "validation_samples", "tensorboard")
FREE_BEGINNINGS, FREE_ENDINGS = ("visdom", "track_"), ("_every",)
FILES = ("backbone", "heads", "start", "teacher", "vot_list")  # are compared by name: they may have been moved
FOLDERS = ("packs", "prepared")  # count by whether there is one
NAMED_AT_MOST = 3


def settings_text(settings: Any) -> str:
    """Return all settings of a run as JSON, for its checkpoint."""
    return json.dumps(as_json(settings))


def check_same_settings(path: Path, stored: str, settings: Any) -> None:
    """Raise a CheckpointError if a checkpoint is of a run with other settings.

    Settings that the version which wrote it did not know are not compared.

    Args:
        path: the checkpoint, for the message.
        stored: its settings, as `settings_text` wrote them.
        settings: those under which the run is to go on.
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
    """Return the dotted keys and values of the settings that decide the weights."""
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


def save_checkpoint(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, where: dict[str, Any]) -> None:
    """Write network, optimiser and the run's state (step, samples, settings, random states), atomically."""
    with replacing(path) as temporary:
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), **where}, temporary)


def remove_leftovers(*paths: Path) -> None:
    """Remove half-written files that killed processes left beside these files (`files.replacing`)."""
    for path in paths:
        for leftover in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
            leftover.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint, on the CPU; None if there is no such file.

    Raises:
        CheckpointError: the file is damaged or of another kind.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a file of another kind makes the parser raise nearly anything
        raise CheckpointError(f"{path} is no checkpoint ({reason_of(error)}); move it away to start afresh") from error


def seed_all(seed: int) -> None:
    """Seed the generators that all code shares: Python's, NumPy's and PyTorch's on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the states of the generators that all code shares, as plain values."""
    kind, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),  # type: ignore[union-attr, attr-defined]  # the tuple form
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back into the states that `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
