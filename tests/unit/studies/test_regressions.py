"""The study of regressions: its folder belongs to one set of settings, and its numbers are counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.studies import regressions as study


def test_results_of_other_settings_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings go on with what is there; others are refused, and leave the table as it was."""
    trained: list[int] = []

    def train(settings, examples, starts):
        trained.append(settings.steps)
        return {"mae": float(settings.steps)}

    monkeypatch.setattr(study, "_train", train)
    monkeypatch.setattr(study, "open_examples", lambda settings: None)
    monkeypatch.setattr(study, "DRAWINGS", ("cells",))
    options: dict[str, Any] = {"methods": ("l2",), "noise": 8, "log": lambda line: None}
    table = study.study_regressions(tmp_path, runs=1, steps=5, **options)
    assert "| cells | l2 | 1 | 5.00 |" in table
    assert "| cells | l2 | 2 | 5.00 (0.00) |" in study.study_regressions(tmp_path, runs=2, steps=5, **options)
    for changes in ({"steps": 6}, {"steps": 5, "noise": 9}):
        with pytest.raises(ConfigError, match="belongs to a study with other settings"):
            study.study_regressions(tmp_path, runs=2, **options | changes)
    assert trained == [5, 5] and json.loads((tmp_path / "settings.json").read_text()) == {"steps": 5, "noise": 8}


@pytest.mark.parametrize("name, said", [("runs", "runs"), ("steps", "steps"), ("noise", "samples")])
def test_its_numbers_are_counts(tmp_path: Path, name: str, said: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigError, match=f"--{said} must be at least 1, got 0"):
        study.study_regressions(tmp_path, **options)
    assert not list(tmp_path.iterdir())
