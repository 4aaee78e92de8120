"""Keeps tests off the user's own settings and caches; begins with the longest files."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from ebmtrack.videos.paths import homes, variable

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a machine that is busy makes no law wrong

os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # over a hundred processes of Python would each compile what they import
sys.dont_write_bytecode = False

LONGEST = [  # files below tests/unit by processor time, 45 s to 10 s (with `--no-loadscope-reorder` they begin)
    "tracking/test_pretended_gpu.py",
    "training/test_ltr_settings.py",
    "engines/test_onnx_engine.py",
    "plugins/test_pytracking.py",
    "tracking/test_multi.py",
    "training/test_distributed.py",
    "tracking/test_saving.py",
    "checkpoints/test_shipped.py",
    "tracking/test_tracker.py",
    "tracking/test_adaptation.py",
    "checkpoints/test_pytracking.py",
    "evaluation/test_report.py",
    "commands/test_main.py",
    "tracking/test_lost.py",
    "detection/test_detector.py",
    "engines/test_mirrored.py",
    "engines/test_openvino.py",
    "studies/test_box_losses.py",
    "evaluation/test_fuzz.py",
    "evaluation/test_runner.py",
    "commands/test_cluster.py",
    "studies/test_energy_1d.py",
    "tracking/test_limits.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that no process is left alone with one of them at the end."""
    ranks = {f"tests/unit/{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """An empty cache directory and an empty file of paths, also for processes that tests start."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "paths.toml").write_text("")
    for name in [*homes(), "data"]:
        os.environ.pop(variable(name), None)
    os.environ["EBMTRACK_CACHE"], os.environ["EBMTRACK_PATHS"] = str(folder / "cache"), str(folder / "paths.toml")
