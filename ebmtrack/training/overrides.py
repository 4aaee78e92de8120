"""Command lines made from frozen dataclasses, and changes `key=value` of their fields."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ebmtrack.errors import ConfigError
from ebmtrack.names import nearest

S = TypeVar("S")
TYRO = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
MOST_KEYS, NEAREST = 20, 5  # keys that an error lists, and those that it lists of more
LEAST_WORD = 3  # letters of a word that makes a key alike
BOOLEANS = {"true": "True", "1": "True", "yes": "True", "false": "False", "0": "False", "no": "False"}


def parse(default: S, arguments: Sequence[str], program: str | None = None) -> S:
    """Return settings changed by a command line such as ["--objective.beta", "0.2", "--steps", "500"].

    Args:
        default: settings whose class says which options there are.
        arguments: words of the command line; `--help` prints all options and exits.
        program: name of the program in messages.
    """
    return tyro.cli(
        type(default), args=list(arguments), default=default, prog=program, config=TYRO, use_underscores=True
    )


def override(settings: S, changes: Sequence[str], listing: str = "") -> S:
    """Return settings with changes such as "steps=500", "crops.output=256" or "objective.sigmas=0.1,1".

    Fields of dataclasses, and entries of dicts, are reached by dots; a dict takes no new entry. Later changes win.

    Args:
        settings: a frozen dataclass.
        changes: texts "key=value".
        listing: says where all keys are listed, for the error.

    Raises:
        ConfigError: an unknown key (the message names the nearest one), or a value that does not fit its field.
    """
    arguments = [_arguments(settings, change, listing) for change in changes]
    if not arguments:
        return settings
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parse(settings, [word for words in arguments for word in words])
    except SystemExit:
        pass
    for change, words in zip(changes, arguments):
        _refuse_misfit(settings, change, words)
    raise ConfigError(
        f"--set {' '.join(changes)}: these changes do not fit each other; give fewer at a time to see which"
    )


def _refuse_misfit(settings: Any, change: str, words: list[str]) -> None:
    """Raise a ConfigError if one change alone cannot be made."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parse(settings, words)
    except SystemExit as error:
        if refused := _settings_error(error):
            raise refused from None
        kind = _kind_name(leaf_type(settings, change.partition("=")[0].strip()))
        raise ConfigError(f"{change}: expected {kind}") from error


def _settings_error(error: BaseException | None) -> ConfigError | None:
    """Return the ConfigError of a settings class that made tyro exit, if there is one (tyro catches ValueErrors)."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__ or error.__context__
    return error


def _arguments(settings: Any, change: str, listing: str) -> list[str]:
    """Return the words of a command line that make one change; `listing` is for the error of an unknown key."""
    key, equals, text = (part.strip() for part in change.partition("="))
    known = flat(settings)
    if not equals:
        example = next(iter(known), "key")
        raise ConfigError(f"--set takes key=value, got {change!r}; for example --set {example}={known.get(example)}")
    if key not in known:
        _refuse_key(key, known, listing)
    kind = leaf_type(settings, key)
    if type(None) in typing.get_args(kind) and text.lower() in ("none", ""):
        return [f"--{key}", "None"]
    if kind is bool:
        return [f"--{key}", BOOLEANS.get(text.lower(), text)]
    if any(typing.get_origin(one) is tuple for one in (kind, *typing.get_args(kind)[:1])):  # a tuple, or None
        return [f"--{key}", *(part.strip() for part in text.strip("()").split(",") if part.strip())]
    return [f"--{key}={text}"]


def _refuse_key(key: str, known: Mapping[str, Any], listing: str) -> typing.NoReturn:
    """Raise the ConfigError for a key that is a group of settings, or unknown."""
    group = [name for name in known if name.startswith(f"{key}.")]
    if group:
        raise ConfigError(f"{key} is a group of settings: set one of {', '.join(group)}")
    tails = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    last = nearest(key.rpartition(".")[2], tails, cutoff=0.7)
    near = nearest(key, known) or (tails[last] if last else None)
    raise ConfigError(f"unknown setting {key!r}; " + (f"did you mean {near!r}?" if near else _few(key, known, listing)))


def _few(key: str, known: Mapping[str, Any], listing: str) -> str:
    """Return the known keys in words, of many the nearest ones."""
    if len(known) <= MOST_KEYS:
        return f"known are {', '.join(known)}"
    tails = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    alike = difflib.get_close_matches(key.rpartition(".")[2], tails, n=NEAREST, cutoff=0)
    words = tuple(word for word in re.split(r"[._]", key) if len(word) >= LEAST_WORD)
    shared = [name for name in known if any(part.startswith(words) for part in re.split(r"[._]", name))]
    nearest_keys = list(dict.fromkeys([*shared, *(tails[tail] for tail in alike)]))[:NEAREST]
    return f"the nearest of {len(known)} are {', '.join(nearest_keys)}" + f"; {listing}" * bool(listing)


def leaf_type(settings: Any, key: str) -> Any:
    """Return the type that the annotation of a dotted key, or the present entry of a dict, asks for."""
    holder, kind = settings, type(settings)
    for name in key.split("."):
        kind = type(holder[name]) if isinstance(holder, Mapping) else typing.get_type_hints(type(holder))[name]
        holder = _entries(holder)[name]
    return kind


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return all dotted keys that `override` knows, with their values."""
    leaves: dict[str, Any] = {}
    for name, value in _entries(settings).items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = value
    return leaves


def differences(settings: Any, reference: Any) -> dict[str, Any]:
    """Return the dotted keys whose values differ from those of `reference`, settings of the same class."""
    usual = flat(reference)
    return {key: value for key, value in flat(settings).items() if key not in usual or usual[key] != value}


def describe(settings: Any) -> str:
    """Return all settings as lines "key=value", as `override` takes them."""
    return "\n".join(f"{key}={_as_text(value)}" for key, value in flat(settings).items())


def _entries(holder: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, or the entries of a mapping."""
    if isinstance(holder, Mapping):
        return dict(holder)
    return {field.name: getattr(holder, field.name) for field in dataclasses.fields(holder)}


def _as_text(value: Any) -> str:
    """Return a value as it is written after `key=`."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind_name(kind: Any) -> str:
    """Return a type in words."""
    arguments = [argument for argument in typing.get_args(kind) if argument is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return f"{_kind_name(arguments[0])}, or none"
    if typing.get_origin(kind) is tuple:
        return f"{_several(kind)}, with commas between them"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(kind, str(kind).replace("typing.", ""))


def _several(kind: Any) -> str:
    """Return the values of a tuple in words, as in "4 numbers" or "groups of 2 numbers"."""
    first, *others = typing.get_args(kind)
    is_nested = typing.get_origin(first) is tuple
    values = f"groups of {_several(first)}" if is_nested else f"{_kind_name(first).removeprefix('a ')}s"
    return values if ... in others else f"{1 + len(others)} {values}"
