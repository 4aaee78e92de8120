"""An exported network on disk: a folder of ONNX graphs, one file of arrays, and `network.json` that describes them.

`network.json` holds format_version, name, precision, opset, config (all fields of NetConfig), settings (of training:
search region and crop rule), source_sha256 (of the tensors that were exported) and files (SHA-256 by file name). Beside
the graphs of every frame there may be the same in 8 bits (`look.int8.onnx`), for those who ask for int8.
This module imports neither torch nor onnx.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack import weights as packaged
from ebmtrack.engines.openvino_session import OPENVINO, OpenVinoSession, choose_precision, openvino
from ebmtrack.engines.products import default_threads, session_options
from ebmtrack.errors import CheckpointError, ConfigError, reason_of

FORMAT_VERSION = 1
DESCRIPTION = "network.json"
ARRAYS = "arrays.npz"
FOLDER_SUFFIX = ".onnx"  # of the folder of a network that ships: weights/ebm18_small.onnx/
INPUTS = {  # of each graph, by file name
    "look.onnx": ("patches",),
    "reference.onnx": ("layer2", "layer3"),
    "initializer.onnx": ("features",),
    "boxes8.onnx": ("cut", "mask"),
    "boxes16.onnx": ("cut", "mask"),
}
IN_8_BITS = {f"{name}.onnx": f"{name}.int8.onnx" for name in ("look", "boxes8", "boxes16")}  # the graphs of every frame
PROVIDERS = {  # ONNX Runtime's names by ours
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
    """An exported network in memory.

    folder: where it lies.
    precision: of its graphs: "float32", "float16" or "int8".
    description: what network.json says.
    arrays: in float32.
    files: the name of each graph's file, by those of `INPUTS`.
    graphs: their contents, by the same names.
    """

    folder: Path
    precision: str
    description: dict[str, Any]
    arrays: dict[str, np.ndarray]
    files: dict[str, str]
    graphs: dict[str, bytes]


def is_exported(weights: str | os.PathLike | None) -> bool:
    """Return whether `weights` is the path of an exported network: its folder, or its network.json."""
    return weights is not None and (Path(weights).name == DESCRIPTION or (Path(weights) / DESCRIPTION).is_file())


def find_exported(weights: str | os.PathLike | None) -> Path | None:
    """Return the folder of an exported network.

    Args:
        weights: the folder, its network.json, the name of a network that ships, or None for the default one.

    Returns:
        The folder, or None if there is none of this name.
    """
    if weights is None:
        weights = packaged.DEFAULT_WEIGHTS
    elif Path(weights).is_file() and Path(weights).name != DESCRIPTION:
        return None  # a file for PyTorch, whatever its name
    path, shipped = Path(weights), Path(packaged.__file__).parent / f"{weights}{FOLDER_SUFFIX}"
    folders = (path.parent if path.name == DESCRIPTION else path, shipped)
    return next((folder for folder in folders if (folder / DESCRIPTION).is_file()), None)


def existing_exported(weights: str | os.PathLike | None) -> Path:
    """Return the folder of an exported network as `find_exported` does.

    Raises:
        CheckpointError: if there is none of this name; of a file for PyTorch it says how to export it.
    """
    folder = find_exported(weights)
    if folder is not None:
        return folder
    if weights is not None and Path(weights).is_file():
        raise CheckpointError(
            f"{weights} is a file for PyTorch: after pip install 'ebmtrack[train]' it is used as it is, without "
            "--engine onnx and --precision int8; for ONNX Runtime export it once (after `ebmtrack convert` if it is "
            f"one of pytracking's), `ebmtrack export {weights} --out FOLDER`, which needs ebmtrack[export], and give "
            "--weights FOLDER; for int8 with --precision int8 --calibration SEQUENCES"
        )
    if Path(weights or "").suffix in (".safetensors", ".pt", ".pth", ".tar"):
        raise CheckpointError(f"{weights}: no such file of weights")
    raise CheckpointError(
        f"no exported network {str(weights or packaged.DEFAULT_WEIGHTS)!r}: give a folder with network.json; "
        "`ebmtrack export` makes one of a .safetensors file (it needs ebmtrack[export])"
    )


def independent_of_folder(weights: str | os.PathLike | None) -> str | None:
    """Return weights as other folders find them: the name of a network that ships stays, a path becomes absolute."""
    if weights is None:
        return None
    ships = any(
        (Path(packaged.__file__).parent / f"{weights}{end}").exists() for end in (".safetensors", FOLDER_SUFFIX)
    )
    is_there = Path(weights).is_file() or is_exported(weights)
    return str(weights) if ships and not is_there else str(Path(weights).absolute())


def read_exported(folder: Path, precision: str = "auto") -> ExportedNetwork:
    """Read an exported network and verify the hash of each file that is used.

    Args:
        folder: where it lies.
        precision: "int8" takes the graphs in 8 bits; anything else those of the precision that network.json names.

    Raises:
        CheckpointError: on a file that is missing, damaged or of another version.
        ConfigError: if there are no graphs in 8 bits.
    """
    description = read_description(folder / DESCRIPTION)
    stored, digests = stored_precision(folder, description, precision), description["files"]
    beside = IN_8_BITS if stored != description["precision"] else {}
    files = {name: beside.get(name, name) for name in INPUTS}
    missing = [name for name in (*files.values(), ARRAYS) if name not in digests]
    if missing:
        raise CheckpointError(f"{folder / DESCRIPTION}: lists no {' and no '.join(missing)}; export the network anew")
    graphs = {name: _read_verified(folder / file, digests[file]) for name, file in files.items()}
    arrays = _arrays(folder / ARRAYS, _read_verified(folder / ARRAYS, digests[ARRAYS]))
    return ExportedNetwork(folder, stored, description, arrays, files, graphs)


def stored_precision(folder: Path, description: Mapping[str, Any], wanted: str) -> str:
    """Return the precision of the graphs that are used if one is wanted: "float32", "float16" or "int8".

    Raises:
        ConfigError: if int8 is wanted and there are no graphs in 8 bits.
    """
    if wanted != "int8":
        return description["precision"]
    if description["precision"] != "int8" and not set(IN_8_BITS.values()) <= set(description["files"]):
        raise ConfigError(
            f"{folder} has no graphs in 8 bits; `ebmtrack export` makes them of a .safetensors file: --precision int8"
        )
    return "int8"


def read_description(path: Path) -> dict[str, Any]:
    """Return what a network.json says.

    Raises:
        CheckpointError: if a part that reading relies on is missing.
    """
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}; export the network anew") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version!r}, this ebmtrack reads {FORMAT_VERSION}; export the network anew"
        )
    kinds = {"name": str, "precision": str, "config": dict, "settings": dict, "files": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(description.get(name), kind)]
    wrong += [name for name in description.get("files") or () if Path(name).name != name]
    if wrong:
        raise CheckpointError(f"{path}: lacks a proper {' and '.join(wrong)}; export the network anew")
    return description


def _read_verified(path: Path, digest: Any) -> bytes:
    """Return a file's content if it has the SHA-256 that network.json says, else raise CheckpointError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}, but network.json lists it; export the network anew"
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path}: damaged or of another export (not the SHA-256 in network.json); fetch it again")
    return content


def _arrays(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file in float32."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: np.ascontiguousarray(file[name], np.float32) for name in file}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: is no file of arrays ({reason_of(error)}); export the network anew") from error


def open_sessions(network: ExportedNetwork, provider: str = "cpu", precision: str = "float32") -> dict[str, Any]:
    """Return a session of ONNX Runtime, or one of OpenVINO like it, for each graph, by file name without its ending.

    Each has OMP_NUM_THREADS threads, or one for each core.

    Args:
        network: the exported network.
        provider: "openvino"; of ONNX Runtime "cpu", "cuda", "tensorrt", "coreml", "directml", "rocm", or its own name.
        precision: "float32" or, on OpenVINO, "bfloat16", of what is not quantised.

    Raises:
        ConfigError: on a provider that the installed ONNX Runtime does not have, and without OpenVINO.
        CheckpointError: on a graph that cannot be loaded, or that does not fit the description.
    """
    library, open_graph = _library(provider, precision)
    sessions = {}
    for name, inputs in INPUTS.items():
        path = network.folder / network.files[name]
        try:
            session = open_graph(network.graphs[name])
        except Exception as error:  # ONNX Runtime's errors have no common class besides Exception
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: {library} cannot load it ({reason}); upgrade that or export the network anew"
            ) from error
        found = tuple(one.name for one in session.get_inputs())
        if found != inputs:
            raise CheckpointError(
                f"{path}: has the inputs {', '.join(found)}, expected {', '.join(inputs)}; export the network anew"
            )
        sessions[Path(name).stem] = session
    return sessions


def precisions(stored: str, provider: str, wanted: str) -> tuple[str, str]:
    """Return what a network's floating point is computed in, and the whole network's precision for reports.

    It does not matter whether the values are stored in float32 or float16.

    Args:
        stored: that of its graphs.
        provider: see `open_sessions`.
        wanted: see `load_onnx_engine`.

    Raises:
        ConfigError: on a precision that the provider does not have.
    """
    wanted = "auto" if wanted == "int8" else wanted
    floating = choose_precision(wanted) if provider == OPENVINO else "float32"
    if wanted not in ("auto", floating):
        raise ConfigError(
            f"ONNX Runtime computes in float32 or int8, not in {wanted}: leave out --precision, or name what has it "
            "(--device openvino, --engine torch)"
        )
    return floating, f"int8+{floating}" if stored == "int8" else floating


def _library(provider: str, precision: str) -> tuple[str, Callable[[bytes], Any]]:
    """Return the name and version of the library that computes on a device, and how it opens a graph."""
    threads = default_threads()
    if provider == OPENVINO:
        return f"OpenVINO {openvino().__version__}", partial(OpenVinoSession, precision=precision, threads=threads)
    import onnxruntime

    providers = _providers(provider, onnxruntime.get_available_providers())
    opened = partial(onnxruntime.InferenceSession, sess_options=session_options(threads), providers=providers)
    return f"ONNX Runtime {onnxruntime.__version__}", opened


def check_channels(network: ExportedNetwork, sessions: Mapping[str, Any]) -> None:
    """Raise CheckpointError if graphs, arrays and network.json differ in a number of channels."""
    look = dict(zip(("layer2", "layer3", "features"), (one.shape[1] for one in sessions["look"].get_outputs())))
    levels = {name: len(network.arrays[f"energy/w{name[5:]}"][0]) for name in ("boxes8", "boxes16")}
    classifier = network.description["config"]["classifier_channels"]
    inputs = {name: [one.shape[1] for one in session.get_inputs()] for name, session in sessions.items()}
    found = {
        "look.onnx, classification features": (look["features"], classifier),
        "initializer.onnx, features": (inputs["initializer"][0], classifier),
        "reference.onnx, layer2": (inputs["reference"][0], look["layer2"]),
        "reference.onnx, layer3": (inputs["reference"][1], look["layer3"]),
        "boxes8.onnx, cut": (inputs["boxes8"][0], look["layer2"]),
        "boxes16.onnx, cut": (inputs["boxes16"][0], look["layer3"]),
        **{f"{name}.onnx, box features": (sessions[name].get_outputs()[0].shape[3], levels[name]) for name in levels},
    }
    for what, (channels, expected) in found.items():
        if channels != expected:
            raise CheckpointError(
                f"{network.folder}: {what}: {channels} channels, but the other files and network.json say {expected}; "
                "export the network anew"
            )


def _providers(name: str, available: list[str]) -> list[str]:
    """Return ONNX Runtime's names of a provider and of the CPU behind it."""
    wanted = PROVIDERS.get(name.lower(), name)
    if wanted not in available:
        known = ", ".join(map(short_name, available))
        advice = "; PyTorch knows GPUs: pip install 'ebmtrack[train]'" if name.startswith("cuda") else ""
        raise ConfigError(f"the installed ONNX Runtime has no provider {name!r}; it has {known}{advice}")
    return list(dict.fromkeys((wanted, PROVIDERS["cpu"])))


def short_name(provider: str) -> str:
    """Return our name of a provider, such as "cpu", or ONNX Runtime's if we have none."""
    return next((ours for ours, theirs in PROVIDERS.items() if theirs == provider), provider)
