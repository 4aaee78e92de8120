"""Networks as a tracker uses them, behind one protocol (see base.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ebmtrack.device import multiplies_bfloat16, pick_device
from ebmtrack.engines.base import Engine
from ebmtrack.engines.onnx_files import (
    DESCRIPTION,
    PROVIDERS,
    existing_exported,
    find_exported,
    is_exported,
    precisions,
    read_description,
)
from ebmtrack.engines.openvino_session import OPENVINO
from ebmtrack.errors import ConfigError, missing_extra

__all__ = ["ENGINES", "Engine", "choose_engine", "engine_facts", "has_torch", "load_engine", "weights_file"]

ENGINES = ("auto", "torch", "onnx")
CLASSIFIERS = ("network", "atom")
DEPTHWISE = ("efficientnet_lite0",)  # backbones of depthwise convolutions, at which PyTorch is slow on CPUs


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
        device: "auto" (torch: a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps"; of an exported
            network also "openvino", and on ONNX Runtime "tensorrt", "coreml", "directml".
        precision: "float32", "bfloat16" or "auto". On ONNX Runtime an exported network has one of its own.
        engine: "torch", "onnx" or "auto": the one that `choose_engine` names.
        classifier: "network", or "atom" for ATOM's in its place, on torch alone.

    Raises:
        ConfigError: on an unknown engine, device or precision.
        CheckpointError: on a network that is missing or damaged.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if classifier not in CLASSIFIERS:
        raise ConfigError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {classifier!r}")
    if engine == "auto":
        engine = choose_engine(weights, device, precision, classifier)
    if engine == "onnx":
        from ebmtrack.engines.onnx_engine import load_onnx_engine

        if classifier == "atom":
            raise ConfigError("ATOM's classifier learns in torch: give a .safetensors file and `--engine torch`")
        return load_onnx_engine(weights, "cpu" if device == "auto" else device, precision)
    if device == OPENVINO:
        raise ConfigError("OpenVINO runs exported networks: leave out --engine torch, or ATOM's classifier")
    if not has_torch():
        raise missing_extra("torch", "the engine 'torch'")
    from ebmtrack.engines.torch_engine import load_torch_engine

    if classifier == "atom":
        from ebmtrack.engines.atom_engine import AtomEngine

        return load_torch_engine(weights, device, precision, AtomEngine)
    return load_torch_engine(weights, device, precision)


def choose_engine(
    weights: str | Path | None, device: str = "auto", precision: str = "auto", classifier: str = "network"
) -> str:
    """Return the engine, "torch" or "onnx", of a network if the user names none; see `load_engine`."""
    if classifier == "atom" and not is_exported(weights):
        return "torch"
    return "onnx" if is_for_onnx(weights, device, precision) else "torch"


def engine_facts(
    weights: str | Path | None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    classifier: str = "network",
) -> dict[str, str]:
    """Return the engine, "torch", "onnx" or "openvino", and the precision that results depend on; see `load_engine`.

    The precision is the one that OpenVINO computes in, and with the other engines the one that was asked for.
    """
    if device == OPENVINO:
        folder = existing_exported(weights)
        stored = read_description(folder / DESCRIPTION)["precision"]
        return {"engine": OPENVINO, "precision": precisions(folder, stored, device, precision)[1]}
    chosen = choose_engine(weights, device, precision, classifier) if engine == "auto" else engine
    return {"engine": chosen, "precision": precision}


def is_for_onnx(weights: str | Path | None, device: str = "auto", precision: str = "auto") -> bool:
    """Return whether a network runs as an exported one if the user names no engine.

    An exported network does, and any network if torch is not installed or does not know the device (openvino). A
    network that ships has both forms: on a CPU the faster one is taken. PyTorch is about as fast as ONNX Runtime if the
    CPU multiplies bfloat16, 0.7 times as fast if it does not, and 0.55 times at depthwise convolutions
    (docs/results.md, "Engines and networks side by side").

    Args:
        weights: see `load_engine`.
        device: see `load_engine`.
        precision: one for PyTorch, or "auto".

    Raises:
        ConfigError: on a device that is not there.
    """
    if is_exported(weights) or not has_torch() or device in {OPENVINO, *PROVIDERS} - {"cpu", "cuda"}:
        return True
    shipped = find_exported(weights)
    if shipped is None or precision != "auto" or (weights is not None and Path(weights).is_file()):
        return False
    description = read_description(shipped / DESCRIPTION)
    is_slow_on_torch = description["config"]["backbone"] in DEPTHWISE or not multiplies_bfloat16()
    return is_slow_on_torch and pick_device(device) == "cpu"


def weights_file(weights: str | Path | None) -> Path:
    """Return the file that identifies a network: its .safetensors file, or an exported network's network.json.

    Raises:
        CheckpointError: if there is no such network.
    """
    if is_exported(weights) or not has_torch():
        return existing_exported(weights) / DESCRIPTION
    from ebmtrack.checkpoints.native import resolve_weights

    return resolve_weights(weights)


def has_torch() -> bool:
    """Return whether PyTorch is installed."""
    if "torch" in sys.modules:
        return True
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # of an import hook that hides it
        return False
