"""Tasks of an evaluation: one run of one set-up over one sequence, and where its result is on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ebmtrack.errors import ResultError
from ebmtrack.evaluation.foreign import read_boxes
from ebmtrack.evaluation.results import box_path, read_marker
from ebmtrack.files import as_json
from ebmtrack.tracking.params import TrackerParams, set_up_name
from ebmtrack.tracking.sequence import TrackerLike
from ebmtrack.videos import DataSet


class Factory(Protocol):
    """A maker of trackers for worker processes: an object that can be pickled."""

    def __call__(self, params: str, device: str) -> TrackerLike:
        """Return a tracker of the named set-up on a device."""

    def describe(self, params: str) -> Mapping[str, object]:
        """Return what the results depend on (parameters, hash of the weights), as JSON values."""


@dataclass(frozen=True, order=True)
class Task:
    """One run of one set-up over one sequence."""

    params: str
    run: int
    sequence: str


@dataclass(frozen=True)
class Job:
    """The tasks of one call of `evaluate`, with all that a worker needs to know.

    Attributes:
        made_by: Name of a set-up -> what is written into the markers of its results.
        began: Time of the start by the disk's clock; errors from before are tried again.
        workers: Number of workers that share this machine's cores; 0 if they do not.
        batch: Sequences that each worker tracks at once.
        given_up: Tasks that killed their workers too often; they are not tried again.
    """

    dataset: DataSet
    tasks: tuple[Task, ...]
    factory: Factory
    out: Path
    seed: int
    threads: int
    made_by: Mapping[str, Mapping[str, object]]
    began: float = 0.0
    workers: int = 0
    batch: int = 1
    given_up: frozenset[Task] = frozenset()

    def folder(self, task: Task) -> Path:
        """Return the folder of the results of a task's set-up and run."""
        return run_folder(self.out, self.dataset.name, task.params, task.run)

    def error_path(self, task: Task) -> Path:
        """Return the file for the traceback of a task that failed."""
        return self.folder(task) / f"{task.sequence}.error"

    @property
    def folders(self) -> list[Path]:
        """The folders of results of all tasks, in order."""
        return sorted({self.folder(task) for task in self.tasks})


@dataclass
class Outcome:
    """The tasks of a job that were done before, the number done now, and those that failed with the reason."""

    skipped: int = 0
    done: int = 0
    failed: dict[Task, str] = field(default_factory=dict)


def run_folder(out: str | os.PathLike, dataset: str, params: str, run: int) -> Path:
    """Return the folder of one run: `<out>/<dataset>/<params>_<run>`; of a set-up's path its file's name counts."""
    return Path(out) / dataset / f"{set_up_name(params)}_{run:03d}"


def seed_of(seed: int, run: int, sequence: str) -> int:
    """Return the seed of one run over one sequence, 0 .. 2^32 - 1: the same on every machine, for any workers."""
    digest = hashlib.sha256(f"{seed}/{run}/{sequence}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def is_done(job: Job, task: Task) -> bool:
    """Return whether a task has a good result; raise ResultError if that was made by something else."""
    marker = read_marker(job.folder(task), task.sequence)
    if marker is None:
        return False
    sequence = job.dataset.read(task.sequence)
    if sequence.early_rows and marker.get("frames") == len(sequence) + sequence.early_rows:
        return False  # made before the first frames were left out (OTB's Tiger1)
    old, new = dict(marker["made_by"]), job.made_by[task.params]
    stored, wanted = old.get("params"), new.get("params")
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        old["params"] = _with_defaults(stored, wanted)
    for key in ("params", "engine", "precision", "weights", "seed"):
        if key in new and old.get(key) != new[key]:
            raise ResultError(
                f"{box_path(job.folder(task), task.sequence)}: made {_difference(key, old.get(key), new[key])}; "
                "choose another folder for results (--out), or --overwrite these"
            )
    return True


def _with_defaults(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """Return a result's parameters with those that came later, whose defaults mean "as before"."""
    return {name: value for name, value in as_json(TrackerParams()).items() if name in new} | dict(old)


def _difference(key: str, old: object, new: object) -> str:
    """Return in words how a result's entry `key` differs from that of a task."""
    if key == "params" and isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if names == ["interval_samples"] and 0 in (old.get(names[0], 0), new.get(names[0], 0)):
            return "with --intervals" if old.get(names[0]) else "without --intervals"
        changes = [f"{name} {old.get(name, 'unknown')}, now {new.get(name, 'unknown')}" for name in names[:3]]
        more = [f"{len(names) - 3} more"] * (len(names) > 3)
        return f"with other params ({'; '.join(changes + more)})"
    shown = key in ("engine", "precision", "seed")
    return f"with other {key}" + (f" ({'unknown' if old is None else old}, now {new})" if shown else "")


def check_sequences(job: Job, done: Collection[Task]) -> None:
    """Refuse results of sequences that have the same names in another data set, with a ResultError.

    A result begins with the box that the tracker was given, and has one box per frame.
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
