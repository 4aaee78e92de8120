"""The network that ships: DiMP-18 with NCE+, trained on a small pool of video, photographs and compositions.

    ebmtrack train ebm18_small --data POOL --backbone resnet18.safetensors --out runs/ebm18_small

POOL holds got10k/ or own sequences NAME/{img,groundtruth_rect.txt}, coco/, cutouts/ and backgrounds/, as far as there
are any; every tenth own sequence is held back for validation. The backbone file holds torchvision's
ImageNet weights (without --backbone they are downloaded). Two CPU cores with bfloat16 take about two hours. `--set
prepared=FOLDER` makes batches on the device, of packs in its memory; POOL is then needed for validation alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.device_batches import batches_from_packs
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_training_folder
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import cpu_has_bfloat16
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.distributed import device_of_process
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.plan import Data, HeldBack, Network, Plan, branches, parameter_groups, starting_network
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.source import Source

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


OBJECTIVE = ObjectiveSettings(statistics="together")


@dataclasses.dataclass(frozen=True)
class PoolSamples(RunSettings):
    """The settings of every run on the pool.

    Attributes:
        sampling: sources and frames of a sample.
        crops: search regions.
    """

    data: Path | None = Path("data/train")
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS


@dataclasses.dataclass(frozen=True)
class PoolSettings(PoolSamples):
    """The settings of every run that learns from the pool's boxes.

    Attributes:
        objective: losses.
    """

    objective: ObjectiveSettings = OBJECTIVE


@dataclasses.dataclass(frozen=True)
class Settings(PoolSettings):
    """The settings of the run.

    Attributes:
        rates: Adam's learning rate of each part.
        thaw: part of the steps for which conv1, layer1 and layer2 stay as they are.
        prepared: folder of packs to keep in the device's memory, where batches are made.
    """

    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    thaw: float = 0.88
    prepared: Path | None = None


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`."""
    pool_folder(settings)
    samples = data(settings)  # missing data are an error before weights are downloaded
    return Plan(network(settings), samples, objective(settings), validation(settings))


def pool_folder(settings: RunSettings) -> Path:
    """Return the folder of the pool; raise a ConfigError if there is none."""
    if settings.data is None or not settings.data.is_dir():
        raise ConfigError(f"no training data at {settings.data}: give the pool's folder with --data")
    return settings.data


def network(settings: Settings) -> Network:
    """Return a new network whose classifier begins as a correlation, or the network `start`."""
    torch.manual_seed(settings.seed)
    net = starting_network(settings.arch, settings.backbone, settings.start)
    if settings.start is None:
        start_classifier_from_backbone(net)
    net.to(memory_format=torch.channels_last)
    trunk = net.feature_extractor
    early = [trunk.conv1, trunk.layer1, trunk.layer2]
    parts = {**branches(net), "layer3": trunk.layer3, "early": nn.ModuleList(early)}
    groups = parameter_groups(parts, settings.rates)
    return Network(net, groups, thaw=(settings.thaw, early), set_mode=train_with_frozen_statistics)


def objective(settings: PoolSettings) -> Objective:
    """Return the losses."""
    return Objective(settings.sampling.train_frames, settings.objective, settings.bfloat16)


def validation(settings: PoolSamples) -> Objective:
    """Return the losses of validation, which all runs on the pool compute alike: in bfloat16 on a CPU that has it."""
    on_cpu = device_of_process(settings.device).type == "cpu"
    return Objective(settings.sampling.train_frames, OBJECTIVE, on_cpu and cpu_has_bfloat16())


def data(settings: Settings) -> Data:
    """Return training samples, and samples of targets that are not trained on."""
    return Data(training_set(settings), HeldBack(held_back(settings), settings.sampling.train_frames))


def training_set(settings: Settings) -> Dataset:
    """Return samples that CPU workers cut from the pool's files, or that the device cuts from packs in its memory."""
    sampling = settings.sampling
    if settings.prepared is None:
        pool = open_training_folder(pool_folder(settings), "train", decoded_limit=6 * 2**30)
        sampler = make_sampler(pool, with_shares_of(sampling, pool), settings.seed)
        return TrainingSet(sampler, settings.crops, settings.samples)
    device = device_of_process(settings.device)
    return batches_from_packs(settings.prepared, device, sampling, settings.crops, settings.seed, settings.samples)


def with_shares_of(sampling: SamplingSettings, sources: Mapping[str, Source]) -> SamplingSettings:
    """Return the settings without shares of kinds of data that are not there."""
    shares = {name: share for name, share in sampling.shares.items() if name in sources}
    return dataclasses.replace(sampling, shares=shares)


def start_classifier_from_backbone(net: TrackerNet) -> None:
    """Let the classifier begin as a correlation on layer3, which its blocks and convolution pass through."""
    classifier = net.classifier
    *blocks, final = classifier.feature_extractor.children()
    for block in blocks:
        nn.init.zeros_(block.get_parameter("bn2.weight"))
    weights = (final.get_parameter("weight"), classifier.filter_initializer.filter_conv.weight)
    for weight, noise, gain in zip(weights, (0.0012, 0.00074), (1.0, 0.25)):
        nn.init.normal_(weight, std=noise)
        with torch.no_grad():
            weight[:, :, 1, 1] += gain * torch.eye(*weight.shape[:2])


def train_with_frozen_statistics(net: TrackerNet) -> None:
    """Set training mode, except for the backbone's batch norm, whose weights file has folded statistics."""
    net.train()
    net.feature_extractor.eval()


def held_back(settings: PoolSamples, samples: int = 60) -> TrainingSet:
    """Return samples of targets that are not trained on, the same ones each time."""
    pool = open_training_folder(pool_folder(settings), "validation", decoded_limit=2**28)
    shares = {"video": 0.7, "stills": 0.3} if pool.keys() - {"synthetic"} else {"synthetic": 1.0}
    sampling = with_shares_of(dataclasses.replace(settings.sampling, shares=shares), pool)
    sources = {name: pool[name] for name in sampling.shares}
    return TrainingSet(make_sampler(sources, sampling, seed=1), settings.crops, samples)
