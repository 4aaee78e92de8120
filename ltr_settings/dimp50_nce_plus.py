"""DiMP-NCE+ on ResNet-50: the run of BMVC 2020, which is SuperDiMP's with NCE+ for the boxes.

    ebmtrack train dimp50_nce_plus --device cuda --workers 8

LaSOT, GOT-10k, TrackingNet (sets 0 to 3) and COCO are looked for where `ebmtrack paths` says; with `--set packs=FOLDER`
the packs lasot, got10k, trackingnet and coco in that folder are used instead; with `--set prepared=FOLDER` these
packs stay in the device's memory, where batches are made. They should be cut 18 target sizes wide (docs/data.md).
The backbone's ImageNet weights are downloaded, or read from the file that --backbone names. The paper's run was in
float32; `--set bfloat16=true` is faster on a recent GPU. `ebmtrack train dimp50_nce_plus --show` lists all settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.catalogue import open_source
from ebmtrack.data.contexts import contexts_of, warn_of_narrow, with_cut_at
from ebmtrack.data.device_batches import batches_from_packs
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_training_folder
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.data.store import PackedSource, open_packs
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import device_of_process, is_leader
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.plan import (
    Data,
    HeldBack,
    Network,
    Plan,
    branches,
    parameter_groups,
    starting_network,
    step_decay,
)
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.paths import place_of
from ebmtrack.videos.source import Source

SAMPLING = SamplingSettings(
    shares={"lasot": 1.0, "got10k": 1.0, "trackingnet": 1.0, "coco": 1.0},  # LaSOT 1, was 0.25: BMVC, suppl. D.1
    train_frames=3,  # SuperDiMP (pytracking), as all below where no other source is named
    test_frames=3,
    max_gap=200,
    rule="dimp",
)
LOOK = Look(grey=0.05, joint_flip=0.5, flip=0.5, brightness=0.2)  # flips: BMVC, supplement D.1
CROPS = CropSettings(
    output=352,
    search_factor=6.0,
    train_jitter=Jitter.per_side(centre=3.0, scale=0.25),
    test_jitter=Jitter.per_side(centre=5.5, scale=0.5),
    look=LOOK,
    still_look=LOOK,
    rule="dimp",
    border="inside_major",
    max_scale_change=1.5,
)
OBJECTIVE = ObjectiveSettings(
    box_loss="nce_plus",
    sigmas=(0.05, 0.5),  # BMVC, supplement D.2
    beta=0.1,  # BMVC, supplement D.2
    samples=128,  # BMVC, supplement D.2
    box_weight=0.01,
    final_weight=100.0,
    initial_weight=100.0,
    inner_weight=400.0,
    hinge_threshold=0.05,
    label_sigma=0.25 / 6 * 22,  # a quarter of the target's size, in feature cells
)
RATES = {"box": 1e-3, "classifier": 5e-5, "initializer": 5e-5, "filter_optimizer": 5e-4, "layer3": 2e-5}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of the run. An epoch is the part steps / epochs of it, 40,000 samples by default.

    Attributes:
        epochs: number of epochs, which the rates' decay counts.
        validation_samples: held-back samples; pytracking takes 10,000, ours stay in memory, 2 MB each.
        sampling: sources and frames of a sample.
        crops: search regions.
        objective: losses.
        rates: Adam's learning rate of each part.
        decay_epochs: epochs after which the rates fall, again and again.
        decay: factor by which they fall.
        params: set-up in tracker_params for `track_on`.
        vot_list: file of names of GOT-10k sequences to leave out: the list of the VOT challenge.
        packs: folder of packs (`ebmtrack pack`), named as the shares.
        prepared: folder of packs to keep in the device's memory, where batches are made.
        got10k_split: train, or vottrain, as pytracking trains: put its list beside list.txt (docs/data.md).
    """

    arch: str = "super_dimp"
    backbone: str = "resnet50"
    steps: int = 100_000  # 50 epochs of 40,000 samples: BMVC, supplement D.1
    epochs: int = 50
    batch: int = 20  # BMVC, supplement D.1
    workers: int = 8
    bfloat16: bool = False
    checkpoint_every: int = 500
    validate_every: int = 10_000  # every fifth epoch
    validation_samples: int = 400
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    decay_epochs: int = 15
    decay: float = 0.2
    params: str = "dimp50_nce_plus"
    vot_list: Path | None = None
    packs: Path | None = None
    prepared: Path | None = None
    got10k_split: str = "train"


def plan(settings: Settings) -> Plan:
    """Return the run on the public data sets."""
    samples = data(settings)  # missing data are an error before weights are downloaded
    return Plan(network(settings), samples, objective(settings), params=settings.params)


def network(settings: Settings) -> Network:
    """Return the network, whose first half keeps its ImageNet weights and statistics (BMVC, supplement D.1)."""
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    for module in frozen(net):
        module.requires_grad_(False)
    groups = parameter_groups({**branches(net), "layer3": net.feature_extractor.layer3}, settings.rates)
    return Network(net, groups, set_mode=train_above_layer2, rate=rate_of(settings), gradients="ddp")


def network_of(settings: Settings, parts: Callable[[TrackerNet], dict[str, torch.nn.Module]]) -> Network:
    """Return a network all layers of which train, at the rates of its parts."""
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    return Network(net, parameter_groups(parts(net), settings.rates), rate=rate_of(settings), gradients="ddp")


def rate_of(settings: Settings) -> Callable[[int], float]:
    """Return the decay of the learning rates."""
    return step_decay(max(1, settings.steps // settings.epochs), settings.decay_epochs, settings.decay)


def frozen(net: TrackerNet) -> list[torch.nn.Module]:
    """Return the first half of the backbone."""
    trunk = net.feature_extractor
    return [trunk.conv1, trunk.bn1, trunk.layer1, trunk.layer2]


def train_above_layer2(net: TrackerNet) -> None:
    """Set training mode, except for what is frozen."""
    net.train()
    for module in frozen(net):
        module.eval()


def objective(settings: Settings) -> Objective:
    """Return the losses."""
    return Objective(settings.sampling.train_frames, settings.objective, settings.bfloat16)


def data(settings: Settings, sources: Mapping[str, Source] | None = None, held_back: Source | None = None) -> Data:
    """Return training and validation samples.

    Args:
        settings: of the run.
        sources: sources named as in `sampling.shares`; None for the public data sets.
        held_back: what is validated on; None for GOT-10k's validation split if `sources` is None too.
    """
    if sources is None and settings.data is not None:
        return data_of_folder(settings, settings.data)
    if sources is None:
        sources, held_back = public_sources(settings), held_back or validation_source()
    return Data(training_set(settings, sources), held_back_of(settings, held_back) if held_back else None)


def data_of_folder(settings: Settings, folder: Path) -> Data:
    """Return samples of a pool or of own sequences (`--data`), each kind with the same share, video for validation.

    A pool's compositions have six frames: too short for all rules but "any", they are left out.
    """
    sources = open_training_folder(folder, "train")
    if settings.sampling.rule != "any" and len(sources) > 1:
        sources.pop("synthetic", None)
    sampling = dataclasses.replace(settings.sampling, shares=dict.fromkeys(sources, 1.0))
    settings = dataclasses.replace(settings, sampling=sampling)
    validation = open_training_folder(folder, "validation")
    return Data(training_set(settings, sources), held_back_of(settings, next(iter(validation.values()))))


def training_set(settings: Settings, sources: Mapping[str, Source]) -> Dataset:
    """Return samples that CPU workers cut from files or packs, or that the device cuts from packs in its memory."""
    sampling = settings.sampling
    if is_leader():
        contexts = contexts_of(sources if settings.prepared is None else open_packs(settings.prepared))
        warn_of_narrow(settings.crops, {name: contexts[name] for name in contexts if sampling.shares.get(name)})
    if settings.prepared is None:
        crops = with_cut_at(settings.crops, sources)
        return TrainingSet(make_sampler(sources, sampling, settings.seed), crops, settings.samples)
    device = device_of_process(settings.device)
    return batches_from_packs(settings.prepared, device, sampling, settings.crops, settings.seed, settings.samples)


def public_sources(settings: Settings) -> dict[str, Source]:
    """Return the data sets of the paper, or packs of them, as far as they have a share; none for `prepared`."""
    names = [name for name, share in settings.sampling.shares.items() if share and settings.prepared is None]
    if settings.packs is not None:
        return {name: PackedSource(settings.packs / name, name) for name in names}
    splits = {"trackingnet": "0-3", "got10k": settings.got10k_split}  # sets 0 to 3 (pytracking)
    lists = {"got10k": settings.vot_list}
    return {name: open_source(name, split=splits.get(name), exclude=lists.get(name)) for name in names}


def validation_source() -> Source | None:
    """Return GOT-10k's validation split if `ebmtrack paths` knows of it."""
    place = place_of("got10k_val")
    folder = place.path / "val" if place else None
    return open_source("got10k_val", folder) if folder and folder.is_dir() else None


def held_back_of(settings: Settings, source: Source) -> HeldBack:
    """Return the same samples of a source each time."""
    sampling = dataclasses.replace(settings.sampling, shares={source.name: 1.0})
    sampler, crops = make_sampler({source.name: source}, sampling, seed=1), settings.crops.for_validation()
    samples = TrainingSet(sampler, crops, settings.validation_samples)
    return HeldBack(samples, sampling.train_frames, settings.validation_samples, settings.batch)
