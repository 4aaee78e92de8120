"""Features of a frozen trunk that are computed once give the loss that pictures give."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import ClassifierLossName, Objective, ObjectiveSettings, Statistics
from ebmtrack.training.plan import Batch
from tests.unit.training.test_training import training_set

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from ebmtrack.training.kept_features import KeptFeatures, sample_number, trunk_graph


@pytest.mark.parametrize("layers", [("layer2", "layer3"), ("layer2",)])
def test_the_loss_is_that_of_pictures_and_samples_come_back(layers):
    """With every classifier loss and statistics, of the network that ships; one of the frames has no target, and a
    trunk that goes on from stride 8 in every step has its batch norm in training."""
    net, pairs = load_checkpoint(resolve_weights("ebm_lite")).eval(), training_set(output=96)
    samples = [{**pairs[k], "has_target": torch.tensor([True, True, True, k > 0])} for k in range(2)]
    kept = KeptFeatures(samples, trunk_graph(net), kept=2, length=5, layers=layers)
    assert len(kept) == 5 and kept[3]["layer2"] is kept[1]["layer2"]
    assert set(kept[0]) == {*layers, "boxes_xywh", "has_target"}
    pictures, features = (
        {key: torch.stack([data[k][key] for k in range(2)]) for key in data[0]} for data in (samples, kept)
    )
    if layers == ("layer2",):
        net.feature_extractor.blocks[net.feature_extractor.layer2_blocks :].train()
    for classifier_loss, statistics in itertools.product(get_args(ClassifierLossName), get_args(Statistics)):
        settings = ObjectiveSettings(samples=8, classifier_loss=classifier_loss, statistics=statistics)
        objective = Objective(pairs.sampler.train, settings)
        (wanted, parts), (got, logs) = (loss_of(objective, net, batch) for batch in (pictures, features))
        assert logs == pytest.approx(parts, rel=2e-3) and got == pytest.approx(wanted, rel=2e-3) and got != wanted


@torch.no_grad()
def loss_of(objective: Objective, net: TrackerNet, batch: Batch) -> tuple[float, dict[str, float]]:
    """Return the loss of a batch with the noise of a seed, and its parts."""
    loss, logs = objective(net, batch, torch.Generator().manual_seed(3))
    return loss.item(), {name: part.item() for name, part in logs.items()}


def test_each_place_changes_after_its_uses_and_a_share_of_them_in_every_round():
    """The first round reads the first samples; later every sample is read `uses` times in a row at its place."""
    kept, uses = 12, 4
    rounds = [[sample_number(turn * kept + place, kept, uses) for place in range(kept)] for turn in range(17)]
    assert rounds[0] == list(range(kept))
    changes = [sum(a != b for a, b in zip(one, two)) for one, two in zip(rounds, rounds[1:])]
    assert changes == [kept // uses] * 16
    assert all(number % kept == place for one in rounds for place, number in enumerate(one))
    of_place = [one[5] for one in rounds]
    assert sorted(of_place) == of_place and of_place.count(of_place[8]) == uses
    assert len({number for one in rounds for number in one}) == kept + 16 * kept // uses
