"""One target's state, and the stages by which a list of targets goes through a frame together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.data.crops import Crop, crop_around
from ebmtrack.nets.classifier import FEATURE_STRIDE, apply_filter
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.target_energy import EnergyMap, JointEnergy
from ebmtrack.tracking import glance, lost
from ebmtrack.tracking.first_frame import augmented_samples
from ebmtrack.tracking.localize import Localization, localize
from ebmtrack.tracking.memory import SampleMemory
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.refine import candidate_boxes, climb, refine

CALIBRATION_ROUNDS = 3  # climbs, each from where the one before has ended
MOST_EXCESS = 0.5  # natural logarithm
Mark = Callable[[str], None]  # called with each stage's name when it is done


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


@dataclasses.dataclass(frozen=True)
class View:
    """A search region as the network sees it.

    centre_yx: its centre in image pixels, (2,). scale: image pixels per pixel of the region. window_xywh: the region
    in the image. layer2, layer3: backbone features (1, c, h, w). features: the classifier's, (1, c, h, w), float32.
    """

    centre_yx: np.ndarray
    scale: float
    window_xywh: tuple[float, float, float, float]
    layer2: Tensor
    layer3: Tensor
    features: Tensor


def no_mark(stage: str) -> None:
    """Nobody asked for the time."""


def update_targets(
    net: InferenceNet, targets: Sequence[Target], image: np.ndarray, mark: Mark = no_mark
) -> list[TrackResult]:
    """One frame for targets with the same parameters, stage by stage: look, localise, propose, refine, learn."""
    if not targets:
        return []
    for target, views in zip(targets, look(net, targets, image, mark)):
        target.localise(views, image.shape)
    mark("score and localisation")
    found = [target for target in targets if target.found.verdict != "not_found"]
    sure = [target for target in found if target.found.verdict != "uncertain"]
    if found:
        for target in found:
            target.propose()
        JointEnergy([t.energy for t in found]).look_at(xywh_to_xyxy(torch.stack([t.candidates for t in found])))
        mark("box features")
        refine_together(found)
        mark("refinement")
    for target in sure:
        target.learn()
    if sure:
        mark("learning")
    return [target.result() for target in targets]


def refine_together(targets: Sequence[Target]) -> None:
    """Let the candidates of targets with the same parameters climb their energies, and move each target there."""
    candidates = torch.stack([target.candidates for target in targets])
    boxes = refine([target.energy for target in targets], candidates, targets[0].params)
    for target, box in zip(targets, boxes):
        target.move_to(box)


def look(net: InferenceNet, targets: Sequence[Target], image: np.ndarray, mark: Mark) -> list[list[View]]:
    """A search region for each target around its last position, all of them in one pass of the network.

    Of targets that may be glanced at (see glance.py) only the region's inner part, those in a pass of their own; more
    regions after the first for targets that are lost (see lost.py).
    """
    crops = [(target, crop) for target in targets for crop in target.search(image)]
    owners, crops = [target for target, _ in crops], [crop for _, crop in crops]
    brief = [glance.suffices(target) for target in owners]
    patches = [glance.inner(crop.patch) if is_brief else crop.patch for crop, is_brief in zip(crops, brief)]
    mark("crop")
    groups = [[k for k, is_brief in enumerate(brief) if is_brief == wanted] for wanted in (False, True)]
    groups = [group for group in groups if group]
    layers = [net.extract(torch.from_numpy(np.stack([patches[k] for k in group]))) for group in groups]
    mark("backbone")
    classified = [net.classify_each(layer3) for _, layer3 in layers]
    mark("classifier features")
    views = {}
    for group, (layer2, layer3), each in zip(groups, layers, classified):
        for k, *maps in zip(group, layer2.split(1), layer3.split(1), each):
            target, crop = owners[k], crops[k]
            if brief[k]:
                maps = glance.whole([*maps[:2], glance.with_power(maps[2], target.inner_power)], len(crop.patch))
            elif target.glances and owners.index(target) == k:
                target.inner_power = glance.inner_power(maps[2])
            views[k] = View(crop.centre_yx, crop.scale, crop.window_xywh, *maps)
    return [[views[k] for k, owner in enumerate(owners) if owner is target] for target in targets]


class Target:
    """Everything about one target. Positions and sizes are (y, x) as in pytracking; see data/crops.py.

    Boxes are few and live on the CPU; features, filters and the memory live on the network's device.
    """

    def __init__(
        self,
        net: InferenceNet,
        params: TrackerParams,
        image: np.ndarray,
        box_xywh: np.ndarray,
        seed: int | None = None,
        phase: int = 0,
    ):
        """A box (4,) in its first frame, both checked; `seed` overrides the parameters' one.

        phase: by how many frames its looks at the whole search region are put off.
        """
        self.net, self.params, self.phase, self.glances = net, params, phase, params.glances
        self.generator = torch.Generator().manual_seed(params.seed if seed is None else seed)
        self.position = box_xywh[[1, 0]] + (box_xywh[[3, 2]] - 1) / 2
        self.size = box_xywh[[3, 2]]
        self.first_log_aspect = math.log(self.size[0] / self.size[1])
        self.scale = math.sqrt(self.size.prod()) * params.search_factor / params.sample_size
        self.base_area = float((self.size / self.scale).prod())
        self.box_xywh, self.frame = tuple(box_xywh.tolist()), 1
        self.lost_for = 0  # frames
        self.view: View | None = None
        self.inner_power: Tensor | None = None  # of the last look at the whole region; see glance.py
        self.found: Localization | None = None
        self.scores: np.ndarray | None = None
        self.energy: EnergyMap | None = None
        self.candidates: Tensor | None = None
        self.log_excess_hw = np.zeros(2)  # of boxes that climb the energy over the target's; see _log_excess_hw
        self._learn_first_frame(image)

    def _learn_first_frame(self, image: np.ndarray) -> None:
        """Modulation and classifier filter from the first frame."""
        params = self.params
        patches, shifts, _ = augmented_samples(image, self.position, self.scale, params, self.generator)
        layer2, layer3 = self.net.extract(torch.from_numpy(patches))
        box = self.box_in_crop(np.round(self.position), self.scale)
        self.reference = self.net.target_energy(layer2[:1], layer3[:1], xywh_to_xyxy(box))
        if params.calibration:
            self.log_excess_hw = params.calibration * self._log_excess_hw(layer2[:1], layer3[:1], box)
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

    def _log_excess_hw(self, layer2: Tensor, layer3: Tensor, box: Tensor) -> np.ndarray:
        """By how much boxes (h, w) at the energy's maximum are larger than the one asked for, in the first frame; logs.

        What counts as the target is the user's choice: with or without its shadow, limbs, the rider's horse. Where the
        energy sees it otherwise it does so in every frame, and much alike.
        """
        generator = torch.Generator().manual_seed(self.generator.initial_seed())
        energy, found = self.reference.over(self.net.box_features(layer2, layer3)), box
        for _ in range(CALIBRATION_ROUNDS):
            (climbed,) = refine([energy], candidate_boxes(found, self.params, generator)[None], self.params)
            found = found if climbed is None else climbed
        return (found[2:] / box[2:]).log().clamp(-MOST_EXCESS, MOST_EXCESS).double().numpy()[::-1]

    def search(self, image: np.ndarray) -> list[Crop]:
        """The search region around the last position; more of them elsewhere while the target is lost."""
        params, centres = self.params, [self.position]
        side, size = self.scale * params.sample_size, params.sample_size
        change, rule = params.max_scale_change, params.crop_rule
        if self.lost_for and params.looks_around:
            centres.extend(lost.turn(lost.places(self.position, side, image.shape), self.lost_for, params.looks_around))
        return [crop_around(image, tuple(c), (side, side), (size, size), params.border, change, rule) for c in centres]

    def localise(self, views: Sequence[View], shape: tuple[int, ...]) -> None:
        """Begin a frame: say where the target is, and how sure, and move there; `shape` is the image's.

        views: of the search region around the last position, and of others that count where the target is not in it.
        """
        self.frame += 1
        self.energy = None
        self.view, self.scores, self.found = self._judge(views[0])
        if self.found.verdict == "not_found":
            self._take_what_is_clear(views[1:])
        self.lost_for = self.lost_for + 1 if self.found.verdict == "not_found" else 0
        if not self.lost_for:
            cell = FEATURE_STRIDE * self.view.scale  # image pixels
            self.position = self._inside(self.view.centre_yx + self.found.displacement_yx * cell, shape)

    def _judge(self, view: View) -> tuple[View, np.ndarray, Localization]:
        """The view, its scores, and what they say of the target."""
        scores, cell = self._scores(view.features), FEATURE_STRIDE * view.scale
        previous = (self.position - view.centre_yx) / cell
        return view, scores, localize(scores, self.size / cell, previous, self.params)

    def _take_what_is_clear(self, views: Sequence[View]) -> None:
        """Let the view that shows the target best be the frame's, provided that one shows it clearly.

        The verdict is "uncertain": such a frame is not learned.
        """
        judged = [one for one in map(self._judge, views) if one[2].verdict == "normal"]
        clear = [one for one in judged if one[2].score >= self.params.clear_score]
        if clear:
            self.view, self.scores, found = max(clear, key=lambda one: one[2].score)
            self.found = found._replace(verdict="uncertain")

    def propose(self) -> None:
        """Candidate boxes around the position, and the energy that they will climb."""
        self.energy = self.reference.over(self.net.box_features(self.view.layer2, self.view.layer3))
        box = self.box_in_crop(self.view.centre_yx, self.view.scale, np.exp(self.log_excess_hw))
        self.candidates = candidate_boxes(box, self.params, self.generator)

    def move_to(self, box: Tensor | None) -> None:
        """Take a box (4,) of the search region for the target's; None leaves it where it is, with its old size."""
        if box is not None:
            x, y, w, h = box.tolist()
            middle, scale = self._middle(), self.view.scale
            self.position = np.array([y + h / 2 - middle, x + w / 2 - middle]) * scale + self.view.centre_yx
            self.size = self._own_size(np.array([h, w]) * scale)
            self.scale = math.sqrt(self.size.prod() / self.base_area)
        (y, x), (h, w) = self.position.tolist(), self.size.tolist()
        self.box_xywh = x - (w - 1) / 2, y - (h - 1) / 2, w, h

    def learn(self) -> None:
        """Remember this frame; improve the filter on a hard negative and every `update_every` frames."""
        params, hard_negative = self.params, self.found.verdict == "hard_negative"
        box_xyxy = xywh_to_xyxy(self.box_in_crop(self.view.centre_yx, self.view.scale))
        self.memory.add(self.view.features[0], box_xyxy, params.hard_negative_learning_rate if hard_negative else None)
        iterations = params.update_iterations if (self.frame - 1) % params.update_every == 0 else 0
        if hard_negative:
            iterations = params.hard_negative_iterations
        if iterations:
            stored, boxes, weights = self.memory.stored()
            self.filter = self.net.classifier.filter_optimizer(self.filter, stored, boxes, weights, iterations)[-1]

    def result(self) -> TrackResult:
        """What this frame gave."""
        return TrackResult(self.box_xywh, self.found.score, self.found.verdict, self.view.window_xywh, self.scores)

    def box_in_crop(self, centre_yx: np.ndarray, scale: float, times_hw: np.ndarray | float = 1.0) -> Tensor:
        """The target's box (4,), x, y, w, h in pixels of a crop with that centre and scale, its size multiplied."""
        size = self.size / scale * times_hw
        corner = (self.position - centre_yx) / scale + (self.params.sample_size - 1) / 2 - (size - 1) / 2
        box = np.concatenate([corner[::-1], size[::-1]])
        return torch.tensor(box, dtype=torch.float32)

    def climbed_candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """See Tracker.candidates."""
        if self.energy is None:
            return np.empty((0, 4)), np.empty((0, 4))
        climbed, _ = climb([self.energy], self.candidates[None], self.params)
        return self._in_image(self.candidates), self._in_image(climbed[0])

    def corner_log_density(self, points_xy: np.ndarray) -> np.ndarray:
        """See Tracker.corner_log_density."""
        x, y, w, h = self.box_xywh
        left, bottom = np.full(len(points_xy), x), np.full(len(points_xy), y + h)
        boxes = np.column_stack([left, points_xy[:, 1], points_xy[:, 0], bottom])
        grown = (boxes[:, 2:] - boxes[:, :2]) * (np.exp(self.log_excess_hw[::-1]) - 1) / 2
        boxes = np.concatenate([boxes[:, :2] - grown, boxes[:, 2:] + grown], axis=1)
        middle, centre = self.params.sample_size / 2, self.view.centre_yx[[1, 0, 1, 0]] + 0.5
        boxes = torch.tensor((boxes - centre) / self.view.scale + middle, dtype=torch.float32)
        f = torch.cat([self.energy.value(part) for part in boxes.split(128)])
        f[(boxes[:, 2:] <= boxes[:, :2]).any(1)] = -math.inf
        return f.numpy()

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

    def _own_size(self, climbed_hw: np.ndarray) -> np.ndarray:
        """The target's sizes (..., 2), h, w in image pixels, from those of boxes that climbed the energy.

        Without the first frame's excess, and by `aspect_prior` nearer to the first frame's aspect ratio: most targets
        keep theirs, and an energy that is wrong about it is wrong in the next frame too.
        """
        size = climbed_hw * np.exp(-self.log_excess_hw)
        if not self.params.aspect_prior:
            return size
        h, w = np.moveaxis(size.clip(min=1e-6), -1, 0)
        pull = self.params.aspect_prior * (self.first_log_aspect - np.log(h / w)) / 2
        return size * np.exp(np.stack([pull, -pull], axis=-1))

    def _middle(self) -> float:
        """What the way back from the crop takes for its middle, in its pixels."""
        return (self.params.sample_size - int(self.params.half_pixel_late)) / 2

    def _in_image(self, boxes_xywh: Tensor) -> np.ndarray:
        """Boxes (R, 4) of the last crop in image pixels, by the same way back as in move_to."""
        boxes, scale = boxes_xywh.double().numpy(), self.view.scale
        sizes = self._own_size(boxes[:, [3, 2]] * scale)[:, ::-1]
        centres = (boxes[:, :2] + boxes[:, 2:] / 2 - self._middle()) * scale + self.view.centre_yx[::-1]
        return np.concatenate([centres - (sizes - 1) / 2, sizes], axis=1)
