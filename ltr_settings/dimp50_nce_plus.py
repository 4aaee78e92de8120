"""DiMP-NCE+ on ResNet-50: the run of BMVC 2020, which is SuperDiMP's with NCE+ for the boxes.

    ebmtrack train dimp50_nce_plus --device cuda --workers 8

LaSOT, GOT-10k, TrackingNet (sets 0 to 3) and COCO are looked for where `ebmtrack paths` says; the backbone's ImageNet
weights are downloaded, or read from the file that --backbone names. `--set bfloat16=true` halves the time on a recent
GPU; the paper's run was in float32. All that --set can change: `ebmtrack train dimp50_nce_plus --show`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.paths import data_path
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.data.sources.base import Source
from ebmtrack.data.sources.coco import CocoSource
from ebmtrack.data.sources.got10k import GOT10kSource
from ebmtrack.data.sources.lasot import LaSOTSource
from ebmtrack.data.sources.trackingnet import TrackingNetSource
from ebmtrack.nets.checkpoint import backbone_weights
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, step_decay, train
from ebmtrack.training.validation import Validation

SAMPLING = SamplingSettings(
    shares={"lasot": 1.0, "got10k": 1.0, "trackingnet": 1.0, "coco": 1.0},  # LaSOT 1, was 0.25: BMVC, suppl. D.1
    train_frames=3,   # SuperDiMP (pytracking), as all below where no other source is named
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
    sigmas=(0.05, 0.5),         # BMVC, supplement D.2
    beta=0.1,                   # BMVC, supplement D.2
    samples=128,                # BMVC, supplement D.2
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
    """What --set can change. An epoch is the part steps / epochs of the run, 40,000 samples by default."""

    backbone: str = "resnet50"
    steps: int = 100_000                # 50 epochs of 40,000 samples: BMVC, supplement D.1
    epochs: int = 50
    batch: int = 20                     # BMVC, supplement D.1
    workers: int = 8
    bfloat16: bool = False
    checkpoint_every: int = 500
    validate_every: int = 10_000        # every fifth epoch
    validation_samples: int = 400       # pytracking takes 10,000; ours stay in memory, 2 MB each
    architecture: str = "super_dimp"
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    decay_epochs: int = 15              # the rates fall after every 15 epochs
    decay: float = 0.2
    params: str = "dimp50_nce_plus"     # set-up in tracker_params for --set track_on
    vot_list: Path | None = None        # names of GOT-10k sequences to leave out: the list of the VOT challenge


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return train(plan(settings, public_sources(settings), validation_source()), settings)


def plan(settings: Settings, sources: Mapping[str, Source], held_back: Source | None = None) -> Plan:
    """The run on any sources, by the names in `sampling.shares`; held_back: what it is validated on."""
    torch.manual_seed(settings.seed)
    net = TrackerNet(settings.architecture)
    net.feature_extractor.load_state_dict(backbone_weights(settings.backbone))
    for module in frozen(net):
        module.requires_grad_(False)

    sampler = make_sampler(sources, settings.sampling, settings.seed)
    trained = {
        "box": net.bb_regressor,
        "classifier": net.classifier.feature_extractor,
        "initializer": net.classifier.filter_initializer,
        "filter_optimizer": net.classifier.filter_optimizer,
        "layer3": net.feature_extractor.layer3,
    }
    n = settings.sampling.train_frames
    return Plan(
        net=net,
        objective=Objective(net, n, settings.objective, settings.bfloat16),
        dataset=TrainingSet(sampler, settings.crops, settings.samples),
        groups=[{"params": list(trained[name].parameters()), "lr": rate} for name, rate in settings.rates.items()],
        set_mode=train_above_layer2,
        rate=step_decay(max(1, settings.steps // settings.epochs), settings.decay_epochs, settings.decay),
        validate=validation(settings, held_back) if held_back else None,
        params=settings.params,
    )


def frozen(net: TrackerNet) -> list[torch.nn.Module]:
    """The first half of the backbone, which keeps its ImageNet weights and statistics (BMVC, supplement D.1)."""
    trunk = net.feature_extractor
    return [trunk.conv1, trunk.bn1, trunk.layer1, trunk.layer2]


def train_above_layer2(net: TrackerNet) -> None:
    """Training mode, except for what is frozen."""
    net.train()
    for module in frozen(net):
        module.eval()


def public_sources(settings: Settings) -> dict[str, Source]:
    """The four data sets of the paper, as far as they have a share."""
    openers = {
        "lasot": lambda: LaSOTSource(data_path("lasot")),
        "got10k": lambda: GOT10kSource(data_path("got10k") / "train", exclude=settings.vot_list or ()),
        "trackingnet": lambda: TrackingNetSource(data_path("trackingnet"), sets=range(4)),
        "coco": lambda: CocoSource(data_path("coco")),
    }
    return {name: openers[name]() for name, share in settings.sampling.shares.items() if share}


def validation_source() -> Source | None:
    """GOT-10k's validation split, where it is there."""
    folder = data_path("got10k") / "val"
    return GOT10kSource(folder, "got10k_val") if folder.is_dir() else None


def validation(settings: Settings, held_back: Source) -> Validation:
    """Losses and overlap after ascent on the same samples each time."""
    sampling = dataclasses.replace(settings.sampling, shares={held_back.name: 1.0})
    dataset = TrainingSet(
        make_sampler({held_back.name: held_back}, sampling, seed=1), settings.crops, settings.validation_samples
    )
    n = sampling.train_frames
    objective = lambda net: Objective(net, n, settings.objective, settings.bfloat16)  # noqa: E731
    return Validation(dataset, n, settings.validation_samples, settings.batch, objective)
