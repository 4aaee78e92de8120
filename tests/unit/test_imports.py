"""Imports point one way: there are no circles, and what the design calls low knows nothing of what is above it."""

from __future__ import annotations

import pytest

from tests.support.import_graph import circles, import_graph

GRAPH = import_graph()
GROUND = ("boxes", "errors", "files", "images", "device", "names", "_version")
ENTRY = ("ebmtrack.__main__",)


def room(module: str) -> str:
    """Return the first name below the package; "" for the package itself."""
    return (module.split(".") + [""])[1]


def imported_rooms(name: str) -> set[str]:
    """Return the other rooms that the modules of one room import."""
    return {room(target) for module, targets in GRAPH.items() if room(module) == name for target in targets} - {name}


def test_the_graph_sees_imports_of_all_kinds() -> None:
    """At the top, in a function, of a package, of a module by `from`."""
    assert "ebmtrack.tracking.tracker" in GRAPH["ebmtrack"]
    assert "ebmtrack.plugins.pytracking" in GRAPH["ebmtrack.plugins.hook"]
    assert "ebmtrack.files" in GRAPH["ebmtrack.checkpoints.native"]
    assert "ebmtrack.tracking.params" in GRAPH["ebmtrack.tracker_params.dimp18"]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_there_are_no_circles() -> None:
    assert circles(GRAPH) == []


def test_only_the_command_imports_commands() -> None:
    users = {module for module, targets in GRAPH.items() if "commands" in map(room, targets)}
    assert {module for module in users if room(module) != "commands"} == set(ENTRY)


def test_only_commands_import_studies() -> None:
    users = {room(module) for module, targets in GRAPH.items() if "studies" in map(room, targets)}
    assert users <= {"studies", "commands"}


@pytest.mark.parametrize("name", ["boxes", "errors", "energy", "_version"])
def test_what_imports_nothing_of_ours_but_errors(name: str) -> None:
    assert imported_rooms(name) <= {"errors"}


BELOW = {"nets": {"energy"}, "videos": set(), "checkpoints": {"energy", "nets", "weights"}}


@pytest.mark.parametrize("name, below", BELOW.items())
def test_a_room_imports_what_is_below_it(name: str, below: set[str]) -> None:
    """Besides the ground, which everybody may use."""
    assert imported_rooms(name) - set(GROUND) <= below
