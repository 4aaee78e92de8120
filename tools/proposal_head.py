"""An experiment: a head that learns where the energy's density is, for candidates in place of random jitter.

    ebmtrack train tools/proposal_head.py --data POOL

POOL is that of ebm18_small; the network that ships stays as it is. From the box branch's last hidden layer at a
displaced box the head makes a mixture over relative offsets of the true box. It is trained by J_KL with the energy as
its teacher (Paper IV, `energy.proposals`) after a short warm-up by likelihood. What its samples bring as candidates:
docs/results.md. No network that ships has such a head, and the tracker does not use one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from ebmtrack import files
from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.energy.proposals import MixtureDensity, proposal_with_teacher
from ebmtrack.ltr_settings import ebm18_small, ebm18_small_boxes
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.frozen_features import Features
from ebmtrack.training.objective import ALL_OF_US
from ebmtrack.training.plan import Batch, Data, Logs, Network, Plan, Share


@dataclasses.dataclass(frozen=True)
class Settings(ebm18_small_boxes.Settings):
    """The settings of the run.

    Attributes:
        components: of the mixture.
        starts: displaced boxes in each frame.
        noise: samples y_m ~ q at each of them.
        likelihood_steps: steps by the true box's likelihood alone, before J_KL.
    """

    steps: int = 600
    rate: float = 1e-3
    round_steps: int = 300
    round_samples: int = 1000
    components: int = 4
    starts: int = 4
    noise: int = 32
    likelihood_steps: int = 100


class HeadOnNet(nn.Module):
    """A head that learns, on a box branch that does not: hidden units of boxes -> mixtures over offsets from them."""

    def __init__(self, net: TrackerNet, components: int):
        super().__init__()
        self.frozen = [net.bb_regressor]  # in a list, so that it is no part of the module
        self.components = components
        units = net.bb_regressor.iou_predictor.in_features
        self.head = nn.Sequential(nn.LayerNorm(units), nn.Linear(units, 128), nn.ReLU(), nn.Linear(128, 9 * components))

    def forward(self, hidden: Tensor) -> MixtureDensity:
        """Return densities (...) of offsets (cx / w, cy / h, log w, log h), from hidden units (..., units)."""
        sizes = [self.components, 4 * self.components, 4 * self.components]
        logits, means, log_var = self.head(hidden).split(sizes, dim=-1)
        return MixtureDensity.from_heads(logits, 0.3 * means, (log_var - 4).clamp(-9.2, 0))  # deviations .01 to 1

    def hidden_units(self, pairs: Features) -> Callable[[Tensor], Tensor]:
        """Return the last hidden layer (s, P, units) of boxes_xyxy (s, P, 4) in the second frames, as a function."""
        (branch,) = self.frozen
        reference = xywh_to_xyxy(pairs.boxes_xywh[:, 0])
        modulation = branch.modulation(pairs.layer2[:, 0], pairs.layer3[:, 0], reference)
        features = branch.features(pairs.layer2[:, 1], pairs.layer3[:, 1])
        return lambda boxes_xyxy: branch.hidden(modulation, features, boxes_xyxy)

    def energy(self, hidden: Tensor) -> Tensor:
        """Return energies (...) of hidden units (..., units)."""
        return self.frozen[0].iou_predictor(hidden)[..., 0]


def displaced(boxes_xywh: Tensor, number: int, generator: Generator) -> Tensor:
    """Return boxes (s, number, 4) as the tracker has them before it refines: the score's peak and the last size."""
    u = torch.rand(len(boxes_xywh), number, 2, generator=generator) - 0.5
    z = torch.randn(len(boxes_xywh), number, 5, generator=generator)
    size = boxes_xywh[:, None, 2:] * (0.1 * z[..., :1] + 0.1 * z[..., 1:3]).exp()
    centre = boxes_xywh[:, None, :2] + boxes_xywh[:, None, 2:] * (0.5 + 0.3 * u + 0.05 * z[..., 3:])
    return torch.cat([centre - size / 2, size], dim=-1)


@dataclasses.dataclass(frozen=True)
class ProposalObjective:
    """J_KL of a batch of `FrozenPairs`; in the first steps the likelihood of the true box."""

    settings: Settings

    def __call__(self, net: Any, batch: Batch, generator: Generator, share: Share = ALL_OF_US) -> tuple[Tensor, Logs]:
        """Return the mean loss; see `plan.StepObjective`."""
        pairs = Features(batch["layer2"], batch["layer3"], batch["boxes_xywh"]).take(torch.arange(len(batch["layer2"])))
        truth = pairs.boxes_xywh[:, 1, None]
        starts = displaced(pairs.boxes_xywh[:, 1], self.settings.starts, generator)  # (s, J, 4)
        sizes = starts[..., 2:]
        origin = xywh_to_rel(starts, sizes)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            hidden_units = net.hidden_units(pairs)
            hidden = hidden_units(xywh_to_xyxy(starts)).float()
        q = net(hidden)
        offset = (xywh_to_rel(truth.expand_as(starts), sizes) - origin)[..., None, :]
        y = torch.cat([offset, q.sample(self.settings.noise, generator)], dim=-2)  # (s, J, 1 + M, 4)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            boxes = rel_to_xywh(origin[..., None, :] + y, sizes[..., None, :])
            f = net.energy(hidden_units(xywh_to_xyxy(boxes).flatten(1, 2))).float().unflatten(1, y.shape[1:3])
        log_q = q.log_prob(y)
        is_warm = int(batch["number"].max()) >= self.settings.likelihood_steps * self.settings.batch
        weights = torch.softmax(f[..., 1:] - log_q[..., 1:], dim=-1).detach()
        logs = {"nll": -log_q[..., 0].mean().detach(), "ess": (1 / weights.square().sum(-1)).mean()}
        return proposal_with_teacher(f, log_q, float(is_warm)), logs


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`, on the weights `start`, or those that come with ebmtrack."""
    ebm18_small.pool_folder(settings)
    net = load_checkpoint(resolve_weights(settings.start)).requires_grad_(False)
    net.to(memory_format=torch.channels_last).eval()
    whole = HeadOnNet(net, settings.components)
    network = Network(whole, [{"params": list(whole.parameters()), "lr": settings.rate}])
    data = Data(ebm18_small_boxes.frozen_pairs(net, settings))
    return Plan(network, data, ProposalObjective(settings), save=save)


def save(path: Path, net: nn.Module, run: dict[str, Any]) -> None:
    """Write the head's weights."""
    with files.replacing(path) as temporary:
        save_file(dict(net.state_dict()), temporary)
