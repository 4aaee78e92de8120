"""The look at the first frame's size, on an engine that follows a script.

The box (36 x 64) is such that a pixel of the first search region is one of the image. The script's energies are the
widths of boxes in the search region, 36 for a target that keeps its shape.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.size_check import HIGHER_SCORE, OTHER_SIZE
from ebmtrack.tracking.step import track_frame
from tests.support.scripted_engine import ScriptedEngine, scores
from tests.unit.tracking.test_step import BOX, IMAGE, PARAMS


class Script(ScriptedEngine):
    """The script, with energies that are the same for the same widths in regions of other scales."""

    def energies(self, region: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the boxes' widths in whole pixels (regions are cut to those of the image)."""
        return super().energies(region, boxes_xyxy).round()


CHECKED = PARAMS.replace(size_check=1)
HERE, HIGHER, AS_HIGH = (scores((9, 9, score)) for score in (0.5, 0.61, 0.59))


def target(engine: Script, ratio: float, params=CHECKED, phase: int = 0):
    """Return a target that has grown by a ratio since the first frame."""
    state = start_target(engine, params, IMAGE, BOX, seed=0, phase=phase)
    return state.move(state.position_yx, state.size_hw * ratio)


def frame(engine: Script, *states, maps):
    """Return states and results after a frame with these score maps; all of them are looked at."""
    engine.show(*maps)
    answers = track_frame(engine, list(states), [IMAGE] * len(states), 0)
    assert not engine.shown
    return answers


@pytest.mark.parametrize("ratio", [2.0, 1.16, 0.84, 0.5])
def test_a_target_is_as_large_as_at_first_where_that_has_a_clearly_higher_score(ratio):
    engine = Script()
    ((state, result),) = frame(engine, target(engine, ratio), maps=[HERE, HIGHER])
    assert result.box_xywh[2:] == pytest.approx((36, 64)) and state.scale == pytest.approx(1)
    assert result.score == pytest.approx(0.61) and result.search_xywh[2] == pytest.approx(288, abs=1)
    ((_, after),) = frame(engine, state, maps=[HERE])
    assert after.search_xywh[2] == pytest.approx(288, abs=1)


def test_the_box_keeps_its_aspect_ratio_and_goes_to_the_peak_of_the_second_look():
    """Of 100 x 40 to the first frame's area; a cell down and two to the left are 16 and -32 pixels."""
    engine = Script()
    state = target(engine, 1.0)
    state = state.move(state.position_yx, np.array([40.0, 100.0]))
    ((after, result),) = frame(engine, state, maps=[HERE, scores((10, 7, 0.9))])
    assert after.size_hw.prod() == pytest.approx(36 * 64)
    assert after.size_hw[1] / after.size_hw[0] == pytest.approx(2.5)
    assert after.position_yx - state.position_yx == pytest.approx([16.5, -31.5], abs=1)
    assert result.box_xywh[2:] == pytest.approx(after.size_hw[::-1])


def test_the_frame_is_not_learned():
    engine = Script()
    params = CHECKED.replace(update_every=1)
    ((_, result),) = frame(engine, target(engine, 2, params), maps=[HERE, HIGHER])
    assert result.verdict == "uncertain" and result.found
    assert not engine.stored and not engine.learned[1:]
    frame(engine, target(engine, 2, params), maps=[HERE, AS_HIGH])
    assert len(engine.stored) == 1


@pytest.mark.parametrize(
    "other", [AS_HIGH, scores(), scores((9, 9, 0.2)), scores((9, 9, 0.5))], ids=["high", "none", "weak", "same"]
)
def test_a_score_that_is_not_clearly_higher_changes_nothing(other):
    engine = Script()
    ((state, result),) = frame(engine, target(engine, 1.5), maps=[HERE, other])
    assert result.box_xywh[2:] == pytest.approx((54, 96)) and result.verdict == "normal"
    assert state.scale == pytest.approx(1.5) and 0.59 < 0.5 + HIGHER_SCORE < 0.61


@pytest.mark.parametrize("width, size", [(36, 64 * 36), (37, 64 * 37), (35, 54 * 96)])
def test_a_box_with_less_energy_changes_nothing(width, size):
    """In the second climb boxes become so wide; in the first one they stay as they are."""
    engine = Script()
    engine.arrive = lambda boxes: (
        np.full_like(boxes, np.inf) if len(engine.climbed) == 1 else boxes * [1, 1, 0, 0] + [0, 0, width, 64]
    )
    ((state, _),) = frame(engine, target(engine, 1.5), maps=[HERE, HIGHER])
    assert state.size_hw.prod() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 1.14, 0.88])
def test_about_the_same_size_is_not_looked_at(ratio):
    engine = Script()
    frame(engine, target(engine, ratio), maps=[HERE])
    assert len(engine.looks) == 1 and OTHER_SIZE == 1.15


def test_a_target_in_doubt_or_not_found_is_not_looked_at():
    """One in doubt is looked at where it was before; one that is not found has no box to compare."""
    engine = Script()
    grown = target(engine, 2, CHECKED.replace(doubtful_frames=9))
    frame(engine, dataclasses.replace(grown, doubt=5), maps=[HERE, scores()])
    frame(engine, grown, maps=[scores()])


def test_targets_take_turns_and_only_some_frames_have_a_look():
    """With size_check=3 the frames 3, 6 and 9 of the first target, 2, 5 and 8 of the second one."""
    engine = Script()
    params = PARAMS.replace(size_check=3)
    states, seen = [target(engine, 2, params, phase) for phase in (0, 1)], []
    for number in range(2, 10):
        maps = [HERE, HERE] + [AS_HIGH] * (number % 3 != 1)
        states = [state for state, _ in frame(engine, *states, maps=maps)]
        seen.append((number, len(engine.looks)))
    assert seen == [(2, 3), (3, 3), (4, 2), (5, 3), (6, 3), (7, 2), (8, 3), (9, 3)]
    grown = [target(engine, 2, params, 1), target(engine, 2, params)]
    (first, second) = frame(engine, *grown, maps=[HERE, HERE, HIGHER])
    assert (first[1].box_xywh[2], second[1].box_xywh[2]) == pytest.approx((36, 72))


def test_without_the_parameter_nothing_is_looked_at():
    engine = Script()
    frame(engine, target(engine, 3, PARAMS), maps=[HERE])
    assert len(engine.looks) == 1 and PARAMS.size_check == 0
