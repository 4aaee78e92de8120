"""Graphs in 8 bits (static quantisation: QDQ, per channel, percentiles) and weights stored in half precision."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ebmtrack.engines.onnx_box_maps import cut_window
from ebmtrack.engines.onnx_files import IN_8_BITS
from ebmtrack.errors import ConfigError

LEAST_HALVED = 64  # numbers in a weight that is stored in half precision
FEW_REGIONS = 50  # search regions below which the ranges of activations are warned of
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # onnxruntime's mark of graphs that it need not prepare


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose float32 weights are stored in float16; a Cast, folded on loading, makes them float32."""
    model, nodes = onnx.ModelProto.FromString(model.SerializeToString()), []
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or value.ndim < 2 or value.size < LEAST_HALVED:
            continue
        half = value.astype(np.float16)
        if not np.isfinite(half).all():
            continue
        nodes.append(helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(half, f"{weight.name}_half"))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + rest)
    onnx.checker.check_model(model)
    return model


class LogLines(io.TextIOBase):
    """A text stream whose lines go to the log of onnxruntime's tools, at level DEBUG."""

    def write(self, text: str) -> int:
        """Log the lines of a text."""
        for line in text.splitlines():
            if line.strip():
                logging.getLogger("onnxruntime.quantization").debug(line)
        return len(text)


class Samples:
    """The inputs on which a graph is calibrated, in the form that onnxruntime's tools read."""

    def __init__(self, inputs: Sequence[dict[str, np.ndarray]]):
        self.inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs, or None after the last ones."""
        return next(self.inputs, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.inputs


def quantize_graphs(
    graphs: dict[str, onnx.ModelProto],
    regions: list[np.ndarray],
    note: Callable[[str], None],
) -> dict[str, onnx.ModelProto]:
    """Return the graphs with the convolutions of every frame in 8 bits, but for those that compute at half resolution.

    The latter lose most (`first_layers`). Ranges of activations reach up to their 99.999th percentile: boxes end 0.19
    pixels of the search region from those in float32 (median of ten candidates in one frame of each of 42 held-back
    sequences; nine in ten within 0.42, the farthest 4.1; ebm18_small, ONNX Runtime, Intel Xeon with AMX, 2026-11-29).
    On video that loses nothing that can be measured (docs/results.md).

    Args:
        graphs: in float32, by file name.
        regions: search regions (side, side, 3) uint8 for the calibration.
        note: called with each line to print.

    Raises:
        ConfigError: without search regions.
    """
    if not regions:
        raise ConfigError(
            "int8 needs frames to calibrate on: give a folder of sequences (pictures with groundtruth.txt) with "
            "--calibration"
        )
    if len(regions) < FEW_REGIONS:
        warnings.warn(
            f"int8 is calibrated on {len(regions)} search regions, one of each sequence: the ranges of activations are "
            f"uncertain with fewer than {FEW_REGIONS}; give --calibration a folder with more sequences",
            stacklevel=3,
        )
    looks = [{"patches": region[None].astype(np.float32)} for region in regions]
    layers = _run_all(graphs["look.onnx"], looks)
    cuts = {"look.onnx": looks}
    for k, (name, side) in enumerate((("boxes8.onnx", 16), ("boxes16.onnx", 10))):
        cuts[name] = [_middle(outputs[k], side) for outputs in layers]
    done = dict(graphs)
    for name in IN_8_BITS:
        kept = first_layers(graphs[name]) if name == "look.onnx" else ()
        done[name] = quantize(graphs[name], cuts[name], kept)
    note(f"calibrated on {len(regions)} search regions")
    return done


def first_layers(look: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that compute at half resolution: those before the second that halves both sides.

    Of a ResNet that is the stem, of EfficientNet-Lite0 the first four convolutions.
    """
    nodes = look.graph.node
    halves = [any(one.name == "strides" and list(one.ints) == [2, 2] for one in node.attribute) for node in nodes]
    return [node.name for node in nodes[: halves.index(True, halves.index(True) + 1)]]


def quantize(
    model: onnx.ModelProto, inputs: Sequence[dict[str, np.ndarray]], kept: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return a model with its convolutions in 8 bits. What onnxruntime's tools print goes to their log.

    Args:
        model: in float32.
        inputs: on which the ranges of activations are measured.
        kept: names of nodes that stay in float32.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(LogLines()):
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        marked = onnx.ModelProto.FromString(model.SerializeToString())
        helper.set_model_props(marked, dict([PREPARED]))  # batch norm is folded and shapes are known
        onnx.save(marked, source)
        quantize_static(
            source,
            target,
            Samples(inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "MaxPool", "Relu"],
            nodes_to_exclude=list(kept),
            calibrate_method=CalibrationMethod.Percentile,
        )
        done = onnx.load(target)
    onnx.checker.check_model(done)
    return done


def _run_all(model: onnx.ModelProto, inputs: Sequence[dict[str, np.ndarray]]) -> list[list[Any]]:
    """Return the outputs of a model for each of several inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, one) for one in inputs]


def _middle(layer: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Return the inputs of a box graph for a window of `side` cells in the middle of a layer (1, c, n, n)."""
    first = (layer.shape[-1] - side) // 2
    cut, mask = cut_window(layer[0], first, first, side)
    return {"cut": cut[None], "mask": mask[None, None]}
