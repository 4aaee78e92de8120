"""`ebmtrack eval`: run trackers over a data set, then print what they score."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from ebmtrack._version import __version__
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation import jobs, metrics, runner
from ebmtrack.evaluation.results import check_names, read_result
from ebmtrack.tracking.sequence import TrackerLike
from ebmtrack.videos import open_dataset


@dataclass(frozen=True)
class ParamsFactory:
    """Makes our tracker from `tracker_params/<name>.py`; can be pickled, and imports torch only when called.

    weights: a file that replaces the one that the parameters name.
    """

    weights: str | None = None

    def __call__(self, params: str, device: str) -> TrackerLike:
        """A tracker with the parameters of that name on that device; ConfigError for an unknown one."""
        from ebmtrack.tracking.params import load_params
        from ebmtrack.tracking.tracker import Tracker

        return Tracker.from_pretrained(load_params(params), self.weights, device)

    def describe(self, params: str) -> dict[str, object]:
        """The parameters and the SHA-256 of the weights file. Raises CheckpointError where that is missing."""
        from ebmtrack.checkpoints.native import resolve_weights
        from ebmtrack.tracking.params import load_params

        values = load_params(params)
        path = resolve_weights(values.weights if self.weights is None else self.weights)
        return {"params": as_json(values), "weights": hashlib.sha256(path.read_bytes()).hexdigest()}


def as_json(value: Any) -> Any:
    """Dataclasses, paths, tuples and mappings as JSON values; anything else by its repr."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


@dataclass
class Evaluation:
    """What `evaluate` leaves: scores[params][run][sequence], frames/s likewise, and what failed.

    missing: sequences of the data set that are not on disk, as far as their names are known. shortfall: how many lack,
    in words, empty where none does. complete: nothing failed and nothing is missing.
    """

    dataset: str
    protocol: metrics.Protocol
    scores: dict[str, list[dict[str, metrics.SequenceScore]]]
    frames_per_s: dict[str, list[dict[str, float]]]
    failed: dict[jobs.Task, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    shortfall: str = ""

    @property
    def complete(self) -> bool:
        """Whether means stand for the whole selection."""
        return not self.failed and not self.missing and not self.shortfall

    @property
    def exit_code(self) -> int:
        """0, or 1 where a sequence failed."""
        return 1 if self.failed else 0


def evaluate(
    params_names: Sequence[str],
    dataset: str,
    root: str | os.PathLike,
    sequences: Sequence[str] = (),
    runs: int = 1,
    workers: int | None = None,
    device: str = "auto",
    out: str | os.PathLike = "results",
    *,
    threads: int | None = None,
    protocol: str | None = None,
    seed: int = 0,
    allow_missing: bool = False,
    overwrite: bool = False,
    weights: str | os.PathLike | None = None,
    factory: jobs.Factory | None = None,
    stream: TextIO | None = None,
    on_score: Callable[[jobs.Task, float], None] | None = None,
) -> Evaluation:
    """Run every set of parameters `runs` times over the sequences of a data set, and print a table of scores.

    params_names: files of `tracker_params/`. sequences: names, all without any. workers: processes, by default one per
    GPU or per core; 0 runs in this process. threads: of each worker, by default 1 on a CPU (so that results do not
    depend on the number of workers) and cores // workers beside a GPU. out: folder of results; what is finished
    there is not run again, unless `overwrite`, which is refused beside another runner. weights: replace those of the
    parameters. protocol: default is the data set's own. on_score: called with each task that is done and its area under
    the success curve (0 to 1). Raises the errors of this package for what cannot be run; a sequence that fails while
    running is kept in `Evaluation.failed` and makes `exit_code` 1.
    """
    stream = stream or sys.stdout
    found = open_dataset(dataset, root)
    names = found.select(sequences, allow_missing)
    devices = runner.pick_devices(device)
    workers = _default_workers(devices) if workers is None else workers
    _check_counts(params_names, runs, workers, threads)
    check_names(names)
    factory = factory or ParamsFactory(None if weights is None else str(Path(weights).absolute()))
    tasks = tuple(jobs.Task(p, r, n) for p in dict.fromkeys(params_names) for r in range(runs) for n in names)
    threads = threads or _default_threads(devices, workers)
    fixed = {"seed": seed, **versions(devices[0], threads)}
    made_by = {p: {**factory.describe(p), **fixed} for p in params_names}
    job = jobs.Job(found, tasks, factory, Path(out), seed, threads, made_by)
    chosen = metrics.protocol(protocol or found.protocol)
    missing = found.missing if not sequences else ()
    with runner.at_work(job) as mine:
        if overwrite:
            runner.forget(job, mine)
        outcome = runner.run_job(job, workers, devices, Progress(job, chosen, stream, on_score))
        evaluation = collect(job, chosen, outcome.failed, missing)
    evaluation.shortfall = found.shortfall() if not sequences else ""
    print_table(evaluation, stream)
    return evaluation


def collect(
    job: jobs.Job,
    chosen: metrics.Protocol,
    failed: Mapping[jobs.Task, str],
    missing: tuple[str, ...] = (),
) -> Evaluation:
    """Read and judge the stored results of a job."""
    evaluation = Evaluation(job.dataset.name, chosen, {}, {}, dict(failed), missing)
    done = dict.fromkeys(task.sequence for task in job.tasks if task not in failed)
    sequences = {name: job.dataset.load(name) for name in done}
    for task in job.tasks:
        runs = evaluation.scores.setdefault(task.params, [])
        speeds = evaluation.frames_per_s.setdefault(task.params, [])
        while len(runs) <= task.run:
            runs.append({})
            speeds.append({})
        if task in failed:
            continue
        result = read_result(job.folder(task), task.sequence)
        runs[task.run][task.sequence] = judge(sequences[task.sequence], result.boxes_xywh, chosen, result.path)
        speeds[task.run][task.sequence] = result.frames_per_s
    return evaluation


def judge(sequence: Any, boxes_xywh: np.ndarray, chosen: metrics.Protocol, path: object) -> metrics.SequenceScore:
    """Score boxes against a sequence's annotation, by its data set's rule where the protocol asks for one."""
    if chosen.name == "pytracking":
        chosen = metrics.protocol(chosen, rule=sequence.rule)
    return metrics.score_sequence(
        boxes_xywh,
        sequence.boxes_xywh,
        chosen,
        visible=sequence.visible,
        size_wh=sequence.size_wh,
        where=str(path),
    )


def versions(device: str, threads: int) -> dict[str, object]:
    """What besides parameters and weights can change a result's last digits."""
    import torch

    numbers = {"numpy": np.__version__, "opencv": cv2.__version__, "torch": str(torch.__version__)}
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(device)
    python = platform.python_version()
    where = {"device": device, "threads": threads} if device == "cpu" else {"device": device}
    return {"ebmtrack": __version__, "python": python, **numbers, **where}


@dataclass
class Progress:
    """Prints a line per finished sequence: its score, the mean so far, frames/s, and the time that is
    left."""

    job: jobs.Job
    protocol: metrics.Protocol
    stream: TextIO
    on_score: Callable[[jobs.Task, float], None] | None = None
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
        print(f"{head}: {text}, {self._left()}", file=self.stream, flush=True)

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

    def _left(self) -> str:
        left = len(self.job.tasks) - self.skipped - self.done
        left_s = (time.monotonic() - self.began) / self.done * left
        return f"{left_s / 60:.0f} min left" if left_s >= 90 else f"{left_s:.0f} s left"


def print_table(evaluation: Evaluation, stream: TextIO) -> None:
    """Scores per sequence (mean over runs) and their mean, marked partial where something is missing."""
    for params, runs in evaluation.scores.items():
        names = list(dict.fromkeys(name for run in runs for name in run))
        width = max([len(name) for name in names] + [12])
        head = f"{params} on {evaluation.dataset}, protocol {evaluation.protocol.title}, {len(runs)} run(s)"
        print(f"\n{head}", file=stream)
        label = evaluation.protocol.headline_label
        print(f"{'sequence':{width}} {label:>6}   OP50   OP75  frames/s", file=stream)
        for name in names:
            rows = [_row(run[name]) for run in runs if name in run]
            speed = np.mean([run[name] for run in evaluation.frames_per_s[params] if name in run])
            print(_line(name, width, np.mean(rows, axis=0), speed), file=stream)
        _print_mean(evaluation, params, width, stream)
    for task, text in evaluation.failed.items():
        print(f"\nFAILED {task.params} run {task.run} {task.sequence}:\n{text.rstrip()}", file=stream)
    stream.flush()


def _print_mean(evaluation: Evaluation, params: str, width: int, stream: TextIO) -> None:
    """The mean over sequences of each run, averaged over runs, with the spread; withheld without any."""
    runs = [metrics.summarise(list(run.values())) for run in evaluation.scores[params] if run and _judged(run)]
    if not runs:
        print("no mean: no sequence has a frame to judge", file=stream)
        return
    frames = {name: len(score.overlap) - 1 for run in evaluation.scores[params] for name, score in run.items()}
    speeds = [metrics.overall_speed(run, frames) for run in evaluation.frames_per_s[params] if run]
    label = "mean" if evaluation.complete else "mean PARTIAL"
    values = [getattr(s, evaluation.protocol.headline) for s in runs]
    points = np.mean([[value, s.op50, s.op75] for value, s in zip(values, runs)], axis=0)
    print(_line(label, width, points, float(np.mean(speeds))), file=stream)
    mean, spread = metrics.over_runs(values)
    if len(runs) > 1:
        print(
            f"{evaluation.protocol.headline_label} over {len(runs)} runs: {mean:.4f}, standard deviation {spread:.4f}",
            file=stream,
        )
    if evaluation.shortfall:
        print(evaluation.shortfall, file=stream)


def _judged(run: Mapping[str, metrics.SequenceScore]) -> bool:
    return any(score.denominator for score in run.values())


def _row(score: metrics.SequenceScore) -> list[float]:
    op50, op75 = score.op(np.array([0.5, 0.75]))
    return [headline(score), float(op50), float(op75)]


def headline(score: metrics.SequenceScore) -> float:
    """The figure by which the protocol ranks: AO or the area under the success curve; NaN without a judged frame."""
    return score.average_overlap if score.protocol.pooled else float(score.success.mean())


def _line(label: str, width: int, points: np.ndarray, frames_per_s: float) -> str:
    return f"{label:{width}} {points[0]:6.3f} {points[1]:6.3f} {points[2]:6.3f} {frames_per_s:9.1f}"


def _default_workers(devices: tuple[str, ...]) -> int:
    return len(devices) if devices[0].startswith("cuda") else _cores()


def _cores() -> int:
    """Cores that this process may use, which are fewer than the machine's on a cluster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_threads(devices: tuple[str, ...], workers: int) -> int:
    """One on a CPU, where sums by more threads differ in their last bits; cores // workers beside a GPU.

    With one, results on a CPU do not depend on how many workers share the cores.
    """
    return 1 if devices[0] == "cpu" else max(1, _cores() // max(1, workers))


def _check_counts(params_names: Sequence[str], runs: int, workers: int, threads: int | None) -> None:
    if not params_names:
        raise ConfigError("name at least one set of parameters")
    if runs < 1 or workers < 0 or (threads is not None and threads < 1):
        raise ConfigError(
            f"runs {runs}, workers {workers}, threads {threads}: at least one run and thread, and no negative workers"
        )
