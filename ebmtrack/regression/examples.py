"""Images with numbers: from a CSV file, from the layouts of public data sets, or drawn.

Every reader returns `Examples`, all in memory as uint8, and says in its errors which file and row is wrong.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ebmtrack.errors import DatasetError, EbmtrackError, missing_extra, reason_of
from ebmtrack.files import natural_key
from ebmtrack.images import read_rgb
from ebmtrack.videos.sequence import visible_paths
from ebmtrack.videos.text import decode_text, parse_csv

POSE = ("yaw", "pitch", "roll")
SPLITS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images (N, H, W, 3), uint8 RGB, and their numbers (N, D), float32, which have names."""

    images: np.ndarray
    labels: np.ndarray
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or len(self.images) == 0:
            raise DatasetError(f"{len(self.images)} images and {len(self.labels)} labels: need as many, at least one")
        bad = np.flatnonzero(~np.isfinite(self.labels).all(axis=1))
        if len(bad):
            raise DatasetError(f"the label of example {bad[0]} is {self.labels[bad[0]]}; {len(bad)} are no numbers")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Any) -> Examples:
        """Return some of the examples, by index, slice or mask."""
        return Examples(self.images[rows], self.labels[rows], self.targets)

    def split(self, parts: tuple[float, ...], seed: int = 0) -> list[Examples]:
        """Return the examples in random parts, such as (0.8, 0.2), the same ones for equal seeds."""
        order = np.random.default_rng(seed).permutation(len(self))
        cuts = np.round(np.cumsum(parts)[:-1] * len(self)).astype(int)
        if 0 in np.diff([0, *cuts, len(self)]):
            raise DatasetError(f"{len(self)} examples are too few for parts of {parts}; add images")
        return [self.take(rows) for rows in np.split(order, cuts)]


def read_csv(path: str | Path, size: int, split: str | None = None, targets: tuple[str, ...] | None = None) -> Examples:
    """Return the examples of a CSV file: a header, one column of image paths, and one to three columns of numbers.

    Args:
        path: the file; image paths are relative to its folder. The column of images is called image, file, path or
            file_name, or else is the first. A column "split" says which rows are meant.
        size: side of the images in pixels; they are scaled to it.
        split: rows to take: "train", "validation" (also val, valid or dev) or "test"; None for all.
        targets: columns of numbers; None for all but those of images and split.

    Raises:
        DatasetError: a row without a number or with another split, an image that is missing or damaged, or no rows.
    """
    path = Path(path)
    columns, rows = _read_rows(path)
    rows = [(line, row) for line, row in rows if split is None or _split_of(path, line, row) == split]
    if not rows:
        lack = f" with split {split!r}: give some, or leave the column split out" if split else ""
        raise DatasetError(f"{path}: no rows{lack}")
    image = next((name for name in ("image", "file", "path", "file_name") if name in columns), columns[0])
    targets = targets or tuple(name for name in columns if name not in (image, "split", ""))
    if len(columns) == 1 and (separator := next((sign for sign in ";\t|" if sign in image), None)):
        wanted = ",".join(name.strip() for name in image.split(separator))
        raise DatasetError(f"{path}, line 1: columns are separated by commas, such as {wanted}, not by {separator!r}")
    if not 1 <= len(targets) <= 3:
        raise DatasetError(f"{path}: needs one to three columns of numbers besides {image!r}, has {list(targets)}")
    labels = np.array([[_number(path, line, row, name) for name in targets] for line, row in rows], np.float32)
    images = np.stack([_picture_of(path, line, row.get(image), size) for line, row in rows])
    return Examples(images, labels, targets)


def splits_of(path: str | Path) -> set[str]:
    """Return the parts of SPLITS that the rows of a CSV file name; none if it has no column "split"."""
    path = Path(path)
    columns, rows = _read_rows(path)
    return {_split_of(path, line, row) for line, row in rows} if "split" in columns else set()


def _split_of(path: Path, line: int, row: dict[str, str]) -> str:
    """Return the part, of SPLITS, to which a row belongs."""
    word = row.get("split", "")
    found = next((name for name, words in SPLITS.items() if word.strip().lower() in words), None)
    if found is None:
        raise DatasetError(f"{path}, line {line}: split is {word!r}, expected train, validation or test")
    return found


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a CSV file, and its rows with their lines."""
    if not path.is_file():
        raise DatasetError(f"no file {path}: give a CSV file with a header, such as image,age")
    return parse_csv(decode_text(path.read_bytes(), path), path)


def _number(path: Path, line: int, row: dict[str, str], name: str) -> float:
    """Return one number of a row."""
    try:
        number = float(row[name])
    except (KeyError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise DatasetError(f"{path}, line {line}: {name} is {row.get(name)!r}, expected a number")
    return number


def _picture_of(path: Path, line: int, name: str | None, size: int) -> np.ndarray:
    """Return the image that a row of a CSV file names, scaled to size x size."""
    if not name:
        raise DatasetError(f"{path}, line {line}: names no image")
    try:
        return _picture(path.parent / name, size)
    except EbmtrackError as error:
        raise DatasetError(f"{path}, line {line}: {error}") from error


def _picture(path: Path, size: int) -> np.ndarray:
    """Return an image file, scaled to size x size."""
    return resize(read_rgb(path), size)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (H, W, 3) scaled to size x size."""
    if image.shape[:2] == (size, size):
        return image
    smaller = min(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


# Layouts of public data sets


def read_utkface(folder: Path, size: int, part: str = "all") -> Examples:
    """Return UTKFace: files AGE_GENDER_RACE_DATE.jpg, ages 21 to 60, as in the subset of Cao et al.

    The parts train and test are those of coral-cnn's utk_train.csv and utk_test.csv in the folder.
    """
    if part != "all":
        examples = read_csv(folder / f"utk_{part}.csv", size, targets=("label",))  # label = age - 21
        return Examples(examples.images, examples.labels + 21, ("age",))
    paths = sorted(visible_paths(folder.glob("*.jpg")), key=lambda path: natural_key(path.name))
    chosen = [(path, age) for path in paths if 21 <= (age := _age_of(path)) <= 60]
    if not chosen:
        raise DatasetError(f"{folder}: no UTKFace images AGE_GENDER_RACE_DATE.jpg with ages 21 to 60")
    labels = np.array([[age] for _, age in chosen], np.float32)
    return Examples(np.stack([_picture(path, size) for path, _ in chosen]), labels, ("age",))


def _age_of(path: Path) -> float:
    """Return the age in a file's name."""
    parts = path.name.split("_")
    if len(parts) < 3 or not parts[0].isdecimal() or int(parts[0]) > 116:  # UTKFace: ages 0 to 116
        raise DatasetError(f"{path}: expected a name AGE_GENDER_RACE_DATE.jpg with an age of 0 to 116")
    return float(parts[0])


def read_biwi(folder: Path, size: int, part: str = "train") -> Examples:
    """Return BIWI as FSA-Net prepares it: BIWI_train.npz or BIWI_test.npz with image (N, 64, 64, 3), BGR, and pose."""
    if part == "all":
        raise DatasetError("BIWI has the parts train and test; name one")
    path = folder / f"BIWI_{part}.npz"
    if not path.is_file():
        raise DatasetError(f"no file {path}: FSA-Net's protocol 2 has BIWI_train.npz and BIWI_test.npz")
    images, poses = _read_arrays(path, partial(np.load, allow_pickle=False), "image", "pose")
    if images.ndim != 4 or images.shape[-1] != 3 or poses.shape != (len(images), 3):
        raise DatasetError(f"{path}: image {images.shape} and pose {poses.shape}; expected (N, 64, 64, 3) and (N, 3)")
    largest = np.abs(poses).max(axis=1)
    if largest.max() > 180:
        raise DatasetError(f"{path}: row {largest.argmax()} has an angle of {largest.max():g}, which are no degrees")
    images = np.ascontiguousarray(images[..., ::-1]).astype(np.uint8)
    return Examples(np.stack([resize(image, size) for image in images]), poses.astype(np.float32), POSE)


def _h5_reader(name: str, images_key: str, labels_key: str, target: str, least: float, most: float) -> Callable:
    """Return the reader of one of CcGAN's HDF5 files, whose labels outside least..most are left out."""

    def read(folder: Path, size: int, part: str = "all") -> Examples:
        try:
            import h5py
        except ImportError:
            raise missing_extra("h5py", f"reading {name}") from None
        path = folder / name if folder.is_dir() else folder
        if not path.is_file():
            raise DatasetError(f"no file {path}: it is made by the authors of CcGAN (UBCDingXin/improved_CcGAN)")
        images, labels = _read_arrays(path, h5py.File, images_key, labels_key)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or len(labels) != len(images):
            raise DatasetError(
                f"{path}: {images_key} {images.shape}, {labels_key} {labels.shape}; expected (N, C, H, W), N"
            )
        kept = (labels >= least) & (labels <= most)
        images = images[kept].transpose(0, 2, 3, 1).astype(np.uint8)
        images = images.repeat(3, axis=3) if images.shape[-1] == 1 else images
        small = np.stack([resize(np.ascontiguousarray(image), size) for image in images])
        return Examples(small, labels[kept].astype(np.float32).reshape(-1, 1), (target,))

    return read


def _read_arrays(path: Path, open_file: Callable[[Any], Any], *names: str) -> list[np.ndarray]:
    """Return arrays of an npz or HDF5 file by name."""
    try:
        with open(path, "rb") as file, open_file(file) as arrays:
            missing = [name for name in names if name not in arrays]
            if missing:
                raise DatasetError(f"{path}: has no array {missing[0]!r}, only {sorted(arrays)}")
            return [np.asarray(arrays[name]) for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot be read ({reason_of(error)}); fetch it again") from error


LAYOUTS: dict[str, Callable[[Path, int, str], Examples]] = {
    "utkface": read_utkface,
    "utkface-h5": _h5_reader("UTKFace_64x64.h5", "images", "labels", "age", 1, 60),  # Paper IV: ages 1 to 60
    "biwi": read_biwi,
    "steering": _h5_reader("SteeringAngle_64x64.h5", "images", "labels", "angle", -np.inf, np.inf),
    "cell200": _h5_reader("Cell200_64x64.h5", "IMGs_grey", "CellCounts", "count", 1, 200),
}


def parts_of(name: str, folder: Path) -> tuple[str, ...]:
    """Return the parts that a data set on disk has: train and test, or else all."""
    given = name == "biwi" or (name == "utkface" and any(folder.glob("utk_*.csv")))
    return ("train", "test") if given else ("all",)


def findings(name: str, folder: Path) -> Iterator[str]:
    """Yield lines about a data set on disk for `ebmtrack datasets check`; raise a DatasetError if it is damaged."""
    for part in parts_of(name, folder):
        examples = LAYOUTS[name](folder, 64, part)
        for column, target in zip(examples.labels.T, examples.targets):
            figures = f"{column.min():g} to {column.max():g}, mean {column.mean():.2f}"
            yield f"{name} {part}: {len(examples)} images, {target} {figures}"
