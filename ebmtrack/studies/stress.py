"""What jumps, occlusions, gaps and bad pictures do to a tracker: sequences that are changed on purpose.

| change | what happens |
|---|---|
| `none` | nothing |
| `jump` | every 15 frames the picture stands elsewhere, by 2.5 target sizes in some direction |
| `hidden` | in 20 of every 60 frames something else from the picture covers the target |
| `gaps` | two of three frames are missing |
| `grey` | no colours |
| `noise` | normal noise of 20 grey levels |

Frames in which the target cannot be seen count for nothing. Benchmarks hold little of the first two, and what a live
picture is full of decides there whether a tracker is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items

import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.jobs import seed_of
from ebmtrack.evaluation.metrics import SequenceScore, score_sequence, summarise
from ebmtrack.images import read_rgb
from ebmtrack.tracking.sequence import TrackerLike, track_frames
from ebmtrack.videos.sequence import DataSet, Sequence

JUMP_EVERY, JUMP_SIZES = 15, 2.5  # frames; roots of the target's area
HIDDEN_FROM, HIDDEN_TO, PERIOD = 30, 50, 60  # frames
NOISE_LEVELS = 20.0
ABSENT = (np.nan,) * 4

Array = np.ndarray
Frames = Iterator[tuple[Array, Array]]  # images (H, W, 3), uint8 RGB, and true boxes (4,), NaN where not in sight
Change = Callable[[Frames, np.random.Generator], Frames]


def jumping(frames: Frames, rng: np.random.Generator) -> Frames:
    """Pictures that stand elsewhere from time to time; beyond their edges they are mirrored."""
    shift = np.zeros(2)
    for number, (image, box) in enumerate(frames):
        if number and number % JUMP_EVERY == 0 and np.isfinite(box).all():
            angle = rng.uniform(0, 2 * np.pi)
            shift = JUMP_SIZES * np.sqrt(max(box[2:].prod(), 1.0)) * np.array([np.cos(angle), np.sin(angle)])
        moved = np.concatenate([box[:2] + shift, box[2:]])
        centre, size = moved[:2] + moved[2:] / 2, image.shape[1::-1]
        in_sight = (centre > 0).all() and (centre < size).all()  # NaN is not
        matrix = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
        image = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT)
        yield image, moved if in_sight else np.array(ABSENT)


def hidden(frames: Frames, rng: np.random.Generator) -> Frames:
    """A piece of the picture of 1.2 target sizes from a place that stays the same covers the target now and then."""
    place = rng.random(2)
    for number, (image, box) in enumerate(frames):
        if number % PERIOD == 0:
            place = rng.random(2)
        if HIDDEN_FROM <= number % PERIOD < HIDDEN_TO and np.isfinite(box).all():
            image, box = _covered(image, box, place), np.array(ABSENT)
        yield image, box


def _covered(image: Array, box: Array, place: Array) -> Array:
    """A copy of the image with a piece from `place` (x, y from 0 to 1) over the box."""
    size = np.array(image.shape[1::-1])
    side = np.minimum(np.ceil(1.2 * box[2:]), size).astype(int)
    x, y = np.clip(box[:2] - 0.1 * box[2:], 0, size - side).astype(int)
    a, b = (place * (size - side)).astype(int)
    covered = image.copy()
    covered[y : y + side[1], x : x + side[0]] = image[b : b + side[1], a : a + side[0]]
    return covered


def gaps(frames: Frames, rng: np.random.Generator) -> Frames:
    """The first of every three frames."""
    yield from (frame for number, frame in enumerate(frames) if number % 3 == 0)


def grey(frames: Frames, rng: np.random.Generator) -> Frames:
    """Pictures without colours."""
    for image, box in frames:
        yield np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2), box


def noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """Pictures with normal noise."""
    for image, box in frames:
        noisy = image + rng.normal(0, NOISE_LEVELS, image.shape)
        yield np.clip(np.rint(noisy), 0, 255).astype(np.uint8), box


CHANGES: dict[str, Change] = {
    "none": lambda frames, rng: frames,
    "jump": jumping,
    "hidden": hidden,
    "gaps": gaps,
    "grey": grey,
    "noise": noise,
}


def stress(
    trackers: Mapping[str, TrackerLike],
    dataset: DataSet,
    changes: Items[str] = (),
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[tuple[str, str], list[SequenceScore]]:
    """Scores of each tracker (by name) under each change, a list over the sequences; rows are said as they come.

    changes: of CHANGES, all by default. The same seed changes the pictures in the same way for every tracker. Raises
    ConfigError for an unknown change, DatasetError for frames that cannot be read.
    """
    changes = list(changes) or list(CHANGES)
    unknown = sorted(set(changes) - set(CHANGES))
    if unknown:
        raise ConfigError(f"unknown change {unknown[0]!r}, known are {', '.join(CHANGES)}")
    width, scores = max(map(len, trackers)), {}
    say(f"{'change':8}  {'tracker':{width}}    AUC   OP50   lost")
    for change in changes:
        for name, tracker in trackers.items():
            found = [_track(tracker, dataset.load(sequence), change, seed) for sequence in dataset.select()]
            scores[change, name] = [score for score, _ in found]
            summary, lost = summarise(scores[change, name]), np.mean([share for _, share in found])
            say(f"{change:8}  {name:{width}}  {summary.auc:.3f}  {summary.op50:.3f}  {lost:.3f}")
    return scores


def _track(tracker: TrackerLike, sequence: Sequence, change: str, seed: int) -> tuple[SequenceScore, float]:
    """The score on one changed sequence, and the share of its frames in which the tracker says the target is lost."""
    seed = seed_of(seed, 0, sequence.name)
    plain = ((read_rgb(path), box.copy()) for path, box in zip(sequence.frame_paths(), sequence.boxes_xywh))
    truth: list[Array] = []

    def images() -> Iterator[Array]:
        for image, box in CHANGES[change](plain, np.random.default_rng(seed)):
            truth.append(box)
            yield image

    where = f"{sequence.name}, {change}"
    track = track_frames(tracker, images(), sequence.boxes_xywh[0], name=where, seed=seed)
    score = score_sequence(track.boxes_xywh, np.array(truth), where=where)
    return score, float(np.mean(~track.found[1:])) if len(truth) > 1 else 0.0
