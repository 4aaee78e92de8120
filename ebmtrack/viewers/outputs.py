"""The files of boxes and videos that `track` and `webcam` write, checked before work begins."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.files import OPEN_FILE, expand_home, is_open_file
from ebmtrack.viewers.partial_files import partial_path
from ebmtrack.viewers.results import ENDINGS, check_yolo_folder, layout_of
from ebmtrack.viewers.source_names import is_url, without_password
from ebmtrack.viewers.video_file import check_is_not_source, checked_video_path


def checked_outputs(
    source: str | os.PathLike | int,
    boxes: str | os.PathLike | None,
    save: str | os.PathLike | None,
    layout: str | None = None,
) -> tuple[Path | None, Path | None]:
    """Return the paths of the boxes and of the video, both of which can be written.

    Args:
        source: What is tracked; it must not be written over, nor by a partial file.
        boxes: File of boxes, a folder for YOLO, or None.
        save: Video, or None.
        layout: Layout of the boxes, by default that of the ending.

    Raises:
        ConfigError: If a layout or ending is unknown, if a path cannot be written, or if YOLO's folder holds labels.
    """
    if boxes is not None and os.fspath(boxes) == "-":
        raise ConfigError(
            "--boxes - is no file, and the standard output gets the summary: give a name such as boxes.csv"
        )
    if boxes is not None and Path(boxes).is_dir() and "yolo" not in (layout, ENDINGS.get(Path(boxes).suffix.lower())):
        raise ConfigError(f"{boxes} is a folder; give a file name for the boxes, or --layout yolo")
    for output in (save, boxes):
        check_is_not_source(output, source)
        _check_writable(output)
        if output is not None:
            check_is_not_source(partial_path(Path(output)), source)
    if save is not None and boxes is not None and Path(save).resolve() == Path(boxes).resolve():
        raise ConfigError(f"--save and --boxes both name {save}; give each a file of its own")
    if boxes is not None and layout_of(boxes, layout) == "yolo":
        check_yolo_folder(Path(boxes))
    return Path(boxes) if boxes is not None else None, checked_video_path(save) if save is not None else None


def _check_writable(path: str | os.PathLike | None) -> None:
    """Raise ConfigError if a file cannot be made in the folder of `path`."""
    if path is None or (Path(path).exists() and not Path(path).is_file()):
        return  # nothing asked for, or a folder, pipe or device
    if is_open_file(Path(path)):
        raise ConfigError(f"{path}: cannot write here: {OPEN_FILE}")
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    partial = partial_path(Path(path))
    if partial.is_dir() and not Path(path).is_dir():
        raise ConfigError(f"{path}: {partial} is a folder; it is the name of the file while the run goes on")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{partial.name}-"):  # as long as the longest name
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot write here: {error.strerror or error}") from None


def tell_of_writing(*paths: Path | None, when: str = "") -> None:
    """Print a note for each file that the run will replace, and `when`, and for each folder that it will make."""
    folders = set[Path]()
    for path in (path for path in paths if path is not None):
        folder = path.absolute().parent
        if path.is_file():
            print(f"note: {path} is there; this run writes over it{when}")
        elif not folder.exists() and folder not in folders:
            folders.add(folder)
            print(f"note: {path.parent} is not there yet; it is made for {path.name}")


def file_stem(source: str | os.PathLike | int) -> str:
    """Return a name for files made from a source: a file's stem, a folder's name, a camera's number."""
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if is_url(text):
        place = without_password(text).split("://", 1)[1].split("?")[0]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", place).strip("_") or "stream"
    if text in ("/dev/stdin", "/dev/fd/0"):
        return "stdin"
    path = expand_home(text).resolve()
    if path.is_dir():
        return path.name or "frames"
    return path.stem if path.exists() or not text.isdigit() else f"camera{text}"
