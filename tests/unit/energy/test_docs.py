"""What the documentation of the energy package shows is run as written."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch

from ebmtrack.energy import ascent, density, losses, noise
from ebmtrack.studies import energy_1d as study1d
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "energy.md"


def test_page_for_outsiders_runs_as_written():
    """Every example of docs/energy.md gives what it says; the main one has no more than thirty lines."""
    with torch.random.fork_rng():
        results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted > 20 and results.failed == 0
    first_block = PAGE.read_text("utf-8").split("```")[1].strip().splitlines()
    assert len(first_block) - 1 <= 30


@pytest.mark.parametrize("module", [noise, losses, ascent, density, study1d])
def test_docstrings_run_as_written(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("module", [noise, losses, ascent, density])
def test_energy_imports_nothing_of_ours_but_errors(module):
    """Whoever regresses anything can import it: no boxes, nets or tracking behind it."""
    ours = [
        line.split()[1]
        for line in Path(module.__file__).read_text("utf-8").splitlines()
        if "ebmtrack" in line and line.startswith(("from ", "import "))
    ]
    assert all(name.startswith(("ebmtrack.energy", "ebmtrack.errors")) for name in ours)
