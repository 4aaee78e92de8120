"""Weights from ebmtrack's format to pytracking's and back: the work behind `ebmtrack convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ebmtrack.checkpoints.native import architecture_name, load_checkpoint, read_metadata, save_checkpoint
from ebmtrack.checkpoints.pytracking import export_pytracking, import_pytracking
from ebmtrack.checkpoints.untrusted import kind_of
from ebmtrack.errors import ConfigError
from ebmtrack.nets.tracker_net import TrackerNet

PYTRACKING_ENDINGS = (".tar", ".pth", ".pt")


def convert(source: Path, target: Path, /, half: bool = False) -> str:
    """Convert the weights of a tracker network between ebmtrack (.safetensors) and pytracking (.pth.tar).

    What the source is follows from its content, what to write from the ending of the target. Nothing that a
    file says is run. Returns one line that says what was written.

    Args:
        source: Weights of ebmtrack, or a checkpoint of pytracking (DiMP, PrDiMP, SuperDiMP).
        target: The file to write: .safetensors (ebmtrack), or .pth.tar, .pth or .pt (pytracking).
        half: Store the weights of a .safetensors file in half precision.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in (".safetensors", *PYTRACKING_ENDINGS):
        raise ConfigError(f"{target}: name the target .safetensors (ebmtrack) or .pth.tar (pytracking)")
    if half and target.suffix != ".safetensors":
        raise ConfigError(f"{target}: half precision is for .safetensors only")
    net, described = _read(source)
    if target.exists() and source.samefile(target):
        raise ConfigError(f"{target}: is the source itself; name another file")
    if target.suffix == ".safetensors":
        save_checkpoint(target, net, **described, dtype=torch.float16 if half else torch.float32)
    else:
        export_pytracking(target, net, epoch=_epoch(described["run"]))
    size = target.stat().st_size / 1e6
    entries = len(net.state_dict())
    return f"{architecture_name(net.config)} network with {entries} entries: {target}, {size:.1f} MB"


def _read(source: Path) -> tuple[TrackerNet, dict[str, Any]]:
    """The network of either kind of file, with its run and settings."""
    if kind_of(source) == "safetensors":
        metadata = read_metadata(source)
        return load_checkpoint(source), {"run": metadata["run"], "settings": metadata["settings"]}
    net, origin = import_pytracking(source)
    return net, {"run": {"converted_from": {"file": source.name, **origin}}, "settings": {}}


def _epoch(run: dict[str, Any]) -> int:
    """The epoch that the run says it came from, or 0."""
    origin = run.get("converted_from")
    epoch = origin.get("epoch") if isinstance(origin, dict) else None
    return epoch if type(epoch) is int else 0
