"""A faster training step on CPUs: frozen batch norm folded away, no gradient through the stem, compiled parts.

Values are those of the plain network up to the rounding of bfloat16. State-dict names change while the trunk is folded;
`plain_state` gives the entries of the plain network back.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.nets.backbone import fold_batch_norm
from ebmtrack.nets.tracker_net import TrackerNet


def prepare_for_speed(net: TrackerNet, compile_parts: bool = True) -> None:
    """Fold the trunk's frozen batch norm, freeze its stem and compile the parts, all in place."""
    trunk: Any = net.feature_extractor  # torch's stubs call its parts `Tensor | Module`
    trunk.eval()
    fold_batch_norm(trunk)
    trunk.requires_grad_(True)  # also the biases, which folding makes of buffers
    for module in trunk.stem_modules():
        module.requires_grad_(False)
    stem, body = trunk.stem, trunk.body
    if compile_parts:
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._dynamo.config.cache_size_limit = 64
        stem, body = torch.compile(stem), torch.compile(body)
        net.classifier.feature_extractor.compile()
        branch = net.bb_regressor
        branch.compile()
        for name in ("features", "modulation"):
            setattr(branch, name, torch.compile(getattr(branch, name)))

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            early = stem(images.to(torch.bfloat16) if torch.is_autocast_enabled(images.device.type) else images)
        return body(early)

    vars(trunk)["forward"] = forward


def plain_state(net: TrackerNet, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the state dict of the plain network that computes what the folded `net` computes.

    Args:
        net: network whose trunk was folded by `prepare_for_speed`.
        state: its entries, for example averaged ones; its own if None.

    Returns:
        Entries with the names of `TrackerNet`; batch norm of the trunk has mean 0 and variance 1 - eps.
    """
    state = copy.copy(net.state_dict() if state is None else state)
    plain = TrackerNet(net.config)
    for name, module in plain.feature_extractor.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            conv = "feature_extractor." + name.replace("bn", "conv") if "bn" in name else None
            conv = conv or "feature_extractor." + name[: -len("1")] + "0"  # downsample.1 follows downsample.0
            bias = state.pop(conv + ".bias")
            entries = {"weight": torch.ones_like(bias), "bias": bias, "running_mean": torch.zeros_like(bias)}
            entries["running_var"] = torch.full_like(bias, 1 - module.eps)
            entries["num_batches_tracked"] = torch.zeros((), dtype=torch.long)
            state.update({f"feature_extractor.{name}.{key}": value for key, value in entries.items()})
    plain.load_state_dict(state)
    return plain.state_dict()


class WeightAverage:
    """An exponential moving average of a network's floating-point entries."""

    def __init__(self, net: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.values = {name: value.detach().clone() for name, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards the network's entries; early steps count more (decay at most (1 + n) / (10 + n))."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value.to(self.values[name]), 1 - decay)
            else:
                self.values[name].copy_(value)

    def swap(self, net: nn.Module) -> None:
        """Exchange the network's entries with the averaged ones."""
        own = {name: value.detach().clone() for name, value in net.state_dict().items()}
        net.load_state_dict(self.values)
        self.values = own
