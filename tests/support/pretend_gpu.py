"""A pretended GPU: tensors that say they are elsewhere and compute on the CPU, to find tensors on the wrong device.

Within `PretendedGpu` whatever is made on or sent to the device "pretend" is a `GpuTensor`. As with a real GPU, an
operation on tensors of both devices is an error (single numbers and index tensors apart), and values come back through
`.cpu()` or `.item()` alone. It cannot show what kernels do: speed, memory, rounding, autocast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")  # torch 2.10 and later
aten = torch.ops.aten
WRITING = {aten.index_put_.default, aten.index_put.default}
INDEXING = {aten.index.Tensor, *WRITING}  # GPU tensors take indices that are on the CPU


def set_up() -> None:
    """Make "pretend" known to PyTorch; for the rest of the process."""
    module: Any = backend_registration._DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    backend_registration._setup_privateuseone_for_python_backend("pretend", module)


class GpuTensor(torch.Tensor):
    """Says it is on pretend:0; `held` on the CPU has its values."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("pretend:0"),
        )

    def __init__(self, held: torch.Tensor):
        self.held = held

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch leaves it untyped
        return f"GpuTensor({self.held!r})"

    def __reduce_ex__(self, protocol):
        """Saved as what it holds: checkpoints are read back on the CPU."""
        return self.held.__reduce_ex__(protocol)

    def tolist(self) -> list:
        """What PyTorch refuses to subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on a GpuTensor outside of PretendedGpu")


class PretendedGpu(TorchDispatchMode):
    """`with PretendedGpu() as gpu:` there is one; gpu.calls is the number of operations that it did."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __enter__(self):
        self.lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) copies instead of allocating there
        return super().__enter__()

    def __exit__(self, *exception):
        torch._C._set_only_lift_cpu_tensors(self.lifted)
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs))
        on_gpu = [x for x in leaves if isinstance(x, GpuTensor)]
        devices = [x for x in leaves if isinstance(x, torch.device)]
        if on_gpu and not devices and func is not aten.copy_.default:
            _check(func, args, kwargs)
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs or {}))
        if func is aten.copy_.default:
            return args[0]
        if devices[0].type != "pretend" if devices else not on_gpu:
            return result
        self.calls += 1
        known = {id(x.held): x for x in on_gpu}  # what an operation changed in place stays the same tensor
        return tree_map(lambda x: _on_gpu(x, known) if isinstance(x, torch.Tensor) else x, result)


def _check(func, args: tuple, kwargs: dict | None) -> None:
    """The error that a GPU would raise."""
    checked = (args[0], *args[2:]) if func in INDEXING else (args, kwargs)
    tensors = [x for x in tree_leaves(checked) if isinstance(x, torch.Tensor)]
    stray = [x for x in tensors if not isinstance(x, GpuTensor) and (x.dim() > 0 or x is args[0])]
    if stray and (len(stray) < len(tensors) or func in INDEXING):
        shapes = [tuple(x.shape) for x in stray]
        raise RuntimeError(f"{func}: expected all tensors on the same device, those of shapes {shapes} are on the CPU")


def _held(x):
    """The same on the CPU."""
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.held if isinstance(x, GpuTensor) else x


def _on_gpu(held: torch.Tensor, known: dict) -> GpuTensor:
    found = known.get(id(held))
    with torch.inference_mode(False):
        return GpuTensor(held) if found is None else found
