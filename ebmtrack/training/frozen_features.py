"""Pairs of frames as features of a frozen trunk, on which a box branch is trained alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ebmtrack import files
from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.progress import progress_bar
from ebmtrack.training.batches import length_of, read_samples


@dataclass(frozen=True)
class Features:
    """Trunk features of n samples of f frames: layer2 (n, f, c, h, w), layer3 and boxes_xywh (n, f, 4).

    The first frame is the reference, which modulates; the target is searched in the others.
    """

    layer2: Tensor
    layer3: Tensor
    boxes_xywh: Tensor

    def __len__(self) -> int:
        return len(self.boxes_xywh)

    def take(self, rows: Tensor) -> Features:
        """Return some of the samples, float32, channels last."""
        layer2, layer3 = (_float_channels_last(layer[rows]) for layer in (self.layer2, self.layer3))
        return Features(layer2, layer3, self.boxes_xywh[rows])

    def pairs(self, rows: Tensor, frames: Tensor) -> Features:
        """Return samples of two frames, the reference and one other: rows (s,), frames (s,) from 1."""
        both = torch.stack([torch.zeros_like(frames), frames], dim=1)
        return Features(*(part[rows[:, None], both] for part in (self.layer2, self.layer3, self.boxes_xywh)))


def _float_channels_last(layer: Tensor) -> Tensor:
    """Return (n, f, c, h, w) in float32, each frame channels last."""
    flat = layer.float().flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return flat.unflatten(0, layer.shape[:2])


@torch.no_grad()
def compute_features(net: TrackerNet, samples: Iterable[Mapping[str, Tensor]], bfloat16: bool = True) -> Features:
    """Return trunk features of samples, in bfloat16; the network is put into evaluation mode.

    Args:
        net: a `TrackerNet`.
        samples: `crops` (f, H, W, 3) uint8 and `boxes_xywh` (f, 4) of each.
        bfloat16: whether the trunk computes in bfloat16.
    """
    net.eval()
    device = next(net.parameters()).device
    layers2, layers3, boxes = [], [], []
    for sample in samples:
        images = normalize_images(sample["crops"].to(device).permute(0, 3, 1, 2), net.feature_extractor)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            layer2, layer3 = net.feature_extractor(images.contiguous(memory_format=torch.channels_last))
        layers2.append(layer2.bfloat16().contiguous())
        layers3.append(layer3.bfloat16().contiguous())
        boxes.append(sample["boxes_xywh"])
    return Features(torch.stack(layers2), torch.stack(layers3), torch.stack(boxes))


def save_features(path: Path, features: Features) -> None:
    """Write features as safetensors."""
    with files.replacing(path) as temporary:
        save_file({name: getattr(features, name) for name in ("layer2", "layer3", "boxes_xywh")}, temporary)


def load_features(path: Path) -> Features:
    """Read features, mapped from the file rather than copied."""
    with safe_open(path, "pt") as file:
        return Features(*(file.get_tensor(name) for name in ("layer2", "layer3", "boxes_xywh")))


def pair_energies(branch: BoxEnergy, pairs: Features, in_float32: bool = False) -> Callable[[Tensor], Tensor]:
    """Return the branch's energy as a function of boxes_xyxy (n, P, 4) in the second frames of pairs.

    Args:
        branch: box branch of a `TrackerNet`.
        pairs: n samples of two frames; the first one modulates.
        in_float32: whether the energy is computed in float32 even within autocast.
    """
    reference = xywh_to_xyxy(pairs.boxes_xywh[:, 0])
    modulation = branch.modulation(pairs.layer2[:, 0], pairs.layer3[:, 0], reference)
    features = branch.features(pairs.layer2[:, 1], pairs.layer3[:, 1])
    if in_float32:
        modulation = modulation[0].float(), modulation[1].float()
        features = features[0].float(), features[1].float()
    return lambda boxes_xyxy: branch(modulation, features, boxes_xyxy)


@dataclass(frozen=True)
class Rounds:
    """The cut of a run into rounds: `samples` samples go through the trunk, `pairs` pairs are drawn from them."""

    samples: int
    pairs: int


NO_FEATURES = Features(torch.empty(0), torch.empty(0), torch.empty(0, 2, 4))


class FrozenPairs:
    """Pairs by number, as features; samples are cut and go through the trunk a round at a time, always new ones.

    From the samples of a round, `rounds.pairs` pairs are drawn, each the reference and one other frame of a sample.
    Pair number i depends on the seed and i alone. A batch has `layer2` (s, 2, c, h, w), `layer3` and `boxes_xywh`
    (s, 2, 4). The trunk must not change meanwhile. This is a `plan.BatchMaker`.
    """

    def __init__(
        self,
        net: TrackerNet,
        samples: Dataset,
        rounds: Rounds,
        length: int,
        seed: int = 0,
        bfloat16: bool = True,
        workers: int = 0,
    ):
        """Take a network and samples.

        Args:
            net: the network whose trunk is frozen.
            samples: `crops` (f, H, W, 3) and `boxes_xywh` (f, 4) by number, for all rounds.
            rounds: samples and pairs of a round.
            length: number of pairs.
            seed: of the pairs.
            bfloat16: whether the trunk computes in bfloat16.
            workers: processes that read samples.

        Raises:
            ConfigError: there are too few samples.
        """
        number = -(-length // rounds.pairs)
        if length_of(samples) < number * rounds.samples:
            needed = f"{number} rounds of {rounds.samples} samples are needed"
            raise ConfigError(f"{needed}, there are {length_of(samples)}; lower --steps or round_samples")
        self.net, self.samples, self.bfloat16, self.workers = net, samples, bfloat16, workers
        self.rounds, self.length, self.seed = rounds, length, seed
        self.round, self.features = -1, NO_FEATURES

    def __len__(self) -> int:
        return self.length

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the pairs of these numbers."""
        parts = [self._pair(number) for number in numbers]
        return {name: torch.cat([getattr(p, name) for p in parts]) for name in ("layer2", "layer3", "boxes_xywh")}

    def _pair(self, number: int) -> Features:
        """Return one pair (1, 2, ...)."""
        self._open(number // self.rounds.pairs)
        rng = np.random.default_rng((self.seed, 1, number))
        row, frame = rng.integers(len(self.features)), rng.integers(1, self.features.boxes_xywh.shape[1])
        return self.features.pairs(torch.tensor([row]), torch.tensor([frame]))

    def _open(self, number: int) -> None:
        """Make a round's features, unless they are those at hand."""
        if number == self.round:
            return
        self.features = NO_FEATURES  # two rounds need not fit into memory
        self.features = compute_features(self.net, self._crops(number), self.bfloat16)
        self.round = number

    def _crops(self, number: int) -> Iterator[Mapping[str, Tensor]]:
        """Yield the samples of a round, read by the workers."""
        first = number * self.rounds.samples
        part = Subset(self.samples, range(first, first + self.rounds.samples))
        read, name = read_samples(part, None, self.workers), f"features, round {number + 1}"
        with contextlib.closing(progress_bar(read, name, total=len(part), unit="sample", leave=False)) as bar:
            yield from bar
