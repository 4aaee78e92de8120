"""Result files of the OTB benchmark: which segment is the one pass, and refusals that say why."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import foreign, otb_mat

savemat = pytest.importorskip("scipy.io").savemat

BOXES = np.array([[1.25, 2, 30, 40.5], [1e-17, -3.1, 30, 40], [102.9999999, 2, 1 / 3, 40]])


def saved(**variables: object) -> bytes:
    """A compressed MAT-file."""
    file = io.BytesIO()
    savemat(file, variables, do_compression=True)
    return file.getvalue()


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is too large (sparse, so that nothing is written)."""
    with open(tmp_path / "large.mat", "wb") as file:
        file.truncate(otb_mat.LARGEST_BYTES + 1)
    (tmp_path / "folder.mat").mkdir()
    for name, what in (("none", "no such file"), ("folder", "no such file"), ("large", "larger than 16 MB")):
        with pytest.raises(ResultError, match=what):
            foreign.read_boxes(tmp_path / f"{name}.mat")


def test_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra to install is named."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"walk\.mat: .*pip install 'ebmtrack\[mat\]'"):
        foreign.read_boxes(tmp_path / "walk.mat")


def test_a_sequence_of_one_frame(tmp_path: Path) -> None:
    """SciPy drops axes of length 1; a single box is still a row."""
    (tmp_path / "walk.mat").write_bytes(otb({"res": BOXES[:1], "len": 1}))
    np.testing.assert_array_equal(foreign.read_boxes(tmp_path / "walk.mat"), BOXES[:1])


def otb(*segments: dict) -> bytes:
    """A result file of the OTB benchmark."""
    cell = np.empty((1, len(segments)), object)
    for i, segment in enumerate(segments):
        cell[0, i] = segment
    return saved(results=cell)


WHOLE = {"res": BOXES, "type": "rect", "len": 3, "annoBegin": 300, "startFrame": 300}


def test_otb_results(tmp_path: Path) -> None:
    """Boxes come as they are, because OTB's annotations count from 1 as well; of temporal segments the first."""
    path = tmp_path / "walk.mat"
    for data in (
        otb(WHOLE),
        otb({"res": BOXES}),
        otb({**WHOLE, "res": np.concatenate([BOXES, BOXES])}),  # the toolkit reads `len` rows
        otb(WHOLE, {**WHOLE, "res": BOXES[1:], "len": 2, "startFrame": 301}),
        saved(results={"res": BOXES}),
    ):
        path.write_bytes(data)
        np.testing.assert_array_equal(foreign.read_boxes(path), BOXES)
    boxes = np.repeat(BOXES, 2, axis=0)
    boxes[1], boxes[3, 2], boxes[5, 3] = np.nan, 0, -4
    path.write_bytes(otb({"res": boxes}))
    np.testing.assert_array_equal(foreign.read_boxes(path), np.repeat(BOXES, 2, axis=0))


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
    (saved(result=np.eye(4)), "not a result file of the OTB benchmark"),
    (b"", "cannot be read as a MAT-file of level 5"),
    (b"not a matlab file" * 20, "cannot be read as a MAT-file of level 5"),
    (otb(WHOLE)[:-40], "cannot be read as a MAT-file of level 5"),
    (saved(results=np.eye(4)), "not a result file of the OTB benchmark"),
    (saved(results=np.empty((0, 0), object)), "not a result file of the OTB benchmark"),
])  # fmt: skip
def test_otb_results_that_cannot_be_compared(data: bytes, what: str, tmp_path: Path) -> None:
    """Each says what it is and that file's name."""
    (tmp_path / "walk.mat").write_bytes(data)
    with pytest.raises(ResultError, match=rf"walk\.mat: .*{what}"):
        foreign.read_boxes(tmp_path / "walk.mat")


def test_otb_keeps_all_trackers_in_one_folder(tmp_path: Path) -> None:
    """`<seq>_<tracker>.mat`: a folder of one tracker is read as it is, of several by the tracker's name."""
    for name in ("basketball_ASLA", "football_ASLA", "jogging-1_ASLA", "basketball_CSK"):
        (tmp_path / f"{name}.mat").write_bytes(otb(WHOLE))
    found = foreign.find_results(tmp_path / "ASLA")
    assert found.label == "ASLA" and set(found.files) == {"basketball", "football", "jogging_1"}
    assert set(foreign.find_results(tmp_path / "CSK").files) == {"basketball"}
    (tmp_path / "basketball_CSK.mat").unlink()
    assert set(foreign.find_results(tmp_path).files) == {"basketball", "football", "jogging_1"}
    np.testing.assert_array_equal(found.read("Jogging_1").boxes_xywh, BOXES)
