"""Tables of figures: cells that a page sorts by, and the same table as CSV, JSON and LaTeX."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "–": "--"}
_LATEX["^"] = r"\textasciicircum{}"
MEDIA_TYPES = {"csv": "text/csv", "json": "application/json", "tex": "application/x-tex"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown.
        value: What is sorted by; the text if None.
        share: Length of the bar behind the text, 0 .. 1; none if None.
        best: Whether it is the best of its column or row.
        link: Address of a page about it.
    """

    text: str
    value: float | None = None
    share: float | None = None
    best: bool = False
    link: str = ""

    @property
    def known(self) -> bool:
        """Return whether there is a finite value to sort by."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def style(self) -> str:
        """The CSS of the bar."""
        return f"--share:{self.share:.3f}" if self.share is not None and math.isfinite(self.share) else ""


@dataclass(frozen=True)
class Table:
    """A table with a name (for files), a head and rows whose first cells are names.

    Attributes:
        words: Explanations of the head's abbreviations, by position.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    words: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.rows)

    def as_csv(self) -> str:
        """Return the table with every digit of its numbers."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([_plain(cell) for cell in row] for row in self.rows)
        return buffer.getvalue()

    def as_json(self) -> str:
        """Return a list with an object per row; what is not known is null."""
        rows = [{head: _json_value(cell) for head, cell in zip(self.header, row)} for row in self.rows]
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"

    def as_latex(self) -> str:
        """Return a `tabular` with the digits that the page shows, the best in bold; needs no package."""
        lines = [r"\begin{tabular}{l" + "r" * (len(self.header) - 1) + "}", r"\hline"]
        lines += [" & ".join(map(_latex, self.header)) + r" \\", r"\hline"]
        for row in self.rows:
            cells = [rf"\textbf{{{_latex(cell.text)}}}" if cell.best else _latex(cell.text) for cell in row]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"

    def files(self) -> dict[str, str]:
        """Return the table as text by the ending of a file: csv, json, tex."""
        return {"csv": self.as_csv(), "json": self.as_json(), "tex": self.as_latex()}

    def downloads(self) -> list[tuple[str, str, str]]:
        """Return what to press, a file's name and an address that holds the file, for each format."""
        names = {"csv": "CSV", "json": "JSON", "tex": "LaTeX"}
        return [
            (
                names[end],
                f"{self.name}.{end}",
                f"data:{MEDIA_TYPES[end]};base64,{base64.b64encode(text.encode()).decode()}",
            )
            for end, text in self.files().items()
        ]


def _plain(cell: Cell) -> str:
    return repr(float(cell.value)) if cell.known and cell.value is not None else "" if cell.text == "–" else cell.text


def _json_value(cell: Cell) -> float | str | None:
    return cell.value if cell.known else None if cell.text == "–" else cell.text


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
