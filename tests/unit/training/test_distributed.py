"""Two processes that train together equal one with the doubled batch; they stop, resume and write as one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.data import Dataset

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.energy.losses import nce_plus
from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training import distributed
from ebmtrack.training.batches import Shard
from ebmtrack.training.distributed import Team, as_synchronized, device_of_process, team_of
from ebmtrack.training.objective import Objective, ObjectiveSettings, classifier_loss, score_labels
from ebmtrack.training.plan import Plan, Share
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from tests.support import REPOSITORY
from tests.support.ports import own_port
from tests.unit.training.test_training import plan_with, training_set

TESTS = str(REPOSITORY)


class Pictures(Dataset):
    """Sample i is drawn from its own number: a picture, and its target."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        x = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        return {"x": x, "y": x.mean((1, 2)).sin() * 3}


class Net(nn.Module):
    """What is hard to train in parts: batch norm, a layer used twice, one that thaws, one without a gradient."""

    def __init__(self):
        super().__init__()
        self.early = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.twice = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.norm(self.early(x)).tanh()
        x = self.twice(self.twice(x).tanh())
        return self.head(x.mean((2, 3)))


def plan_of(bad_at: int | None = None, dropout: float = 0.0, gradients: str = "average") -> Plan:
    """Noise is drawn for the whole step; each process takes its share. The loss of step `bad_at` is NaN.

    For "ddp" nothing thaws, and the unused part asks for no gradient."""
    torch.manual_seed(1)
    net = Net().double()
    steps = iter(range(1000))

    def objective(net, batch, generator, share):
        noise = share.of(torch.randn(len(batch["x"]) * share.size, 3, generator=generator), 0)
        loss = (F.dropout(net(batch["x"]), dropout) - batch["y"] - 0.1 * noise).square().mean()
        return (loss * float("nan") if next(steps) == bad_at else loss), {"size": loss.detach()}

    thaw = (0.5, [net.early]) if gradients == "average" else (1.0, [])
    net.unused.requires_grad_(gradients == "average")
    return plan_with(net, objective, Pictures(), thaw=thaw, gradients=gradients)


class TeamBatchNorm2d(nn.BatchNorm2d):
    """torch.nn.SyncBatchNorm for CPUs: in training, the statistics of the batches of all processes together.

    Each process sends mean and variance of its batch, all of the same size; mean and variance of the whole follow as
    mean of the means, and mean of the variances plus variance of the means.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) of this process, normalised with the statistics of all N * processes."""
        if not self.training:
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        means, variances = _Gather.apply(torch.stack([mean, var])).unbind(1)  # (processes, C) each
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        self._remember(mean.detach(), var.detach(), len(means) * x.numel() // x.shape[1])
        y = (values - mean.view(-1, 1, 1)) * torch.rsqrt(var + self.eps).view(-1, 1, 1)
        if self.affine:
            y = torch.addcmul(self.bias.view(-1, 1, 1), y, self.weight.view(-1, 1, 1))
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics; `count` values for each channel."""
        if not self.track_running_stats:
            return
        count_of_steps = self.get_buffer("num_batches_tracked").add_(1)
        share = 1 / count_of_steps.item() if self.momentum is None else self.momentum
        self.get_buffer("running_mean").lerp_(mean, share)
        self.get_buffer("running_var").lerp_(var * count / max(1, count - 1), share)


class _Gather(torch.autograd.Function):
    """Tensors of all processes, stacked; a process gets back the sum of all gradients of its part."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def settings_in(out: Path, **changes) -> RunSettings:
    usual = {"steps": 12, "batch": 3, "workers": 0, "warmup": 3, "checkpoint_every": 5, "channels_last": False}
    return RunSettings(out, **{"device": "cpu", **usual, **changes})


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in net.state_dict().items()}


def work(out: Path, rank: int) -> None:
    """What each of two processes does for the tests below; process 1 has a folder of its own."""
    folder = out if rank == 0 else out / "other machine"
    distributed.SYNCHRONIZED["cpu"] = TeamBatchNorm2d
    results: dict[str, Any] = {"straight": state_of(train(plan_of(), settings_in(folder / "straight")))}
    results["ddp"] = state_of(train(plan_of(gradients="ddp"), settings_in(folder / "ddp")))
    plan = plan_of(gradients="ddp")
    plan.network.gradients = "average"
    results["averaged"] = state_of(train(plan, settings_in(folder / "averaged")))
    results["dropout"] = state_of(train(plan_of(dropout=0.5), settings_in(folder / "dropout")))
    for name, bad_at, dropout in (("stopped", 8, 0.0), ("dropout_stopped", 8, 0.5)):
        plan = plan_of(bad_at=bad_at if rank == 1 else None, dropout=dropout)
        try:
            train(plan, settings_in(folder / name))
        except EbmtrackError as error:
            results[f"{name} message"] = str(error)
        results[name] = state_of(train(plan_of(dropout=dropout), settings_in(folder / name)))
    if rank == 0:
        (out / "damaged").mkdir()
        (out / "damaged" / "checkpoint.pt").write_bytes(b"no checkpoint")
    try:
        train(plan_of(), settings_in(folder / "damaged"))
    except CheckpointError as error:
        results["damaged"] = str(error)
    results["tracker"] = tracker_gradients(folder / "tracker", 1)
    torch.save(results, out / f"results{rank}.pt")


def tracker_gradients(out: Path, batch: int) -> dict[str, torch.Tensor]:
    """Gradients of the whole tracker network after one step in float64; candidates are fixed offsets of the truth."""
    torch.manual_seed(0)
    net = TrackerNet("dimp18").double()

    def objective(net, batch, generator, share):
        images = normalize_images(batch["crops"].permute(1, 0, 4, 2, 3).flatten(0, 1).double())
        images, boxes = images.unflatten(0, batch["crops"].shape[1::-1]), batch["boxes_xywh"].transpose(0, 1).double()
        moved = boxes[2:, :, None] + torch.tensor([[0.0, 0, 0, 0], [3, -2, 4, 1], [-5, 1, -3, 2]])
        scores, energies = net(images[:2], xywh_to_xyxy(boxes[:2]), images[2:], xywh_to_xyxy(moved))
        labels = score_labels(boxes[2:], tuple(scores[0].shape[-2:]), 0.9)
        loss, logs = classifier_loss(scores, labels, ObjectiveSettings())
        return loss + nce_plus(energies, torch.zeros(3)), logs

    dataset = training_set(output=96)
    plan = plan_with(net, objective, dataset, 1e-3)
    as_double = mock.patch.object(torch.Tensor, "float", torch.Tensor.double)  # the classifier leaves autocast by it
    twins = mock.patch.dict(distributed.SYNCHRONIZED, cpu=TeamBatchNorm2d)
    with as_double, twins, mock.patch("ebmtrack.training.run.save_checkpoint"):
        train(plan, settings_in(out, steps=1, batch=batch))
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def launch(code: str, out: Path, port: int) -> list[subprocess.Popen]:
    """Two processes as torchrun starts them, running `code` with `out` and `rank`; they meet at a port."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    begin = f"import sys; sys.path.insert(0, {TESTS!r}); from pathlib import Path; out = Path({str(out)!r}); "
    processes = []
    for rank in "01":
        environment = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
        command = [sys.executable, "-c", f"{begin}rank = {rank}; {code}"]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return processes


def ends_of(processes: list[subprocess.Popen], timeout_s: float = 250) -> None:
    """Wait for processes; what one of them says is shown where it fails, and none outlives the test."""
    try:
        errors = [process.communicate(timeout=timeout_s)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What `work` gave in two processes, and the folder."""
    out = tmp_path_factory.mktemp("two")
    code = "from tests.unit.training import test_distributed; test_distributed.work(out, rank)"
    with own_port() as port:
        ends_of(launch(code, out, port))
    return [torch.load(out / f"results{rank}.pt") for rank in (0, 1)], out


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two states."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_processes_equal_one_with_the_doubled_batch(two, tmp_path):
    """In float64, weights and running statistics agree to rounding after 12 Adam steps of 1e-2 each."""
    whole = state_of(train(plan_of(), settings_in(tmp_path, batch=6)))
    (first, second), _ = two
    assert furthest(first["straight"], second["straight"]) == 0
    assert furthest(first["straight"], whole) < 1e-9
    start = state_of(plan_of().network.net)
    changed = {name for name in start if not torch.equal(start[name], whole[name])}
    assert changed == {name for name in start if not name.startswith("unused")}


def test_ddp_gives_what_averaging_gives(two):
    """Weights and running statistics of a run in which nothing thaws, to rounding, and equal in both processes."""
    (first, second), folder = two
    averaged = first["averaged"]
    assert furthest(first["ddp"], second["ddp"]) == 0
    assert furthest(first["ddp"], averaged) < 1e-12


def test_the_log_holds_means_over_processes(two, tmp_path):
    """The loss of the doubled batch is the mean of both losses, step by step."""
    train(plan_of(), settings_in(tmp_path, batch=6))
    logs = []
    for path in (tmp_path / "log.csv", two[1] / "straight" / "log.csv"):
        with open(path, newline="") as file:
            logs.append([(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)])
    assert logs[0] == [(step, pytest.approx(loss, rel=2e-5)) for step, loss in logs[1]] and len(logs[0]) == 12


@pytest.mark.parametrize("name", ["", "dropout"])
def test_stopped_and_resumed_together_equals_never_stopped(two, name):
    """Bit for bit, also where each process draws its own dropout; a NaN in process 1 stops both at step 8."""
    for results in two[0]:
        stopped = f"{name}_stopped".lstrip("_")
        assert furthest(results[name or "straight"], results[stopped]) == 0
        assert results[f"{stopped} message"].startswith("step 8: the loss is")
    assert "another process" in two[0][0]["stopped message"] and "bad_batch_1.pt" in two[0][1]["stopped message"]


def test_dropout_differs_between_processes(two):
    """Had both processes dropped the same, the run would equal that of neither; it differs from one without."""
    assert furthest(two[0][0]["dropout"], two[0][0]["straight"]) > 1e-3


def test_only_the_first_process_writes(two):
    """Process 1, on another machine, leaves nothing but the batch whose loss was NaN."""
    left = sorted(str(p.relative_to(two[1])) for p in (two[1] / "other machine").rglob("*") if p.is_file())
    assert left == ["other machine/dropout_stopped/bad_batch_1.pt", "other machine/stopped/bad_batch_1.pt"]
    batch = torch.load(two[1] / left[1])
    assert batch["number"].tolist() == [51, 52, 53]  # step 8 holds 48 .. 53


def test_a_damaged_checkpoint_stops_all(two):
    assert all("no checkpoint" in results["damaged"] for results in two[0])


def test_the_tracker_network_gets_the_gradients_of_the_doubled_batch(two, tmp_path):
    """Backbone, filter optimiser and box branch with batch norm in training.

    Float64 has 2e-16; batch norm over two values, in the reference branch, loses up to six digits of it in both runs.
    Gradients that vanish (of biases before a batch norm) are below 1e-12.
    """
    whole = tracker_gradients(tmp_path, 2)
    for name, gradient in two[0][0]["tracker"].items():
        assert (gradient - whole[name]).norm().item() < 1e-6 * whole[name].norm().item() + 1e-10, name


TORCHRUN = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import tests.unit.training.test_distributed as t
from ebmtrack.training import run
if {kill!r} == os.environ["RANK"]:
    step_of = run._Run._step
    def dies(self, batch, step):
        if step == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return step_of(self, batch, step)
    run._Run._step = dies
run.train(t.plan_of(dropout=0.5), t.settings_in(Path({out!r}), workers=1))
"""


def torchrun(out: Path, kill: str = "") -> int:
    """Exit code of a run by two processes under torchrun, of which process `kill` dies in step 8."""
    script = out.parent / f"train_{out.name}_{kill}.py"
    script.write_text(TORCHRUN.format(tests=TESTS, out=str(out), kill=kill))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, timeout=300, env=environment).returncode


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["0", "1"])
def test_kill_9_under_torchrun_loses_nothing(tmp_path, kill):
    """Either process is killed in step 8; the run goes on from step 5 and ends bit for bit as one never stopped."""
    assert torchrun(tmp_path / "straight") == 0
    assert torchrun(tmp_path / "killed", kill) != 0
    assert torch.load(tmp_path / "killed" / "checkpoint.pt")["step"] == 5
    assert torchrun(tmp_path / "killed") == 0
    ends = [torch.load(tmp_path / name / "checkpoint.pt") for name in ("straight", "killed")]
    assert furthest(ends[0]["net"], ends[1]["net"]) == 0 and ends[0]["step"] == ends[1]["step"] == 12


def test_shares_of_a_step_have_the_noise_of_the_whole():
    """Without batch statistics, the mean of the losses of both halves is the loss of the whole batch."""
    net, dataset = TrackerNet("dimp18").eval(), training_set(output=96)
    whole = torch.utils.data.default_collate([dataset[index] for index in range(4)])
    halves = [{key: value.chunk(2)[rank] for key, value in whole.items()} for rank in (0, 1)]
    objective, shares = Objective(2, ObjectiveSettings(samples=16)), [Share(), Share(0, 2), Share(1, 2)]
    with torch.no_grad():
        one, *two = (
            objective(net, batch, torch.Generator().manual_seed(5), share)[1]["box"].item()
            for batch, share in zip((whole, *halves), shares)
        )
    assert sum(two) / 2 == pytest.approx(one, rel=1e-4) and two[0] != pytest.approx(two[1], rel=1e-2)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_sample_numbers_do_not_depend_on_the_cut(size):
    """Step k of any team with 6 samples a step holds the numbers 12 + 6 k .. 17 + 6 k, in order of rank."""
    shards = [Shard(Pictures(), 12, 4, 6 // size, Team(rank, size)) for rank in range(size)]
    for step in range(4):
        places = range(step * (6 // size), (step + 1) * (6 // size))
        assert [s.number(p) for s in shards for p in places] == list(range(12 + 6 * step, 18 + 6 * step))
    assert shards[0][1]["number"] == shards[0].number(1)


def test_a_team_of_one_sends_nothing():
    """Values, gradients and batch norm are left alone, and no process group is needed."""
    team = Team()
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    team.average_gradients([weight])
    assert weight.grad.tolist() == [1, 2] and team.mean(weight) is weight and team.gather(5) == [5]
    assert team.from_leader(lambda: 7) == 7


@pytest.mark.parametrize("size", [1, 2])
def test_batch_norm_is_synchronised_on_gpus_and_in_teams_alone(size):
    """Within the context another object has the same parameters, buffers and mode; after it all is as before."""
    norm = nn.BatchNorm2d(3).eval()
    net, gpu = nn.Sequential(nn.Sequential(norm)), torch.device("cuda")
    with as_synchronized(net, Team(0, size, gpu)):
        inner = net[0][0]
        assert type(inner) is (nn.SyncBatchNorm if size == 2 else nn.BatchNorm2d)
        assert inner.weight is norm.weight and inner.running_var is norm.running_var and not inner.training
    assert net[0][0] is norm
    with as_synchronized(net, Team(0, size)):
        assert net[0][0] is norm


def test_a_network_that_thaws_is_not_left_to_ddp(tmp_path):
    plan = plan_of()
    plan.network.gradients = "ddp"
    with pytest.raises(ConfigError, match="thaw"):
        train(plan, settings_in(tmp_path))


def test_devices_are_checked_before_anything_starts(monkeypatch, tmp_path):
    assert device_of_process("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="cuda:63"):
        train(plan_of(), settings_in(tmp_path, device="cuda:63"))
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two'"):
        team_of("cpu")


def test_a_run_needs_samples_for_all_processes(monkeypatch):
    settings = RunSettings(steps=10, batch=4)
    assert settings.samples == 40
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert settings.samples == 320
