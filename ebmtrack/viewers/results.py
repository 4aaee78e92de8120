"""The results of tracking, frame by frame, and the files from which other programs read them.

Rows are `frame, id, x, y, w, h, score, verdict`; frames and pixels count from 0, ids from 1. The kind of a file is
chosen by its ending, or by the name of a layout.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ebmtrack.errors import ConfigError
from ebmtrack.files import expand_home, write_text
from ebmtrack.videos.text import read_text
from ebmtrack.videos.yolo import NAMES_FILE, labels_folder, yolo_files
from ebmtrack.viewers.category_layouts import coco_text, cvat_text, yolo_texts
from ebmtrack.viewers.result_rows import COLUMNS, INTERVAL_COLUMNS, FrameResult, ResultInfo

ENDINGS = {".csv": "csv", ".json": "json", ".xml": "cvat", ".txt": "pytracking", ".mot": "mot", ".yolo": "yolo"}
CHOICES = ".csv .json .coco.json .xml .txt .mot.txt .mot .yolo"  # endings of names, for users; see layout_of
INTERVAL_LAYOUTS = ("csv", "json")


def write_results(
    path: str | os.PathLike, rows: Iterable[Any], info: ResultInfo | None = None, layout: str | None = None
) -> list[Path]:
    """Write results to a file.

    Args:
        path: The file; for YOLO a folder, with one file for each frame.
        rows: FrameResults in any order, as `ebmtrack.track` gives them. Or, of one target, what a loop of your own has,
            an entry for each frame in order: the box x, y, w, h that `Tracker.init` got, then what `Tracker.update`
            returned.
        info: Where they come from; by default what the rows say, as those of `ebmtrack.track` do. YOLO and COCO need
            the size of a frame.
        layout: csv, json, mot, coco, cvat, yolo or pytracking; by default by the file's ending.

    Returns:
        The paths that were written: several for several targets in pytracking's layout, which holds one a file.

    Raises:
        ConfigError: On an unknown layout or ending, on a row that is no result, if the size of a frame is needed and
            not known, or if the file cannot be written.

    Examples:
        >>> video, box = cv2.VideoCapture("walk.mp4"), (80, 60, 60, 44)          # doctest: +SKIP
        >>> tracker, results = ebmtrack.Tracker.from_pretrained(), [box]         # doctest: +SKIP
        >>> tracker.init(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB), box)  # doctest: +SKIP
        >>> while (frame := video.read())[0]:                                    # doctest: +SKIP
        ...     results.append(tracker.update(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB)))
        >>> write_results("walk.csv", results)                                   # doctest: +SKIP
    """
    path, layout, later = expand_home(path), layout_of(path, layout), iter(rows)
    first = list(islice(later, 1))  # before the others, which may take hours, it says if the file can be written
    _check_size(path, layout, info or _common_info(first))
    ordered = [_as_row(place, row) for place, row in enumerate(chain(first, later))]
    ordered.sort(key=lambda row: (row.frame, row.id))
    info = info or _common_info(ordered)
    _check_size(path, layout, info)
    try:
        if layout == "pytracking":
            return _write_pytracking(path, ordered)
        if layout == "yolo":
            return _write_yolo(path, ordered, info)
        write_text(path, WRITERS[layout](ordered, info))
    except OSError as error:
        raise ConfigError(f"{path}: cannot write here: {error.strerror or error}") from None
    return [path]


def _check_size(path: Path, layout: str, info: ResultInfo) -> None:
    """Raise ConfigError if a layout needs the size of a frame, and it is not known."""
    if layout in ("coco", "yolo") and min(info.size_wh) < 1:
        raise ConfigError(
            f"{path}: {layout} needs the size of a frame: write_results(..., info=ResultInfo(size_wh=(width, height))) "
            "with `from ebmtrack.viewers.results import ResultInfo`"
        )


def _common_info(rows: Sequence[Any]) -> ResultInfo:
    """Return the origin of rows; what differs between them, or is not known of some, is not known."""
    origins: list[ResultInfo] = []
    for row in rows:
        origin = getattr(row, "info", None) or ResultInfo()
        if origin not in origins[-1:]:
            origins.append(origin)
    known = vars(origins[0]) if origins else {}
    return ResultInfo(**{name: fact for name, fact in known.items() if all(vars(one)[name] == fact for one in origins)})


def _as_row(place: int, row: Any) -> FrameResult:
    """Return a row of results; of a box or a tracker's answer the place is the frame, and the target has the id 1."""
    if isinstance(row, FrameResult):
        if row.id < 1:
            raise ConfigError(
                f"row {place} of the results has the id {row.id}: ids count from 1, MultiTracker's from 0"
            )
        return row
    if hasattr(row, "box_xywh") and hasattr(row, "score"):
        return FrameResult.of_answer(place, 1, row)
    try:
        x, y, w, h = (float(value) for value in ([] if isinstance(row, (str, Mapping)) else row))
    except (TypeError, ValueError):
        raise ConfigError(
            f"row {place} of the results is a {type(row).__name__}; pass the box of the first frame and what "
            "Tracker.update() returned, or of several targets FrameResult.of_answer(frame, id, answer) for each, "
            "with ids from 1"
        ) from None
    return FrameResult(place, 1, (x, y, w, h))


def check_interval(interval: float | None, boxes: str | None, layout: str | None, is_drawn: bool) -> None:
    """Raise ConfigError if intervals are asked for that are no probability, or that nothing would show.

    Intervals that are drawn, but that the file of boxes cannot hold, are pointed out.

    Args:
        interval: probability of the intervals; None for none.
        boxes: the file of boxes, if there is one.
        layout: its layout, if its ending does not say it.
        is_drawn: whether frames are saved or shown.
    """
    if interval is None:
        return
    if not 0 < interval < 1:
        raise ConfigError(f"--interval is a probability above 0 and below 1, such as 0.9, not {interval}")
    written = boxes is not None and layout_of(boxes, layout) in INTERVAL_LAYOUTS
    if not (is_drawn or written):
        raise ConfigError("--interval needs a place for intervals: --boxes OUT.csv or OUT.json, --save OUT.mp4, --show")
    if boxes is not None and not written:
        print(f"note: {boxes} holds boxes without intervals, which are drawn alone; CSV and JSON hold them")


def layout_of(path: str | os.PathLike, layout: str | None = None) -> str:
    """Return the layout of a file of results.

    Args:
        path: The file; its ending names the layout. A pipe or device gets CSV.
        layout: Name of the layout, whatever the ending.

    Raises:
        ConfigError: If the layout or the ending is unknown.
    """
    known = (*WRITERS, "pytracking", "yolo")
    if layout is not None:
        if layout not in known:
            raise ConfigError(f"there is no layout {layout!r} of results; there are {', '.join(known)}")
        return layout
    name = Path(path).name.lower()
    for kind in ("mot", "coco"):
        if f".{kind}." in name:  # walk.mot.txt, walk.coco.json
            return kind
    ending = Path(name).suffix
    if ending in ENDINGS:
        return ENDINGS[ending]
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        return "csv"
    raise ConfigError(f"{path}: boxes end in one of {CHOICES} (YOLO's folder), unless --layout names their layout")


def csv_text(rows: Sequence[FrameResult], info: ResultInfo) -> str:
    """Return rows as CSV with a header line; a score that is not known is empty."""
    text = io.StringIO()
    columns = COLUMNS if info.interval is None else COLUMNS + INTERVAL_COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_dict(info.interval) for row in rows)
    return text.getvalue()


def json_text(rows: Sequence[FrameResult], info: ResultInfo) -> str:
    """Return rows as JSON: metadata (source, frame rate, size, network, seed), null if unknown, and `results`."""
    width, height = info.size_wh if min(info.size_wh) > 0 else (None, None)
    head: dict[str, Any] = {"source": info.source or None, "fps": info.fps, "width": width, "height": height}
    head |= {"network": info.network or None, "seed": info.seed, "box": "x, y, w, h in pixels, from 0", **info.extra}
    head |= {} if info.interval is None else {"interval": info.interval}
    return json.dumps({**head, "results": [row.to_dict(info.interval) for row in rows]}, indent=1) + "\n"


def mot_text(rows: Sequence[FrameResult], info: ResultInfo) -> str:
    """Return rows as MOTChallenge reads them: frame, id, left, top, w, h, confidence, -1, -1, -1, all counted from 1.

    Frames in which a target is lost are left out, as the format asks. Source: motchallenge.net/instructions.
    """
    lines = []
    for row in filter(lambda row: row.found, rows):
        x, y, w, h = row.box_xywh
        score = 1.0 if row.known_score is None else row.known_score
        lines.append(f"{row.frame + 1},{row.id},{x + 1:.3f},{y + 1:.3f},{w:.3f},{h:.3f},{score:.4f},-1,-1,-1\n")
    return "".join(lines)


WRITERS: dict[str, Callable[[Sequence[FrameResult], ResultInfo], str]] = {
    "csv": csv_text,
    "json": json_text,
    "mot": mot_text,
    "coco": coco_text,
    "cvat": cvat_text,
}


def _write_pytracking(path: Path, rows: Sequence[FrameResult]) -> list[Path]:
    """Write bare four columns x,y,w,h, a line for each frame; a file NAME_1 and so on for each of several targets."""
    ids = sorted({row.id for row in rows})
    paths = []
    for target in ids:
        text = "".join(",".join(f"{value:.3f}" for value in row.box_xywh) + "\n" for row in rows if row.id == target)
        paths.append(path if len(ids) == 1 else path.with_name(f"{path.stem}_{target}{path.suffix}"))
        write_text(paths[-1], text)
    return paths


def _write_yolo(path: Path, rows: Sequence[FrameResult], info: ResultInfo) -> list[Path]:
    """Write a data set of YOLO: a folder `labels`, with a file for each frame, and the names of the classes."""
    names, texts = yolo_texts(rows, info)
    folder = labels_folder(path)
    check_yolo_folder(path, texts, names)
    for name, text in texts.items():
        write_text(folder / name, text)
    write_text(folder.parent / NAMES_FILE, names)
    return [path]


def check_yolo_folder(path: Path, texts: Container[str] = (), names: str = "") -> None:
    """Raise ConfigError if a folder holds YOLO labels or names of classes already: new ones would mix with them.

    Args:
        path: The folder of a data set, or its folder `labels`; labels may be in the first itself, as they once were.
        texts: Names of the files that are written; the same ones may be there.
        names: Content of `data.yaml` that is written.
    """
    folder = labels_folder(path)
    others = [file for file in yolo_files(folder) if file.name not in texts]
    others += yolo_files(path) if path != folder else []
    if others:
        raise ConfigError(f"{path} holds labels already, such as {others[0].name}: move them or name another folder")
    classes = folder.parent / NAMES_FILE
    if classes.exists() and read_text(classes, ConfigError) != names:
        raise ConfigError(f"{classes} is there already and may name other classes: move it or name another folder")
