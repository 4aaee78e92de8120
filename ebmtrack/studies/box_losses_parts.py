"""The data of `ebmtrack study boxes`: pairs from the small pool, and sequences to track."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_training_folder
from ebmtrack.data.sampling import Sampler
from ebmtrack.ltr_settings import ebm18_small
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.progress import progress_bar
from ebmtrack.studies.box_losses import BoxStudySettings, Run, box_study
from ebmtrack.training.frozen_features import Features, compute_features
from ebmtrack.training.overrides import override
from ebmtrack.training.validation import TrackingRun

HELD_BACK_SHARES = {"video": 0.7, "stills": 0.3}


def study_boxes(
    out: Path,
    data: Path,
    runs: Sequence[Run],
    settings: BoxStudySettings,
    weights: str | None = None,
    track_on: Path | None = None,
) -> str:
    """Do the runs that `out` does not hold, and return the table.

    Args:
        out: folder of results.
        data: the small pool.
        runs: such as those of `all_runs`.
        settings: what they share; its `changes` are of the settings of ebm18_small for the training pairs.
        weights: network whose backbone is used; None for the one that ships.
        track_on: folder of sequences that the runs with the most samples track; None for none.
    """
    net = load_checkpoint(resolve_weights(weights))
    sequences = None if track_on is None else TrackingRun(track_on, protocol="pytracking")
    track = None if sequences is None else partial(tracked_areas, sequences, net)
    pool_settings = override(ebm18_small.Settings(), settings.changes)
    return box_study(out, partial(pool_pairs, data, net, pool_settings), runs, settings, track)


def pool_pairs(
    data: Path, net: TrackerNet, pool_settings: ebm18_small.Settings, settings: BoxStudySettings
) -> tuple[Features, Features]:
    """Return features of training and held-back pairs: two frames of a target, cut and changed as in training.

    The held-back pairs come from targets that no training sees, and are the same whatever pool_settings say.
    """
    shares, crops, count = pool_settings.sampling.shares, pool_settings.crops, settings.held_back_pairs
    return (
        _part(data, net, "train", shares, crops, settings.train_pairs, settings.seed, settings.bfloat16),
        _part(
            data, net, "validation", HELD_BACK_SHARES, ebm18_small.CROPS, count, settings.seed + 1, settings.bfloat16
        ),
    )


def _part(
    data: Path,
    net: TrackerNet,
    part: str,
    shares: Mapping[str, float],
    crops: CropSettings,
    count: int,
    seed: int,
    bfloat16: bool,
) -> Features:
    pool = open_training_folder(data, part, decoded_limit=2**29)
    shares = {name: share for name, share in shares.items() if share and name in pool}
    sampler = Sampler([pool[name] for name in shares], list(shares.values()), 1, 1, 30, seed)
    dataset = TrainingSet(sampler, crops, count)
    return compute_features(net, _samples(dataset, part), bfloat16)


def _samples(dataset: TrainingSet, part: str) -> Iterator[Mapping[str, Tensor]]:
    for index in progress_bar(range(len(dataset)), desc=f"{part} pairs", unit="pair"):
        yield dataset[index]


def tracked_areas(run: TrackingRun, net: TrackerNet, branch: BoxEnergy, step_length: float) -> dict[str, float]:
    """Return the area under the success curve of each sequence, tracked with another box branch.

    Args:
        run: the sequences.
        net: the network whose box branch is replaced.
        branch: the box branch.
        step_length: of the ascent.
    """
    changed = copy.copy(net)
    changed._modules = dict(net._modules, bb_regressor=branch)
    return run.areas(changed, position_step=step_length, size_step=step_length)
