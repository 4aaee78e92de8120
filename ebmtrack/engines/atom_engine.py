"""ATOM's classifier in the place of the network's own, on PyTorch; backbone and box branch are the network's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ebmtrack.engines.base import EngineInfo, FirstFrame, TargetModel, TrainedOn
from ebmtrack.engines.torch_energy import TargetEnergy
from ebmtrack.engines.torch_engine import TorchEngine, TorchRegion, TorchTarget, pad_to_capacity
from ebmtrack.nets.atom_classifier import AtomClassifier, correlate, normalize, project, score_pixels
from ebmtrack.nets.classifier import FEATURE_STRIDE
from ebmtrack.nets.inference import InferenceNet


@dataclasses.dataclass
class AtomTarget(TorchTarget):
    """A target's model: `samples` are projected features (capacity, p, h, w), `projection` is (p, c, 1, 1)."""

    projection: Tensor

    def __deepcopy__(self, memo: dict) -> AtomTarget:
        return dataclasses.replace(self, samples=self.samples.clone(), boxes_xyxy=self.boxes_xyxy.clone())


class AtomEngine(TorchEngine):
    """A network whose layer3 features ATOM's classifier reads; its score maps have a score for each crop pixel.

    `FirstFrame.iterations` are rounds of Gauss-Newton, the iterations of `learn` those of conjugate gradient. The
    classifier begins at the same random numbers for every target.
    """

    def __init__(self, net: InferenceNet, trained_on: TrainedOn | None = None, source_sha256: str = ""):
        super().__init__(net, trained_on, source_sha256)
        self.classifier = AtomClassifier.create(net.backbone.channels[1])

    @property
    def info(self) -> EngineInfo:
        """Return what the tracker must know of the network."""
        return dataclasses.replace(super().info, classifier="atom", channels=self.net.backbone.channels[1])

    def classify(self, layer3: Tensor) -> Tensor:
        """Return the classification features (N, c, h, w) of N images, float32."""
        return normalize(layer3.float()).contiguous()

    def classify_each(self, layer3: Tensor) -> list[Tensor]:
        """Return the classification features (1, c, h, w) of each of N images."""
        return [self.classify(each) for each in layer3.split(1)]

    def target_of(self, energy: TargetEnergy, samples: Tensor, boxes_xyxy: Tensor, first: FirstFrame) -> AtomTarget:
        """Return the model that is learned from samples (n, c, h, w) and boxes (n, 4) of a first frame."""
        with torch.inference_mode(False), torch.no_grad():
            samples, boxes = samples.clone(), boxes_xyxy.clone()
            filter, projection = self.classifier.learn(samples, boxes, first.iterations)
            projected = pad_to_capacity(project(projection, samples), first.capacity)
            return AtomTarget(energy, filter, projected, pad_to_capacity(boxes, first.capacity), projection)

    def scores(self, target: TargetModel, features: Tensor) -> Tensor:
        """Return the scores (side, side) of all pixels of the crop, without phi."""
        scores = correlate(target.filter, project(target.projection, features))
        return score_pixels(scores[0], FEATURE_STRIDE)

    @torch.no_grad()
    def remember(self, target: TargetModel, slot: int, region: TorchRegion, box_xyxy: np.ndarray) -> None:
        """Store a search region's projected features as a sample."""
        target.samples[slot] = project(target.projection, region.classification.clone())[0]
        target.boxes_xyxy[slot] = torch.from_numpy(box_xyxy)

    @torch.no_grad()
    def learn(self, target: TargetModel, weights: np.ndarray, iterations: int) -> None:
        """Improve a target's filter on its stored samples."""
        n = len(weights)
        sample_weights = torch.from_numpy(weights).to(target.samples)
        target.filter = self.classifier.update(
            target.filter, target.samples[:n], target.boxes_xyxy[:n], sample_weights, iterations
        )

    def pack(self, target: TargetModel, region: TorchRegion) -> dict[str, np.ndarray]:
        """Return the arrays of a target's model and of one region's features, with the projection (p, c, 1, 1)."""
        return super().pack(target, region) | {"projection": target.projection.detach().cpu().numpy()}

    @torch.no_grad()
    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[AtomTarget, TorchRegion]:
        """Return a target's model and a region's features from their arrays."""
        projection = torch.from_numpy(arrays["projection"].copy()).to(self.net.device)
        target, region = super().unpack(arrays)
        return AtomTarget(target.energy, target.filter, target.samples, target.boxes_xyxy, projection), region
