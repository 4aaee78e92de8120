"""Progress bars: tqdm's on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 60.0
LINE = "{desc}{unit} {n_fmt} of {total_fmt}, {remaining} left{postfix}"


def progress_bar(items: Iterable | None = None, desc: str = "", **options: Any) -> tqdm:
    """Return tqdm's bar on stderr; if stderr is not a terminal, one that writes at most a line a minute.

    Args:
        items: What the bar goes through; without them the caller moves it on.
        desc: Is in front.
        options: Of tqdm; `disable=None` silences a bar that is not on a terminal.
    """
    if _is_terminal():
        return tqdm(items, desc, **options)
    options |= {"file": _Lines(), "position": 0, "miniters": 1, "mininterval": LINE_EVERY_S, "delay": LINE_EVERY_S}
    bar = tqdm(items, desc, **options)
    if bar.total:
        bar.desc, bar.bar_format = desc and f"{desc}: ", LINE
    return bar


def _is_terminal() -> bool:
    """Return whether stderr is one; it may be None, closed, or a program's own object that only writes."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def write_line(text: str) -> None:
    """Write a line to stderr, if there is one that is open."""
    if sys.stderr is not None and not getattr(sys.stderr, "closed", False):
        print(text, file=sys.stderr, flush=True)


class _Lines(io.TextIOBase):
    """A file that passes on what tqdm draws as plain lines of stderr."""

    def write(self, text: str) -> int:
        """Write a line, unless the text has nothing but what moves the cursor."""
        if text.strip():
            write_line(text.strip())
        return len(text)
