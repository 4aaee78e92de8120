"""The loop of a training run and its checkpoints; killed and resumed equals never stopped, cut up equals whole.

With one process, a run that was killed and resumed ends with the same bits on a CPU as one that never stopped. With n
processes (`torchrun`, see `distributed`) and batches of b it ends, to rounding, as one process with batches of n * b
ends, provided that batch norm is synchronised and the objective draws its noise for the whole step (see `plan.Share`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.files import replacing
from ebmtrack.training.batches import Shard, batches
from ebmtrack.training.compiled import WeightAverage
from ebmtrack.training.distributed import Team, as_parallel, as_synchronized, team_of
from ebmtrack.training.logs import RunLog, Stopwatch, open_log
from ebmtrack.training.plan import Batch, Logs, Network, Plan, Share
from ebmtrack.training.resuming import (
    check_same_settings,
    random_state,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
    seed_all,
    set_random_state,
    settings_text,
)
from ebmtrack.training.settings import RunSettings
from ebmtrack.training.validation import TrackingRun, Validation

Check = Callable[[nn.Module], dict[str, float]]


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the factor of a linear warm-up, then of a half cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(plan: Plan, settings: RunSettings) -> nn.Module:
    """Train the plan's network, from the last checkpoint in `settings.out` if there is one, and return it.

    Under torchrun every process calls this; process 0 alone validates, tracks and writes.

    Raises:
        ConfigError: settings that cannot be, such as a single sample in a step of a network with batch norm.
        CheckpointError: the checkpoint is damaged, or of another run.
        EbmtrackError: a loss or a weight is not finite.
    """
    team, net = team_of(settings.device), plan.network.net
    check_step_size(plan.network, settings.batch, team)
    if plan.network.gradients == "ddp" and plan.network.thaw[1]:
        raise ConfigError('a network whose modules thaw needs gradients="average", see training/distributed.py')
    seed_all(settings.seed + 7919 * team.rank)
    net.to(team.device)
    if settings.channels_last:
        net.to(memory_format=torch.channels_last)
    run = _Run(plan, settings, team)
    with contextlib.closing(run.open_log()) as log:
        run.go_on(log)
    return plan.network.finish(net)


def check_step_size(network: Network, batch: int, team: Team) -> None:
    """Raise a ConfigError if batch norm would take the statistics of a single sample."""
    network.set_mode(network.net)
    norms = (module for module in network.net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    if batch * team.size < 2 and any(module.training for module in norms):
        raise ConfigError("--batch 1: batch norm needs at least 2 samples in a step; take --batch 2 or more")


def _optimizer(network: Network) -> torch.optim.Optimizer:
    """Return the network's own optimiser, Adam, or AdamW with weight decay; groups remember base learning rates."""
    groups = [dict(group, base_lr=group["lr"]) for group in network.groups]
    if network.optimizer is not None:
        return network.optimizer(groups)
    if network.weight_decay:
        return torch.optim.AdamW(groups, weight_decay=network.weight_decay, fused=True)
    return torch.optim.Adam(groups)


class _Run:
    """A run in progress: its optimiser, and how many steps and samples are done."""

    def __init__(self, plan: Plan, settings: RunSettings, team: Team):
        self.plan, self.settings, self.team = plan, settings, team
        self.net = plan.network.net
        self.optimizer = _optimizer(plan.network)
        self.average = WeightAverage(self.net, plan.network.average) if plan.network.average else None
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.path = settings.checkpoint
        self.done, self.samples, self.random = 0, 0, random_state()
        if team.leads:
            remove_leftovers(self.path, settings.out / "log.csv")
        state = team.from_leader(lambda: read_checkpoint(self.path) if settings.resume else None)
        if state is not None:
            self._load(state)
        team.same_start(self.net)
        self.called = as_parallel(self.net, team, plan.network.gradients)
        self.checks = self._make_checks() if team.leads else []

    def open_log(self) -> RunLog:
        """Return the sinks of figures; none in processes that do not lead."""
        return open_log(self.settings, self.done) if self.team.leads else RunLog([])

    def go_on(self, log: RunLog) -> None:
        """Do the steps that are left."""
        settings, watch, size = self.settings, Stopwatch(self.team.device), self.team.size
        steps, needed = max(0, settings.steps - self.done), settings.steps * settings.batch * size
        shard = Shard(self.plan.data.train, self.samples, steps, settings.batch, self.team)
        stream = batches(shard, needed, settings.workers, settings.seed)
        set_random_state(self.random)
        for done in range(self.done + 1, settings.steps + 1):
            batch = watch.fetch(stream)
            logs = self._step(batch, done - 1)
            self.done, self.samples = done, self.samples + settings.batch * size
            timing = watch.lap(settings.batch * size, self.team)
            log.add({"step": done, **logs, **self._figures(), **timing})
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                self._save()
        if self.average is not None:
            self.average.swap(self.net)

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do one optimiser step; raise before the weights are touched if the loss is not finite."""
        settings, team = self.settings, self.team
        self._prepare(step)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        with as_synchronized(self.net, team):
            loss, logs = self.plan.objective(self.called, batch, generator, Share(team.rank, team.size))
            self._check_loss(loss, batch, step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.called is self.net:
            team.average_gradients(self.parameters)
        if settings.clip_norm is not None:
            logs = {**logs, "grad_norm": nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm)}
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.net)
        return self._mean_figures(loss, logs)

    def _prepare(self, step: int) -> None:
        """Freeze or thaw modules, set modes and learning rates."""
        network, settings = self.plan.network, self.settings
        part, modules = network.thaw
        for module in modules:
            module.requires_grad_(step >= part * settings.steps)
        network.set_mode(self.net)
        factor = network.rate(step) if network.rate else learning_rate_factor(step, settings.steps, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _mean_figures(self, loss: Tensor, logs: Logs) -> dict[str, float]:
        """Return loss and logs as means over all processes."""
        values = self.team.mean(torch.stack([loss.detach().float(), *(value.float() for value in logs.values())]))
        return dict(zip(("loss", *logs), values.tolist()))

    def _check_loss(self, loss: Tensor, batch: Batch, step: int) -> None:
        """Stop all processes if the loss of one is not finite; that one writes its batch."""
        path = self.settings.out / ("bad_batch.pt" if self.team.leads else f"bad_batch_{self.team.rank}.pt")
        if not torch.isfinite(loss):
            with replacing(path) as temporary:
                torch.save(batch, temporary)
        if not torch.isfinite(self.team.mean(loss.detach().float())):
            where = f"the batch is in {path}" if not torch.isfinite(loss) else "another process has the batch"
            raise EbmtrackError(f"step {step}: the loss is {loss.item()}; {where}")

    def _make_checks(self) -> list[tuple[Check, int]]:
        """Return validation and tracking run, as far as they are wanted, with their intervals in steps."""
        plan, settings = self.plan, self.settings
        checks: list[tuple[Check, int]] = []
        if plan.validate is not None:
            checks.append((plan.validate, settings.validate_every))
        elif plan.data.held_back is not None:
            validation = Validation(plan.data.held_back, plan.validation or plan.objective)
            checks.append((validation, settings.validate_every))
        if settings.track_on is not None:
            checks.append((TrackingRun(settings.track_on, plan.params, settings.track_frames), settings.track_every))
        return checks

    def _figures(self) -> dict[str, float]:
        """Return the figures of the checks that are due; they leave the shared random generators as they were."""
        figures: dict[str, float] = {}
        due = [check for check, every in self.checks if self.done % every == 0 or self.done == self.settings.steps]
        if due:
            before = random_state()
            with self._with_average():
                for check in due:
                    figures.update(check(self.net))
            set_random_state(before)
        return figures

    @contextlib.contextmanager
    def _with_average(self) -> Iterator[None]:
        """Let the network have the averaged weights for a while."""
        if self.average is not None:
            self.average.swap(self.net)
        try:
            yield
        finally:
            if self.average is not None:
                self.average.swap(self.net)

    def _save(self) -> None:
        """Write a checkpoint; raise, and keep the last one, if a weight is not finite."""
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise EbmtrackError(
                f"step {self.done}: weights are not finite; {self.path} holds the last good ones; lower the rates"
            )
        where: dict[str, Any] = {"step": self.done, "samples": self.samples, "seed": self.settings.seed}
        where["settings"] = settings_text(self.settings)
        where["random"] = self.team.gather(random_state())
        if self.average is not None:
            where["average"] = {"values": self.average.values, "steps": self.average.steps}
        if self.team.leads:
            save_checkpoint(self.path, self.net, self.optimizer, where)

    def _load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of this run; raise a CheckpointError if it is of another one."""
        if state.get("seed", self.settings.seed) != self.settings.seed:
            raise CheckpointError(f"{self.path} is of a run with seed {state['seed']}; begin afresh with --restart")
        if "settings" in state:
            check_same_settings(self.path, state["settings"], self.settings)
        try:
            self.net.load_state_dict(state["net"])
            self._load_optimizer(state["optimizer"])
            self.done = state["step"]
            if self.average is not None:
                self.average.values, self.average.steps = state["average"]["values"], state["average"]["steps"]
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} does not fit this run: {error}; move it to start afresh") from error
        self.samples = state.get("samples", self.done * self.settings.batch * self.team.size)
        states = state.get("random", [])
        self.random = states[self.team.rank] if self.team.rank < len(states) else self.random

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Take over the optimiser's state, except for the base learning rates."""
        base_rates = [group["base_lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, base_rates):
            group["base_lr"] = rate
