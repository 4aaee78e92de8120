"""The network that ships: DiMP-18 with NCE+, trained on a small pool of video, photographs and compositions.

    ebmtrack train ebm18_small --data POOL --backbone resnet18.safetensors --out runs/ebm18_small

POOL holds got10k/, coco/, cutouts/ and backgrounds/; the backbone file holds torchvision's ImageNet weights (without
--backbone they are downloaded). Two CPU cores with bfloat16 take about two hours. `--set prepared=FOLDER` makes batches
on the device, of frames that stay in its memory; POOL is then needed for validation alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from ebmtrack.checkpoints.native import backbone_weights
from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.on_device import DeviceBatches, DeviceFrames
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_pool
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.errors import ConfigError
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import pick_device
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, train
from ebmtrack.training.validation import Validation

SHARES = {"video": 0.40, "stills": 0.25, "synthetic": 0.35}
SAMPLING = SamplingSettings(
    shares=SHARES,
    train_frames=2,
    test_frames=2,
    max_gap=30,
    rule="any",  # some clips have six frames
)
CROPS = CropSettings(
    train_jitter=Jitter(3.0, 0.25, 0.1),
    test_jitter=Jitter(4.5, 0.5, 0.2),
    look=Look(flip=0.1, contrast=0.2, saturation=0.3, blur=0.1, motion_blur=0.1, noise=0.1),
    still_look=Look(flip=0.25, brightness=0.3, contrast=0.3, saturation=0.4, blur=0.25, motion_blur=0.15, noise=0.2),
    cut_at={"video": 5.0},  # frames of the pool's video end ten target sizes apart
    least_scene_frac=0.6,
)


RATES = {
    "box": 1e-3,
    "classifier": 2e-4,
    "initializer": 2e-4,
    "filter_optimizer": 5e-4,
    "layer3": 5e-5,
    "early": 1e-4,  # conv1, layer1, layer2: only at the cosine's end
}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """What --set can change."""

    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = ObjectiveSettings()
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    thaw: float = 0.88  # conv1, layer1 and layer2 stay as they are for this share of the steps
    prepared: Path | None = None  # folder of prepared frames, for batches that are made on the device


def run(settings: Settings) -> TrackerNet:
    """Train and return the network."""
    return train(plan(settings), settings)


def plan(settings: Settings) -> Plan:
    """The run on the pool in the folder `data`."""
    if not settings.data.is_dir():
        raise ConfigError(f"no training data at {settings.data}: give the pool's folder with --data")
    torch.manual_seed(settings.seed)
    net = TrackerNet("dimp18")
    net.feature_extractor.load_state_dict(backbone_weights(settings.backbone))
    start_classifier_from_backbone(net)
    net.to(memory_format=torch.channels_last)

    trunk, classifier, n = net.feature_extractor, net.classifier, settings.sampling.train_frames
    early = [trunk.conv1, trunk.layer1, trunk.layer2]
    trained = {
        "box": net.bb_regressor,
        "classifier": classifier.feature_extractor,
        "initializer": classifier.filter_initializer,
        "filter_optimizer": classifier.filter_optimizer,
        "layer3": trunk.layer3,
        "early": nn.ModuleList(early),
    }
    return Plan(
        net=net,
        objective=Objective(net, n, settings.objective, settings.bfloat16),
        dataset=training_set(settings),
        groups=[{"params": list(trained[name].parameters()), "lr": rate} for name, rate in settings.rates.items()],
        thaw=(settings.thaw, early),
        set_mode=train_with_frozen_statistics,
        validate=Validation(held_back(settings), n),
    )


def training_set(settings: Settings) -> Dataset:
    """Samples that CPU workers cut from the pool's files, or that the device cuts from frames in its memory."""
    sampling = settings.sampling
    if settings.prepared is None:
        pool = open_pool(settings.data, "train", decoded_limit=6 * 2**30)
        return TrainingSet(make_sampler(pool, sampling, settings.seed), settings.crops, settings.samples)
    frames = DeviceFrames.load(settings.prepared, pick_device(settings.device))
    counts = (sampling.train_frames, sampling.test_frames, sampling.max_gap)
    return DeviceBatches(
        frames, settings.crops, sampling.shares, *counts, settings.seed, sampling.rule, length=settings.samples
    )


def start_classifier_from_backbone(net: TrackerNet) -> None:
    """Let the classifier begin as a correlation on layer3, which its block and convolution pass through."""
    block, final = net.classifier.feature_extractor
    nn.init.zeros_(block.bn2.weight)
    for conv, gain in ((final, 1.0), (net.classifier.filter_initializer.filter_conv, 0.25)):
        with torch.no_grad():
            conv.weight.mul_(0.1 * gain)
            conv.weight[:, :, 1, 1] += gain * torch.eye(conv.weight.shape[0])


def train_with_frozen_statistics(net: TrackerNet) -> None:
    """Training mode, except the backbone's batch norm, whose weights file holds folded statistics."""
    net.train()
    net.feature_extractor.eval()


def held_back(settings: Settings, samples: int = 60) -> TrainingSet:
    """Samples of targets that are not trained on, the same ones each time."""
    pool = open_pool(settings.data, "validation", decoded_limit=2**28)
    sampling = dataclasses.replace(settings.sampling, shares={"video": 0.7, "stills": 0.3})
    sources = {name: pool[name] for name in sampling.shares}
    return TrainingSet(make_sampler(sources, sampling, seed=1), settings.crops, samples)
