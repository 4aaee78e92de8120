"""The gain of labelling by key frames: overlap of joined tracks against forward tracking alone.

    python tools/labelling.py SEQUENCES [NAME ...] --every 50

SEQUENCES is a folder of NAME/{img,groundtruth_rect.txt}. Every 50th frame, and the last one, is a key frame with the
true box; nothing else is given. Key frames do not count. Printed: mean overlap of forward tracking from the first frame
alone, of forward tracking that begins anew in each key frame, and of the joined tracks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ebmtrack.evaluation.overlap import iou
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.videos.text import read_boxes
from ebmtrack.viewers.keyframes import KeyFrame, KeyFrameTracks
from ebmtrack.viewers.results import FrameResult
from ebmtrack.viewers.seekable import SeekableFrames


def measure(folder: Path, tracker: Tracker, every: int) -> tuple[float, float, float]:
    """Return the mean overlaps of one sequence: forward alone, forward from each key frame, joined."""
    truth = np.asarray(read_boxes(folder / "groundtruth_rect.txt"), float)
    last = len(truth) - 1
    keys = [KeyFrame(at, 1, tuple(truth[at].tolist())) for at in sorted({*range(0, last, every), last})]
    counted = sorted(set(range(len(truth))) - {key.frame for key in keys})
    with SeekableFrames(folder / "img") as frames:
        labels = KeyFrameTracks(tracker, frames.read, 0, last)
        joined = [row for part in labels.track(keys) for row in part]
        again = [
            labels.leg(left, 1).result(n) for left, right in zip(keys, keys[1:]) for n in range(left.frame, right.frame)
        ]
        alone = [labels.leg(keys[0], 1).result(number) for number in range(last)]
    return tuple(mean_overlap(rows, truth, counted) for rows in (alone, again, joined))  # type: ignore[return-value]  # of three


def mean_overlap(rows: list[FrameResult], truth: np.ndarray, counted: list[int]) -> float:
    """Return the mean overlap of results with the true boxes (n, 4) in the frames that count."""
    by_frame = {row.frame: row.box_xywh for row in rows}
    return float(iou(np.array([by_frame[number] for number in counted]), truth[counted]).mean())


def main() -> None:
    """Print a line for each sequence, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--every", type=int, default=50)
    chosen = parser.parse_args()
    tracker, rows = Tracker.from_pretrained(), []
    print("| sequence | forward alone | forward from each key frame | joined |\n|---|---|---|---|", flush=True)
    for name in chosen.names or sorted(path.name for path in chosen.sequences.iterdir() if path.is_dir()):
        rows.append(measure(chosen.sequences / name, tracker, chosen.every))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |", flush=True)
    print("| mean | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
