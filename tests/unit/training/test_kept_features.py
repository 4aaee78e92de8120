"""Features of a frozen trunk that are computed once give the loss that pictures give."""

from __future__ import annotations

import pytest
import torch

from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from tests.unit.training.test_training import training_set

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from ebmtrack.training.kept_features import KeptFeatures, KeptObjective, trunk_graph

SETTINGS = ObjectiveSettings(samples=8, statistics="together")


def test_the_loss_is_that_of_pictures_and_samples_come_back():
    torch.manual_seed(0)
    net, samples = TrackerNet("ebm_lite").eval(), training_set(output=96)
    kept = KeptFeatures(samples, trunk_graph(net), kept=2, length=5)
    assert len(kept) == 5 and kept[3]["layer3"] is kept[1]["layer3"]
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
