"""An energy branch, or a baseline, on a frozen Faster R-CNN: the runs of ECCV 2020 (4.1) and BMVC 2020 (4.2) on COCO.

    ebmtrack train coco_energy --data COCO --device cuda

COCO is the folder of annotations/ and train2017/. The host's weights are torchvision's, which are downloaded, or
`--set host_weights=FILE`. `--set loss=kld_is` and so on trains the others, also `gaussian`, `laplace`, `mixture4` and
`cvae`. The network fits `ebmtrack detect eval` and `image`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.detection.baselines import BASELINES
from ebmtrack.detection.detector import DetectorConfig
from ebmtrack.detection.losses import paper_loss
from ebmtrack.detection.training import detection_plan
from ebmtrack.errors import ConfigError
from ebmtrack.training.plan import Plan
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.paths import place_of


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of the run; `arch`, `backbone` and `bfloat16` have no part in it.

    Attributes:
        host: torchvision's detector that stays as it is.
        host_weights: its weights: a name of torchvision's, such as COCO_V1, or a file.
        loss: of the branch, or a baseline.
        boxes: boxes for each true box, M.
        rate: base learning rate; None for the paper's, which depends on the loss.
        drops: steps after which the rate falls to a tenth.
        min_size: shorter side of the scaled photographs, in pixels.
        max_size: longest side.
        hidden: width of the branch; 1024 starts from the host's own box head.
        split: part of COCO to train on.
    """

    arch: str = "detector"
    host: str = "fasterrcnn_resnet50_fpn"
    host_weights: str = "COCO_V1"
    loss: str = "nce_plus"
    boxes: int = 128  # this and all below: ECCV 2020, appendix C; BMVC 2020, appendix C
    rate: float | None = None
    steps: int = 60_000
    batch: int = 16
    warmup: int = 500
    drops: tuple[int, ...] = (40_000, 50_000)
    min_size: int = 800
    max_size: int = 1333
    hidden: int = 1024
    split: str = "train2017"
    checkpoint_every: int = 1000
    bfloat16: bool = False
    channels_last: bool = False


def plan(settings: Settings) -> Plan:
    """Return the run on COCO."""
    place = place_of("coco")
    root = settings.data or (place.path if place else None)
    if root is None:
        raise ConfigError("where is COCO? Give --data FOLDER, which holds annotations/ and train2017/")
    config = DetectorConfig(settings.host, settings.loss, settings.min_size, settings.max_size, settings.hidden)
    loss = paper_loss("nce_plus" if settings.loss in BASELINES else settings.loss, settings.boxes)
    return detection_plan(settings, config, loss, root, settings.drops, settings.split)
