"""Jobs on a cluster, by submitit: a verb runs there as it would here, is requeued when it is killed, and goes on.

A job is the verb itself with its options. It needs no bookkeeping of its own: an evaluation claims the sequences that
nobody has done yet in the folder of results, and a training goes on from its checkpoint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from ebmtrack.commands.options import Changes, flatten
from ebmtrack.errors import ConfigError, EbmtrackError, missing_extra
from ebmtrack.names import unknown
from ebmtrack.words import counted

FOLDER = ".jobs"  # in the folder of results: scripts and logs of the jobs
MOST_SUBMISSIONS = 4  # of one job that ends without a word, as after SIGKILL
MOST_TIMEOUTS = 100  # a training of days is requeued at each end of its time; submitit's default is 3
GENERIC = {"timeout_min": 240, "mem_gb": None, "cpus_per_task": None, "gpus_per_node": None, "name": "ebmtrack"}
POLL_S = {"local": 0.2, "slurm": 5.0}


@dataclass(frozen=True)
class ClusterOptions:
    """Jobs of a cluster that do the work; they are requeued when they are killed (extra `cluster`).

    Attributes:
        cluster: slurm, or local: processes of this machine, to try it.
        job: Parameters of the jobs, key=value, one or more: timeout_min=240 (minutes before a job is requeued),
            gpus_per_node=1, cpus_per_task=8, mem_gb=32, and those of Slurm: partition, account, qos, constraint ...
    """

    cluster: Literal["slurm", "local"] | None = None
    job: Changes = ()

    def check(self, nodes: int = 1) -> None:
        """Raise ConfigError for a cluster or parameters that cannot be had, before anything is done."""
        if nodes < 1:
            raise ConfigError(f"--nodes {nodes}: at least one job is needed")
        if self.cluster is not None:
            self.parameters()
        elif nodes > 1 or self.job:
            raise ConfigError("--nodes and --job are for jobs of a cluster: add --cluster slurm, or local to try it")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the jobs as submitit takes them."""
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise missing_extra("submitit", "--cluster") from None
        if self.cluster == "slurm" and SlurmExecutor.affinity() <= 0:
            raise ConfigError("--cluster slurm: no srun is found here; --cluster local tries it on this machine")
        known = {*GENERIC, *SlurmExecutor._valid_parameters()}
        return {**GENERIC, "stderr_to_stdout": True, **dict(_parameter(change, known) for change in flatten(self.job))}


@dataclass(frozen=True)
class Work:
    """A verb as the work of a job."""

    verb: Any

    def __call__(self) -> int:
        """Run the verb and return its exit code."""
        return self.verb.run() or 0

    def again(self) -> Work:
        """Return the work to go on with: a training that began afresh then starts from its checkpoint."""
        return Work(replace(self.verb, restart=False)) if getattr(self.verb, "restart", False) else self

    def checkpoint(self) -> Any:
        """Return what submitit is to requeue; it calls this method before the job ends."""
        import submitit

        return submitit.helpers.DelayedSubmission(self.again())


class Crew:
    """Jobs of one verb: they are submitted together, watched, and submitted again if they end without a word.

    Args:
        options: The cluster and the parameters of the jobs.
        out: Folder of results; the logs are in `.jobs` there. On a cluster all machines must see it.
        stream: Where to print.
    """

    def __init__(self, options: ClusterOptions, out: Path, stream: TextIO | None = None):
        self.cluster, self.stream = str(options.cluster), stream or sys.stdout
        self.folder = out / FOLDER
        self.parameters = options.parameters()

    def run(self, verb: Any, count: int, left: Callable[[], int] | None = None) -> list[str]:
        """Submit `count` jobs and wait until all have ended.

        Args:
            verb: What each job runs.
            count: Number of jobs.
            left: Returns how many tasks are not done; nothing is submitted again if none is.

        Returns:
            What went wrong, a text for each job that failed; empty if all ended well.
        """
        jobs, troubles, shown = dict.fromkeys(self._submit(verb, count), 1), [], -1
        self._say(f"{self.cluster}: {counted(len(jobs), 'job')}, {_names(jobs)}; logs are in {self.folder}")
        try:
            while jobs:
                time.sleep(POLL_S[self.cluster])
                ended = [job for job in jobs if job.done()]
                todo = left() if left else 1  # after that look at the jobs: what they did before they ended counts
                if left and todo != shown:
                    shown = todo
                    self._say(f"{todo} left")
                for job in ended:
                    tries = jobs.pop(job)
                    if todo and tries < MOST_SUBMISSIONS and _was_killed(job):
                        jobs[self._submit_again(verb, job)] = tries + 1
                    else:
                        troubles.append(_trouble(job))
        except KeyboardInterrupt:
            self._say(f"jobs that may go on: {_names(jobs)}; the same command joins them later")
            raise
        return [trouble for trouble in troubles if trouble]

    def _submit_again(self, verb: Any, job: Any) -> Any:
        (again,) = self._submit(Work(verb).again().verb, 1)
        self._say(f"job {job.job_id} was killed; it is submitted again as {again.job_id}")
        return again

    def _submit(self, verb: Any, count: int) -> list[Any]:
        """Submit jobs: on Slurm as one array."""
        import submitit

        executor = submitit.AutoExecutor(
            self.folder,
            cluster=self.cluster,
            slurm_max_num_timeout=MOST_TIMEOUTS,
            local_max_num_timeout=MOST_TIMEOUTS,
        )
        executor.update_parameters(**self.parameters)
        with executor.batch():
            return [executor.submit(Work(verb)) for _ in range(count)]

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


def run_alone(verb: Any, options: ClusterOptions, out: Path) -> None:
    """Run a verb as one job and wait for it; raise EbmtrackError with the log's last words if it failed."""
    if troubles := Crew(options, out).run(verb, 1):
        raise EbmtrackError(troubles[0])


def _parameter(change: str, known: set[str]) -> tuple[str, int | str]:
    """Return name and value of one --job, as submitit takes them; ConfigError for another name or kind."""
    key, sign, text = change.partition("=")
    if not sign:
        raise ConfigError(f"--job {change}: say key=value, such as timeout_min=240")
    if key not in known:
        raise unknown("parameter of jobs", key, sorted(known))
    if key in GENERIC and key != "name" and not text.isdecimal():
        raise ConfigError(f"--job {change}: {key} is a whole number")
    return key if key in GENERIC else f"slurm_{key}", int(text) if text.isdecimal() and key != "name" else text


def _names(jobs: Iterable[Any]) -> str:
    return " ".join(job.job_id for job in jobs)


def _was_killed(job: Any) -> bool:
    """Return whether a job ended without a result although nobody cancelled it."""
    return not job.paths.result_pickle.exists() and not job.state.startswith("CANCELLED")


def _trouble(job: Any) -> str:
    """Return why a job failed; empty if it ran to its end."""
    if not job.paths.result_pickle.exists():
        return f"job {job.job_id} ended without a result ({job.state}); see {job.paths.stdout}"
    if (error := job.exception()) is None:
        return ""
    trace = str(error).rpartition("\n-----")[0].strip() or str(error)  # what follows says where the logs are
    return f"job {job.job_id}: {trace.splitlines()[-1]}; see {job.paths.stdout}"
