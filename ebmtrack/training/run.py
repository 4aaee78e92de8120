"""One training run: the loop, its checkpoints, its log; killed and resumed equals never stopped."""

from __future__ import annotations

import csv
import dataclasses
import math
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.files import replacing


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Where a run lives and how long it lasts; what it trains stands in its file in ltr_settings."""

    out: Path = Path("runs/unnamed")
    data: Path = Path("data/train")
    backbone: str = "resnet18"  # a file of torchvision's ImageNet weights, or a name to download
    steps: int = 2000
    batch: int = 10
    workers: int = 1
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = True
    warmup: int = 100
    checkpoint_every: int = 100
    validate_every: int = 200
    resume: bool = True


@dataclasses.dataclass
class Plan:
    """What a run needs besides its settings, made by a file in ltr_settings.

    groups: Adam parameter groups with their base learning rates. thaw: (share of the steps, modules) that start frozen
    and train from then on. validate: called with the network, gives figures for the log. rate: step -> factor on every
    group's learning rate, for example `step_decay(2000)`; None is linear warm-up, then a half cosine to zero.
    """

    net: nn.Module
    objective: Callable[[dict[str, Tensor], torch.Generator], tuple[Tensor, dict[str, Tensor]]]
    dataset: Dataset
    groups: list[dict]
    thaw: tuple[float, list[nn.Module]] = (1.0, [])
    set_mode: Callable[[nn.Module], None] = lambda net: net.train()
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    rate: Callable[[int], float] | None = None


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
    """Train `plan.net` in place, from the last checkpoint in `settings.out` where there is one."""
    torch.manual_seed(settings.seed)
    plan.net.to(settings.device)
    optimizer = torch.optim.Adam([dict(group, base_lr=group["lr"]) for group in plan.groups])
    path = settings.out / "checkpoint.pt"
    start = _resume(path, plan.net, optimizer) if settings.resume and path.exists() else 0
    log = Log(settings.out / "log.csv", start)
    loader = _loader(plan.dataset, start, settings)
    bar = tqdm(loader, initial=start, total=settings.steps, unit="step", dynamic_ncols=True)
    for step, batch in enumerate(bar, start):
        logs = _step(plan, optimizer, batch, step, settings)
        done = step + 1
        if plan.validate and (done % settings.validate_every == 0 or done == settings.steps):
            logs.update(plan.validate(plan.net))
        log.add({"step": done, **logs, "s": bar.format_dict["elapsed"]})
        bar.set_postfix_str(f"loss {log.smooth:.3f}")
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            save_checkpoint(path, plan.net, optimizer, done)
    return plan.net


def _loader(dataset: Dataset, start: int, settings: RunSettings) -> DataLoader:
    """Batches from sample number start * batch on; sample i is the same however the run was cut."""
    rest = range(start * settings.batch, settings.steps * settings.batch)
    if len(dataset) < settings.steps * settings.batch:
        raise ConfigError(f"the data set has {len(dataset)} samples, the run needs {settings.steps * settings.batch}")
    return DataLoader(
        Subset(dataset, rest),
        settings.batch,
        num_workers=settings.workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=3 if settings.workers else None,
    )


def _quiet_worker(_: int) -> None:
    """Workers use one thread each and leave Ctrl-C to the parent."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _step(
    plan: Plan, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], step: int, settings: RunSettings
) -> dict[str, float]:
    """One optimiser step; raises before the weights are touched when the loss is not finite."""
    share, modules = plan.thaw
    for module in modules:
        module.requires_grad_(step >= share * settings.steps)
    plan.set_mode(plan.net)
    factor = plan.rate(step) if plan.rate else learning_rate_factor(step, settings.steps, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    loss, logs = plan.objective(batch, generator)
    if not torch.isfinite(loss):
        with replacing(settings.out / "bad_batch.pt") as temporary:
            torch.save(batch, temporary)
        raise EbmtrackError(f"step {step}: the loss is {loss.item()}; the batch is in {settings.out / 'bad_batch.pt'}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss": loss.item(), **{key: value.item() for key, value in logs.items()}}


def save_checkpoint(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write network, optimiser and position, atomically."""
    with replacing(path) as temporary:
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, temporary)


def _resume(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint of this run and return how many steps it has done."""
    try:
        state = torch.load(path, weights_only=True, map_location=next(net.parameters()).device)
        net.load_state_dict(state["net"])
        base_rates = [group["base_lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(optimizer.param_groups, base_rates):
            group["base_lr"] = rate
        return state["step"]
    except (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} does not fit this run: {error}; move it away to start afresh") from error


class Log:
    """Rows of figures in a CSV file; rows beyond the step from which a run resumes are dropped."""

    def __init__(self, path: Path, start: int):
        self.path, self.smooth, self.rows = path, math.nan, []
        path.parent.mkdir(parents=True, exist_ok=True)
        if start and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start]
        self._write_all()

    def add(self, row: dict[str, float]) -> None:
        """Append one row; a new column rewrites the file."""
        loss = row["loss"]
        self.smooth = loss if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * loss
        row = {key: value if isinstance(value, int) else f"{value:.6g}" for key, value in row.items()}
        new_columns = not set(row) <= set(self.columns)
        self.rows.append(row)
        if new_columns:
            self._write_all()
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def _write_all(self) -> None:
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
