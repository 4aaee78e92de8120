"""Matrix products on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from ebmtrack.engines.products import GRAPH, SMALL, multiply


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


def test_the_graph_is_what_it_says():
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto.FromString(GRAPH)
    (node,) = model.graph.node
    assert node.op_type == "MatMul" and list(node.input) == ["a", "b"] and list(node.output) == ["c"]
    assert [one.version for one in model.opset_import] == [17]
