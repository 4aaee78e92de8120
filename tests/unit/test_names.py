"""Names: the nearest known one, and errors for unknown ones."""

from __future__ import annotations

import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name, nearest, unknown


def test_nearest():
    assert nearest("dimp81", ["dimp18", "prdimp50"]) == "dimp18"
    assert nearest("xyz", ["dimp18"]) is None and nearest("dimp18", []) is None


def test_an_error_suggests_the_nearest_name_or_lists_all():
    assert str(unknown("colour", "gren", ["red", "green"])) == "unknown colour 'gren'; did you mean 'green'?"
    assert str(unknown("colour", "x", iter(["red", "green"]))) == "unknown colour 'x'; known are red, green"


def test_a_known_name_is_returned():
    assert check_name("colour", "red", iter(["red"])) == "red"
    with pytest.raises(ConfigError, match="did you mean 'red'"):
        check_name("colour", "rad", ["red"])
    with pytest.raises(ValueError):  # a ConfigError is one
        check_name("colour", "", [])
