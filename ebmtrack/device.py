"""The device that computes, by name. torch is imported only if this machine may have a GPU that is asked for."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

from ebmtrack.errors import ConfigError

KNOWN = "auto, cpu, mps, cuda or cuda:N"
FORM = re.compile(r"cpu|mps|cuda(:\d+)?")


def pick_device(device: str = "auto") -> str:
    """Return the name of a device that this machine has.

    Args:
        device: "cpu", "mps", "cuda", "cuda:1", or "auto": a CUDA GPU if there is one, else the CPU.

    Returns:
        "cpu", "mps", "cuda" or "cuda:N", as torch.device takes it.

    Raises:
        ConfigError: If this is no device, or none of this machine.
    """
    if device == "auto":
        device = "cuda" if count_gpus() else "cpu"
    match = re.fullmatch(r"(cpu|mps|cuda)(?::(\d+))?", str(device))
    if device == "openvino":
        raise ConfigError(f"openvino runs nothing but trackers of exported networks: use {KNOWN}")
    if match is None:
        raise _unknown(str(device), f"{KNOWN}, or, for exported networks, openvino")
    if int(match[2] or 0) >= _count(match[1]):
        raise _absent(device)
    return str(device)


def pick_devices(devices: str = "auto") -> tuple[str, ...]:
    """Return the devices for the workers of an evaluation.

    Args:
        devices: "cpu", "openvino", "cuda" (all GPUs), "cuda:0,cuda:2", or "auto" (all GPUs if there are any,
            else the CPU). Under torchrun "cuda" and "auto" mean the GPU of this process alone (LOCAL_RANK).

    Raises:
        ConfigError: If "cuda" is asked for without a GPU, for anything that is no device, and for "openvino" beside
            other devices, whose results would be taken for its own.
    """
    if devices in ("auto", "cuda"):
        count = count_gpus()
        if devices == "cuda" and not count:
            raise _absent("cuda")
        if count and "LOCAL_RANK" in os.environ:
            return (f"cuda:{int(os.environ['LOCAL_RANK']) % count}",)
        return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)
    names = tuple(part.strip() for part in devices.split(","))
    for name in names:
        if name != "openvino" and not FORM.fullmatch(name):
            raise _unknown(name, "auto, cpu, openvino, mps, cuda or cuda:0,cuda:1")
    if "openvino" in names and set(names) != {"openvino"}:
        raise ConfigError(f"devices {devices!r}: results of openvino are not mixed with others; name it alone")
    return names


def _unknown(device: str, known: str) -> ConfigError:
    """Return the error for what is no device; it suggests the one that was meant, if that can be seen."""
    meant = re.sub(r"^gpu\b", "cuda", device.strip().lower())
    hint = f" (did you mean {meant!r}?)" if FORM.fullmatch(meant) else ""
    return ConfigError(f"unknown device {device!r}{hint}: use {known}")


def _absent(device: str) -> ConfigError:
    """Return the error for a device that this machine lacks."""
    return ConfigError(f"this machine has no device {device!r} that PyTorch sees; --device cpu always works")


def is_cpu(device: str) -> bool:
    """Return whether a device, by name, is this machine's CPU, whichever library computes there."""
    return device in ("cpu", "openvino")


def count_cores() -> int:
    """Return the number of cores that this process may use, which are fewer than the machine's on a cluster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus() -> int:
    """Return the number of CUDA GPUs that PyTorch sees, 0 without PyTorch."""
    return _count("cuda")


def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16, AMX or Arm's BF16), as Linux names it."""
    return not _cpu_features().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


@cache
def saturates_int8() -> bool:
    """Return whether sums of 8-bit products may saturate on this CPU: x86, and Linux does not say that it has VNNI."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "x86")
    return is_x86 and not any("vnni" in name for name in _cpu_features())


def _cpu_features() -> set[str]:
    """Return the CPU's instruction sets as Linux names them; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}


def _count(kind: str) -> int:
    """Return how many devices of a kind this machine has."""
    if kind == "cpu":
        return 1
    if "torch" not in sys.modules and not (importlib.util.find_spec("torch") and _may_have(kind)):
        return 0
    import torch

    return torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())


def _may_have(kind: str) -> bool:
    """Return whether this machine has the driver that PyTorch needs for a kind of GPU; importing that takes seconds."""
    if kind == "mps":
        return sys.platform == "darwin"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()  # AMD's
    return True
