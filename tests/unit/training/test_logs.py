"""Where a run's figures go: CSV, TensorBoard, visdom, the bar; and how much of a step is spent waiting for data."""

from __future__ import annotations

import csv
import sys
import time

import pytest
import torch

from ebmtrack.errors import ConfigError
from ebmtrack.training import logs
from ebmtrack.training.distributed import Team
from ebmtrack.training.logs import CsvLog, ProgressBar, RunLog, Stopwatch, TensorBoardLog, VisdomLog
from ebmtrack.training.run import train
from tests.unit.training.test_training import Numbers, settings_in, tiny_plan


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_column_that_comes_later_is_empty_in_earlier_rows(tmp_path):
    log = CsvLog(tmp_path / "log.csv", 0)
    for row in ({"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "val_iou": 0.75}, {"step": 3, "loss": 1 / 3}):
        log.add(row)
    expected = [
        {"step": "1", "loss": "0.5", "val_iou": ""},
        {"step": "2", "loss": "0.25", "val_iou": "0.75"},
        {"step": "3", "loss": "0.333333", "val_iou": ""},
    ]
    assert rows_of(tmp_path / "log.csv") == expected


@pytest.mark.parametrize("tail", ["", "3", "3,0.1", "3,0.1,9.0\n4,0.2,9.5\n1", "garbage\n", "1,,,,,\n", "\0\0\0"])
def test_rows_beyond_the_checkpoint_and_rows_cut_short_are_dropped(tmp_path, tail):
    """A run that was killed while it wrote row 3, 4 or 10, and goes on from step 2, keeps rows 1 and 2."""
    (tmp_path / "log.csv").write_text("step,loss,s\n1,0.5,2\n2,0.4,3.5\n" + tail)
    log = CsvLog(tmp_path / "log.csv", 2)
    assert log.elapsed_s == 3.5
    log.add({"step": 3, "loss": 0.3, "s": 4.0})
    assert [row["step"] for row in rows_of(tmp_path / "log.csv")] == ["1", "2", "3"]


def test_a_run_from_the_beginning_forgets_an_older_log(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n")
    CsvLog(tmp_path / "log.csv", 0).add({"step": 1, "loss": 2.0})
    assert rows_of(tmp_path / "log.csv") == [{"step": "1", "loss": "2"}]


def test_a_run_logs_speed_waiting_and_seconds_that_add_up(tmp_path):
    """Two parts of a run: the seconds of the second go on from those of the first."""
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    first = rows_of(tmp_path / "log.csv")
    train(tiny_plan(), settings_in(tmp_path, steps=20))
    rows = rows_of(tmp_path / "log.csv")
    assert rows[:10] == first and [int(row["step"]) for row in rows] == list(range(1, 21))
    seconds = [float(row["s"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert all(float(row["samples_per_s"]) > 0 and 0 <= float(row["wait_frac"]) <= 1 for row in rows)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(logs.time, "perf_counter", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_is_the_share_of_a_step_in_which_data_are_fetched(monkeypatch, tmp_path):
    """Four samples of 0.75 s each and 1 s of work: 3 / (3 + 1) of the step, and one sample a second."""
    clock, plan = Clock(monkeypatch), tiny_plan()

    class Slow(Numbers):
        def __getitem__(self, index):
            clock.sleep(0.75)
            return super().__getitem__(index)

    def objective(*arguments, quick=plan.objective):
        clock.sleep(1.0)
        return quick(*arguments)

    plan.data.train, plan.objective = Slow(), objective
    train(plan, settings_in(tmp_path, steps=3))
    assert [(row["wait_frac"], row["samples_per_s"]) for row in rows_of(tmp_path / "log.csv")] == [("0.75", "1")] * 3


def test_a_stopwatch_hands_on_the_batches(monkeypatch):
    clock = Clock(monkeypatch)
    watch, batches = Stopwatch(torch.device("cpu")), iter(["a", "b"])
    assert watch.fetch(batches) == "a"
    clock.sleep(2.0)
    assert watch.lap(10, Team()) == {"samples_per_s": 5.0, "wait_frac": 0.0}
    assert watch.fetch(batches) == "b"


def bar_text(capsys, rows: list[dict]) -> str:
    bar = ProgressBar(0, 100)
    for row in rows:
        bar.add(row)
    bar.close()
    out, err = capsys.readouterr()
    return out + err


def test_the_bar_shows_loss_speed_waiting_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    text = bar_text(capsys, [{"step": 1, "loss": 0.5, "samples_per_s": 12.34, "wait_frac": 0.04}] * 2)
    assert "loss 0.500, 12.3 samples/s, waiting 4%" in text and "2/100 [" in text and "<" in text
    assert "workers" not in text


def test_a_run_that_starved_is_told_what_helps(capsys):
    text = bar_text(capsys, [{"step": 1, "loss": 0.5, "samples_per_s": 12.34, "wait_frac": 0.44}])
    assert "waited for data 44% of the time" in text and "--workers" in text


def tensorboard_values(folder) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_logged_also_after_a_resume(tmp_path):
    """Step 3 was lost with the first part and comes again with another value: the later one holds."""
    pytest.importorskip("tensorboard")
    log = TensorBoardLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": step / 4})
    log.close()
    time.sleep(1.1)  # names of event files have a resolution of one second
    log = TensorBoardLog(tmp_path, 2)
    log.add({"step": 3, "loss": 0.125, "val_iou": 0.5})
    log.close()
    assert tensorboard_values(tmp_path) == {"loss": [(1, 0.25), (2, 0.5), (3, 0.125)], "validation/iou": [(3, 0.5)]}


def test_without_tensorboard_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"ebmtrack\[tensorboard\]"):
        TensorBoardLog(tmp_path, 0)


class Panel:
    """Writes down what is drawn."""

    def __init__(self):
        self.points, self.closed = [], False

    def curve(self, window, line, step, value):
        self.points.append((window, line, step, value))

    def close(self):
        self.closed = True


def test_visdom_gets_means_of_training_and_all_of_validation():
    """Means of steps 1 to 4 and of 5 to 8; validation and tracking at their step, beside their namesakes."""
    panel = Panel()
    log = VisdomLog(panel, every=4)
    for step in range(1, 10):
        log.add({"step": step, "box": float(step), **({"val_box": 0.5, "track_auc": 0.25} if step == 6 else {})})
    log.close()
    assert panel.closed and panel.points == [
        ("box", "train", 4, 2.5),
        ("box", "val", 6, 0.5),
        ("auc", "track", 6, 0.25),
        ("box", "train", 8, 6.5),
    ]


def test_a_run_goes_on_without_a_visdom_server(tmp_path, capsys):
    """Nothing listens on port 9 (discard): the run ends as it would, and says once that nothing is shown."""
    settings = settings_in(tmp_path, steps=12, visdom=True, visdom_server="http://127.0.0.1", visdom_port=9)
    train(tiny_plan(), settings)
    assert len(rows_of(tmp_path / "log.csv")) == 12
    assert capsys.readouterr().err.count("visdom at") == 1


def test_a_process_that_does_not_lead_logs_nothing():
    log = RunLog([])
    log.add({"step": 1, "loss": 1.0})
    log.close()
    assert log.sinks == []
