"""The demonstration: tracks the built-in sequence, measures it against the truth, shows the energy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.overlap import iou
from ebmtrack.files import expand_home
from ebmtrack.images import write_picture
from ebmtrack.tracking.sequence import Track, track_frames
from ebmtrack.viewers.corner_map import corner_map
from ebmtrack.viewers.demo_sequence import DemoSequence, demo_sequence
from ebmtrack.viewers.drawing import WHITE, contact_sheet, draw_box, draw_text, overlay_heat
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
    folder = _make_folder(out_dir)
    middles = {(first + last) // 2: name for name, first, last in sequence.parts}
    views, energies = [], []

    def show(index: int, image: np.ndarray, result) -> None:
        drawn = _draw(image, sequence.boxes_xywh[index], result)
        if index in middles and result is not None:
            views.append(draw_text(drawn.copy(), f"{middles[index]}, frame {index}", (0, 0)))
            energies.append(energy_view(tracker, image, np.array(result.box_xywh, float), result.found))
        video.write(draw_text(drawn, f"{_part(sequence, index)}  {index}", (0, 0)))

    with VideoWriter(folder / "demo.mp4", sequence.fps) as video:
        show(0, sequence.frames[0], None)
        track = track_frames(tracker, sequence.frames, sequence.boxes_xywh[0], name=sequence.name, on_frame=show)
    picture = _save_picture(folder / "demo.png", views, energies)
    return _report(sequence, track, (folder / "demo.mp4", picture))


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


def _draw(image: np.ndarray, true_xywh: np.ndarray, result) -> np.ndarray:
    """Return a copy of the frame with the true box, dashed, and the tracked one; the first frame has no result."""
    drawn = draw_box(image.copy(), true_xywh, colour=WHITE, dashed=True)
    if result is None:
        return draw_box(drawn, true_xywh, "start")
    return draw_box(drawn, result.box_xywh, score=result.score, lost=not result.found)


def _part(sequence: DemoSequence, index: int) -> str:
    """Return the name of the part that a frame belongs to."""
    return next((name for name, first, last in sequence.parts if first <= index <= last), "")


def _report(sequence: DemoSequence, track: Track, files: tuple[Path, Path]) -> DemoReport:
    """Return overlaps and speed; the first frame, whose box is given, counts in neither."""
    overlap = iou(track.boxes_xywh, sequence.boxes_xywh)
    parts = {name: float(overlap[max(first, 1) : last + 1].mean()) for name, first, last in sequence.parts}
    return DemoReport(parts, float(overlap[1:].mean()), float(1 / track.times_s[1:].mean()), *files)


def _save_picture(path: Path, views: list[np.ndarray], energies: list[np.ndarray]) -> Path:
    """Write the contact sheet, rows of frames with their close-ups below, as a PNG file."""
    rows = [group[at : at + COLUMNS] for at in range(0, len(views), COLUMNS) for group in (views, energies)]
    rows = [row + [np.zeros_like(row[0])] * (COLUMNS - len(row)) for row in rows]
    sheet = contact_sheet([tile for row in rows for tile in row], columns=COLUMNS, tile_width=TILE[0])
    write_picture(path, sheet)
    return path


def _make_folder(folder: str | os.PathLike) -> Path:
    """Return the folder, made if it is missing."""
    folder = expand_home(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot make this folder: {error.strerror or error}") from None
    return folder
