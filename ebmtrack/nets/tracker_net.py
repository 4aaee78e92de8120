"""The tracker network: backbone, target classifier and box energy together, and the family's architectures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name
from ebmtrack.nets.backbones import build_trunk
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.classifier import NewtonDescent, SteepestDescent, TargetClassifier, apply_filter

Layers: TypeAlias = tuple[Tensor, ...]
"""Layer2, layer3 and classification features of the same images."""


@dataclasses.dataclass(frozen=True)
class NetConfig:
    """The facts of a network that the tensors of a checkpoint do not say; defaults are those of DiMP-18."""

    backbone: str = "resnet18"
    classifier_channels: int = 256
    classifier_blocks: int = 1
    filter_size: int = 4
    filter_optimizer: str = "dimp"  # "dimp": SteepestDescent, "prdimp": NewtonDescent
    optimizer_iterations: int = 5
    initial_step: float = 0.9
    initial_regularization: float = 0.1
    minimum_regularization: float = 1e-3
    alpha_eps: float = 0.0
    label_sigma: float = 0.9  # in feature cells: 1/4 of the target at search factor 5 and 18 cells
    box_width: int = 256  # of the box branch


ARCHITECTURES = {
    "dimp18": NetConfig(),
    "dimp50": NetConfig("resnet50", 512, 0),
    "super_dimp": NetConfig("resnet50", 512, 0, label_sigma=0.25 / 6 * 22),
    "prdimp18": NetConfig("resnet18", 256, 1, 4, "prdimp", 5, 1.0, 0.05, 0.05, 0.05, 0.9),
    "prdimp50": NetConfig("resnet50", 512, 0, 4, "prdimp", 5, 1.0, 0.05, 0.05, 0.05, 0.9),
    "ebm_lite": NetConfig("efficientnet_lite0", 112, 0, box_width=128),
    "ebm_lite2": NetConfig("efficientnet_lite2", 256, 0),
}


class TrackerNet(nn.Module):
    """Backbone -> (classifier, box energy). Entries are named as in pytracking's DiMPnet, without layer4 and fc."""

    def __init__(self, config: NetConfig | str = "dimp18"):
        super().__init__()
        self.config = config = architecture(config) if isinstance(config, str) else config
        self.feature_extractor: Any = build_trunk(config.backbone)  # of any kind, with stages of its own
        channels = cast(Any, self.feature_extractor).channels
        optimizer = _filter_optimizer(config)
        self.classifier = TargetClassifier(
            channels[1], config.classifier_channels, config.classifier_blocks, optimizer, config.filter_size
        )
        self.bb_regressor = BoxEnergy(channels, config.box_width)
        if config.filter_optimizer == "prdimp":
            nn.init.zeros_(self.classifier.filter_initializer.filter_conv.weight)  # PrDiMP (pytracking)

    def forward(
        self,
        train_images: Tensor,
        train_boxes_xyxy: Tensor,
        test_images: Tensor,
        candidate_boxes_xyxy: Tensor,
        apart: bool = True,
    ) -> tuple[list[Tensor], Tensor]:
        """Do one training pass over s sequences with n train and t test images each.

        The first train image modulates the box branch (ATOM, section 3.2).

        Args:
            train_images: (n, s, 3, H, W), normalised.
            train_boxes_xyxy: (n, s, 4) in crop pixels.
            test_images: (t, s, 3, H, W), normalised.
            candidate_boxes_xyxy: (t, s, P, 4) in crop pixels.
            apart: whether train and test images go through trunk and classifier features one after the other, so that
                batch norm has the statistics of each group, as in pytracking; else all of them at once.

        Returns:
            The score maps (t, s, h', w') of every filter iterate, and the energies (t, s, P).
        """
        train, test = look_at_both(self._look, (train_images,), (test_images,), apart)
        return self.compare(train, train_boxes_xyxy, test, candidate_boxes_xyxy)

    def compare(
        self, train: Layers, train_boxes_xyxy: Tensor, test: Layers, candidate_boxes_xyxy: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Do what `forward` does, from layer2, layer3 and classification features (m, s, c, h, w) of the images."""
        scores = self._scores(train[2], train_boxes_xyxy, test[2])
        return scores, self.compare_boxes(train[:2], train_boxes_xyxy[0], test[:2], candidate_boxes_xyxy)

    def compare_boxes(
        self, train: Layers, reference_xyxy: Tensor, test: Layers, candidate_boxes_xyxy: Tensor
    ) -> Tensor:
        """Return the energies (t, s, P) of candidates, from layer2 and layer3 (m, s, c, h, w) of the images.

        The first train image modulates; the target's boxes in it are `reference_xyxy` (s, 4).
        """
        t = test[0].shape[0]
        vectors = self.bb_regressor.modulation(train[0][0], train[1][0], reference_xyxy)
        features = self.bb_regressor.features(test[0].flatten(0, 1), test[1].flatten(0, 1))
        modulation = (vectors[0].repeat(t, 1), vectors[1].repeat(t, 1))
        energies = self.bb_regressor(modulation, features, candidate_boxes_xyxy.flatten(0, 1))
        return energies.unflatten(0, test[0].shape[:2])

    def _look(self, images: Tensor) -> Layers:
        """Return layer2, layer3 and classification features (m, s, c, h, w) of images (m, s, 3, H, W)."""
        return self.with_features(*self.layers(images))

    def layers(self, images: Tensor) -> Layers:
        """Return layer2 and layer3 (m, s, c, h, w) of images (m, s, 3, H, W)."""
        layer2, layer3 = self.feature_extractor(images.flatten(0, 1))
        return layer2.unflatten(0, images.shape[:2]), layer3.unflatten(0, images.shape[:2])

    def with_features(self, layer2: Tensor, layer3: Tensor) -> Layers:
        """Return layer2, layer3 (m, s, c, h, w) and the classification features that follow from them."""
        features = self.classifier.features(layer3.flatten(0, 1))
        return layer2, layer3, features.unflatten(0, layer3.shape[:2])

    def _scores(self, train_features: Tensor, train_boxes_xyxy: Tensor, test_features: Tensor) -> list[Tensor]:
        """Return score maps of the test images for each filter iterate learned on the train images, in float32."""
        first = self.classifier.filter_initializer(train_features, train_boxes_xyxy).float()
        with torch.autocast(first.device.type, enabled=False):
            filters = self.classifier.filter_optimizer(first, train_features.float(), train_boxes_xyxy)
            return [apply_filter(test_features.float(), w) for w in filters]


def look_at_both(look: Callable[..., Layers], train: Layers, test: Layers, apart: bool = True) -> tuple[Layers, Layers]:
    """Return what `look` makes of train and of test images.

    Args:
        look: tensors (m, s, ...) of m images, such as their pixels -> layers (m, s, ...).
        train: the tensors of the train images.
        test: the tensors of the test images.
        apart: whether it looks at one after the other, so that batch norm has the statistics of each group; else at
            all of them at once.
    """
    if apart:
        return look(*train), look(*test)
    n, both = len(train[0]), look(*(torch.cat(pair) for pair in zip(train, test)))
    return tuple(layer[:n] for layer in both), tuple(layer[n:] for layer in both)


def architecture(name: str) -> NetConfig:
    """Return the configuration of a named architecture; ConfigError names the nearest one when there is none."""
    return ARCHITECTURES[check_name("architecture", name, ARCHITECTURES)]


def _filter_optimizer(config: NetConfig) -> nn.Module:
    """Return the filter optimiser that a configuration asks for."""
    kinds = {"dimp": SteepestDescent, "prdimp": NewtonDescent}
    if config.filter_optimizer not in kinds:
        raise ConfigError(f"unknown filter_optimizer {config.filter_optimizer!r}, known are {', '.join(kinds)}")
    return kinds[config.filter_optimizer](
        iterations=config.optimizer_iterations,
        initial_step=config.initial_step,
        initial_regularization=config.initial_regularization,
        minimum_regularization=config.minimum_regularization,
        label_sigma=config.label_sigma,
        alpha_eps=config.alpha_eps,
    )
