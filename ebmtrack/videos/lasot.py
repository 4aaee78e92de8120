"""LaSOT (Fan et al., CVPR 2019): 1,120 training and 280 test sequences, and its extension (IJCV 2021), 150.

`<root>/<class>/<class>-<n>/{img, groundtruth.txt, full_occlusion.txt, out_of_view.txt}`, or without the folders of
classes. The two files of flags say in which frames the target is absent: those do not count in the evaluation, and are
not trained on.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.sequence import (
    DataSet,
    Frames,
    Sequence,
    existing_folder,
    read_attributes,
    split_found,
    visible_paths,
)
from ebmtrack.videos.text import read_boxes, read_flags

SPLITS = ("train", "test", "extension", "all")
ANNOTATION = ("groundtruth.txt", "full_occlusion.txt", "out_of_view.txt")
IN_CLASS = 20  # sequences of each class

_TEST = """
airplane 1 9 13 15; basketball 1 6 7 11; bear 2 4 6 17; bicycle 2 7 9 18; bird 2 3 15 17; boat 3 4 12 17; book
3 10 11 19; bottle 1 12 14 18; bus 2 5 17 19; car 2 6 9 17; cat 1 3 18 20; cattle 2 7 12 13; chameleon 3 6 11
20; coin 3 6 7 18; crab 3 6 12 18; crocodile 3 4 10 14; cup 1 4 7 17; deer 4 8 10 14; dog 1 7 15 19; drone 2 7
13 15; electricfan 1 10 18 20; elephant 1 12 16 18; flag 2 3 5 9; fox 2 3 5 20; frog 3 4 9 20; gametarget 1 2
7 13; gecko 1 5 16 19; giraffe 2 10 13 15; goldfish 3 7 8 10; gorilla 4 6 9 13; guitar 3 8 10 16; hand 2 3 9
16; hat 1 2 5 18; helmet 5 11 13 19; hippo 1 7 9 20; horse 1 4 12 15; kangaroo 2 5 11 14; kite 4 6 10 15;
leopard 1 7 16 20; licenseplate 6 12 13 15; lion 1 5 12 20; lizard 1 3 6 13; microphone 2 6 14 16; monkey 3 4
9 17; motorcycle 1 3 9 18; mouse 1 8 9 17; person 1 5 10 12; pig 2 10 13 18; pool 3 7 12 15; rabbit 10 13 17
19; racing 10 15 16 20; robot 1 5 8 19; rubicCube 1 6 14 19; sepia 6 8 13 16; shark 2 3 5 6; sheep 3 5 7 9;
skateboard 3 8 16 19; spider 14 16 18 20; squirrel 8 11 13 19; surfboard 4 5 8 12; swing 10 14 17 20; tank 6 9
14 16; tiger 4 6 12 18; train 1 7 11 20; truck 3 6 7 16; turtle 5 8 9 16; umbrella 2 9 17 19; volleyball 1 13
18 19; yoyo 7 15 17 19; zebra 10 14 16 17
"""

_EXTENSION = """
atv badminton cosplay dancingshoe footbag frisbee jianzi lantern misc opossum paddle raccoon rhino skatingshoe
wingsuit
""".split()

# The order of the toolkit's files.
ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")

NAMES: dict[str, tuple[str, ...]] = {
    "test": tuple(
        f"{words[0]}-{number}"
        for words in (entry.split() for entry in _TEST.replace("\n", " ").split(";"))
        for number in words[1:]
    ),
    "extension": tuple(f"{name}-{number}" for name in _EXTENSION for number in range(1, 11)),
}


def find(root: Path, split: str = "test") -> DataSet:
    """Find the sequences of a split under `root`.

    Args:
        root: The folder of classes.
        split: test or extension, whose names are known; train: what is there and in neither; all: what is there.

    Raises:
        ConfigError: For another split.
        DatasetError: If `root` is no folder, or there is no sequence of the splits without names.
    """
    if split not in SPLITS:
        raise ConfigError(f"LaSOT has no split {split!r}; there are {', '.join(SPLITS)}")
    version = "lasot_ext" if split == "extension" else "lasot"
    if split in NAMES:
        names = NAMES[split]
        found, missing = split_found(names, lambda name: _annotated_folder(existing_folder(root), name) is not None)
        expected: int | None = len(names)
    else:
        known = set(NAMES["test"] + NAMES["extension"]) if split == "train" else set()
        found, missing, expected = tuple(name for name in _names_in(root) if name not in known), (), None
        if not found:
            raise DatasetError(
                f"{root}: no sequence <class>/<class>-<number> of split {split!r}; give the folder of the classes"
            )
    loaders = {name: partial(load, root, name, version) for name in found}
    files, frames = partial(_files, root), partial(_frames, root)
    return DataSet(version, root, loaders, missing, expected, "lasot", files, frames)


def load(root: Path, name: str, dataset: str = "lasot") -> Sequence:
    """Read one sequence. Raises DatasetError if boxes and flags differ in number."""
    folder = _annotated_folder(root, name)
    if folder is None:
        raise DatasetError(f"{dataset}: sequence {name!r} is not under {root}; {_folder(root, name) / ANNOTATION[0]}")
    boxes = read_boxes(folder / ANNOTATION[0], (4,))
    absent = read_flags(folder / ANNOTATION[1], len(boxes)) | read_flags(folder / ANNOTATION[2], len(boxes))
    attributes = read_attributes([root / place / "att" for place in ("", "annos", "anno")], name, ATTRIBUTES)
    frames, annotation = _frames(root, name), folder / ANNOTATION[0]
    return Sequence(name, dataset, boxes, frames, ~absent, attributes, rule="lasot", annotation=annotation)


def _names_in(root: Path) -> list[str]:
    """Return the names of the sequences in folders of classes, by class and number."""
    places = [path for path in existing_folder(root, "the folder of classes is missing").glob("*/*-*") if path.is_dir()]
    names = [path.name for path in visible_paths(places) if path.parent.name == path.name.rpartition("-")[0]]
    return sorted(names, key=_class_and_number)


def _class_and_number(name: str) -> tuple[str, int, str]:
    kind, _, number = name.rpartition("-")
    return kind, int(number) if number.isdecimal() else -1, number


def _folder(root: Path, name: str) -> Path:
    """Return the folder of a sequence, below its class unless there is only the other."""
    inside, flat = root / name.rpartition("-")[0] / name, root / name
    return flat if flat.is_dir() and not inside.is_dir() else inside


def _annotated_folder(root: Path, name: str) -> Path | None:
    """Return the folder of a sequence, None if it has no boxes."""
    folder = _folder(root, name)
    return folder if (folder / ANNOTATION[0]).is_file() else None


def _files(root: Path, name: str) -> tuple[str, ...]:
    return tuple(os.path.join(_folder(root, name), file) for file in ANNOTATION)


def _frames(root: Path, name: str) -> Frames:
    return Frames(_folder(root, name) / "img", pattern="{:08d}.jpg")
