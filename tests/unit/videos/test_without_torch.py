"""Data sets are read where torch cannot be found."""

from __future__ import annotations

from pathlib import Path

from tests.support.hidden import run_without
from tests.support.trees import got10k_tree

PROGRAM = """
import sys
import importlib, pkgutil
import ebmtrack.videos
for module in pkgutil.iter_modules(ebmtrack.videos.__path__):
    importlib.import_module(f"ebmtrack.videos.{module.name}")
from ebmtrack.data.checking import check
print(sum(finding.kind == "damage" for finding in check("got10k", __import__("pathlib").Path(sys.argv[1]))))
"""


def test_data_sets_are_read_and_checked_without_torch_and_lmdb(tmp_path: Path) -> None:
    """The check of GOT-10k needs neither."""
    got10k_tree(tmp_path / "train")
    assert run_without(("torch", "torchvision", "lmdb"), PROGRAM, str(tmp_path)).split() == ["0"]
