"""PrDiMP on ResNet-18: densities for centre and box, both by KL divergence (CVPR 2020); pytracking's prdimp18 run.

    ebmtrack train prdimp18 --device cuda --workers 8

It is what DiMP-NCE+ is compared with in BMVC 2020, on the smaller network. All layers train, batch norm included. The
data are found as for dimp50_nce_plus. The network fits `ebmtrack track --params prdimp18`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.data.augment import Look
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings import dimp18_nce_plus
from ebmtrack.ltr_settings.dimp50_nce_plus import data, network_of, objective
from ebmtrack.training.objective import PRDIMP_WEIGHTS, ObjectiveSettings
from ebmtrack.training.plan import Network, Plan

SAMPLING = SamplingSettings(
    shares={"lasot": 0.25, "got10k": 1.0, "trackingnet": 1.0, "coco": 1.0},  # as all below: prdimp18 (pytracking)
    train_frames=3,
    test_frames=3,
    max_gap=200,
    rule="dimp",
)
LOOK = Look(grey=0.05, joint_flip=0.0, flip=0.0, brightness=0.2)
CROPS = dataclasses.replace(dimp18_nce_plus.CROPS, look=LOOK, still_look=LOOK)
OBJECTIVE = ObjectiveSettings(
    **PRDIMP_WEIGHTS,
    sigmas=(0.05, 0.5),
    samples=128,
    target_sigma=0.05,
    label_sigma=0.25 / 5 * 18,  # a quarter of the target's size, in feature cells
)
RATES = {"classifier": 1e-3, "box": 1e-3, "backbone": 2e-4}


@dataclasses.dataclass(frozen=True)
class Settings(dimp18_nce_plus.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "prdimp18"
    steps: int = 50_000
    batch: int = 26
    validate_every: int = 5000
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    params: str = "prdimp18"


def plan(settings: Settings) -> Plan:
    """Return the run on the public data sets."""
    samples = data(settings)  # missing data are an error before weights are downloaded
    return Plan(network(settings), samples, objective(settings), params=settings.params)


def network(settings: Settings) -> Network:
    """Return the network, all layers of which train."""
    return network_of(
        settings, lambda net: {"classifier": net.classifier, "box": net.bb_regressor, "backbone": net.feature_extractor}
    )
