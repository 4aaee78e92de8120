"""Words of messages."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the plural unless it is one.

    >>> counted(1, "frame"), counted(0, "frame"), counted(2, "box", "boxes")
    ('1 frame', '0 frames', '2 boxes')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
