"""The work of one process of an evaluation: claim a task that is free, compute it, write it, go on.

There is no queue: a worker walks through the list of tasks, skips what is done, claims what is free (`locks`), computes
it and writes it (`results.write_result`). Killing one costs the sequence that was in progress.
"""

from __future__ import annotations

import glob
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ebmtrack.device import is_cpu
from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.evaluation import locks
from ebmtrack.evaluation.jobs import Job, Task, is_done, seed_of
from ebmtrack.evaluation.reliability import row_of, rows_of_run
from ebmtrack.evaluation.results import SIDE_FILES, Result, write_result
from ebmtrack.files import write_text
from ebmtrack.images import SequenceReader, read_ahead
from ebmtrack.tracking.lockstep import Lockstep
from ebmtrack.tracking.sequence import TrackerLike, track_frames
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.videos import Sequence

log = logging.getLogger(__name__)

Array = np.ndarray
Send = Callable[[tuple], None]

_WAIT_S = 0.5


def track_sequence(
    tracker: TrackerLike,
    sequence: Sequence,
    seed: int,
    made_by: dict[str, object] | None = None,
    by_stage: bool = False,
) -> Result:
    """Run a tracker over one sequence from its first box.

    Python's, NumPy's and PyTorch's global generators are seeded too, for trackers that draw from them.

    Args:
        tracker: The tracker; its `watch`, if it has one, is called after each frame, off the clock.
        sequence: The sequence.
        seed: Seed of the tracker and of the global generators.
        made_by: What is written into the result's marker.
        by_stage: Add up the time by stage (`tracking.sequence.track_frames`).
    """
    _seed_everything(seed)
    watch, reader = getattr(tracker, "watch", None), SequenceReader()
    sureness: list[Array] = []

    def note(number: int, image: Array, answer: Any) -> None:
        sureness.append(row_of(answer))
        if watch is not None:
            watch(sequence.name, number, image, answer)

    track = track_frames(
        tracker,
        read_ahead(map(reader.read, sequence.frame_paths())),
        sequence.boxes_xywh[0],
        name=sequence.name,
        seed=seed,
        by_stage=by_stage,
        on_frame=note,
    )
    if reader.note:
        log.warning("%s: %s", sequence.name, reader.note)
    params = (made_by or {}).get("params")
    said = rows_of_run(sureness, isinstance(params, Mapping) and bool(params.get("interval_samples")))
    return Result(track.boxes_xywh, track.times_s, track.scores, made_by or {}, track.stages_s, sureness=said)


@dataclass
class _Trackers:
    """The trackers of a worker process, one for each set-up, made when they are first needed.

    With a batch the threads of the process share each tracker's network (`tracking.lockstep`).
    """

    job: Job
    device: str
    made: dict[str, TrackerLike] = field(default_factory=dict)
    shared: dict[str, Lockstep] = field(default_factory=dict)
    making: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def take(self, params: str) -> Iterator[TrackerLike]:
        """Yield a tracker for one sequence; after an exception a tracker that is not shared is forgotten."""
        with self.making:
            if params not in self.made:
                self.made[params] = self.job.factory(params, self.device)
            tracker = self.made[params]
            if self.job.batch > 1:
                if not isinstance(tracker, Tracker):
                    raise ConfigError(f"{params}: only ebmtrack's own trackers can share a network: leave --batch out")
                self.shared.setdefault(params, Lockstep(tracker.engine, tracker.params))
        if self.job.batch > 1:
            with self.shared[params].lane() as lane:
                yield lane
            return
        try:
            yield tracker
        except Exception:
            del self.made[params]  # its state is unknown
            raise


def work(job: Job, device: str, send: Send) -> None:
    """Claim, compute and write until no task of the job is left, those in progress elsewhere included.

    Args:
        job: The tasks; `batch` of them are in progress at a time, each in a thread of its own.
        device: Of the trackers.
        send: Called with messages, from one thread at a time.
    """
    trackers, sending = _Trackers(job, device), threading.Lock()

    def send_alone(message: tuple) -> None:
        with sending:
            send(message)

    errors: list[BaseException] = []

    def work_beside() -> None:
        try:
            _work_alone(trackers, send_alone)
        except BaseException as error:  # raised in the main thread below
            errors.append(error)

    threads = [threading.Thread(target=work_beside, daemon=True) for _ in range(job.batch - 1)]
    for thread in threads:
        thread.start()
    _work_alone(trackers, send_alone)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _work_alone(trackers: _Trackers, send: Send) -> None:
    """Claim, compute and write one task after the other."""
    job = trackers.job
    pending = [task for task in job.tasks if task not in job.given_up]
    while pending:
        left = [task for task in pending if not _settle(task, trackers, send)]
        if len(left) == len(pending):
            time.sleep(_WAIT_S)  # all that is left is in other hands; they may still die
        pending = left


def limit_threads(threads: int) -> None:
    """Limit the threads of OpenCV and of PyTorch, also of one that is imported later."""
    cv2.setNumThreads(threads)
    torch = sys.modules.get("torch")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch is not None:
        torch.set_num_threads(threads)


def _settle(task: Task, trackers: _Trackers, send: Send) -> bool:
    """Do one task if it is free, and return whether it needs no more attention."""
    job = trackers.job
    if is_done(job, task) or has_failed(job, task):
        return True
    folder = job.folder(task)
    lock = locks.claim(folder, task.sequence)
    if lock is None:
        return False
    try:
        if not is_done(job, task) and not has_failed(job, task):  # another process may have done it meanwhile
            send(("started", task))
            _remove_leftovers(folder, task.sequence)
            _attempt(task, trackers, send)
    finally:
        lock.release()
    return True


def _attempt(task: Task, trackers: _Trackers, send: Send) -> None:
    """Compute and write one task; an exception is written beside the results and sent, not raised."""
    job, on_cpu = trackers.job, is_cpu(trackers.device)
    try:
        with trackers.take(task.params) as tracker:
            sequence = job.dataset.load(task.sequence)
            seed, made_by = seed_of(job.seed, task.run, task.sequence), dict(job.made_by[task.params])
            result = track_sequence(tracker, sequence, seed, made_by, by_stage=on_cpu)
        sharing = job.workers * job.batch if on_cpu else job.batch if job.batch > 1 else 0
        result = replace(result, workers=sharing)
        write_result(job.folder(task), task.sequence, result)
    except Exception as error:
        text = f"{error}\n" if isinstance(error, EbmtrackError) else traceback.format_exc()
        write_text(job.error_path(task), text)
        send(("failed", task, text))
        return
    job.error_path(task).unlink(missing_ok=True)
    send(("done", task, len(result.boxes_xywh), float(result.times_s.sum()), result.frames_per_s))


def has_failed(job: Job, task: Task) -> bool:
    """Return whether some process failed at a task since its job began."""
    try:
        return os.stat(job.error_path(task)).st_mtime >= job.began
    except FileNotFoundError:
        return False


def _remove_leftovers(folder: Path, sequence: str) -> None:
    """Remove temporary files of results whose writers were killed; the claim says that nobody writes them now."""
    for end in ("", *SIDE_FILES):
        for path in folder.glob(f".{glob.escape(sequence + end)}-????????.*"):
            if path.suffix != ".error":  # a parent that gives a sequence up writes its report without a claim
                path.unlink(missing_ok=True)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
