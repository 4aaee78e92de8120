"""NCE+ against the other losses on boxes: many small box branches on the frozen features of one network.

The backbone and the classifier are those of a trained network and stay as they are; every run trains a box branch of
its own, from scratch, on the same pairs of crops, whose features are computed once. What differs is the loss, the
number of samples M and the seed. Finished runs are kept in JSON files: a killed study goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from ebmtrack import files
from ebmtrack.errors import ResultError
from ebmtrack.evaluation.intervals import bootstrap, paired_difference
from ebmtrack.names import check_name
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.inference import cpu_has_bfloat16
from ebmtrack.studies.records import check_counts, claim_folder, interval_cell, load_records, markdown_table
from ebmtrack.training.frozen_features import Features, load_features, pair_energies, save_features
from ebmtrack.training.objective import BoxLossName, ObjectiveSettings, box_loss, draw_candidates
from ebmtrack.training.validation import overlaps_after_ascent

STEP_LENGTHS = tuple(2.5e-4 * 2**k for k in range(8))  # for the ascent; each run takes the best on its training pairs
CANDIDATES = 5  # starts for each pair
LOSSES: dict[str, BoxLossName] = {  # name here: in ObjectiveSettings
    "nce+": "nce_plus",
    "nce": "nce",
    "kld-is": "kld_is",
    "ml-is": "ml_is",
}
RECORD = ("loss", "samples", "seed", "step_length", "iou", "op75", "auc")
HEADS = ("loss", "M", "seeds", "step length", "IoU", "- NCE+", "OP75", "seeds' s.d. (IoU)", "AUC", "- NCE+")


@dataclass(frozen=True)
class BoxStudySettings:
    """Settings that all runs share. The widths of the noise are the paper's (BMVC 2020, 5.3), the rest small."""

    width: int = 64  # of the branch; the tracker's has 256
    train_pairs: int = 3000
    held_back_pairs: int = 300
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    sigmas: tuple[float, ...] = (0.05, 0.5)
    beta: float = 0.1  # NCE+
    kld_sigma: float = 0.05  # KLD-IS
    seed: int = 0  # of the pairs
    changes: tuple[str, ...] = ()  # of the settings that cut the training pairs, "key=value"
    bfloat16: bool = field(default_factory=cpu_has_bfloat16)  # of features and branches; runs of both kinds do not mix


@dataclass(frozen=True)
class Run:
    """One branch: its loss, its number of samples and its seed."""

    loss: str
    samples: int
    seed: int

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.loss}_M{self.samples:03d}_seed{self.seed}"


def all_runs(losses: Sequence[str], samples: Sequence[int], seeds: int) -> list[Run]:
    """Return a run for each loss (all of LOSSES if there is none), M and seed; ConfigError if none is possible."""
    check_counts(runs=seeds, samples=min(samples, default=0))
    return [Run(loss, M, seed) for M in samples for seed in range(seeds) for loss in losses or tuple(LOSSES)]


# One run


def batch_loss(
    run: Run, settings: BoxStudySettings, energies: Callable[[Tensor], Tensor], boxes_xywh: Tensor, generator: Generator
) -> Tensor:
    """Return the loss of one batch; energies: boxes_xyxy (n, P, 4) -> (n, P). boxes_xywh (n, 4): the truth."""
    objective = ObjectiveSettings(
        box_loss=LOSSES[run.loss],
        sigmas=settings.sigmas,
        beta=settings.beta,
        samples=run.samples,
        target_sigma=settings.kld_sigma,
    )
    candidates = draw_candidates(boxes_xywh, objective, generator)
    return box_loss(energies(candidates.boxes_xyxy), candidates, objective).mean()


def train_branch(pairs: Features, run: Run, settings: BoxStudySettings) -> BoxEnergy:
    """Train one branch from scratch. The same run, pairs, settings and CPU give the same branch."""
    torch.manual_seed(run.seed)
    branch = BoxEnergy((pairs.layer2.shape[2], pairs.layer3.shape[2]), settings.width)
    branch.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(branch.parameters(), lr=settings.learning_rate)
    generator = Generator().manual_seed(run.seed)
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / 50)
        rate = settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = pairs.take(torch.randint(len(pairs), (settings.batch,), generator=generator))
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            energies = pair_energies(branch, batch)
            loss = batch_loss(run, settings, energies, batch.boxes_xywh[:, 1], generator)
        if not torch.isfinite(loss):
            raise ResultError(f"{run.name}: the loss is {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return branch.eval()


def overlaps(branch: BoxEnergy, pairs: Features, step_length: float, bfloat16: bool) -> Tensor:
    """Return the IoU (n, CANDIDATES) with the truth after ascent from displaced boxes, the same ones in every call.

    Args:
        branch: the box branch.
        pairs: n samples of a reference and another frame.
        step_length: of the ascent.
        bfloat16: whether convolutions are computed in it.
    """
    branch = branch.eval().requires_grad_(False)
    generator, found = Generator().manual_seed(7), []
    for rows in torch.arange(len(pairs)).split(25):
        part = pairs.take(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            energies = pair_energies(branch, part, in_float32=True)
        found.append(overlaps_after_ascent(energies, part.boxes_xywh[:, 1], generator, CANDIDATES, step_length))
    branch.requires_grad_(True)
    return torch.cat(found)


def best_step_length(branch: BoxEnergy, pairs: Features, bfloat16: bool) -> float:
    """Return the step length of STEP_LENGTHS with the highest mean overlap on `pairs`."""
    return max(STEP_LENGTHS, key=lambda length: overlaps(branch, pairs, length, bfloat16).mean().item())


def run_one(train: Features, held_back: Features, run: Run, settings: BoxStudySettings, track=None) -> dict:
    """Train and measure one run: what its JSON file holds. track: (branch, step length) -> AUC by sequence."""
    branch = train_branch(train, run, settings)
    length = best_step_length(branch, train.take(torch.arange(min(100, len(train)))), settings.bfloat16)
    found = overlaps(branch, held_back, length, settings.bfloat16)
    auc = {} if track is None else track(branch, length)
    return {**asdict(run), "step_length": length, "iou": found.mean(dim=1).tolist(), "auc": auc} | {
        "op75": (found > 0.75).float().mean().item()
    }


# The study


def box_study(
    out: Path,
    prepare: Callable[[BoxStudySettings], tuple[Features, Features]],
    runs: Sequence[Run],
    settings: BoxStudySettings = BoxStudySettings(),
    track: Callable[[BoxEnergy, float], dict[str, float]] | None = None,
    log: Callable[[str], None] = print,
) -> str:
    """Do the runs that `out` does not hold, write table.md there and return it.

    prepare gives the training and the held-back pairs; it is called where `out` has none. track is called for runs
    with the most samples only. Raises ConfigError for an `out` with other settings or an unknown loss.
    """
    for run in runs:
        check_name("loss", run.loss, LOSSES)
    check_counts(steps=settings.steps)
    claim_folder(out, settings)
    parts = [out / "features_train.safetensors", out / "features_held_back.safetensors"]
    if not all(path.exists() for path in parts):
        for path, pairs in zip(parts, prepare(settings)):
            save_features(path, pairs)
    train, held_back = map(load_features, parts)
    most = max((run.samples for run in runs), default=0)
    for run in runs:
        path = out / "runs" / f"{run.name}.json"
        if not path.exists():
            record = run_one(train, held_back, run, settings, track if run.samples == most else None)
            files.write_text(path, json.dumps(record))
            log(f"{run.name}: IoU {statistics.fmean(record['iou']):.3f}, step length {record['step_length']:g}")
    table = make_table(load_records(out, RECORD), settings)
    files.write_text(out / "table.md", table)
    return table


def make_table(records: list[dict], settings: BoxStudySettings) -> str:
    """Return a Markdown table: IoU and OP75 after ascent on held-back pairs, and AUC if it was measured, by loss and M.

    Numbers are means over seeds; intervals are 95 % bootstrap intervals over pairs (IoU) and sequences (AUC) of the
    means over seeds; "- NCE+" is the paired difference to NCE+ with as many samples.
    """
    changes = f" Pairs with {', '.join(settings.changes)}." if settings.changes else ""
    head = f"Width {settings.width}, {settings.train_pairs} pairs, {settings.steps} steps of {settings.batch}.{changes}"
    groups: dict[tuple[int, str], list[dict]] = {}
    for record in records:
        groups.setdefault((record["samples"], record["loss"]), []).append(record)
    order = sorted(groups, key=lambda key: (-key[0], list(LOSSES).index(key[1])))
    rows = [_row(groups[samples, loss], groups.get((samples, "nce+"), [])) for samples, loss in order]
    return "\n".join([head, "", *markdown_table(HEADS, rows)]) + "\n"


def _row(group: list[dict], reference: list[dict]) -> list[str]:
    """Return the cells of one line of the table."""
    lengths = sorted({f"{record['step_length']:g}" for record in group}, key=float)
    means = [statistics.fmean(record["iou"]) for record in group]
    deviation = f"{statistics.stdev(means):.3f}" if len(means) > 1 else ""
    entries = [group[0]["loss"].upper(), str(group[0]["samples"]), str(len(group)), ", ".join(lengths)]
    entries += _columns(*(_over_seeds(g, "iou") for g in (group, reference)))
    entries += [f"{statistics.fmean(record['op75'] for record in group):.3f}", deviation]
    return entries + _columns(*(_over_seeds(g, "auc") for g in (group, reference)))


def _columns(ours: dict[str, float], reference: dict[str, float]) -> list[str]:
    """Return the mean with its interval, and the paired difference to the reference with its own."""
    if not ours:
        return ["", ""]
    mean = interval_cell(bootstrap(np.array(list(ours.values()))))
    return [mean, interval_cell(paired_difference(ours, reference), "+.3f") if reference and ours != reference else ""]


def _over_seeds(group: list[dict], key: str) -> dict[str, float]:
    """Return means over seeds of the figures of every pair or sequence."""
    found: dict[str, list[float]] = {}
    for record in group:
        values = record[key]
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            found.setdefault(str(name), []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}
