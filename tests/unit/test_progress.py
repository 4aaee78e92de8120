"""Progress bars: drawn on a terminal; elsewhere plain lines, at most one a minute."""

from __future__ import annotations

import io
import re

import pytest
import tqdm

from ebmtrack.progress import progress_bar
from ebmtrack.training.logs import ProgressBar
from tests.support import REPOSITORY


class Clock:
    """A clock that tqdm reads."""

    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tqdm.std, "time", lambda: clock.now_s)
    return clock


def run(clock: Clock, seconds: int, **options) -> None:
    """Move a bar on, a step a second; a second bar moves with it, as the features' in a training."""
    with progress_bar(range(4), "outer", unit="round"), progress_bar(total=200, unit="step", **options) as bar:
        for _ in range(seconds):
            clock.now_s += 1
            bar.set_postfix_str("loss 0.500", refresh=False)
            bar.update()


def test_a_log_gets_a_line_a_minute(clock, capsys):
    run(clock, 150)
    assert capsys.readouterr() == (
        "",
        "step 60 of 200, 02:20 left, loss 0.500\nstep 120 of 200, 01:20 left, loss 0.500\n"
        "step 150 of 200, 00:50 left, loss 0.500\n",
    )


def test_a_log_gets_nothing_of_what_is_quick_or_silent(clock, capsys):
    run(clock, 50)
    run(clock, 150, disable=None)
    assert capsys.readouterr().err == ""


def test_a_log_says_how_far_it_is_without_a_total(clock, capsys):
    for _ in progress_bar(iter(range(61)), "cups", unit=" boxes", leave=False):
        clock.now_s += 1
    assert re.fullmatch(r"cups: 6\d boxes \[01:0\d, *1\.0\d boxes/s\]\n", capsys.readouterr().err)


def test_a_log_names_what_is_counted(clock, capsys):
    for _ in progress_bar(range(61), "cups", unit="crop", leave=False):
        clock.now_s += 1
    assert re.fullmatch(r"cups: crop 6\d of 61, 00:0\d left\n", capsys.readouterr().err)


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(clock, 150)
    text = capsys.readouterr().err
    assert text.count("\r") > 150 and "150/200 [" in text


def test_a_log_of_a_training_run_has_step_loss_and_time_left(clock, capsys):
    bar = ProgressBar(100, 200)
    for step in range(101, 171):
        clock.now_s += 1
        bar.add({"step": step, "loss": 0.5, "samples_per_s": 12.34, "wait_frac": 0.04})
    assert capsys.readouterr().err == "step 160 of 200, 00:40 left, loss 0.500, 12.3 samples/s, waiting 4%\n"


def test_all_bars_are_made_here():
    users = {file.name for file in (REPOSITORY / "ebmtrack").rglob("*.py") if re.search(r"\btqdm\(", file.read_text())}
    assert users == {"progress.py"}


class OnlyWrites:
    """What programs put in the place of stderr for their logs."""

    def __init__(self):
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


def test_stderr_may_be_an_object_of_the_program(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", log := OnlyWrites())
    run(clock, 61)
    assert log.text.startswith("step 60 of 200")


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_without_a_stderr_nothing_is_written(clock, monkeypatch, capsys, stderr):
    """None in a program without a console; closed in a daemon."""
    if stderr:
        (stderr := io.StringIO()).close()
    monkeypatch.setattr("sys.stderr", stderr)
    run(clock, 61)
    assert capsys.readouterr().out == ""
