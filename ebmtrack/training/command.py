"""The work behind `ebmtrack train`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ebmtrack.checkpoints.native import save_checkpoint
from ebmtrack.errors import ConfigError
from ebmtrack.training.distributed import is_leader
from ebmtrack.training.overrides import as_json, differences, override
from ebmtrack.training.run import RunSettings


def list_runs() -> list[str]:
    """Names of the training runs in ltr_settings."""
    import ebmtrack.ltr_settings as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_run(name: str) -> ModuleType:
    """The file ltr_settings/<name>.py, with its class Settings and its function run(settings); ConfigError if none."""
    if name not in list_runs():
        near = difflib.get_close_matches(name, list_runs(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown training run {name!r}, known are {', '.join(list_runs())}{hint}")
    return importlib.import_module(f"ebmtrack.ltr_settings.{name}")


def settings_for(name: str, chosen: Mapping[str, Any] | None = None, changes: Sequence[str] = ()) -> RunSettings:
    """The settings of a run: its own, with `chosen` fields of RunSettings, then with changes "key=value".

    The run's folder is runs/<name> unless chosen.
    """
    own = load_run(name).Settings(**{"out": Path("runs") / name, **(chosen or {})})
    return override(own, changes)


def train_named(name: str, settings: RunSettings) -> Path:
    """Run ltr_settings/<name>.py and write its network beside its checkpoint; returns the file's path.

    settings: of `settings_for`; of a plain RunSettings, what differs from its defaults is taken over. The file's header
    says all settings, and in run["changes"] those that are not the run's usual ones.
    """
    module = load_run(name)
    if not isinstance(settings, module.Settings):
        settings = module.Settings(**differences(settings, RunSettings()))
    if settings.steps < 1 or settings.batch < 1 or settings.workers < 0:
        raise ConfigError("steps and batch must be at least 1, and workers at least 0")
    net = module.run(settings)
    path = settings.out / f"{name}.safetensors"
    if is_leader():
        facts = {field.name: as_json(getattr(settings, field.name)) for field in dataclasses.fields(RunSettings)}
        changes = as_json(differences(settings, module.Settings()))
        run = {"name": name, **facts, "changes": changes}
        save_checkpoint(path, net.cpu(), run=run, settings=as_json(settings), dtype=torch.float16)
    return path


def check_resume(settings: RunSettings) -> None:
    """ConfigError unless there is a checkpoint of the run, and it is to be used."""
    path = settings.out / "checkpoint.pt"
    if not settings.resume or not path.is_file():
        why = "the run is to start afresh" if path.is_file() else f"there is no {path}"
        raise ConfigError(f"--resume: {why}; leave one of the options out, or give the run's folder with --out")
