"""The reader of MAT-files: the same values as SciPy's, and refusals that say where."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.errors import ResultError
from ebmtrack.evaluation import mat_file as reader
from ebmtrack.evaluation import results
from tests.support.mat_writer import CLASSES, entry, header, mat_file, matrix, numbers

BOXES = np.array([[1.25, 2, 30, 40.5], [1e-17, -3.1, 30, 40], [102.9999999, 2, 1 / 3, 40]])


def random_value(rng: np.random.Generator, depth: int = 0) -> object:
    """Numbers of any class and of up to four axes, text, cells, structs and rows of structs, nested three deep."""
    kind = rng.integers(6 if depth < 3 else 3)
    if kind < 2:
        shape = tuple(int(n) for n in rng.integers(0, 4, rng.integers(2, 5)))
        dtype = np.dtype(list(CLASSES)[rng.integers(10)])
        low = -100 if dtype.kind != "u" else 0
        return (rng.integers(low, 100, shape) / (8 if dtype.kind == "f" else 1)).astype(dtype)
    if kind == 2:
        return "".join(rng.choice(list("abc äβ\u65e5"), rng.integers(1, 9)))
    names = [f"field_{i}" for i in range(rng.integers(1, 4))]
    if kind == 3:
        cell = np.empty((int(rng.integers(1, 4)), int(rng.integers(1, 4))), object)
        for index in np.ndindex(cell.shape):
            cell[index] = random_value(rng, depth + 1)
        return cell
    rows = [{name: random_value(rng, depth + 1) for name in names} for _ in range(1 if kind == 4 else 3)]
    return rows[0] if kind == 4 else rows


def from_scipy(value: object) -> object:
    """What SciPy's loadmat returns, in our reader's form."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        rows = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            rows[index] = {name: from_scipy(value[index][name]) for name in value.dtype.names}
        return rows.item() if rows.size == 1 else rows
    if isinstance(value, np.ndarray) and value.dtype == object:
        cell = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            cell[index] = from_scipy(value[index])
        return cell
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return "".join(value.tolist()) if value.size <= 1 else value.tolist()
    return value


def same(first: object, second: object, classes: bool = True) -> bool:
    """Whether two values agree in type, shape and every number, and in the numbers' class if `classes`."""
    if isinstance(first, dict):
        fits = isinstance(second, dict) and first.keys() == second.keys()
        return fits and all(same(first[name], second[name], classes) for name in first)
    if not isinstance(first, np.ndarray):
        return type(first) is type(second) and first == second
    if not isinstance(second, np.ndarray) or first.shape != second.shape:
        return False
    if first.dtype == object:
        return all(same(a, b, classes) for a, b in zip(first.flat, second.flat, strict=True))
    return np.array_equal(first, second) and (first.dtype == second.dtype or not classes)


def rows_as_array(value: object) -> object:
    """A random value as the reader returns it: a row of structs is an object array."""
    if isinstance(value, dict):
        return {name: rows_as_array(item) for name, item in value.items()}
    if isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype != object):
        return value
    array = np.empty((1, len(value)) if isinstance(value, list) else value.shape, object)
    items = value if isinstance(value, list) else value.flat
    array.flat = [rows_as_array(item) for item in items]
    return array


def for_scipy(value: object) -> object:
    """Rows of structs as SciPy's savemat wants them."""
    if isinstance(value, dict):
        return {name: for_scipy(item) for name, item in value.items()}
    if isinstance(value, list):
        rows = np.empty((1, len(value)), [(name, object) for name in value[0]])
        for i, row in enumerate(value):
            rows[0, i] = tuple(for_scipy(item) for item in row.values())
        return rows
    if isinstance(value, np.ndarray) and value.dtype == object:
        cell = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            cell[index] = for_scipy(value[index])
        return cell
    return value


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_reads_what_scipy_writes(seed: int, compressed: bool, tmp_path: Path) -> None:
    """Random nested values through SciPy's savemat: our reader returns what SciPy's loadmat returns."""
    scipy_io = pytest.importorskip("scipy.io")
    value, path = random_value(np.random.default_rng(seed)), tmp_path / "a.mat"
    variables = {"before": np.ones((2, 2)), "results": for_scipy(value), "after": "x"}
    scipy_io.savemat(path, variables, do_compression=compressed)
    expected = from_scipy(scipy_io.loadmat(path)["results"])
    assert same(reader.read_variable(path, "results"), expected)
    assert reader.read_variable(path, "after") == "x"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_both_byte_orders_and_compact_storage(seed: int, small: bool, order: str, tmp_path: Path) -> None:
    """The same from our own writer, which swaps bytes and stores whole numbers in one or two bytes as MATLAB does.

    What was written comes back in its class; SciPy reads the same numbers, in the class in which they are stored.
    """
    scipy_io = pytest.importorskip("scipy.io")
    value, path = random_value(np.random.default_rng(100 + seed)), tmp_path / "a.mat"
    codec = "utf-16-le" if order == "<" else "utf-16-be"
    for compressed in (False, True):
        path.write_bytes(mat_file({"x": np.eye(2), "results": value}, order, compressed, small))
        expected = from_scipy(scipy_io.loadmat(path, uint16_codec=codec)["results"])
        assert same(reader.read_variable(path, "results"), rows_as_array(value))
        assert same(rows_as_array(value), expected, classes=False)


def test_complex_logical_and_rows_of_text(tmp_path: Path) -> None:
    """Kinds that the random values lack; logical values are uint8 as in SciPy."""
    scipy_io = pytest.importorskip("scipy.io")
    values = {
        "c": np.array([[1 + 2j, -3j]]), "s": np.array([[1 + 2j]], np.complex64), "b": np.array([[True, False]]),
        "t": np.array(["ab", "cd", "ef"]), "e": np.zeros((0, 0)),
    }  # fmt: skip
    scipy_io.savemat(tmp_path / "a.mat", values)
    loaded = scipy_io.loadmat(tmp_path / "a.mat")
    for name in values:
        assert same(reader.read_variable(tmp_path / "a.mat", name), from_scipy(loaded[name]))


def test_a_compressed_bomb(tmp_path: Path) -> None:
    """64 MB of zeros in 64 kB are refused after LARGEST_BYTES; so are many parts that add up to it."""
    part = entry(15, zlib.compress(bytes(64 << 20)), "<")
    (tmp_path / "bomb.mat").write_bytes(header() + part)
    with pytest.raises(ResultError, match=r"bomb\.mat, byte 136: compressed data that inflates to more than 16 MB"):
        reader.read_variable(tmp_path / "bomb.mat", "results")
    part = entry(15, zlib.compress(matrix(np.zeros((1024, 1024)), name="x", small=False)), "<")
    (tmp_path / "bomb.mat").write_bytes(header() + 3 * part)
    with pytest.raises(ResultError, match="inflates to more than"):
        reader.read_variable(tmp_path / "bomb.mat", "results")


def opaque(name: bytes) -> bytes:
    """A variable of one of MATLAB's newer classes, such as string: flags, name, and what only MATLAB knows."""
    head = numbers(np.array([17, 0], np.uint32), "<") + entry(1, name, "<")
    return entry(14, head + entry(1, b"MCOS", "<") + entry(1, b"string", "<") + matrix(np.ones((6, 1))), "<")


def test_variables_of_other_classes_are_passed_over(tmp_path: Path) -> None:
    """A file may hold anything beside the variable that is wanted, but that one has to be of a known kind."""
    odd = opaque(b"note") + array_of(16, [1, 1])[128:].replace(b"results", b"handles")
    (tmp_path / "a.mat").write_bytes(header() + odd + entry(15, zlib.compress(opaque(b"x")), "<") + otb(WHOLE)[128:])
    np.testing.assert_array_equal(results.read_boxes(tmp_path / "a.mat"), BOXES)
    (tmp_path / "a.mat").write_bytes(header() + opaque(b"results"))
    with pytest.raises(ResultError, match="an object instead of numbers"):
        results.read_boxes(tmp_path / "a.mat")


def nested(depth: int) -> np.ndarray:
    """A cell in a cell in a cell .."""
    value: object = np.ones((1, 1))
    for _ in range(depth):
        cell = np.empty((1, 1), object)
        cell[0, 0], value = value, cell
    return value


def array_of(flags: int, shape: list[int], *rest: bytes) -> bytes:
    """A file whose variable `results` has this head and these entries."""
    head = numbers(np.array([flags, 0], np.uint32), "<") + numbers(np.array(shape, np.int32), "<")
    return header() + entry(14, head + entry(1, b"results", "<") + b"".join(rest), "<")


@pytest.mark.parametrize("data, what", [
    (b"", "not a MAT-file of level 5"),
    (b"not a matlab file", "not a MAT-file of level 5"),
    (header(level=0x0200), "byte 124: a MAT-file of another level .*-v7"),
    (header(), "holds no variable 'results'"),
    (mat_file({"result": np.eye(2)}), "holds no variable 'results'"),
    (header() + b"\x0e\0\0", "byte 128: the file ends in the middle"),
    (header() + struct.pack("<2I", 14, 0xFFFFFFF8), "byte 128: an entry of 4294967288 bytes where 0 are left"),
    (header() + struct.pack("<2H", 1, 5) + bytes(4), "byte 128: a small entry of 5 bytes"),
    (header() + entry(9, bytes(8), "<"), "byte 136: a variable expected, but the entry is of type 9"),
    (header() + entry(15, b"no zlib", "<"), "byte 136: damaged compressed data"),
    (header() + entry(15, zlib.compress(matrix(np.eye(9)))[:-9], "<"), "byte 136: compressed data that ends too early"),
    (mat_file({"results": nested(20)}), "more than 16 levels"),
    (array_of(6, [3, 4], numbers(np.zeros(11), "<")), "11 values for an array of shape"),
    (array_of(6, [-3, 4]), "impossible shape"),
    (array_of(6, [1]), "impossible shape"),
    (array_of(6, [2**31 - 1] * 4), "too large"),
    (array_of(6, [0] + [2**31 - 1] * 9), "too large"),
    (array_of(1, [1, 10**6]), "1000000 arrays announced where 0 bytes are left"),
    (array_of(1, [1, 10**5], bytes(2**20)), "100000 arrays announced"),
    (array_of(2, [1, 10**6], numbers(np.array([8], np.int32), "<"), entry(1, b"", "<")), "1000000 structs"),
    (array_of(2, [1, 1], numbers(np.array([0], np.int32), "<"), entry(1, b"", "<")), "no common length"),
    (array_of(2, [1, 1], numbers(np.array([1], np.int32), "<"), entry(1, b"aa", "<")), "structs with the fields"),
    (array_of(4, [1, 1], entry(16, b"\xff", "<")), "text that cannot be decoded"),
    (array_of(4, [1, 2], entry(16, b"abc", "<")), "text of 3 characters"),
    (array_of(5, [1, 1]), "a sparse matrix instead of numbers"),
    (array_of(3, [1, 1]), "an object instead of"),
    (array_of(99, [1, 1]), "an array of class 99 instead of"),
    (array_of(9, [1, 1], numbers(np.array([300], np.int16), "<")), "do not fit their class uint8"),
    (array_of(9, [1, 1], numbers(np.array([3.0]), "<")), "stored as fractions"),
    (array_of(9, [1, 1], entry(4, b"abc", "<")), "3 bytes are no whole number of values"),
])  # fmt: skip
def test_refusals(data: bytes, what: str, tmp_path: Path) -> None:
    """Each is a ResultError that names the file and, where there is one, the byte."""
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(ResultError, match=rf"a\.mat.*{what}"):
        reader.read_variable(tmp_path / "a.mat", "results")


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is too large (sparse, so that nothing is written)."""
    with open(tmp_path / "large.mat", "wb") as file:
        file.truncate(reader.LARGEST_BYTES + 1)
    for name, what in (("none.mat", "no such file"), (".", "no such file"), ("large.mat", "larger than 16 MB")):
        with pytest.raises(ResultError, match=what):
            reader.read_variable(tmp_path / name, "results")


def otb(*segments: dict) -> bytes:
    """A result file of the OTB benchmark."""
    cell = np.empty((1, len(segments)), object)
    for i, segment in enumerate(segments):
        cell[0, i] = {k: np.array([[v]], float) if isinstance(v, int) else v for k, v in segment.items()}
    return mat_file({"results": cell}, compressed=True)


WHOLE = {"res": BOXES, "type": "rect", "len": 3, "annoBegin": 300, "startFrame": 300}


def test_otb_results(tmp_path: Path) -> None:
    """Boxes come as they are, because OTB's annotations count from 1 as well; of temporal segments the first."""
    path = tmp_path / "walk.mat"
    for data in (
        otb(WHOLE),
        otb({"res": BOXES}),
        otb({**WHOLE, "res": np.concatenate([BOXES, BOXES])}),  # the toolkit reads `len` rows
        otb(WHOLE, {**WHOLE, "res": BOXES[1:], "len": 2, "startFrame": 301}),
        mat_file({"results": {"res": BOXES}}),
    ):
        path.write_bytes(data)
        np.testing.assert_array_equal(results.read_boxes(path), BOXES)
    boxes = np.repeat(BOXES, 2, axis=0)
    boxes[1], boxes[3, 2], boxes[5, 3] = np.nan, 0, -4
    path.write_bytes(otb({"res": boxes}))
    np.testing.assert_array_equal(results.read_boxes(path), np.repeat(BOXES, 2, axis=0))


@pytest.mark.parametrize("data, what", [
    (otb({**WHOLE, "type": "ivtAff"}), "results of type 'ivtAff'; only 'rect'"),
    (otb({**WHOLE, "len": 4}), "3 boxes for a sequence of 4 frames"),
    (otb({**WHOLE, "len": 0}), "3 boxes for a sequence of 0 frames"),
    (otb({**WHOLE, "len": "three"}), "'len' is no whole number"),
    (otb({**WHOLE, "startFrame": 310}), "starts at frame 310 and not at the sequence's first, 300"),
    (otb(*[WHOLE] * 12), r"12 runs from shifted boxes \(SRE\)"),
    (otb({**WHOLE, "shiftType": "left"}), r"shifted boxes \(SRE\)"),
    (otb({**WHOLE, "res": BOXES[:, :3]}), "no rows of four numbers"),
    (otb({**WHOLE, "res": "text"}), "no rows of four numbers"),
    (otb({"type": "rect"}), "not a result file of the OTB benchmark"),
    (mat_file({"results": np.eye(4)}), "not a result file of the OTB benchmark"),
    (mat_file({"results": np.empty((0, 0), object)}), "not a result file of the OTB benchmark"),
])  # fmt: skip
def test_otb_results_that_cannot_be_compared(data: bytes, what: str, tmp_path: Path) -> None:
    """Each says what it is and that file's name."""
    (tmp_path / "walk.mat").write_bytes(data)
    with pytest.raises(ResultError, match=rf"walk\.mat: .*{what}"):
        results.read_boxes(tmp_path / "walk.mat")


def test_otb_keeps_all_trackers_in_one_folder(tmp_path: Path) -> None:
    """`<seq>_<tracker>.mat`: a folder of one tracker is read as it is, of several by the tracker's name."""
    for name in ("basketball_ASLA", "football_ASLA", "jogging-1_ASLA", "basketball_CSK"):
        (tmp_path / f"{name}.mat").write_bytes(otb(WHOLE))
    found = results.find_results(tmp_path / "ASLA")
    assert found.label == "ASLA" and set(found.files) == {"basketball", "football", "jogging_1"}
    assert set(results.find_results(tmp_path / "CSK").files) == {"basketball"}
    (tmp_path / "basketball_CSK.mat").unlink()
    assert set(results.find_results(tmp_path).files) == {"basketball", "football", "jogging_1"}
    np.testing.assert_array_equal(found.read("Jogging_1").boxes_xywh, BOXES)
