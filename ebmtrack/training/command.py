"""Training files by name or path: their settings, and the run that writes a weights file."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch

from ebmtrack.checkpoints.native import save_checkpoint
from ebmtrack.device import pick_device
from ebmtrack.errors import ConfigError
from ebmtrack.files import as_json
from ebmtrack.names import unknown
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import is_leader
from ebmtrack.training.overrides import differences, override
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings


def list_runs() -> list[str]:
    """Return the names of the training files that come with ebmtrack."""
    import ebmtrack.ltr_settings as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_run(name: str) -> ModuleType:
    """Return a training file as a module.

    Args:
        name: a file in ltr_settings, such as "ebm18_small", or the path of a file, such as "./mine.py".

    Returns:
        A module with a frozen dataclass `Settings`, derived from RunSettings, and a function `plan(settings)`.

    Raises:
        ConfigError: there is no such file, or something is missing in it.
    """
    module = _module_at(Path(name)) if name.endswith(".py") else _shipped_module(name)
    settings, plan = getattr(module, "Settings", None), getattr(module, "plan", None)
    if not (isinstance(settings, type) and issubclass(settings, RunSettings) and callable(plan)):
        raise ConfigError(
            f"{module.__file__}: a training file needs a class Settings(RunSettings) and a function plan(settings) "
            "that returns a Plan; see docs/extending.md"
        )
    return module


def _shipped_module(name: str) -> ModuleType:
    """Return the module ebmtrack.ltr_settings.<name>."""
    if name not in list_runs():
        raise ConfigError(f"{unknown('training run', name, list_runs())}; your own file is given by its path, with .py")
    return importlib.import_module(f"ebmtrack.ltr_settings.{name}")


def _module_at(path: Path) -> ModuleType:
    """Import a file under its stem, from its own folder, so that processes that read data can import it too."""
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"{path}: no such training file; check the path, or give one of {', '.join(list_runs())}")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or "") != path:
        raise ConfigError(f"{path}: a module {path.stem} is loaded already; give the file another name")
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file; give the path of a training file, as in docs/extending.md")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def default_settings(name: str, chosen: Mapping[str, Any] | None = None) -> RunSettings:
    """Return a training file's settings with `chosen` fields; the folder is runs/<name> unless chosen."""
    return load_run(name).Settings(**{"out": Path("runs") / Path(name).stem, **(chosen or {})})


def settings_for(name: str, chosen: Mapping[str, Any] | None = None, changes: Sequence[str] = ()) -> RunSettings:
    """Return the settings of a run.

    Args:
        name: as for `load_run`.
        chosen: fields of the settings with other values.
        changes: texts "key=value", as for `settings.override`.
    """
    return override(default_settings(name, chosen), changes, f"`ebmtrack train {name} --show` lists all")


def train_named(name: str, settings: RunSettings) -> Path:
    """Train by a training file and write the network beside the checkpoint.

    The file's header has all settings, and in run["changes"] those that are not the run's usual ones.

    Args:
        name: as for `load_run`.
        settings: of `settings_for`; of a plain RunSettings, the fields that differ from its defaults are taken.

    Returns:
        The path of the weights file.
    """
    module = load_run(name)
    if not isinstance(settings, module.Settings):
        settings = module.Settings(**differences(settings, RunSettings()))
    plan = module.plan(settings)
    net = train(plan, settings)
    path = settings.out / f"{Path(name).stem}.safetensors"
    if is_leader():
        facts = {field.name: as_json(getattr(settings, field.name)) for field in dataclasses.fields(RunSettings)}
        facts["device"] = pick_device() if settings.device == "auto" else settings.device
        run = {"name": Path(name).stem, **facts, "changes": as_json(differences(settings, module.Settings()))}
        if plan.save is not None:
            plan.save(path, net.cpu(), {**run, "settings": as_json(settings)})
        else:
            save_checkpoint(path, cast(TrackerNet, net.cpu()), run=run, settings=as_json(settings), dtype=torch.float16)
    return path


def check_resume(settings: RunSettings) -> None:
    """Raise a ConfigError unless there is a checkpoint of the run, and it is to be used."""
    path = settings.checkpoint
    if not settings.resume or not path.is_file():
        why = "the run is to start afresh" if path.is_file() else f"there is no {path}"
        raise ConfigError(f"--resume: {why}; leave one of the options out, or give the run's folder with --out")
