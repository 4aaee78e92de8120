"""Networks on disk: round trips are exact, metadata and hash hold, a bad file is a CheckpointError and no more."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import OrderedDict
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from ebmtrack.checkpoints import native as checkpoint
from ebmtrack.checkpoints.native import (
    architecture_name,
    backbone_weights,
    load_checkpoint,
    read_metadata,
    resolve_weights,
    save_checkpoint,
    tensors_sha256,
)
from ebmtrack.checkpoints.untrusted import build_net, kind_of
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.nets.backbone import ResNetTrunk, fold_batch_norm
from ebmtrack.nets.tracker_net import ARCHITECTURES, NetConfig, TrackerNet
from tests.support.golden import dimp18

RUN = {"data": "pool", "steps": 7, "seed": 3}


def same_entries(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Same names in the same order, same types, same bits."""
    first, second = a.state_dict(), b.state_dict()
    pairs = zip(first.values(), second.values())
    return list(first) == list(second) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The golden network in float16 and float32."""
    folder = tmp_path_factory.mktemp("weights")
    for dtype, name in ((torch.float16, "half"), (torch.float32, "full")):
        save_checkpoint(folder / f"{name}.safetensors", dimp18(), run=RUN, settings={"params": "x"}, dtype=dtype)
    return folder


def rewritten(saved, path, tensors=None, **changes):
    """The float32 file with other tensors (and their right hash) or other metadata."""
    metadata = read_metadata(saved / "full.safetensors")
    tensors = {} if tensors is None else tensors
    metadata |= {"sha256": tensors_sha256(tensors), **changes}
    save_file(tensors, path, {"ebmtrack": json.dumps(metadata)})
    return path


def test_float32_returns_to_the_bit(saved):
    net = load_checkpoint(saved / "full.safetensors")
    assert same_entries(net, dimp18())
    assert net.config == dimp18().config
    assert not net.training and all(p.requires_grad for p in net.parameters())


def test_metadata(saved):
    metadata = read_metadata(saved / "half.safetensors")
    assert metadata["architecture"] == "dimp18" and metadata["dtype"] == "float16"
    assert metadata["run"] == RUN and metadata["settings"] == {"params": "x"}
    assert NetConfig(**metadata["config"]) == ARCHITECTURES["dimp18"]
    assert metadata["sha256"] == tensors_sha256(load_file(saved / "half.safetensors"))


def test_float16_rounds_once_and_keeps_small_tensors(saved):
    """Rounding to 11 significant bits is off by at most 2^-11 of the value (2^-25 below the normal range); what has
    one axis, and the filter optimiser, is exact; the file has two bytes a weight: 10.7 M weights, 21.6 MB."""
    net = load_checkpoint(saved / "half.safetensors")
    for (name, got), expected in zip(net.state_dict().items(), dimp18().state_dict().values()):
        assert got.dtype == expected.dtype
        if got.dim() < 2 or "filter_optimizer" in name:
            assert torch.equal(got, expected), name
        else:
            assert ((got - expected).abs() <= expected.abs() * 2**-11 + 2**-25).all(), name
            assert not torch.equal(got, expected), name
    assert 20e6 < (saved / "half.safetensors").stat().st_size < 22e6


def test_float16_keeps_what_overflows(tmp_path):
    """70,000 is beyond float16's largest number, 65,504."""
    net = build_net(ARCHITECTURES["dimp18"], dimp18().state_dict(), "copy")
    with torch.no_grad():
        net.bb_regressor.iou_predictor.weight[0, 0] = 70_000
    save_checkpoint(tmp_path / "a.safetensors", net, run={}, dtype=torch.float16)
    tensors = load_file(tmp_path / "a.safetensors")
    assert tensors["bb_regressor.iou_predictor.weight"].dtype == torch.float32
    assert tensors["bb_regressor.fc3_rt.linear.weight"].dtype == torch.float16


def test_same_network_same_bytes(saved, tmp_path):
    """However the network lies in memory."""
    net = build_net(ARCHITECTURES["dimp18"], dimp18().state_dict(), "copy").to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "b.safetensors", net, run=RUN, settings={"params": "x"}, dtype=torch.float16)
    assert (tmp_path / "b.safetensors").read_bytes() == (saved / "half.safetensors").read_bytes()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_names(name):
    config = ARCHITECTURES[name]
    assert architecture_name(config) == name
    assert architecture_name(dataclasses.replace(config, label_sigma=config.label_sigma * (1 + 1e-8))) == name
    assert architecture_name(dataclasses.replace(config, label_sigma=0.8)) == "custom"


def test_hash_sees_names_shapes_types_and_values():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(())}
    variants = [
        {"a": torch.zeros(3, 2), "b": torch.ones(())},
        {"a": torch.zeros(2, 3), "c": torch.ones(())},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(())},
        {"a": torch.full((2, 3), -0.0), "b": torch.ones(())},
    ]
    assert tensors_sha256(dict(reversed(base.items()))) == tensors_sha256(base)
    assert tensors_sha256({"a": torch.zeros(3, 2).T, "b": torch.ones(())}) == tensors_sha256(base)
    assert len({tensors_sha256(v) for v in [base, *variants]}) == 5


def test_saving_refuses_what_could_not_be_used(tmp_path):
    net = build_net(ARCHITECTURES["dimp18"], dimp18().state_dict(), "copy")
    with pytest.raises(ConfigError, match="bfloat16"):
        save_checkpoint(tmp_path / "a.safetensors", net, run={}, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="JSON"):
        save_checkpoint(tmp_path / "a.safetensors", net, run={"loss": float("nan")})
    net.bb_regressor.iou_predictor.bias.data.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="iou_predictor.bias holds NaN"):
        save_checkpoint(tmp_path / "a.safetensors", net, run={})
    with pytest.raises(CheckpointError, match="does not fit the network"):
        save_checkpoint(tmp_path / "a.safetensors", fold_batch_norm(net), run={})
    assert not list(tmp_path.iterdir())


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_checkpoint(saved / "half.safetensors")
    assert torch.equal(torch.rand(1), expected)


def test_damaged_tensors_fail_the_hash(saved, tmp_path):
    data = bytearray((saved / "half.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="a.safetensors: damaged"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_truncated_anywhere(saved, tmp_path):
    path = tmp_path / "a.safetensors"
    data = (saved / "half.safetensors").read_bytes()
    path.write_bytes(data)
    header = int.from_bytes(data[:8], "little")
    for size in (len(data) - 1, len(data) // 2, 8 + header, 7 + header, header // 2, 100, 9, 8, 7, 1, 0):
        os.truncate(path, size)
        with pytest.raises(CheckpointError, match="a.safetensors"):
            load_checkpoint(path)
        with pytest.raises(CheckpointError, match="a.safetensors"):
            read_metadata(path)


NO_WEIGHTS = {
    "empty": (b"", "an empty file"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(99), "a JPEG picture"),
    "text": (b"hello, I am a text file", "starts with b'hello, I'"),
    "page": (b"<html>404</html>", "a web page"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(99), "a gzip archive"),
    "huge header": ((2**62).to_bytes(8, "little") + b"{}", "safetensors"),
    "no json": ((10).to_bytes(8, "little") + b"{not json!", "safetensors"),
    "header of 128 bytes": (
        (128).to_bytes(8, "little") + b"{" + b" " * 126 + b"}",
        "not written by ebmtrack",
    ),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_files_of_other_kinds(tmp_path, name):
    content, message = NO_WEIGHTS[name]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    for read in (load_checkpoint, read_metadata):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_pytorch_file_is_sent_to_convert(tmp_path):
    torch.save({}, tmp_path / "a.pth.tar")
    with pytest.raises(CheckpointError, match="ebmtrack convert"):
        load_checkpoint(tmp_path / "a.pth.tar")


CONFIG = dataclasses.asdict(ARCHITECTURES["dimp18"])
BAD_METADATA = {
    "later version": ({"format_version": 2}, "format version 2"),
    "no version": ({"format_version": None}, "format version None"),
    "no run": ({"run": None}, "lack a proper run"),
    "config no dict": ({"config": [1]}, "lack a proper config"),
    "unknown field": ({"config": {**CONFIG, "depth": 3}}, "depth"),
    "missing field": ({"config": {k: v for k, v in CONFIG.items() if k != "alpha_eps"}}, "alpha_eps"),
    "number as text": ({"config": {**CONFIG, "filter_size": "4"}}, "filter_size of its network is '4'"),
    "bool as number": ({"config": {**CONFIG, "filter_size": True}}, "filter_size of its network is True"),
    "huge": ({"config": {**CONFIG, "classifier_blocks": 10**9}}, "classifier_blocks"),
    "nan": ({"config": {**CONFIG, "label_sigma": float("nan")}}, "label_sigma of its network is nan"),
    "backbone": ({"config": {**CONFIG, "backbone": "vgg"}}, "unknown backbone 'vgg'"),
    "no text": ({"config": {**CONFIG, "backbone": [1]}}, r"backbone of its network is \[1\]"),
    "optimizer": ({"config": {**CONFIG, "filter_optimizer": "adam"}}, "unknown filter_optimizer 'adam'"),
    "hash": ({"sha256": "0" * 64}, "damaged"),
    "no tensors": ({}, "lacks 'feature_extractor.conv1.weight', .* and 158 more"),
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_bad_metadata(saved, tmp_path, name):
    """DiMP-18 has 189 entries, 28 of them counters that may be missing: 161 are, of which three are named."""
    changes, message = BAD_METADATA[name]
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(rewritten(saved, tmp_path / "a.safetensors", **changes))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '"' + "x" * 99])
def test_metadata_that_is_no_json_object(tmp_path, text):
    save_file({}, tmp_path / "a.safetensors", {"ebmtrack": text})
    with pytest.raises(CheckpointError, match="JSON|format version"):
        read_metadata(tmp_path / "a.safetensors")


def test_tensors_of_another_network(saved, tmp_path):
    tensors = load_file(saved / "half.safetensors")
    config = dataclasses.asdict(ARCHITECTURES["prdimp18"])
    with pytest.raises(CheckpointError, match="has unknown 'classifier.filter_optimizer.label_map_predictor.weight'"):
        load_checkpoint(rewritten(saved, tmp_path / "a.safetensors", tensors, config=config))
    save_file({"weight": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="not written by ebmtrack"):
        load_checkpoint(tmp_path / "b.safetensors")


NAME = "bb_regressor.iou_predictor.bias"
BAD_ENTRIES = {
    "shape": (torch.zeros(2), rf"{NAME} has shape \(2,\), expected \(1,\)"),
    "type": (torch.zeros(1, dtype=torch.int32), f"{NAME} is torch.int32, expected torch.float32"),
    "nan": (torch.tensor([torch.nan]), f"{NAME} holds NaN"),
    "overflow": (torch.tensor([1e300], dtype=torch.float64), f"{NAME} holds NaN or infinite"),
    "no tensor": ([1.0], f"{NAME} is no ordinary tensor"),
    "sparse": (torch.zeros(1).to_sparse(), f"{NAME} is no ordinary tensor"),
    "meta": (torch.zeros(1, device="meta"), f"{NAME} is no ordinary tensor"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_bad_entries(name):
    value, message = BAD_ENTRIES[name]
    with pytest.raises(CheckpointError, match=f"somewhere: .*{message}"):
        build_net(ARCHITECTURES["dimp18"], {**dimp18().state_dict(), NAME: value}, "somewhere")


def test_network_owns_its_tensors():
    """Writing to a loaded network changes neither the source nor, where entries share memory, another entry."""
    source = {name: value.clone() for name, value in dimp18().state_dict().items()}
    source["bb_regressor.fc3_rt.linear.bias"] = source["bb_regressor.fc4_rt.linear.bias"] = torch.zeros(()).expand(256)
    net = build_net(ARCHITECTURES["dimp18"], source, "copy")
    with torch.no_grad():
        net.bb_regressor.fc3_rt.linear.bias[0] = 1
    assert net.bb_regressor.fc3_rt.linear.bias.sum() == 1
    assert net.bb_regressor.fc4_rt.linear.bias.sum() == 0 and source["bb_regressor.fc3_rt.linear.bias"].sum() == 0


def test_default_weights_and_names(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(checkpoint.packaged, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(CheckpointError, match=r"no weights 'ebm18_small'.*\(none\); train them with"):
        resolve_weights()
    with pytest.raises(CheckpointError, match="a folder without network.json, so not an exported network"):
        resolve_weights(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "network.json").touch()
    with pytest.raises(CheckpointError, match="an exported network, which runs on ONNX Runtime"):
        resolve_weights(tmp_path / "out")
    (tmp_path / "ebm18_small.safetensors").touch()
    assert resolve_weights() == resolve_weights(None) == resolve_weights("ebm18_small")
    assert resolve_weights() == tmp_path / "ebm18_small.safetensors"
    (tmp_path / "own.safetensors").touch()
    assert resolve_weights(tmp_path / "own.safetensors") == tmp_path / "own.safetensors"
    with pytest.raises(CheckpointError, match=r"ebm18_small, own\); give the path of a .safetensors file .*exported"):
        resolve_weights("nothing")
    with pytest.raises(CheckpointError, match="train them with `ebmtrack train ebm_lite` and give the path of"):
        resolve_weights("ebm_lite")
    for path in ("nothing.safetensors", "folder/nothing"):
        with pytest.raises(CheckpointError, match=f"{path}: no such file"):
            resolve_weights(path)


def resnet_entries(name: str) -> dict[str, torch.Tensor]:
    """A whole torchvision ResNet, each entry one stored number."""
    with torch.device("meta"):
        entries = getattr(torchvision.models, name)(weights=None).state_dict()
    return {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in entries.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_backbone_from_torchvision_file(tmp_path, name):
    """Both containers; layer4 and fc are left out; what remains loads strictly."""
    with torch.device("meta"):
        trunk = ResNetTrunk(name)
    for zipped in (True, False):
        torch.save(OrderedDict(resnet_entries(name)), tmp_path / "r.pth", _use_new_zipfile_serialization=zipped)
        trunk.load_state_dict(backbone_weights(tmp_path / "r.pth"), strict=True, assign=True)
        assert trunk.layer3[0].conv1.weight.eq(1).all()


def test_backbone_without_counters_and_from_safetensors(tmp_path):
    """Files from before 2018 have no num_batches_tracked: it is 0, and the trunk still loads strictly."""
    entries = dimp18().feature_extractor.state_dict()
    old = {name: value for name, value in entries.items() if not name.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "r.safetensors")
    got = backbone_weights(tmp_path / "r.safetensors")
    assert list(got) == list(entries)
    assert all(torch.equal(got[name], value) for name, value in entries.items())


def test_backbone_of_another_network(tmp_path):
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match="lacks 'conv1.weight'.*has unknown 'features.0.weight'"):
        backbone_weights(tmp_path / "vgg.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        backbone_weights(tmp_path / "list.pth")


def test_backbone_by_name(monkeypatch):
    """A name means torchvision's weights; without a network the error says what to do instead."""
    asked = []

    def download(url, **options):
        asked.append(url)
        assert options["check_hash"] and options["weights_only"]
        return resnet_entries("resnet18")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    assert "layer3.1.conv2.weight" in backbone_weights("resnet18") and "resnet18" in asked[0]

    def offline(url, **options):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match="cannot fetch https://.*no network.*give the file"):
        backbone_weights("resnet18")


def test_kind_of_looks_at_the_content(saved, tmp_path):
    torch.save({}, tmp_path / "zip.safetensors")
    torch.save({}, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    assert kind_of(tmp_path / "zip.safetensors") == kind_of(tmp_path / "old.safetensors") == "torch"
    assert kind_of(saved / "full.safetensors") == "safetensors"


def test_loaded_network_computes_the_same(saved):
    """Same features as the network in memory, to the bit, and in half precision to about 1e-3."""
    x = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        expected = dimp18().feature_extractor(x)[1]
        full = load_checkpoint(saved / "full.safetensors").feature_extractor(x)[1]
        half = load_checkpoint(saved / "half.safetensors").feature_extractor(x)[1]
    assert isinstance(load_checkpoint(saved / "full.safetensors"), TrackerNet)
    assert torch.equal(full, expected)
    assert (half - expected).abs().max() < 5e-3 * expected.abs().max()
