"""The engine on NumPy and ONNX Runtime, or OpenVINO in its place: an exported network, without torch."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ebmtrack.engines.base import (
    Ascent,
    BoxEnergies,
    Climb,
    EngineInfo,
    FirstFrame,
    InnerLook,
    Look,
    Mark,
    OneProcess,
    Sight,
    check_same_network,
    no_mark,
    read_trained_on,
)
from ebmtrack.engines.box_ascent import climb_boxes
from ebmtrack.engines.onnx_box_maps import BoxMaps
from ebmtrack.engines.onnx_energy import ModulatedWeights, RegionEnergies, RegionEnergy, modulation_vectors
from ebmtrack.engines.onnx_files import (
    ExportedNetwork,
    check_channels,
    existing_exported,
    open_sessions,
    precisions,
    read_exported,
    short_name,
)
from ebmtrack.engines.onnx_filter import STRIDE, NumpyFilterDescent, apply_filter, first_filter, normalize_features
from ebmtrack.errors import CheckpointError, ConfigError


@dataclasses.dataclass
class OnnxTarget:
    """A target's model.

    energy: the energy branch with the target's modulation. filter: (c, k, k). samples: (c, capacity, h, w)
    classification features; boxes_xyxy: (capacity, 4), the target in each of them.
    """

    energy: ModulatedWeights
    filter: np.ndarray
    samples: np.ndarray
    boxes_xyxy: np.ndarray

    def __deepcopy__(self, memo: dict) -> OnnxTarget:
        return OnnxTarget(self.energy, self.filter, self.samples.copy(), self.boxes_xyxy.copy())


@dataclasses.dataclass(frozen=True)
class OnnxRegion:
    """A search region's features: the target's energy in it, and classification features (c, h, w)."""

    energy: RegionEnergy
    classification: np.ndarray

    def __deepcopy__(self, memo: dict) -> OnnxRegion:
        return self


class OnnxEngine(OneProcess):
    """An exported network as the tracker uses it; see `ebmtrack.engines.base.Engine` for the methods.

    Each search region goes through the graphs alone: on a CPU several at once would be no faster.
    """

    def __init__(self, network: ExportedNetwork, provider: str = "cpu", precision: str = "auto"):
        """Open the graphs of an exported network.

        Args:
            network: see `read_exported`.
            provider: where graphs run; see `open_sessions`.
            precision: see `load_onnx_engine`.
        """
        floating, self.precision = precisions(network.precision, provider, precision)
        self.sessions = open_sessions(network, provider, floating)
        self.config, self.arrays = network.description["config"], network.arrays
        self.trained_on = read_trained_on(network.description.get("settings") or {})
        self.source_sha256 = str(network.description.get("source_sha256") or "")
        try:
            self.filter_size = int(self.config["filter_size"])
            self.norm_scale = math.sqrt(1 / (self.config["classifier_channels"] * self.filter_size**2))
            self.descent = NumpyFilterDescent(self.config, self.arrays)
            ModulatedWeights([np.ones(len(self.arrays["energy/out"]) // 2, np.float32)] * 2, self.arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{network.folder}: lacks {error}; export the network anew") from error
        check_channels(network, self.sessions)

    @property
    def info(self) -> EngineInfo:
        """Return what the tracker must know of the network."""
        return EngineInfo(
            classifier=self.config["filter_optimizer"],
            channels=self.config["classifier_channels"],
            stride=STRIDE,
            device=short_name(self.sessions["look"].get_providers()[0]),
            precision=self.precision,
            trained_on=self.trained_on,
            source_sha256=self.source_sha256,
        )

    def start(self, first: FirstFrame) -> tuple[OnnxTarget, list[OnnxRegion]]:
        """Learn a target from its first frame."""
        looked = [self._extract(patch) for patch in first.patches]
        layer2, layer3, _ = looked[0]
        reference = self._run("reference", layer2[None], layer3[None])
        vectors = modulation_vectors(reference[0][0], reference[1][0], first.boxes_xyxy[0], self.arrays)
        energy = ModulatedWeights(vectors, self.arrays)
        features = [normalize_features(raw, self.norm_scale) for _, _, raw in looked]
        features += [features[0] * factors[:, None, None] for factors in first.channel_factors]
        boxes = np.concatenate([first.boxes_xyxy, np.repeat(first.boxes_xyxy[:1], len(first.channel_factors), axis=0)])
        samples = np.zeros((len(features[0]), first.capacity, *features[0].shape[1:]), np.float32)
        samples[:, : len(features)] = np.stack(features, axis=1)
        stored = np.zeros((first.capacity, 4), np.float32)
        stored[: len(boxes)] = boxes
        guess = first_filter(self._initializer_features(features), boxes, self.filter_size)
        target = OnnxTarget(energy, guess, samples, stored)
        self.learn(target, np.full(len(features), 1 / len(features)), first.iterations)
        regions = [self._region(target, maps[0], maps[1], one) for maps, one in zip(looked[: first.regions], features)]
        return target, regions

    def look(self, looks: Sequence[Look], mark: Mark = no_mark) -> list[Sight]:
        """Look at search regions, one after the other."""
        looked = [self._extract(look.patch) for look in looks]
        mark("backbone")
        features = [normalize_features(raw, self.norm_scale) for _, _, raw in looked]
        mark("classifier features")
        return [self._sight(look, maps[0], maps[1], one) for look, maps, one in zip(looks, looked, features)]

    def climb(
        self, regions: Sequence[OnnxRegion], boxes_xywh: np.ndarray, ascent: Ascent, mark: Mark = no_mark
    ) -> Climb:
        """Let boxes climb the energy, for each target in its own search region."""
        return climb_boxes(self.energy_of(regions), boxes_xywh, ascent, mark)

    def energy_of(self, regions: Sequence[OnnxRegion]) -> BoxEnergies:
        """Return the energies of boxes in search regions."""
        return RegionEnergies([region.energy for region in regions]) if len(regions) > 1 else regions[0].energy

    def energies(self, region: OnnxRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies (n,) of boxes (n, 4) in a search region."""
        boxes_xyxy = boxes_xyxy.astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            parts = [region.energy.value(boxes_xyxy[k : k + 128]) for k in range(0, len(boxes_xyxy), 128)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def hidden_units(self, region: OnnxRegion, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the hidden units (n, 512) of boxes (n, 4) in a search region."""
        with np.errstate(all="ignore"):
            return region.energy.hidden_units(boxes_xyxy.astype(np.float32, copy=False))

    def last_layer(self, target: OnnxTarget) -> np.ndarray:
        """Return the weights (512,) of the energy's last layer, as a target has them."""
        return target.energy.out.reshape(-1).copy()

    def use_last_layer(self, target: OnnxTarget, weights: np.ndarray) -> None:
        """Let a target's energy have other weights (512,) in its last layer."""
        target.energy.out = weights.astype(np.float32).reshape(2, -1)

    def remember(self, target: OnnxTarget, slot: int, region: OnnxRegion, box_xyxy: np.ndarray) -> None:
        """Store a search region's classification features as a sample."""
        target.samples[:, slot] = region.classification
        target.boxes_xyxy[slot] = box_xyxy

    def learn(self, target: OnnxTarget, weights: np.ndarray, iterations: int) -> None:
        """Improve a target's filter on its stored samples."""
        n = len(weights)
        samples, boxes = np.ascontiguousarray(target.samples[:, :n]), target.boxes_xyxy[:n]
        target.filter = self.descent.improve(target.filter, samples, boxes, weights.astype(np.float32), iterations)

    def pack(self, target: OnnxTarget, region: OnnxRegion) -> dict[str, np.ndarray]:
        """Return the arrays of a target's model and of one region's features."""
        layer2, layer3 = region.energy.maps.layers
        return {
            "network": self.arrays["energy/out"].reshape(-1),
            "last_layer": self.last_layer(target),
            "vector8": target.energy.vectors[0],
            "vector16": target.energy.vectors[1],
            "filter": target.filter,
            "samples": target.samples.transpose(1, 0, 2, 3),
            "boxes_xyxy": target.boxes_xyxy,
            "layer2": layer2,
            "layer3": layer3,
            "classification": region.classification,
        }

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[OnnxTarget, OnnxRegion]:
        """Return a target's model and a region's features from their arrays."""
        check_same_network(arrays["network"], self.arrays["energy/out"].reshape(-1))
        energy = ModulatedWeights([arrays["vector8"], arrays["vector16"]], self.arrays)
        samples = np.ascontiguousarray(arrays["samples"].transpose(1, 0, 2, 3))
        target = OnnxTarget(energy, arrays["filter"], samples, arrays["boxes_xyxy"].copy())
        self.use_last_layer(target, arrays["last_layer"])
        return target, self._region(target, arrays["layer2"], arrays["layer3"], arrays["classification"])

    def _extract(self, patch: np.ndarray) -> list[np.ndarray]:
        """Return layer2, layer3 and raw classification features (c, h, w) of a patch (side, side, 3)."""
        if patch.shape[0] % STRIDE or patch.shape[1] % STRIDE or 0 in patch.shape:
            raise ConfigError(f"a search region must have sides divisible by {STRIDE}, got {patch.shape[:2]}")
        return [maps[0] for maps in self._run("look", np.ascontiguousarray(patch[None], np.float32))]

    def _initializer_features(self, features: list[np.ndarray]) -> np.ndarray:
        """Return the filter initialiser's features (n, c, h, w)."""
        return np.concatenate([self._run("initializer", one[None])[0] for one in features])

    def _sight(self, look: Look, layer2: np.ndarray, layer3: np.ndarray, features: np.ndarray) -> Sight:
        """Return a look's features and scores from its feature maps (c, h, w)."""
        if isinstance(look, InnerLook):
            margin = look.margin_cells
            covered = look.whole.classification[:, margin:-margin, margin:-margin]
            features = features * np.sqrt(np.square(covered).mean() / max(np.square(features).mean(), 1e-12))
            layer2, layer3, features = _pad(layer2, 2 * margin), _pad(layer3, margin), _pad(features, margin)
        region = self._region(look.target, layer2, layer3, features)
        return Sight(region, apply_filter(features[:, None], look.target.filter)[0])

    def _region(self, target: OnnxTarget, layer2: np.ndarray, layer3: np.ndarray, features: np.ndarray) -> OnnxRegion:
        """Return a search region's features for a target."""
        maps = BoxMaps((layer2, layer3), (self._convolve8, self._convolve16))
        return OnnxRegion(RegionEnergy(target.energy, maps), features)

    def _convolve8(self, cut: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._run("boxes8", cut[None], mask[None, None])[0][0]

    def _convolve16(self, cut: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._run("boxes16", cut[None], mask[None, None])[0][0]

    def _run(self, graph: str, *values: np.ndarray) -> list[np.ndarray]:
        """Return a graph's outputs for its inputs."""
        session: Any = self.sessions[graph]
        return session.run(None, {one.name: value for one, value in zip(session.get_inputs(), values)})


def load_onnx_engine(weights: str | os.PathLike | None, provider: str = "cpu", precision: str = "auto") -> OnnxEngine:
    """Return the engine of an exported network.

    Args:
        weights: its folder or network.json, the name of one that ships, or None for the default one.
        provider: "cpu", "openvino", "cuda" ...: see `open_sessions`.
        precision: "int8": the convolutions of each frame in 8 bits, if the network has them, the rest as with "auto".
            Otherwise of what is not quantised: "float32" or "auto", on OpenVINO also "bfloat16" (see
            `choose_precision`). Values that are stored in float16 are computed with in this precision.

    Raises:
        CheckpointError: on a network that is not there or damaged.
        ConfigError: on a provider or a precision that is not there.
    """
    return OnnxEngine(read_exported(existing_exported(weights), precision), provider, precision)


def _pad(maps: np.ndarray, cells: int) -> np.ndarray:
    """Return maps (c, h, w) with zeros around them."""
    return np.pad(maps, ((0, 0), (cells, cells), (cells, cells)))
