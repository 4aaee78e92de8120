"""Targets in a file: what a tracker knows of them, without the network.

The file is NumPy's .npz: arrays, and one text of JSON. Reading it runs nothing of what it holds.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.engines.base import Engine
from ebmtrack.errors import CheckpointError, ConfigError, reason_of
from ebmtrack.files import as_json, expand_home, write_bytes
from ebmtrack.tracking.adaptation import MOST_LOSS
from ebmtrack.tracking.first_frame import MOST_DISTANCE, MOST_EXCESS, count_samples, start_target
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams, list_params, load_params
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.state import TargetState

FORMAT_VERSION = 3
ABOUT = "about"  # the entry with the JSON
NUMBERS = ("base_area", "first_log_aspect", "phase", "frame", "scale", "first_scale", "lost_frames", "doubt", "is_calm")
VECTORS = ("log_excess_hw", "excess_yx", "position_yx", "size_hw", "box_xywh", "found_yx", "found_hw")
# parameters that may differ: they move no box of a later frame
FREE = ("seed", "weights", "interval_samples", "interval_temperature", "interval_scale", "lost_logit")
MOST_PIXELS = 1e7  # of a side or a coordinate, in the image


def save_targets(path: str | os.PathLike, engine: Engine, states: Mapping[int, TargetState], next_id: int) -> None:
    """Write targets after a frame to a file, atomically.

    Args:
        path: the file; for each target 16 MB with the default set-up, 6 MB with lite_nce_plus.
        engine: the network that the targets belong to. It is not written.
        states: by id, at least one.
        next_id: the id of the next target.

    Raises:
        ConfigError: if the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"format_version": FORMAT_VERSION, "next_id": next_id, "targets": {}}
    about["network"] = engine.info.source_sha256
    for target, state in states.items():
        about["params"] = as_json(state.params)
        about["targets"][str(target)], own = _packed(engine, state)
        arrays.update({f"{target}/{name}": values for name, values in own.items()})
    content = io.BytesIO()
    np.savez(content, **{ABOUT: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]  # as in export
    try:
        write_bytes(path, content.getvalue())
    except OSError as error:
        raise ConfigError(f"{path}: save_state() cannot write it ({error.strerror}); give another file") from error


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
    about, arrays = _read(expand_home(path))
    if about.get("format_version") != FORMAT_VERSION:
        found = about.get("format_version")
        raise CheckpointError(
            f"{path}: has format version {found!r}, this ebmtrack reads {FORMAT_VERSION}; save it anew"
        )
    try:
        _check_kinds(about, {"next_id": 0, "targets": {}, "network": "", "params": {}})
        _check_params(about["params"], _values_of(params))
        _check_network(about["network"], engine.info.source_sha256)
        _check_ids(list(about["targets"]), about["next_id"])
        expected = _expected(engine, params)
        states = {
            int(target): _unpacked(engine, params, facts, _of(target, arrays), expected, f"target {target}: ")
            for target, facts in about["targets"].items()
        }
        return states, about["next_id"]
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _packed(engine: Engine, state: TargetState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a target's numbers as JSON values, and its arrays."""
    memory, (key, position) = state.memory, state.random.state
    facts = {
        **{name: getattr(state, name) for name in NUMBERS},
        "random": {"seed": state.random.seed, "position": position},
        "memory": {name: getattr(memory, name) for name in ("initial", "count", "last", "least_weight")},
    }
    arrays = {name: np.asarray(getattr(state, name), np.float64) for name in VECTORS}
    arrays |= {"random": key, "sample_weights": memory.all_weights}
    return facts, {**arrays, **engine.pack(state.model, state.whole)}


def _unpacked(
    engine: Engine,
    params: TrackerParams,
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    expected: tuple[Mapping[str, Any], Mapping[str, np.ndarray]],
    where: str,
) -> TargetState:
    """Return a target from its numbers and arrays, if they are sound; the last frame's proposal is not kept.

    Args:
        engine: the network.
        params: the set-up.
        facts: the target's numbers.
        arrays: the target's arrays.
        expected: both of another target of this network and set-up.
        where: the beginning of messages.
    """
    _check_kinds(facts, expected[0], where)
    _check_arrays(arrays, expected[1], where)
    arrays = {name: arrays[name] for name in expected[1]}
    _check_values(facts, arrays, expected[0], params, where)
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
        excess_yx=arrays["excess_yx"],
        position_yx=arrays["position_yx"],
        size_hw=arrays["size_hw"],
        found_yx=arrays["found_yx"],
        found_hw=arrays["found_hw"],
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
    except Exception as error:  # those of zip, NumPy and JSON on damaged bytes have no common class besides Exception
        raise CheckpointError(f"{path}: is no file of save_state(), or damaged ({reason_of(error)})") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: is no file of save_state(): its JSON is no object")
    return about, arrays


def _of(target: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of one target."""
    start = f"{target}/"
    return {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}


def _expected(engine: Engine, params: TrackerParams) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return numbers and arrays of some target with this network and set-up, as `_packed` does, for their kinds.

    The network sees one view instead of a dozen; room and number are those of all of them.
    """
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    samples = count_samples(params)
    quick = params.replace(
        initial_iterations=1,
        calibration=0.0,
        centre_calibration=(0.0, 0.0),
        energy_adaptation=0.0,
        memory_size=max(params.memory_size, samples),
    )
    quick = quick.replace(shift_fracs=(), flip=False, blur_sigmas=(), rotations_deg=(), dropout_copies=0)
    facts, arrays = _packed(engine, start_target(engine, quick, image, np.array([16.0, 16.0, 32.0, 32.0]), 0))
    facts["memory"]["initial"] = samples
    return json.loads(json.dumps(facts)), arrays


def _check_params(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a set-up is not the one of the file, in what moves boxes."""
    other = _differences(saved, own)
    if not other:
        return
    changes = [f"{name} {saved.get(name, 'unknown')}, here {own[name]}" for name in other[:3]]
    details = "; ".join(changes + [f"{len(other) - 3} more"] * (len(other) > 3))
    there, here = _shipped_name(saved), _shipped_name(own)
    mine = f"this tracker is {here}" if here else "this tracker has another set-up"
    raise CheckpointError(
        f"was saved with {there or 'another set-up'}, {mine} ({details}): open the tracker "
        + (f'with from_pretrained("{there}")' if there else "with the set-up of the file")
    )


def _differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return the names of the parameters of `own` that move boxes and that `saved` lacks or has otherwise."""
    return [name for name in own if name not in FREE and (name not in saved or saved[name] != own[name])]


def _shipped_name(params: Mapping[str, Any]) -> str | None:
    """Return the name of the set-up in tracker_params with these values, of several that with these weights."""
    shipped = {name: _values_of(load_params(name)) for name in list_params()}
    names = [name for name, values in shipped.items() if not _differences(params, values)]
    return next((name for name in names if shipped[name]["weights"] == params.get("weights")), None) or next(
        iter(names), None
    )


def _values_of(params: TrackerParams) -> dict[str, Any]:
    """Return the values of a set-up as a file has them."""
    return json.loads(json.dumps(as_json(params)))


def _check_network(saved: str, own: str) -> None:
    """Raise CheckpointError if two networks have other tensors; engines that were made of no file have no hash."""
    if saved and own and saved != own:
        raise CheckpointError("was saved with another network; open the tracker with the weights of that one")


def _check_ids(targets: list[str], next_id: int) -> None:
    """Raise CheckpointError unless targets are numbers below the next one's."""
    if not targets or not all(re.fullmatch("0|[1-9][0-9]{0,17}", target) for target in targets):
        raise CheckpointError(f"targets has the ids {targets[:3]!r:.60}; save it anew")
    if next_id <= max(map(int, targets)):
        raise CheckpointError(f"next_id is {next_id}, not above the targets' ids; save it anew")


def _check_kinds(found: Any, expected: Mapping[str, Any], where: str = "") -> None:
    """Raise CheckpointError unless JSON values have the expected ones' types, and floats are finite."""
    for name, value in expected.items():
        if not isinstance(found, dict) or name not in found:
            raise CheckpointError(f"{where}lacks {name}; save it anew")
        own = found[name]
        if type(own) is not type(value) or (isinstance(own, float) and not math.isfinite(own)):
            raise CheckpointError(f"{where}{name} is {own!r:.40}, expected {type(value).__name__}; save it anew")
        if isinstance(value, dict):
            _check_kinds(own, value, f"{where}{name}: ")


def _check_arrays(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], where: str) -> None:
    """Raise CheckpointError unless arrays have the expected ones' names, types and shapes, and are finite."""
    for name, values in expected.items():
        if name not in found:
            raise CheckpointError(f"{where}lacks the array {name}; save it anew")
        own, kind = found[name], f"{values.dtype} {values.shape}"
        if own.dtype != values.dtype or own.shape != values.shape:
            raise CheckpointError(f"{where}{name} is {own.dtype} {own.shape}, expected {kind}; save it anew")
        if not np.isfinite(own).all():
            raise CheckpointError(f"{where}{name} holds numbers that are not finite; save it anew")


def _is_within_reach(arrays: Mapping[str, np.ndarray], params: TrackerParams) -> bool:
    """Return whether last layers are the network's, or as near as learning the first frame leaves them.

    There is the target's, and in mirrored set-ups its mirror image's.
    """
    reach = math.sqrt(2 * MOST_LOSS * params.energy_adaptation)
    names = [name for name in arrays if name.endswith("last_layer")]
    pairs = [(arrays[name], arrays[name.replace("last_layer", "network")]) for name in names]
    return all((np.abs(layer - own) <= reach + 2e-3 * np.abs(own) + 1e-4).all() for layer, own in pairs)


def _check_values(
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, Any],
    params: TrackerParams,
    where: str,
) -> None:
    """Raise CheckpointError on numbers, of the right kinds, that no tracker has.

    Args:
        facts: the target's numbers.
        arrays: the target's arrays.
        expected: the numbers of another target of this network and set-up.
        params: the set-up.
        where: the beginning of messages.
    """
    memory, weights, size_hw = facts["memory"], arrays["sample_weights"], arrays["size_hw"]
    count, sizes = memory["count"], np.concatenate([size_hw, arrays["box_xywh"][2:], arrays["found_hw"]])
    sound = {
        "base_area": math.isclose(facts["base_area"], expected["base_area"], rel_tol=1e-6),
        "first_scale": 0 < facts["first_scale"] <= MOST_PIXELS,
        "phase": facts["phase"] >= 0,
        "frame": facts["frame"] >= 1,
        "lost_frames": 0 <= facts["lost_frames"] < facts["frame"],
        "doubt": 0 <= facts["doubt"] <= params.doubtful_frames,
        "random: position": 0 <= facts["random"]["position"] <= len(arrays["random"]),
        "memory: initial": memory["initial"] == expected["memory"]["initial"],
        "memory: count": memory["initial"] <= count <= len(weights),
        "memory: last": -1 <= memory["last"] < count,
        "memory: least_weight": memory["least_weight"] == expected["memory"]["least_weight"],
        "sample_weights": (weights >= 0).all() and weights[:count].sum() > 0 and not weights[count:].any(),
        "log_excess_hw": np.abs(arrays["log_excess_hw"]).max() <= MOST_EXCESS * params.calibration + 1e-6,
        "last_layer": _is_within_reach(arrays, params),
        "excess_yx": (np.abs(arrays["excess_yx"]) <= MOST_DISTANCE * np.array(params.centre_calibration) + 1e-6).all(),
        "position_yx": np.abs(arrays["position_yx"]).max() <= MOST_PIXELS,
        "found_yx": np.abs(arrays["found_yx"]).max() <= MOST_PIXELS,
        "size_hw, box_xywh or found_hw": (sizes > 0).all() and sizes.max() <= MOST_PIXELS,
        "scale": math.isclose(facts["scale"] * facts["scale"] * expected["base_area"], size_hw.prod(), rel_tol=1e-4),
    }
    wrong = [name for name, is_sound in sound.items() if not is_sound]
    if wrong:
        raise CheckpointError(f"{where}{wrong[0]} is out of range; save it anew")
