"""What a run does besides its steps: random states, clipping, batches made whole, checkpoints that are refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, StackDataset

from ebmtrack.errors import CheckpointError, ConfigError, DatasetError, EbmtrackError
from ebmtrack.training.batches import read_samples
from ebmtrack.training.plan import Plan
from ebmtrack.training.resuming import random_state, read_checkpoint, set_random_state
from ebmtrack.training.run import train
from tests.unit.training.test_logs import rows_of
from tests.unit.training.test_training import Numbers, plan_with, settings_in, tiny_plan, weights_of


def careless_plan(bad_at: int | None = None) -> Plan:
    """A plan whose objective draws from all generators that everybody shares."""
    plan = tiny_plan()
    steps = iter(range(10**6))

    def objective(net, batch, generator, share):
        noise = random.random() + float(np.random.rand())
        loss = (F.dropout(net(batch["x"]), 0.5) - batch["y"] * noise).square().mean()
        return (loss * float("nan") if next(steps) == bad_at else loss), {}

    plan.objective = objective
    return plan


def test_shared_generators_resume_too(tmp_path):
    """Dropout, Python's and NumPy's numbers: stopped after step 20's checkpoint and resumed, bit for bit."""
    straight = train(careless_plan(), settings_in(tmp_path / "a"))
    with pytest.raises(EbmtrackError, match="step 23"):
        train(careless_plan(bad_at=23), settings_in(tmp_path / "b"))
    resumed = train(careless_plan(), settings_in(tmp_path / "b"))
    assert torch.equal(weights_of(straight), weights_of(resumed))
    other = train(careless_plan(), settings_in(tmp_path / "c", seed=1))
    assert not torch.equal(weights_of(straight), weights_of(other))


def test_a_random_state_is_where_all_generators_stand():
    before = random_state()
    drawn = [(random.random(), np.random.randn(3).tolist(), torch.randn(2).tolist(), random.gauss(0, 1))]
    set_random_state(before)
    drawn.append((random.random(), np.random.randn(3).tolist(), torch.randn(2).tolist(), random.gauss(0, 1)))
    assert drawn[0] == drawn[1]


def test_validation_changes_no_step(tmp_path):
    """It draws from all shared generators and seeds them anew; the weights are those of a run without it."""

    def validate(net):
        torch.manual_seed(0)
        random.seed(0)
        return {"val_loss": float(np.random.rand())}

    plan = careless_plan()
    plan.validate = validate
    checked = train(plan, settings_in(tmp_path / "a", validate_every=4))
    plain = train(careless_plan(), settings_in(tmp_path / "b"))
    assert torch.equal(weights_of(checked), weights_of(plain))
    rows = rows_of(tmp_path / "a" / "log.csv")
    assert [int(row["step"]) for row in rows if row["val_loss"]] == [4, 8, 12, 16, 20, 24, 28, 30]


class Whole(Numbers):
    """Makes whole batches itself."""

    def __init__(self, length: int = 10_000):
        self.length = length
        self.asked: list[Any] = []

    def __len__(self):
        return self.length

    def batch(self, numbers):
        self.asked.append(numbers)
        items = [self[number] for number in numbers]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}


def test_whole_batches_equal_collected_ones(tmp_path):
    plan = tiny_plan()
    plan.data.train = Whole()
    whole = train(plan, settings_in(tmp_path / "a", steps=6))
    assert plan.data.train.asked == [list(range(4 * k, 4 * k + 4)) for k in range(6)]
    assert torch.equal(weights_of(whole), weights_of(train(tiny_plan(), settings_in(tmp_path / "b", steps=6))))


def test_workers_give_the_same_batches(tmp_path):
    """Two processes that read ahead, and none."""
    runs = [train(tiny_plan(), settings_in(tmp_path / str(n), steps=6, workers=n)) for n in (0, 2)]
    assert torch.equal(weights_of(runs[0]), weights_of(runs[1]))


DAMAGE = "cat/7.jpg: cannot be read (no such file); is the data set complete?"


class Damaged(Dataset):
    """Samples of which the one with number 5 cannot be read."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        if number == 5:
            raise DatasetError(DAMAGE)
        return tiny_plan().data.train[number]  # type: ignore[index]  # no maker of batches


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_ends_the_run_with_its_own_message(tmp_path, workers):
    """One line, also from another process, whose traceback torch puts into the message."""
    plan = tiny_plan()
    plan.data.train = Damaged()
    with pytest.raises(DatasetError) as caught:
        train(plan, settings_in(tmp_path, steps=6, workers=workers))
    assert str(caught.value) == DAMAGE


class Fails(Dataset):
    """One sample, of which a message tells that it cannot be read."""

    def __init__(self, message: str):
        self.message = message

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> torch.Tensor:
        raise DatasetError(self.message)


@pytest.mark.parametrize("message", ["", "a.jpg: ebmtrack.errors.DatasetError: in short", "two\nlines"])
def test_the_message_of_a_worker_is_kept_whole(message):
    """Whatever it holds, and without the traceback if it holds nothing."""
    with pytest.raises(DatasetError) as caught:
        list(read_samples(Fails(message), 1, workers=1))
    assert str(caught.value) == message


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_without_a_batch_come_one_by_one_in_order(workers):
    read = read_samples(StackDataset(number=torch.arange(5)), None, workers)
    assert [sample["number"].item() for sample in read] == list(range(5))


def test_samples_go_on_where_they_ended_also_with_another_batch(tmp_path):
    """Ten steps of 4 use the samples 0 .. 39; five of 8 after them 40 .. 79."""
    plan = tiny_plan()
    plan.data.train = Whole()
    train(plan, settings_in(tmp_path, steps=10))
    train(plan, settings_in(tmp_path, steps=15, batch=8))
    assert sum(plan.data.train.asked, []) == list(range(80))
    assert read_checkpoint(tmp_path / "checkpoint.pt")["samples"] == 80


def test_a_data_set_that_is_used_up_begins_again(tmp_path):
    """Ten steps of 8 use all 80 samples; two more steps of 4, for which 12 * 4 would do, begin again."""
    plan = tiny_plan()
    plan.data.train = Whole(80)
    train(plan, settings_in(tmp_path, steps=10, batch=8))
    train(plan, settings_in(tmp_path, steps=12, batch=4))
    assert plan.data.train.asked[-2:] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def gradient_after(out, **changes) -> torch.Tensor:
    """The gradient of the first step, all parameters in one."""
    plan = tiny_plan()
    plan.network.thaw = (1.0, [])
    train(plan, settings_in(out, steps=1, **changes))
    return torch.cat([p.grad.flatten() for p in plan.network.net.parameters() if p.grad is not None])


def test_clipping_shortens_long_gradients_alone(tmp_path):
    """The direction stays; a limit above the length changes nothing; without a limit no length is logged."""
    free = gradient_after(tmp_path / "a")
    length = free.norm().item()
    clipped = gradient_after(tmp_path / "b", clip_norm=length / 10)
    assert clipped.norm().item() == pytest.approx(length / 10, rel=1e-3)
    assert torch.allclose(clipped * 10, free, rtol=1e-3)
    assert torch.equal(gradient_after(tmp_path / "c", clip_norm=length * 10), free)
    assert float(rows_of(tmp_path / "b" / "log.csv")[0]["grad_norm"]) == pytest.approx(length, rel=1e-4)
    assert "grad_norm" not in rows_of(tmp_path / "a" / "log.csv")[0]


@pytest.mark.parametrize("wanted", [True, False])
def test_channels_last(tmp_path, wanted):
    net = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.Flatten(), nn.Linear(16, 1))

    def objective(net, batch, generator, share):
        return (net(batch["x"][:, :, None, None].expand(-1, -1, 2, 2)) - batch["y"]).square().mean(), {}

    plan = plan_with(net, objective, Numbers())
    train(plan, settings_in(tmp_path, steps=2, channels_last=wanted))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last) == wanted


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The loss sqrt(0 * w) is finite and its gradient is not: the checkpoint before stays as it was."""
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    plan = tiny_plan()
    plan.objective = lambda net, batch, generator, share: ((weights_in(net) * 0).sum().sqrt(), {})
    with pytest.raises(EbmtrackError, match="step 11: weights are not finite"):
        train(plan, settings_in(tmp_path, steps=11))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def weights_in(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.flatten() for p in net.parameters()])


def test_a_checkpoint_with_another_seed_is_refused(tmp_path):
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    with pytest.raises(CheckpointError, match="seed 0"):
        train(tiny_plan(), settings_in(tmp_path, steps=20, seed=3))


def test_checkpoints_without_samples_and_random_states_resume(tmp_path):
    """As an earlier version wrote them: network, optimiser and step; all that is random here follows from the step."""
    straight = train(tiny_plan(), settings_in(tmp_path / "a", steps=20))
    train(tiny_plan(), settings_in(tmp_path / "b", steps=20, checkpoint_every=20))
    plan = tiny_plan()
    plan.network.thaw = (0.5, [plan.network.net[0]])
    half = settings_in(tmp_path / "c", steps=20)
    state = stop_after(half, 10)
    torch.save({key: state[key] for key in ("net", "optimizer", "step")}, tmp_path / "c" / "checkpoint.pt")
    assert torch.equal(weights_of(straight), weights_of(train(plan, half)))


def stop_after(settings, step: int) -> dict:
    """The checkpoint of a run that fails in the step after `step`."""
    with pytest.raises(EbmtrackError):
        train(tiny_plan(bad_at=step), settings)
    checkpoint = read_checkpoint(settings.out / "checkpoint.pt")
    assert checkpoint is not None
    return checkpoint


def test_a_data_set_that_is_too_short_is_refused(tmp_path):
    plan = tiny_plan()
    plan.data.train = torch.utils.data.Subset(Numbers(), range(119))
    with pytest.raises(ConfigError, match=r"119 samples, the run needs 120: .* settings\.samples"):
        train(plan, settings_in(tmp_path))


def test_a_finished_run_is_left_alone(tmp_path):
    first = weights_of(train(tiny_plan(), settings_in(tmp_path, steps=10)))
    before = (tmp_path / "log.csv").read_bytes(), (tmp_path / "checkpoint.pt").read_bytes()
    assert torch.equal(weights_of(train(tiny_plan(), settings_in(tmp_path, steps=10))), first)
    assert ((tmp_path / "log.csv").read_bytes(), (tmp_path / "checkpoint.pt").read_bytes()) == before
