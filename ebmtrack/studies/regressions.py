"""Methods of regression compared on the drawn stand-ins: errors, likelihoods, coverage, and what refinement does.

Finished trainings are kept as JSON, so that a killed study goes on; a figure is mean and deviation over seeds.
"""

from __future__ import annotations

import itertools
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
from ebmtrack.studies.records import check_counts, claim_folder, keep_record, load_records, markdown_table, missing_runs
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
            names = {_name(task, method, seed): method for wanted, method in pairs if wanted in ("", task)}
            todo = missing_runs(out, names)
            if not todo:
                continue
            examples = open_examples(_settings(out, task, "l2", seed, steps, noise))
            starts: dict[str, torch.Tensor] = {}
            for name in todo:
                settings = _settings(out, task, names[name], seed, steps, noise)
                keep_record(out, name, _train(settings, examples, starts), log)
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
        out=out / "runs" / _name(task, method, seed),
        source=f"drawn-{task}",
        method=method,
        trunk="small",
        image_size=32,
        seed=seed,
        device="cpu",
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
    keys = itertools.product(DRAWINGS, METHODS)
    records = {key: found for key in keys if (found := load_records(out, ("mae",), _name(*key, "[0-9]*")))}
    rows = [[*key, str(len(found)), *(_cell(found, name) for name in COLUMNS)] for key, found in records.items()]
    starts = ("biased", "l2", "mdn")
    refined = [
        [*key, *(", ".join(_cell(found, f"{name}_{when}") for when in ("before", "after")) for name in starts)]
        for key, found in records.items()
        if any("biased_after" in record for record in found)
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


def _name(task: str, method: str, seed: int | str) -> str:
    """Return the name of one training, or for a pattern of seeds that of several."""
    return f"{task}_{method}_{seed}"
