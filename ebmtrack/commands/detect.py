"""The verb for object detection: detect train, detect eval, detect image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebmtrack.commands.options import Changes, Group, Positional, flatten


@dataclass(frozen=True, kw_only=True)
class DetectTrain:
    """Train an energy branch, or a baseline, on a frozen torchvision detector: the run coco_energy.

    Attributes:
        data: COCO's folder: annotations/ and train2017/.
        loss: nce_plus, nce, ml_is, kld_is, dsm, ml_mcmc, iou_net, iou_net_star; or a baseline: gaussian, laplace,
            mixture2, mixture4, mixture8, cvae.
        host: torchvision's detector, such as fasterrcnn_resnet50_fpn.
        host_weights: Its weights: a name of torchvision's (a download), or a file of its state dict.
        out: Folder of the run.
        device: auto, cpu, mps, cuda or cuda:N.
        set: Changes of the run's settings, key=value, one or more (`ebmtrack train coco_energy --show` lists them).
    """

    data: Path | None = None
    loss: str = "nce_plus"
    host: str = "fasterrcnn_resnet50_fpn"
    host_weights: str = "COCO_V1"
    out: Path = Path("runs/coco_energy")
    device: str = "auto"
    set: Changes = ()

    def run(self) -> None:
        """Train, and print where the weights are."""
        from ebmtrack.training.command import settings_for, train_named

        names = ("data", "loss", "host", "host_weights", "out", "device")
        chosen: dict[str, Any] = {name: getattr(self, name) for name in names}
        settings = settings_for("coco_energy", chosen, flatten(self.set))
        print(f"the trained part is in {train_named('coco_energy', settings)}")


@dataclass(frozen=True, kw_only=True)
class DetectEval:
    """Print COCO's average precision of a trained detector, with and without refinement.

    Attributes:
        weights: File that `ebmtrack detect train` wrote.
        data: COCO's folder.
        split: Part of COCO, such as val2017.
        host_weights: Weights of the host: a name of torchvision's, or a file.
        limit: Photographs that are looked at, the first ones; all by default.
        device: auto, cpu, mps, cuda or cuda:N.
    """

    weights: Positional[Path]
    data: Path
    split: str = "val2017"
    host_weights: str = "COCO_V1"
    limit: int | None = None
    device: str = "auto"

    def run(self) -> None:
        """Evaluate and print a table."""
        from ebmtrack.detection.running import evaluate

        print(evaluate(self.weights, self.data, self.split, self.host_weights, self.limit, self.device))


@dataclass(frozen=True, kw_only=True)
class DetectImage:
    """Detect in a picture, and draw the boxes before (dashed) and after refinement.

    Attributes:
        weights: File that `ebmtrack detect train` wrote.
        image: The picture.
        out: Picture to write.
        host_weights: Weights of the host: a name of torchvision's, or a file.
        least_score: Boxes with lower scores are not drawn.
        device: auto, cpu, mps, cuda or cuda:N.
    """

    weights: Positional[Path]
    image: Positional[Path]
    out: Path = Path("detections.jpg")
    host_weights: str = "COCO_V1"
    least_score: float = 0.5
    device: str = "auto"

    def run(self) -> None:
        """Detect, write the picture and print the boxes."""
        from ebmtrack.detection.running import detect_in_picture

        print(detect_in_picture(self.weights, self.image, self.out, self.host_weights, self.least_score, self.device))


class Detect(Group):
    """Detect objects with an energy branch on a torchvision detector."""

    verbs = {"train": DetectTrain, "eval": DetectEval, "image": DetectImage}
