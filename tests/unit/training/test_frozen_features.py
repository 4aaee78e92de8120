"""Training pairs as features of a frozen trunk: the loss that pictures give, and pairs that their number decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.frozen_features import (
    FrozenPairs,
    Rounds,
    compute_features,
    load_features,
    pair_energies,
    save_features,
)
from ebmtrack.training.objective import Objective, ObjectiveSettings, box_energies
from ebmtrack.training.plan import Data, Network, Plan
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from tests.unit.training.test_training import training_set

SETTINGS = ObjectiveSettings(box_weight=1.0, classifier_loss="none", samples=8)


@pytest.fixture(scope="module")
def net() -> TrackerNet:
    torch.manual_seed(0)
    return TrackerNet("dimp18").eval().requires_grad_(False)


def samples():
    """Samples of a reference and two other frames."""
    found = training_set(output=96)
    found.sampler.train, found.sampler.test = 1, 2
    return found


def frozen_pairs(net: TrackerNet, **changes) -> FrozenPairs:
    settings: dict[str, Any] = dict(rounds=Rounds(3, 4), length=12, seed=1, bfloat16=False)
    return FrozenPairs(net, samples(), **(settings | changes))


@torch.no_grad()
def test_energies_are_those_of_the_whole_network(net):
    """Features in bfloat16 are good to 2^-9, so energies are to within a few of that of their spread."""
    several = [samples()[k] for k in range(3)]
    features = compute_features(net, several, bfloat16=False)
    crops, boxes = (torch.stack([s[key] for s in several]) for key in ("crops", "boxes_xywh"))
    candidates = xywh_to_xyxy(boxes[:, 2:] + torch.tensor([[0.0, 0, 0, 0], [9, -5, 4, 8], [-30, 10, 20, 0]]))
    pairs = features.pairs(torch.arange(3), torch.full((3,), 2))
    got = pair_energies(net.bb_regressor, pairs.take(torch.arange(3)))(candidates)
    images = torch.stack([normalize_images(crops[:, frame].permute(0, 3, 1, 2)) for frame in (0, 2)])
    wanted = box_energies(net, images[0], xywh_to_xyxy(boxes[:, 0]), images[1:], candidates[None])[0]
    assert torch.allclose(got, wanted, atol=0.02 * wanted.std().item(), rtol=0.01)
    assert wanted.std() > 0


def test_the_loss_is_that_of_pictures(net):
    """One test frame each: the same noise boxes, so the same loss but for the rounding of the features."""
    several = [samples()[k] for k in range(3)]
    batch = {key: torch.stack([s[key] for s in several])[:, :2] for key in ("crops", "boxes_xywh")}
    features = compute_features(net, several, bfloat16=False).pairs(torch.arange(3), torch.ones(3, dtype=torch.int64))
    wanted, _ = Objective(1, SETTINGS)(net, batch, torch.Generator().manual_seed(3))
    got, logs = Objective(1, SETTINGS)(net, vars(features), torch.Generator().manual_seed(3))
    assert got.item() == pytest.approx(wanted.item(), rel=5e-3) and logs["box"] == got
    elsewhere, _ = Objective(1, SETTINGS)(net, vars(features), torch.Generator().manual_seed(4))
    assert elsewhere.item() != pytest.approx(wanted.item(), rel=5e-3)


def test_a_pair_depends_on_its_number_alone(net):
    pairs = frozen_pairs(net)
    straight = [pairs.batch([number]) for number in range(12)]
    again = frozen_pairs(net)
    for numbers in ([3, 4, 5], [0], [11, 1]):  # across a round's end, and back
        batch = again.batch(numbers)
        for key, value in batch.items():
            assert torch.equal(value, torch.cat([straight[number][key] for number in numbers])), (numbers, key)
    assert batch["layer2"].shape == (2, 2, 128, 12, 12) and batch["layer3"].shape == (2, 2, 256, 6, 6)


def test_rounds_bring_new_samples_and_both_frames_are_drawn(net):
    pairs = frozen_pairs(net, rounds=Rounds(4, 40), length=80)
    boxes = [tuple(map(tuple, pairs.batch([number])["boxes_xywh"][0].tolist())) for number in range(80)]
    references, others = ([{pair[f] for pair in part} for part in (boxes[:40], boxes[40:])] for f in (0, 1))
    assert [len(found) for found in references] == [4, 4] and not references[0] & references[1]
    assert [len(found) for found in others] == [8, 8]


def test_too_few_samples_are_refused(net):
    with pytest.raises(ConfigError, match="40 rounds of 3 samples are needed, there are 100"):
        frozen_pairs(net, length=160)


def test_features_survive_a_file(net, tmp_path):
    features = compute_features(net, [samples()[0]])
    save_features(tmp_path / "x.safetensors", features)
    read = load_features(tmp_path / "x.safetensors")
    assert all(torch.equal(value, getattr(read, name)) for name, value in vars(features).items())


def test_stopped_and_resumed_equals_never_stopped(tmp_path):
    """To the bit, stopped in the middle of a round; and only the box branch has changed."""

    def go(out: str, steps: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        net = TrackerNet("dimp18").requires_grad_(False)
        net.bb_regressor.requires_grad_(True)
        network = Network(
            net,
            [{"params": list(net.bb_regressor.parameters()), "lr": 1e-3}],
            set_mode=lambda net: (net.eval(), net.bb_regressor.train()),
            rate=lambda step: 1.0,
        )
        plan = Plan(network, Data(frozen_pairs(net)), Objective(1, SETTINGS))
        settings = RunSettings(
            out=tmp_path / out, steps=steps, batch=2, checkpoint_every=3, bfloat16=False, device="cpu"
        )
        return dict(train(plan, settings).state_dict())

    straight = go("straight", 6)
    go("stopped", 3)
    resumed = go("stopped", 6)
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    torch.manual_seed(2)
    changed = {n for n, value in TrackerNet("dimp18").state_dict().items() if not torch.equal(value, straight[n])}
    assert changed and all(name.startswith("bb_regressor") for name in changed)
