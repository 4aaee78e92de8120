"""The changes by `make docs`: notebooks become pages, missing pages leave the navigation, outer links become text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")  # a link to a file of the repository

PICTURES = ("image/jpeg", "image/png")  # outputs of notebooks that are shown as pictures


def on_config(config: Any, **_: Any) -> Any:
    """Leave pages out of the navigation that are not there yet."""
    config["nav"] = existing(config["nav"], Path(config["docs_dir"]))
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside of docs/ by their text."""
    return OUTSIDE.sub(r"\1", markdown)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add a page for each notebook of docs/notebooks."""
    from mkdocs.structure.files import File

    for path in sorted(Path(config["docs_dir"]).glob("notebooks/*.ipynb")):
        text = notebook_page(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: its texts, its code, and what the code gave when it was last run."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            picture = next((f"data:{kind};base64,{data[kind]}" for kind in PICTURES if kind in data), None)
            text = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
            parts.append(f"![What the code shows]({picture})" if picture else f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def existing(entries: list[Any], folder: Path) -> list[Any]:
    """Return the entries of a navigation whose pages exist; sections without a page are left out."""
    kept: list[Any] = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = existing(target, folder)
        elif not (folder / target).is_file() and not (folder / target).with_suffix(".ipynb").is_file():
            continue
        if target:
            kept.append({title: target})
    return kept
