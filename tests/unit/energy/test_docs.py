"""What the documentation of the energy package shows is run as written."""

from __future__ import annotations

import doctest

import pytest
import torch

from ebmtrack.energy import ascent, density, losses, noise, proposals
from ebmtrack.studies import energy_1d, energy_1d_methods
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "energy.md"


def test_page_for_outsiders_runs_as_written():
    """Every example of docs/energy.md gives what it says; the main one has no more than thirty lines."""
    with torch.random.fork_rng():
        results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted > 20 and results.failed == 0
    first_block = PAGE.read_text("utf-8").split("```")[1].strip().splitlines()
    assert len(first_block) - 1 <= 30


@pytest.mark.parametrize("module", [noise, losses, ascent, density, proposals, energy_1d, energy_1d_methods])
def test_docstrings_run_as_written(module):
    assert doctest.testmod(module).failed == 0
