"""Files of a run that may not come to its end: NAME.partial, which takes its name when the run has ended.

A file of an earlier run is replaced by a whole one alone. Folders (YOLO), pipes and devices are written once, at the
end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.viewers.results import FrameResult, ResultInfo, layout_of, write_results

EVERY_S = 10.0  # how often boxes are written while a run goes on
SHARE = 0.01  # the largest share of the time that this may take: 100,000 rows take seconds


def partial_path(path: Path) -> Path:
    """Return the name of a file while its run goes on: its own if it is a folder, pipe or device.

    >>> partial_path(Path("walk.csv")).name
    'walk.partial.csv'
    """
    if path.exists() and not path.is_file():
        return path
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def settle(partial: Path, path: Path, ended: bool) -> Path:
    """Give a partial file its name, and return it; it stays as it is if its run has not `ended` and `path` is there.

    Raises ConfigError if it cannot have the name: on Windows another program may have `path` open.
    """
    if not ended and path.exists():
        return partial
    try:
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot write here: {error.strerror or error}; what was tracked is in {partial}"
        ) from None
    return path


class BoxesFile:
    """The file of boxes of a run, written to its partial file as the run goes on.

    Args:
        path: The file, or YOLO's folder; in pytracking's layout several targets have one file each.
        info: Where the boxes come from.
        layout: Layout of the boxes, by default that of the ending.

    Attributes:
        untouched: Files of an earlier run that `finish` left as they were.
    """

    def __init__(self, path: Path, info: ResultInfo, layout: str | None = None):
        self._path, self._info, self._layout = path, info, layout
        self._partial = path if layout_of(path, layout) == "yolo" else partial_path(path)
        self._due_s = float("inf") if self._partial == path else time.monotonic() + EVERY_S
        self._written: list[Path] = []
        self.untouched: list[Path] = []

    def update(self, rows: Iterable[FrameResult]) -> None:
        """Write the rows of a run that goes on, if it is time; what goes wrong is told once, and not tried again."""
        began_s = time.monotonic()
        if began_s < self._due_s:
            return
        try:
            self._write(rows)
        except ConfigError as error:
            print(f"note: boxes are written at the end alone: {error}", file=sys.stderr)
            self._due_s = float("inf")
            return
        now_s = time.monotonic()
        self._due_s = now_s + max(EVERY_S, (now_s - began_s) / SHARE)

    def finish(self, rows: Sequence[FrameResult], ended: bool) -> list[Path]:
        """Write all rows of a run that has stopped, at its end or before it, and return the paths.

        Files of an earlier run are replaced if this one has `ended`; otherwise the partial ones stay beside them.
        """
        self._write(rows)
        if self._partial == self._path:
            return self._written
        parts = [partial.name.rpartition(".partial") for partial in self._written]  # a target's number may follow
        finals = [self._path.with_name(begin + end) for begin, _, end in parts]
        self.untouched = [] if ended else [final for final in finals if final.exists()]
        return self._written if self.untouched else [settle(*pair, ended=True) for pair in zip(self._written, finals)]

    def _write(self, rows: Iterable[FrameResult]) -> None:
        """Write the partial files, and remove those of other names: a first target alone has no number in its name."""
        before = self._written
        self._written = write_results(self._partial, rows, self._info, self._layout)
        for path in set(before) - set(self._written):
            path.unlink(missing_ok=True)
