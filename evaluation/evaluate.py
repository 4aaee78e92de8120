"""`ebmtrack eval`: run trackers over a data set, then print what they score."""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import cv2
import numpy as np

from ebmtrack._version import __version__
from ebmtrack.device import count_cores, is_cpu, pick_devices
from ebmtrack.engines.onnx_files import independent_of_folder
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation import jobs, metrics, runner
from ebmtrack.evaluation.results import check_names, read_result
from ebmtrack.evaluation.scoring import Evaluation, check_annotations, collect, headline, judge, print_table
from ebmtrack.files import as_json
from ebmtrack.tracking.params import set_up_name
from ebmtrack.tracking.sequence import TrackerLike
from ebmtrack.videos import open_dataset
from ebmtrack.videos.folder import left_out

if TYPE_CHECKING:
    from ebmtrack.tracking.params import TrackerParams

FACTS_OF_DEVICES = ("engine", "precision", "weights")  # facts that this machine does not know of a cluster's GPUs
OnScore = Callable[[jobs.Task, float], None]


@dataclass(frozen=True)
class ParamsFactory:
    """A maker of our trackers from set-ups; it can be pickled, and imports an engine only when called.

    Attributes:
        weights: A file that replaces the one that the set-up names.
        intervals: Whether the trackers say how sure they are of each side.
        device: Where the trackers run, on which their engine depends.
        precision: Of the network; see `ebmtrack.engines.load_engine`.
        engine: torch, onnx or auto.
    """

    weights: str | None = None
    intervals: bool = False
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"

    def __call__(self, params: str, device: str) -> TrackerLike:
        """Return a tracker of the named set-up on a device; ConfigError for an unknown set-up."""
        from ebmtrack.tracking.tracker import Tracker

        return Tracker.from_pretrained(self._values(params), self.weights, device, self.precision, self.engine)

    def describe(self, params: str) -> dict[str, object]:
        """Return parameters, engine and weights; see `facts_of`."""
        return facts_of(self._values(params), self.weights, self.device, self.precision, self.engine)

    def _values(self, params: str) -> TrackerParams:
        from ebmtrack.tracking.params import INTERVAL_SAMPLES, load_params

        values = load_params(params)
        return values.replace(interval_samples=values.interval_samples or INTERVAL_SAMPLES * self.intervals)


def facts_of(
    values: TrackerParams,
    weights: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
) -> dict[str, object]:
    """Return what results depend on: parameters, engine, precision and SHA-256 of the weights, as JSON values.

    Args:
        values: The parameters of a set-up.
        weights: A file that replaces the one that the set-up names.
        device: Where the tracker runs.
        precision: Of the network.
        engine: torch, onnx or auto.

    Raises:
        CheckpointError: The file of weights is missing.
        ConfigError: Device, precision or engine do not fit the network.
    """
    from ebmtrack.engines import engine_facts

    named = values.weights if weights is None else weights
    return {"params": as_json(values), **engine_facts(named, device, precision, engine, values.classifier)}


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of an evaluation.

    Attributes:
        sequences: Names of sequences; all if empty.
        runs: Number of runs with different seeds.
        workers: Processes; by default one per GPU or core. 0 runs in this process.
        threads: CPU threads of each worker; by default 1 on a CPU, so that results do not depend on the number of
            workers, and cores // workers beside a GPU.
        batch: Sequences that each worker tracks at once through one network, for GPUs; frames/s are then those of a
            shared device.
        device: auto, cpu, openvino, mps, cuda or cuda:0,cuda:1.
        precision: Of the network: auto, float32 or bfloat16.
        engine: auto, torch or onnx.
        out: Folder of results; what is finished there is not run again.
        overwrite: Run it again all the same; refused beside another runner.
        weights: A file that replaces the weights of the set-ups.
        protocol: Scoring rules; the data set's own by default.
        seed: First seed.
        allow_missing: Go on with the sequences that are there.
        intervals: Have the trackers say how sure they are of each side, and measure that.
        elsewhere: Has other processes compute, instead of this one (`runner.run_elsewhere`).
    """

    sequences: Sequence[str] = ()
    runs: int = 1
    workers: int | None = None
    threads: int | None = None
    batch: int = 1
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    out: str | os.PathLike = "results"
    overwrite: bool = False
    weights: str | os.PathLike | None = None
    protocol: str | None = None
    seed: int = 0
    allow_missing: bool = False
    intervals: bool = False
    elsewhere: Callable[[Callable[[], int]], list[str]] | None = None

    def check(self) -> None:
        """Raise ConfigError for a count that makes no sense."""
        for name, least in {"runs": 1, "workers": 0, "threads": 1, "batch": 1}.items():
            count = getattr(self, name)
            if count is not None and count < least:
                raise ConfigError(f"--{name} {count}: give a number from {least} up")


def evaluate(
    params_names: Sequence[str],
    dataset: str,
    root: str | os.PathLike,
    options: EvaluateOptions | None = None,
    *,
    factory: jobs.Factory | None = None,
    stream: TextIO | None = None,
    on_score: OnScore | None = None,
    **changes: Any,
) -> Evaluation:
    """Run every set-up over the sequences of a data set, and print a table of scores.

    Args:
        params_names: Set-ups, one or more.
        dataset: Name of the data set.
        root: Its folder.
        options: What to run, and how.
        factory: Makes the trackers; ours by default.
        stream: Where to print; stdout by default.
        on_score: Called with each task that is done and its area under the success curve, 0 to 1.
        **changes: Fields of the options.

    Returns:
        The scores. A sequence that fails while running is kept in `failed` and makes `exit_code` 1.

    Raises:
        EbmtrackError: Something cannot be run at all.
    """
    chosen = replace(options or EvaluateOptions(), **changes)
    chosen.check()
    if not params_names:
        raise ConfigError("name at least one set of parameters")
    stream = stream or sys.stdout
    devices = pick_devices(chosen.device if chosen.elsewhere is None or is_cpu(chosen.device) else "cpu")
    workers = _default_workers(devices) if chosen.workers is None else chosen.workers
    job = _job(params_names, dataset, root, chosen, devices, workers, factory)
    protocol = metrics.protocol(chosen.protocol or job.dataset.protocol)
    check_annotations(job, protocol)
    whole = not chosen.sequences
    with runner.at_work(job) as mine:
        if chosen.overwrite:
            runner.forget(job, mine)
        if chosen.elsewhere is not None:
            outcome = runner.run_elsewhere(job, chosen.elsewhere)
        else:
            outcome = runner.run_job(job, workers, devices, Progress(job, protocol, stream, on_score))
        evaluation = collect(job, protocol, outcome.failed, job.dataset.missing if whole else ())
    evaluation.shortfall = job.dataset.shortfall() if whole else ""
    print_table(evaluation, stream)
    return evaluation


def _job(
    params_names: Sequence[str],
    dataset: str,
    root: str | os.PathLike,
    chosen: EvaluateOptions,
    devices: tuple[str, ...],
    workers: int,
    factory: jobs.Factory | None,
) -> jobs.Job:
    """Return the tasks, with what is written into the markers of their results."""
    found = open_dataset(dataset, root)
    names = found.select(chosen.sequences, chosen.allow_missing)
    for line in left_out(found.root) if found.name == "folder" and not chosen.sequences else ():
        warnings.warn(line, stacklevel=3)
    check_names(names)
    _check_set_ups(params_names)
    weights = independent_of_folder(chosen.weights)
    factory = factory or ParamsFactory(weights, chosen.intervals, devices[0], chosen.precision, chosen.engine)
    runs = range(chosen.runs)
    tasks = tuple(jobs.Task(p, r, n) for p in dict.fromkeys(params_names) for r in runs for n in names)
    threads = chosen.threads or _default_threads(devices, workers)
    fixed = {"seed": chosen.seed, **versions(devices[0], threads)}
    unknown = FACTS_OF_DEVICES if chosen.elsewhere is not None and not is_cpu(chosen.device) else ()
    made_by = {p: {k: v for k, v in factory.describe(p).items() if k not in unknown} | fixed for p in params_names}
    return jobs.Job(found, tasks, factory, Path(chosen.out), chosen.seed, threads, made_by, batch=chosen.batch)


def _check_set_ups(params_names: Sequence[str]) -> None:
    """Raise ConfigError if the results of two set-ups would be in one folder: their files have the same name."""
    owners: dict[str, str] = {}
    for params in params_names:
        name = set_up_name(params)
        if owners.setdefault(name, params) != params:
            raise ConfigError(f"--params {owners[name]} and {params}: results of both are called {name}; rename a file")


def versions(device: str, threads: int) -> dict[str, object]:
    """Return what besides parameters and weights can change a result's last digits.

    Args:
        device: Of the workers.
        threads: CPU threads of each worker.
    """
    numbers = {"numpy": np.__version__, "opencv": cv2.__version__}
    for name in ("torch", "onnxruntime", "openvino"):
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # one engine is enough
    if device.startswith("cuda"):
        import torch

        device = torch.cuda.get_device_name(device)
    python = platform.python_version()
    where = {"device": device, "threads": threads} if is_cpu(device) else {"device": device}
    return {"ebmtrack": __version__, "python": python, **numbers, **where}


@dataclass
class Progress:
    """A printer of a line per finished sequence: its score, the mean so far, frames/s, and the time that is left."""

    job: jobs.Job
    protocol: metrics.Protocol
    stream: TextIO
    on_score: OnScore | None = None
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    skipped: int = 0
    values: list[float] = field(default_factory=list)

    def __call__(self, message: tuple) -> None:
        """Print one message of `runner.run_job`."""
        kind, task = message[0], message[1]
        if kind == "skipped":
            self.skipped = message[2]
            print(f"{self.skipped} of {len(self.job.tasks)} are done already", file=self.stream, flush=True)
            return
        if kind == "died":
            where = f"at {task.sequence}" if task else "between sequences"
            print(f"a worker {message[2]} {where}", file=self.stream, flush=True)
            return
        self.done += 1
        last_line = message[2].strip().split("\n")[-1] if kind == "failed" else ""
        text = f"FAILED: {last_line}" if kind == "failed" else self._score(task, message[4])
        head = f"[{self.skipped + self.done}/{len(self.job.tasks)}] {task.params} run {task.run} {task.sequence}"
        print(f"{head}: {text} ({self._time_left()})", file=self.stream, flush=True)

    def _score(self, task: jobs.Task, frames_per_s: float) -> str:
        sequence = self.job.dataset.load(task.sequence)
        result = read_result(self.job.folder(task), task.sequence)
        score = judge(sequence, result.boxes_xywh, self.protocol, result.path)
        self.values.append(headline(score))
        if self.on_score is not None:
            self.on_score(task, float(score.success.mean()))
        so_far = np.nanmean(self.values) if not np.isnan(self.values).all() else float("nan")
        return (
            f"{self.protocol.headline_label} {self.values[-1]:.3f} (so far {so_far:.3f}), {frames_per_s:.1f} frames/s"
        )

    def _time_left(self) -> str:
        left = len(self.job.tasks) - self.skipped - self.done
        left_s = (time.monotonic() - self.began) / self.done * left
        return f"{left_s / 60:.0f} min left" if left_s >= 90 else f"{left_s:.0f} s left"


def _default_workers(devices: tuple[str, ...]) -> int:
    return len(devices) if devices[0].startswith("cuda") else count_cores()


def _default_threads(devices: tuple[str, ...], workers: int) -> int:
    """Return one on a CPU, where sums by more threads differ in their last bits; cores // workers beside a GPU.

    With one, results on a CPU do not depend on how many workers share the cores.
    """
    return 1 if is_cpu(devices[0]) else max(1, count_cores() // max(1, workers))
