"""Weights and images that anyone can recompute: numpy's RandomState, seeded by each tensor's own name."""

from __future__ import annotations

import json
import zlib
from functools import cache
from typing import TypeVar

import numpy as np
import torch

from ebmtrack.nets.tracker_net import TrackerNet
from tests.support import DATA

Net = TypeVar("Net", bound=torch.nn.Module)

FEW_VIEWS = {"shift_fracs": (), "blur_sigmas": (), "rotations_deg": ()}  # of the first frame: two instead of thirteen
SCALES = {
    "bias": (0.0, 0.01),
    "bn_weight": (1.0, 0.1),
    "bn_last_weight": (0.2, 0.02),
    "bn_bias": (0.0, 0.1),
    "bn_mean": (0.0, 0.1),
}


def random_state(name: str) -> np.random.RandomState:
    """The generator of one tensor or image, seeded with the checksum of its name."""
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)


def tensor(name: str, shape: tuple[int, ...], kind: str) -> torch.Tensor:
    """One state-dict entry, float32."""
    z = random_state(name).standard_normal(size=shape or (1,))
    if kind == "weight":
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    elif kind == "bn_var":
        z = 1 + 0.1 * np.abs(z)
    else:
        offset, scale = SCALES[kind]
        z = offset + scale * z
    return torch.from_numpy(z.astype(np.float32).reshape(shape))


def image(name: str, height: int, width: int) -> np.ndarray:
    """Smooth coloured blobs, uint8 RGB (height, width, 3)."""
    return _blobs(name, height, width).copy()


@cache
def _blobs(name: str, height: int, width: int) -> np.ndarray:
    rs = random_state(name)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.zeros((height, width, 3))
    for _ in range(24):
        cx, cy, s = rs.uniform(0, width), rs.uniform(0, height), rs.uniform(6, 40)
        colour = rs.uniform(-120, 120, 3)
        out += np.exp(-((xx - cx) ** 2 + (yy - cy) ** 2) / (2 * s * s))[..., None] * colour
    out += 127 + rs.uniform(-12, 12, (height, width, 1))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


@cache
def arrays(name: str) -> dict[str, torch.Tensor]:
    """All arrays of tests/data/golden_<name>.npz as tensors (texts are left out)."""
    with np.load(DATA / f"golden_{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "fi"}


def fill(net: Net, state: dict[str, torch.Tensor] | None = None) -> Net:
    """Give every entry of `net` the value that its name determines (`state` overrides by key); eval mode."""
    values = dict(state or {})
    for key, value in net.state_dict().items():
        if key not in values:
            values[key] = value if key.endswith("num_batches_tracked") else tensor(key, tuple(value.shape), kind(key))
    net.load_state_dict(values)
    return net.eval()


@cache
def kinds() -> dict[str, str]:
    """Kind of each entry of the dimp18 network."""
    return json.loads((DATA / "dimp18_entries.json").read_text())


def kind(key: str) -> str:
    """Kind of an entry; one that dimp18 lacks (ResNet-50) is judged by its name."""
    if key in kinds():
        return kinds()[key]
    if key.endswith("bn3.weight"):
        return "bn_last_weight"
    norm = ".bn" in key or ".downsample.1" in key
    endings = {"running_mean": "bn_mean", "running_var": "bn_var"}
    ending = key.rsplit(".", 1)[-1]
    return endings.get(ending, f"bn_{ending}" if norm else ending)


@cache
def dimp18() -> TrackerNet:
    """The network behind golden_dimp18.npz."""
    golden = arrays("dimp18")
    state = {key.removeprefix("state/"): value for key, value in golden.items() if key.startswith("state/")}
    return fill(TrackerNet("dimp18"), state)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
