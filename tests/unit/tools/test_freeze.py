"""The comparison of frozen records: equal is silent, every kind of difference is found, measured and refused."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOLS = Path(__file__).parents[3] / "tools"
RECORD: dict[str, dict[str, Any]] = {
    "about": {"torch": "2.6"},
    "boxes": {"fast/bag": {"sha256": "aa", "boxes_xywh": [[1.0, 2.0, 3.0, 4.0], [float("nan")] * 4]}},
    "losses": {"run": {"loss": ["0.5", "1e-05"]}},
    "help": {"train": "usage: train\n--seed INT\n"},
}
SECTIONS = ["boxes", "losses", "help"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


records = load("records")


def changed(section: str, item: str, value: object) -> dict[str, dict[str, Any]]:
    now = copy.deepcopy(RECORD)
    now[section][item] = value
    return now


def test_equal_records_are_equal(capsys):
    assert records.compare(RECORD, copy.deepcopy(RECORD), SECTIONS, []) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: equal (1 items)" for name in SECTIONS]


def test_one_bit_of_a_box_is_found_and_measured(capsys):
    box = [1.0, 2.0, 3.0, 4.0 + 2**-50]
    now = changed("boxes", "fast/bag", {"sha256": "ab", "boxes_xywh": [box, [float("nan")] * 4]})
    assert records.compare(RECORD, now, SECTIONS, []) == 1
    out = capsys.readouterr().out
    assert (
        "boxes: 1 of 1 items differ" in out
        and "boxes/fast/bag: 1 of 9 values differ, first boxes_xywh/0/3: 4.0 ->" in out
    )
    assert f"largest difference {2**-50:.6g}" in out and "losses: equal" in out


def test_losses_are_compared_as_numbers(capsys):
    now = changed("losses", "run", {"loss": ["0.5", "3e-05"]})
    assert records.compare(RECORD, now, ["losses"], []) == 1
    assert "first loss/1: 1e-05 -> 3e-05, largest difference 2e-05" in capsys.readouterr().out


def test_help_texts_give_a_unified_diff(capsys):
    now = changed("help", "train", "usage: train\n--seed NUMBER\n")
    assert records.compare(RECORD, now, ["help"], []) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[6:] == ["---seed INT", "+--seed NUMBER"]


@pytest.mark.parametrize(
    ("allow", "code"),
    [([], 1), (["boxes"], 0), (["boxes/fast"], 0), (["boxes/fast/bag"], 0), (["boxes/fa"], 1), (["losses"], 1)],
)
def test_allowed_differences_are_printed_and_pass(allow, code, capsys):
    assert records.compare(RECORD, changed("boxes", "fast/bag", {}), SECTIONS, allow) == code
    assert "(allowed)" in capsys.readouterr().out or code


def test_items_that_come_or_go_are_differences(capsys):
    now = changed("help", "eval", "usage: eval\n")
    assert records.compare(RECORD, now, ["help"], []) == records.compare(now, RECORD, ["help"], []) == 1
    out = capsys.readouterr().out
    assert "help/eval: only in the later record" in out and "help/eval: only in the earlier record" in out


def test_an_empty_section_is_no_success(capsys):
    assert records.compare(RECORD, RECORD, ["report"], ["report"]) == 1
    assert "report: nothing was recorded" in capsys.readouterr().out


def test_another_machine_is_named(capsys):
    assert records.compare(RECORD, {**RECORD, "about": {"torch": "2.7"}}, SECTIONS, []) == 0
    assert "warning: recorded with {'torch': '2.6'}, now {'torch': '2.7'}" in capsys.readouterr().out


def test_tables_give_the_cells_with_digits_below_the_header():
    page = "<table><tr><th>Name<th>AUC 1</tr><tr><td>a</td><td>5<b>0.1</b></td><td>-</td></tr></table>x 7"
    assert load("html_tables").read_tables(page) == {(0, "a"): ["50.1"]}


def test_miniature_data_do_not_depend_on_their_folder(tmp_path):
    contents = []
    for root in (tmp_path / "a", tmp_path / "another_name"):
        load("miniature_data").write_data(root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        contents.append([(path.relative_to(root), path.read_bytes()) for path in files])
    assert len(contents[0]) > 200 and contents[0] == contents[1]
