"""Key frames from files of boxes, as labelling tools and `ebmtrack track` write them, and what the targets are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import expand_home
from ebmtrack.videos.label_sizes import declared_sizes, picture_size_wh
from ebmtrack.videos.labels import read_labels
from ebmtrack.videos.yolo import labels_folder
from ebmtrack.viewers.frames import open_frames
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.picture_frames import FolderFrames
from ebmtrack.viewers.results import ENDINGS, ResultInfo
from ebmtrack.viewers.selection import FrameAt, parse_key_frames
from ebmtrack.viewers.source_names import is_stream

Size = tuple[int, int]


@dataclass(frozen=True)
class Given:
    """The boxes that a user gives in texts and files.

    Attributes:
        keys: Key frames of the files.
        names: What the targets are, such as person, as far as the files say it.
        texts: What is no file, see `parse_key_frames`.
    """

    keys: list[KeyFrame] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def key_frames(self, frame_at: FrameAt, default: int | None) -> list[KeyFrame]:
        """Return all key frames; the arguments and errors are those of `parse_key_frames`."""
        return parse_key_frames(self.texts, frame_at, default, self.keys)


def is_key_file(given: object) -> bool:
    """Return whether a text or path names a file of boxes: by its ending, or because it is there.

    >>> is_key_file("keys.xml"), is_key_file("0:120,80,64.5,48.5")
    (True, False)
    """
    if not isinstance(given, (str, os.PathLike)):
        return False
    if not os.fspath(given):
        return False  # pathlib takes an empty name for the current folder
    path = expand_home(given)
    return path.suffix.lower() in ENDINGS or os.path.exists(path)


def check_is_not_given(output: Path | None, given: Sequence[str | os.PathLike]) -> None:
    """Raise ConfigError if writing `output` would replace a file of boxes that is given, perhaps drawn by hand."""
    for path in map(expand_home, filter(is_key_file, given)):
        if output is not None and output.is_file() and path.exists() and output.samefile(path):
            raise ConfigError(f"{output} holds the key frames that are given; give another name for the output")


def read_given(given: Sequence[str | os.PathLike], source: Any) -> Given:
    """Return what a user gives, with the files read.

    Args:
        given: Texts and files.
        source: What is tracked: a file of boxes may belong to it by the names of its pictures, or by its size.

    Raises:
        DatasetError: On a file that cannot be used, with the line, or with target and frame, and on files that call
            different things by one number.
    """
    found = Given(texts=[str(one) for one in given if not is_key_file(one)])
    for one in filter(is_key_file, given):
        keys, names = _read_keys(expand_home(one), source)
        for target, name in names.items():
            if (other := found.names.setdefault(target, name)) != name:
                raise DatasetError(
                    f"{one}: target {target} is {name} here, and {other} in a file before: number the targets alike in "
                    "all files, or put all boxes into one file"
                )
        found.keys.extend(keys)
    return found


def _read_keys(path: Path, source: Any) -> tuple[list[KeyFrame], dict[int, str]]:
    """Return the key frames of a file, and what its targets are; boxes are checked against the size of the frames."""
    if path.is_dir() and labels_folder(path).is_dir():
        path = labels_folder(path)
    files, size_of = _frames_of(source)
    labels = read_labels(path, files, key_frames=True)
    if left_out := labels.left_out():
        warnings.warn(f"{path}: {left_out}", stacklevel=4)
    try:
        ResultInfo(category=labels.names)
    except ConfigError as error:
        raise DatasetError(f"{path}: {error}") from None
    first = min(frame for track in labels.tracks.values() for frame in track)
    declared = {size for _, sizes in declared_sizes(path) for size in sizes}
    if declared and (size := size_of(first)) is not None and size not in declared:
        (wide, high), name = min(declared), source if isinstance(source, (str, os.PathLike)) else "the images"
        raise DatasetError(
            f"{path}: its boxes are for frames of {wide} x {high} pixels, but those of {name} have "
            f"{size[0]} x {size[1]}: give the video that was labelled, or scale the boxes"
        )
    places = [(target, frame, box) for target, track in labels.tracks.items() for frame, box in track.items()]
    return [_key_frame(path, *place, size_of(place[1])) for place in places], labels.names


def _key_frame(path: Path, target: int, frame: int, box: list[float], size_wh: Size | None) -> KeyFrame:
    """Return a key frame of a file; DatasetError if its box is none, or outside of frames of this size, if known."""
    from ebmtrack.tracking.tracker import MOST_SIDE, check_box

    if path.is_dir():
        if size_wh is None:
            raise DatasetError(f"{path}: boxes in parts of a frame are for recorded video: give boxes in pixels")
        box = [part * side for part, side in zip(box, size_wh * 2)]
    try:
        x, y, w, h = check_box(box, size_wh[::-1] if size_wh else (MOST_SIDE, MOST_SIDE)).tolist()
    except ConfigError as error:
        raise DatasetError(f"{path}: target {target}, frame {frame}: {error}") from None
    return KeyFrame(frame, target, (x, y, w, h), file=str(path))


def _frames_of(source: Any) -> tuple[list[Path], Callable[[int], Size | None]]:
    """Return the pictures of a source, if it is a folder of them, and a function from a frame to its size.

    Of videos all frames have the size of the first one that can be read; that of a stream is not known.
    """
    if is_stream(source):
        return [], lambda _: None
    with open_frames(source) as frames:
        if isinstance(frames, FolderFrames):
            paths = list(frames.paths)
            return paths, lambda frame: picture_size_wh(paths[min(frame, len(paths) - 1)])
        image = next(frames, None)
    size = None if image is None else (image.shape[1], image.shape[0])
    return [], lambda _: size
