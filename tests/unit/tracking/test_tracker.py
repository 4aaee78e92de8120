"""The online tracker: its laws with random weights, its parts one by one, and every kind of bad input."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.studies.bench_tracker import STAGES, measure
from ebmtrack.tracking.first_frame import augmented_samples, blurred, centred, rotated
from ebmtrack.tracking.localize import localize
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams, list_params, load_params
from ebmtrack.tracking.refine import candidate_boxes, climb
from ebmtrack.tracking.tracker import Tracker, check_device
from ebmtrack.viewers.demo_sequence import demo_sequence
from tests.support.golden import arrays, dimp18, image

PARAMS = load_params("dimp18_nce_plus")
SMALL = PARAMS.replace(sample_size=144)  # a quarter of the pixels, for laws that hold at any size
ALWAYS = SMALL.replace(not_found_threshold=-10.0)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(5)]
BOX = (90.0, 60.0, 44.0, 52.0)


@pytest.fixture(scope="module")
def net():
    return InferenceNet(dimp18(), precision="float32")


def boxes_of(tracker: Tracker, seed: int = 3, frames=FRAMES, box=BOX) -> np.ndarray:
    tracker.init(frames[0], box, seed=seed)
    return np.array([tracker.update(frame).box_xywh for frame in frames[1:]])


def test_same_seed_same_boxes_and_nothing_left_from_before(net):
    """Bit for bit: after another target, in another tracker, in a deep copy; another seed gives other boxes."""
    params = ALWAYS
    tracker = Tracker(net, params)
    first = boxes_of(tracker)
    boxes_of(tracker, seed=9, frames=FRAMES[::-1], box=(10, 20, 90, 33))
    assert np.array_equal(boxes_of(tracker), first)
    clone = copy.deepcopy(tracker)
    assert clone.net is tracker.net
    assert np.array_equal(boxes_of(clone), first) and np.array_equal(boxes_of(Tracker(net, params)), first)
    assert not np.array_equal(boxes_of(tracker, seed=4), first)


def test_views_of_an_image_are_as_good_as_copies(net):
    """BGR read backwards and mirrored frames have negative strides; a region of 144 pixels is cut without resizing."""
    box = (90.0, 60.0, 28.8, 28.8)
    views = [frame[:, ::-1, ::-1] for frame in FRAMES]
    copies = [np.ascontiguousarray(view) for view in views]
    tracker = Tracker(net, ALWAYS.replace(ascent_steps=1, position_step=0.0, size_step=0.0, size_jitter=0.0))
    assert np.array_equal(boxes_of(tracker, frames=views, box=box), boxes_of(tracker, frames=copies, box=box))


def test_not_found_repeats_the_box_and_learns_nothing(net):
    tracker = Tracker(net, SMALL.replace(not_found_threshold=1e9))
    tracker.init(FRAMES[0], BOX)
    weights = tracker._target.memory.weights.copy()
    result = tracker.update(FRAMES[1])
    assert result.verdict == "not_found" and not result.found and result.box_xywh == BOX
    assert np.array_equal(tracker._target.memory.weights, weights)


def test_result_lies_in_its_search_region(net):
    tracker = Tracker(net, ALWAYS)
    tracker.init(FRAMES[0], BOX)
    result = tracker.update(FRAMES[1])
    assert result.score_map.shape == (10, 10) and result.score == pytest.approx(result.score_map.max())
    x, y, w, h = result.search_xywh
    assert w == h == pytest.approx(5 * math.sqrt(44 * 52), abs=1.5)
    assert x < result.box_xywh[0] + result.box_xywh[2] / 2 < x + w


@pytest.mark.parametrize("name", list_params())
def test_every_set_up_is_valid(name):
    params = load_params(name)
    assert isinstance(params, TrackerParams) and params.softmax_scores == name.startswith("prdimp")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'dimp18_nce_plus'"):
        load_params("dimp18_nceplus")
    with pytest.raises(ConfigError, match="did you mean 'ascent_steps'"):
        PARAMS.replace(ascent_step=3)


GOOD = FRAMES[0]
BAD_IMAGES = {
    "type": "picture.jpg",
    "list": [[1, 2], [3, 4]],
    "grey": GOOD[..., 0],
    "rgba": np.dstack([GOOD, GOOD[..., :1]]),
    "float": GOOD.astype(np.float32),
    "int64": GOOD.astype(np.int64),
    "empty": GOOD[:0],
    "batch": GOOD[None],
    "tensor": torch.from_numpy(GOOD),
    "none": None,
}


@pytest.mark.parametrize("bad", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_refused_and_nothing_is_lost(net, bad):
    tracker = Tracker(net, SMALL)
    with pytest.raises(ConfigError, match="image"):
        tracker.init(bad, BOX)
    expected = boxes_of(tracker)
    tracker.init(FRAMES[0], BOX, seed=3)
    with pytest.raises(ConfigError, match="image"):
        tracker.update(bad)
    assert np.array_equal([tracker.update(frame).box_xywh for frame in FRAMES[1:]], expected)


BAD_BOXES = [
    (1, 2, 3),
    "box",
    None,
    (1, 2, float("nan"), 4),
    (1, 2, float("inf"), 4),
    (10, 10, 0, 5),
    (10, 10, 5, -3),
    (10, 10, 0.5, 5),
    (260, 10, 5, 5),
    (10, 200, 5, 5),
    (-20, 5, 20, 5),
    (5, -9, 5, 9),
    ((1, 2), (3,)),
    {},
]


@pytest.mark.parametrize("bad", BAD_BOXES, ids=str)
def test_bad_boxes_are_refused(net, bad):
    with pytest.raises(ConfigError, match="box"):
        Tracker(net, SMALL).init(GOOD, bad)


@pytest.mark.parametrize(
    "box",
    [
        (100, 80, 1, 1),
        (-500, -400, 1300, 1000),
        (0, 0, 260, 200),
        (-20, -20, 30, 30),
        (250, 190, 200, 100),
        (5, 5, 250, 2),
        [10, 10, 20, 20],
        np.array([10, 10, 20, 20]),
    ],
)
def test_extreme_boxes_are_tracked(net, box):
    """One pixel, larger than the image, all of it, mostly outside, very flat: finite boxes come out."""
    tracker = Tracker(net, ALWAYS)
    boxes = boxes_of(tracker, frames=FRAMES[:3], box=box)
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()


def test_frames_may_change_size_and_be_tiny(net):
    tracker = Tracker(net, ALWAYS)
    tracker.init(GOOD, BOX)
    for shape in [(100, 130), (400, 520), (3, 3), (1, 1), (200, 260)]:
        assert np.isfinite(tracker.update(np.full((*shape, 3), 90, np.uint8)).box_xywh).all()


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "gpu", "cpu:7"])
def test_devices_that_are_not_there(device):
    with pytest.raises(ConfigError, match="device"):
        check_device(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_boxes_of_the_cpu(net):
    """Float32 on both: four frames, boxes within a tenth of a pixel."""
    on_gpu = InferenceNet(dimp18(), "cuda", "float32")
    assert np.allclose(boxes_of(Tracker(on_gpu, ALWAYS)), boxes_of(Tracker(net, ALWAYS)), atol=0.1)


def test_update_before_init_is_an_error(net):
    with pytest.raises(EbmtrackError, match="init"):
        Tracker(net, SMALL).update(GOOD)
    with pytest.raises(EbmtrackError, match="update"):
        Tracker(net, SMALL).corner_log_density(np.zeros((1, 2)))


@torch.inference_mode()
def test_ascent_equals_golden_numbers(net):
    """Ten relative steps of 2.5e-3 from the golden boxes, and the energies before the last step."""
    golden = arrays("dimp18")
    patches = torch.stack([torch.from_numpy(image(name, 288, 288)) for name in ("train0", "test0")])
    layer2, layer3 = net.extract(patches)
    reference = xywh_to_xyxy(torch.tensor([100.0, 120, 80, 60]))
    energy = net.target_energy(layer2[:1], layer3[:1], reference).over(net.box_features(layer2[1:], layer3[1:]))
    params = PARAMS.replace(position_step=2.5e-3, size_step=2.5e-3)
    boxes, f = (found[0] for found in climb([energy], golden["energy/boxes_xywh"][None], params))
    assert torch.allclose(boxes, golden["energy/ascent10_boxes_xywh"], rtol=1e-4, atol=1e-2)
    assert torch.allclose(f, golden["energy/ascent10_values_before_last_step"], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_two_spaces_agree_for_small_steps_of_position(net):
    """One step: relative v + step df/dv moves x by step w^2 df/dx; the default space moves it by step w df/dx."""
    tracker = Tracker(net, ALWAYS)
    tracker.init(GOOD, BOX)
    tracker.update(FRAMES[1])
    energy, box = tracker._target.energy, torch.tensor([[120.0, 118, 50, 40]])
    params = PARAMS.replace(ascent_steps=1, position_step=1e-3, size_step=0.0)
    relative = climb([energy], box[None], params)[0][0] - box
    default = climb([energy], box[None], params.replace(relative_space=False))[0][0] - box
    assert torch.allclose(relative[0, :2], default[0, :2] * box[0, 2:], rtol=1e-2, atol=1e-5)


def test_candidates_start_with_the_box_and_stay_large_enough():
    box = torch.tensor([10.0, 20, 90, 12])
    boxes = candidate_boxes(box, PARAMS, torch.Generator().manual_seed(0))
    assert boxes.shape == (10, 4) and torch.equal(boxes[0], box) and (boxes[:, 2:] >= 4).all()
    reach = math.sqrt(90 * 12)
    centres = boxes[:, :2] + boxes[:, 2:] / 2 - (box[:2] + box[2:] / 2)
    assert (centres.abs() <= 0.05 * reach + 1e-4).all() and len(boxes.unique(dim=0)) == 10


def test_random_numbers_are_drawn_as_pytracking_draws_them():
    """rand(9, 4) of a generator with the same seed explains the candidates."""
    box = torch.tensor([10.0, 20, 30, 40])
    boxes = candidate_boxes(box, PARAMS, torch.Generator().manual_seed(5))
    drawn = (torch.rand(9, 4, generator=torch.Generator().manual_seed(5)) - 0.5) * math.sqrt(1200)
    assert torch.allclose(boxes[1:, 2:], (box[2:] + 0.5 * drawn[:, 2:]).clamp(min=10), atol=1e-4)


def peaks(*rows: tuple[int, int, float]) -> np.ndarray:
    scores = np.zeros((19, 19), np.float32)
    for y, x, value in rows:
        scores[y, x] = value
    return scores


SIZE = np.array([3.0, 3.0])
CASES = {
    "low": (peaks((9, 9, 0.2)), (0, 0), "not_found", (0, 0)),
    "one": (peaks((8, 11, 0.9)), (0, 0), "normal", (-1, 2)),
    "second is weak": (peaks((9, 9, 0.9), (2, 2, 0.4)), (0, 0), "normal", (0, 0)),
    "second is strong": (peaks((9, 9, 0.9), (2, 2, 0.5)), (0, 0), "hard_negative", (0, 0)),
    "within the neighbourhood": (peaks((9, 9, 0.9), (10, 12, 0.85)), (0, 0), "normal", (0, 0)),
    "rival far, first near": (peaks((9, 9, 0.9), (18, 18, 0.8)), (0, 0), "hard_negative", (0, 0)),
    "rival near, first far": (peaks((18, 18, 0.9), (9, 9, 0.8)), (0, 0), "hard_negative", (0, 0)),
    "both near": (peaks((9, 9, 0.9), (13, 9, 0.8)), (0, 0), "uncertain", (0, 0)),
    "both far": (peaks((0, 0, 0.9), (0, 18, 0.8)), (9, 0), "uncertain", (-9, -9)),
}


@pytest.mark.parametrize("scores, previous, verdict, displacement", CASES.values(), ids=CASES)
def test_localisation_verdicts(scores, previous, verdict, displacement):
    """19 x 19 map: near means within 0.8 * 19 / 2 = 7.6 cells of the last position; neighbourhood 2.2 * 3 cells."""
    found = localize(scores, SIZE, np.array(previous, float), PARAMS)
    assert found.verdict == verdict and np.array_equal(found.displacement_yx, displacement)


def memory(size: int = 6) -> SampleMemory:
    return SampleMemory(torch.zeros(3, 2, 4, 4), torch.zeros(3, 4), size, 0.1, 0.25)


def test_memory_weights_follow_the_rule():
    """Three initial samples of 1/3. First: (1/3)/0.9 each and 0.1, normalised. Then the last weight over 0.9."""
    samples = memory()
    assert samples.add(torch.ones(2, 4, 4), torch.ones(4)) == 3
    first = np.array([1 / 2.7, 1 / 2.7, 1 / 2.7, 0.1])
    assert np.allclose(samples.weights[:4], first / first.sum())
    samples.add(torch.ones(2, 4, 4), torch.ones(4))
    second = np.append(first / first.sum(), first[3] / first.sum() / 0.9)
    assert np.allclose(samples.weights[:5], second / second.sum())


def test_memory_replaces_the_lightest_and_keeps_the_first_frame():
    samples = memory()
    for value in range(200):
        slot = samples.add(torch.full((2, 4, 4), float(value)), torch.full((4,), float(value)))
        assert slot >= 3
    features, boxes, weights = samples.stored()
    assert features.shape == (6, 1, 2, 4, 4) and weights.shape == (6, 1) and boxes[:3].abs().max() == 0
    assert samples.weights[:3].sum() == pytest.approx(0.25)
    assert set(boxes[3:, 0, 0].tolist()) == {197.0, 198.0, 199.0}


def test_initial_samples_have_the_set_and_order_of_dimp():
    generator = torch.Generator().manual_seed(0)
    patches, shifts, crop = augmented_samples(GOOD, np.array([90.0, 110.0]), 0.8, PARAMS, generator)
    assert patches.shape == (13, 288, 288, 3) and patches.dtype == np.float32
    assert shifts[:5].tolist() == [[0, 0], [86, 86], [-86, 86], [86, -86], [-86, -86]]  # 0.6 * 144 = 86.4
    drawn = (torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 288 / 3
    assert shifts[5:].tolist() == drawn.trunc().long().tolist()
    assert np.array_equal(patches[0], crop.patch[144:432, 144:432])
    assert np.array_equal(patches[1][86:, 86:], patches[0][:-86, :-86])


def test_transforms():
    patch = np.random.default_rng(0).uniform(0, 255, (40, 40, 3)).astype(np.float32)
    assert np.array_equal(centred(patch, 20, (0, 0)), patch[10:30, 10:30])
    assert np.array_equal(centred(patch, 20, (3, -2)), patch[7:27, 12:32])
    assert np.array_equal(centred(patch, 20, (15, 0))[:5], np.repeat(patch[:1, 10:30], 5, axis=0))
    assert np.allclose(rotated(rotated(patch, 0), 0), patch)
    assert np.allclose(rotated(patch, 90)[5:35, 5:35], np.rot90(patch)[5:35, 5:35], atol=0.5)
    constant = np.full((40, 40, 3), 100, np.float32)
    assert np.allclose(blurred(constant, (2, 2))[8:32, 8:32], 100) and blurred(constant, (2, 2))[0, 0, 0] < 50
    impulse = np.zeros((41, 41, 3), np.float32)
    impulse[20, 20] = 1
    spread = blurred(impulse, (3, 1))[..., 0]
    assert (spread[:, 20] > 0).sum() == 13 and (spread[20] > 0).sum() == 5  # radius ceil(2 sigma): 6 and 2


def test_corner_density_at_the_box_is_its_energy(net):
    """At the box's own corner the density is the energy of the box that climbed; boxes turned inside out have -inf."""
    tracker = Tracker(net, ALWAYS)
    tracker.init(GOOD, BOX)
    x, y, w, h = tracker.update(FRAMES[1]).box_xywh
    f = tracker.corner_log_density(np.array([[x + w, y], [x + w + 3, y - 2], [x - 5, y], [x + w, y + h + 1]]))
    state = tracker._target
    own = state.box_in_crop(state.view.centre_yx, state.view.scale, np.exp(state.log_excess_hw))
    assert np.abs(state.log_excess_hw).max() > 0.01
    assert float(f[0]) == pytest.approx(state.energy.value(xywh_to_xyxy(own)[None]).item(), rel=1e-3)
    assert np.isfinite(f[:2]).all() and np.isneginf(f[2:]).all()


def test_bench_measures_every_stage(net):
    report = measure(Tracker(net, ALWAYS), frames=2, size_wh=(320, 240), warmup=1)
    assert set(STAGES) - set(report["stages_ms"]) <= {"learning"}
    assert 0 < sum(report["stages_ms"].values()) < 2 * report["frame_ms"]


# Calibration of the size in the first frame.


@torch.inference_mode()
def test_the_way_to_the_energys_size_and_back(net):
    """Candidates begin at the box with the excess multiplied in, about the same centre; a climb that ends there leaves
    the target's size as it was."""
    tracker = Tracker(net, ALWAYS.replace(aspect_prior=0.0))
    tracker.init(GOOD, BOX)
    target = tracker._target
    tracker.update(FRAMES[1])
    size, plain = target.size.copy(), target.box_in_crop(target.view.centre_yx, target.view.scale)
    target.log_excess_hw = np.log([2.0, 0.5])
    target.propose()
    x, y, w, h = target.candidates[0].tolist()
    assert (w, h) == pytest.approx((plain[2].item() / 2, 2 * plain[3].item()), rel=1e-5)
    middle = plain[:2] + (plain[2:] - 1) / 2
    assert (x + (w - 1) / 2, y + (h - 1) / 2) == pytest.approx(middle.tolist(), abs=1e-3)
    target.move_to(target.candidates[0])
    assert np.allclose(target.size, size, rtol=1e-5)


def test_calibration_undoes_its_share_of_the_first_frames_error():
    """The network that ships sees the built-in sequence's first frame again and again, asked for too little or too much
    of the cup, right and below: the more of the error is undone, the nearer are the sizes to those asked for."""
    usual, sequence = Tracker.from_pretrained(), demo_sequence()
    image, cup = sequence.frames[0], np.array(sequence.boxes_xywh[0])
    errors = {0.0: [], 0.5: [], 1.0: []}
    for part in ((1, 1, 0.8, 1), (1, 1, 1, 0.8), (1, 1, 1.2, 1)):
        for share, found in errors.items():
            tracker = Tracker(usual.net, usual.params.replace(calibration=share))
            tracker.init(image, cup * part)
            for _ in range(3):
                result = tracker.update(image)
            found.append(np.abs(np.log(np.array(result.box_xywh[2:]) / (cup * part)[2:])).mean())
    without, half, all_of_it = (np.mean(found) for found in errors.values())
    assert without > 0.08 and half < 0.7 * without and all_of_it < 0.4 * without


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_aspect_prior_moves_the_log_of_the_aspect_ratio_by_its_share_and_keeps_area_and_centre(net, share):
    tracker = Tracker(net, ALWAYS.replace(aspect_prior=share, calibration=0.0))
    tracker.init(GOOD, BOX)
    target = tracker._target
    tracker.update(FRAMES[1])
    results = []
    for box in ([30.0, 40.0, 50.0, 20.0], [30.0, 40.0, 50.0, 50.0 * BOX[3] / BOX[2]]):
        target.move_to(torch.tensor(box))
        x, y, w, h = target.box_xywh
        scale = math.sqrt(w * h / (box[2] * box[3]))
        assert scale == pytest.approx(target.view.scale, rel=1e-5)
        results.append((math.log(w / h), x + w / 2, y + h / 2))
    first, climbed = math.log(BOX[2] / BOX[3]), math.log(50 / 20)
    assert results[0][0] == pytest.approx(climbed + share * (first - climbed), abs=1e-5)
    assert results[1][0] == pytest.approx(first, abs=1e-5)  # that of the first frame stays
    centre = (np.array([30.0, 40.0]) + [25, 10] - target._middle()) * target.view.scale + target.view.centre_yx[::-1]
    assert np.allclose(results[0][1:], centre + 0.5, atol=1e-3)


def test_candidates_are_shown_with_the_aspect_ratio_that_they_would_give(net):
    tracker = Tracker(net, ALWAYS.replace(aspect_prior=1.0))
    tracker.init(GOOD, BOX)
    tracker.update(FRAMES[1])
    for boxes in tracker.candidates():
        assert len(boxes) == 10 and np.allclose(boxes[:, 2] / boxes[:, 3], BOX[2] / BOX[3])


@pytest.mark.parametrize("step", [1e3, 1e9, math.inf])
def test_a_climb_that_diverges_leaves_the_box_as_it_is(net, step):
    tracker = Tracker(net, ALWAYS.replace(position_step=step, size_step=step))
    tracker.init(GOOD, BOX)
    for frame in FRAMES[1:3]:
        box = tracker.update(frame).box_xywh
        assert np.isfinite(box).all() and box[2:] == pytest.approx(BOX[2:])


def test_a_wild_first_frame_changes_sizes_by_no_more_than_a_limit(net):
    tracker = Tracker(net, PARAMS.replace(calibration=1.0, position_step=1.0, size_step=1.0))
    tracker.init(GOOD, BOX)
    assert np.isfinite(tracker._target.log_excess_hw).all() and np.abs(tracker._target.log_excess_hw).max() <= 0.5
