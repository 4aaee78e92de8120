"""The network that ships: DiMP-18 with NCE+, trained on a small pool of video, photographs and compositions.

    ebmtrack train ebm18_small --data POOL --backbone resnet18.safetensors --out runs/ebm18_small

POOL holds got10k/, coco/, cutouts/ and backgrounds/; the backbone file holds torchvision's ImageNet weights (without
--backbone they are downloaded). Two CPU cores with bfloat16 take about two hours.
"""

from __future__ import annotations

import torch
from torch import nn

from ebmtrack.boxes import iou_xywh, xywh_to_xyxy
from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import Sampler
from ebmtrack.data.sources.pool import open_pool
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.checkpoint import backbone_weights
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.training.objective import Objective, ObjectiveSettings
from ebmtrack.training.run import Plan, RunSettings, train

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
    dataset = TrainingSet(sampler, CROPS, settings.steps * settings.batch)

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
        validate=Validation(settings),
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


class Validation:
    """Losses and box overlap after ascent on held-back targets, the same ones each time."""

    def __init__(self, settings: RunSettings, samples: int = 60):
        pool = open_pool(settings.data, "validation", decoded_limit=2**28)
        sampler = Sampler([pool["video"], pool["stills"]], [0.7, 0.3], TRAIN_FRAMES, TEST_FRAMES, 30, seed=1)
        dataset = TrainingSet(sampler, CROPS, samples)
        items = [dataset[index] for index in range(samples)]
        self.batches = [
            {key: torch.stack([item[key] for item in items[first : first + 10]]) for key in items[0]}
            for first in range(0, samples, 10)
        ]

    @torch.no_grad()
    def __call__(self, net: TrackerNet) -> dict[str, float]:
        """val_box and val_last (losses), val_iou (mean overlap after ten steps from jittered boxes)."""
        net.eval()
        device = next(net.parameters()).device
        objective = Objective(net, TRAIN_FRAMES, ObjectiveSettings(), device.type == "cpu")
        figures = {"val_box": [], "val_last": [], "val_iou": []}
        for batch in self.batches:
            generator = torch.Generator().manual_seed(7)
            _, logs = objective(batch, generator)
            figures["val_box"].append(logs["box"].item())
            figures["val_last"].append(1000 * logs["last"].item())
            figures["val_iou"].append(overlap_after_ascent(net, batch, generator))
        return {key: sum(values) / len(values) for key, values in figures.items()}


def overlap_after_ascent(net: TrackerNet, batch: dict[str, torch.Tensor], generator: torch.Generator) -> float:
    """Mean IoU with the truth after ten steps of 2.5e-3 from boxes displaced by 10 % and resized by up to 40 %."""
    device = next(net.parameters()).device
    crops, truth = batch["crops"][:, [0, TRAIN_FRAMES]], batch["boxes_xywh"][:, [0, TRAIN_FRAMES]].to(device)
    images = normalize_images(crops.to(device).permute(0, 1, 4, 2, 3).flatten(0, 1)).unflatten(0, crops.shape[:2])
    noise = torch.randn(len(truth), 4, generator=generator).to(device)
    size = truth[:, 1, 2:] * (0.2 * noise[:, 2:]).clamp(-0.4, 0.4).exp()
    centre = truth[:, 1, :2] + truth[:, 1, 2:] / 2 + 0.1 * noise[:, :2] * truth[:, 1, 2:]
    layer2, layer3 = net.feature_extractor(images.flatten(0, 1))
    modulation = net.bb_regressor.modulation(layer2[::2], layer3[::2], xywh_to_xyxy(truth[:, 0]))
    features = net.bb_regressor.features(layer2[1::2], layer3[1::2])
    y = torch.cat([centre / size, size.log()], dim=1)
    for _ in range(10):
        with torch.enable_grad():
            y.requires_grad_()
            boxes = torch.cat([y[:, :2] * size - y[:, 2:].exp() / 2, y[:, :2] * size + y[:, 2:].exp() / 2], dim=1)
            (gradient,) = torch.autograd.grad(net.bb_regressor(modulation, features, boxes[:, None]).sum(), y)
        y = (y + 2.5e-3 * gradient).detach()
    boxes = torch.cat([y[:, :2] * size - y[:, 2:].exp() / 2, y[:, 2:].exp()], dim=1)
    return iou_xywh(boxes, truth[:, 1]).mean().item()
