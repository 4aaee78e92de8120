"""Matrix products on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack import device
from ebmtrack.engines.products import (
    GRAPH,
    PAIR,
    PAIR_TRANSPOSED,
    SMALL,
    multiply,
    multiply_pairs,
    session_options,
)


@pytest.mark.parametrize(
    "shapes", [((3, 5), (5, 2)), ((4, 3, 5), (4, 5, 2)), ((400, 300), (300, 200)), ((0, 5), (5, 2))]
)
def test_products_are_those_of_numpy(shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    assert np.allclose(multiply(a, b), a @ b, atol=1e-4)


def test_products_do_not_depend_on_the_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 256), (256, 4000)))
    assert a.size * b.shape[1] > SMALL
    answers = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        answers.append(multiply(a, b))
    assert np.array_equal(*answers)


@pytest.mark.parametrize(
    "machine, features, saturates",
    [
        ("x86_64", "avx avx2", True),
        ("x86_64", "avx2 avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "asimddp", False),
        ("arm64", "", False),
    ],
)
def test_sums_of_8_bit_products_do_not_saturate(monkeypatch, machine, features, saturates):
    """ONNX Runtime's other products give the same bits on a CPU with VNNI, in twice the time; Windows does not tell."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(device, "_cpu_features", lambda: set(features.split()))
    device.saturates_int8.cache_clear()
    options = session_options(1)
    device.saturates_int8.cache_clear()
    if saturates:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("transposed", [False, True])
def test_pairs_of_products_are_those_of_numpy(transposed):
    rng = np.random.default_rng(0)
    a, b = (
        [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        for shapes in (((3, 5), (2, 7)), ((5, 2), (7, 4)))
    )
    products = multiply_pairs(a, [one.T.copy() for one in b] if transposed else b, transposed)
    assert all(np.allclose(product, x @ y, atol=1e-5) for product, x, y in zip(products, a, b))


@pytest.mark.parametrize(
    "graph, nodes",
    [
        (GRAPH, ["MatMul a b > c"]),
        (PAIR, ["MatMul a b > c", "MatMul d e > f"]),
        (PAIR_TRANSPOSED, ["Gemm a b > c transB=1", "Gemm d e > f transB=1"]),
    ],
)
def test_graphs_are_what_they_say(graph, nodes):
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto.FromString(graph)
    found = [
        " ".join([one.op_type, *one.input, ">", *one.output, *(f"{a.name}={a.i}" for a in one.attribute)])
        for one in model.graph.node
    ]
    assert found == nodes
    assert [one.version for one in model.opset_import] == [17]
