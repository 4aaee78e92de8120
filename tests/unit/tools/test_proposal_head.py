"""The experiment with a proposal head: the head alone learns, first the likelihood and then J_KL."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.command import load_run, settings_for
from tests.support import REPOSITORY

NAME = str(REPOSITORY / "tools" / "proposal_head.py")


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any, TrackerNet, dict[str, torch.Tensor]]:
    """The module, its settings, a small network and a batch of three pairs."""
    torch.manual_seed(0)
    net = TrackerNet("dimp18").requires_grad_(False).eval()
    changes = ["batch=3", "noise=8", "starts=2", "likelihood_steps=1", "bfloat16=false"]
    settings: Any = settings_for(NAME, {}, changes)
    boxes = torch.tensor([[20.0, 24, 22, 18], [18, 20, 24, 20]]).expand(3, 2, 4)
    batch = {"layer2": torch.randn(3, 2, 128, 9, 9), "layer3": torch.randn(3, 2, 256, 5, 5), "boxes_xywh": boxes}
    return load_run(NAME), settings, net, batch


def test_only_the_head_learns(parts: tuple) -> None:
    """Gradients reach the head's weights and no others; the file of the run holds these alone."""
    module, settings, net, batch = parts
    whole = module.HeadOnNet(net, settings.components)
    assert all(name.startswith("head.") for name in whole.state_dict())
    for number, is_likelihood in ((0, True), (3, False)):
        numbered = {**batch, "number": torch.arange(3) + number}
        loss, logs = module.ProposalObjective(settings)(whole, numbered, torch.Generator().manual_seed(1))
        assert (loss.detach() == logs["nll"]) == is_likelihood and 1 <= logs["ess"] <= settings.noise
        whole.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in whole.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_steps_raise_the_likelihood(parts: tuple) -> None:
    """Fifty steps by likelihood on one batch."""
    module, settings, net, batch = parts
    torch.manual_seed(0)
    whole, numbered = module.HeadOnNet(net, settings.components), {**batch, "number": torch.arange(3)}
    optimizer, losses = torch.optim.Adam(whole.parameters(), 3e-3), []
    for _ in range(50):
        loss, _ = module.ProposalObjective(settings)(whole, numbered, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
