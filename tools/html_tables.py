"""Tables of an HTML page as texts."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class TableReader(HTMLParser):
    """The tables of a page: rows of the texts of their cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell."""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Add text to the cell."""
        if self.in_cell:
            self.tables[-1][-1][-1] += data


def read_tables(page: str) -> dict[tuple[int, str], list[str]]:
    """Return the cells with a digit of every row below a header, by number of the table and the row's first cell."""
    reader = TableReader()
    reader.feed(page)
    rows = [(number, row) for number, table in enumerate(reader.tables) for row in table[1:] if row]
    return {(number, row[0]): [cell for cell in row[1:] if re.search(r"\d", cell)] for number, row in rows}
