"""What a tracker needs of a network, behind one protocol (see base.py)."""

from __future__ import annotations

from pathlib import Path

from ebmtrack.engines.base import Engine

__all__ = ["Engine", "load_engine"]


def load_engine(weights: str | Path | None, device: str = "cpu", precision: str = "auto") -> Engine:
    """Return the engine for a file of weights.

    Args:
        weights: a file, the name of a network that ships, or None for the default one.
        device: "cpu", "cuda", "cuda:1" or "mps".
        precision: "float32", "bfloat16" or "auto".
    """
    from ebmtrack.engines.torch_engine import load_torch_engine

    return load_torch_engine(weights, device, precision)
