"""The host: a trained torchvision detector that stays as it is and gives feature maps and candidate boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from ebmtrack.checkpoints.untrusted import kind_of, read_safetensors, read_torch
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.names import check_name

SMALL_HOST = "fasterrcnn_resnet18_fpn"  # ours, for small machines: ResNet-18, 64 channels, box features of 256
MOST_CANDIDATES = 1000  # of one image, for all classes; the best scores stay


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of N images at several strides, all with C channels.

    Attributes:
        maps: (N, C, H / stride, W / stride) for each stride, the finest first.
        strides: powers of two, in pixels of the network's input.
        scales_xy: (N, 2), pixels of the network's input for one pixel of each image.
    """

    maps: list[Tensor]
    strides: list[int]
    scales_xy: Tensor

    def image(self, index: int) -> FeatureMaps:
        """Return the maps of one image."""
        rows = slice(index, index + 1)
        return FeatureMaps([each[rows] for each in self.maps], self.strides, self.scales_xy[rows])


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image with labels and scores.

    Attributes:
        boxes_xyxy: (R, 4).
        labels: (R,), classes from 1 on; 0 is the background.
        scores: (R,), classification scores in [0, 1].
    """

    boxes_xyxy: Tensor
    labels: Tensor
    scores: Tensor

    def select(self, index: Tensor) -> Boxes:
        """Return the boxes at an index or mask."""
        return Boxes(self.boxes_xyxy[index], self.labels[index], self.scores[index])


class Host(nn.Module):
    """A frozen torchvision detector in evaluation mode, whatever mode is asked for.

    Detectors with region proposals (Faster, Mask and Keypoint R-CNN) and those without (RetinaNet, FCOS) have in common
    what is used: `transform`, `backbone`, and where their non-maximum suppression is set.
    """

    def __init__(self, detector: nn.Module, suppress: bool = False):
        """Freeze a detector.

        Args:
            detector: it is changed in place.
            suppress: whether its own suppression remains on; without it all boxes above its score threshold come out.

        Raises:
            ConfigError: the detector has no feature pyramid or no place where suppression is set.
        """
        super().__init__()
        self.detector: Any = detector.eval().requires_grad_(False)
        head: Any = getattr(detector, "roi_heads", detector)
        if not hasattr(head, "nms_thresh") or not hasattr(getattr(detector, "backbone", None), "fpn"):
            raise ConfigError(
                f"{type(detector).__name__} is no host: it needs a feature pyramid and boxes before suppression; take "
                "Faster R-CNN, Mask R-CNN, RetinaNet or FCOS of torchvision"
            )
        pool = getattr(head, "box_roi_pool", None)
        self.map_names: list[str] | None = pool.featmap_names if pool else None
        if not suppress:
            head.nms_thresh, head.detections_per_img = 1.0, MOST_CANDIDATES

    def train(self, mode: bool = True) -> Host:
        """Stay in evaluation mode: the host's batch norm and suppression are those of testing."""
        return super().train(False)

    @property
    def channels(self) -> int:
        """Number of channels of the feature maps."""
        return self.detector.backbone.out_channels

    @torch.no_grad()
    def look(self, images: Sequence[Tensor]) -> FeatureMaps:
        """Return the feature maps of images (3, H, W), RGB in [0, 1], of any sizes."""
        prepared, _ = self.detector.transform(list(images))
        return self._maps(images, prepared, self.detector.backbone(prepared.tensors))

    @torch.no_grad()
    def candidates(self, images: Sequence[Tensor]) -> tuple[FeatureMaps, list[Boxes]]:
        """Return the maps, and for each image its boxes, in pixels of the network's input; see `look`."""
        seen: dict[str, Any] = {}
        modules = {"prepared": self.detector.transform, "features": self.detector.backbone}
        hooks = [
            module.register_forward_hook(lambda _, __, output, key=key: seen.update({key: output}))
            for key, module in modules.items()
        ]
        try:
            found = self.detector(list(images))
        finally:
            for hook in hooks:
                hook.remove()
        maps = self._maps(images, seen["prepared"][0], seen["features"])
        scales = maps.scales_xy.repeat(1, 2)
        return maps, [Boxes(f["boxes"] * scale, f["labels"], f["scores"]) for f, scale in zip(found, scales)]

    def _maps(self, images: Sequence[Tensor], prepared: Any, features: Mapping[str, Tensor]) -> FeatureMaps:
        """Return the maps of a prepared batch with their strides."""
        maps = [features[name] for name in self.map_names or features]
        strides = [2 ** round(math.log2(prepared.tensors.shape[-1] / each.shape[-1])) for each in maps]
        scales = [[w / image.shape[2], h / image.shape[1]] for (h, w), image in zip(prepared.image_sizes, images)]
        return FeatureMaps(maps, strides, maps[0].new_tensor(scales))


def host_names() -> list[str]:
    """Return the names of the detectors that can be hosts."""
    known = torchvision.models.list_models(module=torchvision.models.detection)
    return sorted([SMALL_HOST] + [name for name in known if not name.startswith("ssd")])


def load_host(name: str, weights: str = "COCO_V1", suppress: bool = False, **sizes: int) -> Host:
    """Return a trained host.

    Args:
        name: of a torchvision detector, such as fasterrcnn_resnet50_fpn, or `SMALL_HOST`.
        weights: name of torchvision's weights, which are downloaded once, a file of a state dict (.pth or
            .safetensors), or "random".
        suppress: see `Host`.
        sizes: min_size and max_size, the sides in pixels to which images are scaled; torchvision's 800 and 1333.

    Raises:
        ConfigError: the detector is unknown.
        CheckpointError: the weights cannot be fetched, are missing, or do not fit.
    """
    check_name("detector", name, host_names())
    if weights == "random":
        return Host(_new_detector(name, 91, sizes), suppress)
    known = {} if name == SMALL_HOST else torchvision.models.get_model_weights(name).__members__
    if weights in known:
        return Host(_download(name, weights, sizes), suppress)
    try:
        read = read_safetensors(weights)[1] if kind_of(weights) == "safetensors" else read_torch(weights)
    except CheckpointError as error:
        names = f"one of {', '.join(known)} (a download) or " if known else ""
        raise CheckpointError(
            f"{error}; --host-weights takes, for the host {name}, {names}a file of its state dict"
        ) from error
    return Host(_with_weights(name, read, weights, sizes), suppress)


def _new_detector(name: str, classes: int, sizes: Mapping[str, int]) -> nn.Module:
    """Return a detector with random weights."""
    if name == SMALL_HOST:
        layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
        backbone = BackboneWithFPN(torchvision.models.resnet18(weights=None), layers, [64, 128, 256, 512], 64)
        head, predictor = TwoMLPHead(64 * 7 * 7, 256), FastRCNNPredictor(256, classes)
        return FasterRCNN(backbone, box_head=head, box_predictor=predictor, **sizes)
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **sizes)


def _download(name: str, weights: str, sizes: Mapping[str, int]) -> nn.Module:
    """Return a detector with torchvision's own weights."""
    try:
        return torchvision.models.get_model(name, weights=weights, **sizes)
    except (URLError, OSError, RuntimeError) as error:
        url = torchvision.models.get_model_weights(name)[weights].url
        raise CheckpointError(
            f"cannot fetch {url}: {error}; download it on another machine and give the file: --host-weights FILE "
            "(`ebmtrack train`: --set host_weights=FILE)"
        ) from error


def _with_weights(name: str, state: Any, where: str, sizes: Mapping[str, int]) -> nn.Module:
    """Return a detector with the weights of a file, whose classifier says how many classes there are.

    torchvision's first files of ResNet-50 hosts are of batch norm without counters and without epsilon.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{where}: expected the state dict of {name}, a mapping of names to tensors")
    classes = next((len(value) for key, value in state.items() if key.endswith("box_predictor.cls_score.weight")), 91)
    detector = _new_detector(name, classes, sizes)
    try:
        missing, unexpected = detector.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{where}: does not fit the host {name}: {error}") from error
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")]
    if lacking or unexpected:
        odd = (lacking or unexpected)[0]
        raise CheckpointError(f"{where}: does not fit the host {name}: {'lacks' if lacking else 'has unknown'} {odd}")
    if missing and name.endswith("resnet50_fpn"):
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0  # torchvision's overwrite_eps for COCO_V1
    return detector
