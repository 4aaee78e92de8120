"""Several processes that train one network: who they are, what they average, and batch norm over all of them.

`torchrun --nproc-per-node 8 -m ebmtrack train NAME` starts eight processes that find one another by the environment
(RANK, LOCAL_RANK, WORLD_SIZE). The law that the tests state: n processes with batches of b end, to rounding, where one
process with batches of n * b ends.

Gradients are averaged after the backward pass, all in one flat tensor, instead of with DistributedDataParallel. Modules
are frozen and thawed in the course of a run, one module may serve several times in a step (the classifier's features
of train and test frames, every iterate of the filter optimiser), and a part may get no gradient at all. DDP has a flag
for each of these, and a wrong one is a deadlock or a wrong gradient; the plain sum is right in every case and leaves
the objective alone. The price is that sending does not overlap with the backward pass: 104 MB a step for DiMP-50.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ebmtrack.errors import ConfigError, EbmtrackError

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # others wait while the first process validates and tracks


def world_size() -> int:
    """Number of processes that torchrun started; 1 without it."""
    return _from_environment("WORLD_SIZE", 1)


def is_leader() -> bool:
    """Whether this is the process that writes files (RANK 0)."""
    return _from_environment("RANK", 0) == 0


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes of one run, seen from one of them; a process on its own is a team of one and sends nothing.

    rank: this process's number, 0 leads: it alone writes, validates and tracks. size: how many there are.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes of `values` (any shape, float), the same in all of them."""
        if self.size == 1:
            return values
        total = values.detach().to(self.device).clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: T) -> list[T]:
        """The values of all processes (anything that pickles), by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_leader(self, make: Callable[[], T]) -> T:
        """What `make` gives in process 0, in all of them; an EbmtrackError there is raised in all of them."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.leads:
            try:
                answer[0] = make()
            except EbmtrackError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, device=self.device)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def same_start(self, net: nn.Module) -> None:
        """Give all processes the parameters and buffers of process 0."""
        if self.size > 1:
            for value in (*net.parameters(), *net.buffers()):
                sent = value.detach().contiguous()
                dist.broadcast(sent, src=0)
                value.detach().copy_(sent)

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over processes; what has none counts as zero where another has one.

        A parameter that has no gradient in any process keeps none, so that the optimiser passes over it, as it does
        in one process.
        """
        if self.size == 1:
            return
        wanted = [p for p in parameters if p.requires_grad]
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in wanted) else torch.float32
        present = torch.tensor([p.grad is not None for p in wanted], dtype=dtype, device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        flat = torch.cat([present, *(part.to(dtype).reshape(-1) for part in parts)])
        dist.all_reduce(flat)
        present, *sums = flat.split([len(wanted), *(p.numel() for p in wanted)])
        for parameter, there, total in zip(wanted, present.tolist(), sums):
            if there:
                parameter.grad = (total / self.size).view(parameter.shape).to(parameter)


def team_of(device: str) -> Team:
    """The processes that torchrun started, on `device` ("cuda" is this process's own GPU); a team of one without it.

    They stay connected until they end: one process may train several networks in turn. ConfigError for a device that
    is not there.
    """
    chosen = pick_device(device)
    if world_size() == 1:
        return Team(device=chosen)
    if not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, device_id=chosen if backend == "nccl" else None)
        atexit.register(_part)
    return Team(dist.get_rank(), dist.get_world_size(), chosen)


def _part() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def pick_device(device: str) -> torch.device:
    """The device that a name means: `auto` is a GPU where there is one; under torchrun `cuda` is that of LOCAL_RANK."""
    from ebmtrack.engines.torch_engine import check_device

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and world_size() > 1:
        device = f"cuda:{_from_environment('LOCAL_RANK', 0)}"
    chosen = check_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


class TeamBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of the batches of all processes together, on any device.

    Each process sends mean and variance of its batch, all of the same size; mean and variance of the whole follow as
    mean of the means, and mean of the variances plus variance of the means. (torch's SyncBatchNorm needs a GPU.)
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
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * count / max(1, count - 1), share)


@contextlib.contextmanager
def team_batch_norm(net: nn.Module, team: Team) -> Iterator[None]:
    """Within the block every BatchNorm2d of `net` is a TeamBatchNorm2d: the same object, parameters and names."""
    norms = [module for module in net.modules() if team.size > 1 and type(module) is nn.BatchNorm2d]
    for norm in norms:
        norm.__class__ = TeamBatchNorm2d
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


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


def _from_environment(name: str, default: int) -> int:
    """A whole number that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ConfigError(f"the environment variable {name} is {text!r}, not a number; torchrun sets it")
    return int(text)
