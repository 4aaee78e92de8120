"""The errors that users meet: one base class, and one class for each kind of thing that can be wrong."""

from __future__ import annotations


class EbmtrackError(Exception):
    """Base of all errors raised on purpose; the message says what is wrong, where, and what to do."""


class DatasetError(EbmtrackError):
    """A data set, sequence, video or frame on disk is missing, unreadable or malformed."""


class ResultError(EbmtrackError):
    """A tracker's result (file or array) is missing, malformed or does not fit its sequence."""


class CheckpointError(EbmtrackError):
    """A weights file is hostile, truncated, of an unknown kind, or does not fit the network."""


class ConfigError(EbmtrackError, ValueError):
    """A setting, argument, path or input value given by the user cannot be used."""


def missing_extra(package: str, extra: str, why: str) -> ConfigError:
    """Return the error for an optional package that is not installed, naming the extra that brings it."""
    return ConfigError(f"{why} needs the package {package!r}, which is not installed: pip install 'ebmtrack[{extra}]'")
