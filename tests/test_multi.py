"""Several targets at once: the boxes of separate trackers, whatever is added and removed in between."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from golden import dimp18, image

from ebmtrack.boxes import iou_xywh
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking import bench
from ebmtrack.tracking.multi import MultiTracker
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.shared_look import MAX_RATIO, ROOM, STEP, plan, region_of, region_views, resample
from ebmtrack.tracking.target import no_mark
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.viewers.track_command import track

PARAMS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0)
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(5)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0), (150.0, 100.0, 30.0, 40.0)]


@pytest.fixture(scope="module")
def net():
    return InferenceNet(dimp18(), precision="float32")


def boxes_of(net, box, seed, frames=FRAMES) -> np.ndarray:
    tracker = Tracker(net, PARAMS)
    tracker.init(frames[0], box, seed)
    return np.array([tracker.update(frame).box_xywh for frame in frames[1:]])


def test_boxes_equal_those_of_separate_trackers(net):
    """The third target comes two frames later, the second one leaves; the others do not notice."""
    tracker = MultiTracker(net, PARAMS)
    ids = [tracker.add(FRAMES[0], box, seed) for seed, box in enumerate(BOXES[:2])]
    results = [tracker.update(frame) for frame in FRAMES[1:3]]
    ids.append(tracker.add(FRAMES[2], BOXES[2], 2))
    tracker.remove(ids[1])
    results += [tracker.update(frame) for frame in FRAMES[3:]]
    assert [tuple(result) for result in results] == [(0, 1), (0, 1), (0, 2), (0, 2)]
    expected = [boxes_of(net, BOXES[0], 0), boxes_of(net, BOXES[1], 1), boxes_of(net, BOXES[2], 2, FRAMES[2:])]
    for target, boxes in zip(ids, expected):
        got = [result[target].box_xywh for result in results if target in result]
        assert np.array_equal(got, boxes[: len(got)])


def test_no_targets_no_results(net):
    assert MultiTracker(net, PARAMS).update(FRAMES[0]) == {}


def test_ids_are_not_used_again_and_unknown_ones_refused(net):
    tracker = MultiTracker(net, PARAMS)
    first = tracker.add(FRAMES[0], BOXES[0])
    tracker.remove(first)
    assert tracker.targets == ()
    with pytest.raises(ConfigError, match="no target 0"):
        tracker.remove(first)
    assert tracker.add(FRAMES[0], BOXES[0]) == first + 1


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img").mkdir()
    for number, frame in enumerate(FRAMES[:3]):
        assert cv2.imwrite(str(tmp_path / "img" / f"{number:03d}.png"), frame[..., ::-1])
    return tmp_path / "img"


INITS = {"two": ["90,60,44,52", "10,20,90,33"], "one text": "90,60,44,52; 10,20,90,33"}


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
def test_track_writes_a_file_for_each_target(net, folder, tmp_path, init, capsys):
    """The boxes, to three decimals, are those of a run for each target; the pictures show both boxes."""
    save = tmp_path / "out.avi"
    result = track(folder, lambda: Tracker(net, PARAMS), init, boxes=tmp_path / "b.txt", save=save)
    assert result.files == [save, tmp_path / "b_1.txt", tmp_path / "b_2.txt"]
    assert "2 targets, 3 frames" in capsys.readouterr().out
    for number in (1, 2):
        boxes = np.loadtxt(tmp_path / f"b_{number}.txt", delimiter=",")
        seen = boxes_of(net, BOXES[number - 1], None, FRAMES[:3])
        assert np.allclose(boxes, [BOXES[number - 1], *seen], atol=6e-4)


def test_track_names_the_target_whose_box_is_wrong(net, folder, tmp_path):
    with pytest.raises(ConfigError, match="target 2: box .* lies outside"):
        track(folder, lambda: Tracker(net, PARAMS), ["1,2,30,40", "900,2,30,40"], boxes=tmp_path / "b.txt")


def test_visdom_shows_one_target(folder):
    with pytest.raises(ConfigError, match="one target"):
        track(folder, lambda: pytest.fail("loaded"), ["1,2,3,4", "5,6,7,8"], visdom="http://localhost:1", boxes="b.txt")


def test_bench_compares_several_targets_with_one(net, monkeypatch):
    monkeypatch.setattr(bench, "WARMUP", 1)
    report = bench.measure_targets(net, PARAMS, 2, 30, 1, (160, 120))
    for name in ("apart", "shared"):
        ratio = report[f"{name}_ms"]["cpu"] / report["one_ms"]["cpu"]
        assert report[f"{name}_ratio"]["cpu"] == pytest.approx(ratio, rel=0.1)
    setup = {"params": "p", "device_name": "d", "threads": 1, "precision": "float32"}
    table = bench.as_table({"targets": 2, "by_side": [report], "setup": setup})
    assert f"{report['shared_ratio']['wall']:.2f}" in table and "targets of 30 pixels" in table
    images, boxes = bench.moving_squares(3, (160, 120), 4, 30)
    assert boxes.shape == (3, 4, 4) and len({tuple(box) for box in boxes[0]}) == 4 and images[0].shape == (120, 160, 3)


# Sharing regions. The stand-ins for targets have what the plan looks at: position and size (y, x), scale, sample_size.


def stand_in(y: float, x: float, side: float) -> SimpleNamespace:
    params = SimpleNamespace(sample_size=288)
    return SimpleNamespace(position=np.array([y, x]), size=np.array([side, side]), scale=5 * side / 288, params=params)


def test_a_patch_shows_what_its_geometry_says():
    """Pixel p of the patch shows image pixel corner + (p + 1/2) scale - 1/2; outside, the edge goes on."""
    ramp = np.arange(240, dtype=np.uint8)
    image = np.dstack([np.tile(ramp, (200, 1)), np.tile(ramp[:200, None], (1, 240)), np.zeros((200, 240), np.uint8)])
    cases = ((20.3, 31.8), 0.7, (96, 128)), ((-30.0, -9.5), 1.9, (128, 160)), ((4, 5), 1, (64, 32))
    for corner, scale, size in cases:
        patch = resample(image, np.array(corner), scale, size)
        assert patch.shape == (*size, 3)
        y, x = (low + (np.arange(n) + 0.5) * scale - 0.5 for low, n in zip(corner, size))
        assert np.abs(patch[..., 0] - x.clip(0, 239)).max() <= 1 and np.abs(patch[..., 1].T - y.clip(0, 199)).max() <= 1
    assert np.array_equal(patch, image[4:68, 5:37])


def test_large_scales_take_every_nth_pixel():
    """At scale 4 rows and columns are taken three at a time (int(4 - 0.1)); between those, linear."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::3] = 200
    assert (resample(image, np.array([8.0, 8.0]), 4.0, (64, 64)) == 200).all()


@torch.inference_mode()
def test_a_window_of_a_region_is_the_region_cut_there(net):
    """Cells that do not see the border (radius 105 pixels of ResNet-18 at stride 16) equal those of the cut patch."""
    frame = cv2.resize(image("walk", 200, 260), (520, 400))
    one, two = stand_in(180, 200, 57.6), stand_in(200, 280, 57.6)
    region = region_of((0, 1), [one, two], frame.shape[:2])
    patch = resample(frame, region.low * region.scale, region.scale, region.size)
    for target, view, (y, x) in zip((one, two), region_views(net, region, 288, frame, no_mark), region.firsts):
        layer2, layer3 = net.extract(torch.from_numpy(patch[None, 16 * y : 16 * y + 288, 16 * x : 16 * x + 288].copy()))
        assert view.layer2.shape == layer2.shape and view.layer3.shape == layer3.shape
        assert torch.allclose(view.layer3[..., 7:11, 7:11], layer3[..., 7:11, 7:11], atol=1e-4)
        assert view.features.shape == net.classify(layer3).shape
        assert view.features.square().mean() == pytest.approx(net.classify(layer3).square().mean().item(), rel=1e-3)
        assert np.abs(view.centre_yx - target.position).max() <= 8.5 * view.scale
        corner = view.centre_yx - (288 * view.scale - 1) / 2
        assert np.allclose(view.window_xywh, (corner[1], corner[0], 288 * view.scale, 288 * view.scale))


PLANS = {
    "far apart": ([(100, 100, 30), (900, 900, 30)], []),
    "unlike": ([(400, 400, 60), (420, 420, 60 * MAX_RATIO * 1.02)], []),
    "close": ([(400, 400, 60), (420, 430, 60)], [{0, 1}]),
    "two pairs": ([(100, 100, 60), (900, 900, 70), (120, 90, 70), (880, 910, 60)], [{0, 2}, {1, 3}]),
    "alone": ([(100, 100, 60)], []),
}


@pytest.mark.parametrize("places, members", PLANS.values(), ids=PLANS)
def test_those_share_who_are_close_and_alike(places, members):
    """A region holds its windows, costs less than its members alone, and its sides differ from theirs in steps."""
    targets = [stand_in(*place) for place in places]
    regions = plan(targets, (1000, 1000))
    assert sorted(sorted(region.members) for region in regions) == sorted(sorted(group) for group in members)
    for region in regions:
        assert region.cost < len(region.members) * 288**2 and all((side - 288) % STEP == 0 for side in region.size)
        assert (region.firsts >= 0).all() and (16 * region.firsts + 288 <= region.size).all()


def test_windows_move_into_the_image_but_keep_room_around_the_target():
    """Image of 640 x 480, targets of 57.6 pixels (scale 1): one in the corner, one in the middle of the left edge."""
    corner, edge = stand_in(10, 12, 57.6), stand_in(240, 30, 57.6)
    region = region_of((0, 1), [corner, edge], (480, 640))
    starts = region.low + 16 * region.firsts
    for target, start in zip((corner, edge), starts):
        middle = target.position + 0.5
        assert (middle - start >= ROOM * 57.6 - 9).all() and (start + 288 - middle >= ROOM * 57.6 - 9).all()
    assert abs(starts[1, 1] - (30.5 - ROOM * 57.6)) <= 9  # not 30.5 - 144: nothing is to be seen left of the image


@pytest.mark.parametrize("share", [True, False])
def test_one_target_is_tracked_as_alone(net, share):
    tracker = MultiTracker(net, PARAMS, share)
    tracker.add(FRAMES[0], BOXES[0], 5)
    got = [tracker.update(frame)[0].box_xywh for frame in FRAMES[1:3]]
    assert np.array_equal(got, boxes_of(net, BOXES[0], 5, FRAMES[:3]))


def test_sharing_targets_stay_near_those_apart():
    """The network that ships, two coloured squares of 60 pixels: other search regions give almost the same boxes."""
    images, truth = bench.moving_squares(3, (320, 240), 2, 60)
    apart = MultiTracker.from_pretrained()
    shared = MultiTracker(apart.net, apart.params, share=True)
    for box in truth[0]:
        assert apart.add(images[0], box) == shared.add(images[0], box)
    for frame in images[1:]:
        first, second = apart.update(frame), shared.update(frame)
    for k in first:
        assert first[k].search_xywh[2] != second[k].search_xywh[2] and first[k].score_map.shape == (19, 19)
        assert iou_xywh(torch.tensor(first[k].box_xywh), torch.tensor(second[k].box_xywh)) > 0.75
