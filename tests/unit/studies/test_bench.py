"""`ebmtrack bench`: contenders take turns in processes of their own."""

from __future__ import annotations

import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.studies import bench_tracker as study
from ebmtrack.studies.bench_tracker import STAGES, BenchOptions, bench, parse_contender


def test_contenders_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our row has all stages, which fill most of the frame; both know import time, memory and the overlap."""
    monkeypatch.setattr(study, "WARMUP", 1)
    monkeypatch.setattr(study, "TURN", 2)
    report = bench(BenchOptions(("onnx", "opencv:MIL"), threads=1, frames=3))
    ours, theirs = report["rows"]
    assert set(STAGES) - set(ours["stages_ms"]) <= {"learning"} and "stages_ms" not in theirs
    assert 0 < sum(ours["stages_ms"].values()) < 3 * ours["frame_ms"]
    for row in (ours, theirs):
        assert min(row["import_s"], row["init_s"], row["frame_ms"], row["frames_per_s"], row["cpu_ms"]) > 0
        assert 30 < row["peak_mb"] < 5000 and 0.3 < row["overlap"] <= 1
    lines = study.as_table(report).splitlines()
    assert "onnx" in lines[2] and "opencv:MIL" in lines[2] and any("refinement" in line for line in lines)


@pytest.mark.parametrize("text", ["tensorflow", "opencv", "opencv:kcf", "torch:MIL", "opencv:NONE", ""])
def test_what_is_no_contender(text: str) -> None:
    with pytest.raises(ConfigError, match="contender|no such tracker"):
        parse_contender(text)


def test_openvino_runs_what_onnx_runtime_runs() -> None:
    assert parse_contender("openvino:bfloat16@F") == {**parse_contender("onnx:bfloat16@F"), "device": "openvino"}


def test_a_contender_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError, match="onnx@nowhere: no exported network 'nowhere'"):
        bench(BenchOptions(("onnx@nowhere",), frames=1))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"threads": 0}, {"source": "a.mp4"}, {"init": "1,2,3,4"}])
def test_options_that_cannot_be_used(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        bench(BenchOptions(("onnx",), **wrong))
