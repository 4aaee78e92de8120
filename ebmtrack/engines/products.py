"""Matrix products on ONNX Runtime.

Its products of these sizes take half to two thirds of the time of NumPy's, a quarter on two threads, and its threads
sleep between them: those of OpenBLAS, with which NumPy multiplies, go on spinning for some milliseconds and take a core
from the network (AMD EPYC, Zen 5, 2026-11-28).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ebmtrack.device import count_cores, saturates_int8

GRAPH = bytes.fromhex(  # c = MatMul(a, b), opset 17
    "08083a370a110a01610a016212016322064d61744d756c12016d5a090a0161120"
    "40a0208015a090a016212040a02080162090a016312040a02080142040a001011"
)
PAIR = bytes.fromhex(  # c = MatMul(a, b), f = MatMul(d, e)
    "08083a6b0a110a01610a016212016322064d61744d756c0a110a01640a016512016622064d61744d756c12016d5a090a016112040a0208015a"
    "090a016212040a0208015a090a016412040a0208015a090a016512040a02080162090a016312040a02080162090a016612040a02080142040a"
    "001011"
)
PAIR_TRANSPOSED = bytes.fromhex(  # c = Gemm(a, b, transB=1), f = Gemm(d, e, transB=1)
    "08083a85010a1e0a01610a0162120163220447656d6d2a0d0a067472616e73421801a001020a1e0a01640a0165120166220447656d6d2a0d0a"
    "067472616e73421801a0010212016d5a090a016112040a0208015a090a016212040a0208015a090a016412040a0208015a090a016512040a02"
    "080162090a016312040a02080162090a016612040a02080142040a001011"
)
SMALL = 5_000_000  # multiplications for which waking a second thread costs more than it saves


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products (..., m, n) of float32 matrices (..., m, k) and (..., k, n)."""
    session = open_session(GRAPH, 1 if a.size * b.shape[-1] < SMALL else default_threads())
    return session.run(["c"], {"a": a, "b": b})[0]


def multiply_pairs(a: Sequence[np.ndarray], b: Sequence[np.ndarray], transposed: bool = False) -> list[np.ndarray]:
    """Return the products of two float32 matrices (m, k) with two others (k, n).

    Args:
        a: the first factor of both products.
        b: the second ones; if `transposed`, (n, k).
        transposed: multiply by the transposes of `b`.
    """
    is_small = a[0].size * b[0].shape[0 if transposed else 1] < SMALL
    session = open_session(PAIR_TRANSPOSED if transposed else PAIR, 1 if is_small else default_threads())
    return session.run(["c", "f"], {"a": a[0], "b": b[0], "d": a[1], "e": b[1]})


@cache
def open_session(graph: bytes, threads: int) -> Any:
    """Return the session of a graph on some threads, opened once."""
    import onnxruntime

    return onnxruntime.InferenceSession(graph, session_options(threads), providers=["CPUExecutionProvider"])


def session_options(threads: int) -> Any:
    """Return options for sessions of ONNX Runtime with a number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave cores to others
    if saturates_int8():  # unsigned products take twice the time, and sums do not saturate
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def default_threads() -> int:
    """Return OMP_NUM_THREADS, or the number of cores that this process may use."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    if text.isdecimal() and int(text):
        return int(text)
    return count_cores()
