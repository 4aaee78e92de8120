"""DiMP-18 trained as the paper trained DiMP-50: NCE+ for the boxes, the four public data sets, 50 epochs.

    ebmtrack train dimp18_nce_plus --device cuda --workers 8

What differs from dimp50_nce_plus is the network and, with it, what DiMP-18 sees: 288 pixels, five target sizes, windows
shifted into the image but never shrunk, frames at most 30 apart. The network fits `ebmtrack track --params
dimp18_nce_plus_paper`.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.data.augment import Jitter
from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings import dimp50_nce_plus
from ebmtrack.training.objective import ObjectiveSettings

CROPS = CropSettings(
    output=288,  # this and all below: DiMP-18 (pytracking)
    search_factor=5.0,
    train_jitter=Jitter.per_side(centre=3.0, scale=0.25),
    test_jitter=Jitter.per_side(centre=4.5, scale=0.5),
    look=dimp50_nce_plus.LOOK,
    still_look=dimp50_nce_plus.LOOK,
    rule="dimp",
    # pytracking's mode `replicate` shifts windows into the image since April 2020, which the code of BMVC 2020 builds
    # on; the DiMP-18 of 2019 was trained with windows that are padded: --set crops.border=replicate
    border="inside",
)

OBJECTIVE = dataclasses.replace(
    dimp50_nce_plus.OBJECTIVE,
    label_sigma=0.25 / 5 * 18,  # a quarter of the target's size, in feature cells
)
plan = dimp50_nce_plus.plan


@dataclasses.dataclass(frozen=True)
class Settings(dimp50_nce_plus.Settings):
    """The settings of dimp50_nce_plus with DiMP-18's network, search region, labels and gap."""

    arch: str = "dimp18"
    backbone: str = "resnet18"
    sampling: SamplingSettings = dataclasses.replace(dimp50_nce_plus.SAMPLING, max_gap=30)  # DiMP-18 (pytracking)
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    params: str = "dimp18_nce_plus_paper"
