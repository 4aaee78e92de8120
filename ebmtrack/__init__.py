"""Track any object in a video by climbing an energy (DiMP-NCE+; Gustafsson et al., ECCV 2020 and BMVC 2020)."""

from __future__ import annotations

from ebmtrack._version import __version__
from ebmtrack.errors import CheckpointError, ConfigError, DatasetError, EbmtrackError, ResultError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EbmtrackError",
    "MultiTracker",
    "ResultError",
    "Tracker",
    "TrackResult",
    "__version__",
]


def __getattr__(name: str):
    """Load the tracker only when it is asked for, so that `import ebmtrack` stays instant."""
    if name in ("MultiTracker", "Tracker", "TrackResult"):
        from ebmtrack.tracking import tracker

        return getattr(tracker, name)
    raise AttributeError(f"module 'ebmtrack' has no attribute {name!r}")
