"""Modules that have the shapes and types of their parameters without the values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWING = (Tensor.normal_, Tensor.uniform_)


class _DrawNothing(TorchFunctionMode):
    """Leave out what draws initial values: functions of torch.nn.init, and what modules call themselves."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWING or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Make modules whose parameters are on the device "meta".

    Drawing their initial values there as well would load PyTorch's compiler, which takes as long as PyTorch itself. So
    would arithmetic there: what a module computes for its initial values, it computes on the CPU.
    """
    with torch.device("meta"), _DrawNothing():
        yield
