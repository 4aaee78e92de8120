"""Runs trackers over sequences: in parallel, safe to kill at any moment, resumable, shareable between
machines.

Every worker is a process of its own with one tracker per set of parameters. There is no queue: a worker
walks through the list of (parameters, run, sequence), skips what is done, claims what is free (`claims`),
computes it and writes it (`results.write_result`). Starting a second runner on the same folder, here or on
another machine, is therefore enough to spread the work; killing one costs the sequences that were in
progress.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError, ResultError
from ebmtrack.evaluation import claims
from ebmtrack.evaluation.results import Result, box_path, read_boxes, read_marker, remove_result, write_result
from ebmtrack.files import write_text
from ebmtrack.videos import DataSet, Sequence

Array = np.ndarray

MOST_DEATHS = 3  # a task whose worker was killed so often in one runner is given up and reported
_HEARTBEAT_S = 15.0
_WAIT_S = 0.5


class TrackerLike(Protocol):
    """What the runner asks of a tracker; `ebmtrack.tracking.tracker.Tracker` is one."""

    def init(self, image_rgb: Array, box_xywh: tuple[float, float, float, float], *, seed: int) -> Any:
        """Start on the first frame."""

    def update(self, image_rgb: Array) -> Any:
        """Track one more frame; the answer has `box_xywh` and may have `score`."""


class Factory(Protocol):
    """Makes trackers in worker processes: an object that can be pickled."""

    def __call__(self, params: str, device: str) -> TrackerLike:
        """A tracker with the parameters of that name on that device."""

    def describe(self, params: str) -> Mapping[str, object]:
        """What the results depend on (parameters, hash of the weights), as JSON values."""


@dataclass(frozen=True, order=True)
class Task:
    """One run of one set of parameters over one sequence."""

    params: str
    run: int
    sequence: str


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    made_by: parameters' name -> what is written into markers. began: by the disk's clock; errors from before
    are tried again. given_up: tasks not to touch.
    """

    dataset: DataSet
    tasks: tuple[Task, ...]
    factory: Factory
    out: Path
    seed: int
    threads: int
    made_by: Mapping[str, Mapping[str, object]]
    began: float = 0.0
    given_up: frozenset[Task] = frozenset()

    def folder(self, task: Task) -> Path:
        """Where the results of a task's parameters and run lie."""
        return run_folder(self.out, self.dataset.name, task.params, task.run)


@dataclass
class Outcome:
    """What became of a job: tasks done before, done now, and failed with the reason."""

    skipped: int = 0
    done: int = 0
    failed: dict[Task, str] = field(default_factory=dict)


def run_folder(out: str | os.PathLike, dataset: str, params: str, run: int) -> Path:
    """The folder of one run: `<out>/<dataset>/<params>_<run>`."""
    return Path(out) / dataset / f"{params}_{run:03d}"


def error_path(folder: Path, sequence: str) -> Path:
    """Where the traceback of a failed sequence lies."""
    return folder / f"{sequence}.error"


def seed_of(seed: int, run: int, sequence: str) -> int:
    """The seed of one run over one sequence, 0 .. 2^32 - 1: the same on every machine and for any number of
    workers."""
    digest = hashlib.sha256(f"{seed}/{run}/{sequence}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def read_rgb(path: Path) -> Array:
    """An image file as uint8 RGB (H, W, 3). Raises DatasetError where it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path}: cannot be read as an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def track_sequence(tracker: TrackerLike, sequence: Sequence, seed: int, by_stage: bool = False) -> Result:
    """Run a tracker over one sequence from its first box; time counts the tracker's calls only.

    by_stage: add up the time of the stages as well, if the tracker has a `mark`; on a GPU, which works behind the
    program, such times mean nothing. A tracker's `watch`, where it has one, is called after each frame, off the clock.
    Python's, NumPy's and PyTorch's global generators are seeded too, for trackers that draw from them.
    """
    _seed_everything(seed)
    stages = StageTimes()
    if by_stage and hasattr(tracker, "mark"):
        tracker.mark = stages
    paths, boxes, times, scores = sequence.frame_paths(), [], [], []
    start = tuple(float(v) for v in sequence.boxes_xywh[0])
    for number, path in enumerate(paths):
        image = read_rgb(path)
        stages.begin()
        began = time.perf_counter()
        answer = tracker.update(image) if number else tracker.init(image, start, seed=seed)
        times.append(time.perf_counter() - began)
        boxes.append(_as_box(answer.box_xywh, path) if number else start)
        scores.append(float(getattr(answer, "score", 1.0)) if number else 1.0)
        if number and getattr(tracker, "watch", None):
            tracker.watch(sequence.name, number, image, answer)
    return Result(np.array(boxes, np.float64), np.array(times), np.array(scores), stages_s=stages.totals_s)


class StageTimes:
    """Adds up seconds by stage for trackers that call their `mark` when a stage is done, as ours does."""

    def __init__(self) -> None:
        self.totals_s: dict[str, float] = {}
        self.last = 0.0

    def begin(self) -> None:
        """A frame begins."""
        self.last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """A stage is done."""
        now = time.perf_counter()
        self.totals_s[stage] = self.totals_s.get(stage, 0.0) + now - self.last
        self.last = now


def run_job(job: Job, workers: int, devices: tuple[str, ...], progress: Callable[[tuple], None]) -> Outcome:
    """Compute every task of a job that is not done yet, with `workers` processes.

    workers: 0 computes in this process, for debugging, and limits its threads for good. progress is called with
    ("skipped", None, count) where some are done already, and then with
    ("done", task, frames, seconds, frames/s), ("failed", task, traceback) or ("died", task, text). devices are dealt
    out to the workers in turn.
    """
    outcome = Outcome()
    todo = tuple(task for task in job.tasks if not is_done(job, task))
    _check_sequences(job, set(job.tasks) - set(todo))
    outcome.skipped = len(job.tasks) - len(todo)
    began = _prepare_folders(job)
    whole, job = job, replace(job, tasks=todo, began=began)

    def note(message: tuple) -> None:
        if message[0] == "failed":
            outcome.failed[message[1]] = message[2]
        outcome.done += message[0] == "done"
        if message[0] != "started":
            progress(message)

    if todo and outcome.skipped:
        progress(("skipped", None, outcome.skipped))
    if todo and workers == 0:
        _limit_threads(job.threads)
        work(job, devices[0], note)
    elif todo:
        _run_processes(job, min(workers, len(todo)), devices, note)
    _tidy(whole, outcome)
    return outcome


@contextmanager
def at_work(job: Job) -> Iterator[list[claims.Claim]]:
    """Show other runners, by a claim in each folder of the job, that this one is at work while the block runs.

    Raises ConfigError where nothing can be written.
    """
    _prepare_folders(job)
    name, mine = f"runner-{uuid.uuid4().hex}", []
    try:
        for folder in sorted({job.folder(task) for task in job.tasks}):
            mine.append(claims.claim(folder, name))
        with _signs_of_life(*mine):
            yield mine
    finally:
        for claim in mine:
            claim.release()


def forget(job: Job, mine: list[claims.Claim]) -> None:
    """Remove the results and failures of a job's tasks, so that all are run again.

    mine: this runner's claims (`at_work`). Raises ConfigError, before anything is removed, where another runner is at
    work: what would be removed may be what it has just finished. Of two that ask at the same time both are refused.
    """
    for claim in mine:
        if claims.busy(claim.folder, claim):
            raise ConfigError(
                f"{claim.folder}: another runner is at work, so nothing is overwritten; start it alone with overwrite "
                "and the others without, or choose another folder for results (a runner that died on another machine "
                f"counts for {claims.SILENT_S:.0f} s)"
            )
    for task in job.tasks:
        remove_result(job.folder(task), task.sequence)
        error_path(job.folder(task), task.sequence).unlink(missing_ok=True)


def _tidy(job: Job, outcome: Outcome) -> None:
    """Remove what killed processes left, and agree with the disk, where other runners may have been, on failures."""
    for task in job.tasks:
        error = error_path(job.folder(task), task.sequence)
        if is_done(job, task):
            error.unlink(missing_ok=True)
            outcome.failed.pop(task, None)
        elif task not in outcome.failed:
            try:
                outcome.failed[task] = error.read_text(errors="replace")
            except FileNotFoundError:
                continue  # another runner is at it, or has just succeeded
    for folder in {job.folder(task) for task in job.tasks}:
        claims.sweep(folder)


def is_done(job: Job, task: Task) -> bool:
    """Whether a task has a good result. Raises ResultError where that was made by something else."""
    marker = read_marker(job.folder(task), task.sequence)
    if marker is None:
        return False
    made_by = marker["made_by"]
    for key, value in job.made_by[task.params].items():
        if key in ("params", "weights", "seed") and made_by.get(key) != value:
            raise ResultError(
                f"{box_path(job.folder(task), task.sequence)}: made with other {key}; "
                "choose another folder for results (--out), or --overwrite these"
            )
    return True


def _check_sequences(job: Job, done: set[Task]) -> None:
    """Refuse results that are there from sequences of the same names in another data set, with a ResultError.

    A result begins with the box that the tracker was given and has a box per frame.
    """
    for name in dict.fromkeys(task.sequence for task in job.tasks if task in done):
        truth = job.dataset.load(name).boxes_xywh
        for task in (task for task in done if task.sequence == name):
            boxes = read_boxes(box_path(job.folder(task), name))
            if len(boxes) != len(truth) or not np.array_equal(boxes[0], truth[0]):
                raise ResultError(
                    f"{box_path(job.folder(task), name)}: made from another sequence of that name; "
                    "choose another folder for results (--out), or --overwrite these"
                )


def work(job: Job, device: str, send: Callable[[tuple], None]) -> None:
    """A worker's life: claim, compute and write until nothing of the job is left, in progress elsewhere
    included."""
    trackers: dict[str, TrackerLike] = {}
    pending = [task for task in job.tasks if task not in job.given_up]
    while pending:
        left = [task for task in pending if not _settle(job, task, device, trackers, send)]
        if len(left) == len(pending):
            time.sleep(_WAIT_S)  # all that is left is in other hands; they may still die
        pending = left


def _settle(job: Job, task: Task, device: str, trackers: dict[str, TrackerLike], send: Callable[[tuple], None]) -> bool:
    """Do one task if it is free; True where it needs no more attention."""
    if is_done(job, task) or _failed_since(job, task):
        return True
    folder = job.folder(task)
    claim = claims.claim(folder, task.sequence)
    if claim is None:
        return False
    try:
        if is_done(job, task) or _failed_since(job, task):
            return True
        send(("started", task))
        _remove_leftovers(folder, task.sequence)
        with _signs_of_life(claim):
            _attempt(job, task, device, trackers, send)
    finally:
        claim.release()
    return True


def _attempt(
    job: Job, task: Task, device: str, trackers: dict[str, TrackerLike], send: Callable[[tuple], None]
) -> None:
    """Compute and write one task; whatever goes wrong is written beside the results and sent, not raised."""
    folder = job.folder(task)
    try:
        if task.params not in trackers:
            trackers[task.params] = job.factory(task.params, device)
        sequence = job.dataset.load(task.sequence)
        seed = seed_of(job.seed, task.run, task.sequence)
        result = track_sequence(trackers[task.params], sequence, seed, by_stage=device == "cpu")
        write_result(folder, task.sequence, replace(result, made_by=job.made_by[task.params]))
    except Exception:
        trackers.pop(task.params, None)  # its state is unknown
        text = traceback.format_exc()
        write_text(error_path(folder, task.sequence), text)
        send(("failed", task, text))
        return
    error_path(folder, task.sequence).unlink(missing_ok=True)
    send(("done", task, len(result.boxes_xywh), float(result.times_s.sum()), result.frames_per_s))


def _failed_since(job: Job, task: Task) -> bool:
    """Whether somebody failed at this task since the job began."""
    try:
        return os.stat(error_path(job.folder(task), task.sequence)).st_mtime >= job.began
    except FileNotFoundError:
        return False


def _remove_leftovers(folder: Path, sequence: str) -> None:
    """Temporary files of writers that were killed. The claim says that nobody else writes results of this sequence
    now; but a parent that gives a sequence up reports it without a claim, so reports must be old."""
    for end in ("", "_time", "_object_presence_scores", "_stages"):
        for path in folder.glob(f".{_escape(sequence + end)}-????????.*"):
            if path.suffix != ".error" or claims.silent(path):
                path.unlink(missing_ok=True)


def _escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextmanager
def _signs_of_life(*owned: claims.Claim) -> Iterator[None]:
    """Touch claims every few seconds while the block runs."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(_HEARTBEAT_S):
            for claim in owned:
                claim.touch()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _prepare_folders(job: Job) -> float:
    """Create the folders of results and return the time by their disk's clock. Raises ConfigError where nothing can be
    written there."""
    folders = {job.folder(task) for task in job.tasks}
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return max((claims.disk_time(folder) for folder in folders), default=0.0)
    except OSError as reason:
        raise ConfigError(f"{job.out}: results cannot be written there ({reason.strerror}); choose another") from reason


@dataclass
class _Worker:
    process: Any
    connection: Connection
    device: str
    task: Task | None = None
    began: bool = False


def _run_processes(job: Job, workers: int, devices: tuple[str, ...], note: Callable[[tuple], None]) -> None:
    """Keep `workers` processes at work until each has left of its own accord."""
    given_up: set[Task] = set()
    deaths: dict[Task | None, int] = {}
    crew = [_start_worker(job, devices[i % len(devices)]) for i in range(workers)]
    try:
        while crew:
            ready = wait([worker.connection for worker in crew])
            for worker in [w for w in crew if w.connection in ready]:
                message = _receive(worker)
                if message is not None:
                    _note_task(worker, message, note)
                    continue
                crew.remove(worker)
                worker.process.join()
                if worker.process.exitcode == 0:
                    continue
                _bury(job, worker, deaths, given_up, note)
                if None not in given_up:
                    later = replace(job, given_up=frozenset(given_up))
                    crew.append(_start_worker(later, worker.device))
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()


def _bury(
    job: Job,
    worker: _Worker,
    deaths: dict[Task | None, int],
    given_up: set[Task],
    note: Callable[[tuple], None],
) -> None:
    """Count the death of a worker; after MOST_DEATHS over the same task that task is given up and reported.

    Deaths between two tasks do not count: those workers did get something done. Raises ResultError after MOST_DEATHS
    of workers that never began.
    """
    task, how = worker.task, _how_it_ended(worker.process.exitcode)
    if task is None and worker.began:
        note(("died", task, how))
        return
    deaths[task] = deaths.get(task, 0) + 1
    note(("died", task, how))
    if deaths[task] < MOST_DEATHS:
        return
    if task is None:
        raise ResultError(f"workers end before their first sequence ({how}); see their messages above")
    given_up.add(task)
    text = f"The worker {how} in {MOST_DEATHS} attempts; out of memory?\n"
    write_text(error_path(job.folder(task), task.sequence), text)
    note(("failed", task, text))


def _start_worker(job: Job, device: str) -> _Worker:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_worker_main, args=(job, device, theirs, os.getpid()))
    process.start()
    theirs.close()
    return _Worker(process, ours, device)


def _receive(worker: _Worker) -> tuple | None:
    """The next message, or None once the process has gone."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None


def _note_task(worker: _Worker, message: tuple, note: Callable[[tuple], None]) -> None:
    worker.task, worker.began = (message[1] if message[0] == "started" else None), True
    if message[0] != "started":
        note(message)


def _worker_main(job: Job, device: str, connection: Connection, parent: int) -> None:
    """Entry point of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()
    _limit_threads(job.threads)

    def send(message: tuple) -> None:
        try:
            connection.send(message)
        except OSError:  # the parent is gone; whoever continues finds what is done on disk
            os._exit(1)

    work(job, device, send)


def _leave_with_parent(parent: int) -> None:
    """End this process soon after its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_threads(threads: int) -> None:
    cv2.setNumThreads(threads)
    torch = sys.modules.get("torch")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for a torch that is imported later
    if torch is not None:
        torch.set_num_threads(threads)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def _how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by signal {-exitcode}"
    return f"ended with exit code {exitcode}"


def _as_box(box_xywh: Any, path: Path) -> tuple[float, float, float, float]:
    """Four finite floats with a size that is not negative, or a ResultError that names the frame."""
    try:
        box = tuple(float(v) for v in box_xywh)
    except (TypeError, ValueError) as reason:
        raise ResultError(f"{path}: the tracker returned {box_xywh!r} instead of a box") from reason
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) < 0:
        raise ResultError(f"{path}: the tracker returned {box!r}, which is no box x, y, width, height")
    return box


def pick_devices(device: str) -> tuple[str, ...]:
    """Devices for the workers: `cpu`, `cuda` (all of them), `cuda:0,cuda:2`, or `auto` (GPUs if there are any).

    Under torchrun, `cuda` and `auto` mean the GPU of this process alone (LOCAL_RANK). Raises ConfigError for `cuda`
    without a GPU, and for anything that is no device.
    """
    if device in ("auto", "cuda"):
        import torch

        count = torch.cuda.device_count()
        if device == "cuda" and not count:
            raise ConfigError("device 'cuda': PyTorch sees no GPU here; use --device cpu")
        if count and "LOCAL_RANK" in os.environ:
            return (f"cuda:{int(os.environ['LOCAL_RANK']) % count}",)
        return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)
    devices = tuple(part.strip() for part in device.split(","))
    for name in devices:
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
            raise ConfigError(f"unknown device {name!r}: use auto, cpu, mps, cuda or cuda:0,cuda:1")
    return devices
