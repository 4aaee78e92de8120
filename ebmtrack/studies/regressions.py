"""Methods of regression compared on the drawn stand-ins: errors, likelihoods, coverage, and what refinement does.

Finished trainings are kept as JSON, so that a killed study goes on; a figure is mean and deviation over seeds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator

from ebmtrack import files
from ebmtrack.names import check_name
from ebmtrack.regression.examples import Examples
from ebmtrack.regression.heads import METHODS
from ebmtrack.regression.measures import evaluate, predictions, refined_error
from ebmtrack.regression.network import RegressionNet
from ebmtrack.regression.synthetic import DRAWINGS
from ebmtrack.regression.training import RegressionSettings, open_examples, plan_of
from ebmtrack.studies.records import check_counts, claim_folder, markdown_table
from ebmtrack.training.run import train

COMPARED = ("l2", "mdn", "energy-nce", "proposal", "teacher")
COLUMNS = ("mae", "nll", "coverage_50", "coverage_90", "width_90", "nll_is", "ess", "nll_q")
BIAS = 0.5  # of the labels' deviation: how far off the biased starts of refinement are


@dataclass(frozen=True)
class RegressionStudySettings:
    """The settings that all trainings under a folder share."""

    steps: int
    noise: int


def study_regressions(
    out: Path = Path("study_regression"),
    methods: Sequence[str] = (),
    runs: int = 3,
    steps: int = 500,
    noise: int = 64,
    log: Callable[[str], None] = print,
) -> str:
    """Train what is missing under `out`, write table.md there, and return the table (Markdown).

    Args:
        out: Folder of results.
        methods: Names from METHODS, or TASK/METHOD such as cells/proposal; by default all tasks and COMPARED.
        runs: Seeds of data and networks.
        steps: Optimiser steps, batches of 32.
        noise: Samples M for each label.
        log: Is told of each training.

    Raises:
        ConfigError: An unknown method, no run, or an `out` with other settings.
    """
    check_counts(runs=runs, steps=steps, samples=noise)
    pairs = [_pair(name) for name in methods or COMPARED]
    claim_folder(out, RegressionStudySettings(steps, noise))
    for seed in range(runs):
        for task in DRAWINGS:
            chosen = [method for wanted, method in pairs if wanted in ("", task)]
            todo = [method for method in chosen if not _path(out, task, method, seed).exists()]
            if not todo:
                continue
            settings = _settings(out, task, "l2", seed, steps, noise)
            examples = open_examples(settings)
            starts: dict[str, torch.Tensor] = {}
            for method in todo:
                figures = _train(_settings(out, task, method, seed, steps, noise), examples, starts)
                files.write_text(_path(out, task, method, seed), json.dumps(figures))
                log(f"{task} {method} seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    table = make_table(out)
    files.write_text(out / "table.md", table)
    return table


def _pair(name: str) -> tuple[str, str]:
    """Return task ("" for all) and method of a name."""
    task, _, method = name.rpartition("/")
    return (check_name("task", task, DRAWINGS) if task else ""), check_name("method", method, METHODS)


def _settings(out: Path, task: str, method: str, seed: int, steps: int, noise: int) -> RegressionSettings:
    """Return the settings of one training on images of 32 x 32."""
    return RegressionSettings(
        out=out / "runs" / f"{task}_{method}_{seed}",
        source=f"drawn-{task}",
        method=method,
        trunk="small",
        image_size=32,
        seed=seed,
        steps=steps,
        noise=noise,
        schedule="cosine",
        warmup=steps // 10,
        resume=False,
        checkpoint_every=steps + 1,
        validate_every=steps + 1,
    )


def _train(
    settings: RegressionSettings, examples: tuple[Examples, Examples, Examples], starts: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Train one network and return its test figures; the baselines' predictions are collected in `starts`."""
    plan = plan_of(settings, examples)
    plan.validate = None
    net, test = train(plan, settings), examples[2]
    if not isinstance(net, RegressionNet):
        raise TypeError(type(net).__name__)
    figures = evaluate(net.eval(), test, num_samples=512)
    if settings.method in ("l2", "mdn"):
        starts[settings.method] = predictions(net, test)
    if net.config.step:
        figures |= _refinement(net, test, starts)
    return figures


def _refinement(net: RegressionNet, test: Examples, starts: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the MAE of biased starts (label + BIAS deviations) and of the baselines, before and after Algorithm S2."""
    labels = torch.from_numpy(test.labels)
    shift = BIAS * labels.std(dim=0)
    noise = torch.randn(labels.shape, generator=Generator().manual_seed(0)) * 0.1 * labels.std(dim=0)
    found = {"biased": labels + shift + noise, **starts}
    before = {f"{name}_before": (start - labels).abs().mean().item() for name, start in found.items()}
    return {**before, **{f"{name}_after": refined_error(net, test, start) for name, start in found.items()}}


def make_table(out: Path) -> str:
    """Return the tables of all trainings under `out`, in Markdown."""
    records: dict[tuple[str, str], list[dict[str, float]]] = {}
    for path in sorted((out / "runs").glob("*.json")):
        task, method, _ = path.stem.split("_")
        records.setdefault((task, method), []).append(json.loads(path.read_text("utf-8")))
    order = sorted(records, key=lambda key: (list(DRAWINGS).index(key[0]), list(METHODS).index(key[1])))
    rows = [[*key, str(len(records[key])), *(_cell(records[key], name) for name in COLUMNS)] for key in order]
    starts = ("biased", "l2", "mdn")
    refined = [
        [*key, *(", ".join(_cell(records[key], f"{name}_{when}") for when in ("before", "after")) for name in starts)]
        for key in order
        if any("biased_after" in record for record in records[key])
    ]
    lines = [*markdown_table(("task", "method", "seeds", *COLUMNS), rows), ""]
    lines += markdown_table(("task", "refined by", *(f"{name}: before, after" for name in starts)), refined)
    return "\n".join(lines) + "\n"


def _cell(records: list[dict[str, float]], name: str) -> str:
    """Return mean and deviation of one figure, or nothing."""
    values = [record[name] for record in records if name in record]
    if not values:
        return ""
    spread = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _path(out: Path, task: str, method: str, seed: int) -> Path:
    """Return the file of one training's figures."""
    return out / "runs" / f"{task}_{method}_{seed}.json"
