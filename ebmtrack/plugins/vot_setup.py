"""Registers the tracker in a workspace of the VOT toolkit: an entry of trackers.ini."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from configparser import ConfigParser
from configparser import Error as IniError
from pathlib import Path

from ebmtrack.engines.onnx_files import find_exported, independent_of_folder
from ebmtrack.errors import ConfigError, missing_extra
from ebmtrack.files import expand_home, write_text
from ebmtrack.tracking.params import load_params, set_up_name

MODULE = "ebmtrack.plugins.vot"
TIMEOUT_S = 120  # that the toolkit waits for a frame; its 30 are short for a first frame on a busy machine
MASKS = (
    "note: {path} gives targets as masks. This tracker follows the box around a mask and answers with boxes; "
    "against masks these overlap less than a segmentation would."
)


def init(
    params: str,
    workspace: Path,
    name: str | None = None,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
) -> str:
    """Add or replace our entry in `workspace`/trackers.ini, keep the others, and say what was done and what comes next.

    name: the entry's, "ebmtrack_<set-up>" by default. Raises ConfigError for unknown parameters, a missing package or
    weights file, a name that the toolkit does not take or another tracker has, and a folder that cannot be written.
    """
    load_params(params)
    if importlib.util.find_spec("trax") is None:
        raise missing_extra("trax", "a tracker for the VOT toolkit")
    if weights is not None and not (Path(weights).is_file() or find_exported(weights)):
        raise ConfigError(
            f"{weights}: no such file of weights, nor an exported network's folder, nor a network that comes with "
            "ebmtrack; check its path"
        )
    name = name or f"ebmtrack_{set_up_name(params)}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"{name!r}: the toolkit's names are letters, digits, - and _; choose one with --name")
    path = workspace / "trackers.ini"
    text = _with_entry(_present(path), path, name, entry(params, name, weights, device))
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write here: {error.strerror or error}") from None
    return "\n".join([f"{path} has the tracker {name}", *_advice(workspace, name)])


def entry(params: str, name: str, weights: str | os.PathLike | None = None, device: str = "auto") -> str:
    """Return the section of trackers.ini that runs this tracker with the Python that is running now.

    Paths are absolute, because the toolkit runs the tracker in folders of its own.
    """
    chosen = str(expand_home(params).absolute()) if params.endswith(".py") else params
    command = [sys.executable, "-m", MODULE, "--params", chosen, "--device", device]
    command += [] if weights is None else ["--weights", str(independent_of_folder(weights))]
    line = shlex.join(command).replace("%", "%%")  # the toolkit's reader of .ini files expands %(name)s
    return (
        f"[{name}]\nlabel = ebmtrack {set_up_name(params)}\nprotocol = trax\ncommand = {line}\ntimeout = {TIMEOUT_S}\n"
    )


def _present(path: Path) -> str:
    """Return the text of trackers.ini, empty if there is none."""
    if not path.exists():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _with_entry(text: str, path: Path, name: str, new: str) -> str:
    """Return the file's text with the entry in the place of its older self, or at the end; all else stays as it is."""
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except IniError as error:
        raise ConfigError(f"{path}: is no .ini file: {' '.join(str(error).split())}") from None
    if parser.has_section(name):
        if MODULE not in parser.get(name, "command", fallback=""):
            raise ConfigError(f"{path}: has another tracker called {name}; choose a name with --name")
        return _replace_section(text, name, new)
    return f"{text.rstrip()}\n\n{new}" if text.strip() else new


def _replace_section(text: str, name: str, new: str) -> str:
    """Return the text with another section `name`; comments after its last option stay where they are."""
    lines = text.splitlines(keepends=True)
    matches = {number: ConfigParser.SECTCRE.match(line.strip()) for number, line in enumerate(lines)}
    headers = {number: match["header"] for number, match in matches.items() if match}  # a comment may follow a name
    start = next(number for number, header in headers.items() if header == name)
    stop = next((number for number in headers if number > start), len(lines))
    while stop > start + 1 and (not lines[stop - 1].strip() or lines[stop - 1][0] in "#;"):
        stop -= 1
    comments = [line for line in lines[start + 1 : stop] if line[0] in "#;"]
    gap = "\n" if stop < len(lines) and lines[stop].strip() else ""
    return "".join([*lines[:start], new, *comments, gap, *lines[stop:]])


def _advice(workspace: Path, name: str) -> list[str]:
    """Return notes on this workspace and the next commands."""
    lines = []
    if not (workspace / "config.yaml").is_file():
        lines.append(f"{workspace} is no workspace yet: vot initialize STACK --workspace {shlex.quote(str(workspace))}")
    truths = sorted((workspace / "sequences").glob("*/groundtruth*.txt"))
    masked = [path for path in truths if _first_letter(path) == "m"]
    lines += [MASKS.format(path=masked[0])] if masked else []
    quoted = shlex.quote(str(workspace))
    return [*lines, f"next: vot --registry {quoted} test {name}; vot evaluate --workspace {quoted} {name}"]


def _first_letter(path: Path) -> str:
    """Return the first character of a file; "m" begins a mask in VOT's files."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1)
