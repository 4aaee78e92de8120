"""A longer first stage of DiMP-18 with NCE+ on the grown pool, from the weights of ebm18_small.

    ebmtrack train ebm18 --data POOL --out runs/ebm18

The trunk's stem (conv1, layer1) stays as it is; layer2, layer3 and both branches learn from the first step, with weight
decay, dropout, a moving average of the weights, occluders, look-alikes and small targets.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.utils.data import Dataset

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.data.augment import Look
from ebmtrack.data.disturb import Disturbance, Material
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.pool import open_training_folder
from ebmtrack.data.sampling import SamplingSettings, make_sampler
from ebmtrack.ltr_settings import ebm18_small
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.compiled import plain_state, prepare_for_speed
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.plan import Data, HeldBack, Network, Plan, branches, parameter_groups
from ebmtrack.weights import DEFAULT_WEIGHTS

SAMPLING = dataclasses.replace(ebm18_small.SAMPLING, shares={"video": 0.40, "stills": 0.35, "synthetic": 0.25})
CROPS = dataclasses.replace(
    ebm18_small.CROPS,
    look=Look(flip=0.1, contrast=0.2, saturation=0.3, blur=0.1, motion_blur=0.2, noise=0.1),
    still_look=Look(flip=0.25, brightness=0.3, contrast=0.3, saturation=0.4, blur=0.25, motion_blur=0.2, noise=0.2),
    disturbance=Disturbance(occlude_train=0.08, occlude_test=0.22, look_alike=0.12, low_resolution=0.15),
)
RATES = {"box": 6e-4, "classifier": 2e-4, "initializer": 2e-4, "filter_optimizer": 3e-4, "layer3": 1e-4, "layer2": 5e-5}


@dataclasses.dataclass(frozen=True)
class Settings(ebm18_small.PoolSettings):
    """The settings of the run.

    Attributes:
        start: weights to go on from; None for those that come with ebmtrack.
        weight_decay: decoupled weight decay (AdamW).
        dropout: of the box branch's last hidden layer.
        average: decay of the moving average of the weights.
        compile: whether parts of the network are compiled, which needs a C++ compiler.
        rates: learning rate of each part.
    """

    start: str | None = None
    steps: int = 6000
    checkpoint_every: int = 100
    validate_every: int = 1000
    warmup: int = 200
    weight_decay: float = 0.05
    dropout: float = 0.1
    average: float = 0.999
    compile: bool = True
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = ObjectiveSettings(samples=64, statistics="together")
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))

    def explicit(self) -> Settings:
        """Return the settings with the name of the network that training begins with."""
        return dataclasses.replace(self, start=self.start or DEFAULT_WEIGHTS)


def plan(settings: Settings) -> Plan:
    """Return the run on the pool in the folder `data`."""
    ebm18_small.pool_folder(settings)
    return Plan(network(settings), data(settings), ebm18_small.objective(settings), ebm18_small.validation(settings))


def network(settings: Settings) -> Network:
    """Return the prepared network and its optimisation; its end has the entries of a plain network."""
    torch.manual_seed(settings.seed)
    net = load_checkpoint(resolve_weights(settings.start))
    net.to(memory_format=torch.channels_last)
    net.bb_regressor.dropout = settings.dropout
    prepare_for_speed(net, settings.compile)
    parts = {**branches(net), "layer3": net.feature_extractor.layer3, "layer2": net.feature_extractor.layer2}
    return Network(
        net,
        parameter_groups(parts, settings.rates),
        set_mode=ebm18_small.train_with_frozen_statistics,
        weight_decay=settings.weight_decay,
        average=settings.average,
        finish=plain_network,
    )


def plain_network(trained: TrackerNet) -> TrackerNet:
    """Return a plain network that computes what the folded and compiled one computes."""
    net = TrackerNet(trained.config)
    net.load_state_dict(plain_state(trained))
    return net


def data(settings: ebm18_small.PoolSamples) -> Data:
    """Return disturbed training samples, and undisturbed samples of targets that are not trained on."""
    samples = HeldBack(held_back(settings), settings.sampling.train_frames, number=120)
    return Data(training_set(settings), samples)


def training_set(settings: ebm18_small.PoolSamples) -> Dataset:
    """Return the samples that CPU workers cut from the pool's files."""
    pool = open_training_folder(ebm18_small.pool_folder(settings), "train", decoded_limit=5 * 2**30)
    sampler = make_sampler(pool, ebm18_small.with_shares_of(settings.sampling, pool), settings.seed)
    material = pool.get("synthetic")
    if isinstance(material, Material):
        return TrainingSet(sampler, settings.crops, settings.samples, material=material)
    plain = dataclasses.replace(settings.crops.disturbance, occlude_train=0.0, occlude_test=0.0)  # nothing to cut out
    return TrainingSet(sampler, dataclasses.replace(settings.crops, disturbance=plain), settings.samples)


def held_back(settings: ebm18_small.PoolSamples) -> TrainingSet:
    """Return 120 undisturbed samples of targets that are not trained on."""
    crops = dataclasses.replace(settings.crops, disturbance=Disturbance())
    return ebm18_small.held_back(dataclasses.replace(settings, crops=crops), samples=120)
