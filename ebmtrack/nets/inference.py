"""The network as the tracker runs it: folded batch norm, bfloat16 where it pays, energies in closed form."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import fold_batch_norm, normalize_images
from ebmtrack.nets.box_energy import POOL
from ebmtrack.nets.classifier import instance_l2_norm
from ebmtrack.nets.roi_pool import bin_weights
from ebmtrack.nets.tracker_net import TrackerNet

PRECISIONS = ("auto", "float32", "bfloat16")


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16, AMX or Arm's BF16)."""
    if not torch.backends.mkldnn.is_available():
        return False
    features = _cpu_features()
    return "avx512_bf16" in features or "amx_bf16" in features or "bf16" in features


def _cpu_features() -> set[str]:
    """The CPU's instruction sets as Linux names them; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}


class InferenceNet:
    """A frozen copy of a TrackerNet for tracking; the original stays as it is.

    precision: "float32", "bfloat16" (the convolutions; filters, energies and all sums stay in float32), or "auto":
    bfloat16 on CPUs and GPUs that have it in hardware. Deep copies share the network: it never changes.
    """

    def __init__(self, net: TrackerNet, device: str | torch.device = "cpu", precision: str = "auto"):
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.config = net.config
        self.device = torch.device(device)
        self.dtype = _dtype(self.device, precision)
        net = fold_batch_norm(copy.deepcopy(net).to(self.device).float().eval()).requires_grad_(False)
        self.backbone, self.classifier, self.box_energy = net.feature_extractor, net.classifier, net.bb_regressor
        box = self.box_energy
        convolutions = [self.backbone, self.classifier.feature_extractor]
        convolutions += [box.conv3_1t, box.conv3_2t, box.conv4_1t, box.conv4_2t, box.conv3_1r, box.conv4_1r]
        for module in convolutions:
            module.to(dtype=self.dtype, memory_format=torch.channels_last)

    def __deepcopy__(self, memo: dict) -> InferenceNet:
        return self

    def extract(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, H, W, 3), RGB 0..255, any dtype -> layer2 and layer3 features, channels last."""
        images = normalize_images(patches.to(self.device).permute(0, 3, 1, 2)).to(self.dtype)
        return self.backbone(images.contiguous(memory_format=torch.channels_last))

    def classify(self, layer3: Tensor) -> Tensor:
        """layer3 -> classification features (N, c, h, w), float32, contiguous."""
        features = self.classifier.feature_extractor(layer3).float()
        return instance_l2_norm(features, self.classifier.norm_scale).contiguous()

    def box_features(self, layer2: Tensor, layer3: Tensor) -> list[Tensor]:
        """Backbone features of one image (1, c, h, w) -> box features [h, w, 256] at stride 8 and 16, float32."""
        return [f[0].permute(1, 2, 0).float().contiguous() for f in self.box_energy.features(layer2, layer3)]

    def target_energy(self, layer2: Tensor, layer3: Tensor, box_xyxy: Tensor) -> TargetEnergy:
        """The energy of boxes for the target that reference features (1, c, h, w) show in box (4,)."""
        box = self.box_energy
        reference3, reference4 = box.conv3_1r(layer2).float(), box.conv4_1r(layer3).float()
        vectors = box.modulation_of(reference3, reference4, box_xyxy[None])
        return TargetEnergy(box, [vector[0] for vector in vectors])


def _dtype(device: torch.device, precision: str) -> torch.dtype:
    """What `precision` means on a device."""
    if precision == "auto":
        fast = cpu_has_bfloat16() if device.type == "cpu" else device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, precision)


class TargetEnergy:
    """f(x, y) and its gradient in y for one target, with the modulation multiplied into the linear layers.

    Pooling is linear in the features and ReLU nets are piecewise linear, so that the gradient takes two more matrix
    products and no graph: f = v . relu(W P + b), P = Ay F Ax, dP/dx = Ay F dAx/dx (precise RoI pooling in closed form).
    """

    def __init__(self, net: nn.Module, vectors: list[Tensor]):
        """net: a BoxEnergy with folded batch norm; vectors: the modulation vectors (256,) at stride 8 and 16."""
        self.weights, self.biases = [], []
        for block, vector, (bins, _) in zip((net.fc3_rt, net.fc4_rt), vectors, POOL):
            weight = block.linear.weight.unflatten(1, (len(vector), bins, bins)) * vector[:, None, None]
            self.weights.append(weight.permute(0, 2, 3, 1).flatten(1).contiguous())   # (256, s s c)
            self.biases.append(block.linear.bias)
        self.out = net.iou_predictor.weight[0].split(256)
        self.bias = net.iou_predictor.bias

    def value_and_gradient(self, features: list[Tensor], boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (R,) and their gradients (R, 4) of boxes (R, 4) in crop pixels; features as from `box_features`."""
        energies, gradients = self.bias.expand(len(boxes_xyxy)), torch.zeros_like(boxes_xyxy)
        for weight, bias, out, feature, (bins, scale) in zip(self.weights, self.biases, self.out, features, POOL):
            pool = Pooling(feature, boxes_xyxy * scale, bins)
            hidden = torch.addmm(bias, pool.values.flatten(1), weight.t())
            energies = energies + hidden.relu() @ out
            cotangent = ((hidden > 0) * out) @ weight
            gradients = gradients + scale * pool.gradient(cotangent.view_as(pool.values))
        return energies, gradients

    def value(self, features: list[Tensor], boxes_xyxy: Tensor) -> Tensor:
        """Energies (R,) of boxes (R, 4) in crop pixels."""
        energies = self.bias.expand(len(boxes_xyxy))
        for weight, bias, out, feature, (bins, scale) in zip(self.weights, self.biases, self.out, features, POOL):
            pooled = Pooling(feature, boxes_xyxy * scale, bins).values
            energies = energies + torch.addmm(bias, pooled.flatten(1), weight.t()).relu() @ out
        return energies


class Pooling:
    """Precise RoI pooling of boxes from one map, and the transpose of its derivative in the boxes.

    Only the part of the map that the boxes touch takes part.
    """

    def __init__(self, feature: Tensor, boxes_cells: Tensor, bins: int):
        """feature (h, w, c); boxes (R, 4) as x0, y0, x1, y1 in cells. `values` is (R, bins, bins, c): y, x, channel."""
        self.bins = bins
        low, high = boxes_cells[:, :2], boxes_cells[:, 2:]
        area = (high > low).all(dim=1)[:, None, None]
        top, bottom = _touched(low[:, 1], high[:, 1], feature.shape[0])
        left, right = _touched(low[:, 0], high[:, 0], feature.shape[1])
        self.feature = feature[top:bottom, left:right]
        h, w, c = self.feature.shape
        self.low, self.high = low - low.new_tensor([left, top]), high - low.new_tensor([left, top])
        (x0, y0), (x1, y1) = self.low.unbind(1), self.high.unbind(1)
        self.across = torch.where(area, bin_weights(x0, x1, bins, w), 0.0)             # (R, s, w)
        self.down = torch.where(area, bin_weights(y0, y1, bins, h), 0.0)               # (R, s, h)
        r = len(boxes_cells)
        rows = self.down.reshape(r * bins, h) @ self.feature.reshape(h, w * c)
        self.rows = rows.view(r, bins, w, c)                                           # pooled in y only
        self.values = (self.across[:, None] @ self.rows)                               # (R, s, s, c)

    def gradient(self, cotangent: Tensor) -> Tensor:
        """Gradient (R, 4) in x0, y0, x1, y1 (cells) of the sum of cotangent (R, s, s, c) times values."""
        r, s, _, c = cotangent.shape
        h, w = self.feature.shape[:2]
        of_across = (cotangent @ self.rows.transpose(2, 3)).sum(1)                     # (R, s, w)
        spread = (self.across.transpose(1, 2)[:, None] @ cotangent).reshape(r * s, w * c)  # (R s, w c)
        of_down = (spread @ self.feature.reshape(h, w * c).t()).view(r, s, h)          # (R, s, h)
        x0, x1 = _edge_gradient(of_across, self.across, self.low[:, 0], self.high[:, 0])
        y0, y1 = _edge_gradient(of_down, self.down, self.low[:, 1], self.high[:, 1])
        return torch.stack([x0, y0, x1, y1], dim=1)


def _touched(low: Tensor, high: Tensor, length: int) -> tuple[int, int]:
    """First and last (exclusive) grid position whose hat function some interval [low, high] can touch."""
    first = min(max(int(low.min().floor()), 0), length - 1)
    return first, min(max(int(high.max().ceil()) + 1, first + 1), length)


def _edge_gradient(of_weights: Tensor, weights: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Chain rule from bin weights (R, s, L) to the two ends of the interval, each (R,)."""
    r, s, length = weights.shape
    fraction = torch.arange(s + 1, device=low.device, dtype=low.dtype) / s
    size = (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    position = torch.arange(length, device=low.device, dtype=low.dtype)
    edges = low[:, None] + size[:, None] * fraction
    hat = (1 - (edges[..., None] - position).abs()).clamp(min=0)                       # (R, s + 1, L)
    at_high = (of_weights * hat[:, 1:]).sum(-1) * (s / size)[:, None]                  # of the bins' upper edges
    at_low = (of_weights * hat[:, :-1]).sum(-1) * (s / size)[:, None]
    per_width = (of_weights * weights).sum((1, 2)) / size                              # of the bins' width
    of_low = (at_high * (1 - fraction[1:]) - at_low * (1 - fraction[:-1])).sum(1) + per_width
    of_high = (at_high * fraction[1:] - at_low * fraction[:-1]).sum(1) - per_width
    empty = (high <= low) | (weights.abs().sum((1, 2)) == 0)
    return of_low.masked_fill(empty, 0), of_high.masked_fill(empty, 0)
