"""Helpers that several test files use, and where the tests find their data."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests"
DATA = TESTS / "data"
HOST = TESTS / "host"
SEQUENCES = Path(os.environ.get("EBMTRACK_TEST_DATA", REPOSITORY.parent / "shared/data/test/sequences"))
