"""Tables of figures as CSV, JSON and LaTeX."""

from __future__ import annotations

import base64
import csv
import io
import json

from ebmtrack.evaluation.score_tables import Cell, Table

ROWS = [
    [Cell("a_b & 100%"), Cell("33.3", 1 / 3, 1 / 3, best=True), Cell("–", float("nan"))],
    [Cell('say "x", y'), Cell("20.0", 0.2), Cell("few")],
]
TABLE = Table("scores", ["Tracker", "AUC", "note"], ROWS)


def test_csv_keeps_every_digit() -> None:
    """What is not known is empty; quotes and commas come back."""
    rows = list(csv.reader(io.StringIO(TABLE.as_csv())))
    assert rows[0] == ["Tracker", "AUC", "note"] and rows[2] == ['say "x", y', "0.2", "few"]
    assert rows[1][0] == "a_b & 100%" and float(rows[1][1]) == 1 / 3 and rows[1][2] == ""


def test_json_has_an_object_per_row() -> None:
    """What is not known is null, so that every reader takes it."""
    rows = json.loads(TABLE.as_json())
    assert rows[0] == {"Tracker": "a_b & 100%", "AUC": 1 / 3, "note": None} and rows[1]["note"] == "few"


def test_latex_escapes_and_marks_the_best() -> None:
    """A tabular that LaTeX takes as it is."""
    text = TABLE.as_latex()
    assert r"a\_b \& 100\% & \textbf{33.3} & -- \\" in text and text.startswith(r"\begin{tabular}{lrr}")


def test_downloads_hold_the_files() -> None:
    """Each address is the file itself."""
    found = {file: base64.b64decode(address.partition("base64,")[2]).decode() for _, file, address in TABLE.downloads()}
    assert found == {"scores.csv": TABLE.as_csv(), "scores.json": TABLE.as_json(), "scores.tex": TABLE.as_latex()}


def test_a_table_without_rows_is_false() -> None:
    """A page leaves its section out."""
    assert TABLE and not Table("none", ["a"], [])
