"""The DiMP-18 network against numbers that another implementation produced, and ResNet-50 against torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision

from ebmtrack.boxes import xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.nets.backbone import ResNetTrunk, fold_batch_norm, normalize_images
from ebmtrack.nets.classifier import apply_filter
from ebmtrack.nets.tracker_net import ARCHITECTURES, TrackerNet
from tests.support.golden import DATA, arrays, dimp18, fill, image, relative_error

GOLDEN = arrays("dimp18")
TRAIN_BOXES = torch.tensor([[100.0, 120, 80, 60], [110, 115, 84, 63], [90, 130, 76, 57]])


def images(*names: str) -> torch.Tensor:
    """Normalised images (N, 3, 288, 288)."""
    return normalize_images(torch.stack([torch.from_numpy(image(name, 288, 288)).permute(2, 0, 1) for name in names]))


@pytest.fixture(scope="module")
def train_features():
    with torch.no_grad():
        return dimp18().feature_extractor(images("train0", "train1", "train2"))


@pytest.fixture(scope="module")
def test_features():
    with torch.no_grad():
        return dimp18().feature_extractor(images("test0", "test1"))


@pytest.fixture(scope="module")
def filters(train_features):
    with torch.no_grad():
        features = dimp18().classifier.features(train_features[1])
        return dimp18().classifier.learn(features[:, None], xywh_to_xyxy(TRAIN_BOXES)[:, None], iterations=10)


def test_backbone(train_features):
    layer2, layer3 = train_features
    assert relative_error(layer2[0, ::8, ::3, ::3], GOLDEN["backbone/layer2"]) < 1e-4
    assert relative_error(layer3[0, ::16, ::2, ::2], GOLDEN["backbone/layer3"]) < 1e-4


def test_classifier_features(train_features):
    features = dimp18().classifier.features(train_features[1])
    assert relative_error(features[0, ::16, ::2, ::2], GOLDEN["classifier/features"]) < 1e-4


@pytest.mark.parametrize("name, index", [("filter_init", 0), ("filter_1", 1), ("filter_5", 5), ("filter_10", 10)])
def test_filter_iterates(filters, name, index):
    assert relative_error(filters[index], GOLDEN[f"classifier/{name}"]) < 1e-4


@torch.no_grad()
def test_weighted_steps(train_features):
    """Started from the golden filter: near the optimum g is a small difference of large terms, so that the last bits
    of the ten steps before would show up a hundredfold (float32 against float64 from our own filter: 4e-5)."""
    net = dimp18().classifier
    features = net.features(train_features[1])[:, None]
    weights = torch.tensor([0.5, 0.3, 0.2])[:, None]
    got = net.filter_optimizer(
        GOLDEN["classifier/filter_10"], features, xywh_to_xyxy(TRAIN_BOXES)[:, None], weights, 2
    )[-1]
    assert relative_error(got, GOLDEN["classifier/filter_10_then_2_weighted"]) < 1e-4


@torch.no_grad()
def test_scores(test_features, filters):
    scores = apply_filter(dimp18().classifier.features(test_features[1])[:, None], filters[-1])
    assert relative_error(scores, GOLDEN["classifier/scores"]) < 1e-4


@pytest.fixture(scope="module")
def energy_inputs(train_features, test_features):
    net = dimp18().bb_regressor
    with torch.no_grad():
        modulation = net.modulation(train_features[0][:1], train_features[1][:1], xywh_to_xyxy(TRAIN_BOXES[:1]))
        return modulation, net.features(test_features[0][:1], test_features[1][:1])


def test_modulation_and_box_features(energy_inputs):
    (first, second), (features3, features4) = energy_inputs
    assert relative_error(first[0], GOLDEN["energy/modulation_stride8"]) < 1e-4
    assert relative_error(second[0], GOLDEN["energy/modulation_stride16"]) < 1e-4
    assert relative_error(features3[0, ::16, ::3, ::3], GOLDEN["energy/test_features_stride8"]) < 1e-4
    assert relative_error(features4[0, ::16, ::2, ::2], GOLDEN["energy/test_features_stride16"]) < 1e-4


def test_energies_and_gradient(energy_inputs):
    boxes = GOLDEN["energy/boxes_xywh"].clone().requires_grad_()
    energies = dimp18().bb_regressor(*energy_inputs, xywh_to_xyxy(boxes)[None])[0]
    (gradient,) = torch.autograd.grad(energies.sum(), boxes)
    assert relative_error(energies, GOLDEN["energy/values"]) < 1e-4
    assert relative_error(gradient, GOLDEN["energy/grad_xywh"]) < 1e-4


@torch.no_grad()
def test_folding_changes_nothing(train_features):
    folded = fold_batch_norm(fill(TrackerNet("dimp18"), {k: v for k, v in dimp18().state_dict().items()}))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    for got, expected in zip(folded.feature_extractor(images("train0")), train_features):
        assert relative_error(got, expected[:1]) < 1e-4


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_trunk_equals_torchvision(name):
    """The trunk is torchvision's network up to layer3, with the same names."""
    trunk = fill(ResNetTrunk(name))
    reference = getattr(torchvision.models, name)(weights=None).eval()
    missing = reference.load_state_dict(trunk.state_dict(), strict=False).missing_keys
    assert all(key.startswith(("layer4", "fc")) for key in missing)
    x = images("test0")[:, :, :96, :64]
    y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
    layer2 = reference.layer2(reference.layer1(y))
    got = trunk(x)
    assert torch.equal(got[0], layer2) and torch.equal(got[1], reference.layer3(layer2))


LISTINGS = [("dimp18", "dimp18"), ("dimp50", "super_dimp"), ("super_dimp", "super_dimp")]


@pytest.mark.parametrize("name, listing", LISTINGS)
def test_entries_are_those_of_pytracking(name, listing):
    """Keys and shapes equal the published listing, except layer4 and fc, which are never built."""
    rows = [line.split("\t") for line in (DATA / f"{listing}_state_dict.txt").read_text().splitlines()]
    unused = ("feature_extractor.layer4", "feature_extractor.fc")
    expected = {row[0]: row[1] for row in rows if not row[0].startswith(unused)}
    with torch.device("meta"):
        net = TrackerNet(name)
    assert {key: str(tuple(value.shape)) for key, value in net.state_dict().items()} == expected


@pytest.mark.parametrize(
    "name, published",
    [("dimp18", 19_645_911), ("prdimp18", 19_645_611), ("super_dimp", 43_097_303), ("prdimp50", 43_097_003)],
)
def test_parameter_counts(name, published):
    """pytracking's counts include layer4 and fc: of ResNet-18 8,906,728 - 0, of ResNet-50 17,013,736 - 0 parameters."""
    config = ARCHITECTURES[name]
    with torch.device("meta"):
        unused = getattr(torchvision.models, config.backbone)(weights=None)
        ours = sum(p.numel() for p in TrackerNet(name).parameters())
    assert ours + sum(p.numel() for part in (unused.layer4, unused.fc) for p in part.parameters()) == published


def test_box_conversions_return(energy_inputs):
    boxes = GOLDEN["energy/boxes_xywh"]
    assert torch.allclose(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes)
