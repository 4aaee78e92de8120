"""On a GPU: no tensor on the wrong device, and results are the CPU's (see pretend_gpu.py for what this cannot show)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import TESTS
from tests.support.pretend_gpu import AVAILABLE

CHECKS = TESTS / "support" / "pretended_gpu_checks.py"


@pytest.mark.skipif(not AVAILABLE, reason="this PyTorch has no back ends in Python")
def test_everything_that_runs_on_a_gpu_keeps_its_tensors_there():
    """In a process of its own, because a back end stays known to PyTorch."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CHECKS)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # sums of several threads differ in the last bits
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=alone)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
