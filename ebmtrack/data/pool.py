"""The small training pool: video, photographs and compositions together, with a fixed validation part."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.videos import folder, got10k
from ebmtrack.videos.coco import CocoSource
from ebmtrack.videos.image_store import MEBIBYTE, ImageStore
from ebmtrack.videos.source import Selection, Source, VideoSource
from ebmtrack.videos.synthetic import SyntheticSource

HELD_BACK_VIDEO = (  # sequences, or families and objects by the beginning of their names
    "DAVIS_libby",
    "DAVIS_goat",
    "DAVIS_bmx-trees",
    "DAVIS_scooter-black",
    "TINYTLP_Drone1",
    "PRODUCTS_milo",
    "PRODUCTS_toothpaste",
    "CONECUBE_cube_1",
    "YTVOS_f0ad38da27_1",
    "YTVOS_4680236c9d_1",
    "SEGTRACK_girl",
    "ROVER_",
    "THERMAL_",
    "DRIFTPERSON_",
    "FARM_fox",
    "FARM_chicken",
    "FOODVID_crab",
    "GESTURE_Stop",
    "HEN_",
    "PARKCAR_",
    "VOLLEY_",
)
HELD_BACK_SETS = ("amenity", "elephant", "hoop", "pots", "potsb", "tanner", "tannerb")  # every tenth web_ family
HELD_BACK_NEW_SETS = ("retail", "furniture", "field12", "drone", "signs", "aerialcar", "seedling")  # n_ and x_ families
VIDEO_CUT_AT = 5.0  # frames of the pool's video were cut ten target sizes wide
LEAST_COVER = 3  # visible eighths of a target; with less, the box shows the occluder
STILLS: dict[str, Any] = {
    "least_side": 12.0,
    "largest_frac": 0.85,
}  # nothing around a larger box tells it apart (`CocoSource`)
# Share of the video draws by the sequence's family. By root of frames alone, loose boxes in kitchens (GTEA) and small
# things on plain pavement (FODA) would take half; DAVIS and TINYTLP have the best boxes and motion.
VIDEO_SHARES = {
    "DAVIS": 0.26,
    "TINYTLP": 0.14,
    "MOT": 0.12,
    "GTEA": 0.08,
    "urbantraffic": 0.07,
    "wtracking": 0.04,
    "FODA": 0.06,
    "PRODUCTS": 0.04,
    "CONECUBE": 0.03,
    "PPE": 0.03,
    "GESTURE": 0.03,
    "YTVOS": 0.04,
    "SEGTRACK": 0.01,
    "SHAHED": 0.02,
    "FARM": 0.01,
    "FOODVID": 0.01,
    "STREET": 0.01,
    "TENNISBALL": 0.01,
    "NFLB": 0.07,
    "FRCNOTE": 0.025,
    "DAVISDOGS": 0.02,
    "TRACKSIGN": 0.005,
    "PONGBALL": 0.003,
    "DRONECAR": 0.003,
    "EYE": 0.002,
}


def held_back(name: str) -> bool:
    """Return whether a sequence or photograph belongs to the validation part, by its name alone."""
    if name.startswith("web_"):
        return name.split("_")[1] in HELD_BACK_SETS
    if name.startswith(("n_", "x_")):
        return name.split("_")[1] in HELD_BACK_NEW_SETS
    return name.startswith(HELD_BACK_VIDEO)


def held_back_material(name: str) -> bool:
    """Return whether a cut-out or background (file name without suffix) belongs to the validation part.

    Cut-outs of the held-back sequences do, and about one in fifteen of all others, by a checksum of the name,
    so that adding files moves none.
    """
    if name.startswith("davis_"):
        return ("DAVIS_" + name.split("_")[1]).startswith(HELD_BACK_VIDEO)
    return zlib.crc32(name.encode()) % 15 == 0


def video_weights(source: Source) -> np.ndarray:
    """Return sampling weights (len,) for video: shares by family, in a family the root of visible frames.

    A family without a share weighs by the root alone; shares of families that are absent go to the others.
    """
    roots = np.array([np.sqrt(source.visible(index).sum()) for index in range(len(source))])
    families = np.array([source.target_name(index).split("_")[0] for index in range(len(source))])
    weights = roots / max(roots.sum(), 1e-12)
    for family, share in VIDEO_SHARES.items():
        own = families == family
        if roots[own].sum() > 0:
            weights[own] = share * roots[own] / roots[own].sum()
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

    Kinds whose folder is missing are left out; compositions need both of theirs. Encoded files stay in memory (130 MB).

    Args:
        root: The pool's folder.
        part: "train", "validation" or "all".
        decoded_limit: Bytes of decoded images to keep, per process.
        seed: Of the compositions.
        clip_length: Frames of a composition.
        clips: Number of compositions.

    Raises:
        ConfigError: For another part.
        DatasetError: If data are missing or malformed.
    """
    root, store = Path(root), ImageStore(512 * MEBIBYTE, decoded_limit)
    keep_material = _part(part, held_back_material)
    found: dict[str, Source] = {}
    if (root / "coco").is_dir():
        found["stills"] = _part_of(CocoSource(root / "coco", name="stills", store=store, **STILLS), part, root)
    if _has_material(root):
        material = (root / "cutouts", root / "backgrounds")
        found["synthetic"] = SyntheticSource(*material, clip_length, clips, seed, keep=keep_material, store=store)
    if found and not (root / "got10k").is_dir():
        return found
    video = _part_of(VideoSource(got10k.find(root / "got10k", "train", LEAST_COVER), "video", store), part, root)
    weighted = video.with_weights(video_weights(video))
    weighted.cut_at = VIDEO_CUT_AT
    return {"video": weighted, **found}


def open_training_folder(
    root: str | Path, part: str = "train", decoded_limit: int = 256 * MEBIBYTE
) -> dict[str, Source]:
    """Open a folder of training data: the kinds of the pool that are there, or own sequences as {"video"}.

    Of own sequences every tenth, chosen by a checksum of its name, is held back for validation, and at least one.
    Beside them the folder may hold `cutouts/` and `backgrounds/`, which make {"video", "synthetic"}.

    Args:
        root: A pool's folder, or a folder of NAME/{img, groundtruth_rect.txt or labels (`videos.labels`)}.
        part: "train", "validation" or "all".
        decoded_limit: Bytes of decoded images to keep, per process.

    Raises:
        ConfigError: For another part, or a single sequence, of which none can be held back.
        DatasetError: If data are missing or malformed.
    """
    root = Path(root)
    has_material = _has_material(root)
    if any((root / name).is_dir() for name in ("got10k", "coco")) or (has_material and not folder.has_sequences(root)):
        return open_pool(root, part, decoded_limit)
    video = VideoSource(folder.find(root), "video", ImageStore(512 * MEBIBYTE, decoded_limit))
    compositions = open_pool(root, part, decoded_limit) if has_material else {}
    return {"video": _part_of(video, part, root), **compositions}


def _has_material(root: Path) -> bool:
    """Return whether a folder has both folders of compositions; `ebmtrack cut-outs` makes one of them anywhere."""
    return (root / "cutouts").is_dir() and (root / "backgrounds").is_dir()


def _part_of(source: Source, part: str, root: Path) -> Selection:
    """Return a part of a source: the pool's by its names, of other data every tenth clip or photograph is held back."""
    if part == "all" or (root / "got10k" / "train" / HELD_BACK_VIDEO[0]).is_dir():  # own clips may be called HEN_01
        return source.subset(_part(part, held_back))
    names = {_clip(source.target_name(index)) for index in range(len(source))}
    clips = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    if len(clips) < 2:
        raise ConfigError(
            f"{root}: training needs two sequences or more, one of which is held back for validation; there are "
            f"{len(clips)} of the kind {source.name}"
        )
    chosen = set(clips[: max(1, len(clips) // 10)])
    return source.subset(_part(part, lambda name: _clip(name) in chosen))


def _clip(name: str) -> str:
    """Return the clip or photograph of a target, all of whose targets are held back together."""
    return name.partition("#")[0]


def _part(part: str, held: Callable[[str], bool]) -> Callable[[str], bool]:
    """Return the condition on names that makes up a part."""
    conditions = {"train": lambda name: not held(name), "validation": held, "all": lambda name: True}
    if part not in conditions:
        raise ConfigError(f"part {part!r} of the pool is not one of {', '.join(conditions)}")
    return conditions[part]
