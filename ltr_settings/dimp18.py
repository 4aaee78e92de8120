"""DiMP on ResNet-18 as of ICCV 2019 (pytracking's dimp18 run): the box branch predicts the overlap, as in ATOM.

    ebmtrack train dimp18 --device cuda --workers 8

All layers train, batch norm included. The data are found as for dimp50_nce_plus. The network fits
`ebmtrack track --params dimp18`. Assumptions, because no source was at hand: 8 boxes a frame, ATOM's widths for them
and its rule that they overlap the target by 0.1 (ECCV 2020, supplement D.1, with 16 boxes), and, of that rule, that a
box is drawn again with 0.9 of its width until it does.
"""

from __future__ import annotations

import dataclasses

from ebmtrack.data.pipeline import CropSettings
from ebmtrack.data.sampling import SamplingSettings
from ebmtrack.ltr_settings import dimp18_nce_plus, prdimp18
from ebmtrack.ltr_settings.dimp50_nce_plus import data, network_of, objective
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.plan import Network, Plan, branches

SAMPLING = dataclasses.replace(prdimp18.SAMPLING, max_gap=30)  # as all below: dimp18 (pytracking)
CROPS = dataclasses.replace(
    dimp18_nce_plus.CROPS,
    look=prdimp18.LOOK,
    still_look=prdimp18.LOOK,
    border="replicate",  # the DiMP-18 of 2019; pytracking since April 2020: --set crops.border=inside
)
OBJECTIVE = ObjectiveSettings(
    box_loss="iou",
    proposals="overlapping",
    samples=8,  # assumption
    box_weight=1.0,
    final_weight=100.0,
    initial_weight=100.0,
    inner_weight=400.0,
    hinge_threshold=0.05,
    label_sigma=0.25 / 5 * 18,  # a quarter of the target's size, in feature cells
)
RATES = {"box": 1e-3, "classifier": 5e-5, "initializer": 5e-5, "filter_optimizer": 5e-4, "backbone": 2e-4}


@dataclasses.dataclass(frozen=True)
class Settings(prdimp18.Settings):
    """The settings of the run. An epoch is the part steps / epochs of it, 26,000 samples by default."""

    arch: str = "dimp18"
    sampling: SamplingSettings = SAMPLING
    crops: CropSettings = CROPS
    objective: ObjectiveSettings = OBJECTIVE
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: dict(RATES))
    params: str = "dimp18"


def plan(settings: Settings) -> Plan:
    """Return the run on the public data sets."""
    samples = data(settings)  # missing data are an error before weights are downloaded
    return Plan(network(settings), samples, objective(settings), params=settings.params)


def network(settings: Settings) -> Network:
    """Return the network, all layers of which train."""
    return network_of(settings, lambda net: {**branches(net), "backbone": net.feature_extractor})
