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


EXTRAS = {  # the extra of setup.cfg that brings a module of another project
    **dict.fromkeys(("torch", "torchvision", "safetensors", "lmdb", "got10k", "six"), "train"),
    "onnx": "export",
    "scipy": "mat",
    "av": "video",
    "tensorboard": "tensorboard",
    "trax": "vot",
    "jpeg4py": "jpeg",
    "pycocotools": "detection",
    "h5py": "regression",
    "visdom": "live",
    "submitit": "cluster",
    "openvino": "openvino",
}


def missing_extra(module: str, why: str) -> ConfigError:
    """Return the error for an optional module that cannot be found, naming the extra that brings it.

    Args:
        module: one of EXTRAS.
        why: the verb or the task that needs it.
    """
    return ConfigError(f"{why} needs {module!r}, which is not installed: pip install 'ebmtrack[{EXTRAS[module]}]'")


def reason_of(error: Exception) -> str:
    """Return in one line why a file of arrays cannot be read, without NumPy's and PyTorch's advice to run it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return "it holds something else than arrays" if "pickle" in text or "weights_only" in text else text[:200]
