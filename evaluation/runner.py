"""Runs trackers over sequences: in parallel, safe to kill at any moment, resumable, shareable between machines.

Every worker is a process of its own with one tracker per set-up (`worker`). Starting a second runner on the same
folder, here or on another machine, is enough to spread the work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import locks
from ebmtrack.evaluation.jobs import Job, Outcome, Task, check_sequences, is_done
from ebmtrack.evaluation.results import remove_result
from ebmtrack.evaluation.worker import has_failed, limit_threads, work
from ebmtrack.files import write_text

Note = Callable[[tuple], None]

MOST_DEATHS = 3  # a task whose worker was killed so often in one runner is given up and reported


def run_job(job: Job, workers: int, devices: tuple[str, ...], progress: Note) -> Outcome:
    """Compute every task of a job that is not done yet.

    Args:
        job: The tasks.
        workers: Number of processes; 0 computes in this process, for debugging, and limits its threads for good.
        devices: Dealt out to the workers in turn.
        progress: Called with ("skipped", None, count) if some tasks are done already, and then with
            ("done", task, frames, seconds, frames/s), ("failed", task, traceback) or ("died", task, text).

    Raises:
        ResultError: Results of another making or of another sequence are in the way, or workers do not start.
        ConfigError: Results cannot be written.
    """
    outcome = Outcome()
    todo = tuple(task for task in job.tasks if not is_done(job, task))
    check_sequences(job, set(job.tasks) - set(todo))
    outcome.skipped = len(job.tasks) - len(todo)
    rest = replace(job, tasks=todo, began=_prepare_folders(job), workers=max(min(workers, len(todo)), 1))

    def note(message: tuple) -> None:
        if message[0] == "failed":
            outcome.failed[message[1]] = message[2]
        outcome.done += message[0] == "done"
        if message[0] != "started":
            progress(message)

    if todo and outcome.skipped:
        progress(("skipped", None, outcome.skipped))
    if todo and workers == 0:
        limit_threads(job.threads)
        work(rest, devices[0], note)
    elif todo:
        _Crew(rest, note).run(min(workers, len(todo)), devices)
    _agree_with_disk(job, outcome)
    return outcome


def run_elsewhere(job: Job, compute: Callable[[Callable[[], int]], list[str]]) -> Outcome:
    """Have other processes compute every task of a job that is not done yet, such as jobs of a cluster.

    Args:
        job: The tasks.
        compute: Returns when these processes have ended, with what went wrong; it is called, unless all is done, with
            a function that returns how many tasks have neither a result nor failed.

    Raises:
        ResultError: Results of another making or of another sequence are in the way.
    """
    done = {task for task in job.tasks if is_done(job, task)}
    check_sequences(job, done)
    outcome, todo, began = Outcome(skipped=len(done)), set(job.tasks) - done, _prepare_folders(job)

    def count_left() -> int:
        todo.difference_update([t for t in todo if is_done(job, t) or has_failed(replace(job, began=began), t)])
        return len(todo)

    troubles = compute(count_left) if todo else []
    _agree_with_disk(replace(job, began=began), outcome)
    why = "\n".join(troubles) or "its job ended before it"
    outcome.failed |= {t: f"not computed: {why}" for t in job.tasks if t not in outcome.failed and not is_done(job, t)}
    return outcome


@contextmanager
def at_work(job: Job) -> Iterator[str]:
    """Show other runners that this one is at work in the job's folders while the block runs; yields its name.

    Raises ConfigError if nothing can be written.
    """
    _prepare_folders(job)
    with locks.show_runner(job.folders) as name:
        yield name


def forget(job: Job, runner: str) -> None:
    """Remove the results and failures of a job's tasks, so that all are run again.

    Args:
        job: The tasks.
        runner: This runner's name (`at_work`).

    Raises:
        ConfigError: Another runner is at work: what would be removed may be what it has just finished. Nothing is
            removed then. Of two runners that ask at the same time both are refused.
    """
    for folder in job.folders:
        if locks.has_other_runner(folder, runner):
            raise ConfigError(
                f"{folder}: another runner is at work, so nothing is overwritten; start it alone with overwrite "
                "and the others without, or choose another folder for results"
            )
    for task in job.tasks:
        remove_result(job.folder(task), task.sequence)
        job.error_path(task).unlink(missing_ok=True)


def _agree_with_disk(job: Job, outcome: Outcome) -> None:
    """Take over what other runners did or failed at, and remove reports of failures that were mended."""
    for task in job.tasks:
        error = job.error_path(task)
        if is_done(job, task):
            error.unlink(missing_ok=True)
            outcome.failed.pop(task, None)
        elif task not in outcome.failed and has_failed(job, task):
            try:
                outcome.failed[task] = error.read_text(errors="replace")
            except FileNotFoundError:
                continue  # another runner has just succeeded


def _prepare_folders(job: Job) -> float:
    """Create the folders of results and return the time by their disk's clock; ConfigError if that is refused."""
    try:
        for folder in job.folders:
            folder.mkdir(parents=True, exist_ok=True)
        return max((locks.disk_time(folder) for folder in job.folders), default=0.0)
    except OSError as reason:
        raise ConfigError(f"{job.out}: results cannot be written there ({reason.strerror}); choose another") from reason


@dataclass
class _Worker:
    """A worker process, the tasks that are in progress there, and whether it has begun any."""

    process: Any
    connection: Connection
    device: str
    tasks: list[Task] = field(default_factory=list)
    began: bool = False


@dataclass
class _Crew:
    """The worker processes of a job, which are replaced when they die."""

    job: Job
    note: Note
    given_up: set[Task] = field(default_factory=set)
    deaths: dict[Task | None, int] = field(default_factory=dict)

    def run(self, count: int, devices: tuple[str, ...]) -> None:
        """Keep `count` processes at work until each has left of its own accord."""
        crew = [self._start(devices[i % len(devices)]) for i in range(count)]
        try:
            while crew:
                ready = wait([worker.connection for worker in crew])
                for worker in [w for w in crew if w.connection in ready]:
                    message = _receive(worker)
                    if message is not None:
                        self._note_task(worker, message)
                        continue
                    crew.remove(worker)
                    worker.process.join()
                    if worker.process.exitcode != 0:
                        self.count_death(worker)
                        crew.append(self._start(worker.device))
        finally:
            for worker in crew:
                worker.process.terminate()
            for worker in crew:
                worker.process.join()

    def _start(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork, and Windows has none
        ours, theirs = context.Pipe(duplex=False)
        batch = 1 if self.deaths else self.job.batch  # so that it shows which sequence it is
        job = replace(self.job, given_up=frozenset(self.given_up), batch=batch)
        process = context.Process(target=_worker_main, args=(job, device, theirs))
        process.start()
        theirs.close()
        return _Worker(process, ours, device)

    def _note_task(self, worker: _Worker, message: tuple) -> None:
        worker.began = True
        if message[0] == "started":
            worker.tasks.append(message[1])
        else:
            worker.tasks.remove(message[1])
            self.note(message)

    def count_death(self, worker: _Worker) -> None:
        """Count the death of a worker; after MOST_DEATHS over the same task that task is given up and reported.

        Deaths between two tasks do not count: those workers did get something done. After a death over several tasks
        at once the next worker takes one at a time. Raises ResultError after MOST_DEATHS of workers that never began.
        """
        task, how = worker.tasks[-1] if worker.tasks else None, _how_it_ended(worker.process.exitcode)
        self.note(("died", task, how))
        if task is None and worker.began:
            return
        self.deaths[task] = self.deaths.get(task, 0) + (len(worker.tasks) < 2)
        if self.deaths[task] < MOST_DEATHS:
            return
        if task is None:
            raise ResultError(f"workers end before their first sequence ({how}); see their messages above")
        self.given_up.add(task)
        text = f"The worker {how} in {MOST_DEATHS} attempts; out of memory?\n"
        write_text(self.job.error_path(task), text)
        self.note(("failed", task, text))


def _receive(worker: _Worker) -> tuple | None:
    """Return the next message, or None once the process has gone."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None


def _worker_main(job: Job, device: str, connection: Connection) -> None:
    """Run a worker process."""
    for name in ("SIGINT", "SIGUSR2"):  # Ctrl-C, and a cluster's warning, reach the parent, which ends its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    limit_threads(job.threads)

    def send(message: tuple) -> None:
        try:
            connection.send(message)
        except OSError:  # the parent is gone; whoever continues finds what is done on disk
            os._exit(1)

    work(job, device, send)


def _leave_with_parent() -> None:
    """End this process when its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by signal {-exitcode}"
    return f"ended with exit code {exitcode}"
