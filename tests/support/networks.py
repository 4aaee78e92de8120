"""Networks with random weights."""

from __future__ import annotations

import torch
from torch import nn

from ebmtrack.nets.tracker_net import TrackerNet


def lively_network(architecture: str) -> TrackerNet:
    """Return a network in evaluation mode whose batch norms do something."""
    torch.manual_seed(0)
    net = TrackerNet(architecture).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.1)
    return net
