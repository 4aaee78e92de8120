"""Matrix products on ONNX Runtime.

Its products of these sizes take half to two thirds of the time of NumPy's, a quarter on two threads, and its threads
sleep between them: those of OpenBLAS, with which NumPy multiplies, go on spinning for some milliseconds and take a core
from the network (AMD EPYC, Zen 5, 2026-11-28).
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

GRAPH = bytes.fromhex(  # c = MatMul(a, b), opset 17
    "08083a370a110a01610a016212016322064d61744d756c12016d5a090a0161120"
    "40a0208015a090a016212040a02080162090a016312040a02080142040a001011"
)


SMALL = 5_000_000  # multiplications for which waking a second thread costs more than it saves


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products (..., m, n) of float32 matrices (..., m, k) and (..., k, n)."""
    session = _session(1 if a.size * b.shape[-1] < SMALL else default_threads())
    return session.run(None, {"a": a, "b": b})[0]


@cache
def _session(threads: int) -> Any:
    """Return the session that multiplies on some threads, opened once."""
    import onnxruntime

    return onnxruntime.InferenceSession(GRAPH, session_options(threads), providers=["CPUExecutionProvider"])


def session_options(threads: int) -> Any:
    """Return options for sessions of ONNX Runtime with a number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave cores to others
    return options


def default_threads() -> int:
    """Return OMP_NUM_THREADS, or the number of cores that this process may use."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    if text.isdecimal() and int(text):
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
