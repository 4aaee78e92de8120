"""Validation on held-back samples, and short tracking runs in the middle of a training."""

from __future__ import annotations

import copy
import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.errors import DatasetError
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.plan import HeldBack
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from ebmtrack.training.validation import TrackingRun, Validation, overlap_after_ascent
from tests.unit.training.test_logs import rows_of
from tests.unit.training.test_training import plan_with, training_set


class Parabola(nn.Module):
    """A stand-in for TrackerNet whose energy is -k |d|^2, d the offset from the truth in units of the true size."""

    def __init__(self, truth_xywh: torch.Tensor, k: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.truth, self.k, self.seen = truth_xywh, k, None
        self.bb_regressor = self

    def feature_extractor(self, images):
        return images, images

    def modulation(self, layer2, layer3, boxes_xyxy):
        self.seen = boxes_xyxy
        return ()

    def features(self, layer2, layer3):
        return ()

    def forward(self, modulation, features, boxes_xyxy):
        corner, far = boxes_xyxy[:, 0, :2], boxes_xyxy[:, 0, 2:]
        size, centre = self.truth[:, 2:], self.truth[:, :2] + self.truth[:, 2:] / 2
        offsets = torch.cat([((corner + far) / 2 - centre) / size, ((far - corner) / size).log()], dim=1)
        return -self.k * offsets.square().sum(dim=1, keepdim=True)


def overlap(k: float) -> tuple[float, Parabola, torch.Tensor]:
    """Overlap after ascent on 20 pairs of frames; the second of each shows the truth."""
    boxes = torch.rand(20, 2, 4, generator=torch.Generator().manual_seed(3)) * 60 + 40
    batch = {"crops": torch.zeros(20, 2, 8, 8, 3, dtype=torch.uint8), "boxes_xywh": boxes}
    net = Parabola(boxes[:, 1], k)
    return overlap_after_ascent(net, batch, 1, torch.Generator().manual_seed(0)), net, boxes


def test_ascent_climbs_the_energy():
    """Ten steps of 2.5e-3 on a parabola with k = 100 halve the offset each time; without slope boxes stay displaced.

    The size of the start box, by up to 40 % not the true one, scales a step on positions by its square.
    """
    start = overlap(0.0)[0]
    assert 0.5 < start < 0.85
    assert overlap(100.0)[0] > 0.99
    assert start < overlap(10.0)[0] < 0.99
    assert overlap(-5.0)[0] < start


def test_the_first_train_frame_modulates():
    _, net, boxes = overlap(1.0)
    assert torch.equal(net.seen, torch.cat([boxes[:, 0, :2], boxes[:, 0, :2] + boxes[:, 0, 2:]], dim=1))


def test_validation_uses_the_same_samples_each_time(monkeypatch):
    """Samples 0 .. 4 once, in batches of 2, 2 and 1; figures are means over batches, the last loss times 1000."""
    dataset, asked, sizes = training_set(output=48), [], []
    monkeypatch.setattr("ebmtrack.training.validation.overlap_after_ascent", lambda *_: 0.75)

    def objective(net, batch, generator, share):
        sizes.append((len(batch["crops"]), torch.rand(1, generator=generator).item()))
        loss = torch.tensor(float(len(sizes)))
        return loss, {"box": loss * 2, "last": loss * 3, "first": loss}

    class Counted(torch.utils.data.Dataset):
        def __getitem__(self, index):
            asked.append(index)
            return dataset[index]

    validation = Validation(HeldBack(Counted(), 2, number=5, batch=2), objective)
    assert asked == []
    figures = validation(nn.Linear(1, 1))
    assert figures == {"val_loss": 2.0, "val_box": 4.0, "val_last": 6000.0, "val_iou": 0.75}
    validation(nn.Linear(1, 1))
    assert asked == [0, 1, 2, 3, 4] and sizes[:3] == sizes[3:] and [size for size, _ in sizes[:3]] == [2, 2, 1]


def test_figures_of_a_real_network_repeat_themselves():
    """Bit for bit, in bfloat16, and the network's own statistics stay."""
    torch.manual_seed(0)
    net = TrackerNet("dimp18")
    before = copy.deepcopy(net.state_dict())
    held_back = HeldBack(training_set(output=96), 2, number=2, batch=2)
    validation = Validation(held_back, Objective(2, ObjectiveSettings(), bfloat16=True))
    figures = validation(net)
    assert figures == validation(net) and set(figures) == {"val_loss", "val_box", "val_last", "val_iou"}
    assert 0 < figures["val_iou"] < 1 and not net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def write_sequence(folder, frames: int, speed: float) -> None:
    """A chequered square of 40 px that moves to the right over noise, with its boxes."""
    (folder / "img").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 110, (200, 320, 3), dtype=np.uint8)
    target = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    boxes = [(60 + round(speed * f), 80, 40, 40) for f in range(frames)]
    for number, (x, y, w, h) in enumerate(boxes):
        picture = ground.copy()
        picture[y : y + h, x : x + w] = target
        cv2.imwrite(str(folder / "img" / f"{number + 1:04d}.png"), picture)
    (folder / "groundtruth_rect.txt").write_text("\n".join(",".join(map(str, box)) for box in boxes) + "\n")


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(resolve_weights())


def test_a_tracking_run_scores_the_beginning_of_each_sequence(tmp_path, shipped):
    """Two sequences, three and two frames of which count; the same again from the same weights, which stay."""
    write_sequence(tmp_path / "a", 6, 4)
    write_sequence(tmp_path / "b", 2, -6)
    run = TrackingRun(tmp_path, frames=3)
    assert [len(paths) for paths in run.paths.values()] == [3, 2]
    before = copy.deepcopy(shipped.state_dict())
    auc = run(shipped)["track_auc"]
    assert 0.6 < auc <= 1 and run(shipped)["track_auc"] == auc
    assert all(torch.equal(before[name], value) for name, value in shipped.state_dict().items())


def test_the_score_is_that_of_eval(tmp_path, shipped):
    """Tracker and protocol are those of `ebmtrack eval folder --engine torch`."""
    from ebmtrack.evaluation.metrics import score_sequence
    from ebmtrack.evaluation.worker import track_sequence
    from ebmtrack.tracking.tracker import Tracker
    from ebmtrack.videos import open_dataset

    write_sequence(tmp_path / "a", 3, 9)
    sequence = open_dataset("folder", tmp_path).load("a")
    boxes = track_sequence(Tracker.from_pretrained(engine="torch"), sequence, seed=0).boxes_xywh
    expected = score_sequence(boxes, sequence.boxes_xywh, "ope").success.mean()
    assert TrackingRun(tmp_path)(shipped)["track_auc"] == pytest.approx(float(expected), abs=1e-12)


def test_a_sequence_whose_boxes_are_unknown_does_not_count(tmp_path, shipped):
    """Only its first box is given; alone it gives NaN."""
    write_sequence(tmp_path / "a", 2, 4)
    (tmp_path / "a" / "groundtruth_rect.txt").write_text("60,80,40,40\n")
    assert np.isnan(TrackingRun(tmp_path)(shipped)["track_auc"])


def test_missing_sequences_are_an_error_before_the_first_step(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        TrackingRun(tmp_path / "empty")
    write_sequence(tmp_path / "a", 3, 1)
    (tmp_path / "a" / "img" / "0002.png").unlink()
    with pytest.raises(DatasetError, match="2 frames, but 3"):
        TrackingRun(tmp_path / "a")


def test_a_training_tracks_every_few_steps(tmp_path, monkeypatch):
    """Steps 4, 8 and the last one, 10; the log has the figures."""
    net, made = nn.Linear(2, 1), []

    def tracking_run(*arguments):
        made.append(arguments)
        return lambda net: {"track_auc": 0.5}

    monkeypatch.setattr("ebmtrack.training.run.TrackingRun", tracking_run)
    samples = [{"x": torch.ones(2)} for _ in range(20)]
    plan = plan_with(net, lambda net, batch, *_: (net(batch["x"]).square().mean(), {}), samples, 0.1)
    usual = RunSettings(tmp_path, steps=10, batch=2, workers=0, device="cpu")
    train(plan, dataclasses.replace(usual, track_on=tmp_path, track_every=4, track_frames=7))
    assert made == [(tmp_path, "dimp18_nce_plus", 7)]
    assert [row["step"] for row in rows_of(tmp_path / "log.csv") if row["track_auc"] == "0.5"] == ["4", "8", "10"]
