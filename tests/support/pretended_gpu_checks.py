"""Run by test_pretended_gpu.py in a process of its own: what it makes known to PyTorch stays known.

pytest tests/support/pretended_gpu_checks.py
"""

from __future__ import annotations

import copy
import csv
import dataclasses

import numpy as np
import pytest
import torch

from ebmtrack.data.device_batches import DeviceBatches, DeviceFrames
from ebmtrack.data.sampling import Sampler
from ebmtrack.engines import torch_engine
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.studies import energy_1d as study1d
from ebmtrack.studies import energy_1d_methods as methods
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import MultiTracker, Tracker
from ebmtrack.training import distributed
from ebmtrack.training.frozen_features import FrozenPairs, Rounds
from ebmtrack.training.objective import PRDIMP_WEIGHTS, Objective, ObjectiveSettings
from ebmtrack.training.plan import Data, HeldBack, Network, Plan
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from tests.support.golden import FEW_VIEWS, dimp18, image
from tests.support.pretend_gpu import AVAILABLE, PretendedGpu, set_up
from tests.unit.data.test_device_batches import CROPS, Views

if not AVAILABLE:
    pytest.skip("this PyTorch has no back ends in Python", allow_module_level=True)
set_up()
torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects, as on a real GPU

GPU = "pretend:0"
ONE_OF_EACH = {"shift_fracs": ((0.6, -0.6),), "blur_sigmas": ((3, 1),), "rotations_deg": (10,)}  # views
OURS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0, update_every=2, **ONE_OF_EACH)
SET_UPS = {
    "ours": OURS,
    "dimp": load_params("dimp18").replace(sample_size=144, not_found_threshold=-10.0, calibration=0.5, **FEW_VIEWS),
    "hard negatives": OURS.replace(
        distractor_threshold=-1.0, hard_negative_threshold=-10.0, softmax_scores=True, **FEW_VIEWS
    ),
}
FRAMES = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(3)]
BOXES = [(90.0, 60.0, 44.0, 52.0), (10.0, 20.0, 90.0, 33.0)]


@pytest.fixture
def known_device(monkeypatch):
    """Let the program take the pretended GPU for one that is there."""
    monkeypatch.setattr(torch_engine, "check_device", torch.device)
    monkeypatch.setattr(distributed, "pick_device", str)
    monkeypatch.setattr(study1d, "pick_device", str)


def test_it_finds_tensors_on_the_wrong_device():
    with PretendedGpu() as gpu:
        there, here = torch.ones(3, device=GPU), torch.ones(3)
        assert (there + torch.tensor(1.0)).cpu().tolist() == [2.0] * 3
        assert there[torch.tensor([0, 2])].device.type == "pretend" and there.cpu().device.type == "cpu"
        wrong = [
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[torch.zeros(1, dtype=torch.long, device=GPU)],
            lambda: there.index_add_(0, torch.tensor([1]), there[:1]),
            lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
        ]
        for mistake in wrong:
            with pytest.raises(RuntimeError, match="same device"):
                mistake()
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        assert gpu.calls > 3


@pytest.mark.parametrize("name", SET_UPS)
def test_one_target(name):
    def boxes(device):
        tracker = Tracker(TorchEngine(InferenceNet(dimp18(), device, "float32")), SET_UPS[name])
        tracker.init(FRAMES[0], BOXES[0])
        found = [tracker.update(frame).box_xywh for frame in FRAMES[1:]]
        corners = tracker.corner_log_density(np.array([[130.0, 70.0]]))
        return np.concatenate([np.ravel(found), *map(np.ravel, tracker.candidates()), corners])

    expected = boxes("cpu")
    with PretendedGpu() as gpu:
        assert np.array_equal(boxes(GPU), expected, equal_nan=True)
    assert gpu.calls > 1000


@pytest.mark.parametrize("inner_looks", [0, 2])
def test_several_targets(inner_looks):
    few = OURS.replace(**FEW_VIEWS)

    def boxes(device):
        tracker = MultiTracker(TorchEngine(InferenceNet(dimp18(), device, "float32")), few, inner_looks=inner_looks)
        for seed, box in enumerate(BOXES):
            tracker.add(FRAMES[0], box, seed)
        return [result.box_xywh for frame in FRAMES[1:] for result in tracker.update(frame).values()]

    expected = boxes("cpu")
    with PretendedGpu():
        assert boxes(GPU) == expected


SOURCES = {"video": Views("video", True, 4), "stills": Views("stills", False, 4)}


@pytest.fixture(scope="module")
def frames():
    return DeviceFrames(SOURCES)


def batches(
    frames: DeviceFrames, device: str, seed: int = 3, train_frames: int = 2, length: int = 100
) -> DeviceBatches:
    """Return batches of the same frames in the memory of another device."""
    there = copy.copy(frames)
    there.pixels = frames.pixels.to(device)
    look = dataclasses.replace(CROPS.look, noise=0.3)
    sampler = Sampler(list(SOURCES.values()), [0.6, 0.4], train_frames, 2, 10, seed)
    return DeviceBatches(there, sampler, dataclasses.replace(CROPS, look=look), length)


def losses(out) -> list[float]:
    with open(out / "log.csv", newline="") as file:
        return [float(value) for row in csv.DictReader(file) for key, value in row.items() if key in FIGURES and value]


FIGURES = ("loss", "box", "last", "val_loss", "val_iou")


@pytest.mark.parametrize("box_loss", ["nce_plus", "kld_is", "iou", "prdimp"])
def test_training(frames, tmp_path, known_device, monkeypatch, box_loss):
    """Batches made on the device and a step, with NCE+ a resume and validation, too: the losses of the CPU."""
    losses_of = PRDIMP_WEIGHTS if box_loss == "prdimp" else {"box_loss": box_loss}
    objective = ObjectiveSettings(**losses_of, samples=8)
    settings = RunSettings(batch=2, warmup=0, checkpoint_every=1, validate_every=1, bfloat16=False, channels_last=False)
    stops, figures = ((1, 2), 5) if box_loss == "nce_plus" else ((1,), 3)
    if figures == 3:
        monkeypatch.setattr("ebmtrack.training.run.save_checkpoint", lambda *_: None)

    def run(device):
        for steps in stops:
            torch.manual_seed(0)
            net = TrackerNet("prdimp18" if box_loss == "prdimp" else "dimp18")
            data = batches(frames, device, length=4)
            held_back = HeldBack(batches(frames, device, seed=4), 2, number=2, batch=2) if figures == 5 else None
            groups = [{"params": list(net.parameters()), "lr": 1e-4}]
            plan = Plan(Network(net, groups), Data(data, held_back), Objective(2, objective))
            train(plan, dataclasses.replace(settings, out=tmp_path / device[:3], device=device, steps=steps))
        return losses(tmp_path / device[:3])

    expected = run("cpu")
    with PretendedGpu() as gpu:
        assert run(GPU) == expected and len(expected) >= figures * len(stops) - 1
    assert gpu.calls > 1000


def test_training_of_the_box_branch_alone(frames, tmp_path, known_device):
    def run(device):
        torch.manual_seed(0)
        net = TrackerNet("dimp18").to(device)
        data = batches(frames, device, train_frames=1)
        pairs = FrozenPairs(net, data, Rounds(3, 4), 4, bfloat16=False)
        objective = Objective(1, ObjectiveSettings(samples=8, classifier_loss="none", box_weight=1.0))
        groups = [{"params": list(net.bb_regressor.parameters()), "lr": 1e-4}]
        plan = Plan(Network(net, groups), Data(pairs), objective)
        train(plan, RunSettings(out=tmp_path / device[:3], device=device, steps=2, batch=2, warmup=0))
        return losses(tmp_path / device[:3])

    expected = run("cpu")
    with PretendedGpu():
        assert run(GPU) == expected and len(expected) >= 2


class GpuGenerator(torch.Generator):
    """Says it belongs to the pretended GPU."""

    device = torch.device(GPU)


@pytest.mark.parametrize("method", list(methods.METHODS))
def test_the_1d_study(method, monkeypatch):
    settings = methods.StudySettings(epochs=1, batch=16, examples=32, grid=64)

    def run(device):
        net = study1d.train(methods.StudyCell(method, 2), [(1, 0), (2, 0)], settings, device)
        return study1d.divergences(net, [(1, 0), (2, 0)], settings.grid).tolist()

    if method == "ml-mcmc-256":
        monkeypatch.setitem(methods.METHODS, method, methods._ml_mcmc(3))
    expected = run("cpu")
    generators = {GPU: GpuGenerator, "cpu": torch.Generator}
    monkeypatch.setattr(study1d, "Generator", lambda device="cpu": generators[device]())
    with PretendedGpu():
        assert run(GPU) == expected
