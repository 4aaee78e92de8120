"""OTB-100, OTB-50 and OTB-2013 (Wu, Lim and Yang, PAMI 2015): `<root>/<Sequence>/{img, groundtruth_rect*.txt}`.

Known oddities, all handled here: boxes are separated by commas, tabs or blanks, depending on the sequence; Jogging and
Skating2 have two targets each, and so two entries; Human4's boxes are in `groundtruth_rect.2.txt`, because the file of
its first target is empty; nine sequences use a part of their frames, five of which do not start at frame 1; the file of
one of these, Tiger1, has boxes of the frames before its start, too; Board's frame numbers have five digits instead of
four; copies differ in the case of names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ebmtrack.videos.sequence import DataSet, Frames, Sequence, folders_by_name, read_attributes, split_found
from ebmtrack.videos.spelling import canonical
from ebmtrack.videos.text import read_boxes

_TB50 = """
Basketball Biker Bird1 BlurBody BlurCar2 BlurFace BlurOwl Bolt Box Car1 Car4 CarDark CarScale ClifBar Couple
Crowds David Deer Diving DragonBaby Dudek Football Freeman4 Girl Human3 Human4 Human6 Human9 Ironman Jump
Jumping Liquor Matrix MotorRolling Panda RedTeam Shaking Singer2 Skating1 Skating2_1 Skating2_2 Skiing Soccer
Surfer Sylvester Tiger2 Trellis Walking Walking2 Woman
""".split()

_REST_OF_TB100 = """
Bird2 BlurCar1 BlurCar3 BlurCar4 Board Bolt2 Boy Car2 Car24 Coke Coupon Crossing Dancer Dancer2 David2 David3
Dog Dog1 Doll FaceOcc1 FaceOcc2 Fish FleetFace Football1 Freeman1 Freeman3 Girl2 Gym Human2 Human5 Human7
Human8 Jogging_1 Jogging_2 KiteSurf Lemming Man Mhyang MountainBike Rubik Singer1 Skater Skater2 Subway Suv
Tiger1 Toy Trans Twinnings Vase
""".split()

_OTB2013 = """
Basketball Bolt Boy Car4 CarDark CarScale Coke Couple Crossing David David2 David3 Deer Dog1 Doll Dudek
FaceOcc1 FaceOcc2 Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl Ironman Jogging_1
Jogging_2 Jumping Lemming Liquor Matrix Mhyang MotorRolling MountainBike Shaking Singer1 Singer2 Skating1
Skiing Soccer Subway Suv Sylvester Tiger1 Tiger2 Trellis Walking Walking2 Woman
""".split()

NAMES: dict[str, tuple[str, ...]] = {
    "otb100": tuple(sorted(_TB50 + _REST_OF_TB100)),
    "otb50": tuple(_TB50),
    "otb2013": tuple(_OTB2013),  # 50 videos, of which Jogging has two targets
}

# First and last frame, from the benchmark's web page (http://cvlab.hanyang.ac.kr/tracker_benchmark).
RANGES: dict[str, tuple[int, int]] = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),  # pytracking's list: the first 5 frames are left out
}
EARLY_ROWS = {"Tiger1": 5}  # rows of the annotation before the first frame of the range

ATTRIBUTES = ("IV", "OPR", "SV", "OCC", "DEF", "MB", "FM", "IPR", "OV", "BC", "LR")  # the order of the toolkit's files


def find(root: Path, version: str = "otb100") -> DataSet:
    """Find which of the version's sequences are under `root`. Raises DatasetError if `root` is no folder."""
    folders = folders_by_name(root)
    annotations = {name: _annotation(folders, name) for name in NAMES[version]}
    found, missing = split_found(NAMES[version], lambda name: annotations[name] is not None)
    loaders = {name: partial(load, root, name, path, version) for name in found if (path := annotations[name])}
    return DataSet(version, root, loaders, missing, len(NAMES[version]), "pytracking")


def load(root: Path, name: str, annotation: Path, dataset: str = "otb100") -> Sequence:
    """Read one sequence of OTB; attributes come from the toolkit's `anno/att`, if it is beside the sequences."""
    boxes = read_boxes(annotation, (4,))
    first, last = RANGES.get(name, (None, None))
    early = EARLY_ROWS.get(name, 0)
    if first is None or last is None or len(boxes) != last - first + 1 + early:
        early = 0
    frames = Frames(annotation.parent / "img", first, last)
    attributes = read_attributes((root / "anno" / "att", root / "att"), name, ATTRIBUTES)
    return Sequence(
        name, dataset, boxes[early:], frames, attributes=attributes, annotation=annotation, early_rows=early
    )


def _annotation(folders: dict[str, Path], name: str) -> Path | None:
    """Return the ground-truth file of an entry, or None if its folder or the file is missing."""
    stem, target = (
        (name[:-2], name[-1]) if name in ("Jogging_1", "Jogging_2", "Skating2_1", "Skating2_2") else (name, "")
    )
    folder = folders.get(canonical(name)) or folders.get(canonical(stem))
    if folder is None:
        return None
    choices = [f"groundtruth_rect.{target}.txt", "groundtruth_rect.txt"] if target else ["groundtruth_rect.txt"]
    if target and folders.get(canonical(name)) is None:
        choices = choices[:1]  # one folder for two targets: the plain file would be the other's
    if name == "Human4":
        choices = ["groundtruth_rect.2.txt", "groundtruth_rect.txt"]
    return next((folder / c for c in choices if (folder / c).is_file() and (folder / c).stat().st_size), None)
