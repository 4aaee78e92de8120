"""The folders of data sets: environment variables first, then one TOML file, then folders with the usual names.

The file is that in EBMTRACK_PATHS, else ebmtrack/paths.toml in the user's folder of settings (~/.config):

    data = "/data"              # the folder of data sets in folders with their usual names
    lasot = "/fast/LaSOT"       # a data set of its own; ~ is the home folder, relative paths start at this file
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.files import expand_home
from ebmtrack.names import plain, unknown
from ebmtrack.videos.registry import datasets, find_info

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WINDOWS_ADVICE = r"write paths with a backslash in single quotes, such as lasot = 'D:\data\lasot'"
ROOT = "data"


@dataclass(frozen=True)
class Place:
    """The folder that is given for a data set, and what gives it: an environment variable or a settings file."""

    path: Path
    said_by: str


def homes() -> dict[str, tuple[str, ...]]:
    """Return the data sets that have folders, with the names of folders in which people keep them."""
    return {name: info.homes for name, info in datasets().items() if info.homes}


def data_path(name: str) -> Path:
    """Return the folder of a data set such as "lasot" or "got10k".

    Raises:
        ConfigError: For an unknown name, if no folder is given, or the given one does not exist.
    """
    place = place_of(name)
    if place is None:
        root = data_root()
        tried = f"there is nothing with its name in {root.path} ({root.said_by}). " if root else ""
        raise ConfigError(
            f'where is {name}? {tried}Set {variable(name)}=FOLDER, or write {name} = "FOLDER" in {settings_file()}'
        )
    return existing(name, place)


def existing(name: str, place: Place) -> Path:
    """Return the path of a place; ConfigError, naming what gives it, if it does not exist."""
    if not place.path.exists():
        raise ConfigError(f"{name}: {place.path} does not exist, but {place.said_by} says so; mount or correct it")
    return place.path


def place_of(name: str) -> Place | None:
    """Return the place of a data set by `said_place`, else the folder in `data_root` with its usual name."""
    place, root = said_place(name), data_root()
    if place is not None or root is None or not root.path.is_dir():
        return place
    folders = {plain(path.name): path for path in sorted(root.path.iterdir(), reverse=True) if path.is_dir()}
    found = next((folders[home] for home in homes()[name] if home in folders), None)
    return Place(found, root.said_by) if found else None


def said_place(name: str) -> Place | None:
    """Return what EBMTRACK_<NAME> or the file gives for a data set, or for the one in whose folder it is."""
    if name not in homes():
        raise unknown("data set", name, homes())
    inside = find_info(name).inside
    return _said(name) or (_said(inside) if inside else None)


def data_root() -> Place | None:
    """Return the folder of data sets that EBMTRACK_DATA, else the key `data` of the file names."""
    return _said(ROOT)


def variable(name: str) -> str:
    """Return the environment variable of a data set."""
    return f"EBMTRACK_{name.upper()}"


def settings_file() -> Path:
    """Return the path of the file of paths, whether it is there or not."""
    if os.environ.get("EBMTRACK_PATHS"):
        return expand_home(os.environ["EBMTRACK_PATHS"])
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "ebmtrack" / "paths.toml"


def read_settings() -> dict[str, Path]:
    """Return names and folders in the file of paths; nothing without a file.

    Raises:
        ConfigError: If EBMTRACK_PATHS names a file that is missing, and, with the line, for a malformed file.
    """
    path = settings_file()
    if not path.is_file():
        if os.environ.get("EBMTRACK_PATHS"):
            raise ConfigError(f"{path}: no such file, but EBMTRACK_PATHS names it; create it, or unset EBMTRACK_PATHS")
        return {}
    text = ""
    try:
        text = path.read_text("utf-8-sig")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        advice = f"; {WINDOWS_ADVICE}" if "\\" in text else ""
        raise ConfigError(f"{path}: not a TOML file: {error}{advice}") from error
    return {name: _check_entry(path, text, name, value) for name, value in content.items()}


def describe_paths() -> str:
    """Return what `ebmtrack paths` prints: each data set, its folder, what names that folder, whether it is there."""
    file = settings_file()
    lines = [f"settings file: {file}" + ("" if file.is_file() else " (not there)")]
    root = data_root()
    places = {ROOT: root} | {name: place_of(name) for name in homes()}
    width = max([len(str(place.path)) for place in places.values() if place] + [4])
    for name, place in places.items():
        if place is None:
            lines.append(f"{name:12} {'-':{width}}  not set  {variable(name)}")
        else:
            state = "there" if place.path.exists() else "MISSING"
            lines.append(f"{name:12} {str(place.path):{width}}  {state:7}  by {place.said_by}")
    example = 'lasot = "/data/lasot"'
    lines.append(f"To set one, set its variable, or write a line such as {example} into the settings file.")
    return "\n".join(lines)


def _said(name: str) -> Place | None:
    if os.environ.get(variable(name)):
        return Place(expand_home(os.environ[variable(name)]), variable(name))
    path = read_settings().get(name)
    return Place(path, str(settings_file())) if path is not None else None


def _check_entry(path: Path, text: str, name: str, value: object) -> Path:
    """Return the folder of one entry of the file."""
    found = re.search(rf"(?m)^[ \t]*[\"']?{re.escape(name)}\b", text)
    where = f"{path}, line {text.count(chr(10), 0, found.start()) + 1 if found else 1}"
    if name not in homes() and name != ROOT:
        raise ConfigError(f"{where}: {unknown('data set', name, [ROOT, *homes()])}")
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(f'{where}: {name} must be a folder in quotes, such as {name} = "/data/{name}"')
    if any(ord(letter) < 32 for letter in value):
        raise ConfigError(f"{where}: {name} = {value!r} holds a control character; {WINDOWS_ADVICE}")
    return path.parent / expand_home(value)
