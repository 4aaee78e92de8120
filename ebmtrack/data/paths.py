"""Where data sets lie: environment variables first, then one TOML file, then folders with the usual names.

The file is that in EBMTRACK_PATHS, else ebmtrack/paths.toml in the user's folder of settings (~/.config):

    data = "/data"              # data sets in folders with their usual names lie here
    lasot = "/fast/LaSOT"       # a data set of its own; ~ is the home folder, relative paths start at this file
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ebmtrack.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Folder names, without case, `-` and `_`, in which people keep a data set.
HOMES: Mapping[str, tuple[str, ...]] = {
    "lasot": ("lasot", "lasotbenchmark", "lasottesting"),
    "got10k": ("got10k",),
    "trackingnet": ("trackingnet",),
    "coco": ("coco", "coco2017", "mscoco", "mscoco2017"),
    "pool": ("pool",),
    "lasot_ext": ("lasotext", "lasotextension", "lasotextensionsubset"),
    "got10k_val": ("got10k",),
    "got10k_test": ("got10k",),
    "otb100": ("otb100", "otb2015", "otb"),
    "otb50": ("otb50", "otb100", "otb2015", "otb"),
    "otb2013": ("otb2013", "otb100", "otb2015", "otb"),
    "uav123": ("uav123", "uav"),
    "uav20l": ("uav20l", "uav123", "uav"),
    "nfs30": ("nfs30", "nfs", "needforspeed"),
    "nfs240": ("nfs240", "nfs", "needforspeed"),
    "tcolor128": ("tcolor128", "templecolor128", "tc128"),
    "dtb70": ("dtb70", "dtb"),
    "vot": ("vot", "vot2018", "vot2019", "vot2020", "vot2021", "vot2022"),
}
SHARED = {"got10k_val": "got10k", "got10k_test": "got10k", "otb50": "otb100", "otb2013": "otb100", "uav20l": "uav123"}
ROOT = "data"


@dataclass(frozen=True)
class Place:
    """Where a data set is said to lie, and who says so: an environment variable or a settings file."""

    path: Path
    said_by: str


def data_path(name: str) -> Path:
    """The folder of a data set such as "lasot" or "got10k".

    ConfigError for an unknown name, where nobody says, or where nothing lies at the place that somebody says.
    """
    place = place_of(name)
    if place is None:
        root = data_root()
        tried = f"nothing with its name lies in {root.path} ({root.said_by}); " if root else ""
        raise ConfigError(
            f'where is {name}? {tried}Set {variable(name)}=FOLDER, or write {name} = "FOLDER" in {settings_file()}'
        )
    return existing(name, place)


def existing(name: str, place: Place) -> Path:
    """The path of a place that is there; ConfigError, saying who says otherwise, where it is not."""
    if not place.path.exists():
        raise ConfigError(f"{name}: {place.path} does not exist, but {place.said_by} says so; mount or correct it")
    return place.path


def place_of(name: str) -> Place | None:
    """Where a data set lies by `said_place`, else in a folder of `data_root` with its usual name."""
    place, root = said_place(name), data_root()
    if place is not None or root is None or not root.path.is_dir():
        return place
    folders = {_plain(path.name): path for path in sorted(root.path.iterdir(), reverse=True) if path.is_dir()}
    found = next((folders[home] for home in HOMES[name] if home in folders), None)
    return Place(found, root.said_by) if found else None


def said_place(name: str) -> Place | None:
    """What EBMTRACK_<NAME> or the file says of a data set, or of the one in whose folder it lies; None if nothing."""
    if name not in HOMES:
        near = difflib.get_close_matches(name, HOMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(HOMES)}"
        raise ConfigError(f"unknown data set {name!r}{hint}")
    return _said(name) or (_said(SHARED[name]) if name in SHARED else None)


def data_root() -> Place | None:
    """The folder of data sets that EBMTRACK_DATA, else the key `data` of the file names."""
    return _said(ROOT)


def variable(name: str) -> str:
    """The environment variable of a data set."""
    return f"EBMTRACK_{name.upper()}"


def settings_file() -> Path:
    """The file of paths, whether it is there or not."""
    if os.environ.get("EBMTRACK_PATHS"):
        return Path(os.environ["EBMTRACK_PATHS"]).expanduser()
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "ebmtrack" / "paths.toml"


def read_settings() -> dict[str, Path]:
    """Names and folders in the file of paths; empty where there is none.

    ConfigError where EBMTRACK_PATHS names a file that is missing, and, with the line, for a file that is not right.
    """
    path = settings_file()
    if not path.is_file():
        if os.environ.get("EBMTRACK_PATHS"):
            raise ConfigError(f"{path}: no such file, but EBMTRACK_PATHS names it; create it, or unset EBMTRACK_PATHS")
        return {}
    try:
        text = path.read_text("utf-8-sig")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    return {name: _checked(path, text, name, value) for name, value in content.items()}


def describe_paths() -> str:
    """What `ebmtrack paths` prints: each data set, where it would be read from, who says so, whether it is there."""
    file = settings_file()
    lines = [f"settings file: {file}" + ("" if file.is_file() else " (not there)")]
    root = data_root()
    places = {ROOT: root} | {name: place_of(name) for name in HOMES}
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
        return Place(Path(os.environ[variable(name)]).expanduser(), variable(name))
    path = read_settings().get(name)
    return Place(path, str(settings_file())) if path is not None else None


def _checked(path: Path, text: str, name: str, value: object) -> Path:
    """The folder of one entry of the file."""
    found = re.search(rf"(?m)^[ \t]*[\"']?{re.escape(name)}\b", text)
    where = f"{path}, line {text.count(chr(10), 0, found.start()) + 1 if found else 1}"
    if name not in HOMES and name != ROOT:
        near = difflib.get_close_matches(name, [*HOMES, ROOT], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {ROOT}, {', '.join(HOMES)}"
        raise ConfigError(f"{where}: unknown data set {name!r}{hint}")
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(f'{where}: {name} must be a folder in quotes, such as {name} = "/data/{name}"')
    return path.parent / Path(value).expanduser()


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())
