"""Where a target is: what the views of a frame say of it, and which of them counts."""

from __future__ import annotations

import dataclasses

import numpy as np

from ebmtrack.tracking.localize import Localization, localize
from ebmtrack.tracking.params import TrackerParams
from ebmtrack.tracking.state import TargetState, View


@dataclasses.dataclass(frozen=True)
class Seen:
    """The views of a target in a frame.

    own: the region around its last position.
    found: the judgement of that view.
    before: the region around the place that looking around has taken it from, while that is in doubt.
    around: further regions, which count if it is not in the first and not clearly in the second.
    """

    own: View
    found: Localization
    before: View | None = None
    around: tuple[View, ...] = ()

    def is_lost(self, state: TargetState, stride: int) -> bool:
        """Return whether the target is neither in its own region nor clearly where it was before."""
        if self.found.verdict != "not_found":
            return False
        return self.before is None or not is_clear(judge(state.at_found, self.before, stride), state.params)


@dataclasses.dataclass(frozen=True)
class Located:
    """A target after localisation: its state, moved to the score's peak, the view that was judged, the judgement."""

    state: TargetState
    view: View
    found: Localization

    @property
    def is_found(self) -> bool:
        """Return whether the target is in the view."""
        return self.found.verdict != "not_found"

    @property
    def is_followed(self) -> bool:
        """Return whether the box follows the peak: the target is found, or the peak is at least a weak one.

        Weak ones are followed in the first frames without the target: what is weak for longer is something else.
        """
        params = self.state.params
        is_weak = params.weak_score > 0 and self.found.score >= params.weak_score
        return self.is_found or (is_weak and self.state.lost_frames <= params.weak_frames)

    @property
    def is_sure(self) -> bool:
        """Return whether the frame may be learned."""
        return self.found.verdict in ("normal", "hard_negative")


def locate(state: TargetState, seen: Seen, shape: tuple[int, ...], stride: int) -> Located:
    """Say where the target is and how sure that is, and move it there.

    Args:
        state: the target after the last frame.
        seen: the views of the frame.
        shape: the image's (height, width, 3).
        stride: crop pixels per cell.
    """
    whole = state.whole if seen.own.region.is_inner else seen.own.features
    state, view, found = choose(state, seen, stride)
    lost_frames = state.lost_frames + 1 if found.verdict == "not_found" else 0
    state = dataclasses.replace(state, frame=state.frame + 1, whole=whole, proposals=(), lost_frames=lost_frames)
    follows = state.params.weak_score > 0 or state.doubt > 0
    if follows and lost_frames == state.params.weak_frames + 1:  # away from what was followed
        state = dataclasses.replace(state.at_found, doubt=0)
    one = Located(state, view, found)
    if not one.is_followed:
        return one
    position = clamp_inside(place_of(view, found, stride), state, shape)
    return dataclasses.replace(one, state=dataclasses.replace(state, position_yx=position))


def choose(state: TargetState, seen: Seen, stride: int) -> tuple[TargetState, View, Localization]:
    """Return the view of a frame that counts, its judgement, and the state with the doubt that is left.

    A target that looking around has found may be another one, and the right one covered. So for `doubtful_frames` it is
    not learned, and goes back to the place that it was taken from if a target is seen as clearly there; but not if both
    regions show the same object.
    """
    view, found = seen.own, seen.found
    if seen.before is not None:
        there = judge(state.at_found, seen.before, stride)
        apart = np.abs(place_of(seen.before, there, stride) - place_of(view, found, stride))
        is_other = (apart > np.minimum(state.size_hw, state.found_hw) / 2).any()
        if is_other and is_clear(there, state.params) and there.score >= found.score:
            return dataclasses.replace(state.at_found, doubt=0), seen.before, there._replace(verdict="uncertain")
    if found.verdict == "not_found":
        view, found = take_clear_view(state, seen, stride)
        if view is not seen.own:
            state = dataclasses.replace(state, doubt=state.params.doubtful_frames)
    elif state.doubt:
        state, found = dataclasses.replace(state, doubt=state.doubt - 1), found._replace(verdict="uncertain")
    return state, view, found


def place_of(view: View, found: Localization, stride: int) -> np.ndarray:
    """Return the image position (y, x) of a view's peak."""
    return view.region.map.centre_yx + found.displacement_yx * (stride * view.region.map.scale)


def judge(state: TargetState, view: View, stride: int) -> Localization:
    """Return what a view's scores say of the target."""
    crop_map = view.region.map
    finer = stride if len(view.scores) == crop_map.side else 1  # scores per cell; ATOM's have one for each pixel
    cell = stride * crop_map.scale / finer  # image pixels
    found = localize(view.scores, state.size_hw / cell, (state.position_yx - crop_map.centre_yx) / cell, state.params)
    return found._replace(displacement_yx=found.displacement_yx / finer)


def take_clear_view(state: TargetState, seen: Seen, stride: int) -> tuple[View, Localization]:
    """Return the further view that shows the target best, if one does so clearly, else that of its own region.

    Args:
        state: the target after the last frame.
        seen: the views of the frame.
        stride: crop pixels per cell.

    Returns:
        The view and its judgement. A further view has the verdict "uncertain", so that the frame is not learned.
    """
    judged = [(view, judge(state, view, stride)) for view in seen.around]
    clear = [(view, there) for view, there in judged if is_clear(there, state.params)]
    if not clear:
        return seen.own, seen.found
    view, best = max(clear, key=lambda one: one[1].score)
    return view, best._replace(verdict="uncertain")


def is_clear(found: Localization, params: TrackerParams) -> bool:
    """Return whether a target is seen clearly enough to be taken where it was not in the last frame."""
    return found.verdict == "normal" and found.score >= params.clear_score


def clamp_inside(position_yx: np.ndarray, state: TargetState, shape: tuple[int, ...]) -> np.ndarray:
    """Return the position moved so that `inside_frac` of the target stays in an image of `shape`."""
    margin = (state.params.inside_frac - 0.5) * state.size_hw
    return np.maximum(np.minimum(position_yx, np.array(shape[:2]) - margin), margin)
