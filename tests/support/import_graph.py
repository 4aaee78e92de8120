"""The imports among the modules of the package, read from their source: late ones and those for types count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import REPOSITORY

Graph = dict[str, set[str]]
FOLDERS = {"ebmtrack": "ebmtrack", **{f"ebmtrack.{n}": n for n in ("ltr_settings", "tracker_params", "evaluation")}}


def import_graph() -> Graph:
    """Return for every module of the package the modules of the package that it imports."""
    files = {name: path for package, folder in FOLDERS.items() for name, path in _modules(package, REPOSITORY / folder)}
    return {name: set(_imports(path, set(files))) - {name} for name, path in files.items()}


def circles(graph: Graph) -> list[str]:
    """Return the modules that can be reached from themselves."""
    return sorted(name for name in graph if name in _reachable(graph, name))


def _modules(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of every module in a folder."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def _imports(path: Path, names: set[str]) -> Iterator[str]:
    """Yield those of `names` that a file imports; `from a import b` is a.b if that is a module, else a."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from names & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: imports are absolute in this project"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & inner
            if inner - names:
                yield from names & {str(node.module)}


def _reachable(graph: Graph, start: str) -> set[str]:
    """Return all that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found
