"""LaSOT's size: 280 sequences of 2,500 frames must be reported from stored results in seconds and under 1 GB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.evaluation.results import Result, format_boxes, write_result
from ebmtrack.videos import lasot

FRAMES = 2500

REPORT = """
import resource, sys, time
began = time.process_time()
from ebmtrack.evaluation.report import report
report("lasot", sys.argv[1], sys.argv[2] + "/page.html", out=sys.argv[2])
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_lasot_is_reported_in_seconds(tmp_path: Path) -> None:
    """Processor time under 60 s and memory under 1 GB, measured in a process of its own; the page under 5 MB."""
    rng = np.random.default_rng(0)
    for name in lasot.NAMES["test"]:
        truth = np.concatenate([rng.uniform(1, 900, (FRAMES, 2)), rng.uniform(20, 200, (FRAMES, 2))], axis=1).round(1)
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / "groundtruth.txt").write_text(format_boxes(truth, ","))
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text(",".join(["0"] * FRAMES))
        boxes = truth + rng.normal(0, 10, truth.shape) * [1, 1, 0, 0]
        write_result(tmp_path / "lasot" / "ours_000", name, Result(boxes, np.full(FRAMES, 0.02)))
    command = [sys.executable, "-c", REPORT, str(tmp_path / "data"), str(tmp_path)]
    seconds, megabytes = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
    print(f"{seconds:.1f} s, {megabytes:.0f} MB")
    assert seconds < 60 and megabytes < 1024
    assert (tmp_path / "page.html").stat().st_size < 5e6
