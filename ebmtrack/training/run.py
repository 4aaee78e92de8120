"""One training run: the loop and its checkpoints; killed and resumed equals never stopped, cut up equals whole.

With one process, a run that was killed and resumed ends with the same bits on a CPU as one that never stopped. With n
processes (`torchrun`, see `distributed`) and batches of b it ends, to rounding, where one process with batches of n * b
ends, provided that the objective draws its noise for the whole step and takes its share (see `Plan`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.files import replacing
from ebmtrack.training.compiled import WeightAverage
from ebmtrack.training.distributed import Team, team_batch_norm, team_of, world_size
from ebmtrack.training.logs import RunLog, Stopwatch
from ebmtrack.training.resuming import check_same_settings, settings_text
from ebmtrack.training.validation import TrackingRun

Batch = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Where a run lives and how long it lasts; what it trains stands in its file in ltr_settings.

    batch: sequences in a step of each process; `torchrun` with n processes makes steps of n times as many. device: cpu,
    cuda, cuda:1, or auto (a GPU where there is one). clip_norm: longest gradient, None for no limit. track_on: folder
    of sequences (as for `ebmtrack eval folder`) whose first `track_frames` frames are tracked every `track_every`
    steps. tensorboard, visdom: where curves go besides `log.csv`. All `*_every` are steps.
    """

    out: Path = Path("runs/unnamed")
    data: Path = Path("data/train")
    backbone: str = "resnet18"  # a file of torchvision's ImageNet weights, or a name to download
    steps: int = 2000
    batch: int = 10
    workers: int = 1
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = True
    channels_last: bool = True
    clip_norm: float | None = None
    warmup: int = 100
    checkpoint_every: int = 100
    validate_every: int = 200
    track_on: Path | None = None
    track_every: int = 2000
    track_frames: int = 100
    tensorboard: bool = False
    visdom: bool = False
    visdom_server: str = "http://localhost"
    visdom_port: int = 8097
    resume: bool = True

    @property
    def samples(self) -> int:
        """How many samples the whole run uses, in all processes together: the least length of its data set."""
        return self.steps * self.batch * world_size()


@dataclasses.dataclass
class Plan:
    """What a run needs besides its settings, made by a file in ltr_settings.

    dataset: samples by number, each a dict of tensors, `settings.samples` of them; a batch has their numbers as
    `number` (s,) besides. One that has a method `batch(numbers: list[int]) -> dict` makes whole batches itself, in the
    training process. objective: batch and a generator seeded by the step -> (mean loss over the batch, figures for the
    log). With several processes the batch also has `share`, (r, n): it is the r-th of the n equal parts of the step's
    samples, and noise that is drawn for all n * s samples, of which s are used, is that of one process.
    groups: Adam parameter groups with their base learning rates. thaw: (share of the steps, modules) that start frozen
    and train from then on. validate: called with the network, gives figures for the log. rate: step -> factor on every
    group's learning rate, for example `step_decay(2000)`; None is linear warm-up, then a half cosine to zero. params:
    set-up in tracker_params for tracking runs. average: decay of a moving average of the weights, which validation sees
    and which the network has in the end; 0 for none. weight_decay: decoupled (AdamW), times the learning rate.
    """

    net: nn.Module
    objective: Callable[[Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
    dataset: Dataset
    groups: list[dict]
    thaw: tuple[float, list[nn.Module]] = (1.0, [])
    set_mode: Callable[[nn.Module], None] = lambda net: net.train()
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    rate: Callable[[int], float] | None = None
    params: str = "dimp18_nce_plus"
    average: float = 0.0
    weight_decay: float = 0.0


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def step_decay(steps_per_epoch: int, epochs: int = 15, factor: float = 0.2) -> Callable[[int], float]:
    """Step -> learning-rate factor: `factor` once more after every `epochs` epochs (DiMP: 0.2 each 15).

    >>> rate = step_decay(steps_per_epoch=2000)
    >>> [round(rate(step), 4) for step in (0, 29_999, 30_000, 60_000)]
    [1.0, 1.0, 0.2, 0.04]
    """
    if steps_per_epoch < 1 or epochs < 1 or factor <= 0:
        raise ConfigError(f"step_decay({steps_per_epoch}, {epochs}, {factor}): all must be positive")
    return lambda step: factor ** (step // (steps_per_epoch * epochs))


def train(plan: Plan, settings: RunSettings) -> nn.Module:
    """Train `plan.net` in place, from the last checkpoint in `settings.out` where there is one.

    Under torchrun every process calls this; process 0 alone validates, tracks and writes.
    """
    team = team_of(settings.device)
    with team_batch_norm(plan.net, team):
        seed_all(settings.seed + 7919 * team.rank)
        plan.net.to(team.device)
        if settings.channels_last:
            plan.net.to(memory_format=torch.channels_last)
        run = _Run(plan, settings, team)
        with contextlib.closing(run.open_log()) as log:
            run.go_on(log)
    return plan.net


class _Run:
    """A run in progress: its optimiser, and how many steps and samples are done."""

    def __init__(self, plan: Plan, settings: RunSettings, team: Team):
        self.plan, self.settings, self.team = plan, settings, team
        groups = [dict(group, base_lr=group["lr"]) for group in plan.groups]
        self.optimizer = (
            torch.optim.AdamW(groups, weight_decay=plan.weight_decay, fused=True)
            if plan.weight_decay
            else torch.optim.Adam(groups)
        )
        self.average = WeightAverage(plan.net, plan.average) if plan.average else None
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.path = settings.out / "checkpoint.pt"
        self.done, self.samples, self.random = 0, 0, random_state()
        if team.leads:
            remove_leftovers(self.path, settings.out / "log.csv")
        state = team.from_leader(lambda: read_checkpoint(self.path) if settings.resume else None)
        if state is not None:
            self._load(state)
        team.same_start(plan.net)
        track = settings.track_on is not None and team.leads
        self.track = TrackingRun(settings.track_on, plan.params, settings.track_frames) if track else None

    def open_log(self) -> RunLog:
        """Where figures go; nowhere in processes that do not lead."""
        return RunLog(self.settings, self.done) if self.team.leads else RunLog(None, 0)

    def go_on(self, log: RunLog) -> None:
        """Do the steps that are left."""
        settings, watch = self.settings, Stopwatch(self.team.device)
        batches = _batches(self.plan.dataset, self.samples, self.done, settings, self.team)
        set_random_state(self.random)
        for done in range(self.done + 1, settings.steps + 1):
            batch = watch.fetch(batches)
            logs = self._step(batch, done - 1)
            samples = settings.batch * self.team.size
            self.done, self.samples = done, self.samples + samples
            timing = watch.lap(samples, self.team)
            log.add({"step": done, **logs, **self._checks(), **timing})
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                self._save()
        if self.average is not None:
            self.average.swap(self.plan.net)

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """One optimiser step; raises before the weights are touched when the loss is not finite."""
        plan, settings, team = self.plan, self.settings, self.team
        share, modules = plan.thaw
        for module in modules:
            module.requires_grad_(step >= share * settings.steps)
        plan.set_mode(plan.net)
        factor = plan.rate(step) if plan.rate else learning_rate_factor(step, settings.steps, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        batch = batch if team.size == 1 else {**batch, "share": (team.rank, team.size)}
        loss, logs = plan.objective(batch, generator)
        self._check_loss(loss, batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        team.average_gradients(self.parameters)
        if settings.clip_norm is not None:
            logs = {**logs, "grad_norm": nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm)}
        self.optimizer.step()
        if self.average is not None:
            self.average.update(plan.net)
        values = team.mean(torch.stack([loss.detach().float(), *(value.float() for value in logs.values())]))
        return dict(zip(("loss", *logs), values.tolist()))

    def _check_loss(self, loss: Tensor, batch: Batch, step: int) -> None:
        """Stop all processes where the loss of one is not finite; that one writes its batch."""
        path = self.settings.out / ("bad_batch.pt" if self.team.leads else f"bad_batch_{self.team.rank}.pt")
        if not torch.isfinite(loss):
            with replacing(path) as temporary:
                torch.save(batch, temporary)
        if not torch.isfinite(self.team.mean(loss.detach().float())):
            where = f"the batch is in {path}" if not torch.isfinite(loss) else "another process has the batch"
            raise EbmtrackError(f"step {step}: the loss is {loss.item()}; {where}")

    def _checks(self) -> dict[str, float]:
        """Figures of validation and of the tracking run, where they are due; they draw no random numbers of ours."""
        settings, figures = self.settings, {}
        checks = ((self.plan.validate, settings.validate_every), (self.track, settings.track_every))
        due = [check for check, every in checks if check and (self.done % every == 0 or self.done == settings.steps)]
        if due and self.team.leads:
            before = random_state()
            with self._averaged():
                for check in due:
                    figures.update(check(self.plan.net))
            set_random_state(before)
        return figures

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Let the network have the averaged weights for a while."""
        if self.average is not None:
            self.average.swap(self.plan.net)
        try:
            yield
        finally:
            if self.average is not None:
                self.average.swap(self.plan.net)

    def _save(self) -> None:
        """Write a checkpoint; raises, and keeps the last one, where a weight is not finite."""
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise EbmtrackError(f"step {self.done}: weights are not finite; {self.path} holds the last good ones")
        where = {"step": self.done, "samples": self.samples, "seed": self.settings.seed}
        where["settings"] = settings_text(self.settings)
        where["random"] = self.team.gather(random_state())
        if self.average is not None:
            where["average"] = {"values": self.average.values, "steps": self.average.steps}
        if self.team.leads:
            save_checkpoint(self.path, self.plan.net, self.optimizer, where)

    def _load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of this run; CheckpointError where it is of another one."""
        if state.get("seed", self.settings.seed) != self.settings.seed:
            raise CheckpointError(f"{self.path} is of a run with seed {state['seed']}; begin afresh with --restart")
        if "settings" in state:
            check_same_settings(self.path, state["settings"], self.settings)
        try:
            self.plan.net.load_state_dict(state["net"])
            base_rates = [group["base_lr"] for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, rate in zip(self.optimizer.param_groups, base_rates):
                group["base_lr"] = rate
            self.done = state["step"]
            if self.average is not None:
                self.average.values, self.average.steps = state["average"]["values"], state["average"]["steps"]
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} does not fit this run: {error}; move it to start afresh") from error
        self.samples = state.get("samples", self.done * self.settings.batch * self.team.size)
        states = state.get("random", [])
        self.random = states[self.team.rank] if self.team.rank < len(states) else self.random


class Shard(Dataset):
    """What one process of a team sees of a data set: position p is its p-th sample, which knows its `number`.

    A step uses the next size * batch samples of the data set, process r the r-th part of them: sample number i is the
    same, and in the same step, for any number of processes with the same product. A data set that is used up, after a
    resume with smaller batches, begins again.
    """

    def __init__(self, dataset: Dataset, first: int, steps: int, batch: int, team: Team):
        self.dataset, self.first, self.batch, self.team = dataset, first, batch, team
        self.length = steps * batch

    def __len__(self) -> int:
        return self.length

    def number(self, position: int) -> int:
        """Which sample of the data set stands at a position."""
        step, place = divmod(position, self.batch)
        return (self.first + (step * self.team.size + self.team.rank) * self.batch + place) % len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number = self.number(position)
        return {**self.dataset[number], "number": number}


def _batches(dataset: Dataset, first: int, start: int, settings: RunSettings, team: Team) -> Iterator[Batch]:
    """This process's batches from sample number `first` on, for the steps that are left."""
    needed = settings.steps * settings.batch * team.size
    if len(dataset) < needed:
        raise ConfigError(f"the data set has {len(dataset)} samples, the run needs {needed}: give it settings.samples")
    shard = Shard(dataset, first, max(0, settings.steps - start), settings.batch, team)
    if hasattr(dataset, "batch"):
        return _made_batches(shard)
    loader = DataLoader(
        shard,
        settings.batch,
        num_workers=settings.workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=3 if settings.workers else None,
        pin_memory=team.device.type == "cuda",
        generator=torch.Generator().manual_seed(settings.seed),
    )
    return iter(loader)


def _made_batches(shard: Shard) -> Iterator[Batch]:
    """Batches of a data set that makes them as a whole."""
    for first in range(0, len(shard), shard.batch):
        numbers = [shard.number(position) for position in range(first, first + shard.batch)]
        yield {**shard.dataset.batch(numbers), "number": torch.tensor(numbers)}


def _quiet_worker(_: int) -> None:
    """Workers use one thread each and leave Ctrl-C to the parent."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def save_checkpoint(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, where: dict[str, Any]) -> None:
    """Write network, optimiser and where the run stands (step, samples, settings, random states), atomically."""
    with replacing(path) as temporary:
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), **where}, temporary)


def remove_leftovers(*paths: Path) -> None:
    """Remove what processes that were killed while they wrote these files have left beside them (`files.replacing`)."""
    for path in paths:
        for leftover in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
            leftover.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None where there is no such file, CheckpointError for another kind."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}; move it away to start afresh") from error


def seed_all(seed: int) -> None:
    """Seed the generators that all code shares: Python's, NumPy's and PyTorch's on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Where the generators that all code shares stand: Python's, NumPy's, PyTorch's and the GPU's, as plain values."""
    kind, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators where `random_state` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
