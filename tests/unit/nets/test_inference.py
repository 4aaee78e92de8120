"""The folded network against the plain modules, and the precision that is chosen."""

from __future__ import annotations

import pytest
import torch

from ebmtrack.nets import inference
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.inference import InferenceNet
from tests.support.golden import dimp18, image, relative_error


@pytest.fixture(scope="module")
def patches():
    return torch.stack([torch.from_numpy(image(name, 288, 288)) for name in ("train0", "test0")])


@pytest.fixture(scope="module")
def plain(patches):
    """Classifier features of the plain modules."""
    net = dimp18()
    with torch.no_grad():
        _, layer3 = net.feature_extractor(normalize_images(patches.permute(0, 3, 1, 2)))
        return net.classifier.features(layer3)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@torch.no_grad()
def test_inference_equals_the_modules(patches, plain, precision, tolerance):
    net = InferenceNet(dimp18(), precision=precision)
    _, layer3 = net.extract(patches)
    assert relative_error(net.classify(layer3), plain) < tolerance


@pytest.mark.parametrize("device, expected", [("cuda:0", "bfloat16"), ("cuda:1", "float32"), ("cuda:2", "bfloat16")])
def test_bfloat16_is_chosen_where_the_given_gpu_has_it(monkeypatch, device, expected):
    """An A100, which is the current device, a T4, on which PyTorch would emulate it, and an H100."""
    capabilities = {0: (8, 0), 1: (7, 5), 2: (9, 0), None: (8, 0)}
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[torch.device(device).index])
    assert inference.choose_dtype(torch.device(device), "auto") == getattr(torch, expected)
    assert inference.choose_dtype(torch.device(device), "float32") == torch.float32
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert inference.choose_dtype(torch.device(device), "auto") == torch.bfloat16
