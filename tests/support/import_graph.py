"""The imports among the modules of the package, read from their source: late ones and those for types count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import REPOSITORY

Graph = dict[str, set[str]]
FOR_TYPES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
FOLDERS = {"ebmtrack": "ebmtrack", **{f"ebmtrack.{n}": n for n in ("ltr_settings", "tracker_params", "evaluation")}}


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module of the package."""
    return {name: path for package, folder in FOLDERS.items() for name, path in _modules(package, REPOSITORY / folder)}


@cache
def import_graph() -> Graph:
    """Return for every module of the package the modules of the package that it imports."""
    files = modules()
    return {name: set(_imports(path, set(files))) - {name} for name, path in files.items()}


@cache
def foreign_imports() -> dict[str, tuple[set[str], set[str]]]:
    """Return for every module what it imports of other projects when it is imported, and later, by the first name."""
    return {name: _foreign(path) for name, path in modules().items()}


@cache
def top_level_graph() -> Graph:
    """Return for every module the modules of the package that are imported with it, the packages above included."""
    files = modules()
    graph = {name: set(_imports(path, set(files), late=False)) for name, path in files.items()}
    return {name: targets | {name.rpartition(".")[0]} & set(files) for name, targets in graph.items()}


def reachable(graph: Graph, start: str) -> set[str]:
    """Return `start` and all that it imports, directly or through others."""
    return _reachable(graph, start) | {start}


def circles(graph: Graph) -> list[str]:
    """Return the modules that can be reached from themselves."""
    return sorted(name for name in graph if name in _reachable(graph, name))


def _modules(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of every module in a folder."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join((package, *(part for part in parts if part != "__init__"))), path


@cache
def _statements(path: Path, late: bool) -> list[ast.AST]:
    """Return the statements of a file, from which several graphs are read, those in functions if `late`."""
    return list(_below(_parsed(path), late))


@cache
def _parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"))


def _below(node: ast.AST, late: bool) -> Iterator[ast.AST]:
    """Yield the statements in a node; without late ones those that run when a module is imported.

    Late ones are in functions, or for types alone. Expressions hold no imports.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        if not late and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if not late and isinstance(child, ast.If) and ast.unparse(child.test) in FOR_TYPES:
            continue
        yield child
        yield from _below(child, late)


def _foreign(path: Path) -> tuple[set[str], set[str]]:
    """Return what a module imports of other projects when it is imported, and what it imports of them later."""
    own = {"ebmtrack", "pytracking", "ltr"} | sys.stdlib_module_names  # the plugin runs in the host's process
    early, every = (set(_names(_statements(path, late))) - own for late in (False, True))
    return early, every - early


def _names(statements: list[ast.AST]) -> Iterator[str]:
    """Yield the first names of the modules that statements import or import from."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def _imports(path: Path, names: set[str], late: bool = True) -> Iterator[str]:
    """Yield those of `names` that a file imports; `from a import b` is a.b if that is a module, else a."""
    for node in _statements(path, late):
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
