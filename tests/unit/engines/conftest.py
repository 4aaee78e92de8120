"""The network that several engines run, and the answers of a file's engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ebmtrack.engines.base import Engine
from tests.support.engine_runs import run_through, write_exported
from tests.support.golden import dimp18


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the golden network as `net.safetensors`, and exported in `out`; no test changes it."""
    folder = tmp_path_factory.mktemp("exported")
    write_exported(dimp18(), folder)
    return folder


@pytest.fixture(scope="module")
def answers(engine: Engine) -> dict[str, np.ndarray]:
    """Return the answers of a run through all calls."""
    return run_through(engine)
