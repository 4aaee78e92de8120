"""The look at the first frame's size, on an engine that follows a script.

The box (36 x 64) is such that a pixel of the first search region is one of the image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.size_check import HIGHER_ENERGY, HIGHER_SCORE, LEAST_ENERGY, NEAR, OTHER_SIZE
from ebmtrack.tracking.step import track_frame
from tests.support.scripted_engine import BOX, IMAGE, PARAMS, ScriptedEngine, scores


class Script(ScriptedEngine):
    """The script, with energies that are higher where the score is: 1.1 for a score that is higher by 0.11."""

    def __init__(self, constant: float = 0.0):
        super().__init__()
        self.constant = constant

    def energies(self, region: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return a constant, the boxes' widths in whole pixels (regions are cut to those), and ten times the score."""
        return super().energies(region, boxes_xyxy).round() + 10 * region.max() + self.constant


CHECKED = PARAMS.replace(size_check=1)
FAR = scores((9, 12, 0.9))
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
    """Of 100 x 40 to the first frame's area; a cell down and two to the right are 16 and 32 pixels."""
    engine = Script()
    state = target(engine, 1.0)
    state = state.move(state.position_yx, np.array([40.0, 100.0]))
    ((after, result),) = frame(engine, state, maps=[HERE, scores((10, 11, 0.9))])
    assert after.size_hw.prod() == pytest.approx(36 * 64)
    assert after.size_hw[1] / after.size_hw[0] == pytest.approx(2.5)
    assert after.position_yx - state.position_yx == pytest.approx([16, 32], abs=1)
    assert result.box_xywh[2:] == pytest.approx(after.size_hw[::-1])


@pytest.mark.parametrize("other, ratio, score", [(HIGHER, 1, 0.61), (AS_HIGH, 2, 0.5)])
def test_the_frame_is_learned_with_its_box(other, ratio, score):
    """With what the second look saw, or the first one did; the filter is updated if that is due."""
    engine = Script()
    ((state, result),) = frame(engine, target(engine, 2, CHECKED.replace(update_every=1)), maps=[HERE, other])
    ((seen, box_xyxy),) = engine.stored.values()
    assert state.scale == pytest.approx(ratio) and result.verdict == "normal" and len(engine.learned) == 1
    assert seen.max() == pytest.approx(score) and box_xyxy[2:] - box_xyxy[:2] == pytest.approx([36, 64], abs=0.5)


@pytest.mark.parametrize(
    "other",
    [AS_HIGH, scores(), scores((9, 9, 0.2)), scores((9, 9, 0.5)), scores((9, 9, 0.9), (2, 2, 0.6)), FAR],
    ids=["high", "none", "weak", "same", "rival", "far"],
)
def test_anything_but_a_single_peak_that_is_clearly_higher_changes_nothing(other):
    """A second peak of more than half of the first one is a rival; three cells are 48 pixels, and half a width 27."""
    engine = Script()
    ((state, result),) = frame(engine, target(engine, 1.5), maps=[HERE, other])
    assert result.box_xywh[2:] == pytest.approx((54, 96)) and result.verdict == "normal"
    assert state.scale == pytest.approx(1.5) and 0.59 < 0.5 + HIGHER_SCORE < 0.61


@pytest.mark.parametrize("width, size", [(36, 64 * 36), (37, 64 * 37), (35, 54 * 96)])
def test_the_box_of_the_second_climb_is_taken_if_it_has_more_energy(width, size):
    """In the second climb boxes become so wide; in the first one they stay as they are. Energies rise by 1.1 or 0.1."""
    engine = Script()
    engine.arrive = lambda boxes: (
        np.full_like(boxes, np.inf) if len(engine.climbed) == 1 else boxes * [1, 1, 0, 0] + [0, 0, width, 64]
    )
    ((state, _),) = frame(engine, target(engine, 1.5), maps=[HERE, HIGHER])
    assert state.size_hw.prod() == pytest.approx(size, rel=1e-5) and HIGHER_ENERGY == 1


@pytest.mark.parametrize("least, width", [(-42.0, 36), (-42.2, 54)])
def test_the_energy_is_positive_then(least, width):
    """Of 36 pixels at a score of 0.61 it is 42.1 more than the script's zero."""
    engine = Script(least)
    ((_, result),) = frame(engine, target(engine, 1.5), maps=[HERE, HIGHER])
    assert result.box_xywh[2] == pytest.approx(width) and LEAST_ENERGY == 0


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


def test_how_far_the_target_may_be():
    """Half of the larger of both boxes: of a box of 54 x 96 in a region of the first size 27 across and 48 down."""
    for y, x, size in ((9, 10, 36), (9, 8, 36), (12, 9, 36), (13, 9, 54), (9, 11, 54), (6, 9, 36)):
        ((_, result),) = frame(engine := Script(), target(engine, 1.5), maps=[HERE, scores((y, x, 0.9))])
        assert result.box_xywh[2] == pytest.approx(size), (y, x)
    ((_, result),) = frame(engine := Script(), target(engine, 0.5), maps=[HERE, scores((11, 10, 0.9))])
    assert result.box_xywh[2] == pytest.approx(36) and NEAR == 0.5  # 32 of 64 down, 16 of 36 across


def test_the_box_stays_inside_the_image():
    """The peak is 16 pixels beyond what 400 pixels of height leave for a fifth of the target."""
    engine = Script()
    state = target(engine, 1.5)
    state = state.move(np.array([415.0, 110.0]), state.size_hw)
    ((after, _),) = frame(engine, state, maps=[HERE, scores((11, 9, 0.9))])
    assert after.size_hw[0] == pytest.approx(64) and after.position_yx[0] == pytest.approx(400 + 0.3 * 64)


def test_each_target_is_looked_at_in_its_own_image():
    """The first one, as large as at first, has a wide box with more energy; the second one is at its image's edge."""
    engine = Script()
    states = [target(engine, ratio) for ratio in (1, 2, 2)]
    states[0] = states[0].move(states[0].position_yx, np.array([32.0, 72.0]))
    states[1] = states[1].move(np.array([100.0, 245.0]), states[1].size_hw)
    engine.show(HERE, HERE, HERE, scores((9, 11, 0.9)), AS_HIGH)
    images = [np.full((400, 400 - 150 * k, 3), 50 * k, np.uint8) for k in range(3)]
    answers = track_frame(engine, states, images, 0)
    assert [int(look.patch.max()) for look in engine.looks] == [0, 50, 100, 50, 100]
    assert [result.box_xywh[2] for _, result in answers] == pytest.approx([72, 36, 72])
    assert answers[1][0].position_yx[1] == pytest.approx(250 + 0.3 * 36)


def test_only_some_frames_have_a_look():
    """With size_check=3 the frames 4 and 7 of a target, 3, 6 and 9 of one whose whole looks are a frame later."""
    engine = Script()
    params = PARAMS.replace(size_check=3)
    states, seen = [target(engine, 2, params, phase) for phase in (0, 1)], []
    for number in range(2, 10):
        maps = [HERE, HERE] + [AS_HIGH] * (number % 3 != 2)
        states = [state for state, _ in frame(engine, *states, maps=maps)]
        seen += [number] * (len(engine.looks) == 3)
    assert seen == [3, 4, 6, 7, 9]


def test_whole_looks_alone_are_compared():
    """Scores of an inner look are estimates: such frames have no check; four of five are inner looks here."""
    engine = Script()
    state, seen = dataclasses.replace(target(engine, 1.2), is_calm=True), []
    for number in range(2, 13):
        engine.show(HERE, *[AS_HIGH] * (number % 5 == 1))
        ((state, _),) = track_frame(engine, [state], [IMAGE], 4)
        assert not engine.shown
        seen += [number] * (not engine.inner[0])
    assert seen == [6, 11]


@pytest.mark.parametrize("other", [AS_HIGH, HIGHER])
def test_the_targets_random_numbers_are_left_alone(other):
    plain, checked = Script(), Script()
    ((without, _),) = frame(plain, target(plain, 2, PARAMS), maps=[HERE])
    ((state, _),) = frame(checked, target(checked, 2), maps=[HERE, other])
    assert state.random.uniform(5).tolist() == without.random.uniform(5).tolist()
    if other is HIGHER:  # and the candidates of a second climb are others than those of the first one
        first, second = (boxes[0] / boxes[0, :1, 2:].repeat(2, axis=1) for boxes in checked.climbed)
        assert not np.allclose(first, second)


def test_intervals_are_those_of_the_box_that_was_taken():
    """A set-up in which sides are as unsure as exp of the score says."""
    params = CHECKED.replace(interval_samples=32, interval_scale=(0.0, 0.0, 0.0, 1.0))
    scales = []
    for maps in ([HERE, HIGHER], [HERE, AS_HIGH]):
        ((_, result),) = frame(engine := Script(), target(engine, 2, params), maps=maps)
        scales.append(result.density.scale_xyxy / np.tile(result.box_xywh[2:], 2))
    assert np.allclose(scales, np.exp([[0.61] * 4, [0.5] * 4]))


def test_without_the_parameter_nothing_is_looked_at():
    engine = Script()
    frame(engine, target(engine, 3, PARAMS), maps=[HERE])
    assert len(engine.looks) == 1 and PARAMS.size_check == 0
