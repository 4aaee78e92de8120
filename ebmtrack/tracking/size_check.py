"""Would the first frame's size be better? A second look for boxes that have grown too large or shrunk to a part.

Search regions follow the box. A box that has grown from a head over the body, or holds half of a face, is seen at a
scale at which it stays a maximum of the energy for good. So every `size_check` frames a target whose size has changed
is looked at once more, with the present aspect ratio, in a region for the first frame's size. If the classifier's only
peak is near the present one and clearly higher, and the box to which candidates climb there has a higher energy f, too,
and not a negative one, like nearly all boxes on targets, that box is the answer, and the frame is learned with it. What
is further away may be another object, and is left to looking around. Other sizes are not tried: in larger regions the
energy is too often higher for boxes that hold more than the target.

The target's own random numbers are left alone, so that looks that change nothing do not change later frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ebmtrack.engines.base import Engine, Mark
from ebmtrack.tracking.localize import Localization
from ebmtrack.tracking.locate import Located, clamp_inside, judge, place_of
from ebmtrack.tracking.random_numbers import RandomNumbers
from ebmtrack.tracking.refine import answer_together
from ebmtrack.tracking.regions import cut_region, look_at
from ebmtrack.tracking.state import TargetState

OTHER_SIZE = 1.15  # sizes (square roots of areas) whose ratio is less count as the same
HIGHER_SCORE = 0.1  # what a classifier score must gain
HIGHER_ENERGY = 1.0  # nats: what f must gain
LEAST_ENERGY = 0.0  # what f must be then; on held-back video 1 % of the boxes that overlap the truth by half have less
NEAR = 0.5  # of the larger of both boxes' sides: how far the target may be from its present place

Answer = tuple[Located, TargetState]


def check_sizes(engine: Engine, answers: Sequence[Answer], images: Sequence[np.ndarray], mark: Mark) -> list[Answer]:
    """Return the answers to a frame, those in their place for which the first frame's size is better.

    Args:
        engine: the network.
        answers: where each target is, and its state with the box that its candidates have climbed to.
        images: the frame of each target, (height, width, 3) uint8 RGB.
        mark: called with each stage's name when the stage is done.

    Returns:
        An answer for each target.
    """
    answers = list(answers)
    due = [k for k, answer in enumerate(answers) if is_due(*answer)]
    if not due:
        return answers
    resized = [with_first_size(answers[k][1]) for k in due]
    regions = [[cut_region(images[k], one.position_yx, one.scale, one.params)] for k, one in zip(due, resized)]
    mark("crop")
    stride = engine.info.stride
    for k, state, (view,) in zip(due, resized, look_at(engine, resized, regions, mark)):
        found = judge(state, view, stride)
        place = place_of(view, found, stride)
        if not is_clearer(answers[k], state, found, place):
            continue
        position = clamp_inside(place, state, images[k].shape)
        moved = dataclasses.replace(state, position_yx=position, random=RandomNumbers(state.frame))
        one = Located(moved, view, found)
        (other,) = answer_together(engine, [one], mark)
        if energy_of(engine, other) >= max(energy_of(engine, answers[k][1]) + HIGHER_ENERGY, LEAST_ENERGY):
            answers[k] = one, dataclasses.replace(other, random=state.random)
        mark("refinement")
    return answers


def is_due(one: Located, state: TargetState) -> bool:
    """Return whether a target that was found is to be looked at with the first frame's size in this frame."""
    every, change = state.params.size_check, state.scale / state.first_scale
    is_its_turn = every > 0 and (state.frame - 1 + state.phase) % every == 0 and not one.view.region.is_inner
    return is_its_turn and one.is_found and not state.doubt and max(change, 1 / change) >= OTHER_SIZE


def is_clearer(answer: Answer, resized: TargetState, found: Localization, place_yx: np.ndarray) -> bool:
    """Return whether a look in the first frame's size shows one target, near the present place and more clearly.

    Args:
        answer: the frame's answer so far.
        resized: its state with the first frame's size.
        found: the judgement of the look.
        place_yx: (2,), where its peak is in the image.
    """
    one, state = answer
    reach = NEAR * np.maximum(state.size_hw, resized.size_hw)
    is_near = bool((np.abs(place_yx - state.position_yx) <= reach).all())
    return is_near and found.verdict == "normal" and found.score >= one.found.score + HIGHER_SCORE


def with_first_size(state: TargetState) -> TargetState:
    """Return the state with the area of the first frame's box and its own aspect ratio."""
    return state.move(state.position_yx, state.size_hw * (state.first_scale / state.scale))


def energy_of(engine: Engine, state: TargetState) -> float:
    """Return the energy of a target's box in the view in which its candidates climbed."""
    (proposal,) = state.proposals
    box = state.preferred_box_in(proposal.view.region.map)
    box[2:] += box[:2]
    return float(engine.energies(proposal.view.features, box[None])[0])
