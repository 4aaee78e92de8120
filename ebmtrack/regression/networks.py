"""Backbones that turn an image into one feature vector, and the energy on such features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from ebmtrack.checkpoints.native import read_backbone
from ebmtrack.checkpoints.untrusted import fit_entries
from ebmtrack.names import check_name
from ebmtrack.nets.backbone import BLOCKS, ResNetTrunk, residual_stage

Y_LAYERS = (16, 32, 64, 128)  # units of the target's layers (ECCV 2020, supplement E)


class PooledResNet(ResNetTrunk):
    """A whole ResNet without its classifier, pooled over the image: (N, 3, H, W) -> (N, `features`)."""

    def __init__(self, name: str):
        super().__init__(name)
        block, depths = BLOCKS[name]
        self.features = 512 * block.expansion
        self.layer4 = residual_stage(block, self.channels[1], 512, depths[3], stride=2)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Return features (N, `features`) of normalised images."""
        return self.layer4(super().forward(images)[1]).mean(dim=(2, 3))


class SmallCNN(nn.Sequential):
    """Three strided convolutions and one linear layer, for small images: (N, 3, H, W) -> (N, 64)."""

    features = 64

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, self.features), nn.ReLU())


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "small": SmallCNN,
    "resnet18": lambda: PooledResNet("resnet18"),
    "resnet50": lambda: PooledResNet("resnet50"),
}


def make_trunk(name: str) -> nn.Module:
    """Return a new backbone with an attribute `features`; ConfigError for an unknown name."""
    return TRUNKS[check_name("backbone of a regression", name, TRUNKS)]()


def load_trunk_weights(trunk: nn.Module, source: str | Path) -> None:
    """Let a ResNet begin with torchvision's ImageNet weights, without its fc.

    Args:
        trunk: of `make_trunk`.
        source: .safetensors or .pth, or the name of a backbone whose weights are downloaded.
    """
    entries = {name: value for name, value in read_backbone(source).items() if not str(name).startswith("fc.")}
    trunk.load_state_dict(fit_entries(entries, trunk.state_dict(), source))


class FeatureEnergy(nn.Module):
    """An energy f(x, y) on image features: four layers for y, then two for both. Source: ECCV 2020, supplement E.

    Args:
        features: length H of the image's features.
        dims: D, numbers that are regressed.
        smooth: SiLU instead of ReLU, for losses that differentiate in y (SM would see no curvature with ReLU).
    """

    def __init__(self, features: int, dims: int, smooth: bool = False):
        super().__init__()
        activation = nn.SiLU if smooth else nn.ReLU
        layers: list[nn.Module] = []
        for inputs, outputs in zip((dims, *Y_LAYERS), Y_LAYERS):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.of_y = nn.Sequential(*layers)
        self.join = nn.Linear(features + Y_LAYERS[-1], features)
        self.activation, self.last = activation(), nn.Linear(features, 1)

    def forward(self, g: Tensor, y: Tensor) -> Tensor:
        """Return f (B, M) of features g (B, H) and y (B, M, D), or (1, M, D) if all images see the same y."""
        of_g, of_y = self.join.weight.split([g.shape[-1], Y_LAYERS[-1]], dim=1)  # no copies of g
        joined = self.of_y(y) @ of_y.T + (g @ of_g.T + self.join.bias).unsqueeze(1)
        return self.last(self.activation(joined)).squeeze(-1)


def two_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Return the papers' head: a hidden layer as wide as the features, ReLU, and the outputs."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))
