"""One tracker over one sequence: the loop that evaluation, validation and studies share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ebmtrack.errors import ResultError
from ebmtrack.tracking.sequence import track_frames

FRAMES = [np.full((4, 4, 3), level, np.uint8) for level in (7, 8, 9)]


class Script:
    """A tracker that gives the answers of a list and remembers its calls."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[Any] = []

    def init(self, image: np.ndarray, box_xywh: tuple, seed: int | None = None) -> None:
        """Remember the start."""
        self.calls.append((int(image[0, 0, 0]), box_xywh, seed))

    def update(self, image: np.ndarray) -> object:
        """Give the next answer."""
        self.calls.append(int(image[0, 0, 0]))
        return self.answers.pop(0)


def test_answers_in_order():
    """The first box is the one given; score and found are taken where the tracker says them."""
    tracker = Script(
        SimpleNamespace(box_xywh=[1, 2, 3, 4], score=0.5, found=False), SimpleNamespace(box_xywh=(2, 2, 3, 4))
    )
    seen = []
    track = track_frames(
        tracker,
        iter(FRAMES),
        np.array([0, 1, 2, 3]),
        seed=5,
        on_frame=lambda n, image, answer: seen.append((n, image[0, 0, 0])),
    )
    assert tracker.calls == [(7, (0.0, 1.0, 2.0, 3.0), 5), 8, 9] and seen == [(1, 8), (2, 9)]
    np.testing.assert_array_equal(track.boxes_xywh, [[0, 1, 2, 3], [1, 2, 3, 4], [2, 2, 3, 4]])
    assert track.scores.tolist() == [1, 0.5, 1] and track.found.tolist() == [True, False, True]
    assert track.times_s.shape == (3,) and (track.times_s >= 0).all() and not track.stages_s


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, 3, float("nan")), (1, 2, -3, 4), None, "abcd"])
def test_an_answer_that_is_no_box_names_the_frame(box: object):
    with pytest.raises(ResultError, match=r"walk, frame 1 \(from 0\): the tracker returned"):
        track_frames(Script(SimpleNamespace(box_xywh=box)), FRAMES, (0, 0, 1, 1), name="walk")


def test_times_by_stage_are_those_of_one_run():
    """Whatever the tracker does later."""

    class Marking(Script):
        """A tracker of one stage."""

        def mark(self, stage: str) -> None:
            """Do nothing: the loop puts a stopwatch here."""

        def update(self, image: np.ndarray) -> object:
            """End the stage and give the next answer."""
            self.mark("all")
            return super().update(image)

    box = (1, 2, 3, 4)
    tracker = Marking(*[SimpleNamespace(box_xywh=box)] * 4)
    timed = track_frames(tracker, FRAMES, box, by_stage=True)
    before = dict(timed.stages_s)
    assert list(before) == ["all"] and not track_frames(tracker, FRAMES, box).stages_s
    assert timed.stages_s == before


def test_no_frames():
    with pytest.raises(ResultError, match="walk: no frame"):
        track_frames(Script(), [], (0, 0, 1, 1), name="walk")
