"""UAV123 and UAV20L (Mueller, Smith and Ghanem, ECCV 2016).

`<root>/data_seq/UAV123/<video>/000001.jpg`, `<root>/anno/UAV123/<entry>.txt`, `<root>/anno/UAV20L/<entry>.txt`, and
attributes in `att/` beside the annotations. Several entries are parts of one video, and UAV20L's are whole videos that
UAV123 cuts: the first and last frames are listed below. Rows of NaN mean that the target is out of view.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.videos.sequence import DataSet, Frames, Sequence, existing_folder, read_attributes, split_found
from ebmtrack.videos.text import read_boxes

# Entries that are whole videos, from frame 1 on.
_WHOLE = """
bike1 bike2 bike3 boat1 boat2 boat3 boat4 boat5 boat6 boat7 boat8 boat9 building1 building2 building3
building4 building5 car2 car3 car4 car5 car7 car9 car10 car11 car12 car13 car14 car15 car17 car18 person1
person3 person6 person9 person10 person11 person13 person15 person16 person18 person20 person21 person22
person23 truck1 truck2 truck3 uav2 uav3 uav4 uav5 uav6 uav7 uav8 wakeboard1 wakeboard2 wakeboard3 wakeboard4
wakeboard5 wakeboard6 wakeboard7 wakeboard8 wakeboard9 wakeboard10 car1_s car2_s car3_s car4_s person1_s
person2_s person3_s
""".split()

# Videos that are cut: first and last frames of the parts.
_PARTS = {
    "bird1": ((1, 253), (775, 1477), (1573, 2437)),
    "car1": ((1, 751), (751, 1627), (1627, 2629)),
    "car6": ((1, 487), (487, 1807), (1807, 2953), (2953, 3925), (3925, 4861)),
    "car8": ((1, 1357), (1357, 2575)),
    "car16": ((1, 415), (415, 1993)),
    "group1": ((1, 1333), (1333, 2515), (2515, 3925), (3925, 4873)),
    "group2": ((1, 907), (907, 1771), (1771, 2683)),
    "group3": ((1, 1567), (1567, 2827), (2827, 4369), (4369, 5527)),
    "person2": ((1, 1189), (1189, 2623)),
    "person4": ((1, 1501), (1501, 2743)),
    "person5": ((1, 877), (877, 2101)),
    "person7": ((1, 1249), (1249, 2065)),
    "person8": ((1, 1075), (1075, 1525)),
    "person12": ((1, 601), (601, 1621)),
    "person14": ((1, 847), (847, 1813), (1813, 2923)),
    "person17": ((1, 1501), (1501, 2347)),
    "person19": ((1, 1243), (1243, 2791), (2791, 4357)),
    "truck4": ((1, 577), (577, 1261)),
    "uav1": ((1, 1555), (1555, 2377), (2473, 3469)),
}

# UAV20L: last frame of each video, all from frame 1.
_LONG = {
    "bike1": 3085,
    "bird1": 2437,
    "car1": 2629,
    "car3": 1717,
    "car6": 4861,
    "car8": 2575,
    "car9": 1879,
    "car16": 1993,
    "group1": 4873,
    "group2": 2683,
    "group3": 5527,
    "person2": 2623,
    "person4": 2743,
    "person5": 2101,
    "person7": 2065,
    "person14": 2923,
    "person17": 2347,
    "person19": 4357,
    "person20": 1783,
    "uav1": 3469,
}

ATTRIBUTES = ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB")  # the paper's table 2

RANGES: dict[str, tuple[str, int, int | None]] = {
    **{name: (name, 1, None) for name in _WHOLE},
    **{
        f"{video}_{number}": (video, first, last)
        for video, parts in _PARTS.items()
        for number, (first, last) in enumerate(parts, 1)
    },
}

NAMES: dict[str, tuple[str, ...]] = {"uav123": tuple(sorted(RANGES)), "uav20l": tuple(sorted(_LONG))}


def find(root: Path, version: str = "uav123") -> DataSet:
    """Find which entries are under `root`, frames and annotation both. Raises DatasetError if `root` is no folder."""
    existing_folder(root)

    def present(name: str) -> bool:
        return _annotation(root, version, name).is_file() and _frames(root, version, name).folder.is_dir()

    found, missing = split_found(NAMES[version], present)
    loaders = {name: partial(load, root, version, name) for name in found}
    return DataSet(version, root, loaders, missing, len(NAMES[version]), "pytracking")


def load(root: Path, version: str, name: str) -> Sequence:
    """Read one entry; frames with a box of NaN are not visible."""
    annotation = _annotation(root, version, name)
    boxes = read_boxes(annotation, (4,))
    attributes = read_attributes((annotation.parent / "att",), name, ATTRIBUTES)
    visible = ~np.isnan(boxes).any(axis=1)
    frames = _frames(root, version, name)
    return Sequence(name, version, boxes, frames, visible, attributes, rule="uav", annotation=annotation)


def _annotation(root: Path, version: str, name: str) -> Path:
    return root / "anno" / version.upper() / f"{name}.txt"


def _frames(root: Path, version: str, name: str) -> Frames:
    video, first, last = RANGES[name] if version == "uav123" else (name, 1, _LONG[name])
    folders = [root / "data_seq" / "UAV123" / video, root / "data_seq" / video]
    return Frames(next((f for f in folders if f.is_dir()), folders[0]), first, last)
