"""Trackers side by side on one data set: stored results of any toolkit, and figures known from elsewhere."""

from __future__ import annotations

import glob
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import intervals, metrics
from ebmtrack.evaluation.charts import Line
from ebmtrack.evaluation.film import Shot, shots
from ebmtrack.evaluation.foreign import ResultFolder, find_results
from ebmtrack.evaluation.reliability import Reliability, measure
from ebmtrack.evaluation.results import Result
from ebmtrack.evaluation.scoring import FIGURES, figures, judge, summary_figure
from ebmtrack.videos import DataSet, Sequence
from ebmtrack.videos.spelling import canonical
from ebmtrack.videos.text import read_text

Array = np.ndarray


@dataclass
class TrackerScores:
    """The scores of one tracker on one data set.

    Attributes:
        runs: For each run, sequence -> score; empty if only figures are known.
        figures: Sequence -> name (of FIGURES) -> value, the mean over runs.
        means: Figures over all sequences, as a file of figures gives them.
        folder: The folder of the boxes; None if only figures are known.
        made_by: The different set-ups that made the results.
        times_s: Sequence -> seconds per frame of the first run.
        stages_s: Seconds by stage, all sequences of the first run together.
        failed: Sequence -> traceback.
        refused: Sequence -> why its result is left out.
        numbers: Numbers of the runs in the folder.
        lengths: Sequence -> number of boxes and of frames, if they differ.
        workers: Number of workers that shared the cores while the results were made; 0 if unknown.
        reliability: What it said of its certainty, for each sequence and run that says so.
    """

    label: str
    runs: list[dict[str, metrics.SequenceScore]] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    folder: ResultFolder | None = None
    made_by: list[Mapping[str, object]] = field(default_factory=list)
    times_s: dict[str, Array] = field(default_factory=dict)
    stages_s: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    workers: int = 0
    reliability: list[Reliability] = field(default_factory=list)

    def score(self, name: str) -> metrics.SequenceScore | None:
        """Return the score of the first run over a sequence; None if there is no run."""
        return next((run[name] for run in self.runs if name in run), None)

    def boxes(self, name: str) -> Array | None:
        """Return the boxes (M, 4) of the first run over a sequence; None if there is no run."""
        number = next((number for number, run in zip(self.numbers, self.runs) if name in run), None)
        return None if self.folder is None or number is None else self.folder.read(name, number).boxes_xywh

    def values(self, figure: str) -> dict[str, float]:
        """Return one figure for every sequence that has it."""
        return {name: row[figure] for name, row in self.figures.items() if not np.isnan(row.get(figure, np.nan))}

    def mean(self, figure: str) -> float:
        """Return a figure over all sequences: as the protocol averages, or the plain mean if only figures are known."""
        if figure != "fps" and self.summaries:
            return float(np.mean([summary_figure(summary, figure) for summary in self.summaries]))
        if figure == "fps" and self.runs:
            frames = {name: len(score.overlap) - 1 for run in self.runs for name, score in run.items()}
            return intervals.overall_speed(self.values("fps"), frames)
        if figure in self.means:
            return self.means[figure]
        known = list(self.values(figure).values())
        return float(np.mean(known)) if known else float("nan")

    def restrict_to(self, names: Items[str]) -> TrackerScores:
        """Return the scores on some sequences alone."""
        runs = [{name: run[name] for name in names if name in run} for run in self.runs]
        return TrackerScores(self.label, runs)

    @cached_property
    def summaries(self) -> list[metrics.Summary]:
        """The summaries of the runs in which some frame is judged."""
        judged = [[s for s in run.values() if s.denominator] for run in self.runs]
        return [metrics.summarise(scores) for scores in judged if scores]

    def curve(self, kind: str) -> tuple[Array, Array] | None:
        """Return thresholds and mean curve of `success`, `precision` or `norm_precision`; None without boxes."""
        if not self.summaries:
            return None
        ys = np.mean([getattr(summary, kind) for summary in self.summaries], axis=0)
        if kind == "success":
            return np.linspace(0, 1, len(ys)), ys
        return (metrics.PIXEL_THRESHOLDS if kind == "precision" else metrics.NORM_THRESHOLDS), ys


@dataclass
class Comparison:
    """All trackers on the selected sequences of a data set under one protocol; others are compared with the first."""

    dataset: DataSet
    protocol: metrics.Protocol
    sequences: dict[str, Sequence]
    trackers: list[TrackerScores]

    def line(self, tracker: TrackerScores, kind: str, names: Items[str] | None = None) -> Line | None:
        """Return a tracker's mean curve as a line of a chart, over all sequences or some; None without boxes."""
        curve = (tracker if names is None else tracker.restrict_to(names)).curve(kind)
        return None if curve is None else Line(tracker.label, self.trackers.index(tracker), *curve)

    def shots(self, name: str, frames: Items[int], width: int) -> list[Shot]:
        """Return pictures of some frames of a sequence with the boxes of every tracker that has them.

        Args:
            name: The sequence.
            frames: Numbers of the frames, from 0.
            width: Width of the pictures in pixels.
        """
        sequence, score = self.sequences[name], self.trackers[0].score(name)
        overlap = np.full(len(sequence), np.nan) if score is None else score.overlap
        found = [((t.label, i), t.boxes(name)) for i, t in enumerate(self.trackers)]
        boxes = {who: those for who, those in found if those is not None}
        return shots(sequence.frame_paths(), sequence.boxes_xywh, overlap, boxes, frames, width)

    def missing(self, tracker: TrackerScores) -> tuple[str, ...]:
        """Return the sequences for which a tracker has no score."""
        return tuple(name for name in self.sequences if name not in tracker.figures)

    def marked_label(self, tracker: TrackerScores) -> str:
        """Return a tracker's label, with how many of the sequences it has a score for if that is not all of them."""
        lacking, whole = len(self.missing(tracker)), len(self.sequences)
        return f"{tracker.label} ({whole - lacking} of {whole})" if lacking else tracker.label

    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Return attribute -> its sequences, for attributes that some sequence has."""
        table: dict[str, list[str]] = {}
        for name, sequence in self.sequences.items():
            for attribute in sequence.attributes:
                table.setdefault(attribute, []).append(name)
        return {attribute: tuple(names) for attribute, names in sorted(table.items())}

    def weights(self, tracker: TrackerScores) -> dict[str, float]:
        """Return the weight of each sequence of a tracker: its frames if the protocol pools them, else 1."""
        counts: dict[str, float] = {name: 1.0 for name in tracker.figures}
        for run in tracker.runs if self.protocol.pooled else ():
            counts.update({name: float(score.denominator) for name, score in run.items()})
        return counts

    def mean_over(self, tracker: TrackerScores, names: Items[str]) -> float:
        """Return a tracker's headline figure over those of some sequences that it has; NaN without any."""
        values, weights = tracker.values(self.protocol.headline), self.weights(tracker)
        known = [name for name in names if name in values]
        shares = [weights[name] for name in known]
        return float(np.average([values[name] for name in known], weights=shares)) if known else float("nan")

    def interval(self, tracker: TrackerScores) -> intervals.Interval | None:
        """Return the headline figure over sequences with its bootstrap interval; None without values."""
        known, weights = tracker.values(self.protocol.headline), self.weights(tracker)
        shares = np.array([weights[name] for name in known])
        return intervals.bootstrap(np.array(list(known.values())), weights=shares) if known else None

    def difference(self, tracker: TrackerScores) -> intervals.Interval | None:
        """Return by how much the first tracker's headline figure exceeds another's on the sequences that both have.

        None without any.
        """
        ours, theirs = (t.values(self.protocol.headline) for t in (self.trackers[0], tracker))
        weights = self.weights(self.trackers[0])
        return intervals.paired_difference(ours, theirs, weights=weights) if set(ours) & set(theirs) else None


def compare(
    dataset: DataSet,
    results: Mapping[str, str | os.PathLike],
    *,
    protocol: str | metrics.Protocol | None = None,
    sequences: Items[str] = (),
    peers: str | os.PathLike | None = None,
) -> Comparison:
    """Judge stored results and add figures known from elsewhere.

    Sequences for which a tracker has no result, or another tracker has a malformed one, are left out of its mean.

    Args:
        dataset: The data set.
        results: Label -> folder, see `foreign.find_results`.
        protocol: Scoring rules; the data set's own by default.
        sequences: Names of sequences; all if empty.
        peers: A JSON file of figures (`read_peers`); the file's name is added to labels that `results` have as well.

    Raises:
        ResultError: A folder without results, or a malformed file of ours.
        DatasetError: The data set cannot be read.
        ConfigError: There is nothing to compare, or the protocol is unknown.
    """
    chosen = metrics.protocol(protocol or dataset.protocol)
    loaded = {name: dataset.load(name) for name in dataset.select(sequences, allow_missing=True)}
    names = (*dataset.names, *dataset.missing)
    trackers = [score_folder(find_results(path, label, names), loaded, chosen) for label, path in results.items()]
    if peers is not None:
        for peer in read_peers(peers, tuple(loaded)):  # an earlier measurement of the same set-up has the same label
            label = f"{peer.label} ({Path(peers).name})" if peer.label in results else peer.label
            if label in (tracker.label for tracker in trackers):
                raise ConfigError(f"{peers}: two trackers are called {label}; name one of them otherwise")
            trackers.append(replace(peer, label=label))
    if not trackers:
        raise ConfigError("nothing to compare: name at least one folder of results")
    return Comparison(dataset, chosen, loaded, trackers)


def score_folder(folder: ResultFolder, sequences: Mapping[str, Sequence], chosen: metrics.Protocol) -> TrackerScores:
    """Judge every run that a folder has of some sequences.

    Another tracker's result that cannot be read or judged is left out, with the reason in `TrackerScores.refused`.

    Args:
        folder: The results.
        sequences: Name -> sequence.
        chosen: The protocol.

    Raises:
        ResultError: One of ours cannot be read or judged, or nothing is left.
    """
    numbers = sorted({number for name in sequences for number in folder.run_numbers(name)})
    tracker = TrackerScores(folder.label, [{} for _ in numbers], folder=folder, numbers=tuple(numbers))
    for name, sequence in sequences.items():
        judged = {}
        for number in folder.run_numbers(name):
            try:
                judged[numbers.index(number)] = _read_and_judge(folder, name, number, sequence, chosen)
            except ResultError as reason:
                if folder.is_ours(name, number):
                    raise
                tracker.refused[name] = str(reason)
        if judged and name not in tracker.refused:
            _add(tracker, sequence, judged)
            counts = {len(result.boxes_xywh) for result, _ in judged.values()} - {len(sequence)}
            if counts:
                tracker.lengths[name] = (min(counts), len(sequence))
    tracker.failed = _errors(folder.path)
    if not tracker.figures:
        why = "".join(f"; {reason}" for reason in list(tracker.refused.values())[:1])
        raise ResultError(f"{folder.path}: no results for any of the {len(sequences)} sequences{why}")
    return tracker


def _read_and_judge(
    folder: ResultFolder, name: str, run: int, sequence: Sequence, chosen: metrics.Protocol
) -> tuple[Result, metrics.SequenceScore]:
    """Return one run and its score; ResultError if it is malformed or of another sequence of that name."""
    result = folder.read(name, run)
    if result.made_by and not np.array_equal(result.boxes_xywh[0], sequence.boxes_xywh[0]):
        raise ResultError(f"{result.path}: made from another sequence of that name, with another first box")
    return result, judge(sequence, result.boxes_xywh, chosen, result.path)


def _add(
    tracker: TrackerScores, sequence: Sequence, judged: Mapping[int, tuple[Result, metrics.SequenceScore]]
) -> None:
    """Enter the runs over one sequence with their figures, speeds and what made them."""
    name, first, scores = sequence.name, judged[min(judged)][0], [score for _, score in judged.values()]
    for run, (_, score) in judged.items():
        tracker.runs[run][name] = score
    tracker.times_s[name] = first.times_s
    tracker.stages_s.update(first.stages_s)
    tracker.workers = max(tracker.workers, first.workers)
    for result, score in judged.values():
        said = measure(result.sureness, sequence.boxes_xywh, score)
        tracker.reliability += [said] * said.is_known
        if result.made_by and result.made_by not in tracker.made_by:
            tracker.made_by.append(result.made_by)
    speed = float(np.mean([result.frames_per_s for result, _ in judged.values()]))
    tracker.figures[name] = {**figures(scores), "fps": speed}


def read_peers(path: str | os.PathLike, names: Items[str] = ()) -> list[TrackerScores]:
    """Read figures known from elsewhere, such as the output of `ebmtrack eval --json`.

    The file is JSON `{"trackers": {label: {"sequences": {name: {"auc": .., "op50": ..}}}}}`; texts beside `trackers`
    (protocol, machine ..) are kept as what made the figures.

    Args:
        path: The file.
        names: Sequences to take; all if empty. A tracker that has none of them is left out with a warning.

    Raises:
        ResultError: Another content.
    """
    try:
        document = json.loads(read_text(path, ResultError))
        trackers = document["trackers"]
        about = {key: value for key, value in document.items() if isinstance(value, str)}
        source = {"figures from": Path(path).name, **about}
        wanted = {canonical(name): name for name in names}
        found = []
        for label, entry in trackers.items():
            rows = {
                name: {k: float(v) for k, v in row.items() if k in FIGURES} for name, row in entry["sequences"].items()
            }
            if names:
                rows = {wanted[canonical(n)]: row for n, row in rows.items() if canonical(n) in wanted}
            if rows:
                mean = entry.get("mean", {}) if len(rows) == len(entry["sequences"]) else {}
                means = {k: float(v) for k, v in mean.items() if k in FIGURES}
                found.append(TrackerScores(str(label), figures=rows, means=means, made_by=[source]))
            elif names:
                warnings.warn(f"{path}: {label} is left out: it has no figures of these sequences", stacklevel=3)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as reason:
        raise ResultError(f"{path}: not a file of trackers' figures ({type(reason).__name__}: {reason})") from reason


def discover(out: str | os.PathLike, dataset: str, params_names: Items[str] = ()) -> dict[str, Path]:
    """Return our own results below `<out>/<dataset>`: name of the set-up -> folder for `foreign.find_results`.

    Args:
        out: Folder of results.
        dataset: Name of the data set.
        params_names: Set-ups in the order to return; all if empty.

    Raises:
        ResultError: There are no results, or none of a named set-up.
    """
    base = Path(out) / dataset
    names = []
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        if path.is_dir() and re.search(r"_\d{3,}$", path.name):
            names.append(re.sub(r"_\d{3,}$", "", path.name))
    if not names:
        raise ResultError(
            f"{base}: no results here; run `ebmtrack eval` first, or give --results FOLDER if eval had --out FOLDER"
        )
    absent = [name for name in params_names if name not in names]
    if absent:
        raise ResultError(f"{base}: no results of {absent[0]!r}; there are those of {', '.join(dict.fromkeys(names))}")
    return {name: base / name for name in dict.fromkeys(params_names or names)}


def _errors(path: Path) -> dict[str, str]:
    """Return the tracebacks beside the results: `<params>_<run>/<sequence>.error`."""
    found = {}
    for error in sorted(path.parent.glob(f"{glob.escape(path.name)}*/*.error")):
        if re.fullmatch(re.escape(path.name) + r"(_\d{3,})?", error.parent.name):
            found[f"{error.stem} ({error.parent.name})"] = error.read_text(errors="replace")
    return found
