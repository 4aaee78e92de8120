"""The documentation site: every page is in the navigation, and what the hooks do to pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools.docs_hooks import existing, notebook_page, on_page_markdown


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w-]+\.md", (REPOSITORY / "mkdocs.yml").read_text()))
    assert {path.name for path in (REPOSITORY / "docs").glob("*.md")} <= named


def test_pages_that_are_not_there_leave_the_navigation(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A")
    nav = [{"A": "a.md"}, {"B": "b.md"}, {"C": [{"D": "d.md"}]}, {"E": [{"A": "a.md"}, {"D": "d.md"}]}]
    assert existing(nav, tmp_path) == [{"A": "a.md"}, {"E": [{"A": "a.md"}]}]


def test_links_out_of_the_docs_become_text() -> None:
    assert on_page_markdown("see [the card](../ebmtrack/weights/x.md#a), [b](b.md)") == "see the card, [b](b.md)"


def test_one_version() -> None:
    """The citation file names the version of the package, which setup.cfg takes from _version.py."""
    from ebmtrack import __version__

    assert f"\nversion: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "docs").rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_and_become_pages(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their code runs from top to bottom; the page has every text, and the outputs that are stored."""
    import matplotlib

    notebook = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    page = notebook_page(notebook)
    assert page.startswith("# ") and "data:image/jpeg;base64," in page and "mean overlap" in page
