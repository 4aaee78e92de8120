"""A tracker under jumps, occlusions, gaps and bad pictures: sequences that are changed on purpose.

Frames in which the target cannot be seen count for nothing. Benchmarks hold few jumps and occlusions, which live
pictures are full of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import DatasetError, EbmtrackError
from ebmtrack.evaluation.jobs import seed_of
from ebmtrack.evaluation.metrics import SequenceScore, score_sequence, summarise
from ebmtrack.evaluation.page import fill
from ebmtrack.evaluation.score_tables import Cell, Table
from ebmtrack.files import write_text
from ebmtrack.images import read_rgb
from ebmtrack.names import check_name
from ebmtrack.tracking.sequence import TrackerLike, track_frames
from ebmtrack.videos.sequence import DataSet, Sequence

JUMP_EVERY, JUMP_SIZES = 15, 2.5  # frames; roots of the target's area
TWIN_REACH, TWIN_DISTANCE, TWIN_FRAMES = 3.0, 1.5, 20  # roots of the target's area; frames of one passage
HIDDEN_FROM, HIDDEN_TO, PERIOD = 30, 50, 60  # frames
NOISE_LEVELS = 20.0
LOST = "Frames in which the tracker says that the target is lost, in percent"
ABSENT = (np.nan,) * 4

Array = np.ndarray
Frames = Iterator[tuple[Array, Array]]  # images (H, W, 3), uint8 RGB, and true boxes (4,), NaN where not in sight
Change = Callable[[Frames, np.random.Generator], Frames]


def jumping(frames: Frames, rng: np.random.Generator) -> Frames:
    """Shift the pictures from time to time; beyond their edges they are mirrored."""
    shift = np.zeros(2)
    for number, (image, box) in enumerate(frames):
        if number and number % JUMP_EVERY == 0 and np.isfinite(box).all():
            angle = rng.uniform(0, 2 * np.pi)
            shift = JUMP_SIZES * np.sqrt(max(box[2:].prod(), 1.0)) * np.array([np.cos(angle), np.sin(angle)])
        moved = np.concatenate([box[:2] + shift, box[2:]])
        centre, size = moved[:2] + moved[2:] / 2, image.shape[1::-1]
        in_sight = (centre > 0).all() and (centre < size).all()  # NaN is not
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        image = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT)
        yield image, moved if in_sight else np.array(ABSENT)


def hidden(frames: Frames, rng: np.random.Generator) -> Frames:
    """Cover the target now and then by a piece of the picture of 1.2 target sizes from a place that stays the same."""
    place = rng.random(2)
    for number, (image, box) in enumerate(frames):
        if number % PERIOD == 0:
            place = rng.random(2)
        if HIDDEN_FROM <= number % PERIOD < HIDDEN_TO and np.isfinite(box).all():
            image, box = _cover(image, box, place), np.array(ABSENT)
        yield image, box


def _cover(image: Array, box: Array, place: Array) -> Array:
    """Return a copy of the image with a piece from `place` (x, y from 0 to 1) over the box."""
    size = np.array(image.shape[1::-1])
    side = np.minimum(np.ceil(1.2 * box[2:]), size).astype(int)
    x, y = np.clip(box[:2] - 0.1 * box[2:], 0, size - side).astype(int)
    a, b = (place * (size - side)).astype(int)
    covered = image.copy()
    covered[y : y + side[1], x : x + side[0]] = image[b : b + side[1], a : a + side[0]]
    return covered


def twin(frames: Frames, rng: np.random.Generator) -> Frames:
    """Let a copy of the target pass it at some distance, to and fro."""
    angle = rng.uniform(0, 2 * np.pi)
    along, across = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for number, (image, box) in enumerate(frames):
        if np.isfinite(box).all():
            phase = abs(number / TWIN_FRAMES % 2 - 1)  # 1 to 0 and back
            offset = TWIN_REACH * (2 * phase - 1) * along + TWIN_DISTANCE * across
            image = _with_copy(image, box, offset * np.sqrt(max(box[2:].prod(), 1.0)))
        yield image, box


def _with_copy(image: Array, box: Array, offset: Array) -> Array:
    """Return a copy of the image with the box's content once more at an offset (x, y), as far as it fits."""
    size = np.array(image.shape[1::-1])
    low = np.clip(np.rint(box[:2]), 0, size).astype(int)
    side = np.clip(np.rint(box[:2] + box[2:]), 0, size).astype(int) - low
    shift = np.rint(offset).astype(int)
    first = np.clip(low + shift, 0, size)
    last = np.clip(low + shift + side, 0, size)
    doubled = image.copy()
    (x, y), (right, bottom), (a, b) = first, last, first - shift
    doubled[y:bottom, x:right] = image[b : b + bottom - y, a : a + right - x]
    return doubled


def gaps(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return the first of every three frames."""
    yield from (frame for number, frame in enumerate(frames) if number % 3 == 0)


def grey(frames: Frames, rng: np.random.Generator) -> Frames:
    """Take the colours out of the pictures."""
    for image, box in frames:
        yield np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2), box


def noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """Add normal noise to the pictures."""
    for image, box in frames:
        noisy = image + rng.normal(0, NOISE_LEVELS, image.shape)
        yield np.clip(np.rint(noisy), 0, 255).astype(np.uint8), box


FIRST_CHANGED = {"jump": JUMP_EVERY, "hidden": HIDDEN_FROM}  # frames before the first one that these two change
CHANGES: dict[str, tuple[Change, str]] = {  # what a change does, and what happens, for people
    "none": (lambda frames, rng: frames, "nothing is changed"),
    "jump": (jumping, "every 15 frames the picture moves by 2.5 target sizes in some direction"),
    "hidden": (hidden, "in 20 of every 60 frames something else from the picture covers the target"),
    "gaps": (gaps, "two of three frames are missing"),
    "grey": (grey, "no colours"),
    "twin": (twin, "a copy of the target passes it at 1.5 target sizes, to and fro"),
    "noise": (noise, "normal noise of 20 grey levels"),
}


@dataclass(frozen=True)
class Trial:
    """The score of one tracker on one changed sequence.

    Attributes:
        lost: Share of the frames in which the tracker says that the target is lost.
    """

    score: SequenceScore
    lost: float


Trials = dict[tuple[str, str], list[Trial]]  # (change, tracker) -> a trial for each sequence that has a frame to judge


def stress(
    trackers: Mapping[str, TrackerLike],
    dataset: DataSet,
    changes: Items[str] = (),
    seed: int = 0,
    say: Callable[[str], None] = print,
    store: Store | None = None,
) -> Trials:
    """Track changed sequences; say a row for each tracker under each change as they come.

    Args:
        trackers: Name -> tracker.
        dataset: The sequences.
        changes: Of CHANGES; all if empty.
        seed: Changes the pictures in the same way for every tracker.
        say: Function that shows a line.
        store: Where trials are kept; what is there is not tracked again.

    Raises:
        ConfigError: Unknown change.
        DatasetError: Frames cannot be read, or none can be judged.
    """
    chosen = [check_name("change", change, CHANGES) for change in changes or CHANGES]
    width, trials = max(map(len, trackers)), {}
    sequences = [dataset.load(one) for one in dataset.select()]
    count = len(sequences)
    say(f"{'change':8}  {'tracker':{width}}    AUC   OP50   lost")
    for change in chosen:
        first = FIRST_CHANGED.get(change, 0)
        if short := sum(len(sequence) <= first for sequence in sequences):
            say(f"{change}: sequences that end before frame {first} (from 0), where it begins: {short} of {count}")
        for number, (name, tracker) in enumerate(trackers.items()):
            found = [_trial(tracker, one, change, seed, name, store) for one in sequences]
            judged = [trial for trial in found if trial.score.denominator]
            if not number and (left_out := count - len(judged)):  # the same ones for every tracker
                say(f"{change}: sequences without a frame to judge, which are left out: {left_out} of {count}")
            if judged:
                trials[change, name] = judged
                summary, lost = summarise([one.score for one in judged]), np.mean([one.lost for one in judged])
                say(f"{change:8}  {name:{width}}  {summary.auc:.3f}  {summary.op50:.3f}  {lost:.3f}")
    if not trials:
        under = ", ".join(chosen)
        raise DatasetError(f"{dataset.root}: no sequence has a frame to judge under {under}; give longer sequences")
    return trials


@dataclass(frozen=True)
class Store:
    """A folder of trials, one file each, so that a run that was stopped goes on where it was.

    Attributes:
        folder: The folder.
        made_by: Tracker -> what its trials depend on (parameters, hash of the weights), as JSON values.
    """

    folder: Path
    made_by: Mapping[str, Mapping[str, object]]

    def path(self, change: str, tracker: str, sequence: str) -> Path:
        """Return the file of one trial."""
        return self.folder / change / re.sub(r"[^A-Za-z0-9._-]+", "_", tracker) / f"{sequence}.json"

    def read(self, path: Path, facts: Mapping[str, object]) -> Trial | None:
        """Return a stored trial; None if there is none, it is damaged, or it was made by something else."""
        try:
            stored = json.loads(path.read_bytes())
            boxes, truth = (np.array([r or ABSENT for r in stored[key]], float) for key in ("boxes", "truth"))
            same = stored["made_by"] == json.loads(json.dumps(facts))
            return Trial(score_sequence(boxes, truth, where=str(path)), float(stored["lost"])) if same else None
        except (OSError, ValueError, KeyError, TypeError, EbmtrackError):
            return None  # tracked anew

    def write(self, path: Path, facts: Mapping[str, object], boxes: Array, truth: Array, lost: float) -> None:
        """Write a trial: boxes and truth (N, 4), where null is a frame without the target."""
        rows = [row.tolist() if np.isfinite(row).all() else None for row in truth]
        content = {"made_by": facts, "lost": lost, "boxes": boxes.tolist(), "truth": rows}
        write_text(path, json.dumps(content) + "\n")


def stress_page(trials: Trials, title: str) -> str:
    """Return a page with the area under the success curve, OP50 and the share of lost frames, for each change."""
    changes, trackers = (list(dict.fromkeys(key[k] for key in trials)) for k in (0, 1))
    tables = []
    for name, heading, of in (
        ("auc", "AUC in percent", lambda found: summarise([trial.score for trial in found]).auc),
        ("op50", "OP 0.50 in percent", lambda found: summarise([trial.score for trial in found]).op50),
        ("lost", LOST, lambda found: np.mean([trial.lost for trial in found])),
    ):
        rows = []
        for change in changes:
            values = [float(of(trials[change, tracker])) for tracker in trackers]
            rows.append([Cell(change), *(Cell(f"{100 * value:.1f}", value, value) for value in values)])
        tables.append(Table(f"stress-{name}", ["Change", *trackers], rows, heading))
    notes = [(name, meaning) for name, (_, meaning) in CHANGES.items() if name in changes]
    return fill("tables.html", title=title, subtitle="Sequences changed on purpose.", tables=tables, words=notes)


def _trial(tracker: TrackerLike, sequence: Sequence, change: str, seed: int, name: str, store: Store | None) -> Trial:
    """Return a stored trial, or track a changed sequence and store it."""
    facts = {} if store is None else {**store.made_by[name], "seed": seed, "frames": len(sequence)}
    path = None if store is None else store.path(change, name, sequence.name)
    if store is not None and path is not None and (known := store.read(path, facts)) is not None:
        return known
    seed = seed_of(seed, 0, sequence.name)
    true = np.where((sequence.boxes_xywh[:, 2:] > 0).all(axis=1, keepdims=True), sequence.boxes_xywh, np.nan)
    plain = ((read_rgb(path), box) for path, box in zip(sequence.frame_paths(), true))  # 0 or -1 means out of sight
    truth: list[Array] = []

    def images() -> Iterator[Array]:
        for image, box in CHANGES[change][0](plain, np.random.default_rng(seed)):
            truth.append(box)
            yield image

    where = f"{sequence.name}, {change}"
    track = track_frames(tracker, images(), sequence.boxes_xywh[0], name=where, seed=seed)
    score = score_sequence(track.boxes_xywh, np.array(truth), where=where)
    lost = float(np.mean(~track.found[1:])) if len(truth) > 1 else 0.0
    if store is not None and path is not None:
        store.write(path, facts, track.boxes_xywh, np.array(truth), lost)
    return Trial(score, lost)
