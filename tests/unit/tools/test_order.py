"""The order in which the unit tests run."""

from __future__ import annotations

from tests.conftest import LONGEST
from tests.support import TESTS


def test_the_longest_files_are_there() -> None:
    """A file that has moved would lose its place at the beginning."""
    assert [name for name in LONGEST if not (TESTS / "unit" / name).is_file()] == []
