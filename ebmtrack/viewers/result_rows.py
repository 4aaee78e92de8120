"""The rows of results, a target in a frame each, and what is known of their origin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ebmtrack.errors import ConfigError
from ebmtrack.videos.labels import LOST, NO_CATEGORY

COLUMNS = ("frame", "id", "x", "y", "w", "h", "score", "verdict")
SIDES = ("left", "top", "right", "bottom")
INTERVAL_COLUMNS = (*(f"{side}_{end}" for side in SIDES for end in ("low", "high")), "lost_probability")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class FrameResult:
    """The place of one target in one frame.

    Attributes:
        frame: Number of the frame, from 0.
        id: Number of the target, from 1.
        box_xywh: Its box in pixels; if it is lost, a guess or the last one known.
        score: Confidence; None in the frame in which tracking starts and for frames that cannot be read.
        verdict: "start", "normal", "uncertain", "hard_negative", "not_found" or "unreadable".
        density: How sure the tracker is of each side, with a method `interval`; None if it does not say.
        lost_probability: That the target is lost; None if the tracker does not say.
        info: The origin of the row, which `ebmtrack.track` gives for files of results; None if it is not known.
    """

    frame: int
    id: int
    box_xywh: Box
    score: float | None = None
    verdict: str = "start"
    density: Any = field(default=None, repr=False, compare=False)
    lost_probability: float | None = field(default=None, compare=False)
    info: ResultInfo | None = field(default=None, repr=False, compare=False)

    @property
    def found(self) -> bool:
        """Return whether the target was seen in this frame."""
        return self.verdict not in LOST

    @classmethod
    def of_answer(cls, frame: int, id: int, answer: Any) -> FrameResult:
        """Return what a tracker answered for a target in a frame; a tracker may do without verdicts."""
        verdict = getattr(answer, "verdict", "normal" if answer.found else "not_found")
        x, y, w, h = (float(value) for value in answer.box_xywh)
        unsure = getattr(answer, "density", None), getattr(answer, "lost_probability", None)
        return cls(frame, id, (x, y, w, h), float(answer.score), verdict, *unsure)

    def as_unreadable(self, frame: int) -> FrameResult:
        """Return the same target with the same box in a frame that cannot be read."""
        return FrameResult(frame, self.id, self.box_xywh, None, "unreadable")

    @property
    def known_score(self) -> float | None:
        """The score as files hold it: JSON knows no NaN."""
        return None if self.score is None or not math.isfinite(self.score) else float(self.score)

    def to_dict(self, interval: float | None = None) -> dict[str, Any]:
        """Return the row as plain numbers and texts, by the names in COLUMNS.

        Args:
            interval: A probability adds INTERVAL_COLUMNS: for each side the ends of the interval that holds the true
                side with this probability (None if there is none), and the probability that the target is lost.
        """
        numbers = [round(float(value), 3) for value in self.box_xywh]
        score = None if self.known_score is None else round(self.known_score, 4)
        row = dict(zip(COLUMNS, (self.frame, self.id, *numbers, score, self.verdict)))
        if interval is None:
            return row
        ends = [None] * 8 if self.density is None else self.density.interval(interval).round(3).reshape(-1).tolist()
        lost = None if self.lost_probability is None else round(self.lost_probability, 4)
        return row | dict(zip(INTERVAL_COLUMNS, (*ends, lost)))


@dataclass(frozen=True)
class ResultInfo:
    """The origin of results, as a file of them names it; None or nothing is what is not known.

    Attributes:
        source: Name of the video or folder.
        fps: Frames per second.
        size_wh: Width and height of a frame in pixels.
        network: Name of the weights.
        seed: Seed of the tracker.
        interval: Probability of the intervals that CSV and JSON hold; None for files without them.
        extra: More facts for JSON.
        category: What the targets are, such as "person", for COCO, CVAT and YOLO; or for each target that by its id.

    Raises:
        ConfigError: If a category is no word that can be printed.
    """

    source: str = ""
    fps: float | None = None
    size_wh: tuple[int, int] = (0, 0)
    network: str = ""
    seed: int | None = None
    interval: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    category: str | Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        several = self.category.values() if isinstance(self.category, Mapping) else [self.category]
        for name in several if self.category is not None else ():
            if not isinstance(name, str) or not name.isprintable() or not name.strip():
                raise ConfigError(f"a category is a name that can be printed, such as person, not {name!r}")

    def category_of(self, id: int) -> str:
        """Return what a target is, "target" if nobody said it."""
        name = self.category.get(id) if isinstance(self.category, Mapping) else self.category
        return name or NO_CATEGORY
