"""Reading weights that nobody vouches for: the kind of file, its tensors, and whether they fit a network.

Nothing here runs what a file says. PyTorch's pickles are read with weights_only=True, and the only foreign
names that they may use are those for which the caller brings an empty class. All faults are CheckpointErrors.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import expand_home
from ebmtrack.nets.shapes import without_values
from ebmtrack.nets.tracker_net import NetConfig, TrackerNet

CHECK_NETWORK = "are these the weights of another architecture?"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOOKS = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"<": "a web page or XML",
}
LIMITS = {  # smallest and largest sensible value; types are those of the defaults in NetConfig
    "classifier_channels": (1, 4096),
    "classifier_blocks": (0, 16),
    "filter_size": (1, 32),
    "box_width": (2, 4096),
    "optimizer_iterations": (0, 1000),
    "initial_step": (1e-9, 1e9),
    "initial_regularization": (0.0, 1e9),
    "minimum_regularization": (0.0, 1e9),
    "alpha_eps": (0.0, 1e9),
    "label_sigma": (1e-3, 1e3),
}


def kind_of(path: str | os.PathLike) -> str:
    """Return "safetensors" or "torch" (either container), judged by content; CheckpointError for all else."""
    path = expand_home(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; check the path of the weights")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is a {'folder' if path.is_dir() else 'device'}, not a weights file; give the path of a file"
        )
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
    if head[8:9] == b"{":  # after the header's length, whose bytes may be anything
        return "safetensors"
    if head.startswith((b"PK", b"\x80")):
        return "torch"
    raise CheckpointError(f"{path}: {_look(head)}, not weights; expected .safetensors or a PyTorch file")


def _look(head: bytes) -> str:
    """Describe a file that holds no weights by its first bytes."""
    if not head:
        return "an empty file"
    known = (text for magic, text in LOOKS.items() if head.startswith(magic))
    return next(known, f"a file that starts with {head[:8]!r}")


def read_header(path: str | os.PathLike) -> dict[str, str]:
    """Return the texts in the header of a safetensors file; its tensors are not read."""
    with _open(path) as file:
        return file.metadata() or {}


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return header texts and tensors, on the CPU, of a safetensors file."""
    with _open(path) as file:
        try:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise _unreadable(path, "safetensors", error) from error


def _open(path: str | os.PathLike) -> safe_open:
    if kind_of(path) != "safetensors":
        raise CheckpointError(f"{path}: a PyTorch file; convert it first: ebmtrack convert {path} OUT.safetensors")
    try:
        return safe_open(expand_home(path), framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, "safetensors", error) from error


def read_torch(path: str | os.PathLike, stand_ins: Iterable[tuple[type, str]] = ()) -> Any:
    """Read a file of torch.save (zip or pre-1.6 container) on the CPU without running any of it.

    stand_ins: (class, "module.Name") pairs; objects of that name become objects of that class. Any other name
    outside of torch's own list is refused.
    """
    if kind_of(path) != "torch":
        raise CheckpointError(f"{path}: a safetensors file, but a PyTorch checkpoint is expected; give a .pth file")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise CheckpointError(
            f"{path}: PyTorch files are read with torch 2.6 or later only: before, they could "
            "run code in spite of weights_only (CVE-2025-32434); upgrade torch"
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            warnings.simplefilter("ignore")
            return torch.load(expand_home(path), map_location="cpu", weights_only=True)
    except Exception as error:  # a torn or hostile file makes the parser raise nearly anything
        raise _unreadable(path, "PyTorch", error) from error


def _unreadable(path: str | os.PathLike, kind: str, error: Exception) -> CheckpointError:
    """Return the error for a file whose parser gave up; a refused name is named."""
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return CheckpointError(
            f"{path}: refused, and nothing in it was run: it refers to {refused[1]}, which is "
            "not on the list of names that weights may use"
        )
    detail = re.search(r"WeightsUnpickler error: ([^\n]*)", text)
    reason = detail[1] if detail else next(iter(text.strip().splitlines()), "")
    reason = f"{type(error).__name__}: {reason:.200}".rstrip(": ")
    return CheckpointError(f"{path}: no readable {kind} file ({reason}); it may be truncated: fetch it again")


def checked_config(values: Mapping[str, Any], where: str | os.PathLike) -> NetConfig:
    """Return the NetConfig with these fields; CheckpointError names what is missing, unknown or out of range."""
    fields = {field.name: field.default for field in dataclasses.fields(NetConfig)}
    values = {"box_width": NetConfig.box_width, **values}  # files of the first versions do not name it
    if set(values) != set(fields):
        odd = ", ".join(sorted(map(str, set(values) ^ set(fields))))
        raise CheckpointError(
            f"{where}: its network configuration lacks or does not know: {odd}; "
            "was it written by another version of ebmtrack?"
        )
    good = {name: _check_value(name, values[name], default, where) for name, default in fields.items()}
    return NetConfig(**good)


def _check_value(name: str, value: Any, default: Any, where: str | os.PathLike) -> Any:
    """Return `value` if it has the type of `default` and is within LIMITS."""
    if isinstance(default, float) and type(value) is int:
        value = float(value) if abs(value) < 2**53 else math.inf
    low, high = LIMITS.get(name, (None, None))
    if type(value) is not type(default) or (low is not None and not low <= value <= high):
        wanted = f"from {low} to {high}" if low is not None else "text"
        raise CheckpointError(f"{where}: {name} of its network is {short(value)}; expected {wanted}")
    return value


def short(value: Any, limit: int = 60) -> str:
    """Return a short text for a plain value of a file; for anything else, which may be endless, its type."""
    if isinstance(value, (list, tuple)) and len(value) <= 8 and all(_is_plain(item) for item in value):
        return f"{value!r:.{limit}}"
    return f"{value!r:.{limit}}" if _is_plain(value) else f"of type {type(value).__name__}"


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (bool, float, str) or (type(value) is int and abs(value) < 2**63)


def build_net(config: NetConfig, tensors: Mapping[str, Any], where: str | os.PathLike) -> TrackerNet:
    """Return a network in eval mode with copies, float32, of `tensors`, which must be exactly its entries."""
    try:
        entries = fit_entries(tensors, expected_entries(config), where)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    with without_values():
        net = TrackerNet(config)
    net.load_state_dict(entries, assign=True)
    return net.eval()


@lru_cache(maxsize=16)
def expected_entries(config: NetConfig) -> dict[str, Tensor]:
    """Return the entries of the network of `config`, as meta tensors (shapes and types without values)."""
    with without_values():
        return TrackerNet(config).state_dict()


def fit_entries(
    tensors: Mapping[str, Any], expected: Mapping[str, Tensor], where: str | os.PathLike
) -> dict[str, Tensor]:
    """Return copies of `tensors` on the CPU, in the order and types of `expected`; check names, shapes, values.

    Counters of batches (num_batches_tracked), which files from before 2018 lack, are 0 if they are missing.
    """
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    extra = [name for name in tensors if name not in expected]
    if missing or extra:
        both = (("lacks", missing), ("has unknown", extra))
        parts = [f"{word} {_some(names)}" for word, names in both if names]
        raise CheckpointError(f"{where}: does not fit the network: {' and '.join(parts)}; {CHECK_NETWORK}")
    return {
        name: _fit_entry(name, tensors.get(name, torch.tensor(0)), entry, where) for name, entry in expected.items()
    }


def _fit_entry(name: str, value: Any, entry: Tensor, where: str | os.PathLike) -> Tensor:
    """Return a contiguous copy of one tensor, on the CPU, in the type of `entry`."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise CheckpointError(f"{where}: {name} is no ordinary tensor (it is of type {type(value).__name__})")
    if value.shape != entry.shape:
        shapes = f"{tuple(value.shape)}, expected {tuple(entry.shape)}"
        raise CheckpointError(f"{where}: does not fit the network: {name} has shape {shapes}; {CHECK_NETWORK}")
    allowed = FLOATS if entry.is_floating_point() else (torch.int64,)
    if value.dtype not in allowed:
        raise CheckpointError(f"{where}: does not fit the network: {name} is {value.dtype}, expected {entry.dtype}")
    value = value.detach().to("cpu", entry.dtype, copy=True, memory_format=torch.contiguous_format)
    if not value.isfinite().all():
        raise CheckpointError(f"{where}: {name} holds NaN or infinite values; such a network is of no use")
    return value


def _some(names: list[Any], limit: int = 3) -> str:
    """Return the first names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(short(name) for name in names[:limit]) + rest
