"""Tracker set-ups of a user's own file."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest

from ebmtrack.commands.main import main
from ebmtrack.engines.base import TrainedOn, read_trained_on
from ebmtrack.errors import ConfigError
from ebmtrack.images import write_picture
from ebmtrack.tracking.params import TrackerParams, load_params, set_up_name
from ebmtrack.tracking.tracker import warn_of_other_regions
from ebmtrack.weights import DEFAULT_WEIGHTS
from tests.support.golden import image

MINE = """
from ebmtrack.tracking.params import load_params


def parameters():
    return load_params("dimp18_nce_plus").replace(ascent_steps=15)
"""


def test_a_file_gives_its_set_up_and_its_name(tmp_path):
    """The example of docs/extending.md."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert load_params(str(path)) == load_params("dimp18_nce_plus").replace(ascent_steps=15)
    assert set_up_name(str(path)) == "mine" and set_up_name("dimp18") == "dimp18"


@pytest.mark.parametrize(
    "text, what",
    [
        ("x = 1", "defines no function parameters"),
        ("def parameters(): return 3", "must return TrackerParams, got int"),
        ("def parameters(): return {}['a']", "KeyError: 'a'"),
        ("from ebmtrack.tracking.params import load_params as p\ndef parameters(): return p('dimp81')", "dimp18"),
        ("def parameters(:", "SyntaxError"),
        (
            "from ebmtrack.tracking.params import TrackerParams\ndef parameters(): return TrackerParams(candidates=0)",
            "candidates=0: must be a whole number",
        ),
    ],
)
def test_files_that_give_none_are_refused_in_one_line(tmp_path, text, what):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        load_params(str(path))
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).count(str(path)) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.py: no such file"):
        load_params(str(tmp_path / "nothing.py"))


def warned(params: TrackerParams, trained: TrainedOn | None) -> list[str]:
    """Return the warnings about a set-up for a network that was trained on some search regions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_other_regions(params, trained)
    return [str(warning.message) for warning in caught]


def test_other_search_regions_than_in_training_are_warned_of():
    """SuperDiMP searches 352 pixels at 6 target sizes, DiMP-18 learned on 288 at 5; each difference alone counts."""
    trained, fits = TrainedOn(288, 5.0), load_params("dimp18_nce_plus")
    assert warned(fits, trained) == warned(fits, None) == []
    [line] = warned(load_params("super_dimp"), trained)
    assert "352 pixels at 6 target sizes" in line and "288 pixels at 5:" in line and "\n" not in line
    assert warned(fits.replace(sample_size=352, search_factor=5.0), trained)  # larger targets
    assert warned(fits.replace(sample_size=230, search_factor=4.0), trained)  # as large, less around them
    assert warned(fits.replace(sample_size=256, search_factor=4.5), trained) == []  # as large, a tenth less around them


@pytest.mark.parametrize(
    "settings, trained",
    [
        ({"search_factor": 5.0, "sample_size": 288}, TrainedOn(288, 5.0)),
        ({"crops": {"output": 352, "search_factor": 6}}, TrainedOn(352, 6.0)),
        ({}, None),
        ({"crops": {}}, None),
        ({"crops": {"output": "wide", "search_factor": 6}}, None),
        ({"search_factor": -1, "sample_size": 288}, None),
    ],
)
def test_a_header_names_the_search_regions_of_training(settings, trained):
    assert read_trained_on(settings) == trained


def test_the_command_line_warns_in_one_line_about_a_set_up_that_does_not_fit(tmp_path, capsys):
    """The set-up of SuperDiMP with the network that ships, which has the other kind of search region."""
    write_picture(tmp_path / "1.png", np.zeros((40, 60, 3), np.uint8))
    options = ["--params", "super_dimp", "--weights", DEFAULT_WEIGHTS, "--init", "10,10,20,20"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["track", str(tmp_path), *options, "--boxes", str(tmp_path / "boxes.txt"), "--device", "cpu"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and said[0].startswith("ebmtrack: warning: the set-up searches regions of 352 pixels")


def test_an_evaluation_takes_a_set_up_by_its_path(tmp_path):
    """`eval --params ./mine.py` stores its results under the file's name, and tracks with the file's values."""
    data = tmp_path / "data" / "still"
    (data / "img").mkdir(parents=True)
    for number in (1, 2):
        write_picture(data / "img" / f"{number:04d}.png", image("walk", 80, 100))
    (data / "groundtruth_rect.txt").write_text("30,20,24,26\n30,20,24,26\n")
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    where = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "results")]
    how = ["--params", str(mine), "--runs", "1", "--device", "cpu"]
    assert main(["eval", "--dataset", "folder", *where, *how]) == 0
    assert (tmp_path / "results" / "folder" / "mine_000" / "still.txt").is_file()
    [marker] = (tmp_path / "results" / "folder" / "mine_000").glob("still*.json")
    assert json.loads(marker.read_text())["made_by"]["params"]["ascent_steps"] == 15


def test_the_papers_set_up_has_nothing_of_ours():
    """What is off in a set-up of no name is off there, and what a later field adds to the default one will be."""
    plain, papers = TrackerParams(), load_params("dimp18_nce_plus_paper")
    fields = [field.name for field in dataclasses.fields(TrackerParams)]
    off = [name for name in fields if not np.any(getattr(plain, name) or 0)]
    assert {"calibration", "centre_calibration", "energy_adaptation", "weak_score", "looks_around"} <= set(off)
    assert {name: getattr(papers, name) for name in off} == {name: getattr(plain, name) for name in off}
