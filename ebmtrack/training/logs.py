"""Logs of a run: a CSV file always, TensorBoard and visdom if asked for, and a progress bar."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ebmtrack.errors import missing_extra
from ebmtrack.files import replacing
from ebmtrack.progress import progress_bar, write_line
from ebmtrack.training.distributed import Team
from ebmtrack.training.settings import RunSettings

T = TypeVar("T")
Row = Mapping[str, float]
VISDOM_EVERY = 10  # steps between two points of a curve
STARVED_FRAC = 0.2


class Sink(Protocol):
    """A place for rows of figures; every row has `step` and `loss`."""

    def add(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:
        """Write rows that still wait."""


class CsvLog:
    """Rows of figures in a CSV file; rows beyond the step from which a run resumes are dropped.

    `elapsed_s` is the column `s` of the last row before that step, so that seconds add up over resumed runs.
    """

    def __init__(self, path: Path, start: int):
        rows = _rows_up_to(path, start)
        self.path = path
        self.elapsed_s = float(rows[-1].get("s") or 0) if rows else 0.0
        self._write_all(rows)

    def add(self, row: Row) -> None:
        """Append one row; a new column rewrites the file."""
        texts = {key: value if isinstance(value, int) else f"{value:.6g}" for key, value in row.items()}
        if set(row) <= set(self.columns):
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(texts)
        else:
            self._write_all([*_rows_up_to(self.path, int(row["step"]) - 1), texts])

    def close(self) -> None:
        """Do nothing: every row has been written."""

    def _write_all(self, rows: list[dict]) -> None:
        self.columns = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def _rows_up_to(path: Path, step: int) -> list[dict[str, str]]:
    """Return the whole rows of a log up to a step, without rows that a kill or a power failure has damaged."""
    if not step or not path.exists():
        return []
    with open(path, newline="", errors="replace") as file:
        rows = list(csv.DictReader(line.replace("\0", "") for line in file))
    whole = [row for row in rows if None not in row and None not in row.values()]
    return [row for row in whole if row.get("step", "").isdigit() and int(row["step"]) <= step]


class TensorBoardLog:
    """TensorBoard scalars in a folder."""

    def __init__(self, folder: Path, start: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "--tensorboard") from error
        self.writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def add(self, row: Row) -> None:
        """Write one scalar for each figure; figures of validation form a group of their own."""
        for key, value in row.items():
            if key != "step":
                self.writer.add_scalar(key.replace("val_", "validation/", 1), value, row["step"])

    def close(self) -> None:
        """Flush to disk."""
        self.writer.close()


class VisdomLog:
    """Curves on a visdom server: means of training figures every ten steps, all others as they come.

    A figure of training and the one of validation with the same name share a window.
    """

    def __init__(self, panel: Any, every: int = VISDOM_EVERY):
        """Take a panel with the methods `curve` and `close` of `viewers.visdom.VisdomPanel`."""
        self.panel, self.every = panel, every
        self.waiting: dict[str, list[float]] = {}

    def add(self, row: Row) -> None:
        """Draw the figures of validation and tracking now, and means of the others every `every` steps."""
        for key, value in row.items():
            if key.startswith(("val_", "track_")):
                kind, name = key.split("_", 1)
                self.panel.curve(name, kind, row["step"], value)
            elif key != "step":
                self.waiting.setdefault(key, []).append(value)
        if row["step"] % self.every == 0:
            for key, values in self.waiting.items():
                self.panel.curve(key, "train", row["step"], sum(values) / len(values))
            self.waiting = {}

    def close(self) -> None:
        """Send rows that still wait."""
        self.panel.close()


class ProgressBar:
    """A progress bar: steps, time, smooth loss, samples per second and the share of time spent waiting for data."""

    def __init__(self, start: int, steps: int):
        self.bar = progress_bar(initial=start, total=steps, unit="step", dynamic_ncols=True)
        self.smooth: dict[str, float] = {}

    def add(self, row: Row) -> None:
        """Advance by one step; figures are averaged with weights that fall by 5 % a step."""
        for key in ("loss", "samples_per_s", "wait_frac"):
            old = self.smooth.get(key, row[key])
            self.smooth[key] = 0.95 * old + 0.05 * row[key]
        text = "loss {loss:.3f}, {samples_per_s:.1f} samples/s, waiting {wait_frac:.0%}".format(**self.smooth)
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def close(self) -> None:
        """Leave the bar as it is, and say if the data were too slow."""
        self.bar.close()
        if self.smooth.get("wait_frac", 0) > STARVED_FRAC:
            share = self.smooth["wait_frac"]
            write_line(f"the device waited for data {share:.0%} of the time: more --workers, or a pack, would help")


class RunLog:
    """All sinks to which the rows of a run go; `s`, the seconds spent in the run, is added to every row."""

    def __init__(self, sinks: Sequence[Sink], elapsed_s: float = 0.0):
        """Take the sinks.

        Args:
            sinks: places for rows; none for a process that writes nothing.
            elapsed_s: seconds that the run took before it was resumed.
        """
        self.sinks, self.began = list(sinks), time.monotonic() - elapsed_s

    def add(self, row: Row) -> None:
        """Send a row, with `step`, `loss`, `samples_per_s` and `wait_frac`, to all sinks."""
        for sink in self.sinks:
            sink.add({**row, "s": time.monotonic() - self.began})

    def close(self) -> None:
        """Close all sinks."""
        for sink in self.sinks:
            sink.close()


def open_log(settings: RunSettings, start: int) -> RunLog:
    """Return the log that a run's settings ask for.

    Args:
        settings: of the run.
        start: steps done before.
    """
    csv_log = CsvLog(settings.out / "log.csv", start)
    sinks: list[Sink] = [csv_log]
    if settings.tensorboard:
        sinks.append(TensorBoardLog(settings.out / "tensorboard", start))
    if settings.visdom:
        from ebmtrack.viewers.visdom import VisdomPanel

        env = f"train_{settings.out.name}"
        sinks.append(VisdomLog(VisdomPanel(env, settings.visdom_server, settings.visdom_port)))
    return RunLog([*sinks, ProgressBar(start, settings.steps)], csv_log.elapsed_s)


class Stopwatch:
    """The duration of a step, and the part of it in which the device waits for data.

    On a CPU, and on other devices that are not CUDA, this is the time to get a batch. A GPU works behind the program
    and waits only once it has run dry: there it is the time between two events, queued before and after the batch is
    fetched; the first happens when the work before it is done. This costs no synchronisation.
    """

    def __init__(self, device: torch.device):
        self.gpu = device.type == "cuda"
        self.began = self.fetched = 0.0
        self.events: list[Any] = []

    def fetch(self, batches: Iterator[T]) -> T:
        """Return the next batch; a step begins."""
        self.events, self.began = [], time.perf_counter()
        self._mark()
        batch = next(batches)
        self.fetched = time.perf_counter()
        self._mark()
        return batch

    def lap(self, samples: int, team: Team) -> dict[str, float]:
        """Return samples_per_s, and wait_frac as a mean over processes, of a step that has ended."""
        step_s = time.perf_counter() - self.began
        wait_s = self.events[0].elapsed_time(self.events[1]) / 1000 if self.gpu else self.fetched - self.began
        wait_s = team.mean(torch.tensor(wait_s)).item()
        return {"samples_per_s": samples / step_s, "wait_frac": min(1.0, wait_s / step_s)}

    def _mark(self) -> None:
        """Queue an event on the GPU."""
        if self.gpu:
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()
