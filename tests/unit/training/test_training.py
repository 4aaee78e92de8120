"""Sampling, augmentation, crops and labels of training samples; losses; a run that is killed and resumed."""

from __future__ import annotations

import dataclasses
import math
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from ebmtrack.boxes import iou_xywh, xywh_to_rel, xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.commands import main as cli
from ebmtrack.data.augment import Jitter, Look, change_look, draw_window, flip_box, keep_off_cut_edges, scene_frac
from ebmtrack.data.pipeline import CropSettings, TrainingSet, displaced_boxes
from ebmtrack.data.sampling import Sampler, causal_frames
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.command import list_runs, train_named
from ebmtrack.training.objective import Objective, ObjectiveSettings, hinge_loss, score_labels
from ebmtrack.training.plan import Data, Network, Plan, step_decay
from ebmtrack.training.run import learning_rate_factor, train
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.source import Source
from tests.support import REPOSITORY
from tests.support.golden import arrays, image


class Dots(Source):
    """A bright square on a dark ground, moving right; a video of ten frames for each target."""

    name, is_video = "dots", True

    def __len__(self):
        return 3

    def target_name(self, index):
        return f"dot{index}"

    def boxes_xywh(self, index):
        return np.array([[100 + 5 * f, 80 + 10 * index, 30, 24] for f in range(10)], float)

    def visible(self, index):
        return np.arange(10) != 4

    def frame(self, index, frame):
        picture = np.full((240, 320, 3), 40, np.uint8)
        x, y, w, h = self.boxes_xywh(index)[frame].astype(int)
        picture[y : y + h, x : x + w] = 220
        return picture


def training_set(**changes) -> TrainingSet:
    settings = dataclasses.replace(CropSettings(look=Look(brightness=0)), **changes)
    return TrainingSet(Sampler([Dots()], [1.0], 2, 2, 30, seed=5), settings, 100)


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_causal_visible_and_near(seed):
    rng = np.random.default_rng(seed)
    visible = rng.random(60) < 0.5
    visible[[3, 30, 50]] = True
    train, test = causal_frames(visible, 3, 3, 12, rng)
    assert len(train) == 3 and len(test) == 3 and visible[[*train, *test]].all()
    assert max(train) < min(test) or visible.sum() < 7
    assert list(train) == sorted(train) and list(test) == sorted(test)


def test_a_single_visible_frame_is_repeated_and_none_is_an_error():
    rng = np.random.default_rng(0)
    assert causal_frames(np.array([False, True, False]), 3, 2, 5, rng) == ((1, 1, 1), (1, 1))
    with pytest.raises(ConfigError, match="visible"):
        causal_frames(np.zeros(4, bool), 3, 3, 5, rng)


def test_the_gap_grows_until_frames_are_found():
    visible = np.zeros(400, bool)
    visible[[0, 200, 398, 399]] = True
    train, test = causal_frames(visible, 2, 2, 5, np.random.default_rng(1))
    assert train == (0, 200) and set(test) <= {398, 399}


@pytest.mark.parametrize("index", range(12))
def test_boxes_follow_the_picture_through_crop_flip_and_stretch(index):
    """Where the box says, there is the bright square: its bright pixels fill the box and nothing else."""
    look = Look(grey=0.5, flip=0.5, brightness=0.0)
    sample = training_set(look=look, test_jitter=Jitter(2.0, 0.3, 0.3))[index]
    for crop, box in zip(sample["crops"].numpy(), sample["boxes_xywh"].numpy()):
        bright = crop[..., 0] > 130
        if bright.any() and 2 < box[0] and box[0] + box[2] < 286 and 2 < box[1] and box[1] + box[3] < 286:
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            seen = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            assert np.allclose(seen, box, atol=1.6)


def test_samples_depend_on_seed_and_index_alone():
    once, again = training_set(), training_set()
    for index in (7, 3, 7):
        assert torch.equal(once[index]["crops"], again[index]["crops"])
    assert not torch.equal(once[3]["boxes_xywh"], once[7]["boxes_xywh"])


def test_without_jitter_the_target_is_centred_at_the_search_factor():
    sample = training_set(train_jitter=Jitter(0, 0), test_jitter=Jitter(0, 0))[0]
    side = math.ceil(math.sqrt(30 * 24) * 5)
    expected = torch.tensor([144 - 15 * 288 / side, 144 - 12 * 288 / side, 30 * 288 / side, 24 * 288 / side])
    for box in sample["boxes_xywh"]:
        assert torch.allclose(box[2:], expected[2:]) and torch.allclose(box[0], expected[0], atol=1)


def test_windows_keep_off_edges_where_a_frame_was_cut():
    """A frame that ends five target sizes (100 px) from the target on three sides, and at 40 px on the left."""
    box = np.array([30.0, 90, 20, 20])
    for seed in range(50):
        window = draw_window(box, Jitter(4.5, 0.5), 5.0, np.random.default_rng(seed))
        x, y, w, h = keep_off_cut_edges(window, box, (140, 200), 5.0)
        assert y >= -1e-6 and y + h <= 200 + 1e-6 and x + w <= 140 + 1e-6


@pytest.mark.parametrize(
    "window, expected",
    [((0, 0, 10, 10), 1.0), ((-5, 0, 10, 10), 0.5), ((-5, -5, 10, 10), 0.25), ((200, 0, 10, 10), 0.0)],
)
def test_scene_frac(window, expected):
    assert scene_frac(window, (100, 50)) == pytest.approx(expected)


def test_looks():
    patch = image("look", 64, 64)
    rng = np.random.default_rng(0)
    still = Look(brightness=0)
    assert np.array_equal(change_look(patch, still, False, rng), patch)
    grey = change_look(patch, still, True, rng)
    assert np.abs(np.ptp(grey.astype(int), axis=2)).max() <= 1
    blurred = change_look(patch, Look(brightness=0, blur=1.0, motion_blur=1.0), False, rng)
    assert np.abs(np.diff(blurred.astype(float), axis=0)).mean() < np.abs(np.diff(patch.astype(float), axis=0)).mean()
    assert flip_box(np.array([10.0, 5, 20, 8]), 288).tolist() == [258, 5, 20, 8]


def test_noise_is_evenly_drawn_up_to_the_deviation_that_is_asked():
    look, rng = Look(brightness=0, noise=1.0, noise_deviation=24), np.random.default_rng(3)
    grey = np.full((64, 64, 3), 128, np.uint8)
    deviations = [np.std(change_look(grey, look, False, rng).astype(float)) for _ in range(200)]
    assert max(deviations) < 24.6 and np.mean(deviations) == pytest.approx(12, abs=1.5)


def test_candidates_come_from_the_noise_and_the_first_is_nearly_true():
    """With widths 0.05 and 0.5 and beta 0.1 the first box strays ten times less; densities are those of the offsets."""
    truth = torch.tensor([[50.0, 60, 80, 40]]).repeat(4, 1)
    mixture = GaussianMixture.isotropic((0.05, 0.5), dims=4)
    offsets, log_q = nce_plus_samples(mixture, (4,), 500, 0.1, torch.Generator().manual_seed(0))
    boxes_xyxy = displaced_boxes(truth, offsets.to(truth))
    assert boxes_xyxy.shape == (4, 501, 4) and log_q.shape == (4, 501)
    boxes = xyxy_to_xywh(boxes_xyxy)
    size = truth[:, None, 2:]
    offsets = xywh_to_rel(boxes, size) - xywh_to_rel(truth[:, None], size)
    assert torch.allclose(mixture.log_prob(offsets), log_q, atol=1e-2)
    overlap = iou_xywh(boxes, truth[:, None])
    assert overlap[:, 0].min() > 0.6 and overlap[:, 1:].mean() < 0.8


def test_golden_hinge_loss():
    golden = arrays("common")
    got = hinge_loss(golden["loss/clf_scores"], golden["loss/clf_label"], 0.05)
    assert got.item() == pytest.approx(golden["loss/lb_hinge_0p05"].item(), rel=1e-5)


def test_labels_are_gaussians_about_the_target_in_cells():
    """Box centre (144, 96): cell (9, 6), as position / 16; one cell beside it exp(-1 / (2 sigma^2))."""
    label = score_labels(torch.tensor([124.0, 86, 40, 20]), (19, 19), 0.9)
    assert label[6, 9] == 1 and label[6, 10].item() == pytest.approx(math.exp(-0.5 / 0.81))


def test_an_objective_trains_every_part():
    torch.manual_seed(0)
    net = TrackerNet("dimp18")
    dataset = training_set(output=144)
    batch = {key: torch.stack([dataset[0][key], dataset[1][key]]) for key in ("crops", "boxes_xywh")}
    loss, logs = Objective(2, ObjectiveSettings(samples=8))(net, batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss) and set(logs) == {"first", "last", "box", "classifier"}
    gradients = {name: p.grad for name, p in net.named_parameters()}
    constant = gradients.pop("bb_regressor.iou_predictor.bias")  # NCE+ does not see a constant in the energy
    assert constant.abs() < 1e-6
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0] == []


class Numbers(Dataset):
    """Sample i is drawn from its own number."""

    def __len__(self):
        return 10_000

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.sum().sin()[None]}


def tiny_plan(bad_at: int | None = None) -> Plan:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    steps = iter(range(10**6))

    def objective(net, batch, generator, share):
        noise = 0.01 * torch.randn(batch["x"].shape, generator=generator)
        loss = (net(batch["x"] + noise) - batch["y"]).square().mean()
        return (loss * math.nan if next(steps) == bad_at else loss), {"size": loss.detach()}

    return plan_with(net, objective, Numbers(), thaw=(0.5, [net[0]]))


def plan_with(net: nn.Module, objective, dataset, rate: float = 1e-2, **optimisation) -> Plan:
    """Return a plan in which all of a network trains at one rate."""
    groups = [{"params": list(net.parameters()), "lr": rate}]
    return Plan(Network(net, groups, **optimisation), Data(dataset), objective)


def settings_in(folder, **changes) -> RunSettings:
    defaults = {"out": folder, "steps": 30, "batch": 4, "workers": 0, "warmup": 5, "checkpoint_every": 10}
    defaults["device"] = "cpu"
    return RunSettings(**{**defaults, **changes})


def weights_of(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_stopped_and_resumed_equals_never_stopped(tmp_path):
    """Bit for bit, and the log holds every step once. The first half ends by an error after step 20's checkpoint."""
    straight = train(tiny_plan(), settings_in(tmp_path / "a"))
    with pytest.raises(EbmtrackError, match="step 23"):
        train(tiny_plan(bad_at=23), settings_in(tmp_path / "b"))
    assert (tmp_path / "b" / "bad_batch.pt").exists()
    resumed = train(tiny_plan(), settings_in(tmp_path / "b"))
    assert torch.equal(weights_of(straight), weights_of(resumed))
    steps = [line.split(",")[0] for line in (tmp_path / "b" / "log.csv").read_text().splitlines()[1:]]
    assert steps == [str(n) for n in range(1, 31)]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import tests.unit.training.test_training as t
from ebmtrack.training import run
written = run.save_checkpoint
def dies(path, net, optimizer, standing):
    if standing["step"] == 20:
        os.kill(os.getpid(), signal.SIGKILL) if {where!r} == "before" else None
        real = run.torch.save
        def half(state, file):
            real(state, file)
            size = os.path.getsize(file)
            os.truncate(file, size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        run.torch.save = half
    written(path, net, optimizer, standing)
run.save_checkpoint = dies
run.train(t.tiny_plan(), t.settings_in(Path({out!r})))
"""


@pytest.mark.parametrize("where", ["before", "while writing"])
def test_kill_9_loses_nothing(tmp_path, where):
    """Killed before or in the middle of writing a checkpoint, a run goes on from the one before, bit for bit.

    What was half written is removed.
    """
    out = tmp_path / "killed"
    code = textwrap.dedent(KILLED).format(tests=str(REPOSITORY), out=str(out), where=where)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL
    resumed = train(tiny_plan(), settings_in(out))
    assert torch.equal(weights_of(resumed), weights_of(train(tiny_plan(), settings_in(tmp_path / "straight"))))
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "log.csv"]


def test_frozen_modules_stay_until_they_thaw(tmp_path):
    plan = tiny_plan()
    first = plan.network.net[0]
    before = first.weight.detach().clone()
    train(plan, settings_in(tmp_path / "a", steps=20, checkpoint_every=10, warmup=1))
    assert not torch.equal(first.weight, before)
    plan = tiny_plan()
    first = plan.network.net[0]
    plan.network.thaw = (1.0, [first])
    train(plan, settings_in(tmp_path / "b", steps=20))
    assert torch.equal(first.weight, before)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    plan = plan_with(nn.Linear(6, 1), tiny_plan().objective, Numbers())
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(plan, settings_in(tmp_path, steps=20))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(tiny_plan(), settings_in(tmp_path, steps=10))


def test_learning_rate_warms_up_and_ends_at_zero():
    factors = [learning_rate_factor(step, 100, 10) for step in range(101)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1 and factors[100] == pytest.approx(0)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:]))


def test_step_decay_multiplies_after_every_fifteen_epochs():
    """Ten steps an epoch: factor 0.2 ** k from step 150 k on."""
    rate = step_decay(10)
    assert [rate(step) for step in (0, 149, 150, 299, 300, 450)] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.008])
    with pytest.raises(ConfigError, match="step_decay"):
        step_decay(0)


def test_a_plan_sets_its_own_rate(tmp_path):
    """A rate of zero from step 10 on leaves the weights as they were after ten steps."""
    plans = [tiny_plan(), tiny_plan()]
    for plan in plans:
        plan.network.rate = lambda step: float(step < 10)
    short, long = (train(plan, settings_in(tmp_path / str(n), steps=n)) for plan, n in zip(plans, (20, 30)))
    assert torch.equal(weights_of(short), weights_of(long))


def test_unknown_runs_and_missing_data_are_named(tmp_path):
    assert "ebm18_small" in list_runs()
    with pytest.raises(ConfigError, match="did you mean 'ebm18_small'"):
        train_named("ebm18_smal", RunSettings())
    with pytest.raises(ConfigError, match="--data"):
        train_named("ebm18_small", RunSettings(data=tmp_path / "nothing"))


@pytest.mark.parametrize(
    "options, advice",
    [(["--device", "cuda:99"], "has no device 'cuda:99'"), (["--data", "nowhere"], "no training data at nowhere")],
)
def test_device_and_folder_are_looked_for_before_anything_is_downloaded(options, advice, monkeypatch, capsys):
    monkeypatch.setattr("ebmtrack.training.plan.backbone_weights", lambda *_: pytest.fail("downloads"))
    assert cli.main(["train", "dimp50_nce_plus", *options]) == 2
    assert advice in capsys.readouterr().err


def test_network_scores_and_energies_have_their_shapes():
    """t test frames, s sequences: scores (t, s, h', w') for each of six iterates, energies (t, s, P)."""
    net = TrackerNet("dimp18").eval()
    images, boxes = torch.randn(3, 2, 3, 96, 96), torch.tensor([30.0, 30, 60, 70]).expand(2, 2, 4)
    with torch.no_grad():
        scores, energies = net(images[:2], boxes, images[2:], xywh_to_xyxy(torch.rand(1, 2, 5, 4) * 40))
    assert [tuple(s.shape) for s in scores] == [(1, 2, 7, 7)] * 6 and energies.shape == (1, 2, 5)
