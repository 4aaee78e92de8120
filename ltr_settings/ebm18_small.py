"""The network that ships: DiMP-18 with NCE+, trained on a small pool of video, photographs and compositions.

    ebmtrack train ebm18_small --data POOL --backbone resnet18.safetensors --out runs/ebm18_small

POOL holds got10k/, coco/, cutouts/ and backgrounds/; the backbone file holds torchvision's ImageNet weights (without
--backbone they are downloaded). Two CPU cores with bfloat16 take about two hours.
"""

from __future__ import annotations

import torch
from torch import nn

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import Sampler
from ebmtrack.data.sources.pool import open_pool
from ebmtrack.nets.checkpoint import backbone_weights
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, train
from ebmtrack.training.validation import Validation

TRAIN_FRAMES, TEST_FRAMES = 2, 2
SHARES = {"video": 0.40, "stills": 0.25, "synthetic": 0.35}
CROPS = CropSettings(
    train_jitter=Jitter(3.0, 0.25, 0.1),
    test_jitter=Jitter(4.5, 0.5, 0.2),
    look=Look(flip=0.1, contrast=0.2, saturation=0.3, blur=0.1, motion_blur=0.1, noise=0.1),
    still_look=Look(flip=0.25, brightness=0.3, contrast=0.3, saturation=0.4, blur=0.25, motion_blur=0.15, noise=0.2),
    cut_at={"video": 5.0},  # frames of the pool's video end ten target sizes apart
    least_scene_frac=0.6,
)


def run(settings: RunSettings) -> TrackerNet:
    """Train and return the network."""
    torch.manual_seed(settings.seed)
    net = TrackerNet("dimp18")
    net.feature_extractor.load_state_dict(backbone_weights(settings.backbone))
    start_classifier_from_backbone(net)
    net.to(memory_format=torch.channels_last)

    pool = open_pool(settings.data, "train", decoded_limit=6 * 2**30)
    sampler = Sampler(list(pool.values()), [SHARES[n] for n in pool], TRAIN_FRAMES, TEST_FRAMES, 30, settings.seed)
    dataset = TrainingSet(sampler, CROPS, settings.samples)

    trunk = net.feature_extractor
    early = [trunk.conv1, trunk.layer1, trunk.layer2]
    classifier = net.classifier
    groups = [
        {"params": list(net.bb_regressor.parameters()), "lr": 1e-3},
        {"params": list(classifier.feature_extractor.parameters()), "lr": 2e-4},
        {"params": list(classifier.filter_initializer.parameters()), "lr": 2e-4},
        {"params": list(classifier.filter_optimizer.parameters()), "lr": 5e-4},
        {"params": list(trunk.layer3.parameters()), "lr": 5e-5},
        {"params": [p for module in early for p in module.parameters()], "lr": 1e-4},  # only at the cosine's end
    ]
    plan = Plan(
        net=net,
        objective=Objective(net, TRAIN_FRAMES, ObjectiveSettings(), settings.bfloat16),
        dataset=dataset,
        groups=groups,
        thaw=(0.88, early),
        set_mode=train_with_frozen_statistics,
        validate=Validation(held_back(settings), TRAIN_FRAMES),
    )
    return train(plan, settings)


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


def held_back(settings: RunSettings, samples: int = 60) -> TrainingSet:
    """Samples of targets that are not trained on, the same ones each time."""
    pool = open_pool(settings.data, "validation", decoded_limit=2**28)
    sampler = Sampler([pool["video"], pool["stills"]], [0.7, 0.3], TRAIN_FRAMES, TEST_FRAMES, 30, seed=1)
    return TrainingSet(sampler, CROPS, samples)
