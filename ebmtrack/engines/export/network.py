"""A network of PyTorch written for ONNX Runtime, and compared with PyTorch."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from ebmtrack import weights as packaged
from ebmtrack.checkpoints.native import load_checkpoint, read_metadata, resolve_weights, tensors_sha256
from ebmtrack.engines.base import Ascent, FirstFrame, WholeLook
from ebmtrack.engines.export.graphs import OPSET, network_arrays, network_graphs
from ebmtrack.engines.export.quantize import halve, quantize_graphs
from ebmtrack.engines.onnx_engine import OnnxEngine
from ebmtrack.engines.onnx_files import (
    ARRAYS,
    DESCRIPTION,
    FORMAT_VERSION,
    IN_8_BITS,
    ExportedNetwork,
    is_exported,
    read_exported,
)
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.files import write_bytes, write_text
from ebmtrack.nets.backbone import fold_batch_norm
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.tracker_net import TrackerNet

PRECISIONS = ("float32", "float16", "int8", "float16+int8")


@dataclasses.dataclass(frozen=True)
class Differences:
    """The largest differences between an exported network and PyTorch in float32, over several search regions.

    scores: of the classifier. boxes_px: of candidates after ten steps of the climb, in crop pixels. energies: of the
    candidates at the start. score_range: the largest score, for comparison.
    """

    scores: float
    boxes_px: float
    energies: float
    score_range: float

    def __str__(self) -> str:
        return (
            f"scores {self.scores:.2e} (of {self.score_range:.2f}), boxes {self.boxes_px:.3f} pixels, "
            f"energies {self.energies:.2e}"
        )


def export_network(
    weights: str | os.PathLike | None,
    out: Path,
    precision: str = "float32",
    regions: Sequence[np.ndarray] = (),
    note: Callable[[str], None] | None = print,
) -> Path:
    """Write a network for the engine on ONNX Runtime and compare it with PyTorch.

    Args:
        weights: a .safetensors file, the name of a network that ships, or None for the default one.
        out: the folder to write.
        precision: "float32"; "float16" (weights are stored in half, arithmetic is float32); "int8" (convolutions in 8
            bits, static quantisation, what is left stored in float16); "float16+int8" (both; int8 if asked for).
        regions: search regions (side, side, 3) uint8 with a target in the middle: int8 is calibrated on them, and the
            comparison with PyTorch uses the last ones of them.
        note: called with each line to print; None leaves the comparison out.

    Returns:
        The path of network.json.

    Raises:
        ConfigError: on an unknown precision, for int8 without search regions, and for a network that is exported
            already.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    is_name = Path(weights or "").name == str(weights)  # a path is a folder, whatever lies beside it
    ships = is_name and (Path(packaged.__file__).parent / f"{weights}.safetensors").is_file()
    if is_exported(weights) and not ships:
        raise ConfigError(f"{weights} is an exported network already: give it as --weights when tracking")
    path = resolve_weights(weights)
    net = load_checkpoint(path)
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    fold_batch_norm(folded)
    arrays = network_arrays(folded) if precision == "float32" else halved_arrays(network_arrays(folded))
    graphs = in_precision(network_graphs(folded), precision, list(regions), note or (lambda line: None))
    described = {
        "format_version": FORMAT_VERSION,
        "name": path.stem,
        "precision": precision.removesuffix("+int8"),
        "opset": OPSET,
        "architecture": read_metadata(path)["architecture"],
        "config": dataclasses.asdict(net.config),
        "settings": read_metadata(path)["settings"],
        "source_sha256": tensors_sha256(net.state_dict()),
    }
    written = write_network(out, described, graphs, arrays)
    if note is None:
        return written
    size = sum(file.stat().st_size for file in out.iterdir())
    note(f"{written}: {precision}, opset {OPSET}, {size / 1e6:.1f} MB")
    for kind in precision.split("+"):
        for name, chosen in (("random regions", random_regions()), ("your regions", list(regions)[-6:])):
            if chosen:
                found = compare(net, read_exported(out, kind), chosen)
                note(f"{kind}: largest differences from PyTorch in float32, {name}: {found}")
    return written


def in_precision(
    graphs: dict[str, onnx.ModelProto], precision: str, regions: list[np.ndarray], note: Callable[[str], None]
) -> dict[str, onnx.ModelProto]:
    """Return graphs in float32, by file name, in another precision; arguments and errors as in `export_network`.

    With "float16+int8" those in 8 bits are files of their own.
    """
    if precision.endswith("int8"):
        quantized = quantize_graphs(graphs, regions, note)
        beside = {file: quantized[name] for name, file in IN_8_BITS.items()}
        graphs = quantized if precision == "int8" else graphs | beside
    return graphs if precision == "float32" else {name: halve(graph) for name, graph in graphs.items()}


def write_network(
    out: Path, description: dict, graphs: dict[str, onnx.ModelProto], arrays: dict[str, np.ndarray]
) -> Path:
    """Write graphs, arrays and, last, the description with their hashes; return its path."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    contents = {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}
    contents[ARRAYS] = packed.getvalue()
    for name, content in contents.items():
        write_bytes(out / name, content)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    write_text(out / DESCRIPTION, json.dumps({**description, "files": files}, indent=1, sort_keys=True) + "\n")
    return out / DESCRIPTION


def halved_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of two or more axes in float16; vectors and the optimiser's numbers stay in float32."""
    return {name: a.astype(np.float16) if a.ndim > 1 else a for name, a in arrays.items()}


def random_regions(count: int = 3, side: int = 288, seed: int = 0) -> list[np.ndarray]:
    """Return search regions of random squares, (side, side, 3) uint8."""
    rng, squares = np.random.default_rng(seed), (side + 15) // 16
    coarse = rng.integers(0, 256, (count, squares, squares, 3), dtype=np.uint8)
    return list(coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :side, :side])


def compare(net: TrackerNet, exported: ExportedNetwork, regions: Sequence[np.ndarray]) -> Differences:
    """Return the largest differences of an exported network from PyTorch, with the first region as the first frame.

    Args:
        net: the network in PyTorch.
        exported: the exported one.
        regions: search regions (side, side, 3) uint8 with a target in the middle.
    """
    engines = (TorchEngine(InferenceNet(net, precision="float32")), OnnxEngine(exported))
    answers = [_answers(engine, regions) for engine in engines]
    gaps = [float(np.abs(a - b).max()) for a, b in zip(*answers)]
    return Differences(gaps[0], gaps[1], gaps[2], float(np.abs(answers[0][0]).max()))


def _answers(engine: TorchEngine | OnnxEngine, regions: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return scores, climbed boxes and energies of an engine in search regions."""
    side = regions[0].shape[0]
    middle, size = side / 2, side / 5
    corner = middle - size / 2
    box = np.array([[corner, corner, corner + size, corner + size]], np.float32)
    factors = np.zeros((0, engine.info.channels), np.float32)
    model, _ = engine.start(FirstFrame(regions[0][None].astype(np.float32), box, factors, 5, 1))
    sights = engine.look([WholeLook(model, region) for region in regions])
    rng = np.random.default_rng(1)
    boxes = np.concatenate([corner + rng.uniform(-10, 10, (10, 2)), size * rng.uniform(0.8, 1.25, (10, 2))], axis=1)
    boxes = np.repeat(boxes[None].astype(np.float32), len(regions), axis=0)
    climb = engine.climb([sight.features for sight in sights], boxes, Ascent(10, 1e-3, 1e-3, True))
    start = engine.climb([sight.features for sight in sights], boxes, Ascent(0, 0.0, 0.0, True))
    return np.stack([sight.scores for sight in sights]), climb.boxes_xywh, start.energies
