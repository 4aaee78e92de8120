"""The work behind `ebmtrack train`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from pathlib import Path

import torch

from ebmtrack.errors import ConfigError
from ebmtrack.nets.checkpoint import save_checkpoint
from ebmtrack.training.run import RunSettings


def list_runs() -> list[str]:
    """Names of the training runs in ltr_settings."""
    import ebmtrack.ltr_settings as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def train_named(name: str, settings: RunSettings) -> Path:
    """Run ltr_settings/<name>.py and write its network beside its checkpoint; returns the file's path."""
    if name not in list_runs():
        near = difflib.get_close_matches(name, list_runs(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown training run {name!r}, known are {', '.join(list_runs())}{hint}")
    if settings.steps < 1 or settings.batch < 1 or settings.workers < 0:
        raise ConfigError("steps and batch must be at least 1, and workers at least 0")
    if not Path(settings.data).is_dir():
        raise ConfigError(f"no training data at {settings.data}: give its folder with --data")
    net = importlib.import_module(f"ebmtrack.ltr_settings.{name}").run(settings)
    path = settings.out / f"{name}.safetensors"
    values = dataclasses.asdict(settings).items()
    facts = {key: str(value) if isinstance(value, Path) else value for key, value in values}
    save_checkpoint(path, net.cpu(), run={"name": name, **facts}, dtype=torch.float16)
    return path
