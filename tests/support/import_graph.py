"""The imports among the modules of the package, read from their source: late ones and those for types count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import REPOSITORY

Graph = dict[str, set[str]]
FOLDERS = {"ebmtrack": "ebmtrack", **{f"ebmtrack.{n}": n for n in ("ltr_settings", "tracker_params", "evaluation")}}


def import_graph() -> Graph:
    """Return for every module of the package the modules of the package that it imports."""
    files = {name: path for package, folder in FOLDERS.items() for name, path in _modules(package, REPOSITORY / folder)}
    return {name: set(_imports(path, set(files))) - {name} for name, path in files.items()}


def foreign_imports() -> dict[str, tuple[set[str], set[str]]]:
    """Return for every module what it imports of other projects when it is imported, and later, by the first name."""
    files = {name: path for package, folder in FOLDERS.items() for name, path in _modules(package, REPOSITORY / folder)}
    return {name: _foreign(_parsed(path)) for name, path in files.items()}


def top_level_graph() -> Graph:
    """Return for every module the modules of the package that are imported with it, the packages above included."""
    files = {name: path for package, folder in FOLDERS.items() for name, path in _modules(package, REPOSITORY / folder)}
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
def _parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, which several graphs are read from."""
    return ast.parse(path.read_text("utf-8"))


def _early(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported: not those in functions, nor those for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _early(child)


def _foreign(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Return what a module imports of other projects when it is imported, and all that it ever imports of them."""
    both = []
    for nodes in (_early(tree), ast.walk(tree)):
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        both.append(names)
    for found, nodes in zip(both, (_early(tree), ast.walk(tree))):
        found |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {"ebmtrack", "pytracking", "ltr"} | sys.stdlib_module_names  # the plugin runs in the host's process
    early, every = ({name.partition(".")[0] for name in found} - own for found in both)
    return early, every - early


def _imports(path: Path, names: set[str], late: bool = True) -> Iterator[str]:
    """Yield those of `names` that a file imports; `from a import b` is a.b if that is a module, else a."""
    tree = _parsed(path)
    for node in ast.walk(tree) if late else _early(tree):
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
