"""Training on features of a frozen trunk that are computed once for each of a number of samples and kept in memory.

On a CPU a trunk of depthwise convolutions costs several times what slim branches cost; ONNX Runtime computes it two to
three times as fast as PyTorch.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ebmtrack.engines.export.graphs import look_graph
from ebmtrack.engines.products import open_session
from ebmtrack.nets.backbone import fold_batch_norm
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import LAYERS


class KeptFeatures(Dataset):
    """Samples by number with `layer2` and, if the whole trunk is frozen, `layer3` instead of `crops`.

    The layers are (f, c, h, w), bfloat16.

    Each of `kept` places holds a sample for `uses` rounds, then the next of `samples` takes it: a share 1 / uses of the
    places changes in every round. The worker that reads a sample first keeps its features.
    """

    def __init__(
        self, samples: Dataset, graph: bytes, kept: int, length: int, uses: int = 4, layers: tuple[str, ...] = LAYERS
    ):
        """Take `samples` with `crops` and `boxes_xywh`, the ONNX graph `look.onnx` of the network, and what to keep."""
        self.samples, self.graph, self.kept, self.length, self.uses = samples, graph, kept, length, uses
        self.layers = layers
        self.session: Any = None
        self.features: dict[int, tuple[int, dict[str, Tensor]]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = sample_number(index, self.kept, self.uses)
        place = index % self.kept
        if self.features.get(place, (-1,))[0] != number:
            self.features[place] = number, self._compute(self.samples[number])
        return self.features[place][1]

    def _compute(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features of a sample."""
        if self.session is None:
            self.session = open_session(self.graph, threads=1)
        layers = self.session.run(list(self.layers), {"patches": sample["crops"].numpy().astype(np.float32)})
        features = {name: torch.from_numpy(layer).bfloat16() for name, layer in zip(self.layers, layers)}
        return {**{name: value for name, value in sample.items() if name != "crops"}, **features}


def sample_number(index: int, kept: int, uses: int) -> int:
    """Return the number of the sample that is read at `index`: each of `kept` places changes every `uses` rounds."""
    turn, place = divmod(index, kept)
    return place + kept * ((turn + place) // uses - place // uses)


def trunk_graph(net: TrackerNet) -> bytes:
    """Return the ONNX graph of a network's trunk, patches (n, h, w, 3) of RGB 0..255 -> layer2 and layer3."""
    folded = fold_batch_norm(copy.deepcopy(net).eval().requires_grad_(False))
    return look_graph(cast(TrackerNet, folded)).SerializeToString()
