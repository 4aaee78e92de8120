"""The demonstration: tracks the built-in sequence, measures it against the truth, shows the energy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.images import write_picture
from ebmtrack.viewers.corner_map import corner_map
from ebmtrack.viewers.demo_sequence import DemoSequence, demo_sequence
from ebmtrack.viewers.drawing import WHITE, contact_sheet, draw_box, draw_text, overlay_heat
from ebmtrack.viewers.keyframes import overlaps
from ebmtrack.viewers.video_file import VideoWriter

GRID = 41  # points of the heat map in each direction
REACH = 0.45  # of the heat map to each side of the corner, in box widths and heights
TILE = (400, 300)  # of the pictures that show the energy, pixels
COLUMNS = 3  # of the contact sheet
CLOSE_UP = 1.8  # size of such a picture in boxes


@dataclass(frozen=True)
class DemoReport:
    """The figures of a demo: overlap by part and over all frames (0 to 1), frames/s, and the two files."""

    overlap_of: dict[str, float]
    mean_overlap: float
    fps: float
    video: Path
    picture: Path

    def text(self) -> str:
        """Return the report for the screen."""
        rows = [f"  {name:<12}{overlap:.3f}" for name, overlap in self.overlap_of.items()]
        return "\n".join(
            ["overlap with the truth", *rows, f"  {'mean':<12}{self.mean_overlap:.3f}"]
            + [f"{self.fps:.1f} frames/s", f"video    {self.video}", f"picture  {self.picture}"]
        )


def run_demo(out_dir: str | os.PathLike, tracker, sequence: DemoSequence | None = None) -> DemoReport:
    """Track the built-in sequence (or another) with a Tracker; write demo.mp4 and demo.png to a folder.

    The picture shows for each part a frame with the true box (white, dashed) and the tracked one, below it
    the energy of boxes whose top right corner moves while the bottom left one stays (ECCV 2020, figure 1).
    Raises ConfigError if the folder cannot be written.
    """
    sequence = sequence or demo_sequence()
    folder = _made(out_dir)
    middles = {(first + last) // 2: name for name, first, last in sequence.parts}
    boxes, seconds, views, energies = [], [], [], []
    with VideoWriter(folder / "demo.mp4", sequence.fps) as video:
        for index, image in enumerate(sequence.frames):
            result, spent = _step(tracker, image, index, sequence.boxes_xywh[0])
            seconds.append(spent)
            boxes.append(sequence.boxes_xywh[0] if result is None else np.array(result.box_xywh, dtype=float))
            drawn = _drawn(image, boxes[-1], sequence.boxes_xywh[index], result)
            if index in middles and result is not None:
                views.append(draw_text(drawn.copy(), f"{middles[index]}, frame {index}", (0, 0)))
                energies.append(energy_view(tracker, image, boxes[-1], result.found))
            video.write(draw_text(drawn, f"{_part(sequence, index)}  {index}", (0, 0)))
    picture = _saved_picture(folder / "demo.png", views, energies)
    return _report(sequence, np.array(boxes), seconds, (folder / "demo.mp4", picture))


def energy_view(tracker, image: np.ndarray, box_xywh: np.ndarray, found: bool = True) -> np.ndarray:
    """Return a close-up (h, w, 3) of the box, and the energy as a heat map over where its top right corner could be.

    The heat is exp(f - max f): proportional to the density p(y | x) of ECCV 2020, equation 3, along
    boxes y whose bottom left corner is that of the box. Where the target was not `found`, there is none.
    """
    x, y, w, h = box_xywh
    zoom = min(np.array(TILE) / (CLOSE_UP * np.maximum([w, h], 1.0)))
    shift = np.array(TILE) / 2 - zoom * np.array([x + w / 2, y + h / 2])
    view = cv2.warpAffine(image, np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]]), TILE)
    if found:
        log_values, (left, top, width, height) = corner_map(tracker.corner_log_density, box_xywh, GRID, REACH)
        heat = np.exp(log_values)
        overlay_heat(view, heat, (zoom * left + shift[0], zoom * top + shift[1], zoom * width, zoom * height))
    return draw_box(view, (zoom * x + shift[0], zoom * y + shift[1], zoom * w, zoom * h), lost=not found)


def _step(tracker, image: np.ndarray, index: int, start_xywh: np.ndarray):
    """Return the tracker's result for a frame (None for the first, which starts it) and the time in seconds."""
    began = time.perf_counter()
    result = tracker.update(image) if index else tracker.init(image, tuple(start_xywh.tolist()))
    return (result if index else None), time.perf_counter() - began


def _drawn(image: np.ndarray, box_xywh: np.ndarray, true_xywh: np.ndarray, result) -> np.ndarray:
    """Return a copy of the frame with the true box, dashed, and the tracked one."""
    drawn = draw_box(image.copy(), true_xywh, colour=WHITE, dashed=True)
    if result is None:
        return draw_box(drawn, box_xywh, "start")
    return draw_box(drawn, box_xywh, score=result.score, lost=not result.found)


def _part(sequence: DemoSequence, index: int) -> str:
    """Return the name of the part that a frame belongs to."""
    return next((name for name, first, last in sequence.parts if first <= index <= last), "")


def _report(
    sequence: DemoSequence, boxes_xywh: np.ndarray, seconds: list[float], files: tuple[Path, Path]
) -> DemoReport:
    """Overlaps and speed; the first frame, whose box is given, counts in neither."""
    overlap = overlaps(boxes_xywh, sequence.boxes_xywh)
    parts = {name: float(overlap[max(first, 1) : last + 1].mean()) for name, first, last in sequence.parts}
    fps = (len(seconds) - 1) / sum(seconds[1:])
    return DemoReport(parts, float(overlap[1:].mean()), fps, *files)


def _saved_picture(path: Path, views: list[np.ndarray], energies: list[np.ndarray]) -> Path:
    """Write the contact sheet, rows of frames with their close-ups below, as a PNG file."""
    rows = [group[at : at + COLUMNS] for at in range(0, len(views), COLUMNS) for group in (views, energies)]
    rows = [row + [np.zeros_like(row[0])] * (COLUMNS - len(row)) for row in rows]
    sheet = contact_sheet([tile for row in rows for tile in row], columns=COLUMNS, tile_width=TILE[0])
    write_picture(path, sheet)
    return path


def _made(folder: str | os.PathLike) -> Path:
    """Return the folder, made if it is missing."""
    folder = Path(folder).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot make this folder: {error.strerror or error}") from None
    return folder
