"""Folders of training data: video, photographs and compositions together, each with a validation part."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.names import check_name
from ebmtrack.videos import folder, got10k
from ebmtrack.videos.coco import CocoSource
from ebmtrack.videos.image_store import MEBIBYTE, ImageStore
from ebmtrack.videos.sequence import existing_folder
from ebmtrack.videos.source import Selection, Source, VideoSource
from ebmtrack.videos.synthetic import SyntheticSource

KINDS = ("video", "stills", "synthetic")
FOLDERS_OF_KINDS = ("got10k", "coco", "cutouts", "backgrounds")  # a folder of another name may be an own sequence
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


def kinds_in(root: str | Path, store: ImageStore | None = None) -> dict[str, Callable[[], Source]]:
    """Return what opens each kind of training data in a folder, all of it: video, stills, synthetic, if it is there.

    Video is in got10k/, or else own sequences NAME/{img, groundtruth_rect.txt or labels (`videos.labels`)}; stills are
    in coco/; compositions need cutouts/ and backgrounds/, because `ebmtrack cut-outs` makes the former anywhere.

    Raises:
        DatasetError: If there are none.
    """
    root, found = existing_folder(Path(root)), dict[str, Callable[[], Source]]()
    if (root / "got10k").is_dir():
        found["video"] = lambda: _open_got10k(root, store)
    elif _has_clips(root):
        found["video"] = lambda: VideoSource(folder.find(root, FOLDERS_OF_KINDS), "video", store)
    if (root / "coco").is_dir():
        found["stills"] = lambda: CocoSource(root / "coco", name="stills", store=store, **STILLS)
    if (root / "cutouts").is_dir() and (root / "backgrounds").is_dir():
        found["synthetic"] = lambda: SyntheticSource(root / "cutouts", root / "backgrounds", store=store)
    if not found:
        raise DatasetError(
            f"{root}: nothing to train on: no folders with {' or '.join(folder.ANNOTATIONS)} or labels in them, no "
            "got10k/ or coco/, no cutouts/ with backgrounds/; see docs/data.md"
        )
    return found


def _open_got10k(root: Path, store: ImageStore | None) -> VideoSource:
    """Open the video in got10k/; warn of own sequences beside it."""
    if _has_clips(root):
        warnings.warn(f"{root}: own sequences beside got10k/ are left out; move them to got10k/train", stacklevel=3)
    return VideoSource(got10k.find(root / "got10k", "train", LEAST_COVER), "video", store)


def _has_clips(root: Path) -> bool:
    """Return whether there are own sequences in a folder, in order or not: what is wrong is said when they are read."""
    try:
        return folder.has_sequences(root, FOLDERS_OF_KINDS)
    except DatasetError:
        return True


def open_training_folder(
    root: str | Path,
    part: str = "train",
    decoded_limit: int = 256 * MEBIBYTE,
    seed: int = 0,
    clips: int = 100_000,
    kinds: Collection[str] = KINDS,
) -> dict[str, Source]:
    """Open a part of a folder of training data: {"video", "stills", "synthetic"}, if it is there.

    The small pool's validation part is chosen by its names (`held_back`). Of other data every tenth clip or photograph,
    chosen by a checksum of its name, is held back, and at least one: a single one is not trained on. Of cut-outs and
    backgrounds see `held_back_files`; validation does without compositions if there is but one of either.

    Args:
        root: A folder of `kinds_in`. Encoded files stay in memory (of the small pool 130 MB).
        part: "train", "validation" or "all".
        decoded_limit: Bytes of decoded images to keep, per process.
        seed: Of the compositions.
        clips: Number of compositions.
        kinds: Those to open.

    Raises:
        ConfigError: For another part or kind, or if nothing is left for the part.
        DatasetError: If data are missing or malformed.
    """
    for kind in kinds:
        check_name("kind of training data", kind, KINDS)
    root, store = Path(root), ImageStore(512 * MEBIBYTE, decoded_limit)
    found: dict[str, Source] = {}
    empty = []
    for kind, open_kind in kinds_in(root, store).items():
        if kind not in kinds:
            continue
        source = open_kind()
        if kind == "video" and part != "validation" and not (root / "got10k").is_dir():
            for line in folder.left_out(root, FOLDERS_OF_KINDS):
                warnings.warn(line, stacklevel=2)
        if isinstance(source, SyntheticSource):
            own: Source | None = _compositions(root, part, source, seed, clips, store)
        else:
            own = _part_of(source, part, root)
        if own is not None:
            found[kind] = own
        elif len(source):
            empty.append(kind)
        elif part != "validation":  # said once in a training
            warnings.warn(no_box(root), stacklevel=2)
    if not found:
        raise ConfigError(
            f"{root}: training needs two sequences or more (or photographs, or cut-outs and backgrounds), one of which "
            f"is held back for validation; nothing is left for the part {part}"
        )
    if part == "train" and empty:
        names = " and ".join(empty)
        warnings.warn(f"{root}: all {names} is held back for validation, none is trained on; add more", stacklevel=2)
    return found


def no_box(root: Path) -> str:
    """Return what is wrong with a folder of training data whose photographs have no box to train on."""
    return f"{root / 'coco'}: no box that can be trained on, of {STILLS['least_side']:g} pixels or more; left out"


def held_back_files(files: Sequence[Path]) -> list[Path]:
    """Return the cut-outs or backgrounds of the validation part: by `held_back_material`, of two or more at least one.

    One file at least is left for training.
    """
    files = sorted(files, key=lambda path: (zlib.crc32(path.stem.encode()), path.name))
    held = [path for path in files if held_back_material(path.stem)]
    return (held or files[:1])[: len(files) - 1]


def _compositions(
    root: Path, part: str, whole: SyntheticSource, seed: int, clips: int, store: ImageStore
) -> SyntheticSource | None:
    """Return the compositions of a part's files, or None if it has no cut-out or no background."""
    held = [held_back_files(files) for files in whole.files]
    chosen = {path for files in held for path in files} if all(held) else set()  # validation needs some of both
    keep = _part(part, chosen.__contains__)
    if not all(any(map(keep, files)) for files in whole.files):
        return None
    return SyntheticSource(root / "cutouts", root / "backgrounds", length=clips, seed=seed, keep=keep, store=store)


def _part_of(source: Source, part: str, root: Path) -> Selection | None:
    """Return a part of video or photographs, or None if it is empty.

    The pool's parts go by its names; of other data every tenth clip or photograph is held back.
    """
    names = {_clip(source.target_name(index)) for index in range(len(source))}
    clips = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    chosen = set(clips[: max(1, len(clips) // 10)])
    is_pool = (root / "got10k" / "train" / HELD_BACK_VIDEO[0]).is_dir()  # own clips may be called HEN_01
    found = source.subset(_part(part, held_back if is_pool else lambda name: _clip(name) in chosen))
    if source.is_video and len(found) and (root / "got10k").is_dir():
        found = found.with_weights(video_weights(found))
        found.cut_at = VIDEO_CUT_AT
    return found if len(found) else None


def _clip(name: str) -> str:
    """Return the clip or photograph of a target, all of whose targets are held back together."""
    return name.partition("#")[0]


def _part(part: str, held: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return the condition on names or files that makes up a part."""
    conditions = {"train": lambda name: not held(name), "validation": held, "all": lambda name: True}
    if part not in conditions:
        raise ConfigError(f"part {part!r} of the pool is not one of {', '.join(conditions)}")
    return conditions[part]
