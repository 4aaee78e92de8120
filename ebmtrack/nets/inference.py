"""The network as the tracker runs it: folded batch norm, and bfloat16 in hardware."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

from ebmtrack.device import multiplies_bfloat16
from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import fold_batch_norm, normalize_images
from ebmtrack.nets.classifier import instance_l2_norm
from ebmtrack.nets.tracker_net import TrackerNet

PRECISIONS = ("auto", "float32", "bfloat16")


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether PyTorch multiplies bfloat16 in this CPU's hardware."""
    if not torch.backends.mkldnn.is_available():
        return False
    return multiplies_bfloat16()


def gpu_has_bfloat16(device: torch.device) -> bool:
    """Return whether this GPU multiplies bfloat16 in hardware; PyTorch alone would count GPUs that emulate it, too."""
    if torch.version.hip:
        return torch.cuda.is_bf16_supported()
    return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere


class InferenceNet:
    """A frozen copy of a TrackerNet for tracking; the original stays as it is.

    precision: "float32", "bfloat16" (the convolutions; filters, energies and all sums stay in float32), or "auto":
    bfloat16 on CPUs and GPUs that have it in hardware. On CUDA "float32" leaves cuDNN's convolutions in TF32 (10 bits
    of mantissa), as PyTorch does by default, unless torch.backends.cudnn.allow_tf32 is False. Deep copies share the
    network: it never changes.
    """

    def __init__(self, net: TrackerNet, device: str | torch.device = "cpu", precision: str = "auto"):
        self.config = net.config
        self.device = torch.device(device)
        self.dtype = choose_dtype(self.device, precision)
        net = fold_batch_norm(copy.deepcopy(net).to(self.device).float().eval()).requires_grad_(False)
        self.backbone, self.classifier, self.box_energy = net.feature_extractor, net.classifier, net.bb_regressor
        box = self.box_energy
        convolutions: list[nn.Module] = [self.backbone, self.classifier.feature_extractor]
        convolutions += [box.conv3_1t, box.conv3_2t, box.conv4_1t, box.conv4_2t, box.conv3_1r, box.conv4_1r]
        for module in convolutions:
            module.to(dtype=self.dtype).to(memory_format=torch.channels_last)

    def __deepcopy__(self, memo: dict) -> InferenceNet:
        return self

    def extract(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return layer2 and layer3, channels last, of patches (N, H, W, 3), RGB 0..255, any dtype."""
        images = normalize_images(patches.to(self.device).permute(0, 3, 1, 2), self.backbone).to(self.dtype)
        return self.backbone(images.contiguous(memory_format=torch.channels_last))

    def classify(self, layer3: Tensor) -> Tensor:
        """Return the classification features (N, c, h, w), float32, contiguous, of layer3."""
        return self.normalize_norms(self.classifier_features(layer3))

    def classify_each(self, layer3: Tensor) -> list[Tensor]:
        """Return `classify` of each of N images, (1, c, h, w), equal to the bit to that of the image alone."""
        return [self.normalize_norms(features) for features in self.classifier_features(layer3).split(1)]

    def classifier_features(self, layer3: Tensor) -> Tensor:
        """Return the classification features of layer3 before they are normalised, float32."""
        return self.classifier.feature_extractor(layer3).float()

    def normalize_norms(self, features: Tensor) -> Tensor:
        """Return classification features, each image's scaled to the same norm, contiguous."""
        return instance_l2_norm(features, self.classifier.norm_scale).contiguous()


def choose_dtype(device: str | torch.device, precision: str) -> torch.dtype:
    """Return the dtype that a precision of `InferenceNet` names on a device. Raises ConfigError if there is none."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    device = torch.device(device)
    if precision == "auto":
        fast = cpu_has_bfloat16() if device.type == "cpu" else device.type == "cuda" and gpu_has_bfloat16(device)
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, precision)
