"""What `eval` prints: the table, and the same figures as JSON that a report reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.evaluation import comparison, jobs, metrics, scoring
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.videos import open_dataset
from tests.support.evaluation_stub import StubFactory, make_sequences
from tests.support.hidden import run_without


@pytest.fixture
def job(tmp_path: Path) -> jobs.Job:
    """Two sequences of six frames; in the second the tracker is lost, 100 pixels away, from frame 2 on."""
    found = open_dataset("folder", make_sequences(tmp_path / "data", 2))
    tasks = tuple(jobs.Task("p", 0, name) for name in found.names)
    job = jobs.Job(found, tasks, StubFactory(), tmp_path / "out", 0, 1, {})
    for task in tasks:
        boxes = found.load(task.sequence).boxes_xywh.copy()
        boxes[2:, 0] += 100 * (task.sequence == "seq1")
        write_result(job.folder(task), task.sequence, Result(boxes, np.full(6, 0.02)))
    return job


def test_the_table(job: jobs.Job) -> None:
    """Right: 20/21, and 1 elsewhere. Lost after one of five frames: 20/105, and 1/5 elsewhere."""
    stream = io.StringIO()
    scoring.print_table(scoring.collect(job, metrics.protocol("ope"), {}), stream)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[2:4] == [
        ["sequence", "AUC", "OP50", "OP75", "P20", "NP", "frames/s"],
        ["seq0", "0.952", "1.000", "1.000", "1.000", "1.000", "50.0"],
    ]
    assert lines[4] == ["seq1", "0.190", "0.200", "0.200", "0.200", "0.200", "50.0"]
    assert lines[5] == ["mean", "0.571", "0.600", "0.600", "0.600", "0.600", "50.0"]
    stream = io.StringIO()
    scoring.print_table(scoring.collect(job, metrics.protocol("got10k"), {}), stream)
    assert stream.getvalue().splitlines()[2].split() == ["sequence", "AO", "OP50", "OP75", "frames/s"]


def test_json_is_read_by_a_report(job: jobs.Job, tmp_path: Path) -> None:
    """Figures as other trackers' have the values of our own results; failures and what is missing are in it."""
    evaluation = scoring.collect(job, metrics.protocol("ope"), {}, ("seq9",))
    evaluation.failed[jobs.Task("p", 1, "seq0")] = "Traceback"
    facts = evaluation.as_json()
    assert facts["complete"] is False and facts["missing"] == ["seq9"] and facts["protocol"] == "ope"
    assert facts["failed"] == [{"params": "p", "run": 1, "sequence": "seq0", "error": "Traceback"}]
    (tmp_path / "peers.json").write_text(json.dumps(facts, allow_nan=False))
    compared = comparison.compare(job.dataset, {"p": tmp_path / "out/folder/p"}, peers=tmp_path / "peers.json")
    ours, theirs = compared.trackers
    assert (ours.label, theirs.label) == ("p", "p (peers.json)")
    for figure in scoring.FIGURES:
        assert theirs.mean(figure) == pytest.approx(ours.mean(figure), abs=1e-12)


def test_nothing_to_judge(tmp_path: Path) -> None:
    """A sequence of one frame has no score under `ope`: no mean, and valid JSON."""
    found = open_dataset("folder", make_sequences(tmp_path / "data", 1, frames=1))
    task = jobs.Task("p", 0, "seq0")
    job = jobs.Job(found, (task,), StubFactory(), tmp_path / "out", 0, 1, {})
    write_result(job.folder(task), "seq0", Result(found.load("seq0").boxes_xywh))
    evaluation, stream = scoring.collect(job, metrics.protocol("ope"), {}), io.StringIO()
    scoring.print_table(evaluation, stream)
    assert "no mean: no sequence has a frame to judge" in stream.getvalue()
    assert json.loads(json.dumps(evaluation.as_json(), allow_nan=False))["trackers"]["p"]["mean"] == {}


def test_evaluation_needs_no_torch() -> None:
    """All modules are imported in an interpreter in which torch cannot be found."""
    code = (
        "import importlib, pkgutil; import ebmtrack.evaluation as room;"
        "names = [m.name for m in pkgutil.iter_modules(room.__path__)];"
        "[importlib.import_module(f'ebmtrack.evaluation.{name}') for name in names]; print(len(names))"
    )
    assert int(run_without(("torch",), code)) > 15
