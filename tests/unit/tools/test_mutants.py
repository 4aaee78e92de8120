"""Mutants fit the code: a line that has changed since must be changed here, too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools.mutant_table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.room}: {mutant.old.strip()[:40]}")
def test_the_line_of_a_mutant_is_in_its_module_once(mutant: Mutant) -> None:
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None and spec.origin is not None
    changed = mutant.change(Path(spec.origin).read_text("utf-8"))
    assert changed.count(mutant.new) >= 1 and mutant.new != mutant.old


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.room)
def test_the_tests_of_a_mutant_are_there(mutant: Mutant) -> None:
    assert all((REPOSITORY / "tests" / "unit" / text.partition(" ")[0]).is_file() for text in mutant.tests)
