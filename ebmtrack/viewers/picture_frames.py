"""Sources of frames that are pictures: a folder, a TIFF stack or an animation, images in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from itertools import accumulate
from pathlib import Path

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError, reason_of
from ebmtrack.files import in_frame_order
from ebmtrack.images import PICTURES, SequenceReader, read_pages
from ebmtrack.viewers.frame_source import FrameSource


class FolderFrames(FrameSource):
    """The pictures of a folder in natural order (frame2 before frame10), each in its own size.

    A picture that cannot be read is passed over as damage in a video is; if none can be read, that is an error.
    """

    def __init__(self, folder: str | os.PathLike, fps: float | None = None):
        folder = Path(folder)
        names = [path for path in _list_folder(folder) if path.suffix.lower() in PICTURES]
        names = [path for path in names if not path.name.startswith(".")]
        if not names:
            kinds = " ".join(sorted(PICTURES))
            raise DatasetError(f"{folder}: no pictures in this folder; frames are files ending in {kinds}")
        self.paths = in_frame_order(names)
        self._reader = SequenceReader()
        self._fault = ""  # of the first picture that cannot be read
        super().__init__(folder.resolve().name, fps, len(self.paths))

    def close(self) -> None:
        self.paths = self.paths[: self.position]

    def skip_to(self, number: int) -> bool:
        """See FrameSource; deep pictures are scaled by the first one, which is read for that."""
        if self.position == 0 and number > 0:
            self._read()
        self.frames_read, self.unreadable = min(number, len(self.paths)), []
        return True

    def _read(self) -> np.ndarray | None:
        failures = 0
        while self.position + failures < len(self.paths):
            try:
                image = self._reader.read(self.paths[self.position + failures])
            except DatasetError as error:
                self._fault = self._fault or str(error)
                failures += 1
                continue
            self._pass_over(failures)
            self._note_depth(self._reader)
            return image
        self._pass_over(failures)
        if self.paths and not self.frames_read:
            raise DatasetError(str(self.note))
        return None

    def _pass_over(self, count: int) -> None:
        """See FrameSource; the note names the first file that cannot be read."""
        super()._pass_over(count)
        if self.unreadable:
            self._notes["damage"] += f": {self._fault}"


class PageFrames(FrameSource):
    """The pages of TIFF stacks, or the frames of an animation (WebP, PNG), of several files one after the other."""

    def __init__(self, paths: list[Path], fps: float | None = None):
        self._reader = SequenceReader()
        self._waiting = list(paths)
        self._pages, seconds = read_pages(self._waiting.pop(0))
        self._stamps_s: list[float] = []  # of an animation
        if sum(seconds) > 0:
            fps = len(seconds) / sum(seconds)
            self._stamps_s = list(accumulate(seconds[:-1], initial=0.0)) if len(paths) == 1 else []
        super().__init__(paths[0].name, fps, len(self._pages) if len(paths) == 1 else None)

    def close(self) -> None:
        self._pages, self._waiting = [], []

    def _time_stamps(self) -> list[float] | None:
        """See FrameSource."""
        return self._stamps_s or None

    def _moment_s(self) -> float:
        """See FrameSource."""
        return self._stamps_s[self.position] if self._stamps_s else super()._moment_s()

    def _read(self) -> np.ndarray | None:
        while not self._pages and self._waiting:
            self._pages = read_pages(self._waiting.pop(0))[0]
        if not self._pages:
            return None
        image = self._reader.to_rgb(self._pages.pop(0))
        self._note_depth(self._reader)
        return image


class ArrayFrames(FrameSource):
    """Images in memory, RGB uint8 (h, w, 3), from a list or an iterator."""

    def __init__(self, images: Iterable[np.ndarray], fps: float | None = None):
        self._images = iter(images)
        super().__init__("images", fps, len(images) if isinstance(images, Sized) else None)

    def close(self) -> None:
        self._images = iter(())

    def _read(self) -> np.ndarray | None:
        for image in self._images:
            what = "None: could its file not be read?" if image is None else f"a {type(image).__name__}"
            if image is not None and not isinstance(image, (str, os.PathLike)):
                try:
                    array = np.ascontiguousarray(image)
                    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
                        return array
                    what = f"{array.dtype} {array.shape}"
                except (TypeError, ValueError, RuntimeError, OSError) as error:  # ragged, on a GPU, a damaged file
                    what += f", which is no array ({reason_of(error)})"
            raise ConfigError(f"image {self.position} is {what}; give arrays, RGB uint8 (height, width, 3)")
        return None


def open_folder(folder: Path) -> FrameSource:
    """Return the pictures of a folder, or the pages of the stacks in it."""
    frames = FolderFrames(folder)
    return PageFrames(frames.paths) if _hold_pages(frames.paths) else frames


def open_picture(path: Path) -> FrameSource:
    """Return the pages of a picture file; DatasetError if it has one only."""
    pages = PageFrames([path]) if path.stat().st_size else None
    if pages is None or (pages.length or 0) < 2:
        raise DatasetError(f"{path} is a single picture: give its folder, whose pictures are the frames")
    return pages


def _hold_pages(paths: list[Path]) -> bool:
    """Return whether files are TIFF stacks or animated WebPs: whether the first that can be read has several pages."""
    for path in paths:
        if path.suffix.lower() not in (".tif", ".tiff", ".webp"):
            return False
        try:
            return len(read_pages(path)[0]) > 1
        except DatasetError:
            continue  # reading its frames raises the error
    return False


def _list_folder(folder: Path) -> list[Path]:
    """Return the entries of a folder."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: cannot list this folder: {error.strerror or error}") from None
