"""The scores of stored results: per sequence and in the mean, as a table for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.evaluation import intervals, jobs, metrics
from ebmtrack.evaluation.reliability import LEVELS, Reliability, by_sequence, join, measure
from ebmtrack.evaluation.results import read_result
from ebmtrack.videos import Sequence as Video
from ebmtrack.words import counted

FIGURES = ("auc", "average_overlap", "op50", "op75", "precision_20", "norm_precision", "fps")
_HEADS = {"auc": "AUC", "average_overlap": "AO", "op50": "OP50", "op75": "OP75", "precision_20": "P20"}
_HEADS |= {"norm_precision": "NP", "fps": "frames/s"}


@dataclass
class Evaluation:
    """The scores of a run of `evaluate`.

    Attributes:
        scores: Set-up -> for each run, sequence -> score.
        frames_per_s: Frames/s in the same shape.
        reliability: Set-up -> what it said of its certainty, for each sequence and run that says so.
        failed: Task -> traceback.
        missing: Sequences of the data set that are not on disk, if their names are known.
        shortfall: What the data set lacks, in words; empty if nothing is missing.
    """

    dataset: str
    protocol: metrics.Protocol
    scores: dict[str, list[dict[str, metrics.SequenceScore]]]
    frames_per_s: dict[str, list[dict[str, float]]]
    reliability: dict[str, list[Reliability]] = field(default_factory=dict)
    failed: dict[jobs.Task, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    shortfall: str = ""

    @property
    def complete(self) -> bool:
        """Return whether nothing failed and nothing is missing, so that means are those of the whole selection."""
        return not self.failed and not self.missing and not self.shortfall

    @property
    def exit_code(self) -> int:
        """0, or 1 if a sequence failed."""
        return 1 if self.failed else 0

    def sequences(self, params: str) -> dict[str, dict[str, float]]:
        """Return sequence -> figures of a set-up, means over its runs."""
        runs, speeds = self.scores[params], self.frames_per_s[params]
        names = dict.fromkeys(name for run in runs for name in run)
        return {
            name: {
                **figures([run[name] for run in runs if name in run]),
                "fps": float(np.mean([run[name] for run in speeds if name in run])),
            }
            for name in names
        }

    def means(self, params: str) -> dict[str, float]:
        """Return the figures of a set-up over all sequences, means over its runs; none if no frame is judged."""
        summaries = self._summaries(params)
        if not summaries:
            return {}
        frames = {name: len(score.overlap) - 1 for run in self.scores[params] for name, score in run.items()}
        speeds = [intervals.overall_speed(run, frames) for run in self.frames_per_s[params] if run]
        found = {name: float(np.mean([summary_figure(s, name) for s in summaries])) for name in FIGURES[:-1]}
        return {**found, "fps": float(np.mean(speeds))}

    def headlines(self, params: str) -> list[float]:
        """Return the headline figure of each run over all sequences."""
        return [getattr(summary, self.protocol.headline) for summary in self._summaries(params)]

    def _summaries(self, params: str) -> list[metrics.Summary]:
        judged = [run for run in self.scores[params] if any(score.denominator for score in run.values())]
        return [metrics.summarise(list(run.values())) for run in judged]

    def as_json(self) -> dict[str, object]:
        """Return the scores as JSON values, None for what is not known; `ebmtrack report --peers` reads them."""
        trackers: dict[str, object] = {}
        for params in self.scores:
            rows = {name: _known_figures(row) for name, row in self.sequences(params).items()}
            trackers[params] = {
                "mean": _known_figures(self.means(params)),
                "runs": [_number(value) for value in self.headlines(params)],
                "sequences": rows,
            }
            if self.reliability.get(params):
                trackers[params] |= {"intervals": join(self.reliability[params]).figures()}  # type: ignore[operator]
        failed = [
            {"params": t.params, "run": t.run, "sequence": t.sequence, "error": e} for t, e in self.failed.items()
        ]
        facts = {"dataset": self.dataset, "protocol": self.protocol.title, "headline": self.protocol.headline}
        return {
            **facts,
            "complete": self.complete,
            "missing": list(self.missing),
            "failed": failed,
            "trackers": trackers,
        }


def collect(
    job: jobs.Job, chosen: metrics.Protocol, failed: Mapping[jobs.Task, str], missing: tuple[str, ...] = ()
) -> Evaluation:
    """Read and judge the stored results of a job.

    Args:
        job: The tasks.
        chosen: The protocol.
        failed: Task -> traceback of tasks without a result.
        missing: Sequences of the data set that are not on disk.
    """
    evaluation = Evaluation(job.dataset.name, chosen, {}, {}, failed=dict(failed), missing=missing)
    for task in job.tasks:
        runs = evaluation.scores.setdefault(task.params, [])
        speeds = evaluation.frames_per_s.setdefault(task.params, [])
        while len(runs) <= task.run:
            runs.append({})
            speeds.append({})
        if task not in failed:
            result = read_result(job.folder(task), task.sequence)
            sequence = job.dataset.load(task.sequence)
            runs[task.run][task.sequence] = judge(sequence, result.boxes_xywh, chosen, result.path)
            speeds[task.run][task.sequence] = result.frames_per_s
            said = measure(result.sureness, sequence.boxes_xywh, runs[task.run][task.sequence])
            if said.is_known:
                evaluation.reliability.setdefault(task.params, []).append(said)
    return evaluation


def judge(sequence: Video, boxes_xywh: np.ndarray, chosen: metrics.Protocol, path: object) -> metrics.SequenceScore:
    """Score boxes against a sequence's annotation.

    Args:
        sequence: The sequence; its rule counts if the protocol asks for one.
        boxes_xywh: Boxes (M, 4).
        chosen: The protocol.
        path: The file of the boxes, for errors.
    """
    return metrics.score_sequence(
        boxes_xywh,
        sequence.boxes_xywh,
        _for_sequence(chosen, sequence),
        visible=sequence.visible,
        size_wh=sequence.size_wh,
        where=str(path),
    )


def check_annotations(job: jobs.Job, chosen: metrics.Protocol) -> None:
    """Raise DatasetError if a protocol cannot use an annotation, before anything is tracked.

    Sequences that cannot be read at all are left to the workers, which report them one by one.
    """
    for name in dict.fromkeys(task.sequence for task in job.tasks):
        try:
            sequence = job.dataset.load(name)
        except DatasetError:
            continue
        where = str(sequence.annotation or f"{job.dataset.name}, sequence {name!r}")
        metrics.check_annotation(sequence.boxes_xywh, _for_sequence(chosen, sequence), where)


def _for_sequence(chosen: metrics.Protocol, sequence: Video) -> metrics.Protocol:
    """Return the protocol with the rule of a sequence, if it asks for one."""
    return metrics.protocol(chosen, rule=sequence.rule) if chosen.name == "pytracking" else chosen


def headline(score: metrics.SequenceScore) -> float:
    """Return the figure by which the protocol ranks, AO or the area under the success curve; NaN if nothing counts."""
    return score.average_overlap if score.protocol.pooled else float(score.success.mean())


def figures(scores: Sequence[metrics.SequenceScore]) -> dict[str, float]:
    """Return the figures of one sequence (of FIGURES, without fps), means over its runs."""
    points = np.mean([score.op(np.array([0.5, 0.75])) for score in scores], axis=0)
    norm = np.mean([score.protocol.norm_figure(score.norm_precision) for score in scores])
    return {
        "auc": float(np.mean([score.success for score in scores])),
        "average_overlap": float(np.mean([score.average_overlap for score in scores])),
        "op50": float(points[0]),
        "op75": float(points[1]),
        "precision_20": float(np.mean([score.precision[20] for score in scores])),
        "norm_precision": float(norm),
    }


def summary_figure(summary: metrics.Summary, figure: str) -> float:
    """Return one of FIGURES over all sequences of a run."""
    return summary.norm_figure if figure == "norm_precision" else getattr(summary, figure)


def print_table(evaluation: Evaluation, stream: TextIO) -> None:
    """Print scores per sequence (means over runs) and their mean, marked PARTIAL if something is missing."""
    shown = _columns(evaluation.protocol)
    for params, runs in evaluation.scores.items():
        rows = evaluation.sequences(params)
        width = max([len(name) for name in rows] + [12])
        head = f"{params} on {evaluation.dataset}, protocol {evaluation.protocol.title}, {counted(len(runs), 'run')}"
        print(f"\n{head}", file=stream)
        print(f"{'sequence':{width}} {' '.join(f'{_HEADS[name]:>6}' for name in shown)}  frames/s", file=stream)
        for name, row in rows.items():
            print(_line(name, width, row, shown), file=stream)
        _print_mean(evaluation, params, width, stream)
    for task, text in evaluation.failed.items():
        print(f"\nFAILED {task.params} run {task.run} {task.sequence}:\n{text.rstrip()}", file=stream)
    stream.flush()


def _print_mean(evaluation: Evaluation, params: str, width: int, stream: TextIO) -> None:
    """Print the mean over sequences of each run, averaged over runs, with the spread; withheld without any."""
    means = evaluation.means(params)
    if not means:
        print("no mean: no sequence has a frame to judge", file=stream)
        return
    label = "mean" if evaluation.complete else "mean PARTIAL"
    print(_line(label, width, means, _columns(evaluation.protocol)), file=stream)
    values = evaluation.headlines(params)
    mean, spread = intervals.over_runs(values)
    if len(values) > 1:
        figure = evaluation.protocol.headline_label
        print(f"{figure} over {len(values)} runs: {mean:.4f}, standard deviation {spread:.4f}", file=stream)
    if evaluation.reliability.get(params):
        _print_reliability(evaluation.reliability[params], sum(len(run) for run in evaluation.scores[params]), stream)
    if evaluation.shortfall:
        print(evaluation.shortfall, file=stream)


def _print_reliability(parts: Sequence[Reliability], results: int, stream: TextIO) -> None:
    """Print what the intervals of a set-up hold, their median widths, and how good its lost-probability is."""
    whole = join(parts)
    partly = f" of {len(parts)} of {results} sequences and runs" * (len(parts) < results)
    print(f"intervals{partly}, {len(whole.distance)} frames whose target is not lost:", file=stream)
    rows: dict[str, Callable[[float], float]] = {
        "hold the true side, %": lambda level: 100 * whole.coverage(level),
        "each sequence alike, %": lambda level: 100 * by_sequence(parts, level),
        "median width, pixels": whole.width,
    }
    print(f"{'':24}" + "".join(f"{f'{100 * level:.0f} %':>8}" for level in LEVELS), file=stream)
    for head, figure in rows.items():
        print(f"{head:24}" + "".join(f"{figure(level):8.1f}" for level in LEVELS), file=stream)
    if len(whole.said):
        score, base = whole.brier
        print(
            f"lost-probability, {len(whole.said)} frames, {100 * whole.lost.mean():.1f} % lost: Brier {score:.4f} "
            f"(always saying that share {base:.4f}), calibration error {whole.calibration_error:.3f}",
            file=stream,
        )


def _columns(chosen: metrics.Protocol) -> tuple[str, ...]:
    """Return the figures of the table: GOT-10k knows no precision."""
    if chosen.pooled:
        return ("average_overlap", "op50", "op75")
    return ("auc", "op50", "op75", "precision_20", "norm_precision")


def _line(label: str, width: int, row: Mapping[str, float], shown: Sequence[str]) -> str:
    return f"{label:{width}} {' '.join(f'{row[name]:6.3f}' for name in shown)} {row['fps']:9.1f}"


def _known_figures(row: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are known: JSON has no NaN, and readers take what is not there for unknown."""
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
