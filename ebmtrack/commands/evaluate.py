"""Verbs that evaluate trackers: eval, stress, report, export-results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from json import dumps
from pathlib import Path
from typing import Any, Literal

from ebmtrack.commands.cluster import ClusterOptions, Crew
from ebmtrack.commands.options import (
    DEFAULT_SET_UP,
    Changes,
    DatasetOptions,
    EngineName,
    Flat,
    Names,
    Precision,
    Repeated,
    VisdomOptions,
    flatten,
)
from ebmtrack.device import pick_devices
from ebmtrack.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Run trackers over a benchmark and score them; what is finished is not run again.

    Attributes:
        params: Tracker set-ups, one or more: names in tracker_params, or paths of files like those (dimp18_nce_plus by
            default).
        sequences: Names of sequences, all by default.
        runs: Runs with different seeds.
        workers: Processes (one per GPU or core by default).
        threads: CPU threads of each worker.
        batch: Sequences that each worker tracks at once, to keep a GPU busy.
        device: auto (all GPUs if there are any), cpu, openvino, mps, cuda or cuda:N.
        precision: auto, float32, bfloat16 (on PyTorch or OpenVINO), or int8 (on ONNX Runtime or OpenVINO: faster).
        engine: torch, onnx (no torch needed), or auto: onnx on a CPU for networks that ship and for exported ones.
        weights: Network weights (.safetensors), the folder of an exported network, or the name of a network that comes
            with ebmtrack, instead of those of the set-ups.
        protocol: Scoring rules (the data set's own by default).
        seed: First seed.
        allow_missing: Go on with the sequences that are there.
        intervals: Have the tracker say how sure it is of each side of its box; measure how often it is right.
        overwrite: Remove what is finished and run it again; no other runner may be at work there.
        out: Folder of results.
        json: Print the scores as JSON (which `ebmtrack report --peers` reads), and the progress to stderr.
        nodes: Jobs that share the sequences, with --cluster.
    """

    data: Flat[DatasetOptions]
    params: Names = ()
    sequences: Names = ()
    runs: int = 1
    workers: int | None = None
    threads: int | None = None
    batch: int = 1
    device: str = "auto"
    precision: Precision = "auto"
    engine: EngineName = "auto"
    weights: str | None = None
    protocol: str | None = None
    seed: int = 0
    allow_missing: bool = False
    intervals: bool = False
    overwrite: bool = False
    out: Path = Path("results")
    json: bool = False
    nodes: int = 1
    jobs: Flat[ClusterOptions] = field(default_factory=ClusterOptions)
    panel: Flat[VisdomOptions] = field(default_factory=VisdomOptions)

    def run(self) -> int:
        """Run, score and print a table; return 1 if a sequence failed."""
        from ebmtrack.evaluation.evaluate import EvaluateOptions, evaluate

        if self.panel.visdom and self.batch > 1:
            raise ConfigError("--visdom shows one sequence at a time: leave --batch out")
        self.jobs.check(self.nodes)
        options = EvaluateOptions(
            sequences=flatten(self.sequences),
            runs=self.runs,
            workers=self.workers,
            threads=self.threads,
            batch=self.batch,
            device=self.device,
            precision=self.precision,
            engine=self.engine,
            weights=self.weights,
            protocol=self.protocol,
            seed=self.seed,
            allow_missing=self.allow_missing,
            intervals=self.intervals,
            overwrite=self.overwrite,
            out=self.out,
            elsewhere=self._on_cluster if self.jobs.cluster else None,
        )
        shown = self._visdom_options() if self.panel.visdom else {}
        stream = sys.stderr if self.json else sys.stdout
        evaluation = evaluate(
            flatten(self.params) or (DEFAULT_SET_UP,),
            self.data.dataset,
            self.data.locate(),
            options,
            stream=stream,
            **shown,
        )
        if self.json:
            print(dumps(evaluation.as_json(), indent=1))
        return evaluation.exit_code

    def _on_cluster(self, left: Callable[[], int]) -> list[str]:
        """Have jobs of a cluster compute; return what went wrong."""
        here = replace(self, nodes=1, jobs=ClusterOptions(), overwrite=False, json=False)
        crew = Crew(self.jobs, self.out, sys.stderr if self.json else sys.stdout)
        return crew.run(here, min(self.nodes, left()), left)

    def _visdom_options(self) -> dict[str, Any]:
        """Return the arguments that make `evaluate` show its trackers and scores on a visdom server."""
        from ebmtrack.engines.onnx_files import independent_of_folder
        from ebmtrack.evaluation.evaluate import ParamsFactory
        from ebmtrack.viewers.tracking_view import ScoreCurves, ShowingFactory
        from ebmtrack.viewers.visdom import VisdomPanel

        weights = independent_of_folder(self.weights)
        inner = ParamsFactory(weights, self.intervals, pick_devices(self.device)[0], self.precision, self.engine)
        curves = ScoreCurves(VisdomPanel("ebmtrack_eval", self.panel.visdom_server))
        return {"factory": ShowingFactory(inner, self.panel.visdom_server), "on_score": curves}


@dataclass(frozen=True, kw_only=True)
class Stress:
    """Change sequences on purpose (jumps, occlusions, missing frames, grey, noise) and see what becomes of the boxes.

    Attributes:
        root: Folder of sequences, as for `ebmtrack eval --dataset folder`.
        params: Tracker set-ups, one or more (dimp18_nce_plus by default).
        changes: none, jump, hidden, gaps, grey, twin, noise; all by default.
        set: Changes of the set-ups' parameters, such as looks_around=0; the set-ups as they are come first then.
        weights: Network weights (.safetensors), the folder of an exported network, or the name of a network that comes
            with ebmtrack, instead of those of the set-ups.
        device: auto (a GPU if there is one), cpu, openvino, mps, cuda or cuda:N.
        seed: Seed of the changes and the trackers.
        out: Folder of trials, which are not run again, and of the page stress.html.
    """

    root: Path
    params: Names = ()
    changes: Names = ()
    set: Changes = ()
    weights: str | None = None
    device: str = "auto"
    seed: int = 0
    out: Path = Path("results/stress")

    def run(self) -> None:
        """Track, print a row for each set-up and change, and write the page."""
        from ebmtrack.evaluation.evaluate import facts_of
        from ebmtrack.files import write_text
        from ebmtrack.studies.stress import Store, stress, stress_page
        from ebmtrack.tracking.params import load_params
        from ebmtrack.tracking.tracker import Tracker
        from ebmtrack.training.overrides import override
        from ebmtrack.videos import open_dataset

        chosen = {name: load_params(name) for name in flatten(self.params) or (DEFAULT_SET_UP,)}
        if changes := flatten(self.set):
            chosen |= {f"{name} {' '.join(changes)}": override(one, changes) for name, one in chosen.items()}
        trackers = {name: Tracker.from_pretrained(one, self.weights, self.device) for name, one in chosen.items()}
        folder = self.root.resolve().name
        facts = {name: facts_of(one, self.weights, self.device) for name, one in chosen.items()}
        store = Store(self.out / folder, facts)
        trials = stress(trackers, open_dataset("folder", self.root), flatten(self.changes), self.seed, store=store)
        write_text(store.folder / "stress.html", stress_page(trials, f"Stress on the folder “{folder}”"))
        print(f"the page is {store.folder / 'stress.html'}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Compare stored results on one HTML page: tables, curves, the worst sequences.

    Attributes:
        results: Folder of results of `ebmtrack eval`.
        page: The page to write.
        params: Tracker set-ups to show, all by default.
        sequences: Names of sequences, all by default.
        others: Other trackers' raw results (pytracking, got10k, pysot, OTB): NAME FOLDER NAME FOLDER ...
        peers: JSON file with other trackers' figures.
        protocol: Scoring rules (the data set's own by default).
        worst: How many of the first tracker's worst sequences are shown in detail.
        plots: Folder for the curves as PDF, SVG, PNG and CSV, in the size of a paper's column, and for the tables as
            CSV, JSON and LaTeX.
        no_pages: Leave out the pages of single sequences, which have a film strip around each failure.
    """

    data: Flat[DatasetOptions]
    results: Path = Path("results")
    page: Path = Path("report.html")
    params: Names = ()
    sequences: Names = ()
    others: Repeated[tuple[tuple[str, Path], ...]] = ()
    peers: Path | None = None
    protocol: str | None = None
    worst: int = 5
    plots: Path | None = None
    no_pages: bool = False

    def run(self) -> None:
        """Write the page."""
        from ebmtrack.evaluation.report import ReportOptions, report

        options = ReportOptions(
            out=self.results,
            params_names=flatten(self.params),
            results=self._others(),
            peers=self.peers,
            protocol=self.protocol,
            sequences=flatten(self.sequences),
            worst=self.worst,
            plots=self.plots,
            pages=not self.no_pages,
        )
        print(f"the report is in {report(self.data.dataset, self.data.locate(), self.page, options)}")

    def _others(self) -> dict[str, Path]:
        """Return the other trackers' folders by name; ConfigError if two have one name."""
        pairs = flatten(self.others)
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"--others names {name} twice; give each tracker a name of its own")
        return dict(pairs)


@dataclass(frozen=True, kw_only=True)
class ExportResults:
    """Write stored results in the layout of another toolkit.

    Attributes:
        layout: pytracking; got10k (the toolkit's GOT-10k); got10k-otb (its other data sets); got10k-server or
            trackingnet-server (an archive to upload).
        results: Folder of results of `ebmtrack eval`.
        params: Tracker set-ups, all by default.
        integers: Cut fractions off, as pytracking does.
        out: Folder to write to.
    """

    data: Flat[DatasetOptions]
    layout: Literal["pytracking", "got10k", "got10k-otb", "got10k-server", "trackingnet-server"]
    results: Path = Path("results")
    params: Names = ()
    integers: bool = False
    out: Path = Path("exported_results")

    def run(self) -> None:
        """Write the files."""
        from ebmtrack.evaluation.export import export_stored

        written = export_stored(
            self.data.dataset,
            self.data.locate(),
            self.layout,
            self.out,
            out=self.results,
            params_names=flatten(self.params),
            integers=self.integers,
        )
        what = "archives" if self.layout.endswith("-server") else "files of boxes"
        print(f"{len(written)} {what} are in {self.out}")
