"""Graphs on OpenVINO, behind the part of ONNX Runtime's sessions that the engine uses.

A graph is compiled for each shape of its inputs when they first come: OpenVINO runs fixed shapes faster than open ones.
Search regions have one or two sizes, windows of box features five at each level, so that few shapes come.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ebmtrack.device import multiplies_bfloat16
from ebmtrack.errors import ConfigError, missing_extra

OPENVINO = "openvino"  # the device's name
ELEMENT_TYPES = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names of what it computes in, by ours
CONVERTER = "openvino.tools.ovc"


class Port(NamedTuple):
    """An input or output of a graph; a length that the graph leaves open is None."""

    name: str
    shape: list[int | None]


class OpenVinoSession:
    """A graph on this CPU. Calls from several threads wait for each other; what `run` returns is never overwritten."""

    def __init__(self, graph: bytes, precision: str, threads: int):
        """Read a graph.

        Args:
            graph: an ONNX file's content.
            precision: "float32" or "bfloat16", of what is not quantised.
            threads: that compute.
        """
        self.model = _core().read_model(graph)
        self.inputs, self.outputs = _ports(self.model.inputs), _ports(self.model.outputs)
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": ELEMENT_TYPES[precision],
            "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores
        }
        self.requests: dict[tuple[tuple[int, ...], ...], Any] = {}
        self.tensor, self.lock = openvino().Tensor, threading.Lock()

    def get_inputs(self) -> list[Port]:
        """Return the graph's inputs, in order."""
        return self.inputs

    def get_outputs(self) -> list[Port]:
        """Return the graph's outputs, in order."""
        return self.outputs

    def get_providers(self) -> list[str]:
        """Return the device's name."""
        return [OPENVINO]

    def run(self, names: None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return all outputs, in order, for inputs by name; `names` is that argument of ONNX Runtime's sessions."""
        _core()  # refuses forked processes
        with self.lock:
            shapes = tuple(value.shape for value in feeds.values())
            if shapes not in self.requests:
                self.requests[shapes] = self._compile({name: value.shape for name, value in feeds.items()})
            request = self.requests[shapes]
            inputs = {name: np.ascontiguousarray(value) for name, value in feeds.items()}  # kept until it has run
            for name, value in inputs.items():
                request.set_tensor(name, self.tensor(value, shared_memory=True))
            request.infer(share_outputs=True)
            return [request.get_output_tensor(k).data.copy() for k in range(len(self.outputs))]

    def _compile(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Return a request that runs the graph on inputs of these shapes."""
        model = self.model.clone()
        model.reshape(shapes)
        return _core().compile_model(model, "CPU", self.settings).create_infer_request()


def choose_precision(wanted: str) -> str:
    """Return what OpenVINO computes floating point in on this CPU: "float32" or "bfloat16".

    Args:
        wanted: one of these, or "auto": bfloat16 if the CPU multiplies it in hardware.

    Raises:
        ConfigError: on another precision, or bfloat16 on a CPU for which OpenVINO has none.
    """
    if wanted not in ("auto", *ELEMENT_TYPES):
        raise ConfigError(
            f"precision must be one of auto, {', '.join(ELEMENT_TYPES)} on OpenVINO, got {wanted!r}; a network that "
            "was exported in int8 keeps its int8 layers"
        )
    has_bfloat16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bfloat16" and not has_bfloat16:
        raise ConfigError("OpenVINO has no bfloat16 on this CPU: use --precision float32")
    if wanted == "auto":
        return "bfloat16" if has_bfloat16 and multiplies_bfloat16() else "float32"
    return wanted


def openvino() -> Any:
    """Import OpenVINO, without its converter of models, and return the module.

    The converter tells Google Analytics of each import unless the user has opted out, and takes three quarters of the
    import's time.

    Raises:
        ConfigError: if OpenVINO is not installed.
    """
    if "openvino" not in sys.modules and CONVERTER not in sys.modules:
        sys.modules[CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino as module
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", f"the device {OPENVINO!r}") from error
    finally:
        if CONVERTER in sys.modules and sys.modules[CONVERTER] is None:
            del sys.modules[CONVERTER]
    return module


def _core() -> Any:
    """Return OpenVINO's devices, opened once.

    Raises:
        ConfigError: in a process that was forked after they were opened: it has none of the threads that compute, and
            would wait for them for ever.
    """
    core, process = _opened()
    if process != os.getpid():
        raise ConfigError(
            "OpenVINO does not survive a fork of the process that has used it: start processes by "
            "multiprocessing.get_context('spawn')"
        )
    return core


@cache
def _opened() -> tuple[Any, int]:
    """Return OpenVINO's devices and the process that has opened them."""
    return openvino().Core(), os.getpid()


def _ports(found: Sequence[Any]) -> list[Port]:
    """Return OpenVINO's inputs or outputs by name and shape."""
    lengths = [[size.get_length() if size.is_static else None for size in one.partial_shape] for one in found]
    return [Port(one.any_name, shape) for one, shape in zip(found, lengths)]
