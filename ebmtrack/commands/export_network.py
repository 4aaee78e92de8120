"""`ebmtrack export`: a trained network as graphs for ONNX Runtime, with its calibration on pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ebmtrack.data.crops import crop_around
from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.images import read_rgb
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.videos.folder import find

REGIONS = 96  # search regions for the calibration of int8


def export_network(weights: str | None, out: Path, precision: str, calibration: Path | None, params: str) -> None:
    """Write a network for ONNX Runtime, and print how far it differs from PyTorch.

    Args:
        weights: a .safetensors file, the name of a network that ships, or None for the default one.
        out: the folder to write.
        precision: "float32", "float16", "int8" or "float16+int8".
        calibration: a folder of sequences (pictures and groundtruth.txt) that int8 is calibrated on.
        params: the set-up whose search regions are cut from them.

    Raises:
        ConfigError: for int8 without a folder.
    """
    from ebmtrack.engines.export.network import export_network as export

    regions = [] if calibration is None else search_regions(calibration, load_params(params))
    export(weights, out, precision, regions)


def search_regions(root: Path, params: TrackerParams, count: int = REGIONS) -> list[np.ndarray]:
    """Return search regions (side, side, 3) uint8 of the middle frames of sequences, the targets in their middle.

    Args:
        root: folder of sequences.
        params: the set-up: side, search factor and crop rule of the regions.
        count: number of regions at most; the sequences are taken evenly from all of them.
    """
    data, regions, refused = find(root), [], ""
    for place in np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)):
        try:
            sequence = data.load(data.names[place])
            index = len(sequence) // 2
            image, (x, y, w, h) = read_rgb(sequence.frame_paths()[index]), sequence.boxes_xywh[index].tolist()
        except EbmtrackError as error:
            refused = f": {error}"
            continue
        if not min(w, h) >= 1:
            continue
        side = math.sqrt(w * h) * params.search_factor
        centre, output = (y + (h - 1) / 2, x + (w - 1) / 2), (params.sample_size, params.sample_size)
        regions.append(crop_around(image, centre, (side, side), output, "replicate", rule=params.crop_rule).patch)
    if not regions:
        raise ConfigError(f"{root}: no sequence has a target in its middle frame to calibrate on{refused}")
    return regions
