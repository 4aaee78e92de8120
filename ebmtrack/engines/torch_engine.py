"""The engine on PyTorch: any device, float32 or bfloat16."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ebmtrack.checkpoints.native import load_checkpoint, read_metadata, resolve_weights, tensors_sha256
from ebmtrack.device import pick_device
from ebmtrack.engines.base import (
    Ascent,
    Climb,
    EngineInfo,
    FirstFrame,
    InnerLook,
    Look,
    Mark,
    OneProcess,
    Sight,
    TrainedOn,
    check_same_network,
    no_mark,
    read_trained_on,
)
from ebmtrack.engines.box_ascent import climb_boxes
from ebmtrack.engines.torch_box_features import BoxFeatures
from ebmtrack.engines.torch_energy import EnergyMap, JointEnergy, TargetEnergy, target_energy
from ebmtrack.nets.classifier import FEATURE_STRIDE, apply_filter
from ebmtrack.nets.inference import InferenceNet


@dataclasses.dataclass
class TorchTarget:
    """A target's model on the network's device.

    energy: the energy branch with the target's modulation. filter: (1, c, k, k). samples: (capacity, c, h, w)
    classification features; boxes_xyxy: (capacity, 4), the target in each of them.
    """

    energy: TargetEnergy
    filter: Tensor
    samples: Tensor
    boxes_xyxy: Tensor

    def __deepcopy__(self, memo: dict) -> TorchTarget:
        return TorchTarget(self.energy, self.filter, self.samples.clone(), self.boxes_xyxy.clone())


@dataclasses.dataclass(frozen=True)
class TorchRegion:
    """A search region's features on the network's device.

    energy: the target's energy in this region. classification: (1, c, h, w) float32.
    """

    energy: EnergyMap
    classification: Tensor

    def __deepcopy__(self, memo: dict) -> TorchRegion:
        return self


class TorchEngine(OneProcess):
    """A network of PyTorch as the tracker uses it; see `ebmtrack.engines.base.Engine` for the methods.

    Convolutions, filters and pooled products run on the network's device; the arithmetic of the few boxes runs on the
    CPU.
    """

    def __init__(self, net: InferenceNet, trained_on: TrainedOn | None = None, source_sha256: str = ""):
        self.net, self.trained_on, self.source_sha256 = net, trained_on, source_sha256

    @property
    def info(self) -> EngineInfo:
        """Return what the tracker must know of the network."""
        config = self.net.config
        return EngineInfo(
            classifier=config.filter_optimizer,
            channels=config.classifier_channels,
            stride=FEATURE_STRIDE,
            device=str(self.net.device),
            precision=str(self.net.dtype).removeprefix("torch."),
            trained_on=self.trained_on,
            source_sha256=self.source_sha256,
        )

    @torch.inference_mode()
    def start(self, first: FirstFrame) -> tuple[TorchTarget, list[TorchRegion]]:
        """Learn a target from its first frame."""
        layer2, layer3 = self.net.extract(torch.from_numpy(first.patches))
        branch, reference = self.net.box_energy, torch.from_numpy(first.boxes_xyxy[:1]).to(self.net.device)
        energy = target_energy(branch, layer2[:1], layer3[:1], reference, self.net.dtype)
        features = self.classify(layer3)
        regions = [
            TorchRegion(energy.over(BoxFeatures(branch, *layers)), one)
            for *layers, one in zip(*(maps[: first.regions].split(1) for maps in (layer2, layer3, features)))
        ]
        factors = torch.from_numpy(first.channel_factors).to(features)
        samples = torch.cat([features, features[:1] * factors[:, :, None, None]])
        boxes = torch.from_numpy(first.boxes_xyxy)
        boxes = torch.cat([boxes, boxes[:1].expand(len(factors), -1)]).to(self.net.device)
        return self.target_of(energy, samples, boxes, first), regions

    def classify(self, layer3: Tensor) -> Tensor:
        """Return the classification features (N, c, h, w) of N images."""
        return self.net.classify(layer3)

    def classify_each(self, layer3: Tensor) -> list[Tensor]:
        """Return the classification features (1, c, h, w) of each of N images."""
        return self.net.classify_each(layer3)

    def target_of(self, energy: TargetEnergy, samples: Tensor, boxes_xyxy: Tensor, first: FirstFrame) -> TorchTarget:
        """Return the model that is learned from samples (n, c, h, w) and boxes (n, 4) of a first frame."""
        filters = self.net.classifier.learn(samples[:, None], boxes_xyxy[:, None], None, first.iterations)
        return TorchTarget(
            energy, filters[-1], pad_to_capacity(samples, first.capacity), pad_to_capacity(boxes_xyxy, first.capacity)
        )

    def scores(self, target: TorchTarget, features: Tensor) -> Tensor:
        """Return the score map (h, w) of a target's filter on classification features (1, c, h, w)."""
        return apply_filter(features[None], target.filter)[0, 0]

    @torch.inference_mode()
    def look(self, looks: Sequence[Look], mark: Mark = no_mark) -> list[Sight]:
        """Look at search regions, those of equal size in one pass of the network."""
        groups = _by_shape(looks)
        layers = [self.net.extract(torch.from_numpy(np.stack([looks[k].patch for k in group]))) for group in groups]
        mark("backbone")
        classified = [self.classify_each(layer3) for _, layer3 in layers]
        mark("classifier features")
        sights: dict[int, Sight] = {}
        for group, (layer2, layer3), features in zip(groups, layers, classified):
            for k, *maps in zip(group, layer2.split(1), layer3.split(1), features):
                sights[k] = self._sight(looks[k], *maps)
        return [sights[k] for k in range(len(looks))]

    def _sight(self, look: Look, layer2: Tensor, layer3: Tensor, features: Tensor) -> Sight:
        """Return a look's features and scores from its feature maps (1, c, h, w)."""
        if isinstance(look, InnerLook):
            features = match_power(features, covered_power(look.whole.classification, look.margin_cells))
            sides = [round(m.shape[-1] / features.shape[-1]) * look.margin_cells for m in (layer2, layer3, features)]
            layer2, layer3, features = (F.pad(m, [s] * 4) for m, s in zip((layer2, layer3, features), sides))
        region = TorchRegion(look.target.energy.over(BoxFeatures(self.net.box_energy, layer2, layer3)), features)
        return Sight(region, self.scores(look.target, features).cpu().numpy())

    @torch.inference_mode()
    def climb(
        self, regions: Sequence[TorchRegion], boxes_xywh: np.ndarray, ascent: Ascent, mark: Mark = no_mark
    ) -> Climb:
        """Let boxes climb the energy, for each target in its own search region."""
        return climb_boxes(self.energy_of(regions), boxes_xywh, ascent, mark, _exp, _log)

    def energy_of(self, regions: Sequence[TorchRegion]) -> JointEnergy:
        """Return the energies of boxes in search regions."""
        return JointEnergy([region.energy for region in regions])

    @torch.inference_mode()
    def energies(self, region: TorchRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies (n,) of boxes (n, 4) in a search region."""
        parts = [boxes_xyxy[k : k + 128] for k in range(0, len(boxes_xyxy), 128)]
        return np.concatenate([np.empty(0, np.float32), *(region.energy.value(part) for part in parts)])

    @torch.inference_mode()
    def hidden_units(self, region: TorchRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the hidden units (n, 512) of boxes (n, 4) in a search region."""
        return region.energy.hidden_units(boxes_xyxy.astype(np.float32, copy=False))

    def last_layer(self, target: TorchTarget) -> np.ndarray:
        """Return the weights (512,) of the energy's last layer, as a target has them."""
        return torch.cat(target.energy.out).detach().float().cpu().numpy().copy()

    def use_last_layer(self, target: TorchTarget, weights: np.ndarray) -> None:
        """Let a target's energy have other weights (512,) in its last layer."""
        out = target.energy.out
        target.energy.out = torch.from_numpy(weights.astype(np.float32)).to(out[0]).split(len(out[0]))

    @torch.inference_mode()
    def remember(self, target: TorchTarget, slot: int, region: TorchRegion, box_xyxy: np.ndarray) -> None:
        """Store a search region's classification features as a sample."""
        target.samples[slot] = region.classification[0]
        target.boxes_xyxy[slot] = torch.from_numpy(box_xyxy)

    @torch.inference_mode()
    def learn(self, target: TorchTarget, weights: np.ndarray, iterations: int) -> None:
        """Improve a target's filter on its stored samples."""
        n = len(weights)
        samples, boxes = target.samples[:n, None], target.boxes_xyxy[:n, None]
        sample_weights = torch.from_numpy(weights).to(samples)[:, None]
        improve = self.net.classifier.filter_optimizer
        target.filter = improve(target.filter, samples, boxes, sample_weights, iterations)[-1]

    def pack(self, target: TorchTarget, region: TorchRegion) -> dict[str, np.ndarray]:
        """Return the arrays of a target's model and of one region's features."""
        layers = [branch[2][0] for branch in region.energy.features.branches]
        tensors = {
            "network": self.net.box_energy.iou_predictor.weight[0],
            "last_layer": torch.cat(target.energy.out),
            **dict(zip(("vector8", "vector16"), target.energy.vectors)),
            "filter": target.filter[0],
            "samples": target.samples,
            "boxes_xyxy": target.boxes_xyxy,
            **dict(zip(("layer2", "layer3"), layers)),
            "classification": region.classification[0],
        }
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[TorchTarget, TorchRegion]:
        """Return a target's model and a region's features from their arrays."""
        branch = self.net.box_energy
        check_same_network(arrays["network"], branch.iou_predictor.weight[0].cpu().numpy())
        found = {name: torch.from_numpy(values.copy()).to(self.net.device) for name, values in arrays.items()}
        energy = TargetEnergy(branch, [found["vector8"], found["vector16"]], self.net.dtype)
        energy.out = found["last_layer"].to(energy.out[0]).split(len(energy.out[0]))
        layers = (found[name][None].to(self.net.dtype) for name in ("layer2", "layer3"))
        features = BoxFeatures(branch, *(layer.contiguous(memory_format=torch.channels_last) for layer in layers))
        target = TorchTarget(energy, found["filter"][None], found["samples"], found["boxes_xyxy"])
        return target, TorchRegion(energy.over(features), found["classification"][None])


def load_torch_engine(
    weights: str | Path | None, device: str = "cpu", precision: str = "auto", kind: type[TorchEngine] = TorchEngine
) -> TorchEngine:
    """Return an engine of a `kind` for a file of weights; see `ebmtrack.engines.load_engine`."""
    path = resolve_weights(weights)
    source = load_checkpoint(path)
    net = InferenceNet(source, check_device(device), precision)
    return kind(net, read_trained_on(read_metadata(path)["settings"]), tensors_sha256(source.state_dict()))


def _exp(values: np.ndarray) -> np.ndarray:
    """Return PyTorch's exponentials of a float32 array."""
    return torch.from_numpy(values).exp().numpy()


def _log(values: np.ndarray) -> np.ndarray:
    """Return PyTorch's logarithms of a float32 array."""
    return torch.from_numpy(values).log().numpy()


def covered_power(features: Tensor, margin_cells: int) -> Tensor:
    """Return the mean square of features (1, c, h, w) over the cells at least `margin_cells` from the edge."""
    inner = slice(margin_cells, features.shape[-1] - margin_cells)
    return features[..., inner, inner].square().mean()


def match_power(features: Tensor, power: Tensor) -> Tensor:
    """Return features scaled to a mean square of `power`; zeros stay zeros."""
    return features * (power / features.square().mean().clamp(min=1e-12)).sqrt()


def _by_shape(looks: Sequence[Look]) -> list[list[int]]:
    """Return the indices of looks, those with patches of the same shape together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, look in enumerate(looks):
        groups.setdefault(look.patch.shape, []).append(k)
    return list(groups.values())


def pad_to_capacity(values: Tensor, capacity: int) -> Tensor:
    """Return values (n, ...) followed by zeros, (capacity, ...)."""
    padded = values.new_zeros(capacity, *values.shape[1:])
    padded[: len(values)] = values
    return padded


def check_device(device: str) -> torch.device:
    """Return the device if this machine has it ("auto" is a GPU if there is one), else raise ConfigError."""
    return torch.device(pick_device(device))
