"""The box branch of ECCV 2020's tracker: ATOM's on ResNet-18, its energy trained by ML-IS over a frozen trunk.

    ebmtrack train atom18_ml_is --device cuda --workers 8

ATOM learns its classifier while it tracks, so this trains no classifier: trunk and box branch alone. To track with the
result, begin with a DiMP-18 whose trunk and classifier are kept, and whose box branch is trained anew (with
`new_box=false` its last layer alone begins anew, for short runs):

    ebmtrack train atom18_ml_is --device cuda --workers 8 --set start=ebm18_small
    ebmtrack track video.mp4 --params atom_energy --weights runs/atom18_ml_is/atom18_ml_is.safetensors

Without `start` the trunk has ImageNet weights, and the classifier in the file is untrained. The trunk gets no
gradients, but its batch norm is in training mode and follows the images, as the authors ran it; with `start` it stays
as it is, because the classifier was trained on it.
"""

from __future__ import annotations

import dataclasses

import torch

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.errors import ConfigError
from ebmtrack.ltr_settings import dimp50_nce_plus
from ebmtrack.ltr_settings.dimp50_nce_plus import data, objective, rate_of
from ebmtrack.nets.box_energy import BoxEnergy
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.plan import Network, Plan, parameter_groups, starting_network

SAMPLING = SamplingSettings(
    shares={"lasot": 1.0, "got10k": 1.0, "trackingnet": 1.0, "coco": 1.0},  # ECCV, supplement D.1: these four
    train_frames=1,  # pairs of frames: ATOM, section 3.1
    test_frames=1,
    max_gap=200,  # atom_prob_ml, atom_gmm_sampl (pytracking); 50 in ATOM
    rule="interval",  # the test frame is before or after the reference
)
LOOK = Look(grey=0.05, joint_flip=0.0, flip=0.0, brightness=0.2)  # ATOM (pytracking)
CROPS = CropSettings(
    output=288,  # this and all below: ATOM (pytracking)
    search_factor=5.0,
    train_jitter=Jitter.per_side(0.0, 0.0),  # the reference is centred on the target
    test_jitter=Jitter.per_side(4.5, 0.5),
    look=LOOK,
    still_look=LOOK,
    rule="atom",
)
OBJECTIVE = ObjectiveSettings(
    box_loss="ml_is",
    sigmas=(0.05, 0.5),  # ECCV, section 4.2
    samples=128,  # ECCV, section 4.2
    box_weight=1.0,
    classifier_loss="none",
)


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 1,000 batches by default.

    Attributes:
        new_box: whether the whole box branch begins anew. If False, `start`'s has a new last layer alone: for short
            runs, also with another loss.
    """

    arch: str = "dimp18"
    backbone: str = "resnet18"
    steps: int = 50_000  # 50 epochs (ECCV, supplement D.1) of 1,000 batches (ATOM)
    batch: int = 64  # ATOM, section 3.1
    validate_every: int = 5000
    validation_samples: int = 500
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"box": 1e-3})  # ECCV, supplement D.1
    params: str = "atom_energy"
    new_box: bool = True


def plan(settings: Settings) -> Plan:
    """Return the run on the public data sets."""
    samples = data(settings)  # missing data are an error before weights are downloaded
    return Plan(network(settings), samples, objective(settings), params=settings.params)


def network(settings: Settings) -> Network:
    """Return a network whose trunk has no gradients, with a new box branch or that of `start`."""
    if settings.start is None and not settings.new_box:
        raise ConfigError("new_box=false trains on the box branch of a network: give it with --set start=ebm18_small")
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    if settings.start is not None and settings.new_box:
        net.bb_regressor = BoxEnergy(net.feature_extractor.channels)
    elif settings.start is not None:
        net.bb_regressor.iou_predictor.reset_parameters()
    for module in (net.feature_extractor, net.classifier):
        module.requires_grad_(False)
    groups = parameter_groups({"box": net.bb_regressor}, settings.rates)
    set_mode = train_with_moving_statistics if settings.start is None else train_box_branch
    return Network(net, groups, set_mode=set_mode, rate=rate_of(settings))


def train_with_moving_statistics(net: TrackerNet) -> None:
    """Set training mode for box branch and trunk, whose batch norm follows the images (as the authors ran it)."""
    train_box_branch(net)
    net.feature_extractor.train()


def train_box_branch(net: TrackerNet) -> None:
    """Set training mode for the box branch alone."""
    net.eval()
    net.bb_regressor.train()
