"""Networks on disk: safetensors, and as JSON the facts beside the tensors (architecture, settings, run, hash).

The header of the file has one text, "ebmtrack", a JSON object with format_version, architecture, config (all
fields of NetConfig), settings, run, dtype and sha256. pytracking's files: see `pytracking_format`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from ebmtrack import weights as packaged
from ebmtrack.checkpoints.untrusted import (
    build_net,
    checked_config,
    expected_entries,
    fitted,
    kind_of,
    read_header,
    read_safetensors,
    read_torch,
    short,
)
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import replacing
from ebmtrack.nets.backbone import BLOCKS, ResNetTrunk
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
    entries = fitted(net.state_dict(), expected_entries(net.config), path)
    if dtype == torch.float16:
        entries = {name: _halved(name, value) for name, value in entries.items()}
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
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def default_weights() -> Path:
    """Return the trained network that comes with ebmtrack."""
    return resolve_weights(DEFAULT_WEIGHTS)


def resolve_weights(weights: str | os.PathLike | None = None) -> Path:
    """Return the file that `weights` names: a path, the name of a network that comes with ebmtrack, or None."""
    weights = DEFAULT_WEIGHTS if weights is None else weights
    folder = Path(packaged.__file__).parent
    for path in (Path(weights), folder / f"{weights}.safetensors"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"no weights {str(weights)!r}, neither a file nor a network in {folder} ({names}); "
        "give the path of a .safetensors file; `ebmtrack convert` makes one of a pytracking checkpoint"
    )


def backbone_weights(source: str | os.PathLike) -> dict[str, Tensor]:
    """Entries for a ResNetTrunk from a torchvision-style ResNet-18 or -50: a file, or a name to download.

    source: .safetensors or .pth (read with weights_only), with or without layer4 and fc, which are left out;
    or "resnet18" or "resnet50" for torchvision's ImageNet weights (version 1), which are downloaded once.
    """
    if str(source) in BLOCKS and not Path(source).exists():
        return _trunk_entries(_downloaded(str(source)), source)
    tensors = read_safetensors(source)[1] if kind_of(source) == "safetensors" else read_torch(source)
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{source}: holds a {type(tensors).__name__}, expected the entries of a ResNet")
    return _trunk_entries(tensors, source)


def _trunk_entries(tensors: Mapping[Any, Any], source: str | os.PathLike) -> dict[str, Tensor]:
    """Entries up to layer3, checked against the trunk that the names show."""
    with torch.device("meta"):
        trunk = ResNetTrunk("resnet50" if "layer1.0.conv3.weight" in tensors else "resnet18")
    used = {
        name: value
        for name, value in tensors.items()
        if not (isinstance(name, str) and name.startswith(("layer4.", "fc.")))
    }
    return fitted(used, trunk.state_dict(), source)


def _downloaded(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of a ResNet."""
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot fetch {weights.url}: {error}; download it on another machine and give the file instead of its name"
        ) from error


def _halved(name: str, value: Tensor) -> Tensor:
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
        raise CheckpointError(f"{path}: a safetensors file that was not written by ebmtrack")
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
