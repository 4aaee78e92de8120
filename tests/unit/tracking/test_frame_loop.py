"""The tracker's frame loop, stage by stage: a network that follows a script, numbers worked out by hand.

The box (36 x 64) is such that a pixel of the search region is one of the image: six times the root of its area, 48, is
288. A cell is 16 pixels; scores are 19 x 19, cell (9, 9) in the middle. A region around a whole pixel p has its centre
at p + 0.5.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking import glance
from ebmtrack.tracking import refine as refinement
from ebmtrack.tracking import step as frame_loop
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.refine import refine
from ebmtrack.tracking.step import Target, View, update_targets
from tests.support.golden import dimp18, image

PARAMS = TrackerParams(  # super_dimp's; of the first frame's views only the plain one and two dropout copies
    sample_size=288,
    crop_rule="pre2022",
    border="replicate",
    half_pixel_late=False,
    shift_fracs=(),
    flip=False,
    blur_sigmas=(),
    rotations_deg=(),
)
IMAGE = np.zeros((400, 400, 3), np.uint8)
BOX = np.array([92.5, 68.5, 36.0, 64.0])  # its centre (x, y) is (110, 100)


def features(*peaks: tuple[int, int, float]) -> torch.Tensor:
    """A feature map that the scripted filter turns into the same scores: peaks (y, x, score) on zeros."""
    maps = torch.zeros(1, 1, 18, 18)
    for y, x, score in peaks:
        maps[0, 0, y, x] = score
    return maps


HERE = features((9, 9, 0.9))
NOWHERE = features((9, 9, 0.2))
HARD = features((9, 9, 0.9), (1, 1, 0.6))
UNCERTAIN = features((9, 9, 0.9), (9, 14, 0.8))
VERDICTS = {"normal": HERE, "hard_negative": HARD, "uncertain": UNCERTAIN, "not_found": NOWHERE}


class ScriptedNet:
    """Shows the features that it is given, in each frame those of all search regions, and writes down what is learned.

    Its filter copies the features to the score map.
    """

    device = "cpu"

    def __init__(self, first: torch.Tensor = HERE):
        self.first, self.shown, self.regions = first, [], 0
        self.classifier = SimpleNamespace(learn=self._learn, filter_optimizer=self._improve)
        self.learned, self.improved = [], []

    def show(self, *regions: torch.Tensor) -> ScriptedNet:
        self.shown = regions
        return self

    def extract(self, patches):
        self.regions = len(patches)
        return torch.zeros(len(patches), 1, 1, 1), torch.zeros(len(patches), 1, 1, 1)

    def classify(self, layer3):
        return self.first.expand(len(layer3), -1, -1, -1)

    def classify_each(self, layer3):
        assert len(layer3) == len(self.shown)
        return list(self.shown)

    def target_energy(self, *_):
        return SimpleNamespace(over=lambda features: None)

    def box_features(self, *_):
        return None

    def _learn(self, features, boxes, weights, iterations):
        self.learned.append((features[:, 0], boxes[:, 0], iterations))
        copies = torch.zeros(1, features.shape[2], 4, 4)
        copies[..., 2, 2] = 1
        return [torch.zeros_like(copies), copies]

    def _improve(self, filters, features, boxes, weights, iterations):
        self.improved.append(
            SimpleNamespace(
                features=features[:, 0], boxes=boxes[:, 0], weights=weights[:, 0].numpy(), iterations=iterations
            )
        )
        return [torch.zeros_like(filters), filters.clone()]


@pytest.fixture
def still(monkeypatch):
    """Boxes that climb nowhere: the size stays, the position is that of the highest score."""
    monkeypatch.setattr(frame_loop, "JointEnergy", lambda energies: SimpleNamespace(look_at=lambda boxes: None))
    monkeypatch.setattr(frame_loop, "refine", lambda energies, candidates, params: [None] * len(energies))


def started(net: ScriptedNet | None = None, box=BOX, picture=IMAGE, **changes) -> Target:
    return Target(net or ScriptedNet(), PARAMS.replace(**changes), picture, np.asarray(box, float))


def after(target: Target, *regions: torch.Tensor, picture=IMAGE) -> Target:
    """The target after one more frame, in which the network sees these features."""
    target.net.show(*regions)
    update_targets(target.net, [target], picture)
    return target


def view(centre_yx=(100.5, 110.5), scale=1.0, maps=HERE) -> View:
    return View(np.array(centre_yx, float), scale, (0.0, 0.0, 288.0, 288.0), None, None, maps)


# The first frame.


def test_dropout_keeps_the_mean_of_the_features():
    """Each copy has of the plain view's channels some as zeros and the others over 0.8, as torch's dropout does."""
    plain = torch.rand(1, 64, 18, 18, generator=torch.Generator().manual_seed(0)) + 1
    net = ScriptedNet(plain)
    started(net, dropout=0.2, dropout_copies=3)
    ((maps, _, iterations),) = net.learned
    assert iterations == 10 and maps.shape == (4, 64, 18, 18) and torch.equal(maps[:1], plain)
    dropped = (maps[1:] == 0).all(-1).all(-1)
    assert 0 < dropped.sum() < 3 * 32 and (dropped[0] != dropped[1]).any()
    expected = (plain / 0.8).expand(3, -1, -1, -1)
    assert torch.allclose(maps[1:][~dropped], expected[~dropped])


def test_boxes_of_the_first_frame_move_with_the_content():
    """0.6 of 144 is 86 pixels: down and to the left. In the middle of 288 pixels, 36 x 64 begin at (126, 112)."""
    net = ScriptedNet()
    started(net, shift_fracs=((0.6, -0.6),))
    plain = [126, 112, 162, 176]
    assert net.learned[0][1].tolist() == [plain, [126 - 86, 112 + 86, 162 - 86, 176 + 86], plain, plain]


# Learning.


def test_the_filter_is_improved_every_20_frames(still):
    """The first frame is number 1: two iterations in frames 21, 41 and 61, none in between, and the filter is taken."""
    target, seen = started(), []
    for number in range(2, 63):
        before, calls = target.filter, len(target.net.improved)
        after(target, HERE)
        if len(target.net.improved) > calls:
            seen.append((number, target.net.improved[-1].iterations))
            assert target.filter is not before and torch.equal(target.filter, before)
        else:
            assert target.filter is before
    assert seen == [(21, 2), (41, 2), (61, 2)]


def test_every_sure_frame_is_remembered_with_its_features_and_box(still):
    """The target is seen one cell down and two to the right of the region's middle, 16 and 32 pixels."""
    target = started(update_every=1)
    seen = features((10, 11, 0.9))
    after(target, seen)
    (call,) = target.net.improved
    assert target.memory.count == 4 and torch.equal(call.features[3:], seen)
    assert call.boxes[3].tolist() == [126 + 32, 112 + 16, 162 + 32, 176 + 16]


@pytest.mark.parametrize("frame, every", [(2, 20), (21, 20), (2, 1)])
def test_a_hard_negative_is_learned_at_once_and_with_its_own_rate(still, frame, every):
    """One iteration, in the schedule's frames too. New over first weight: 0.02 over (1/3) / 0.98, not 0.01 / 0.99."""
    target = started(update_every=every)
    for _ in range(2, frame):
        after(target, NOWHERE)
    after(target, HARD)
    assert target.found.verdict == "hard_negative"
    (call,) = target.net.improved
    assert call.iterations == 1
    assert call.weights[3] / call.weights[:3] == pytest.approx(np.full(3, 3 * 0.02 * 0.98))


def test_a_sure_frame_has_the_usual_rate(still):
    target = after(started(update_every=1), HERE)
    weights = target.net.improved[0].weights
    assert weights[3] / weights[:3] == pytest.approx(np.full(3, 3 * 0.01 * 0.99))


def test_numbers_of_iterations_are_those_of_the_set_up(still):
    target = started(update_every=3, update_iterations=5, hard_negative_iterations=4, initial_iterations=7)
    for maps in (HERE, HARD, HERE, HERE, HARD, HERE):  # frames 2 to 7, of which 4 and 7 are the schedule's
        after(target, maps)
    assert target.net.learned[0][2] == 7
    assert [call.iterations for call in target.net.improved] == [4, 5, 4, 5]
    silent = started(hard_negative_iterations=0)
    assert after(silent, HARD).net.improved == [] and silent.memory.count == 4


@pytest.mark.parametrize(
    "verdict, remembered", [("normal", 1), ("hard_negative", 1), ("uncertain", 0), ("not_found", 0)]
)
def test_only_sure_frames_are_learned(still, verdict, remembered):
    """In a frame of the schedule, too: whatever is not sure leaves memory and filter as they were."""
    target = started(update_every=1)
    after(target, VERDICTS[verdict])
    assert target.found.verdict == verdict
    assert target.memory.count == 3 + remembered and len(target.net.improved) == remembered


@torch.inference_mode()
def test_the_filter_is_improved_on_the_whole_memory():
    """With a real network: from the filter before, two iterations over what the memory holds, the frame's own view
    included, to the bit."""
    picture = image("walk", 200, 260)
    params = PARAMS.replace(
        sample_size=144,
        update_every=1,
        not_found_threshold=-10.0,
        distractor_threshold=10.0,
        hard_negative_threshold=10.0,
    )
    target = Target(InferenceNet(dimp18(), precision="float32"), params, picture, np.array([90.0, 60, 44, 52]))
    before = target.filter
    update_targets(target.net, [target], picture)
    assert target.found.verdict == "normal" and torch.equal(target.memory.features[3], target.view.features[0])
    features, boxes, weights = target.memory.stored()
    assert len(features) == 4
    filters = target.net.classifier.filter_optimizer(before, features, boxes, weights, 2)
    assert len(filters) == 3 and torch.equal(target.filter, filters[-1])
    assert not torch.equal(target.filter, filters[-2])


def weights_by_the_rule(first: int, size: int, rates: list[float], least: float) -> list[list[float]]:
    """The memory's weights after each of its samples, as DiMP's tracker is described, one number after the other."""
    weights, last, history = [1 / first] * first, None, []
    for rate in rates:
        slot = len(weights) if len(weights) < size else min(range(first, size), key=lambda k: weights[k])
        weights = [*weights, 0.0][:size]
        if last is None:
            weights = [w / (1 - rate) for w in weights]
            weights[slot] = rate
        else:
            weights[slot] = weights[last] / (1 - rate)
        weights = [w / sum(weights) for w in weights]
        if sum(weights[:first]) < least:
            rest = sum(weights[first:])
            weights = [least / first] * first + [w / (least + rest) for w in weights[first:]]
        last = slot
        history.append(weights)
    return history


@pytest.mark.parametrize("first, size, least", [(3, 6, 0.25), (1, 9, 0.6), (3, 4, 0.25), (15, 50, 0.25), (2, 5, 0.0)])
def test_weights_of_the_memory_follow_the_rule_to_the_end(first, size, least):
    """Usual and higher rates in turn, well beyond the frame in which the first samples reach their least weight."""
    rates = [0.05 if k % 7 == 3 else 0.03 for k in range(150)]
    memory = SampleMemory(torch.zeros(first, 1, 2, 2), torch.zeros(first, 4), size, 0.03, least)
    totals = []
    for rate, expected in zip(rates, weights_by_the_rule(first, size, rates, least), strict=True):
        memory.add(torch.zeros(1, 2, 2), torch.zeros(4), None if rate == 0.03 else rate)
        assert memory.stored()[2][:, 0].numpy() == pytest.approx(np.array(expected), rel=1e-5)
        totals.append(sum(expected))
    assert (max(totals) > 1.001) == (least > 0)  # the floor was reached: the first samples' share is added on top


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
def test_the_highest_score_moves_the_target_but_a_fifth_of_it_stays_inside(still, peak, position):
    """In an image 200 wide and 160 high. The box follows."""
    picture = IMAGE[:160, :200]
    target = after(started(picture=picture), features((*peak, 0.9)), picture=picture)
    assert target.position == pytest.approx(position)
    assert target.box_xywh == pytest.approx((position[1] - 17.5, position[0] - 31.5, 36, 64))


def test_a_displacement_is_in_cells_of_the_region_and_counts_from_its_centre():
    target = started()
    target.localise([view((200.0, 150.0), 1.5, features((7, 10, 0.9)))], IMAGE.shape)
    assert target.position == pytest.approx((200 - 2 * 24, 150 + 24))


def test_a_target_that_is_not_found_stays(still):
    target = after(started(), features((3, 4, 0.2)))
    assert target.found.verdict == "not_found" and target.position.tolist() == [100, 110]
    assert target.box_xywh == tuple(BOX) and target.size.tolist() == [64, 36] and target.scale == 1


RIVALS = features((9, 17, 0.9), (9, 1, 0.85))  # 8 cells to the right and to the left of the middle


@pytest.mark.parametrize("x, verdict, cells", [(20, "hard_negative", -8), (380, "hard_negative", 8)])
def test_near_the_border_the_last_position_tells_rivals_apart(still, x, verdict, cells):
    """The region is moved inside, its centre to x = 143.5 or 255.5: the target was nearly 8 cells off, of which near is
    7.6 (0.8 of half of 19). From the middle both rivals would be far."""
    target = started(box=(x - 17.5, 168.5, 36, 64), border="inside_major")
    after(target, RIVALS)
    centre = {20: 143.5, 380: 255.5}[x]
    assert target.view.centre_yx.tolist() == [200.5, centre]
    assert target.found.verdict == verdict and target.found.displacement_yx.tolist() == [0, cells]
    assert target.position == pytest.approx((200.5, centre + 16 * cells))
    expected = np.array([126, 112, 162, 176]) + [16 * cells, 0, 16 * cells, 0]
    assert target.memory.boxes_xyxy[3].tolist() == expected.tolist()


def test_in_the_middle_the_same_rivals_leave_doubt(still):
    target = after(started(box=(182.5, 168.5, 36, 64), border="inside_major"), RIVALS)
    assert target.found.verdict == "uncertain" and target.found.displacement_yx.tolist() == [0, 8]


def test_the_last_position_is_measured_in_cells_of_the_region():
    """At a scale of 2 a cell is 32 pixels: 256 pixels to the left are 8 cells, where the left rival is. At 16 cells
    both would be far."""
    target = started()
    target.localise([view((100.0, 110.0 + 256.0), 2.0, RIVALS)], IMAGE.shape)
    assert target.found.verdict == "hard_negative" and target.found.displacement_yx.tolist() == [0, -8]


def test_the_neighbourhood_of_a_peak_has_the_targets_size():
    """2.2 * 36 pixels are 5 cells wide, 2.2 * 64 are 9 high: 3 cells beside the peak is a rival, 3 below it is not."""
    for maps, verdict in (
        (features((9, 9, 0.9), (9, 12, 0.6)), "hard_negative"),
        (features((9, 9, 0.9), (12, 9, 0.6)), "normal"),
    ):
        target = started()
        target.localise([view(maps=maps)], IMAGE.shape)
        assert target.found.verdict == verdict


# The way back from the search region.


@pytest.mark.parametrize("late, y, x", [(False, 172, 262), (True, 173, 263)])
def test_a_box_of_the_region_becomes_the_targets(late, y, x):
    """50 x 20 around (125, 130), 19 and 14 pixels before the middle (144) of a region at a scale of 2 whose centre is
    (300, 200). pytracking takes 143.5 for the middle: half a pixel of the region, one of the image, too far."""
    target = started(half_pixel_late=late)
    target.view = view((200.0, 300.0), 2.0)
    target.move_to(torch.tensor([100.0, 120.0, 50.0, 20.0]))
    assert target.position.tolist() == [y, x] and target.size.tolist() == [40, 100]
    assert target.box_xywh == (x - 49.5, y - 19.5, 100, 40)


@pytest.mark.parametrize("late, drift", [(False, 0.0), (True, 0.5)])
def test_there_and_back_is_exact_but_for_the_half_pixel(late, drift):
    target = started(half_pixel_late=late)
    target.view = view((104.0, 97.0), 1.6)
    target.move_to(target.box_in_crop(target.view.centre_yx, target.view.scale))
    assert target.position == pytest.approx(np.array([100, 110]) + 1.6 * drift, abs=1e-4)
    assert target.size == pytest.approx([64, 36], rel=1e-5)


def test_the_search_region_follows_the_size():
    """Always six times the root of the area: of 100 x 40 pixels 379.5, of 25 x 16 pixels 120."""
    target = started()
    assert target.search(IMAGE)[0].window_xywh[2:] == (288, 288)
    for box, side in (((100.0, 120.0, 50.0, 20.0), 379), ((100.0, 120.0, 12.5, 8.0), 120)):
        target.view = view((200.0, 300.0), 2.0)
        target.move_to(torch.tensor(box))
        assert target.scale == pytest.approx(6 * np.sqrt(target.size.prod()) / 288)
        assert target.search(IMAGE)[0].window_xywh[2:] == (side, side)


def test_no_box_keeps_size_and_scale_and_takes_the_position():
    target = started()
    target.position = np.array([50.0, 60.0])
    target.move_to(None)
    assert target.box_xywh == (60 - 17.5, 50 - 31.5, 36, 64) and target.scale == 1


# The average of the best.


class KnownEnergy:
    """Energies of T targets that depend on x alone, by a table for each; slopes in x by a table, elsewhere flat."""

    def __init__(self, *tables: dict[int, float], slopes: dict[int, float] | None = None):
        self.tables, self.slopes = tables, slopes or {}

    def value_and_gradient(self, boxes):
        x = boxes[..., 0].round().int().tolist()
        slope = torch.zeros_like(boxes)
        slope[..., 0] = torch.tensor([[self.slopes.get(one, 0.0) for one in row] for row in x])
        return torch.tensor([[table[one] for one in row] for table, row in zip(self.tables, x)]), slope


BOXES = torch.tensor(
    [
        [0.0, 8, 20, 20],
        [1, 1, 20, 26],
        [2, 9, 26, 20],
        [3, 4, 23, 20],
        [4, 4, 80, 12],
        [5, 5, 12, 80],
        [6, 0, 72, 12],
        [7, 0, 12, 72],
        [8, 0, 40, 10],
    ]
)


@pytest.mark.parametrize(
    "energies, count, chosen",
    [
        ([5, 1, 4, 6, 0, 0, 0, 0, 0], 3, [0, 2, 3]),
        ([1, 6, 2, 5, 0, 0, 0, 0, 4], 3, [1, 3, 8]),
        ([5, 1, 4, 6, 0, 0, 0, 0, 0], 1, [3]),
        ([5, 1, 4, 6, 9, 9, 0, 0, 0], 3, [0, 2, 3]),  # 80 x 12 is too flat, 12 x 80 too thin
        ([5, 1, 4, 6, 0, 0, 9, 9, 0], 3, [0, 2, 3]),  # 72 x 12 as well: six times is too much already
        ([5, 1, 4, np.inf, 0, 0, 0, 0, 2], 3, [0, 2, 8]),
        ([np.nan, 1, 4, -5, 9, 9, 9, 9, 2], 3, [1, 2, 8]),
        ([np.nan, 1, np.nan, np.nan, 9, 9, 9, 9, 2], 3, [1, 8]),  # fewer than three are left
    ],
    ids=str,
)
@pytest.mark.parametrize("relative", [True, False])
def test_the_best_boxes_are_averaged(monkeypatch, energies, count, chosen, relative):
    """Two targets at once, the second with all energies the other way round."""
    tables = [dict(enumerate(map(float, values))) for values in (energies, [-v for v in energies])]
    monkeypatch.setattr(refinement, "JointEnergy", lambda maps: KnownEnergy(*tables))
    params = PARAMS.replace(average_best=count, relative_space=relative)
    best, _ = refine([None, None], BOXES.expand(2, -1, -1), params)
    assert torch.allclose(best, BOXES[chosen].mean(0), atol=1e-4)


def test_no_box_is_better_than_a_bad_one(monkeypatch):
    monkeypatch.setattr(refinement, "JointEnergy", lambda maps: KnownEnergy(dict.fromkeys(range(9), 1.0)))
    assert refine([None], BOXES[None, 4:8], PARAMS) == [None]


def test_the_best_are_those_before_the_last_step(monkeypatch):
    """The box at x = 4 climbs from 1 to 9, to x = 10; before that step the one at x = 12 was the better, with 2."""
    energy = KnownEnergy({4: 1.0, 10: 9.0, 12: 2.0}, slopes={4: 6.0})
    monkeypatch.setattr(refinement, "JointEnergy", lambda maps: energy)
    boxes = torch.tensor([[4.0, 0, 10, 10], [12, 0, 10, 10]])  # a step of 0.1, in units of the size, is 1
    params = PARAMS.replace(relative_space=False, position_step=0.1, size_step=0.1, ascent_steps=1, average_best=1)
    (best,) = refine([None], boxes[None], params)
    assert best.tolist() == [12, 0, 10, 10]
    (best,) = refine([None], boxes[None], params.replace(ascent_steps=2))
    assert best.tolist() == [10, 0, 10, 10]


# Glances.


@pytest.mark.parametrize("longest, scale, enough", [(190.0, 2.0, True), (60.0, 0.5, False), (96.0, 1.0, True)])
def test_a_glance_must_hold_the_box_in_pixels_of_the_region(longest, scale, enough):
    """A glance at 288 pixels sees 192; half of them, 96 pixels of the region, are 192 of the image at a scale of 2."""
    calm = SimpleNamespace(
        params=PARAMS,
        found=Localization(np.zeros(2), 0.9, "normal"),
        frame=2,
        phase=0,
        glances=4,
        scale=scale,
        size=np.array([30.0, longest]),
        inner_power=torch.tensor(1.0),
    )
    assert glance.suffices(calm) == enough


# Looking around for what is lost. Of the image's nine places those nearest to (100, 110) are (66, 66) and (66, 200).


def lost(**changes) -> Target:
    """A target that was not found in the last frame."""
    target = started(**{"looks_around": 2, "update_every": 1} | changes)
    return after(target, NOWHERE)


def test_frames_without_the_target_are_counted_until_it_is_found(still):
    target = started(looks_around=2)
    counts, regions = [], []
    script = [
        [HERE],
        [NOWHERE],
        [NOWHERE] * 3,
        [NOWHERE] * 3,
        [HERE, NOWHERE, NOWHERE],
        [HERE],
        [NOWHERE],
        [UNCERTAIN, NOWHERE, NOWHERE],
        [NOWHERE],
        [NOWHERE, NOWHERE, HERE],
        [HERE],
    ]
    for maps in script:
        after(target, *maps)
        counts.append(target.lost_for)
        regions.append(target.net.regions)
    assert counts == [0, 1, 2, 3, 0, 0, 1, 0, 1, 0, 0]
    assert regions == [1, 1, 3, 3, 3, 1, 1, 3, 1, 3, 1]


def test_without_looking_around_one_region_is_seen(still):
    target = lost(looks_around=0)
    assert after(target, NOWHERE).lost_for == 2 and target.net.regions == 1


def test_places_take_turns_while_the_target_is_lost(still):
    target, seen = lost(), []
    for _ in range(5):
        seen += [tuple(crop.centre_yx) for crop in target.search(IMAGE)[1:]]
        after(target, *[NOWHERE] * 3)
    assert seen[:2] == [(66.5, 66.5), (66.5, 200.5)]
    assert len(set(seen[:9])) == 9 and seen[9] == seen[0]


def test_what_is_found_by_looking_around_is_taken_but_not_learned(still):
    """Seen best in the region around (66.5, 200.5), one cell below and two to the right of its middle."""
    target = lost()
    after(target, features((4, 4, 0.1)), features((9, 9, 0.5)), features((10, 11, 0.7)))
    result = target.result()
    assert result.found and (result.verdict, result.score) == ("uncertain", pytest.approx(0.7))
    assert target.position == pytest.approx((66.5 + 16, 200.5 + 32))
    assert result.box_xywh == pytest.approx((232.5 - 17.5, 82.5 - 31.5, 36, 64))
    assert result.search_xywh == (57, -77, 288, 288) and result.score_map.argmax() == 10 * 19 + 11
    assert target.memory.count == 3 and target.net.improved == []
    after(target, HERE)
    assert target.found.verdict == "normal" and target.memory.count == 4 and len(target.net.improved) == 1


HARD_AND_CLEAR = features((9, 9, 0.9), (1, 1, 0.7))


@pytest.mark.parametrize(
    "elsewhere",
    [NOWHERE, features((9, 9, 0.39)), HARD_AND_CLEAR, UNCERTAIN],
    ids=["nothing", "not clear", "two of them", "doubt"],
)
def test_what_is_not_clear_elsewhere_leaves_the_target_lost(still, elsewhere):
    target = after(lost(), features((3, 3, 0.1)), NOWHERE, elsewhere)
    result = target.result()
    assert result.verdict == "not_found" and result.score == pytest.approx(0.1) and target.lost_for == 2
    assert target.position.tolist() == [100, 110] and result.box_xywh == tuple(BOX)
    assert result.search_xywh == (-33, -43, 288, 288) and target.memory.count == 3


def test_what_is_in_the_usual_region_needs_no_looking_around(still):
    """Seen there, however poorly, it is not given up for what looks better elsewhere, and it is learned."""
    target = after(lost(), features((9, 9, 0.3)), HERE, HERE)
    assert target.found.verdict == "normal" and target.position == pytest.approx((100.5, 110.5))
    assert target.memory.count == 4 and len(target.net.improved) == 1


def test_only_the_usual_region_tells_the_power_of_the_features(still):
    """The mean square over the 12 x 12 cells that a glance sees."""
    target = lost(glances=4)
    assert target.inner_power.item() == pytest.approx(0.2**2 / 144)
    after(target, features((9, 9, 0.1), (0, 0, 0.2)), HERE, features((9, 9, 0.6)))
    assert target.inner_power.item() == pytest.approx(0.1**2 / 144)
