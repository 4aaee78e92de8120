"""Several processes that train one network: their number, what they average, and batch norm over all of them.

`torchrun --nproc-per-node 8 -m ebmtrack train NAME` starts eight processes that find one another by the environment
(RANK, LOCAL_RANK, WORLD_SIZE). On GPUs batch norm is `torch.nn.SyncBatchNorm`, and n processes with batches of b end,
to rounding, as one process with batches of n * b. SyncBatchNorm has no CPU version: processes on a CPU (a case for
tests alone, which bring their own) normalise their batches apart.

Gradients are averaged in one of two ways (`Network.gradients`):

- "ddp", DistributedDataParallel, sends gradients while others are still computed. The DiMP and PrDiMP runs use it: the
  whole network is called once in a step, nothing thaws, and every part gets a gradient.
- "average" sends all gradients after the backward pass, in one flat tensor: right in every case. Runs use it that
  freeze and thaw parts (ebm18_small), or that call parts of the network instead of the whole (the ATOM runs and
  ebm18_small_boxes). DDP waits for a gradient of every part, and it asks which parts need gradients only
  once, when it is made. The price is that sending does not overlap with the backward
  pass: 104 MB a step for DiMP-50.
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

from ebmtrack.device import count_gpus, pick_device
from ebmtrack.errors import ConfigError, EbmtrackError

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # others wait while the first process validates and tracks
SYNCHRONIZED: dict[str, type[nn.Module]] = {"cuda": nn.SyncBatchNorm}  # type of device -> batch norm over processes


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without it."""
    return _from_environment("WORLD_SIZE", 1)


def is_leader() -> bool:
    """Return whether this is the process that writes files (RANK 0)."""
    return _from_environment("RANK", 0) == 0


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes of one run, seen from one of them; a process on its own is a team of one and sends nothing.

    Attributes:
        rank: this process's number. Process 0 leads: it alone writes, validates and tracks.
        size: number of processes.
        device: the device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Return whether this process writes."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes of `values` (any shape, float), the same in all of them."""
        if self.size == 1:
            return values
        total = values.detach().to(self.device).clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes (anything that pickles), by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_leader(self, make: Callable[[], T]) -> T:
        """Return the result of `make` in process 0, in all of them; an EbmtrackError there is raised in all of them."""
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
        """Replace every gradient by its mean over processes; a missing one counts as zero if another process has one.

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
    """Connect the processes that torchrun started, and return them; a team of one without torchrun.

    They stay connected until they end: one process may train several networks in turn.

    Args:
        device: name of a device; "cuda" is this process's own GPU.

    Raises:
        ConfigError: the device does not exist.
    """
    chosen = device_of_process(device)
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


def device_of_process(device: str) -> torch.device:
    """Return the device of this process; under torchrun `cuda` and `auto` mean the GPU of LOCAL_RANK."""
    if world_size() > 1 and (device == "cuda" or (device == "auto" and count_gpus())):
        device = f"cuda:{_from_environment('LOCAL_RANK', 0)}"
    chosen = torch.device(pick_device(device))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def as_synchronized(net: nn.Module, team: Team) -> contextlib.AbstractContextManager[None]:
    """Return a context in which batch norm has the statistics of all processes' batches, on devices that can do so."""
    kind = SYNCHRONIZED.get(team.device.type) if team.size > 1 else None
    return contextlib.nullcontext() if kind is None else _with_norms(net, kind)


@contextlib.contextmanager
def _with_norms(net: nn.Module, kind: type[nn.Module]) -> Iterator[None]:
    """Put modules of another class in the places of the BatchNorm2d for a while; they share parameters and buffers."""
    places = [
        (module, name, child)
        for module in net.modules()
        for name, child in module.named_children()
        if type(child) is nn.BatchNorm2d
    ]
    for module, name, child in places:
        setattr(module, name, _twin(child, kind))
    try:
        yield
    finally:
        for module, name, child in places:
            setattr(module, name, child)


def _twin(norm: nn.BatchNorm2d, kind: type[nn.Module]) -> nn.Module:
    """Return a batch norm of class `kind` with the parameters, buffers and mode of `norm`."""
    twin = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin._parameters, twin._buffers, twin.training = norm._parameters, norm._buffers, norm.training
    return twin


def as_parallel(net: nn.Module, team: Team, gradients: str) -> nn.Module:
    """Return the module that an objective calls: `net`, or DistributedDataParallel around it (see the file's top)."""
    if team.size == 1 or gradients != "ddp":
        return net
    devices = [team.device] if team.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(net, devices, broadcast_buffers=False)


def _from_environment(name: str, default: int) -> int:
    """Return a whole number that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ConfigError(f"the environment variable {name} is {text!r}, not a number; torchrun sets it")
    return int(text)
