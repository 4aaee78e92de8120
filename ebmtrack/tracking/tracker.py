"""The online tracker, for one target and for several."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ebmtrack.engines import load_engine
from ebmtrack.engines.base import Engine, Mark, TrainedOn, no_mark
from ebmtrack.engines.mirrored import as_set_up
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.tracking.first_frame import start_target
from ebmtrack.tracking.params import INTERVAL_SAMPLES, TrackerParams, load_params
from ebmtrack.tracking.saving import restore_targets, save_targets
from ebmtrack.tracking.state import TargetState
from ebmtrack.tracking.step import TrackResult, climbed_candidates, corner_energies, track_frame
from ebmtrack.weights import DEFAULT_SET_UP, DEFAULT_WEIGHTS

__all__ = ["INNER_LOOKS", "MultiTracker", "TrackResult", "Tracker", "check_box", "check_image"]

INNER_LOOKS = 4  # at each of several calm targets, after each look at the whole search region
MOST_SIDE = 2**20  # pixels; OpenCV reads no larger images
MOST_UNLIKE_TRAINING = 1.15  # times the size of targets, or of what is seen around them, in training


class MultiTracker:
    """A tracker of any number of targets; each has its own memory, filter and random numbers, all share one network.

    The search regions of all targets go through the network at once, and all boxes climb together (but for those of
    another size, see size_check.py), but each is computed as if alone.
    With several targets, each look at the whole search region of a calm one is followed by `inner_looks` frames that
    see its inner part only (see regions.py); the targets take turns. This is quicker and a little less exact. With
    inner_looks=0 the boxes are those of separate Trackers with the same seeds, to the bit on a CPU.

    Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels. Targets may be added and removed at any frame.

    >>> tracker = MultiTracker.from_pretrained()                     # doctest: +SKIP
    >>> left = tracker.add(first_image, (80, 60, 40, 90))            # doctest: +SKIP
    >>> right = tracker.add(first_image, (180, 60, 40, 90))          # doctest: +SKIP
    >>> for image in images: print(tracker.update(image)[left])      # doctest: +SKIP
    """

    def __init__(self, engine: Engine, params: TrackerParams, inner_looks: int = INNER_LOOKS):
        """Take a network and a set-up.

        Args:
            engine: the network.
            params: the set-up; a target that is alone has its `inner_looks`.
            inner_looks: for each of several targets.
        """
        self.engine, self.params, self.inner_looks = as_set_up(engine, params.mirrored), params, inner_looks
        self.mark: Mark = no_mark  # called with each stage's name when it is done
        self._states: dict[int, TargetState] = {}
        self._next_id, self._interval_samples = 0, INTERVAL_SAMPLES

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams = DEFAULT_SET_UP,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        inner_looks: int = INNER_LOOKS,
        engine: str = "auto",
    ) -> MultiTracker:
        """Return the tracker of a set-up with its weights or those of another file; see Tracker.from_pretrained."""
        return cls(*engine_and_params(params, weights, device, precision, engine), inner_looks)

    @property
    def targets(self) -> tuple[int, ...]:
        """The ids of all targets, in the order in which they were added."""
        return tuple(self._states)

    def add(self, image_rgb: np.ndarray, box_xywh: Any, seed: int | None = None) -> int:
        """Start on one more target.

        Args:
            image_rgb: the target's first frame.
            box_xywh: the target in it.
            seed: of its random numbers, instead of the set-up's; its lowest 32 bits count.

        Returns:
            The target's id, which is never used again.

        Raises:
            ConfigError: on a bad image or box.
        """
        image, box = check_image(image_rgb), check_box(box_xywh, image_rgb.shape)
        target, self._next_id = self._next_id, self._next_id + 1
        seed = self.params.seed if seed is None else seed
        phase = target if self.inner_looks else 0
        self._states[target] = start_target(self.engine, self.params, image, box, seed, phase)
        return target

    def update(self, image_rgb: np.ndarray) -> dict[int, TrackResult]:
        """Find all targets in the next frame: result by id, in the order of `targets`."""
        states = list(self._states.values())
        images = [check_image(image_rgb)] * len(states)
        inner_looks = self.inner_looks if len(states) > 1 else self.params.inner_looks
        answers = dict(zip(self._states, track_frame(self.engine, states, images, inner_looks, self.mark)))
        self._states.update({target: state for target, (state, _) in answers.items()})
        return {target: result for target, (_, result) in answers.items()}

    def save_state(self, path: str | os.PathLike) -> None:
        """Write all targets to a file, without the network; see Tracker.save_state."""
        if not self._states:
            raise ConfigError("save_state() without targets: add one first")
        save_targets(path, self.engine, self._states, self._next_id)

    def load_state(self, path: str | os.PathLike) -> None:
        """Go on with the targets of a file under their ids, in place of the present ones; see Tracker.load_state."""
        self._states, self._next_id = restore_targets(path, self.engine, self.params)

    def remove(self, target: int) -> None:
        """Forget a target. Raises ConfigError if there is none of this id."""
        self._state(target)
        del self._states[target]

    def show_intervals(self, wanted: bool | None = None) -> None:
        """Have the results of the next frames say how sure they are of each side (TrackResult.interval), or not.

        None changes what there is to the other. The set-up's own `interval_samples` come back, if it had some.
        """
        wanted = not self.params.interval_samples if wanted is None else wanted
        self._interval_samples = self.params.interval_samples or self._interval_samples
        self.params = self.params.replace(interval_samples=self._interval_samples if wanted else 0)
        self._states = {name: dataclasses.replace(one, params=self.params) for name, one in self._states.items()}

    def candidates(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a target's candidate boxes before and after their climb; see Tracker.candidates."""
        return climbed_candidates(self.engine, self._state(target))

    def corner_log_density(self, target: int, points_xy: np.ndarray) -> np.ndarray:
        """Return a target's energies over places of its top right corner; see Tracker.corner_log_density."""
        state = self._state(target)
        if not state.proposals:
            raise ConfigError(f"target {target} has no energy to look at: update() has not found it")
        return corner_energies(self.engine, state, state.proposals[0], np.asarray(points_xy, np.float64))

    def _state(self, target: int) -> TargetState:
        """Return a target's state, or raise ConfigError if there is no such target."""
        if target not in self._states:
            raise ConfigError(f"there is no target {target}; there are {', '.join(map(str, self._states)) or 'none'}")
        return self._states[target]


class Tracker:
    """A tracker of one target. Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels.

    >>> tracker = Tracker.from_pretrained()                          # doctest: +SKIP
    >>> tracker.init(first_image, (80, 60, 40, 90))                  # doctest: +SKIP
    >>> for image in images: print(tracker.update(image).box_xywh)   # doctest: +SKIP

    The same seed gives the same boxes to the bit on the same machine; `init` forgets everything about earlier targets.
    Deep copies share the network.
    """

    def __init__(self, engine: Engine, params: TrackerParams):
        self.engine, self.params = as_set_up(engine, params.mirrored), params
        self.mark: Mark = no_mark  # called with each stage's name when it is done
        self.network = params.weights or ""  # the name or file of its weights, for files of results
        self.watch: Callable | None = None  # viewers' place: called with name, frame number, image and result
        self._states: list[TargetState] = []  # of the target, none before init()

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams = DEFAULT_SET_UP,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> Tracker:
        """Return the tracker of a set-up with its weights or those of another file.

        Args:
            params: a set-up in tracker_params by name, or one as a value.
            weights: a file, an exported network's folder or the name of a network that ships, instead of the set-up's.
            device: "auto" (a GPU if there is one), "cpu", "openvino" (docs/engines.md), "cuda", "cuda:1" or "mps".
            precision: what is computed in: "float32", "bfloat16", "int8" or "auto"; see `load_engine`.
            engine: "torch", "onnx" (no torch needed), or "auto": ONNX Runtime for networks that ship, on a CPU, and for
                exported ones; PyTorch for files of weights, on a GPU and in bfloat16 (docs/engines.md).

        Raises:
            ConfigError: on an unknown set-up or device, or one that does not fit the network.
            CheckpointError: on a file that is missing or damaged.
        """
        tracker = cls(*engine_and_params(params, weights, device, precision, engine))
        tracker.network = str(weights or tracker.params.weights or DEFAULT_WEIGHTS)
        return tracker

    def init(self, image: np.ndarray, box_xywh: Any, seed: int | None = None) -> None:
        """Start on a target.

        Args:
            image: the target's first frame.
            box_xywh: the target in it.
            seed: of its random numbers, instead of the set-up's; its lowest 32 bits count.

        Raises:
            ConfigError: on a bad image or box.
        """
        image, box = check_image(image), check_box(box_xywh, image.shape)
        seed = self.params.seed if seed is None else seed
        self._states = [start_target(self.engine, self.params, image, box, seed)]

    def update(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame. Raises ConfigError on a bad image or before init()."""
        states, image = self._running_states("update"), check_image(image)
        ((state, result),) = track_frame(self.engine, states, [image], self.params.inner_looks, self.mark)
        self._states = [state]
        return result

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidate boxes (R, 4) of the last frame in image pixels, before and after their climb.

        Both hold no boxes if no box climbed: the target was not found, nor a weak peak followed. The climb is
        computed anew.
        """
        return climbed_candidates(self.engine, self._running_states("candidates")[0])

    def corner_log_density(self, points_xy: np.ndarray) -> np.ndarray:
        """Return the energies f (n,) of the boxes whose top right corner is at points (n, 2) of the last image.

        The bottom left corner stays that of the last box (ECCV 2020, figure 1). Up to a constant, f is log p(y|x).
        Boxes without area have -inf.
        """
        proposals = [(state, proposal) for state in self._states for proposal in state.proposals]
        if not proposals:
            raise ConfigError("corner_log_density() before update() has found the target: there is no energy")
        return corner_energies(self.engine, *proposals[0], np.asarray(points_xy, np.float64))

    def save_state(self, path: str | os.PathLike) -> None:
        """Write what the tracker knows of its target to a file, without the network.

        Args:
            path: a file of arrays and JSON (.npz), 16 MB with the default set-up, 6 MB with lite_nce_plus. Reading it
                runs no code of it.

        Raises:
            ConfigError: before init(), or if the file cannot be written.
        """
        save_targets(path, self.engine, {0: self._running_states("save_state")[0]}, 1)

    def load_state(self, path: str | os.PathLike) -> None:
        """Go on with the target of a file where `save_state` was called, also in another process.

        On the same machine, engine and precision the boxes are, to the bit, those of the tracker that was saved.

        Args:
            path: the file, saved with this network and set-up; another engine, device or precision will do.

        Raises:
            CheckpointError: on a file that is missing or damaged, of another network or set-up, or of several targets.
        """
        states, _ = restore_targets(path, self.engine, self.params)
        if len(states) != 1:
            raise CheckpointError(f"{path}: has {len(states)} targets; load it with MultiTracker")
        self._states = list(states.values())

    def _running_states(self, call: str) -> list[TargetState]:
        """Return the target's state, or raise ConfigError before init()."""
        if not self._states:
            raise ConfigError(f"{call}() before init(): give the tracker a first image and a box")
        return self._states


def engine_and_params(
    params: str | TrackerParams, weights: str | Path | None, device: str, precision: str, engine: str = "auto"
) -> tuple[Engine, TrackerParams]:
    """Return the network and the set-up of a tracker; see Tracker.from_pretrained."""
    params = params if isinstance(params, TrackerParams) else load_params(params)
    chosen = params if weights is None else params.replace(weights=weights)  # which checks the weights' type
    loaded = load_engine(chosen.weights, device, precision, engine, params.classifier)
    if params.softmax_scores != (loaded.info.classifier == "prdimp"):
        kind = "PrDiMP" if params.softmax_scores else "DiMP"
        raise ConfigError(f"these parameters are for a {kind} classifier, but the weights hold another kind")
    warn_of_other_regions(params, loaded.info.trained_on)
    return loaded, params


def warn_of_other_regions(params: TrackerParams, trained: TrainedOn | None) -> None:
    """Warn, in one line, if targets or their surroundings are of another size than in training.

    A difference of 15 % is none: regions of 4.5 target sizes for a network that was trained on 5 change nothing
    (docs/experiments.md).
    """
    if trained is None:
        return
    ratios = (
        params.search_factor / trained.search_factor,
        params.sample_size / params.search_factor / (trained.sample_size / trained.search_factor),
    )
    if all(1 / MOST_UNLIKE_TRAINING <= ratio <= MOST_UNLIKE_TRAINING for ratio in ratios):
        return
    ours = f"{params.sample_size} pixels at {params.search_factor:g} target sizes"
    theirs = f"{trained.sample_size} pixels at {trained.search_factor:g}"
    warnings.warn(
        f"the set-up searches regions of {ours}, but the weights were trained on {theirs}: boxes may be worse; "
        "choose another set-up (--params) or other weights (--weights)",
        stacklevel=4,
    )


def check_image(image: Any) -> np.ndarray:
    """Return the image if it is uint8 RGB (height, width, 3), else raise ConfigError."""
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"an image must be a numpy array (height, width, 3) of uint8 RGB, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        grey = ": cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) makes that of a grey one"
        cures = {(): grey, (1,): grey, (4,): ": image[..., :3] leaves its alpha out"}
        cure = cures.get(image.shape[2:], "") if image.ndim > 1 else ""
        if image.ndim == 3 and image.shape[0] == 3:
            cure = ": image.transpose(1, 2, 0) brings the channels to the end"
        raise ConfigError(f"an image must be (height, width, 3), got shape {image.shape}{cure}")
    if image.dtype != np.uint8:
        cure = ": (image * 255).astype(np.uint8) makes that of values 0..1" if image.dtype.kind == "f" else ""
        raise ConfigError(f"an image must be uint8 with values 0..255, got {image.dtype}{cure}")
    return image


def check_box(box_xywh: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the box as four floats if it overlaps an image of `shape`, else raise ConfigError."""
    try:
        box = np.asarray(box_xywh, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"a box must be four numbers x, y, w, h, got {box_xywh!r}") from error
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ConfigError(f"a box must be four finite numbers x, y, w, h, got {box_xywh!r}")
    text = ", ".join(f"{v:g}" for v in box)
    if min(box[2:]) < 1 or max(box[2:]) > MOST_SIDE:
        raise ConfigError(f"box ({text}) must be at least one pixel and at most {MOST_SIDE} pixels wide and high")
    h, w = shape[:2]
    if box[0] >= w or box[1] >= h or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise ConfigError(f"box ({text}) is outside of the image, which is {w} x {h}")
    return box
