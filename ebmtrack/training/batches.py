"""The batches of a run: sample numbers shared out over processes, read by workers or made in one piece."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.training.distributed import Team
from ebmtrack.training.plan import Batch, BatchMaker

T = TypeVar("T")


class Shard(Dataset):
    """One process's part of a data set: position p is its p-th sample, which knows its `number`.

    A step uses the next size * batch samples of the data set, process r the r-th part of them: sample number i is the
    same, and in the same step, for any number of processes with the same product. A data set that is used up, after a
    resume with smaller batches, begins again.
    """

    def __init__(self, dataset: Dataset | BatchMaker, first: int, steps: int, batch: int, team: Team):
        self.dataset, self.first, self.batch, self.team = dataset, first, batch, team
        self.length = steps * batch

    def __len__(self) -> int:
        return self.length

    def number(self, position: int) -> int:
        """Return the number in the data set of the sample at a position."""
        step, place = divmod(position, self.batch)
        return (self.first + (step * self.team.size + self.team.rank) * self.batch + place) % length_of(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number = self.number(position)
        return {**self.dataset[number], "number": number}  # type: ignore[index]  # no maker of batches


def length_of(dataset: Dataset | BatchMaker) -> int:
    """Return the number of samples of a data set."""
    return len(dataset)  # type: ignore[arg-type]  # ours has a length


def batches(shard: Shard, needed: int, workers: int, seed: int) -> Iterator[Batch]:
    """Return this process's batches.

    Args:
        shard: this process's samples.
        needed: samples that the whole run uses in all processes.
        workers: processes that read samples; of no use to a `BatchMaker`.
        seed: of the workers.

    Raises:
        ConfigError: the data set has fewer samples than are needed.
    """
    if length_of(shard.dataset) < needed:
        raise ConfigError(
            f"the data set has {length_of(shard.dataset)} samples, the run needs {needed}: give it settings.samples"
        )
    if isinstance(shard.dataset, BatchMaker):
        return _whole_batches(shard, shard.dataset)
    return read_samples(shard, shard.batch, workers, seed, pin_memory=shard.team.device.type == "cuda")


def read_samples(
    samples: Dataset, batch: int | None, workers: int, seed: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """Return the samples in batches, or one by one without `batch`, as worker processes read them ahead."""
    loader = DataLoader(
        samples,
        batch,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=3 if workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )
    return plain_errors(iter(loader))


def plain_errors(stream: Iterator[T]) -> Iterator[T]:
    """Yield what a loader reads; raise errors of its workers with their own message, without the worker's traceback."""
    try:
        yield from stream
    except EbmtrackError as error:
        kind, text = type(error), str(error).rstrip()
        if not text.startswith("Caught "):  # torch's first word
            raise
        name = f"\n{kind.__module__}.{kind.__qualname__}"
        raise kind("" if text.endswith(name) else text.rpartition(f"{name}: ")[2]) from error


def _whole_batches(shard: Shard, maker: BatchMaker) -> Iterator[Batch]:
    """Yield the batches of a data set that makes them in one piece."""
    for first in range(0, len(shard), shard.batch):
        numbers = [shard.number(position) for position in range(first, first + shard.batch)]
        yield {**maker.batch(numbers), "number": torch.tensor(numbers)}


def _quiet_worker(_: int) -> None:
    """Let a worker use one thread and leave Ctrl-C and a cluster's warning to its parent."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
