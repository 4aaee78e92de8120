"""Need for Speed at 30 and 240 frames per second (Galoogahi et al., ICCV 2017), 100 sequences.

The official layout is `<root>/<name>/<30 or 240>/<name>/00001.jpg` with `<name>.txt` beside the frames'
folder; the one of pytracking is `<root>/sequences/<name>/` with `<root>/anno/<name>.txt`. Official rows hold
a track number, two corners (x1, y1, x2, y2), frame, lost, occluded, generated and a label; rows of four
numbers are x, y, w, h. The 30 Hz folders come with the boxes of all 240 Hz frames, of which every eighth is
used; the last frame may lack a box.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ebmtrack.errors import DatasetError
from ebmtrack.videos.sequence import DataSet, Frames, Sequence, folders_by_name, split_found, visible_paths
from ebmtrack.videos.spelling import canonical
from ebmtrack.videos.text import finite_boxes, read_text, split_lines, to_numbers, with_decimal_points

NAMES = tuple(
    """
Gymnastics MachLoop_jet Skiing_red Skydiving airboard_1 airplane_landing airtable_3 basketball_1 basketball_2
basketball_3 basketball_6 basketball_7 basketball_player basketball_player_2 beach_flipback_person bee
biker_acrobat biker_all_1 biker_head_2 biker_head_3 biker_upper_body biker_whole_body billiard_2 billiard_3
billiard_6 billiard_7 billiard_8 bird_2 book bottle bowling_1 bowling_2 bowling_3 bowling_6 bowling_ball bunny
car car_camaro car_drifting car_jumping car_rc_rolling car_rc_rotating car_side car_white cheetah cup cup_2
dog dog_1 dog_2 dog_3 dogs dollar drone ducks_lake exit first flower footbal_skill helicopter horse_jumping
horse_running iceskating_6 jellyfish_5 kid_swing motorcross motorcross_kawasaki parkour person_scooter
pingpong_2 pingpong_7 pingpong_8 purse rubber running running_100_m running_100_m_2 running_2 shuffleboard_1
shuffleboard_2 shuffleboard_4 shuffleboard_5 shuffleboard_6 shuffletable_2 shuffletable_3 shuffletable_4
ski_long soccer_ball soccer_ball_2 soccer_ball_3 soccer_player_2 soccer_player_3 stop_sign suv tiger walking
walking_3 water_ski_2 yoyo zebra_fish
""".split()
)


def find(root: Path, fps: int = 30) -> DataSet:
    """Find which sequences are under `root`. Raises DatasetError if `root` is no folder."""
    official = folders_by_name(root)
    flat = folders_by_name(root / "sequences") if (root / "sequences").is_dir() else {}
    places = {name: _place(root, official, flat, name, fps) for name in NAMES}
    found, missing = split_found(NAMES, lambda name: places[name] is not None)
    loaders = {name: partial(load, name, *place, f"nfs{fps}") for name in found if (place := places[name])}
    return DataSet(f"nfs{fps}", root, loaders, missing, len(NAMES), "pytracking")


def load(name: str, annotation: Path, folder: Path, dataset: str = "nfs30") -> Sequence:
    """Read one sequence: every eighth box if there are eight per frame; one missing frame or box is forgiven."""
    boxes, frames = read_boxes(annotation), Frames(folder)
    count = len(frames.paths())
    if abs(len(boxes) - count) > 1 >= abs(len(boxes[::8]) - count):
        boxes = boxes[::8]
    if abs(len(boxes) - count) > 1:
        raise DatasetError(
            f"{annotation}: {len(boxes)} boxes for {count} frames, neither one each nor eight; fetch the sequence again"
        )
    boxes = boxes[:count]
    if len(boxes) < count:
        frames = _shorten(frames, len(boxes))
    return Sequence(name, dataset, boxes, frames, annotation=annotation)


def read_boxes(annotation: Path) -> np.ndarray:
    """Read boxes (N, 4) from rows of x, y, w, h, or from the official rows with two corners. Raises DatasetError."""
    lines = split_lines(read_text(annotation))
    lines = with_decimal_points(lines, lambda count: count >= 4, annotation)
    rows = [line.replace(",", " ").split() for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 4 and len(row) < 5 or (len(row) == 4) != (len(rows[0]) == 4):
            raise DatasetError(f"{annotation}, line {number}: {len(row)} fields; expected 4, or 5 and more")
    if not rows:
        raise DatasetError(f"{annotation}: is empty; fetch it again")
    if len(rows[0]) == 4:
        return finite_boxes(to_numbers(rows, annotation), annotation)
    corners = to_numbers([row[1:5] for row in rows], annotation)
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite corner is refused by name on the next line
        sizes = corners[:, 2:] - corners[:, :2]
    return finite_boxes(np.concatenate([corners[:, :2], sizes], axis=1), annotation)


def _shorten(frames: Frames, count: int) -> Frames:
    """Return the first `count` frames of a folder, by their numbers."""
    numbers = [int(path.stem) for path in frames.paths() if path.stem.isdigit()]
    if len(numbers) <= count:
        raise DatasetError(f"{frames.folder}: names of frames are not numbers, which order them; rename the frames")
    return Frames(frames.folder, numbers[0], numbers[count - 1])


def _place(
    root: Path, official: dict[str, Path], flat: dict[str, Path], name: str, fps: int
) -> tuple[Path, Path] | None:
    """Return annotation and frames of a sequence in the layout that is there."""
    key = canonical(name)
    if key in flat and fps == 30:
        for stem in (name, f"nfs_{name}", flat[key].name):
            if (root / "anno" / f"{stem}.txt").is_file():
                return root / "anno" / f"{stem}.txt", flat[key]
    inside = official.get(key, root / name) / str(fps)
    if not inside.is_dir():
        return None
    for folder in (p for p in visible_paths(inside.iterdir()) if p.is_dir()):
        if folder.with_suffix(".txt").is_file() and canonical(folder.name) == key:
            return folder.with_suffix(".txt"), folder
    return None
