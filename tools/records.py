"""Comparison of two records of `freeze.py`: which items of a section differ, and by how much."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

Section = dict[str, Any]  # item -> nested dicts and lists of numbers and texts
MISSING = "(missing)"


def compare(base: dict[str, Section], now: dict[str, Section], only: list[str], allow: list[str]) -> int:
    """Print what differs between two records.

    Args:
        base: The earlier record: section -> item -> values.
        now: The later one.
        only: The sections to compare.
        allow: What may differ: names of sections, "section/item", or the beginning of an item up to a "/".

    Returns:
        1 if something differs that is not allowed, or if a section is empty; else 0.
    """
    if base["about"] != now["about"]:
        print(f"warning: recorded with {base['about']}, now {now['about']}; last bits may differ")
    refused = 0
    for section in only:
        old, new = base.get(section, {}), now.get(section, {})
        names = [*old, *(name for name in new if name not in old)]
        changed = [name for name in names if name not in old or name not in new or differing(old[name], new[name])]
        verdict = f"{len(changed)} of {len(names)} items differ" if changed else f"equal ({len(names)} items)"
        print(f"{section}: {verdict if names else 'nothing was recorded'}")
        refused += not names
        for name in changed:
            allowed = any(f"{section}/{name}/".startswith(f"{prefix}/") for prefix in allow)
            refused += not allowed
            print(f"  {section}/{name}{' (allowed)' if allowed else ''}: {describe(old.get(name), new.get(name))}")
    return 1 if refused else 0


def describe(old: Any, new: Any) -> str:
    """Return how an item differs: a unified diff of texts, else how many values, the first one and the largest step."""
    if old is None or new is None:
        return "only in the later record" if old is None else "only in the earlier record"
    if isinstance(old, str) and isinstance(new, str):
        return "\n" + "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "base", "now", lineterm=""))
    before, after = dict(leaves(old)), dict(leaves(new))
    keys = [key for key in differing(old, new) if key != "sha256"] or ["sha256"]
    changes = [(key, before.get(key, MISSING), after.get(key, MISSING)) for key in keys]
    steps = [abs(float(b) - float(a)) for _, a, b in changes if is_number(a) and is_number(b)]
    largest = f", largest difference {max(steps):.6g}" if steps else ""
    key, a, b = changes[0]
    return f"{len(changes)} of {len(before)} values differ, first {key}: {a} -> {b}{largest}"


def differing(old: Any, new: Any) -> list[str]:
    """Return the paths of the values that are not the same to the last digit, in the order of `old`."""
    before, after = dict(leaves(old)), dict(leaves(new))
    keys = dict.fromkeys([*before, *after])
    return [key for key in keys if repr(before.get(key, MISSING)) != repr(after.get(key, MISSING))]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every number and text in nested dicts and lists."""
    if isinstance(value, (dict, list)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(entry, f"{path}/{key}" if path else str(key))
    else:
        yield path, value


def is_number(value: Any) -> bool:
    """Return whether a value can be read as one finite number."""
    return bool(re.fullmatch(r"[+-]?\d+\.?\d*([eE][+-]?\d+)?", str(value)))
