"""The online tracker: init(image, box), then update(image) -> TrackResult for every further frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.data.crops import Crop, crop_around
from ebmtrack.errors import ConfigError
from ebmtrack.nets.checkpoint import load_checkpoint, resolve_weights
from ebmtrack.nets.classifier import FEATURE_STRIDE, apply_filter
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.init_samples import augmented_samples
from ebmtrack.tracking.localize import localize
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.tracking.refine import candidate_boxes, climb, refine


@dataclasses.dataclass(frozen=True)
class TrackResult:
    """What one frame gave.

    box_xywh: the target's box in image pixels (the last one where it was not found). score: the highest classifier
    score. verdict: "normal", "hard_negative", "uncertain" or "not_found". search_xywh: the search region in the image.
    score_map: (h, w) classifier scores over the search region.
    """

    box_xywh: tuple[float, float, float, float]
    score: float
    verdict: str
    search_xywh: tuple[float, float, float, float]
    score_map: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def found(self) -> bool:
        """Whether the target was seen in this frame."""
        return self.verdict != "not_found"


class Tracker:
    """Follows one target. Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels.

    >>> tracker = Tracker.from_pretrained()                          # doctest: +SKIP
    >>> tracker.init(first_image, (80, 60, 40, 90))                  # doctest: +SKIP
    >>> for image in images: print(tracker.update(image).box_xywh)   # doctest: +SKIP

    The same seed gives the same boxes to the bit on the same machine; `init` forgets everything about earlier targets.
    Deep copies share the network.
    """

    def __init__(self, net: InferenceNet, params: TrackerParams):
        self.net, self.params = net, params
        self.mark: Callable[[str], None] = _no_mark  # called with each stage's name when it is done (see bench.py)
        self._state: _State | None = None

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams = "dimp18_nce_plus",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: str = "auto",
    ) -> Tracker:
        """The tracker of a set-up in tracker_params (by name), with its weights or those of another file."""
        params = load_params(params) if isinstance(params, str) else params
        path = resolve_weights(params.weights if weights is None else weights)
        net = load_checkpoint(path)
        if params.softmax_scores != (net.config.filter_optimizer == "prdimp"):
            kind = "PrDiMP" if params.softmax_scores else "DiMP"
            raise ConfigError(f"these parameters are for a {kind} classifier, which {path} does not hold")
        return cls(InferenceNet(net, check_device(device), precision), params)

    @torch.inference_mode()
    def init(self, image: np.ndarray, box_xywh, seed: int | None = None) -> None:
        """Start on a target: its box in its first frame. `seed` overrides the parameters' one."""
        image, box = check_image(image), check_box(box_xywh, image.shape)
        seed = self.params.seed if seed is None else seed
        self._state = _State(self.net, self.params, image, box, torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame."""
        if self._state is None:
            raise ConfigError("update() before init(): give the tracker a first image and a box")
        return self._state.update(check_image(image), self.mark)

    @torch.inference_mode()
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """The candidate boxes (R, 4) of the last frame in image pixels, before and after their climb on the energy.

        Both hold no boxes where the target was not found. The climb is computed anew.
        """
        if self._state is None:
            raise ConfigError("candidates() before init(): there is no target")
        return self._state.climbed_candidates()

    @torch.inference_mode()
    def corner_log_density(self, points_xy: np.ndarray) -> np.ndarray:
        """Energy f of the boxes whose top right corner lies at points (n, 2) of the last image, (n,).

        The bottom left corner stays that of the last box (ECCV 2020, figure 1). Up to a constant, f is log p(y|x).
        Boxes without area have -inf.
        """
        if self._state is None or self._state.energy is None:
            raise ConfigError("corner_log_density() before update(): there is no energy to look at")
        return self._state.corner_log_density(np.asarray(points_xy, np.float64))


def check_device(device: str) -> torch.device:
    """The device if this machine has it, else ConfigError."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}: use cpu, cuda, cuda:1 or mps") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (chosen.index or 0) >= there.get(chosen.type, 0):
        raise ConfigError(f"this machine has no device {device!r}; --device cpu always works")
    return chosen


def check_image(image: np.ndarray) -> np.ndarray:
    """The image if it is uint8 RGB (height, width, 3), else ConfigError."""
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"an image must be a numpy array (height, width, 3) of uint8 RGB, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(f"an image must be (height, width, 3), got shape {image.shape}")
    if image.dtype != np.uint8:
        raise ConfigError(f"an image must be uint8 with values 0..255, got {image.dtype}")
    return image


def check_box(box_xywh, shape: tuple[int, ...]) -> np.ndarray:
    """The box as four floats if it has at least one pixel's area inside an image of `shape`, else ConfigError."""
    try:
        box = np.asarray(box_xywh, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a box must be four numbers x, y, w, h, got {box_xywh!r}") from error
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ConfigError(f"a box must be four finite numbers x, y, w, h, got {box_xywh!r}")
    text = ", ".join(f"{v:g}" for v in box)
    if min(box[2:]) < 1:
        raise ConfigError(f"box ({text}) must be at least one pixel wide and high")
    h, w = shape[:2]
    if box[0] >= w or box[1] >= h or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise ConfigError(f"box ({text}) lies outside of the image, which is {w} x {h}")
    return box


def _no_mark(stage: str) -> None:
    """Nobody asked for the time."""


class _State:
    """Everything about one target. Positions and sizes are (y, x) as in pytracking; see data/crops.py.

    Boxes are few and live on the CPU; features, filters and the memory live on the network's device.
    """

    def __init__(self, net: InferenceNet, params: TrackerParams, image: np.ndarray, box: np.ndarray, generator):
        self.net, self.params, self.generator = net, params, generator
        self.position = box[[1, 0]] + (box[[3, 2]] - 1) / 2
        self.size = box[[3, 2]]
        self.scale = math.sqrt(self.size.prod()) * params.search_factor / params.sample_size
        self.base_area = float((self.size / self.scale).prod())
        self.box_xywh, self.frame, self.energy = tuple(box.tolist()), 1, None
        self.candidates = None
        self._learn_target(image)

    def _learn_target(self, image: np.ndarray) -> None:
        """Modulation and classifier filter from the first frame."""
        params = self.params
        patches, shifts, crop = augmented_samples(image, self.position, self.scale, params, self.generator)
        layer2, layer3 = self.net.extract(torch.from_numpy(patches))
        box = self._box_in_crop(np.round(self.position), self.scale)
        self.target = self.net.target_energy(layer2[:1], layer3[:1], xywh_to_xyxy(box))
        features = self.net.classify(layer3)
        copies = features[:1].expand(params.dropout_copies, -1, -1, -1)
        keep = torch.empty(*copies.shape[:2], 1, 1).bernoulli_(1 - params.dropout, generator=self.generator)
        features = torch.cat([features, copies * (keep / (1 - params.dropout)).to(features)])
        shifts = np.concatenate([shifts, np.zeros((params.dropout_copies, 2), int)])
        boxes = box + torch.tensor([[dx, dy, 0, 0] for dy, dx in shifts.tolist()])
        boxes = xywh_to_xyxy(boxes.float()).to(self.net.device)
        classifier = self.net.classifier
        self.filter = classifier.learn(features[:, None], boxes[:, None], None, params.initial_iterations)[-1]
        self.memory = SampleMemory(
            features, boxes, params.memory_size, params.learning_rate, params.initial_samples_least_weight
        )

    def update(self, image: np.ndarray, mark: Callable[[str], None] = _no_mark) -> TrackResult:
        """One frame: search, localise, refine, learn."""
        self.frame += 1
        crop = self._search(image)
        mark("crop")
        layer2, layer3 = self.net.extract(torch.from_numpy(crop.patch[None]))
        mark("backbone")
        features = self.net.classify(layer3)
        mark("classifier features")
        scores = self._scores(features)
        cell = FEATURE_STRIDE * crop.scale  # image pixels
        found = localize(scores, self.size / cell, (self.position - crop.centre_yx) / cell, self.params)
        self.energy, self.crop = None, crop
        mark("score and localisation")
        if found.verdict != "not_found":
            self.position = self._inside(crop.centre_yx + found.displacement_yx * cell, image.shape)
            self.energy = self.target.over(self.net.box_features(layer2, layer3))
            candidates = candidate_boxes(self._box_in_crop(crop.centre_yx, crop.scale), self.params, self.generator)
            self.candidates = candidates
            self.energy.look_at(xywh_to_xyxy(candidates))
            mark("box features")
            self._refine(crop, candidates)
            self.box_xywh = self._box()
            mark("refinement")
        if found.verdict in ("normal", "hard_negative"):
            self._learn(features, crop, found.verdict == "hard_negative")
            mark("learning")
        return TrackResult(self.box_xywh, found.score, found.verdict, crop.window_xywh, scores)

    def _search(self, image: np.ndarray) -> Crop:
        """The search region around the last position."""
        side, size = self.scale * self.params.sample_size, self.params.sample_size
        change = self.params.max_scale_change
        return crop_around(
            image, tuple(self.position), (side, side), (size, size), self.params.border, change, self.params.crop_rule
        )

    def _scores(self, features: Tensor) -> np.ndarray:
        """Score map (h, w) of the search region."""
        scores = apply_filter(features[None], self.filter)[0, 0]
        if self.params.softmax_scores:
            scores = scores.flatten().softmax(0).view_as(scores)
        return scores.cpu().numpy()

    def _inside(self, position: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The position moved so that `inside_frac` of the target stays in the image."""
        margin = (self.params.inside_frac - 0.5) * self.size
        return np.maximum(np.minimum(position, np.array(shape[:2]) - margin), margin)

    def _box_in_crop(self, centre_yx: np.ndarray, scale: float) -> Tensor:
        """The target's box (4,), x, y, w, h in pixels of a crop with that centre and scale."""
        size = self.size / scale
        corner = (self.position - centre_yx) / scale + (self.params.sample_size - 1) / 2 - (size - 1) / 2
        box = np.concatenate([corner[::-1], size[::-1]])
        return torch.tensor(box, dtype=torch.float32)

    def _refine(self, crop: Crop, candidates: Tensor) -> None:
        """Let the candidates climb the energy; nothing changes where none survives."""
        box = refine(self.energy, candidates, self.params)
        if box is None:
            return
        x, y, w, h = box.tolist()
        middle = (self.params.sample_size - int(self.params.half_pixel_late)) / 2
        self.position = np.array([y + h / 2 - middle, x + w / 2 - middle]) * crop.scale + crop.centre_yx
        self.size = np.array([h, w]) * crop.scale
        self.scale = math.sqrt(self.size.prod() / self.base_area)

    def _box(self) -> tuple[float, float, float, float]:
        """The target's box in image pixels."""
        (y, x), (h, w) = self.position.tolist(), self.size.tolist()
        return x - (w - 1) / 2, y - (h - 1) / 2, w, h

    def _learn(self, features: Tensor, crop: Crop, hard_negative: bool) -> None:
        """Remember this frame; improve the filter on a hard negative and every `update_every` frames."""
        params = self.params
        box_xyxy = xywh_to_xyxy(self._box_in_crop(crop.centre_yx, crop.scale))
        self.memory.add(features[0], box_xyxy, params.hard_negative_learning_rate if hard_negative else None)
        iterations = params.update_iterations if (self.frame - 1) % params.update_every == 0 else 0
        if hard_negative:
            iterations = params.hard_negative_iterations
        if iterations:
            stored, boxes, weights = self.memory.stored()
            self.filter = self.net.classifier.filter_optimizer(self.filter, stored, boxes, weights, iterations)[-1]

    def climbed_candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """See Tracker.candidates."""
        if self.energy is None:
            return np.empty((0, 4)), np.empty((0, 4))
        climbed, _ = climb(self.energy, self.candidates, self.params)
        return self._in_image(self.candidates), self._in_image(climbed)

    def _in_image(self, boxes_xywh: Tensor) -> np.ndarray:
        """Boxes (R, 4) of the last crop in image pixels, by the same way back as in _refine."""
        boxes, scale = boxes_xywh.double().numpy(), self.crop.scale
        middle = (self.params.sample_size - int(self.params.half_pixel_late)) / 2
        sizes = boxes[:, 2:] * scale
        centres = (boxes[:, :2] + boxes[:, 2:] / 2 - middle) * scale + self.crop.centre_yx[::-1]
        return np.concatenate([centres - (sizes - 1) / 2, sizes], axis=1)

    def corner_log_density(self, points_xy: np.ndarray) -> np.ndarray:
        """See Tracker.corner_log_density."""
        x, y, w, h = self.box_xywh
        left, bottom = np.full(len(points_xy), x), np.full(len(points_xy), y + h)
        boxes = np.column_stack([left, points_xy[:, 1], points_xy[:, 0], bottom])
        middle, centre = self.params.sample_size / 2, self.crop.centre_yx[[1, 0, 1, 0]] + 0.5
        boxes = torch.tensor((boxes - centre) / self.crop.scale + middle, dtype=torch.float32)
        f = torch.cat([self.energy.value(part) for part in boxes.split(128)])
        f[(boxes[:, 2:] <= boxes[:, :2]).any(1)] = -math.inf
        return f.numpy()
