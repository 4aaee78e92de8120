"""The changes of pages by `make docs`: missing ones leave the navigation, links out of docs/ become plain text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")  # a link to a file of the repository


def on_config(config: Any, **_: Any) -> Any:
    """Leave pages out of the navigation that are not there yet."""
    config["nav"] = existing(config["nav"], Path(config["docs_dir"]))
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside of docs/ by their text."""
    return OUTSIDE.sub(r"\1", markdown)


def existing(entries: list[Any], folder: Path) -> list[Any]:
    """Return the entries of a navigation whose pages exist; sections without a page are left out."""
    kept: list[Any] = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = existing(target, folder)
        elif not (folder / target).is_file():
            continue
        if target:
            kept.append({title: target})
    return kept
