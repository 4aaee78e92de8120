"""The small training pool: video, photographs and compositions opened together, with a fixed validation part."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ebmtrack.data.sources.base import MEBIBYTE, ImageStore, Source
from ebmtrack.data.sources.coco import CocoSource
from ebmtrack.data.sources.got10k import GOT10kSource
from ebmtrack.data.sources.synthetic import SyntheticSource
from ebmtrack.errors import ConfigError

HELD_BACK_VIDEO = ("DAVIS_libby", "DAVIS_goat", "DAVIS_bmx-trees", "DAVIS_scooter-black", "TINYTLP_Drone1")
HELD_BACK_SETS = ("amenity", "elephant", "hoop", "pots", "potsb", "tanner", "tannerb")  # every tenth web_ family
FODA_SHARE = 0.1  # of the video draws: tight boxes, but plain pavement behind them


def held_back(name: str) -> bool:
    """Whether a sequence or photograph belongs to the validation part, by its name alone."""
    if name.startswith("web_"):
        return name.split("_")[1] in HELD_BACK_SETS
    return name in HELD_BACK_VIDEO


def held_back_material(name: str) -> bool:
    """Whether a cut-out or background (file name without suffix) belongs to the validation part.

    Cut-outs of the held-back sequences do, all frames of a sequence together, and about one in fifteen others,
    by a checksum of the name, so that adding files moves none.
    """
    if name.startswith("davis_"):
        return "DAVIS_" + name.split("_")[1] in HELD_BACK_VIDEO
    return zlib.crc32(name.encode()) % 15 == 0


def video_weights(source: Source) -> np.ndarray:
    """Sampling weights (len,) for video: root of the number of visible frames, FODA together `FODA_SHARE`."""
    weights = np.array([np.sqrt(source.visible(index).sum()) for index in range(len(source))])
    foda = np.array([source.target_name(index).startswith("FODA") for index in range(len(source))])
    rest = weights[~foda].sum()
    if foda.any() and rest > 0:
        weights[foda] *= FODA_SHARE / (1 - FODA_SHARE) * rest / weights[foda].sum()
    return weights


def open_pool(
    root: str | Path,
    part: str = "train",
    decoded_limit: int = 256 * MEBIBYTE,
    seed: int = 0,
    clip_length: int = 6,
    clips: int = 100_000,
) -> dict[str, Source]:
    """Open the pool under `root` (got10k/, coco/, cutouts/, backgrounds/): {"video", "stills", "synthetic"}.

    `part` is "train", "validation" or "all". Encoded files stay in memory (130 MB in all); decoded images up to
    `decoded_limit` bytes per process. `seed`, `clip_length` and `clips` describe the compositions.
    """
    root, store = Path(root), ImageStore(512 * MEBIBYTE, decoded_limit)
    keep, keep_material = _part(part, held_back), _part(part, held_back_material)
    video = GOT10kSource(root / "got10k" / "train", "video", store).subset(keep)
    stills = CocoSource(root / "coco", name="stills", store=store).subset(keep)
    material = (root / "cutouts", root / "backgrounds")
    synthetic = SyntheticSource(*material, clip_length, clips, seed, keep=keep_material, store=store)
    return {"video": video.weighted(video_weights(video)), "stills": stills, "synthetic": synthetic}


def _part(part: str, held: Callable[[str], bool]) -> Callable[[str], bool]:
    """The condition on names that makes up a part."""
    conditions = {"train": lambda name: not held(name), "validation": held, "all": lambda name: True}
    if part not in conditions:
        raise ConfigError(f"part {part!r} of the pool is not one of {', '.join(conditions)}")
    return conditions[part]
