"""Data sets of videos: one reader for each, one registry; read by training and evaluation alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebmtrack.videos.opening import open_dataset as open_dataset
    from ebmtrack.videos.registry import DataSetInfo as DataSetInfo
    from ebmtrack.videos.registry import register as register
    from ebmtrack.videos.sequence import DataSet as DataSet
    from ebmtrack.videos.sequence import Frames as Frames
    from ebmtrack.videos.sequence import Sequence as Sequence
    from ebmtrack.videos.source import Source as Source
    from ebmtrack.videos.source import VideoSource as VideoSource

_PLACES = {
    "DataSet": "sequence",
    "DataSetInfo": "registry",
    "Frames": "sequence",
    "Sequence": "sequence",
    "Source": "source",
    "VideoSource": "source",
    "open_dataset": "opening",
    "register": "registry",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that readers may import one another."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
