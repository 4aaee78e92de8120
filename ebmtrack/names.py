"""Names that users type: the nearest known one, and the error for an unknown one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from ebmtrack.errors import ConfigError


def plain(name: str) -> str:
    """Return a name in small letters without `-`, `_` and blanks."""
    return re.sub(r"[-_ ]", "", name.lower())


def match_spelling(name: str, known: Iterable[str]) -> str:
    """Return the known name that `name` spells with other case, `-`, `_` or blanks, or else `name` itself.

    >>> match_spelling("UTKFace_H5", ["utkface", "utkface-h5"])
    'utkface-h5'
    """
    return {plain(each): each for each in known}.get(plain(name), name)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that looks most like `name`, or None if none looks like it.

    Args:
        name: What the user typed.
        known: The right names.
        cutoff: Least similarity, 0 to 1, as difflib measures it.

    >>> nearest("dimp81", ["dimp18", "prdimp50"])
    'dimp18'
    """
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name; it suggests the nearest known one, or else lists all of them.

    Args:
        kind: What the name should have named, such as "tracker set-up".
        name: What the user typed.
        known: The right names.
    """
    near = nearest(name, known := list(known))
    hint = f"; did you mean {near!r}?" if near else f"; known are {', '.join(known)}"
    return ConfigError(f"unknown {kind} {name!r}{hint}")


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the name if it is known.

    Args:
        kind: What the name should have named, such as "tracker set-up".
        name: What the user typed.
        known: The right names.

    Raises:
        ConfigError: If it is unknown; the message suggests the nearest known one.
    """
    if name not in (known := list(known)):
        raise unknown(kind, name, known)
    return name


def is_unicode(name: str) -> bool:
    """Return whether a file's name, which may be any bytes on Linux, can be written as UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
