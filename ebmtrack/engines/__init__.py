"""Networks as a tracker uses them, behind one protocol (see base.py)."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from ebmtrack.device import pick_device
from ebmtrack.engines.base import Engine
from ebmtrack.engines.onnx_files import (
    DESCRIPTION,
    PROVIDERS,
    existing_exported,
    find_exported,
    is_exported,
    precisions,
    read_description,
    stored_precision,
)
from ebmtrack.engines.openvino_session import OPENVINO
from ebmtrack.errors import ConfigError, missing_extra
from ebmtrack.files import expand_home

__all__ = ["ENGINES", "Engine", "choose_engine", "engine_facts", "has_torch", "load_engine", "runs_network"]

ENGINES = ("auto", "torch", "onnx")
CLASSIFIERS = ("network", "atom")


def load_engine(
    weights: str | Path | None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    classifier: str = "network",
) -> Engine:
    """Return the engine for a network.

    Args:
        weights: a .safetensors file, the folder of an exported network, the name of a network that ships, or None for
            the default one.
        device: "auto" (a GPU if PyTorch sees one), "cpu", "cuda", "cuda:1" or "mps"; of an exported network also
            "openvino", and on ONNX Runtime "tensorrt", "coreml", "directml".
        precision: what floating point is computed in: "float32", "bfloat16" or "auto" (ONNX Runtime: float32); or
            "int8", of an exported network: convolutions in 8 bits, the rest as with "auto".
        engine: "torch", "onnx" or "auto": the one that `choose_engine` names.
        classifier: "network", or "atom" for ATOM's in its place, on torch alone.

    Raises:
        ConfigError: on an unknown engine, device or precision, or those that do not go together.
        CheckpointError: on a network that is missing or damaged.
    """
    weights = None if weights is None else str(expand_home(weights))
    if choose_engine(weights, device, precision, engine, classifier) == "onnx":
        from ebmtrack.engines.onnx_engine import load_onnx_engine

        return load_onnx_engine(weights, "cpu" if device == "auto" else device, precision)
    from ebmtrack.engines.torch_engine import load_torch_engine

    if classifier == "atom":
        from ebmtrack.engines.atom_engine import AtomEngine

        return load_torch_engine(weights, device, precision, AtomEngine)
    return load_torch_engine(weights, device, precision)


def choose_engine(
    weights: str | Path | None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    classifier: str = "network",
) -> str:
    """Return the engine of a network, "torch" or "onnx".

    Networks in exported form, which are those that ship and those that `export` makes, run on ONNX Runtime.
    PyTorch, if it is installed, runs the rest: .safetensors files, and what only it can do, which is a network that
    ships on a GPU, in bfloat16, or with ATOM's classifier.

    Args:
        weights: see `load_engine`, as the others.
        device: "openvino" and devices that only ONNX Runtime knows mean its engine.
        precision: "bfloat16" means PyTorch, "int8" ONNX Runtime.
        engine: "auto", or the one to take.
        classifier: "atom" means PyTorch.

    Raises:
        ConfigError: on an unknown name, on a device that is not there, and on a choice that the engine does not have.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if classifier not in CLASSIFIERS:
        raise ConfigError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {classifier!r}")
    if engine == "auto":
        engine = "torch" if _is_for_torch(weights, device, precision, classifier) else "onnx"
    if engine == "onnx" and classifier == "atom":
        raise ConfigError("ATOM's classifier learns in torch: give a .safetensors file and `--engine torch`")
    if engine == "torch" and device == OPENVINO:
        raise ConfigError("OpenVINO runs exported networks: leave out --engine torch, or ATOM's classifier")
    if engine == "torch" and not has_torch():
        raise missing_extra("torch", "the engine 'torch'")
    return engine


def _is_for_torch(weights: str | Path | None, device: str, precision: str, classifier: str) -> bool:
    """Return whether PyTorch runs a network if the user names no engine; see `choose_engine`."""
    if is_exported(weights):
        return False
    if classifier == "atom":
        return True
    if not has_torch() or precision == "int8" or device in {OPENVINO, *PROVIDERS} - {"cpu", "cuda"}:
        return False
    return precision == "bfloat16" or find_exported(weights) is None or pick_device(device) != "cpu"


def engine_facts(
    weights: str | Path | None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    classifier: str = "network",
) -> dict[str, str]:
    """Return what results depend on besides the set-up, without loading the network; see `load_engine`.

    Returns:
        engine ("torch", "onnx" or "openvino"), precision (what is computed in, as `EngineInfo` says it) and weights
        (SHA-256 of the network's file: .safetensors, or an exported network's network.json).

    Raises:
        ConfigError: on what `load_engine` refuses.
        CheckpointError: if there is no such network.
    """
    if choose_engine(weights, device, precision, engine, classifier) == "onnx":
        folder = existing_exported(weights)
        file = folder / DESCRIPTION
        computed = precisions(stored_precision(folder, read_description(file), precision), device, precision)[1]
        name = OPENVINO if device == OPENVINO else "onnx"
    else:
        from ebmtrack.checkpoints.native import resolve_weights
        from ebmtrack.nets.inference import choose_dtype

        file, name = resolve_weights(weights), "torch"
        computed = str(choose_dtype(pick_device(device), precision)).removeprefix("torch.")
    return {"engine": name, "precision": computed, "weights": hashlib.sha256(file.read_bytes()).hexdigest()}


def runs_network(engine: Engine, weights: str | Path | None) -> bool:
    """Return whether an engine runs the network of this name, in whatever form; of one that does not ship True."""
    folder = find_exported(weights)
    return folder is None or read_description(folder / DESCRIPTION).get("source_sha256") == engine.info.source_sha256


def has_torch() -> bool:
    """Return whether PyTorch is installed."""
    if "torch" in sys.modules:
        return True
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # of an import hook that hides it
        return False
