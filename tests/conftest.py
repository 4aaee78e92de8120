"""Keeps tests off the user's own settings and caches."""

from __future__ import annotations

import os

import pytest

from ebmtrack.videos.paths import homes, variable


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """An empty cache directory and an empty file of paths, also for processes that tests start."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "paths.toml").write_text("")
    for name in [*homes(), "data"]:
        os.environ.pop(variable(name), None)
    os.environ["EBMTRACK_CACHE"], os.environ["EBMTRACK_PATHS"] = str(folder / "cache"), str(folder / "paths.toml")
