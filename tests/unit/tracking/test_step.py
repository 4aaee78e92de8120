"""A frame, stage by stage: an engine that follows a script, numbers worked out by hand.

The box (36 x 64) is such that a pixel of the search region is one of the image: six times the root of its area, 48, is
288. A cell is 16 pixels; scores are 19 x 19, cell (9, 9) in the middle. A region around a whole pixel p has its centre
at p + 0.5.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ebmtrack.data.crops import CropMap
from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.locate import Located, Seen, choose, judge, locate
from ebmtrack.tracking.refine import answer
from ebmtrack.tracking.regions import region_before, regions_around, search_region
from ebmtrack.tracking.state import Proposal, Region, TargetState, View
from ebmtrack.tracking.step import TrackResult, track_frame
from tests.support.scripted_engine import BOX, IMAGE, PARAMS, ScriptedEngine, scores

HERE = scores((9, 9, 0.9))
NOWHERE = scores((9, 9, 0.2))
HARD = scores((9, 9, 0.9), (1, 1, 0.6))
UNCERTAIN = scores((9, 9, 0.9), (9, 14, 0.8))
VERDICTS = {"normal": HERE, "hard_negative": HARD, "uncertain": UNCERTAIN, "not_found": NOWHERE}


class Run:
    """One target on a scripted engine, frame by frame."""

    def __init__(self, box=BOX, picture: np.ndarray = IMAGE, **changes):
        self.engine, self.picture = ScriptedEngine(), picture
        self.params = PARAMS.replace(**changes)
        self.state = start_target(self.engine, self.params, picture, np.asarray(box, float), seed=0)

    def frame(self, *maps: np.ndarray) -> TrackResult:
        """Go on by a frame in which the network sees these score maps."""
        self.engine.show(*maps)
        looks = self.params.inner_looks
        ((self.state, result),) = track_frame(self.engine, [self.state], [self.picture], looks)
        assert not self.engine.shown
        return result


def view(centre_yx=(100.5, 110.5), scale=1.0, maps=HERE, shift=0.0) -> View:
    """Return a view with a score map of a region around a centre."""
    region = Region(IMAGE[:288, :288], CropMap(np.array(centre_yx, float), scale, 288, shift), (0.0, 0.0, 288.0, 288.0))
    return View(region, None, maps)


def answered(state: TargetState, seen: View, box: tuple[float, ...] | None = None) -> TargetState:
    """Return the state after a box was found in a view."""
    average = None if box is None else np.array(box, np.float32)
    return answer(state, Proposal(seen, np.zeros((10, 4), np.float32)), average)


def located(seen: View) -> Located:
    """Return where a target is after a view of its own region."""
    state = Run().state
    return locate(state, Seen(seen, judge(state, seen, 16)), IMAGE.shape, 16)


# Learning.


def test_the_filter_is_improved_every_20_frames():
    """The first frame is number 1: two iterations in frames 21, 41 and 61, none in between."""
    run, seen = Run(), []
    for number in range(2, 63):
        calls = len(run.engine.learned)
        run.frame(HERE)
        seen += [(number, call.iterations) for call in run.engine.learned[calls:]]
    assert seen == [(21, 2), (41, 2), (61, 2)]


def test_every_sure_frame_is_remembered_with_its_features_and_box():
    """The target is seen one cell down and two to the right of the region's middle, 16 and 32 pixels."""
    run, seen = Run(update_every=1), scores((10, 11, 0.9))
    run.frame(seen)
    features, box = run.engine.stored[3]
    assert features is seen and box.dtype == np.float32
    assert box.tolist() == [126 + 32, 112 + 16, 162 + 32, 176 + 16]
    assert len(run.engine.learned) == 1 and len(run.engine.learned[0].weights) == 4


@pytest.mark.parametrize("frame, every", [(2, 20), (21, 20), (2, 1)])
def test_a_hard_negative_is_learned_at_once_and_with_its_own_rate(frame, every):
    """One iteration, in the schedule's frames too. New over first weight: 0.02 over (1/3) / 0.98, not 0.01 / 0.99."""
    run = Run(update_every=every)
    for _ in range(2, frame):
        run.frame(NOWHERE)
    assert run.frame(HARD).verdict == "hard_negative"
    (call,) = run.engine.learned
    assert call.iterations == 1
    assert call.weights[3] / call.weights[:3] == pytest.approx(np.full(3, 3 * 0.02 * 0.98))


def test_a_sure_frame_has_the_usual_rate():
    run = Run(update_every=1)
    run.frame(HERE)
    weights = run.engine.learned[0].weights
    assert weights[3] / weights[:3] == pytest.approx(np.full(3, 3 * 0.01 * 0.99))


def test_numbers_of_iterations_are_those_of_the_set_up():
    run = Run(update_every=3, update_iterations=5, hard_negative_iterations=4, initial_iterations=7)
    for maps in (HERE, HARD, HERE, HERE, HARD, HERE):  # frames 2 to 7, of which 4 and 7 are the schedule's
        run.frame(maps)
    assert run.engine.first[0].iterations == 7
    assert [call.iterations for call in run.engine.learned] == [4, 5, 4, 5]
    silent = Run(hard_negative_iterations=0)
    silent.frame(HARD)
    assert silent.engine.learned == [] and list(silent.engine.stored) == [3]


@pytest.mark.parametrize(
    "verdict, remembered", [("normal", 1), ("hard_negative", 1), ("uncertain", 0), ("not_found", 0)]
)
def test_only_sure_frames_are_learned(verdict, remembered):
    """In a frame of the schedule, too: whatever is not sure leaves memory and filter as they were."""
    run = Run(update_every=1)
    assert run.frame(VERDICTS[verdict]).verdict == verdict
    assert len(run.engine.stored) == len(run.engine.learned) == remembered
    assert run.state.memory.count == 3 + remembered


# Where the target is.


@pytest.mark.parametrize(
    "peak, position",
    [
        ((9, 9), (100.5, 110.5)),
        ((8, 11), (84.5, 142.5)),
        ((0, 9), (-19.2, 110.5)),  # 100.5 - 144 is above -0.3 * 64
        ((17, 9), (160 + 19.2, 110.5)),  # 100.5 + 128 is below 160 + 0.3 * 64
        ((9, 0), (100.5, -10.8)),  # 110.5 - 144 is left of -0.3 * 36
        ((9, 17), (100.5, 200 + 10.8)),  # 110.5 + 128 is right of 200 + 0.3 * 36
        ((0, 0), (-19.2, -10.8)),
    ],
)
def test_the_highest_score_moves_the_target_but_a_fifth_of_it_stays_inside(peak, position):
    """In an image 200 wide and 160 high. The box follows."""
    run = Run(picture=IMAGE[:160, :200])
    result = run.frame(scores((*peak, 0.9)))
    assert run.state.position_yx == pytest.approx(position)
    assert result.box_xywh == pytest.approx((position[1] - 17.5, position[0] - 31.5, 36, 64))


def test_a_displacement_is_in_cells_of_the_region_and_counts_from_its_centre():
    one = located(view((200.0, 150.0), 1.5, scores((7, 10, 0.9))))
    assert one.state.position_yx == pytest.approx((200 - 2 * 24, 150 + 24))


def test_a_target_that_is_not_found_stays():
    run = Run()
    result = run.frame(scores((3, 4, 0.2)))
    assert result.verdict == "not_found" and not result.found and result.box_xywh == tuple(BOX)
    assert run.state.position_yx.tolist() == [100, 110] and run.state.size_hw.tolist() == [64, 36]
    assert run.state.scale == 1 and run.engine.climbed == []


RIVALS = scores((9, 17, 0.9), (9, 1, 0.85))  # 8 cells to the right and to the left of the middle


@pytest.mark.parametrize("x, verdict, cells", [(20, "hard_negative", -8), (380, "hard_negative", 8)])
def test_near_the_border_the_last_position_tells_rivals_apart(x, verdict, cells):
    """The region is moved inside, its centre to x = 143.5 or 255.5: the target was nearly 8 cells off, of which near is
    7.6 (0.8 of half of 19). From the middle both rivals would be far."""
    run = Run(box=(x - 17.5, 168.5, 36, 64), border="inside_major")
    result = run.frame(RIVALS)
    centre = {20: 143.5, 380: 255.5}[x]
    assert run.state.proposals[0].view.region.map.centre_yx.tolist() == [200.5, centre]
    assert result.verdict == verdict
    assert run.state.position_yx == pytest.approx((200.5, centre + 16 * cells))
    expected = np.array([126, 112, 162, 176]) + [16 * cells, 0, 16 * cells, 0]
    assert run.engine.stored[3][1].tolist() == expected.tolist()


def test_in_the_middle_the_same_rivals_leave_doubt():
    run = Run(box=(182.5, 168.5, 36, 64), border="inside_major")
    assert run.frame(RIVALS).verdict == "uncertain"
    assert run.state.position_yx == pytest.approx((200.5, 200.5 + 16 * 8))


def test_the_last_position_is_measured_in_cells_of_the_region():
    """At a scale of 2 a cell is 32 pixels: 256 pixels to the left are 8 cells, where the left rival is. At 16 cells
    both would be far."""
    one = located(view((100.0, 110.0 + 256.0), 2.0, RIVALS))
    assert one.found.verdict == "hard_negative" and one.found.displacement_yx.tolist() == [0, -8]


@pytest.mark.parametrize(
    "side, number, peak, cells", [(32, 3, 2, 1.0), (288, 19, 10, 1.0), (32, 32, 20, 4.5 / 16), (288, 288, 160, 1.03125)]
)
def test_displacements_are_in_cells_of_16_pixels(side, number, peak, cells):
    """A network's own map has a score for each cell, and one more; ATOM's has one for each pixel."""
    maps = np.zeros((number, number), np.float32)
    maps[peak, peak] = 0.9
    region = Region(IMAGE[:side, :side], CropMap(np.array([100.5, 110.5]), 1.0, side), (0.0, 0.0, side, side))
    assert judge(Run().state, View(region, None, maps), 16).displacement_yx.tolist() == [cells, cells]


def test_the_neighbourhood_of_a_peak_has_the_targets_size():
    """2.2 * 36 pixels are 5 cells wide, 2.2 * 64 are 9 high: 3 cells beside the peak is a rival, 3 below it is not."""
    for maps, verdict in (
        (scores((9, 9, 0.9), (9, 12, 0.6)), "hard_negative"),
        (scores((9, 9, 0.9), (12, 9, 0.6)), "normal"),
    ):
        assert located(view(maps=maps)).found.verdict == verdict


# The way back from the search region.


@pytest.mark.parametrize("shift, y, x", [(0.0, 172, 262), (0.5, 173, 263)])
def test_a_box_of_the_region_becomes_the_targets(shift, y, x):
    """50 x 20 around (125, 130), 19 and 14 pixels before the middle (144) of a region at a scale of 2 whose centre is
    (300, 200). pytracking takes 143.5 for the middle: half a pixel of the region, one of the image, too far."""
    state = answered(Run().state, view((200.0, 300.0), 2.0, shift=shift), (100, 120, 50, 20))
    assert state.position_yx.tolist() == [y, x] and state.size_hw.tolist() == [40, 100]
    assert state.box_xywh == (x - 49.5, y - 19.5, 100, 40)


@pytest.mark.parametrize("late", [False, True])
def test_the_set_up_says_whether_the_way_back_is_late(late):
    region = search_region(Run(half_pixel_late=late).state, IMAGE, 0, 16)
    assert region.map.shift == (0.5 if late else 0.0)


def test_the_search_region_follows_the_size():
    """Always six times the root of the area: of 100 x 40 pixels 379.5, of 25 x 16 pixels 120."""
    state = Run().state
    assert search_region(state, IMAGE, 0, 16).window_xywh[2:] == (288, 288)
    for box, side in (((100.0, 120.0, 50.0, 20.0), 379), ((100.0, 120.0, 12.5, 8.0), 120)):
        moved = answered(state, view((200.0, 300.0), 2.0), box)
        assert moved.scale == pytest.approx(6 * np.sqrt(moved.size_hw.prod()) / 288)
        assert search_region(moved, IMAGE, 0, 16).window_xywh[2:] == (side, side)


def test_no_box_keeps_size_and_scale_and_takes_the_position():
    state = answered(dataclasses.replace(Run().state, position_yx=np.array([50.0, 60.0])), view())
    assert state.box_xywh == (60 - 17.5, 50 - 31.5, 36, 64) and state.scale == 1


def test_the_target_is_moved_to_the_box():
    state = answered(Run().state, view((144.0, 144.0)), (12, 20, 31, 43))
    assert state.box_xywh == pytest.approx((12 - 0.5 + 0.5, 20, 31, 43), abs=1)
    assert state.size_hw.tolist() == [43, 31]
    assert state.position_yx.tolist() == [20 + 21.5, 12 + 15.5]


# Looking around for what is lost. The region around (100, 110) has a side of 288: beside it the image has the three
# places (100, 256), (256, 110) and (256, 256).


def lost(**changes) -> Run:
    """Return a target that was not found in the last frame, in which two further places were looked at."""
    run = Run(**{"looks_around": 2, "update_every": 1} | changes)
    run.frame(NOWHERE, *[NOWHERE] * run.params.looks_around)
    return run


def test_frames_without_the_target_are_counted_until_it_is_found():
    run, counts, regions = Run(looks_around=2), [], []
    script = [
        [HERE],
        [NOWHERE] * 3,
        [NOWHERE] * 3,
        [HERE],
        [UNCERTAIN],
        [NOWHERE] * 3,
        [UNCERTAIN],
        [NOWHERE, NOWHERE, HERE],
        [HERE],
    ]
    for maps in script:
        run.frame(*maps)
        counts.append(run.state.lost_frames)
        regions.append(len(run.engine.looks))
    assert counts == [0, 1, 2, 0, 0, 1, 0, 0, 0]
    assert regions == [1, 3, 3, 1, 1, 3, 1, 3, 1]


def test_the_box_follows_a_weak_peak_and_the_target_stays_lost():
    """Two cells to the right. The frame is not learned, the search goes on, and there is no density of the box."""
    run = lost(weak_score=0.1, interval_samples=8)
    run.engine.arrive = lambda boxes: boxes
    weak = scores((9, 11, 0.15))
    result = run.frame(weak, NOWHERE, NOWHERE)
    assert not result.found and result.verdict == "not_found" and result.density is None
    assert run.state.lost_frames == 2 and run.engine.stored == {} and run.engine.learned == []
    assert abs(run.state.position_yx - [100.5, 110.5 + 2 * 16]).max() < 5  # the mean of candidates around it


def test_below_the_weak_score_the_box_stays():
    run = lost(weak_score=0.1)
    before, climbs = run.state, len(run.engine.climbed)
    result = run.frame(scores((9, 11, 0.09)), NOWHERE, NOWHERE)
    assert result.box_xywh == before.box_xywh and run.state.position_yx.tolist() == before.position_yx.tolist()
    assert run.state.proposals == () and len(run.engine.climbed) == climbs


def test_a_peak_of_the_weak_score_itself_is_followed():
    run = lost(weak_score=0.125)
    run.engine.arrive = lambda boxes: boxes
    before = run.state.position_yx.copy()
    run.frame(scores((9, 11, 0.125)), NOWHERE, NOWHERE)
    assert run.state.position_yx[1] > before[1] + 20


def test_weak_peaks_are_followed_for_a_few_frames_only():
    """Then the box goes back to where the target was last found, and waits there."""
    run = Run(looks_around=2, weak_score=0.1, weak_frames=3)
    run.frame(HERE)
    found = run.state
    run.frame(*[NOWHERE] * 3)  # a weak peak of 0.2 in the middle
    weak, places = scores((9, 11, 0.15)), []
    run.engine.arrive = lambda boxes: boxes
    for _ in range(4):
        run.frame(weak, NOWHERE, NOWHERE)
        places.append(run.state.position_yx.copy())
    assert places[0][1] > found.position_yx[1] + 20 and places[1][1] > places[0][1] + 20  # the second and third frame
    assert places[2].tolist() == places[3].tolist() == found.position_yx.tolist()
    assert run.state.size_hw.tolist() == found.size_hw.tolist() and run.state.box_xywh == found.box_xywh
    assert run.state.lost_frames == 5 and run.state.scale == found.scale
    run.frame(HERE)
    assert run.state.lost_frames == 0 and run.state.found_yx.tolist() == run.state.position_yx.tolist()


def test_without_a_weak_score_a_lost_box_stays_to_the_bit():
    run = Run(looks_around=0, weak_score=0.0, weak_frames=1)
    box = run.state.box_xywh
    for _ in range(4):
        assert run.frame(NOWHERE).box_xywh is box


def test_without_looking_around_one_region_is_seen():
    run = lost(looks_around=0)
    run.frame(NOWHERE)
    assert run.state.lost_frames == 2 and len(run.engine.looks) == 1


def test_places_take_turns_while_the_target_is_lost():
    """Two of three in each frame, from the first one without the target on."""
    run, seen = Run(looks_around=2), []
    for _ in range(3):
        seen += [tuple(region.map.centre_yx) for region in regions_around(run.state, IMAGE)]
        run.frame(*[NOWHERE] * 3)
    places = [(100.5, 256.5), (256.5, 110.5), (256.5, 256.5)]
    assert seen == places * 2


def test_a_target_that_a_jolt_has_moved_is_found_in_the_same_frame():
    run = Run(looks_around=2)
    result = run.frame(NOWHERE, NOWHERE, HERE)
    assert result.found and run.state.lost_frames == 0 and run.state.position_yx == pytest.approx((256.5, 110.5))


def test_what_is_found_by_looking_around_is_taken_but_not_learned():
    """Seen best in the region around (100.5, 256.5), one cell below and two to the right of its middle."""
    run = lost()
    result = run.frame(scores((4, 4, 0.1)), scores((9, 9, 0.5)), scores((10, 11, 0.7)))
    assert result.found and (result.verdict, result.score) == ("uncertain", pytest.approx(0.7))
    assert run.state.position_yx == pytest.approx((100.5 + 16, 256.5 + 32))
    assert result.box_xywh == pytest.approx((288.5 - 17.5, 116.5 - 31.5, 36, 64))
    assert result.search_xywh == (113, -43, 288, 288) and result.score_map.argmax() == 10 * 19 + 11
    assert run.engine.stored == {} and run.engine.learned == []
    assert run.frame(HERE).verdict == "normal"
    assert len(run.engine.stored) == len(run.engine.learned) == 1


HARD_AND_CLEAR = scores((9, 9, 0.9), (1, 1, 0.7))


@pytest.mark.parametrize(
    "elsewhere",
    [NOWHERE, scores((9, 9, 0.39)), HARD_AND_CLEAR, UNCERTAIN],
    ids=["nothing", "not clear", "two of them", "doubt"],
)
def test_what_is_not_clear_elsewhere_leaves_the_target_lost(elsewhere):
    run = lost()
    result = run.frame(scores((3, 3, 0.1)), NOWHERE, elsewhere)
    assert result.verdict == "not_found" and result.score == pytest.approx(0.1) and run.state.lost_frames == 2
    assert run.state.position_yx.tolist() == [100, 110] and result.box_xywh == tuple(BOX)
    assert {type(value) for value in result.search_xywh} == {float}
    assert result.search_xywh == (-33, -43, 288, 288) and run.engine.stored == {}


def test_what_is_in_the_usual_region_needs_no_looking_around():
    """Seen there, however poorly, it is not given up for what looks better elsewhere, and it is learned."""
    run = lost()
    assert run.frame(scores((9, 9, 0.3))).verdict == "normal"
    assert run.state.position_yx == pytest.approx((100.5, 110.5))
    assert len(run.engine.stored) == len(run.engine.learned) == 1


# Doubt: what looking around has found may be another one, so the region at (100, 110) is looked at for a while, too.


def taken(**changes) -> Run:
    """Return a target that was just found around (100, 256), one cell below and two to the right of it."""
    run = lost(**{"doubtful_frames": 3} | changes)
    run.frame(NOWHERE, NOWHERE, scores((10, 11, 0.7)))
    return run


ELSEWHERE = (100.5 + 16, 256.5 + 32)


def test_a_doubtful_target_is_not_learned_and_the_place_before_is_looked_at():
    run, seen = taken(), []
    for maps in ([HERE, NOWHERE], [HARD, NOWHERE], [HERE, scores((9, 9, 0.39))], [HERE], [HERE]):
        result = run.frame(*maps)
        seen.append((result.verdict, len(run.engine.looks), len(run.engine.stored), run.state.doubt))
    learned_later = [("normal", 1, 1, 0), ("normal", 1, 2, 0)]
    assert seen == [("uncertain", 2, 0, 2), ("uncertain", 2, 0, 1), ("uncertain", 2, 0, 0), *learned_later]


def test_the_place_before_is_kept_until_the_doubt_is_over():
    run = taken()
    assert run.state.position_yx == pytest.approx(ELSEWHERE)
    for _ in range(3):
        assert run.state.found_yx.tolist() == [100, 110] and run.state.found_hw.tolist() == [64, 36]
        run.frame(HERE, NOWHERE)
    assert run.state.found_yx.tolist() == run.state.position_yx.tolist()


def test_the_place_before_is_seen_at_the_scale_of_before():
    state = taken().state
    (before,) = region_before(state.move(state.position_yx, 2 * state.size_hw), IMAGE)
    assert before.map.centre_yx.tolist() == [100.5, 110.5] and before.map.scale == 1.0
    assert region_before(lost(doubtful_frames=3).state, IMAGE) == []


@pytest.mark.parametrize("here", [NOWHERE, scores((9, 9, 0.6)), HARD], ids=["nothing", "less", "hard"])
def test_a_covered_target_is_found_again_where_it_was(here):
    """Its size is that of before; nothing of the other one was learned, and now learning goes on."""
    run = taken()
    run.state = run.state.move(run.state.position_yx, np.array([30.0, 40.0]))
    result = run.frame(here, scores((9, 10, 0.9)))
    assert result.found and result.verdict == "uncertain" and result.box_xywh[2:] == (36, 64)
    assert run.state.position_yx == pytest.approx((100.5, 110.5 + 16)) and run.state.doubt == 0
    assert run.state.found_yx.tolist() == run.state.position_yx.tolist() and run.engine.stored == {}
    assert run.frame(HERE).verdict == "normal" and len(run.engine.stored) == 1


@pytest.mark.parametrize(
    "before", [scores((9, 9, 0.59)), HARD_AND_CLEAR, UNCERTAIN], ids=["less than here", "two of them", "doubt"]
)
def test_what_is_not_as_clear_where_the_target_was_does_not_bring_it_back(before):
    run = taken()
    assert run.frame(scores((9, 9, 0.6)), before).found
    assert run.state.position_yx[1] > 250 and run.state.doubt == 2


@pytest.mark.parametrize("weak_score", [0.0, 0.1])
def test_a_doubtful_target_that_is_lost_goes_back_in_the_end(weak_score):
    run = taken(weak_score=weak_score, weak_frames=1)
    for _ in range(2):
        run.frame(*[NOWHERE] * 4)
    assert run.state.position_yx.tolist() == [100, 110] and run.state.size_hw.tolist() == [64, 36]
    assert run.state.doubt == 0 and run.frame(HERE).verdict == "normal"


def test_frames_without_the_target_do_not_end_the_doubt():
    run = taken()
    run.frame(*[NOWHERE] * 4)
    assert run.state.doubt == 3
    run.frame(HERE, NOWHERE)
    assert run.state.doubt == 2
    run.frame(NOWHERE, NOWHERE, NOWHERE, HERE)  # elsewhere once more
    assert run.state.doubt == 3 and run.state.found_yx.tolist() == [100, 110]


def test_the_same_object_in_both_regions_does_not_clear_itself():
    """It stands between both places, at x = 190.5: 32 from the middle of its own region and 80 from that of before."""
    run = taken(doubtful_frames=4)
    run.state = dataclasses.replace(run.state, position_yx=np.array([100.0, 222.0]))
    for score in (0.85, 0.86, 0.84):
        result = run.frame(scores((9, 7, 0.85)), scores((9, 14, score)))
        run.state = dataclasses.replace(run.state, position_yx=np.array([100.0, 222.0]))
        assert result.verdict == "uncertain" and run.state.found_yx.tolist() == [100, 110]
    assert run.state.doubt == 1
    run.frame(scores((9, 7, 0.2)), scores((9, 14, 0.7)))  # not found in its own region, clear in the other
    assert run.state.found_yx.tolist() == [100, 110] and run.state.doubt == 1
    other = taken()
    other.state = dataclasses.replace(other.state, position_yx=np.array([100.0, 222.0]))
    other.frame(scores((9, 7, 0.85)), scores((9, 12, 0.86)))  # 34 pixels further left, beyond half of the width of 36
    assert other.state.found_yx == pytest.approx((100.5, 158.5))


@pytest.mark.parametrize("factor, column, apart", [(0.25, 15, 6), (4.0, 16, 22)])
def test_objects_are_the_same_within_half_of_the_smaller_size(factor, column, apart):
    """The sizes across are 36 where the target was and 9 or 144 where it is now."""
    state = taken().state
    state = state.move(np.array([100.5, 200.5]), factor * state.found_hw)
    here = view((100.5, 200.5), factor, scores((9, 9, 0.8)))
    before = view((100.5, 110.5), 1.0, scores((9, column, 0.9)))
    assert 110.5 + 16 * (column - 9) - 200.5 == apart
    after, chosen, _ = choose(state, Seen(here, judge(state, here, 16), before), 16)
    assert chosen is before and after.doubt == 0
    same = view((100.5, 110.5 - apart), 1.0, scores((9, column, 0.9)))
    after, chosen, _ = choose(state, Seen(here, judge(state, here, 16), same), 16)
    assert chosen is here and after.doubt == 2


def test_a_peak_of_the_clear_score_itself_will_do():
    run = lost(clear_score=0.375)
    assert run.frame(NOWHERE, NOWHERE, scores((9, 9, 0.375))).found
    assert lost(clear_score=0.375).frame(NOWHERE, NOWHERE, scores((9, 9, 0.37))).verdict == "not_found"


def test_regions_around_have_the_scale_of_the_target():
    """Twice as large: the region's side is 576, and an image of 1,000 pixels has places a side of 432 apart."""
    state = Run(looks_around=8).state
    large = state.move(np.array([500.0, 500.0]), 2 * state.size_hw)
    regions = regions_around(large, np.zeros((1000, 1000, 3), np.uint8))
    assert {region.window_xywh[2] for region in regions} == {576} and len(regions) == 8
    assert {abs(float(region.map.centre_yx[0]) - 500.5) for region in regions} == {0.0, 212.0}


def test_each_target_is_looked_for_in_its_own_image():
    """A calm one, a lost one and a doubtful one, in images of their own: as each of them alone."""
    picture = np.random.default_rng(0).integers(0, 256, (420, 500, 3), dtype=np.uint8)
    pictures = [picture, picture[:400, :400] // 2, picture[::-1]]
    changes = {"looks_around": 2, "doubtful_frames": 3}
    runs = [Run(**changes), lost(**changes), taken()]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        engine, states = ScriptedEngine(), [runs[k].state for k in order]
        firsts = {0: [NOWHERE], 1: [NOWHERE], 2: [HERE, NOWHERE]}
        engine.show(*[each for k in order for each in firsts[k]], *[NOWHERE] * 4)
        track_frame(engine, states, [pictures[k] for k in order], 0)
        cut = [region_before(runs[2].state, pictures[2])[0].patch]
        cut += [region.patch for k in order if k < 2 for region in regions_around(runs[k].state, pictures[k])]
        place = sum(len(firsts[k]) for k in order[: order.index(2)]) + 1
        seen = [engine.looks[place].patch, *(look.patch for look in engine.looks[-4:])]
        assert all(np.array_equal(a, b) for a, b in zip(seen, cut, strict=True))


def test_without_doubt_what_is_found_elsewhere_is_the_target():
    run = taken(doubtful_frames=0)
    assert run.state.found_yx == pytest.approx(ELSEWHERE)
    assert run.frame(HERE).verdict == "normal" and len(run.engine.looks) == 1


# Inner looks.


def test_inner_looks_follow_a_whole_one_and_only_whole_ones_are_referred_to():
    """Two inner looks after each whole one; frames are numbered from 1, and those before a multiple of 3 are whole."""
    run, maps = Run(inner_looks=2), [HERE.copy() for _ in range(7)]
    inner, referred = [], []
    for one in maps:
        run.frame(one)
        inner += run.engine.inner
        referred.append(run.state.whole)
    assert inner == [False, True, False, True, True, False, True]
    assert [any(one is seen for seen in maps) for one in referred] == [True] * 7
    whole = [0, 0, 2, 2, 2, 5, 5]
    assert all(one is maps[k] for one, k in zip(referred, whole))


def test_a_target_that_an_inner_look_misses_is_looked_for_in_its_whole_region_first():
    run = Run(inner_looks=4, looks_around=2)
    run.frame(HERE)
    whole = scores((9, 16, 0.7))
    result = run.frame(NOWHERE, whole)
    assert run.engine.inner == [True, False] and run.state.whole is whole
    assert result.verdict == "normal" and run.state.position_yx == pytest.approx((100.5, 110.5 + 7 * 16))
    run = Run(inner_looks=4, looks_around=2)
    run.frame(HERE)
    run.frame(*[NOWHERE] * 4)
    assert run.engine.inner == [True, False, False, False] and run.state.lost_frames == 1


def test_the_whole_region_of_the_target_that_was_missed_is_looked_at():
    """Two calm targets in images of their own; an inner look misses the second."""
    picture = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    runs = [Run(picture=one, inner_looks=4) for one in (picture, picture[::-1])]
    for run in runs:
        run.frame(HERE)
    engine = ScriptedEngine().show(HERE, NOWHERE, HERE)
    states = [run.state for run in runs]
    track_frame(engine, states, [run.picture for run in runs], 4)
    assert engine.inner == [True, True, False]
    assert np.array_equal(engine.looks[-1].patch, search_region(states[1], runs[1].picture, 0, 16).patch)


def test_only_the_usual_region_is_referred_to_by_inner_looks():
    run = lost(inner_looks=4)
    usual = scores((9, 9, 0.1), (0, 0, 0.2))
    run.frame(usual, HERE, scores((9, 9, 0.6)))
    assert run.state.whole is usual


# Several targets.


def test_no_targets_no_answers():
    assert track_frame(ScriptedEngine(), [], [], 0) == []


def test_targets_that_are_found_climb_together_and_results_keep_their_order():
    engine = ScriptedEngine()
    boxes = [BOX, BOX + [100, 0, 0, 0], BOX + [0, 100, 0, 0]]
    states = [start_target(engine, PARAMS, IMAGE, box, seed=k) for k, box in enumerate(boxes)]
    engine.show(HERE, NOWHERE, UNCERTAIN)
    answers = track_frame(engine, states, [IMAGE] * len(states), 0)
    assert [result.verdict for _, result in answers] == ["normal", "not_found", "uncertain"]
    (climbed,) = engine.climbed
    assert climbed.shape == (2, 10, 4) and list(engine.stored) == [3]
    assert [len(state.proposals) for state, _ in answers] == [1, 0, 1]


def test_stages_are_marked_in_order():
    run, seen = Run(update_every=1), []
    run.engine.show(HERE)
    track_frame(run.engine, [run.state], [IMAGE], 0, seen.append)
    assert seen == ["crop", "score and localisation", "refinement", "learning"]
