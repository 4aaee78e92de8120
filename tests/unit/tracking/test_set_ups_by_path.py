"""Tracker set-ups of a user's own file."""

from __future__ import annotations

import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.tracking.params import load_params, set_up_name

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
    ],
)
def test_files_that_give_none_are_refused_in_one_line(tmp_path, text, what):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_params(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.py: no such file"):
        load_params(str(tmp_path / "nothing.py"))
