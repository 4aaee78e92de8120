"""Track any object in a video by climbing an energy (DiMP-NCE+; Gustafsson et al., ECCV 2020 and BMVC 2020)."""

from __future__ import annotations

from ebmtrack._version import __version__
from ebmtrack.errors import CheckpointError, ConfigError, DatasetError, EbmtrackError, ResultError

TYPE_CHECKING = False  # true for type checkers; typing, os and the like are not loaded by plugins/hook.py's import
if TYPE_CHECKING:
    from typing import Any

    from ebmtrack.tracking.tracker import MultiTracker, Tracker, TrackResult
    from ebmtrack.viewers.follow import track

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EbmtrackError",
    "MultiTracker",
    "ResultError",
    "TrackResult",
    "Tracker",
    "__version__",
    "track",
]


def __getattr__(name: str) -> Any:
    """Load the tracker only when it is asked for, so that `import ebmtrack` stays instant."""
    if name in ("MultiTracker", "Tracker", "TrackResult"):
        share_the_cores()
        from ebmtrack.tracking import tracker

        return getattr(tracker, name)
    if name == "track":
        share_the_cores()
        from ebmtrack.viewers.follow import track

        return track
    raise AttributeError(f"module 'ebmtrack' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all names, those that are not loaded yet as well."""
    return sorted({*globals(), *__all__})


def share_the_cores() -> None:
    """Keep threads that wait for one another from spinning, unless the user has chosen.

    PyTorch reads GOMP_SPINCOUNT when it is loaded. By default its threads spin for milliseconds: beside one other busy
    process on two cores this leaves a twentieth of the speed, with this setting two fifths, and a quiet machine loses
    nothing (docs/results.md). NumPy's BLAS reads OPENBLAS_NUM_THREADS: on two busy cores a frame on ONNX Runtime took
    590 ms of processor time with two of its threads, 83 ms with one; products of ten boxes are too small for two.
    """
    import os
    import sys

    if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "3000"
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
