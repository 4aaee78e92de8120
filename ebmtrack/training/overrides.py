"""`--set key=value`: changes of frozen settings by dotted keys, typed by the dataclass that holds them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ebmtrack.errors import ConfigError

S = TypeVar("S")


def override(settings: S, changes: Sequence[str]) -> S:
    """A copy of a frozen dataclass with changes such as "steps=500", "crops.output=256" or "objective.sigmas=0.1,1".

    Fields that are dataclasses, and entries of dicts, are reached by dots; a dict takes no new entry. Values are read
    by the type of their field. ConfigError for an unknown key, which names the nearest right one, for a value of
    another type, and for what the settings' own checks refuse. Later changes win.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, got {change!r}; for example --set {_example(settings)}")
        settings = _changed(settings, settings, key.strip(), key.strip().split("."), text.strip())
    return settings


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """All dotted keys that `override` knows, with their values."""
    leaves = {}
    for name, value in _entries(settings).items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = value
    return leaves


def differences(settings: Any, reference: Any) -> dict[str, Any]:
    """The dotted keys whose values differ from those of `reference`, settings of the same class."""
    usual = flat(reference)
    return {key: value for key, value in flat(settings).items() if key not in usual or usual[key] != value}


def as_json(value: Any) -> Any:
    """Settings as JSON values: dataclasses become dicts, tuples lists, paths texts."""
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in _entries(value).items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def describe(settings: Any) -> str:
    """One line key=value for everything that --set can change."""
    return "\n".join(f"{key}={_as_text(value)}" for key, value in flat(settings).items())


def _entries(holder: Any) -> dict[str, Any]:
    """Fields of a dataclass, or entries of a mapping."""
    if isinstance(holder, Mapping):
        return dict(holder)
    return {field.name: getattr(holder, field.name) for field in dataclasses.fields(holder)}


def _changed(root: Any, holder: Any, key: str, path: list[str], text: str) -> Any:
    """`holder` with the entry at `path` read from `text`; root and key are for the messages."""
    name, rest = path[0], path[1:]
    entries = _entries(holder) if dataclasses.is_dataclass(holder) or isinstance(holder, Mapping) else {}
    if name not in entries:
        raise ConfigError(f"unknown setting {key!r}{_nearest(key, root)}; --show lists all of them")
    value = entries[name]
    if rest:
        value = _changed(root, value, key, rest, text)
    elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        raise ConfigError(f"{key} is a group of settings: set one of {', '.join(flat(value, f'{key}.')) or 'none'}")
    else:
        value = _read(text, _type_of(holder, name), key)
    if isinstance(holder, Mapping):
        return {**holder, name: value}
    return dataclasses.replace(holder, **{name: value})


def _nearest(key: str, root: Any) -> str:
    """A hint at the known key that looks most like `key`, by the whole of it or by its last part."""
    known = list(flat(root))
    near = difflib.get_close_matches(key, known, n=1)
    tails = {known_key.rpartition(".")[2]: known_key for known_key in reversed(known)}
    last = difflib.get_close_matches(key.rpartition(".")[2], tails, n=1, cutoff=0.7)
    found = near or [tails[tail] for tail in last]
    return f", did you mean {found[0]!r}" if found else ""


def _type_of(holder: Any, name: str) -> Any:
    """The type that a field's annotation, or the present entry of a dict, asks for."""
    if isinstance(holder, Mapping):
        return type(holder[name])
    return typing.get_type_hints(type(holder))[name]


def _read(text: str, kind: Any, key: str) -> Any:
    """`text` as a value of type `kind`; ConfigError says what was expected."""
    try:
        return _parsed(text, kind)
    except (ValueError, SyntaxError, TypeError) as error:
        raise ConfigError(f"{key}={text}: expected {_kind_name(kind)}") from error


def _parsed(text: str, kind: Any) -> Any:
    """The value that `text` stands for; ValueError where it is of another type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _one_of(text, {str(choice): choice for choice in arguments})
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", ""):
            return None
        return _first_that_reads(text, [a for a in arguments if a is not type(None)])
    if kind is bool:
        return _one_of(text.lower(), {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False})
    if kind in (int, float, str, Path):
        return kind(text)
    if origin is tuple or kind is tuple:
        return _tuple(text, arguments)
    raise ValueError(f"cannot read a {kind} from text")


def _one_of(text: str, choices: dict[str, Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return choices[text]


def _first_that_reads(text: str, kinds: list[Any]) -> Any:
    """The value by the first of several types that fits."""
    for kind in kinds:
        try:
            return _parsed(text, kind)
        except ValueError:
            continue
    raise ValueError(text)


def _tuple(text: str, arguments: tuple[Any, ...]) -> tuple:
    """A tuple from "1,2" or "(1, 2)"; its entries are read by their own types."""
    values = ast.literal_eval(text if text.endswith(",") else f"{text},")
    values = values[0] if len(values) == 1 and isinstance(values[0], (tuple, list)) else values
    kinds = arguments[:1] * len(values) if len(arguments) == 2 and arguments[1] is ... else arguments
    if len(kinds) != len(values):
        raise ValueError(text)
    return tuple(_parsed(_as_text(value), kind) for value, kind in zip(values, kinds))


def _as_text(value: Any) -> str:
    """How a value is written after `key=`."""
    if isinstance(value, (tuple, list)):
        return "(" + "".join(f"{_as_text(entry)}," for entry in value) + ")"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind_name(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    if typing.get_origin(kind) is tuple:
        return f"{_kind_name(typing.get_args(kind)[0])} or more, with commas between them"
    return names.get(kind, str(kind).replace("typing.", ""))


def _example(settings: Any) -> str:
    key, value = next(iter(flat(settings).items()), ("key", "value"))
    return f"{key}={_as_text(value)}"
