"""`ebmtrack bench`: contenders take turns in processes of their own."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.images import write_picture
from ebmtrack.studies import bench_tracker as study
from ebmtrack.studies.bench_tracker import STAGES, BenchOptions, Contender, bench, parse_contender
from ebmtrack.studies.bench_worker import StageClock, measure, track_clip
from ebmtrack.tracking.params import load_params


def test_contenders_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our rows have all stages, which fill most of the frame; all know import time, memory and the overlap."""
    monkeypatch.setattr(study, "WARMUP", 1)
    monkeypatch.setattr(study, "TURN", 2)
    report = bench(BenchOptions(("onnx", "onnx@lite_nce_plus", "opencv:MIL"), threads=1, frames=3))
    ours, lite, theirs = report["rows"]
    assert lite["params"] == "lite_nce_plus" and lite["load_s"] > 0 and lite["stages_ms"].keys() >= {"backbone"}
    assert report["setup"]["params"] == "dimp18_nce_plus and lite_nce_plus"
    assert set(STAGES) - set(ours["stages_ms"]) <= {"learning"} and "stages_ms" not in theirs
    assert 0 < sum(ours["stages_ms"].values()) < 3 * ours["frame_ms"]
    for row in (ours, lite, theirs):
        assert min(row["import_s"], row["init_s"], row["frame_ms"], row["frames_per_s"], row["cpu_ms"]) > 0
        assert row["median_frames_per_s"] == pytest.approx(1000 / row["frame_ms"], rel=1e-3)
        assert 30 < row["peak_mb"] < 5000 and 0.3 < row["overlap"] <= 1
    lines = study.as_table(report).splitlines()
    assert {"frames/s (mean)", "frames/s (median frame)"} <= {line[2:28].rstrip() for line in lines}
    assert "onnx" in lines[2] and "opencv:MIL" in lines[2] and any("refinement" in line for line in lines)


def test_one_slow_frame_lowers_the_mean_rate_and_leaves_the_median_frame_alone() -> None:
    """Three frames of 10 ms and one of 70: 40 frames/s over all, 100 of the median frame."""
    contender = Contender.__new__(Contender)
    contender.name, contender.about = "onnx", {}
    one = {"frame_ms": [10.0, 70.0], "cpu_s": 0.04, "stages_ms": {}, "peak_mb": 100.0}
    contender.rounds = [one, one | {"frame_ms": [10.0, 10.0]}]
    row = contender.row(None)
    assert (row["frames_per_s"], row["median_frames_per_s"], row["frame_ms"], row["cpu_ms"]) == (40, 100, 10, 20)


@pytest.mark.parametrize("text", ["tensorflow", "opencv", "opencv:kcf", "torch:MIL", "opencv:NONE", ""])
def test_what_is_no_contender(text: str) -> None:
    with pytest.raises(ConfigError, match="contender|no such tracker"):
        parse_contender(text)


def test_a_contender_may_name_its_set_up() -> None:
    """By name or path, instead of that of the options; other names are networks."""
    asked = {}
    for after in ("lite_nce_plus", "./mine.py", "ebm_lite"):
        contender = Contender(f"onnx@{after}", BenchOptions(params="dimp18"), ("", []))
        contender.stop()
        request = json.loads(contender.request)
        asked[after] = request["params"], request["weights"]
    expected = {"lite_nce_plus": ("lite_nce_plus", None), "./mine.py": ("./mine.py", None)}
    assert asked == {**expected, "ebm_lite": ("dimp18", "ebm_lite")}


def test_a_set_up_that_is_mistyped_is_guessed() -> None:
    with pytest.raises(ConfigError, match="there is no lite_nce_plu; did you mean 'lite_nce_plus'"):
        study.parse_contender("onnx@lite_nce_plu")


def test_columns_of_files_of_one_name_have_their_folders() -> None:
    rows = [{"name": f"onnx@{place}/mine.py"} for place in ("a", "b")]
    head = study._columns({"rows": rows, "frames": 1, "clip": "cup.mp4"})[1]
    assert head.split() == ["onnx@a/mine.py", "onnx@b/mine.py"]


def test_several_targets_take_the_contenders_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "measure_targets", lambda engine, params, *_: params)
    report = study.bench_targets(BenchOptions(("onnx@lite_nce_plus",), frames=1), 2)
    assert report["setup"]["params"] == "lite_nce_plus" and report["by_side"] == 2 * [load_params("lite_nce_plus")]


def test_a_clip_of_one_frame_is_refused(tmp_path: Path) -> None:
    """Tracking starts in it, and no frame is left to measure: the worker would start again without an end."""
    write_picture(tmp_path / "0.png", np.zeros((60, 80, 3), np.uint8))
    starts: list[object] = []
    tracker = SimpleNamespace(init=lambda image, box_xywh: starts.append(image), update=None, mark=StageClock("cpu"))
    steps = track_clip(tracker, str(tmp_path), (10, 10, 20, 20))
    assert next(steps).frame.number == 0
    with pytest.raises(ConfigError, match="has one frame, .*needs two or more"):
        measure(islice(steps, 9), 3, tracker.mark)
    assert len(starts) == 1


def test_openvino_runs_what_onnx_runtime_runs() -> None:
    assert parse_contender("openvino:bfloat16@F") == {**parse_contender("onnx:bfloat16@F"), "device": "openvino"}


def test_a_contender_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError, match="onnx@nowhere: no exported network 'nowhere'"):
        bench(BenchOptions(("onnx@nowhere",), frames=1))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"threads": 0}, {"source": "a.mp4"}, {"init": "1,2,3,4"}])
def test_options_that_cannot_be_used(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        bench(BenchOptions(("onnx",), **wrong))
