"""ResNet-18 and ResNet-50 trunks to stride 16, and folding of frozen batch norm for inference.

Source: He et al., CVPR 2016; names and shapes as torchvision's, so that its weights fit. layer4 and fc are not built.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ebmtrack.errors import ConfigError
from ebmtrack.nets.residual import BasicBlock, Bottleneck

Net = TypeVar("Net", bound=nn.Module)

Block = type[BasicBlock] | type[Bottleneck]
BLOCKS: dict[str, tuple[Block, tuple[int, ...]]] = {  # of layer1 to layer4
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB in [0, 1] (torchvision)
IMAGE_STD = (0.229, 0.224, 0.225)


class ResNetTrunk(nn.Module):
    """Images (N, 3, H, W), normalised -> layer2 (N, c2, H/8, W/8) and layer3 (N, c3, H/16, W/16).

    (c2, c3) = `channels` = (128, 256) for resnet18 and (512, 1024) for resnet50 (stride in the 3x3 convolution).
    """

    def __init__(self, name: str = "resnet18"):
        super().__init__()
        if name not in BLOCKS:
            raise ConfigError(f"unknown backbone {name!r}; known are {', '.join(BLOCKS)}")
        block, depths = BLOCKS[name]
        self.channels = (128 * block.expansion, 256 * block.expansion)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = residual_stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = residual_stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem_modules(self) -> list[nn.Module]:
        """Return the modules that `stem` computes with."""
        return [self.conv1, self.bn1, self.layer1]

    def stem(self, images: Tensor) -> Tensor:
        """Return layer1 (N, c, H/4, W/4)."""
        return self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))

    def body(self, layer1: Tensor) -> tuple[Tensor, Tensor]:
        """Return layer2 and layer3 from layer1."""
        layer2 = self.layer2(layer1)
        return layer2, self.layer3(layer2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(self.stem(images))


def residual_stage(block: Block, inplanes: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    """Return `depth` residual blocks; the first changes stride and channels, with a projection if the shape changes."""
    outplanes = planes * block.expansion
    projection = None
    if stride != 1 or inplanes != outplanes:
        projection = nn.Sequential(nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), nn.BatchNorm2d(outplanes))
    rest = [block(outplanes, planes) for _ in range(depth - 1)]
    return nn.Sequential(block(inplanes, planes, stride, projection), *rest)


def normalize_images(images: Tensor, trunk: nn.Module | None = None) -> Tensor:
    """Return RGB images (N, 3, H, W) with values 0..255 as float images with the mean and deviation that a trunk needs.

    Args:
        images: of any dtype.
        trunk: of `nets.backbones.build_trunk`; None for the ImageNet mean and deviation of ResNets.
    """
    image_mean, image_std = getattr(trunk, "image_mean", IMAGE_MEAN), getattr(trunk, "image_std", IMAGE_STD)
    dtype = images.dtype if images.is_floating_point() else torch.float32
    mean = torch.tensor(image_mean, device=images.device, dtype=dtype).view(3, 1, 1) * 255
    std = torch.tensor(image_std, device=images.device, dtype=dtype).view(3, 1, 1) * 255
    return (images.to(dtype) - mean) / std


def fold_batch_norm(net: Net) -> Net:
    """Merge every batch norm of `net`, in place, into the convolution or linear layer defined just before it.

    `net` must be in eval mode; values stay the same up to rounding. Returns `net`.
    """
    for module in net.modules():
        names = [name for name, child in module.named_children() if not isinstance(child, nn.ReLU)]
        for name, following in zip(names, names[1:]):
            layer, norm = getattr(module, name), getattr(module, following)
            if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, following, nn.Identity())
            elif isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Linear):
                setattr(module, name, fuse_linear_bn_eval(layer, norm))
                setattr(module, following, nn.Identity())
    return net
