"""The box branch of ECCV 2020's tracker: ATOM's on ResNet-18, its energy trained by ML-IS over a frozen trunk.

    ebmtrack train atom18_ml_is --device cuda --workers 8

ATOM learns its classifier while it tracks, so this trains no classifier: trunk and box branch alone. To track with the
result, begin with a DiMP-18 whose trunk and classifier are kept, and whose box branch is trained anew:

    ebmtrack train atom18_ml_is --device cuda --workers 8 --set start=ebm18_small
    ebmtrack track video.mp4 --params atom_energy --weights runs/atom18_ml_is/atom18_ml_is.safetensors

Without `start` the trunk holds ImageNet weights, and the classifier in the file is untrained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from ebmtrack.checkpoints.native import backbone_weights, load_checkpoint, resolve_weights
from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings.dimp50_nce_plus import public_sources, training_set, validation, validation_source
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, step_decay, train
from ebmtrack.videos.source import Source

SAMPLING = SamplingSettings(
    shares={"lasot": 1.0, "got10k": 1.0, "trackingnet": 1.0, "coco": 1.0},  # ECCV, supplement D.1: these four
    train_frames=1,  # pairs of frames: ATOM, section 3.1
    test_frames=1,
    max_gap=50,  # ATOM, section 3.1; here the test frame is always the later one
    rule="dimp",
)
LOOK = Look(grey=0.05, joint_flip=0.0, flip=0.0, brightness=0.2)  # ATOM (pytracking)
CROPS = CropSettings(
    output=288,  # this and all below: ATOM (pytracking)
    search_factor=5.0,
    train_jitter=Jitter.per_side(0.0, 0.0),  # the reference is centred on the target
    test_jitter=Jitter.per_side(4.5, 0.5),
    look=LOOK,
    still_look=LOOK,
    rule="dimp",
    border="replicate",
)
OBJECTIVE = ObjectiveSettings(
    box_loss="ml_is",
    sigmas=(0.05, 0.5),  # ECCV, section 4.2
    samples=128,  # ECCV, section 4.2
    box_weight=1.0,
    classifier_loss="none",
)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """What --set can change. An epoch is the part steps / epochs of the run, 1,000 batches by default."""

    backbone: str = "resnet18"
    start: str | None = None  # weights file, or name of a network that comes with ebmtrack
    steps: int = 50_000  # 50 epochs (ECCV, supplement D.1) of 1,000 batches (ATOM)
    epochs: int = 50
    batch: int = 64  # ATOM, section 3.1
    workers: int = 8
    bfloat16: bool = False
    checkpoint_every: int = 500
    validate_every: int = 5000
    validation_samples: int = 500
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rate: float = 1e-3  # ECCV, supplement D.1, as the decay
    decay_epochs: int = 15
    decay: float = 0.2
    params: str = "atom_energy"  # set-up in tracker_params for --set track_on
    vot_list: Path | None = None  # names of GOT-10k sequences to leave out: the list of the VOT challenge
    packs: Path | None = None  # folder of packs (`ebmtrack pack`), named as the shares
    prepared: Path | None = None  # folder of prepared frames, for batches that are made on the device


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return train(plan(settings, public_sources(settings), validation_source()), settings)


def plan(settings: Settings, sources: Mapping[str, Source], held_back: Source | None = None) -> Plan:
    """The run on sources named as in `sampling.shares`, or on prepared frames; held_back: what it is validated on."""
    torch.manual_seed(settings.seed)
    net = starting_net(settings)
    for module in (net.feature_extractor, net.classifier):
        module.requires_grad_(False)
    return Plan(
        net=net,
        objective=Objective(net, settings.sampling.train_frames, settings.objective, settings.bfloat16),
        dataset=training_set(settings, sources),
        groups=[{"params": list(net.bb_regressor.parameters()), "lr": settings.rate}],
        set_mode=train_box_branch,
        rate=step_decay(max(1, settings.steps // settings.epochs), settings.decay_epochs, settings.decay),
        validate=validation(settings, held_back) if held_back else None,
        params=settings.params,
    )


def starting_net(settings: Settings) -> TrackerNet:
    """A network with a new box branch on the trunk of `start`, or on an ImageNet trunk."""
    if settings.start is None:
        net = TrackerNet("dimp18")
        net.feature_extractor.load_state_dict(backbone_weights(settings.backbone))
        return net
    net = load_checkpoint(resolve_weights(settings.start))
    net.bb_regressor = BoxEnergy(net.feature_extractor.channels)
    return net


def train_box_branch(net: TrackerNet) -> None:
    """Training mode for the box branch alone."""
    net.eval()
    net.bb_regressor.train()
