"""Features of a frozen trunk that are computed once give the loss that pictures give."""

from __future__ import annotations

import pytest
import torch

from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from tests.unit.training.test_training import training_set

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from ebmtrack.training.kept_features import KeptFeatures, KeptObjective, sample_number, trunk_graph

SETTINGS = ObjectiveSettings(samples=8, statistics="together")


@pytest.mark.parametrize("layers", [("layer2", "layer3"), ("layer2",)])
def test_the_loss_is_that_of_pictures_and_samples_come_back(layers):
    """Also if the trunk goes on from stride 8 in every step."""
    torch.manual_seed(0)
    net, samples = TrackerNet("ebm_lite").eval(), training_set(output=96)
    kept = KeptFeatures(samples, trunk_graph(net), kept=2, length=5, layers=layers)
    assert len(kept) == 5 and kept[3]["layer2"] is kept[1]["layer2"] and set(kept[0]) == {*layers, "boxes_xywh"}
    pictures, features = (
        {key: torch.stack([data[k][key] for k in range(2)]) for key in data[0]} for data in (samples, kept)
    )
    frames = samples.sampler.train
    with torch.no_grad():
        wanted, _ = Objective(frames, SETTINGS)(net, pictures, torch.Generator().manual_seed(3))
        again, _ = KeptObjective(frames, SETTINGS)(net, pictures, torch.Generator().manual_seed(3))
        got, logs = KeptObjective(frames, SETTINGS)(net, features, torch.Generator().manual_seed(3))
    assert again == wanted and {"box", "classifier"} <= set(logs)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-2) and got != wanted


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
