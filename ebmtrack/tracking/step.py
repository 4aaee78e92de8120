"""One frame, as a pipeline of values.

image -> search region -> view (features, score maps) -> located targets (position, verdict) -> proposals (candidate
boxes) -> climbed boxes -> new states -> learning -> results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ebmtrack.engines.base import Engine, Mark, no_mark
from ebmtrack.errors import ConfigError
from ebmtrack.tracking.locate import Located, Seen, judge, locate
from ebmtrack.tracking.refine import answer_together, ascent_of
from ebmtrack.tracking.regions import is_calm, look_at, region_before, regions_around, search_region
from ebmtrack.tracking.size_check import check_sizes
from ebmtrack.tracking.state import Proposal, Region, TargetState, View
from ebmtrack.tracking.uncertainty import BoxDensity, box_density, lost_probability, student_reach


@dataclasses.dataclass(frozen=True)
class TrackResult:
    """The tracker's answer for one target in one frame.

    box_xywh: the target's box in image pixels. If the target was not found it is the last one, or, with `weak_score`,
        that at a weak peak of the scores, and after `weak_frames` of these the one that was last surely found.
    score: the highest classifier score.
    verdict: "normal", "hard_negative", "uncertain" or "not_found". What looking around has found is uncertain for some
        frames (`doubtful_frames`).
    search_xywh: the search region in the image.
    score_map: (h, w) classifier scores over the search region.
    density: of the box's sides, if the target was found and the set-up asks for it (`interval_samples`).
    lost_probability: that the box overlaps the target by less than a fifth, or None if the set-up is not calibrated.
    """

    box_xywh: tuple[float, float, float, float]
    score: float
    verdict: str
    search_xywh: tuple[float, float, float, float]
    score_map: np.ndarray = dataclasses.field(repr=False, compare=False)
    density: BoxDensity | None = dataclasses.field(default=None, repr=False, compare=False)
    lost_probability: float | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def found(self) -> bool:
        """Return whether the target was seen in this frame."""
        return self.verdict != "not_found"

    def interval(self, probability: float = 0.9) -> np.ndarray:
        """Return for each side of the box the interval that holds the true side with a probability.

        Args:
            probability: above 0 and below 1; calibrated for frames in which the target is not lost.

        Returns:
            (4, 2): for left, top, right and bottom (x, y, x + w, y + h) the low and the high end, in image pixels; NaN
            if the target was not found.

        Raises:
            ConfigError: on another probability, or if the target was found and the set-up asks for no intervals.
        """
        if self.density is not None:
            return self.density.interval(probability)
        student_reach(probability)  # refuses the same ones
        if self.found:
            raise ConfigError("there are no intervals: track with the set-up's interval_samples=32")
        return np.full((4, 2), np.nan)


def track_frame(
    engine: Engine, states: Sequence[TargetState], images: Sequence[np.ndarray], inner_looks: int, mark: Mark = no_mark
) -> list[tuple[TargetState, TrackResult]]:
    """Find targets in their next frames.

    Args:
        engine: the network.
        states: the targets after the last frame, all with the same parameters.
        images: the frame of each target, (height, width, 3) uint8 RGB; targets may share one or have videos of their
            own.
        inner_looks: frames with an inner look after each one with a whole look, for calm targets.
        mark: called with each stage's name when the stage is done.

    Returns:
        For each target its state after the frame and the answer.
    """
    if not states:
        return []
    stride = engine.info.stride
    seen = look_for(engine, states, images, inner_looks, mark)
    located = [locate(state, one, image.shape, stride) for state, one, image in zip(states, seen, images)]
    mark("score and localisation")
    answers = list(zip(located, answer_together(engine, located, mark)))
    answers = check_sizes(engine, answers, images, mark)
    sure = [(one, state) for one, state in answers if one.is_sure]
    for one, state in sure:
        learn(engine, state, one)
    if sure:
        mark("learning")
    densities = [density_of(engine, state, one) for one, state in answers]
    if states[0].params.interval_samples:
        mark("intervals")
    return [
        (settle(state, one, stride), result_of(state, one, density))
        for (one, state), density in zip(answers, densities)
    ]


def look_for(
    engine: Engine, states: Sequence[TargetState], images: Sequence[np.ndarray], inner_looks: int, mark: Mark
) -> list[Seen]:
    """Return what is seen of each target in its next frame; arguments as in `track_frame`.

    The regions around the last positions go through the network together; then the whole regions of targets that an
    inner look has not found; then further regions for those that are neither found nor clear where they were before.
    """
    stride = engine.info.stride
    pairs = list(zip(states, images, strict=True))
    regions = [
        [search_region(state, image, inner_looks, stride), *region_before(state, image)] for state, image in pairs
    ]
    mark("crop")
    looked = zip(states, look_at(engine, states, regions, mark))
    seen = [Seen(own, judge(state, own, stride), before[0] if before else None) for state, (own, *before) in looked]

    def look_again(lost: list[int], further: list[list[Region]]) -> Iterator[tuple[int, list[View]]]:
        if lost:
            mark("crop")
        return zip(lost, look_at(engine, [states[k] for k in lost], further, mark))

    lost = [k for k, one in enumerate(seen) if one.own.region.is_inner and one.is_lost(states[k], stride)]
    for k, (view,) in look_again(lost, [[search_region(*pairs[k], 0, stride)] for k in lost]):
        seen[k] = dataclasses.replace(seen[k], own=view, found=judge(states[k], view, stride))
    lost = [k for k, one in enumerate(seen) if one.is_lost(states[k], stride)]
    for k, views in look_again(lost, [regions_around(*pairs[k]) for k in lost]):
        seen[k] = dataclasses.replace(seen[k], around=tuple(views))
    return seen


def learn(engine: Engine, state: TargetState, one: Located) -> None:
    """Remember a frame; improve the filter on a hard negative and every `update_every` frames."""
    params, hard = state.params, one.found.verdict == "hard_negative"
    box_xyxy = state.box_in(one.view.region.map)
    box_xyxy[2:] += box_xyxy[:2]
    slot = state.memory.claim(params.hard_negative_learning_rate if hard else params.learning_rate)
    engine.remember(state.model, slot, one.view.features, box_xyxy)
    scheduled = (state.frame - 1) % params.update_every == 0
    iterations = params.hard_negative_iterations if hard else params.update_iterations if scheduled else 0
    if iterations:
        engine.learn(state.model, state.memory.weights, iterations)


def settle(state: TargetState, one: Located, stride: int) -> TargetState:
    """Return the state that the next frame begins with."""
    if one.is_found and not state.doubt:
        state = dataclasses.replace(state, found_yx=state.position_yx, found_hw=state.size_hw)
    return dataclasses.replace(state, is_calm=is_calm(state, one.found, stride))


def density_of(engine: Engine, state: TargetState, one: Located) -> BoxDensity | None:
    """Return the density of a target's sides after a frame, if the set-up asks for it and the target was found."""
    if not (state.params.interval_samples and one.is_found and state.proposals):
        return None
    return box_density(engine, state, state.proposals[0], one.found.score)


def result_of(state: TargetState, one: Located, density: BoxDensity | None) -> TrackResult:
    """Return the tracker's answer for a target."""
    x, y, w, h = map(float, one.view.region.window_xywh)
    lost = lost_probability(one.found.score, state.params)
    return TrackResult(state.box_xywh, one.found.score, one.found.verdict, (x, y, w, h), one.view.scores, density, lost)


# What viewers show of a frame.


def climbed_candidates(engine: Engine, state: TargetState) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidate boxes (R, 4) of the last frame in image pixels, before and after their climb.

    Both hold no boxes if no box climbed: the target was not found, nor a weak peak followed. The climb is
    computed anew.
    """
    if not state.proposals:
        return np.empty((0, 4)), np.empty((0, 4))
    (proposal,) = state.proposals
    ascent = ascent_of(state.params, [state.climbed_log_aspect])
    climb = engine.climb([proposal.view.features], proposal.candidates_xywh[None], ascent)
    before, after = (state.boxes_in_image(proposal, boxes) for boxes in (proposal.candidates_xywh, climb[0][0]))
    return before, after


def corner_energies(engine: Engine, state: TargetState, proposal: Proposal, points_xy: np.ndarray) -> np.ndarray:
    """Return the energies (n,) of the boxes whose top right corner is at points; -inf for boxes without area.

    Args:
        engine: the network.
        state: the target; the bottom left corner is that of its box.
        proposal: the last frame's.
        points_xy: (n, 2) in image pixels.
    """
    x, y, _, h = state.box_xywh
    sizes = np.stack([y + h - points_xy[:, 1], points_xy[:, 0] - x], axis=1)
    positions = np.stack([points_xy[:, 1], np.full(len(points_xy), x)], axis=1) + (sizes - 1) / 2
    boxes = proposal.view.region.map.to_crop(*state.preferred(positions, sizes)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    energies = engine.energies(proposal.view.features, boxes)
    energies[(boxes[:, 2:] <= boxes[:, :2]).any(axis=1)] = -np.inf
    return energies
