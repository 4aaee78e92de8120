"""Jobs on a cluster: shared out, requeued, submitted again, one folder of results."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ebmtrack.commands import cluster
from ebmtrack.commands.cluster import ClusterOptions, Crew, Work, run_alone
from ebmtrack.commands.main import main
from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.evaluation.evaluate import Evaluation, evaluate
from tests.support.evaluation_stub import StubFactory, make_sequences
from tests.support.slurm import pretend_slurm

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="clusters are no Windows machines")


@dataclass(frozen=True)
class Stub:
    """A verb that evaluates the stub in this process, or raises, or kills it once."""

    root: Path
    out: Path
    factory: StubFactory = StubFactory()
    dies: Path | None = None
    restart: bool = False

    def run(self) -> int:
        """Evaluate, or what else was asked for."""
        if self.dies is not None and not self.dies.exists():
            self.dies.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        evaluation = evaluate(
            ["stub"], "folder", self.root, out=self.out, device="cpu", workers=0, factory=self.factory
        )
        return evaluation.exit_code


@dataclass(frozen=True)
class Fails:
    """A verb that fails."""

    def run(self) -> int:
        """Raise."""
        raise EbmtrackError("no such weights")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    """Jobs import this module by its name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setitem(cluster.POLL_S, "slurm", 0.2)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A pretended Slurm."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    pretend_slurm(tmp_path / "slurm")
    return tmp_path / "slurm"


def share_out(verb: Stub, count: int, kind: str = "local", job: tuple = ()) -> tuple[Evaluation, str]:
    """Evaluate by jobs, as `ebmtrack eval --cluster` does; return the scores and what was printed."""
    stream = io.StringIO()

    def compute(left: Any) -> list[str]:
        return Crew(ClusterOptions(kind, job), verb.out, stream).run(verb, count, left)  # type: ignore[arg-type]

    evaluation = evaluate(
        ["stub"], "folder", verb.root, out=verb.out, elsewhere=compute, factory=verb.factory, stream=stream
    )
    return evaluation, stream.getvalue()


def test_jobs_share_the_sequences(tmp_path):
    """Two jobs do each of six sequences once, into one folder, and the table is printed once."""
    log = tmp_path / "log"
    verb = Stub(make_sequences(tmp_path / "data", 6), tmp_path / "out", StubFactory(log=str(log), frame_s=0.05))
    evaluation, text = share_out(verb, 2)
    assert evaluation.complete and evaluation.exit_code == 0
    assert len(log.read_text().splitlines()) == 6
    assert "local: 2 jobs" in text and "0 left" in text and text.count("protocol ope") == 1
    assert "2 jobs" not in share_out(verb, 2)[1]  # all is done: nothing is submitted


def test_what_a_job_did_last_is_counted(tmp_path, monkeypatch):
    """Also if it ends just after the tasks that are left were counted."""

    class Job:
        job_id, left, paths = "1", 2, SimpleNamespace(result_pickle=tmp_path)

        def count(self) -> int:
            self.left -= 1
            return self.left

        def done(self) -> bool:
            return self.left < 2

        def exception(self) -> None:
            return None

    job, stream = Job(), io.StringIO()
    crew = Crew(ClusterOptions("local"), tmp_path, stream)
    monkeypatch.setattr(crew, "_submit", lambda verb, count: [job])
    assert crew.run(Fails(), 1, job.count) == []
    assert stream.getvalue().endswith("1 left\n0 left\n")


def test_a_killed_job_is_submitted_again(tmp_path):
    """SIGKILL leaves no time to requeue: the rest is computed all the same."""
    verb = Stub(make_sequences(tmp_path / "data", 2), tmp_path / "out", dies=tmp_path / "died")
    evaluation, text = share_out(verb, 1)
    assert evaluation.complete and "was killed; it is submitted again as" in text


def test_a_warned_job_is_requeued(tmp_path):
    """The cluster's warning ends a job in the middle of a sequence; it comes back and goes on where it was."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    verb = Stub(make_sequences(tmp_path / "data", 2), tmp_path / "out", StubFactory(log=str(log), gate=str(gate)))
    crew = Crew(ClusterOptions("local"), verb.out, io.StringIO())
    (job,) = crew._submit(verb, 1)
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))  # a file without its line is still being written
    os.kill(child_of(int(job.job_id)), signal.SIGUSR2)
    wait_for(lambda: "Requeued job" in (job.stdout() or ""))
    gate.touch()
    assert job.result() == 0
    assert len(log.read_text().splitlines()) == 3  # the sequence that was in progress, again, and the other


def test_what_a_job_cannot_do_is_reported(tmp_path):
    """An error in every job: its last line, the log, and code 1; nothing is submitted again."""
    verb = Stub(make_sequences(tmp_path / "data", 2), tmp_path / "out")
    stream = io.StringIO()

    def compute(left: Any) -> list[str]:
        return Crew(ClusterOptions("local"), verb.out, stream).run(Fails(), 1, left)

    evaluation = evaluate(
        ["stub"], "folder", verb.root, out=verb.out, elsewhere=compute, factory=verb.factory, stream=stream
    )
    assert evaluation.exit_code == 1 and len(evaluation.failed) == 2
    assert "not computed: job" in stream.getvalue() and "no such weights; see" in stream.getvalue()
    assert "submitted again" not in stream.getvalue()


def test_a_training_that_fails_is_an_error(tmp_path):
    """The job's last line and its log."""
    with pytest.raises(EbmtrackError, match=r"job \d+: .*no such weights; see .*\.jobs"):
        run_alone(Fails(), ClusterOptions("local"), tmp_path / "run")


def test_a_failed_sequence_is_reported_with_its_reason(tmp_path):
    """What fails in a job is a failure of that sequence alone."""
    factory = StubFactory(trouble="raise", trouble_width=41)
    verb = Stub(make_sequences(tmp_path / "data", 2), tmp_path / "out", factory)
    evaluation, text = share_out(verb, 1)
    assert [task.sequence for task in evaluation.failed] == ["seq1"] and "the stub was told to fail" in text


def test_slurm_gets_an_array_with_its_parameters(tmp_path, slurm):
    """Scripts in place of Slurm run an array of two; a warned job is requeued through scontrol."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    verb = Stub(make_sequences(tmp_path / "data", 3), tmp_path / "out", StubFactory(log=str(log), gate=str(gate)))
    pid = os.fork()
    if pid == 0:  # warn the first job that runs, then open the gate
        try:
            wait_for(lambda: log.exists() and log.read_text().count("\n") == 2)
            os.kill(working("submitit.core._submit", str(verb.out)), signal.SIGUSR2)
            wait_for(lambda: list(slurm.glob("requeued_77_*")))
        finally:
            gate.touch()
            os._exit(0)
    job = (("partition=gpu", "timeout_min=90"), ("gpus_per_node=1",))
    evaluation, text = share_out(verb, 2, "slurm", job)
    os.waitpid(pid, 0)
    script = (slurm / "script").read_text()
    for line in ("--array=0-1", "--partition=gpu", "--time=90", "--gpus-per-node=1", "--job-name=ebmtrack"):
        assert f"#SBATCH {line}" in script
    assert evaluation.complete and "slurm: 2 jobs, 77_0 77_1" in text
    assert list(slurm.glob("requeued_77_*")) and len(log.read_text().splitlines()) == 4


def test_a_training_goes_on_when_it_is_requeued():
    """--restart is for the first start alone."""
    work = Work(Stub(Path("a"), Path("b"), restart=True))
    assert work.checkpoint().function.verb.restart is False
    assert Work(Fails()).checkpoint().function.verb == Fails()


def test_train_is_one_job(monkeypatch, tmp_path):
    """It gets the run's folder and its own options without --cluster."""
    pytest.importorskip("torch")
    seen = SimpleNamespace()
    monkeypatch.setattr("ebmtrack.commands.train.run_alone", lambda *args: setattr(seen, "args", args))
    line = ["train", "ebm18_small", "--data", str(tmp_path), "--out", "runs/x", "--cluster", "local", "--steps", "3"]
    assert main(line) == 0
    verb, options, out = seen.args
    assert (verb.steps, verb.jobs.cluster, options.cluster, out) == (3, None, "local", Path("runs/x"))


@pytest.mark.parametrize(
    "options, text",
    [
        (["--nodes", "2"], "add --cluster slurm"),
        (["--job", "partition=x"], "add --cluster slurm"),
        (["--cluster", "slurm"], "no srun is found here"),
        (["--cluster", "local", "--nodes", "0"], "at least one job"),
        (["--cluster", "local", "--job", "partitoin=x"], "did you mean 'partition'"),
        (["--cluster", "local", "--job", "timeout_min=soon"], "timeout_min is a whole number"),
        (["--cluster", "local", "--job", "gpu"], "say key=value"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, text, capsys):
    """One line and code 2 before anything is written."""
    make_sequences(tmp_path / "data", 1)
    line = ["eval", "--dataset", "folder", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main([*line, *options]) == 2
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_submitit(monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'ebmtrack\[cluster\]'"):
        ClusterOptions("local").check()


def wait_for(ready: Any, limit_s: float = 200.0) -> None:
    """Wait until a condition holds."""
    until_s = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def child_of(pid: int) -> int:
    """Return the process that another one has started."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def working(*words: str) -> int:
    """Return the first process with some words in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text()
        except OSError:
            continue
        if all(word in line for word in words) and "bash" not in line:
            return int(path.parent.name)
    raise AssertionError(words)
