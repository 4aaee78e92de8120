"""Targets in a file: what a tracker knows of them, without the network.

The file is NumPy's .npz: arrays, and one text of JSON. Reading it runs nothing of what it holds.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.engines.base import Engine
from ebmtrack.errors import CheckpointError
from ebmtrack.files import as_json, write_bytes
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.state import TargetState

FORMAT_VERSION = 1
ABOUT = "about"  # the entry with the JSON
NUMBERS = ("base_area", "first_log_aspect", "phase", "frame", "scale", "lost_frames", "is_calm")
VECTORS = ("log_excess_hw", "position_yx", "size_hw", "box_xywh")
FREE = ("seed", "weights", "interval_samples")  # parameters that may differ: they move no box of a later frame


def save_targets(path: str | os.PathLike, engine: Engine, states: Mapping[int, TargetState], next_id: int) -> None:
    """Write targets after a frame to a file, atomically.

    Args:
        path: the file; 35 MB for each target of the default set-up.
        engine: the network that the targets belong to. It is not written.
        states: by id, at least one.
        next_id: the id of the next target.
    """
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"format_version": FORMAT_VERSION, "next_id": next_id, "targets": {}}
    for target, state in states.items():
        about["params"] = as_json(state.params)
        about["targets"][str(target)], own = _packed(engine, state)
        arrays.update({f"{target}/{name}": values for name, values in own.items()})
    content = io.BytesIO()
    np.savez(content, **{ABOUT: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]  # as in export
    write_bytes(path, content.getvalue())


def restore_targets(
    path: str | os.PathLike, engine: Engine, params: TrackerParams
) -> tuple[dict[int, TargetState], int]:
    """Return the targets of a file by id, and the id of the next one.

    Args:
        path: a file of `save_targets`.
        engine: the network with which they were saved; another engine, device or precision of it will do.
        params: the set-up with which they were saved.

    Raises:
        CheckpointError: on a file that is missing or damaged, or of another network or set-up.
    """
    about, arrays = _read(Path(path))
    if about.get("format_version") != FORMAT_VERSION:
        found = about.get("format_version")
        raise CheckpointError(f"{path}: has format version {found!r}, this ebmtrack reads {FORMAT_VERSION}")
    try:
        _check_params(about["params"], json.loads(json.dumps(as_json(params))))
        states = {
            int(target): _unpacked(engine, params, facts, _of(target, arrays))
            for target, facts in about["targets"].items()
        }
        return states, int(about["next_id"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: is no complete file of save_state(): {error!r}; save it anew") from error


def _packed(engine: Engine, state: TargetState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a target's numbers as JSON values, and its arrays."""
    memory, (key, position) = state.memory, state.random.state
    facts = {
        **{name: getattr(state, name) for name in NUMBERS},
        "is_calm": bool(state.is_calm),
        "random": {"seed": state.random.seed, "position": position},
        "memory": {name: getattr(memory, name) for name in ("initial", "count", "last", "least_weight")},
    }
    arrays = {name: np.asarray(getattr(state, name), np.float64) for name in VECTORS}
    arrays |= {"random": key, "sample_weights": memory.all_weights}
    return facts, {**arrays, **engine.pack(state.model, state.whole)}


def _unpacked(
    engine: Engine, params: TrackerParams, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> TargetState:
    """Return a target from its numbers and arrays; the last frame's proposal is not kept."""
    model, whole = engine.unpack(arrays)
    random = RandomNumbers(facts["random"]["seed"])
    random.state = arrays["random"], facts["random"]["position"]
    return TargetState(
        params=params,
        model=model,
        memory=SampleMemory.restored(arrays["sample_weights"], **facts["memory"]),
        random=random,
        **{name: facts[name] for name in NUMBERS},
        log_excess_hw=arrays["log_excess_hw"],
        position_yx=arrays["position_yx"],
        size_hw=arrays["size_hw"],
        box_xywh=tuple(arrays["box_xywh"].tolist()),
        whole=whole,
        proposals=(),
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a file."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
        about = json.loads(str(arrays.pop(ABOUT)))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file of a tracker's state") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: is no file of save_state(), or damaged: {error}") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: is no file of save_state(): its JSON is no object")
    return about, arrays


def _of(target: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of one target."""
    start = f"{target}/"
    return {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}


def _check_params(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a set-up is not the one of the file."""
    other = [name for name in own if name not in FREE and saved[name] != own[name]]
    if other:
        differences = ", ".join(f"{name} {saved[name]} instead of {own[name]}" for name in other[:3])
        raise CheckpointError(f"was saved with another set-up ({differences}); open the tracker with that one")
