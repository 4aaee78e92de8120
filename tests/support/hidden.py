"""Programs in an interpreter in which some packages cannot be found."""

from __future__ import annotations

import subprocess
import sys

HIDE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run_without(packages: tuple[str, ...], program: str, *arguments: str) -> str:
    """Run a program where packages cannot be found, and return what it prints; its errors fail the test."""
    command = [sys.executable, "-c", HIDE.format(packages=packages) + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
