"""Training samples per second of both pipelines, and where the time goes.

    python -m ebmtrack.studies.bench_data --packs FOLDER [--pool POOL] [--device cuda] [--batch 32] [--samples 200]

On a CPU times are processor seconds; on a GPU seconds on the clock, and each part is waited for when parts are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import torch

from ebmtrack.data import device_batches
from ebmtrack.data.device_batches import DeviceBatches, batches_from_packs
from ebmtrack.studies.bench_worker import time_on


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Samples a second of one pipeline, and the seconds a sample spends in each part of it."""

    pipeline: str
    samples: int
    seconds: float
    parts_s: dict[str, float]

    def line(self) -> str:
        """Return one line of text: the rate, then each part's share of the time."""
        parts = {**self.parts_s, "rest": max(0.0, self.seconds - sum(self.parts_s.values()))}
        shares = ", ".join(f"{name} {100 * value / self.seconds:.0f} %" for name, value in parts.items())
        return f"{self.pipeline}: {self.samples / self.seconds:.1f} samples/s ({shares})"


def bench_device(data: DeviceBatches, samples: int, batch: int) -> Throughput:
    """Measure the on-device pipeline, in batches of `batch`, after one batch that is not counted."""
    clock = _clock(data.frames.device)
    watched = {"draw": (data, "draw"), "read": (data.frames, "_read"), "look": (device_batches, "change_looks")}
    watched["resample"] = (data.frames, "cut")
    numbers = [range(first, first + batch) for first in range(0, samples, batch)]

    def seconds() -> float:
        start = clock()
        for some in numbers:
            data.batch(some)
        return clock() - start

    data.batch(numbers[0])
    plain = seconds()
    with _time_calls(watched, clock) as parts:
        scale = plain / seconds()  # waiting for each part takes time of its own
    parts["resample"] -= parts["read"]
    shares = {name: value * scale for name, value in parts.items()}
    return Throughput(f"on {data.frames.device.type}, batches of {batch}", batch * len(numbers), plain, shares)


def bench_files(data, samples: int, name: str = "from files") -> Throughput:
    """Return the pipeline of CPU workers (a `pipeline.TrainingSet`) in this process; drawing a clip composes it."""
    from ebmtrack.data import pipeline

    clock = _clock(torch.device("cpu"))
    watched = {"draw": (data.sampler, "choose"), "crop": (pipeline, "crop_window"), "look": (pipeline, "change_look")}
    watched |= {f"decode {source.name}": (source, "frame") for source in data.sampler.sources}
    with _time_calls(watched, clock) as parts:
        start = clock()
        for number in range(samples):
            data[number]
        seconds = clock() - start
    return Throughput(name, samples, seconds, dict(parts))


def _clock(device: torch.device) -> Callable[[], float]:
    """Return the processor time on a CPU; on a GPU the time at which it has done all that it was given."""
    return time.process_time if device.type == "cpu" else partial(time_on, str(device))


@contextlib.contextmanager
def _time_calls(watched: dict[str, tuple[object, str]], clock: Callable[[], float]) -> Iterator[Counter]:
    """Yield seconds by name, to which calls of the functions (owner, attribute) add theirs within the block."""
    parts, before = Counter({name: 0.0 for name in watched}), {}

    def add_time(name: str, function: Callable) -> Callable:
        def run(*args, **kwargs):
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                parts[name] += clock() - start

        return run

    for name, (owner, attribute) in watched.items():
        before[name] = getattr(owner, attribute)
        setattr(owner, attribute, add_time(name, before[name]))
    try:
        yield parts
    finally:
        for name, (owner, attribute) in watched.items():
            setattr(owner, attribute, before[name])


def main() -> None:
    """Measure and print."""
    from ebmtrack.ltr_settings.ebm18_small import CROPS, SAMPLING, with_shares_of

    options = _options()
    if options.pool:
        from ebmtrack.data.pipeline import TrainingSet
        from ebmtrack.data.pool import open_training_folder
        from ebmtrack.data.sampling import make_sampler

        pool = open_training_folder(options.pool, decoded_limit=4 * 2**30)
        sampler = make_sampler(pool, with_shares_of(SAMPLING, pool), 0)
        data = TrainingSet(sampler, CROPS, options.samples)
        for name in ("from files, read for the first time", "from files, kept decoded"):
            print(bench_files(data, options.samples, name).line(), flush=True)
    batches = batches_from_packs(options.packs, options.device, SAMPLING, CROPS, 0, options.samples + options.batch)
    print(bench_device(batches, options.samples, options.batch).line(), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ebmtrack.studies.bench_data", description=__doc__.split("\n")[0])
    parser.add_argument("--packs", required=True, help="folder of packs (`ebmtrack pack pool POOL FOLDER`)")
    parser.add_argument("--pool", help="the small pool, to measure CPU workers on its files as well")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
