"""Whole detectors on a tiny host: training, files, evaluation, pictures, baselines."""

from __future__ import annotations

import doctest
import json

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.detection.rpn import RegionProposalNetwork

from ebmtrack.commands import main as cli
from ebmtrack.detection import branch, refine, training
from ebmtrack.detection.baselines import BASELINES, OffsetModel
from ebmtrack.detection.coco_ap import as_content, coco_ap
from ebmtrack.detection.detector import (
    BaselineDetector,
    DetectorConfig,
    EnergyDetector,
    apply_energy,
    load_detector,
    new_detector,
    save_detector,
)
from ebmtrack.detection.host import SMALL_HOST, Boxes, Host, load_host
from ebmtrack.detection.photographs import CategoryLabels, PhotographBatches, read_photographs
from ebmtrack.detection.refine import STEP_LENGTHS
from ebmtrack.detection.running import detect_in_picture, evaluate
from ebmtrack.errors import CheckpointError, ConfigError, DatasetError
from ebmtrack.training.command import settings_for

SIZES = {"min_size": 96, "max_size": 160}


@pytest.fixture(autouse=True)
def few_regions(monkeypatch):
    """Let the host propose 40 regions of an image instead of 1000."""
    monkeypatch.setattr(RegionProposalNetwork, "post_nms_top_n", lambda network: 40)


@pytest.fixture(scope="module")
def host_file(tmp_path_factory) -> str:
    """Weights of the small host with four classes, which finds many boxes."""
    torch.manual_seed(0)
    detector = load_host(SMALL_HOST, "random").detector
    entries = {key: value.clone() for key, value in detector.state_dict().items()}
    for key in ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"):
        rows = 4 * (4 if key.endswith("pred") else 1)
        entries[f"{key}.weight"] = 0.1 * torch.randn(rows, 256)
        entries[f"{key}.bias"] = torch.zeros(rows)
    path = tmp_path_factory.mktemp("host") / "host.safetensors"
    save_file(entries, path)
    return str(path)


def config(method: str = "nce_plus", **more) -> DetectorConfig:
    return DetectorConfig(SMALL_HOST, method, **SIZES, **more)


@pytest.fixture
def coco(tmp_path):
    """Four photographs of 120 x 90 pixels with up to two boxes of the categories 3, 7 and 90."""
    rng, root = np.random.default_rng(0), tmp_path / "coco"
    boxes = {1: [(10, 10, 40, 30, 3), (60, 20, 50, 60, 90)], 2: [(5, 5, 100, 80, 7)], 3: [], 4: [(0, 0, 30, 40, 90)]}
    annotations = [
        {"id": 10 * i + j, "image_id": i, "bbox": list(b[:4]), "category_id": b[4], "area": b[2] * b[3], "iscrowd": 0}
        for i, each in boxes.items()
        for j, b in enumerate(each)
    ]
    crowd = {"id": 99, "image_id": 3, "bbox": [0, 0, 50, 50], "category_id": 3, "area": 2500, "iscrowd": 1}
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        for i in boxes:
            cv2.imwrite(str(root / split / f"{i}.png"), rng.integers(0, 255, (90, 120, 3), np.uint8))
        content = {
            "info": {},
            "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 90} for i in boxes],
            "annotations": [*annotations, crowd],
            "categories": [{"id": i, "name": f"kind {i}"} for i in (3, 7, 90)],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def images(*sizes) -> list[torch.Tensor]:
    torch.manual_seed(5)
    return [torch.rand(3, *size) for size in sizes]


def test_host_gives_boxes_before_suppression_in_input_pixels(host_file):
    """Suppression is off, the mode is that of testing, and the maps' strides are those of the pyramid."""
    host = load_host(SMALL_HOST, host_file, **SIZES).train()
    assert not host.training and not host.detector.training
    assert not any(p.requires_grad for p in host.parameters())
    maps, (first, second) = host.candidates(images((90, 120), (60, 60)))
    assert maps.strides == [4, 8, 16, 32] and host.channels == 64
    assert maps.scales_xy.flatten().tolist() == pytest.approx([128 / 120, 96 / 90, 1.6, 1.6], abs=1e-3)
    one = first.select(first.labels == 1)
    overlap = refine.box_iou(one.boxes_xyxy, one.boxes_xyxy).fill_diagonal_(0)
    assert overlap.max() > 0.5 and second.boxes_xyxy.max() <= 96.1 and len(second.scores) > 10
    alone, (again,) = host.candidates(images((90, 120)))
    torch.testing.assert_close(again.boxes_xyxy[:5], first.boxes_xyxy[:5], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(host.look(images((90, 120))).maps[1], alone.maps[1])


@pytest.mark.parametrize(
    "name",
    [
        "retinanet_resnet50_fpn",
        *(pytest.param(f"{n}_resnet50_fpn", marks=pytest.mark.slow) for n in ("fcos", "maskrcnn")),
    ],
)
def test_other_torchvision_detectors_can_be_hosts(name):
    torch.manual_seed(0)
    net = new_detector(DetectorConfig(name, "nce", 64, 64, hidden=16), "random")
    maps = net.host.look(images((40, 64)))
    assert maps.strides[0] in (4, 8) and all(each.shape[1] == 256 for each in maps.maps)
    found = Boxes(torch.tensor([[3.0, 4, 40, 30], [0, 0, 9, 9]]), torch.tensor([1, 90]), torch.tensor([0.9, 0.1]))
    assert apply_energy(net.energy, maps, found, STEP_LENGTHS["nce"]).boxes_xyxy.isfinite().all()
    assert isinstance(net(images((40, 64)))[0], Boxes)


def test_no_weights_is_a_clear_error(tmp_path, host_file, monkeypatch):
    """Names that do not exist, downloads that fail, files of other networks."""
    with pytest.raises(CheckpointError, match="--host-weights takes.*COCO_V1.*a download.*or a file of its state dict"):
        load_host("fasterrcnn_resnet50_fpn", "nothing.pth")
    with pytest.raises(CheckpointError, match="does not fit the host fasterrcnn_resnet50_fpn"):
        load_host("fasterrcnn_resnet50_fpn", host_file)
    with pytest.raises(ConfigError, match="did you mean 'fasterrcnn_resnet50_fpn'"):
        load_host("fasterrcn_resnet50_fpn")

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        CheckpointError, match="cannot fetch https.*download it on another machine.*--host-weights FILE"
    ):
        load_host("fasterrcnn_resnet50_fpn")
    with pytest.raises(ConfigError, match="is no host"):
        Host(torch.nn.Linear(1, 1))


def test_branch_starts_from_the_box_head(host_file):
    net = new_detector(config(hidden=256), host_file)
    head = net.host.detector.roi_heads.box_head
    assert torch.equal(net.energy.fc1.weight, head.fc6.weight) and torch.equal(net.energy.fc2.bias, head.fc7.bias)
    assert net.energy.scores.out_features == 4 and net.energy.scores.weight.std() < 0.0012
    assert not new_detector(config(hidden=8), host_file).energy.start_from(net.host)


def test_refinement_raises_the_energy_of_every_box(host_file):
    """The same boxes and scores come out with and without refinement, and each one's energy is at least as high."""
    net = new_detector(config(hidden=16), host_file)
    torch.manual_seed(2)
    torch.nn.init.normal_(net.energy.scores.weight)
    (before,), (after,) = (net(images((90, 120)), steps=steps) for steps in (0, 10))
    assert 3 < len(before.scores) <= 100 and before.scores.diff().max() <= 0
    assert torch.equal(before.scores, after.scores) and not torch.equal(before.boxes_xyxy, after.boxes_xyxy)
    maps, (found,) = net.host.candidates(images((90, 120)))
    starts, ends = (
        apply_energy(net.energy, maps, found, STEP_LENGTHS["nce_plus"], steps, keep=20) for steps in (0, 10)
    )
    with torch.no_grad():
        zeros = torch.zeros(20, dtype=torch.long)
        f = [net.energy(maps, each.boxes_xyxy, zeros, each.labels) for each in (starts, ends)]
    assert (f[1] >= f[0] - 1e-5).all() and (f[1] > f[0]).any()
    assert apply_energy(net.energy, maps, found.select(zeros[:0]), STEP_LENGTHS["nce"]).boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("method", ["nce_plus", "gaussian"])
def test_files_hold_the_trained_part(method, host_file, tmp_path):
    net = new_detector(config(method, hidden=16), host_file).eval()
    path = tmp_path / "net.safetensors"
    save_detector(path, net, {"steps": 3})
    again = load_detector(path, host_file)
    assert again.config == net.config and type(again) is type(net)
    torch.testing.assert_close(again(images((90, 120)))[0].boxes_xyxy, net(images((90, 120)))[0].boxes_xyxy)
    with pytest.raises(CheckpointError, match="was not written by `ebmtrack detect train`"):
        load_detector(host_file, host_file)


@pytest.mark.parametrize("method", ["nce_plus", "dsm", "cvae"])
def test_training_from_the_command_line(method, host_file, coco, tmp_path, capsys):
    """A step changes the branch alone; what is written can be evaluated and draws a picture."""
    out = tmp_path / "run"
    changes = ["min_size=96", "max_size=160", "hidden=16", "boxes=4", "steps=1", "batch=2", "warmup=1", "rate=0.1"]
    line = ["detect", "train", "--data", str(coco), "--loss", method, "--host", SMALL_HOST, "--host-weights", host_file]
    assert cli.main([*line, "--out", str(out), "--device", "cpu", "--set", *changes]) == 0
    path = out / "coco_energy.safetensors"
    changed = load_detector(path, host_file)
    assert isinstance(changed, BaselineDetector if method in BASELINES else EnergyDetector)
    capsys.readouterr()
    if method == "nce_plus":
        common = ["--host-weights", host_file, "--device", "cpu"]
        assert cli.main(["detect", "eval", str(path), "--data", str(coco), "--limit", "2", *common]) == 0
        table = capsys.readouterr().out
        assert "| AP | AP50 | AP75 |" in table and "nce_plus, refined" in table
        assert "-100" not in table and "|  |" in table  # no object is small or large
        picture = [str(coco / "val2017" / "1.png"), "--out", str(tmp_path / "x.png"), "--least-score", "0"]
        assert cli.main(["detect", "image", str(path), *picture, *common]) == 0
        assert "boxes; the picture is" in capsys.readouterr().out
        assert cv2.imread(str(tmp_path / "x.png")).shape == (90, 120, 3)


def test_training_leaves_the_host_as_it_is(host_file, coco, tmp_path):
    from ebmtrack.training.run import train

    changes = ["min_size=96", "max_size=160", "hidden=16", "boxes=4", "warmup=1", "rate=0.1"]
    chosen = {
        "host": SMALL_HOST,
        "host_weights": host_file,
        "data": coco,
        "out": tmp_path / "r",
        "steps": 1,
        "batch": 2,
        "device": "cpu",
    }
    settings = settings_for("coco_energy", chosen, changes)
    from ebmtrack.training.command import load_run

    plan = load_run("coco_energy").plan(settings)
    before = {key: value.clone() for key, value in plan.network.net.state_dict().items()}
    after = train(plan, settings).state_dict()
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"energy"}


def test_data_is_looked_for_before_the_host(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "new_detector", lambda *_: pytest.fail("the host was loaded"))
    assert cli.main(["detect", "train", "--data", str(tmp_path), "--device", "cpu", "--out", str(tmp_path / "o")]) == 2
    assert "--data is COCO's folder" in capsys.readouterr().err


def test_the_papers_schedule():
    settings = settings_for("coco_energy")
    assert (settings.batch, settings.steps, settings.drops, settings.boxes) == (16, 60_000, (40_000, 50_000), 128)
    assert doctest.testmod(training).failed == doctest.testmod(branch).failed == doctest.testmod(refine).failed == 0
    groups = training.weight_groups(torch.nn.Linear(2, 3), 0.001)
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.001, 1e-4), (0.002, 0.0)]
    assert training.BASE_RATES == {"iou_net": 0.01, "iou_net_star": 0.01} | dict.fromkeys(BASELINES, 0.005)


def test_photographs_and_labels(coco, tmp_path):
    """Crowds are left out; flipping moves boxes with the picture; labels are ids if the host has room for them."""
    found, names = read_photographs(coco / "annotations/instances_train2017.json", coco / "train2017")
    assert [len(each.boxes_xyxy) for each in found] == [2, 1, 0, 1] and names[90] == "kind 90"
    assert found[0].boxes_xyxy[1].tolist() == [60, 20, 110, 80]
    assert CategoryLabels([3, 7, 90], 91).of(np.array([90, 3])).tolist() == [90, 3]
    assert CategoryLabels([3, 7, 90], 4).of(np.array([90, 3])).tolist() == [3, 1]
    with pytest.raises(DatasetError, match="3 categories, the host 2"):
        CategoryLabels([3, 7, 90], 3)
    batches = PhotographBatches(found, CategoryLabels([3, 7, 90], 4), 60, seed=1)
    batch = batches.batch(list(range(30)))
    again = batches.batch([4])
    assert torch.equal(again["images"][0], batch["images"][4]) and len(batches) == 60
    first_epoch = [tuple(labels.tolist()) for labels in batch["labels"][:3]]
    assert sorted(first_epoch) == [(1, 3), (2,), (3,)]
    lefts = {float(b[0, 0]) for b, k in zip(batch["boxes_xyxy"], batch["labels"]) if k.tolist() == [3]}
    assert lefts == {0.0, 90.0}
    with pytest.raises(DatasetError, match="no such file|No such file"):
        read_photographs(tmp_path / "none.json", tmp_path)
    (tmp_path / "bad.json").write_text('{"images": []}')
    with pytest.raises(DatasetError, match="no annotation file of COCO's kind"):
        read_photographs(tmp_path / "bad.json", tmp_path)


@pytest.mark.parametrize("box", ["[1, 2, 30, NaN]", "[1, 2, NaN, 30]", "[NaN, 2, 30, 30]", "[1, 2, Infinity, 30]"])
def test_boxes_that_are_no_numbers_are_left_out(tmp_path, box):
    boxes = ", ".join(f'{{"image_id": 1, "category_id": 1, "bbox": {each}}}' for each in (box, "[1, 2, 30, 40]"))
    head = '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "x"}], "annotations": '
    (tmp_path / "a.json").write_text(f"{head}[{boxes}]}}")
    assert read_photographs(tmp_path / "a.json", tmp_path)[0][0].boxes_xyxy.tolist() == [[1, 2, 31, 42]]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_photograph_is_refused(tmp_path, limit):
    with pytest.raises(ConfigError, match=f"--limit must be at least 1, got {limit}"):
        evaluate(tmp_path / "none.safetensors", tmp_path, "val2017", "none.pth", limit)


def test_a_picture_is_not_written_over(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    with pytest.raises(ConfigError, match="a.png: is the picture itself"):
        detect_in_picture(tmp_path / "none.safetensors", tmp_path / "a.png", tmp_path / "a.png", "none.pth", 0.5)
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_average_precision_of_known_cases(coco):
    """Perfect boxes have AP 1; boxes with overlap 0.64 count up to 0.6: three of ten thresholds; nothing found is 0."""
    found, _ = read_photographs(coco / "annotations/instances_val2017.json", coco / "val2017")
    labels = CategoryLabels([3, 7, 90], 4)
    perfect = {
        each.id: Boxes(torch.tensor(each.boxes_xyxy), labels.of(each.category_ids), torch.ones(len(each.boxes_xyxy)))
        for each in found
    }
    path = coco / "annotations/instances_val2017.json"
    assert coco_ap(path, perfect, labels)["AP"] == pytest.approx(1)
    shrunk = {}
    for key, boxes in perfect.items():
        low, size = boxes.boxes_xyxy[:, :2], boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
        shrunk[key] = Boxes(torch.cat([low, low + 0.8 * size], dim=1), boxes.labels, boxes.scores)
    figures = coco_ap(as_content(found), shrunk, labels)
    assert (figures["AP"], figures["AP50"], figures["AP75"]) == pytest.approx((0.3, 1, 0))
    assert coco_ap(path, {each.id: perfect[3] for each in found}, labels)["AP"] == 0


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_learn_a_conditional_mean(name):
    """Offsets are a linear function of the features, another one for each class, with noise."""
    torch.manual_seed(0)
    features, labels = torch.randn(600, 6), torch.arange(600) % 2 + 1
    slopes = torch.randn(3, 6, 4)
    offsets = torch.einsum("rf,rfd->rd", features, slopes[labels]) + 0.1 * torch.randn(600, 4)
    model = OffsetModel(name, 6, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range({"cvae": 40, "gaussian": 300}.get(name, 150)):
        optimizer.zero_grad()
        loss = model.loss(features, offsets, labels, generator)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    error = model.mean(features)[torch.arange(600), labels] - offsets
    assert losses[-1] < losses[0] and error.square().mean() < 0.5 * offsets.square().mean()
    if name == "gaussian":
        assert error.std() < 0.13 and losses[-1] == pytest.approx(4 * (1 + 2 * np.log(0.1)), abs=1.5)
