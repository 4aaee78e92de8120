"""Imports point one way: there are no circles, and what the design calls low knows nothing of what is above it."""

from __future__ import annotations

import configparser
import re

import pytest

from ebmtrack.errors import EXTRAS
from tests.support import REPOSITORY
from tests.support.import_graph import circles, foreign_imports, import_graph, modules, reachable, top_level_graph

GROUND = ("boxes", "errors", "files", "images", "device", "names", "progress", "_version")
ENTRY = ("ebmtrack.__main__",)


def room(module: str) -> str:
    """Return the first name below the package; "" for the package itself."""
    return (module.split(".") + [""])[1]


def imported_rooms(name: str) -> set[str]:
    """Return the other rooms that the modules of one room import."""
    graph = import_graph()
    return {room(target) for module in graph if room(module) == name for target in graph[module]} - {name}


def test_the_graph_sees_imports_of_all_kinds() -> None:
    """At the top, in a function, of a package, of a module by `from`."""
    assert "ebmtrack.tracking.tracker" in import_graph()["ebmtrack"]
    assert "ebmtrack.plugins.pytracking" in import_graph()["ebmtrack.plugins.hook"]
    assert "ebmtrack.files" in import_graph()["ebmtrack.checkpoints.native"]
    assert "ebmtrack.tracking.params" in import_graph()["ebmtrack.tracker_params.dimp18"]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_there_are_no_circles() -> None:
    assert circles(import_graph()) == []


def test_only_the_command_imports_commands() -> None:
    users = {module for module, targets in import_graph().items() if "commands" in map(room, targets)}
    assert {module for module in users if room(module) != "commands"} == set(ENTRY)


def test_only_commands_import_studies() -> None:
    users = {room(module) for module, targets in import_graph().items() if "studies" in map(room, targets)}
    assert users <= {"studies", "commands"}


@pytest.mark.parametrize("name", ["boxes", "errors", "energy", "_version"])
def test_what_imports_nothing_of_ours_but_errors(name: str) -> None:
    assert imported_rooms(name) <= {"errors"}


BELOW = {"nets": {"energy"}, "videos": set(), "checkpoints": {"energy", "nets", "weights"}}


@pytest.mark.parametrize("name, below", BELOW.items())
def test_a_room_imports_what_is_below_it(name: str, below: set[str]) -> None:
    """Besides the ground, which everybody may use."""
    assert imported_rooms(name) - set(GROUND) <= below


# What `pip install ebmtrack` brings, and what needs an extra.

BROUGHT = {"markupsafe", "PIL"}  # by jinja2 and matplotlib
MODULES = {"opencv_python": "cv2", "vot_trax": "trax"}  # whose project has another name
SMALL = (
    "",
    "tracking",
    "tracker_params",
    "videos",
    "viewers",
    "live",
    "evaluation",
    "commands",
    "images",
    "files",
    "device",
)
SMALL_MODULES = (
    "engines",
    "engines.base",
    "engines.onnx_engine",
    "engines.openvino_session",
    "studies.bench_tracker",
    "studies.bench_worker",
    "studies.stress",
)


def requirements() -> dict[str, set[str]]:
    """Return the modules that setup.cfg's requirements bring, by extra; "" for the plain installation."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    lines = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    found = {extra: re.findall(r"^\s*([A-Za-z0-9_-]+)(?!.*\[)", text, re.M) for extra, text in lines.items()}
    named = {extra: {name.lower().replace("-", "_") for name in names} for extra, names in found.items()}
    return {extra: {MODULES.get(name, name) for name in names} for extra, names in named.items()}


def is_small(module: str) -> bool:
    """Return whether a module must be importable after the plain installation."""
    return room(module) in SMALL or module.removeprefix("ebmtrack.") in SMALL_MODULES


@pytest.mark.parametrize("module", sorted(filter(is_small, modules())))
def test_the_plain_installation_is_enough(module: str) -> None:
    """Of what is imported at once: torch, lmdb and the like are loaded by the functions that need them."""
    needed = {name: source for source in reachable(top_level_graph(), module) for name in foreign_imports()[source][0]}
    assert {name: needed[name] for name in set(needed) - requirements()[""] - BROUGHT} == {}


def test_only_detection_loads_torchvision_at_once() -> None:
    """It loads PyTorch's compiler, which takes longer than the rest of PyTorch."""
    assert {room(module) for module, (early, _) in foreign_imports().items() if "torchvision" in early} == {"detection"}


def test_every_package_is_required_or_belongs_to_an_extra() -> None:
    used = set().union(*(early | late for early, late in foreign_imports().values()))
    assert used <= requirements()[""] | set(EXTRAS) | BROUGHT


@pytest.mark.parametrize("module, extra", EXTRAS.items())
def test_messages_name_the_extra_that_brings_a_package(module: str, extra: str) -> None:
    assert module in requirements()[extra] and module not in requirements()[""]
