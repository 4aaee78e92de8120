"""The options of `ebmtrack pack` that say what a pack keeps, light to import: the command line is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ebmtrack.errors import ConfigError


@dataclass(frozen=True)
class PackSettings:
    """The part of its source that a pack keeps.

    Attributes:
        context: Side of a crop in target sizes sqrt(w h); the picture's end cuts it.
        output: Side of a crop in pixels at most; larger ones are scaled down, smaller ones keep their pixels.
        quality: JPEG quality, 1 to 100.
        png: Store PNG instead: no loss, several times as large.
        every: Keep every N-th visible frame.
        most_frames: Keep at most N of these frames of a target, evenly spread; 0 keeps all.
        targets: Keep the first N targets only.
        shard_frames: Close a file with the target that fills it with N crops. Not on the command line.
        skip_damaged: Leave out what cannot be read, and name it in pack.json, instead of stopping there.
    """

    context: float = 10.0
    output: int = 576
    quality: int = 90
    png: bool = False
    every: int = 1
    most_frames: int = 0
    targets: int | None = None
    shard_frames: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 5000
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.context <= 100 or not 16 <= self.output <= 4096 or not 1 <= self.quality <= 100:
            raise ConfigError("a pack needs a context of 1 to 100, an output of 16 to 4096 and a quality of 1 to 100")
        if self.every < 1 or self.shard_frames < 1 or (self.targets is not None and self.targets < 1):
            raise ConfigError("a pack needs every, targets and shard_frames of at least 1")
        if self.most_frames < 0:
            raise ConfigError(f"a pack needs most_frames of at least 0, got {self.most_frames}")
