"""From boxes to scores, by named protocols: overlap, centre error, success and precision curves, intervals.

A protocol fixes everything on which toolkits differ: which frames count, how invalid boxes are treated, what
the sum is divided by, how sequences are averaged. docs/protocols.md explains each with what a perfect
tracker scores.

| protocol | frames that count | first frame | averaged over | source |
|---|---|---|---|---|
| `pytracking` | all, or the valid ones | set to the truth | sequences | pytracking's analysis |
| `otb` | annotated | set to the truth | sequences | Wu et al., PAMI 2015; got10k toolkit |
| `got10k` | visible | left out | frames | Huang et al., PAMI 2019; got10k toolkit |
| `lasot` | visible and annotated | set to the truth | sequences | Fan et al., CVPR 2019 |
| `trackingnet` | annotated | set to the truth | sequences | Mueller et al., ECCV 2018 |
| `ope` | annotated, of positive size | left out | sequences | `otb` without the free first frame |

What a result may hold, in every protocol: NaN, infinite numbers and negative widths or heights are a
`ResultError` that names the frame. A box of zero width or height repeats the box before it under
`pytracking` and `lasot` (as both toolkits do) and has overlap 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError, ResultError
from ebmtrack.evaluation.overlap import center_error, clip_as_got10k, iou, iou_inclusive, norm_center_error

Array = np.ndarray

OVERLAP_THRESHOLDS: Array = np.arange(21) * 0.05  # 0, 0.05 .. 1: OTB, pytracking, LaSOT, TrackingNet
PIXEL_THRESHOLDS: Array = np.arange(51, dtype=np.float64)  # OTB, pytracking
NORM_THRESHOLDS: Array = np.arange(51, dtype=np.float64) / 100  # TrackingNet, pytracking


@dataclass(frozen=True)
class Protocol:
    """The rules of a toolkit for boxes; see the table at the top of this file.

    Attributes:
        name: Of PROTOCOLS.
        skip_first: Leave out the first frame, which every tracker is given.
        visible_only: Leave out frames without the target.
        repeat_empty: Replace an empty box by the box before it.
        clip_to_image: Limit boxes to the image.
        pooled: Average over the frames of all sequences together.
        rule: Which of pytracking's data set rules holds (`otb`, `uav`, `lasot`); read by `pytracking` only.
        denominator: `all` frames, or the `valid` ones.
        norm_headline: `at` for normalised precision at 0.2, `area` for the mean of its curve from 0 to 0.5.
        thresholds: Number of overlap thresholds from 0 to 1.
    """

    name: str
    skip_first: bool = False
    visible_only: bool = False
    repeat_empty: bool = False
    clip_to_image: bool = False
    pooled: bool = False
    rule: str = "otb"
    denominator: str = "valid"
    norm_headline: str = "at"
    thresholds: int = 21

    @property
    def title(self) -> str:
        """The name by which `protocol` finds it: `pytracking:valid` for the other denominator."""
        other = self.name == "pytracking" and self.denominator == "valid"
        return f"{self.name}:{self.denominator}" if other else self.name

    @property
    def headline(self) -> str:
        """The figure by which trackers are ranked: `average_overlap` (AO) if frames are pooled, else `auc`."""
        return "average_overlap" if self.pooled else "auc"

    @property
    def headline_label(self) -> str:
        """The abbreviation of that figure, AO or AUC."""
        return "AO" if self.pooled else "AUC"

    def norm_figure(self, curve: Array) -> float:
        """Return the number that is quoted for a curve of normalised precision (51,): see `norm_headline`."""
        return float(curve.mean() if self.norm_headline == "area" else curve[20])


PROTOCOLS: Mapping[str, Protocol] = {
    "pytracking": Protocol("pytracking", repeat_empty=True, denominator="all"),
    "otb": Protocol("otb"),
    "got10k": Protocol("got10k", skip_first=True, visible_only=True, clip_to_image=True, pooled=True, thresholds=101),
    "lasot": Protocol("lasot", visible_only=True, repeat_empty=True),
    "trackingnet": Protocol("trackingnet", norm_headline="area"),
    "ope": Protocol("ope", skip_first=True),
}


def protocol(name: str | Protocol, **changes: Any) -> Protocol:
    """Return the protocol of a name, with some fields replaced.

    Args:
        name: Of PROTOCOLS, or `pytracking:valid`, which is `pytracking` divided by the valid frames; or a protocol.
        **changes: Fields to replace, such as `rule="uav"` or `denominator="valid"`.

    Raises:
        ConfigError: Unknown name, rule or denominator.
    """
    if isinstance(name, str) and name.startswith("pytracking:"):
        name, changes = "pytracking", {"denominator": name.partition(":")[2], **changes}
    if isinstance(name, str) and name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    chosen = replace(PROTOCOLS[name] if isinstance(name, str) else name, **changes)
    for field, allowed in (("rule", ("otb", "uav", "lasot")), ("denominator", ("all", "valid"))):
        if getattr(chosen, field) not in allowed:
            raise ConfigError(f"{field} {getattr(chosen, field)!r} is none of {', '.join(allowed)}")
    return chosen


@dataclass(frozen=True)
class SequenceScore:
    """The frames of one sequence, judged by one protocol.

    Attributes:
        overlap: Intersection over union (N,), -1 in frames that cannot be judged.
        center: Distance of the centres in pixels (N,).
        center_norm: The same (N,), with x divided by the true width and y by the height.
        valid: Whether a frame can be judged (N,).
        denominator: What counts are divided by; 0 makes every score NaN.
        protocol: The rules.
    """

    overlap: Array
    center: Array
    center_norm: Array
    valid: Array
    denominator: int
    protocol: Protocol

    def op(self, threshold: float | Array) -> Array:
        """Return overlap precision: the share of frames whose overlap is strictly greater than each threshold."""
        return _share(self.overlap[:, None] > np.atleast_1d(threshold), self.denominator)

    @property
    def success(self) -> Array:
        """OP at the protocol's thresholds, (21,) or (101,)."""
        return self.op(thresholds(self.protocol))

    @property
    def precision(self) -> Array:
        """Share of frames whose centre is at most 0, 1 .. 50 pixels off, (51,)."""
        return _share(self.center[:, None] <= PIXEL_THRESHOLDS, self.denominator)

    @property
    def norm_precision(self) -> Array:
        """Share of frames whose normalised centre error is at most 0, 0.01 .. 0.5, (51,)."""
        return _share(self.center_norm[:, None] <= NORM_THRESHOLDS, self.denominator)

    @property
    def average_overlap(self) -> float:
        """Mean overlap of the valid frames (GOT-10k's AO); NaN without one."""
        return float(self.overlap[self.valid].mean()) if self.valid.any() else float("nan")


def thresholds(chosen: Protocol) -> Array:
    """Return the overlap thresholds of a protocol's success curve."""
    return OVERLAP_THRESHOLDS if chosen.thresholds == 21 else np.linspace(0, 1, chosen.thresholds)


def score_sequence(
    pred_xywh: Array,
    anno_xywh: Array,
    chosen: str | Protocol = "ope",
    *,
    visible: Array | None = None,
    size_wh: tuple[float, float] | None = None,
    where: str = "result",
) -> SequenceScore:
    """Judge the boxes of one sequence.

    If there is nothing to judge, scores are NaN.

    Args:
        pred_xywh: Boxes of the tracker (M, 4) in pixels, with the origin of the annotation. Under `pytracking` M < N is
            padded with empty boxes (its `lasot` rule refuses it) and M > N is cut; elsewhere M is N.
        anno_xywh: Annotated boxes (N, 4).
        chosen: The protocol.
        visible: Whether the target is in sight (N,); None if the data set does not say.
        size_wh: Image size, for protocols that clip boxes to it.
        where: Name of the result in errors, usually its file.

    Raises:
        ResultError: The result breaks the rules at the top of this file.
        DatasetError: The annotation does: NaN rows outside the `uav` rule, or infinite numbers.
    """
    chosen = protocol(chosen)
    anno = check_annotation(anno_xywh, chosen, where)
    pred = _checked_result(pred_xywh, where)
    seen = np.ones(len(anno), bool) if visible is None else np.asarray(visible, bool).copy()
    if seen.shape != (len(anno),):
        raise DatasetError(f"{where}: {seen.shape[0]} visibility flags for {len(anno)} annotated frames")
    if chosen.name == "pytracking":
        return _score_pytracking(pred, anno, seen, visible is not None, chosen, where)
    if len(pred) != len(anno):
        raise ResultError(f"{where}: {len(pred)} boxes for {len(anno)} frames; run the sequence again")
    return _score_plain(pred, anno, seen, size_wh, chosen)


def _share(hits: Array, denominator: int) -> Array:
    """Return column sums (T,) of hits (N, T) over the denominator; NaN if nothing is judged."""
    return hits.sum(axis=0) / denominator if denominator else np.full(hits.shape[1], np.nan)


def _as_boxes(boxes: Array, where: str, error: type[Exception]) -> Array:
    """Return a float64 copy of boxes (N, 4), N at least 1."""
    try:
        array = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError) as reason:
        raise error(f"{where}: boxes are not numbers in rows of x, y, width, height ({reason})") from reason
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise error(f"{where}: expected boxes of shape (N, 4) with N at least 1, got {array.shape}")
    return array


def _checked_result(pred_xywh: Array, where: str) -> Array:
    pred = _as_boxes(pred_xywh, where, ResultError)
    for bad, what in (
        (np.isnan(pred).any(axis=1), "is not a number"),
        (np.isinf(pred).any(axis=1), "is infinite"),
        ((pred[:, 2:] < 0).any(axis=1), "has a negative width or height"),
    ):
        if bad.any():
            frame = int(bad.argmax())
            raise ResultError(f"{where}, frame {frame} (from 0): box {pred[frame].tolist()} {what}")
    return pred


def check_annotation(anno_xywh: Array, chosen: Protocol, where: str) -> Array:
    """Return a copy of annotated boxes (N, 4) that a protocol can use.

    Args:
        anno_xywh: The boxes.
        chosen: The protocol.
        where: Name of the annotation or the result in errors.

    Raises:
        DatasetError: Infinite numbers, or NaN under `pytracking`, where only the `uav` rule allows it.
    """
    anno = _as_boxes(anno_xywh, where, DatasetError)
    bad = np.isinf(anno).any(axis=1)
    if chosen.name == "pytracking" and chosen.rule != "uav":
        bad |= np.isnan(anno).any(axis=1)  # as pytracking: only UAV123 may leave frames without a box
    if bad.any():
        frame = int(bad.argmax())
        advice = "correct it" if np.isinf(anno[frame]).any() else "correct it, or use --protocol ope"
        raise DatasetError(
            f"{where}, frame {frame} (from 0): annotation {anno[frame].tolist()} cannot be used "
            f"under the protocol {chosen.name!r} with rule {chosen.rule!r}; {advice}"
        )
    return anno


def _repeat_empty(pred: Array, anno: Array) -> Array:
    """Replace boxes of zero width or height by the box before them, except in frames whose truth is NaN."""
    empty = (pred[:, 2:] == 0).any(axis=1)
    known = ~np.isnan(anno).any(axis=1) if len(anno) == len(pred) else np.ones(len(pred), bool)
    for i in np.flatnonzero(empty[1:]) + 1:
        if known[i]:
            pred[i] = pred[i - 1]
    return pred


def _fit_length(pred: Array, anno: Array, rule: str, where: str) -> Array:
    """Cut a result that is too long, and pad one that is too short with empty boxes; the lasot rule refuses it."""
    if len(pred) < len(anno) and rule == "lasot":
        raise ResultError(f"{where}: {len(pred)} boxes for {len(anno)} frames, refused by the lasot rule")
    return np.concatenate([pred[: len(anno)], np.zeros((max(len(anno) - len(pred), 0), 4))])


def _score_pytracking(
    pred: Array, anno: Array, visible: Array, has_visible: bool, chosen: Protocol, where: str
) -> SequenceScore:
    """Score as pytracking's analysis does: the value for an invalid frame differs by data set and by measure.

    Where the truth is invalid the overlap is -1; the centre error is -1 (so a hit) under `uav` and infinite
    elsewhere; the normalised one is -1 (a hit) except for absent frames under `lasot`. Source: golden curves
    of pytracking.
    """
    if chosen.rule == "lasot" and not has_visible:
        raise DatasetError(f"{where}: the lasot rule needs the frames' visibility flags")
    length = min(len(pred), len(anno))
    pred[:length] = _repeat_empty(pred[:length], anno[:length])
    pred = _fit_length(pred, anno, chosen.rule, where)
    pred[0] = anno[0]
    with np.errstate(invalid="ignore"):
        valid = (anno > 0).all(axis=1) & visible
        overlap, center = iou_inclusive(pred, anno), center_error(pred, anno)
        norm = norm_center_error(pred, anno)
    overlap[~valid] = norm[~valid] = -1.0
    center[~valid] = -1.0 if chosen.rule == "uav" else np.inf
    if chosen.rule == "lasot":
        norm[~visible] = np.inf
    count = len(anno) if chosen.denominator == "all" else int(valid.sum())
    return SequenceScore(overlap, center, norm, valid, count, chosen)


def _score_plain(
    pred: Array, anno: Array, visible: Array, size_wh: tuple[float, float] | None, chosen: Protocol
) -> SequenceScore:
    """Score by any protocol but pytracking: frames that do not count have overlap -1 and infinite errors."""
    if chosen.repeat_empty:
        pred = _repeat_empty(pred, anno)
    pred[0] = anno[0]
    valid = ~np.isnan(anno).any(axis=1)
    if chosen.name in ("ope", "lasot", "trackingnet"):  # rows of -1, of 0 or of negative sizes mean "no target"
        with np.errstate(invalid="ignore"):
            valid &= (anno[:, 2:] > 0).all(axis=1)
    if len(anno) > 1 and not valid[1:].any():
        valid[0] = False  # only the start is known, as in test sets whose truth is kept back: nothing was tracked
    valid &= visible if chosen.visible_only else True
    valid[0] &= not chosen.skip_first
    first, second = pred, anno
    if chosen.clip_to_image and size_wh is not None:
        first, second = clip_as_got10k(pred, size_wh), clip_as_got10k(anno, size_wh)
    with np.errstate(invalid="ignore"):
        overlap = np.where(valid, iou(first, second), -1.0)
        center = np.where(valid, center_error(pred, anno), np.inf)
        norm = np.where(valid, norm_center_error(pred, anno), np.inf)
    count = len(anno) if chosen.denominator == "all" else int(valid.sum())
    return SequenceScore(overlap, center, norm, valid, count, chosen)


@dataclass(frozen=True)
class Summary:
    """The scores over sequences: mean curves (or those of pooled frames) and the numbers that papers quote, 0 .. 1.

    Attributes:
        success: Curve (T,).
        precision: Curve (51,).
        norm_precision: Curve (51,).
        auc: Mean of the success curve.
        op50: OP at 0.5.
        op75: OP at 0.75.
        precision_20: Precision at 20 pixels.
        norm_figure: The number that the protocol quotes for normalised precision.
        average_overlap: GOT-10k's AO.
    """

    success: Array
    precision: Array
    norm_precision: Array
    auc: float
    op50: float
    op75: float
    precision_20: float
    norm_figure: float
    average_overlap: float


def summarise(scores: Sequence[SequenceScore]) -> Summary:
    """Average over sequences, or over all frames if the protocol pools them (got10k).

    Sequences without a frame to judge are left out. Raises ResultError without any other, ConfigError for mixed
    protocols.
    """
    judged = [score for score in scores if score.denominator]
    if not judged:
        raise ResultError("no sequence has a frame to judge: nothing to average")
    if len({score.protocol.name for score in judged}) > 1:
        raise ConfigError("scores of different protocols cannot be averaged")
    weights = np.array([score.denominator if score.protocol.pooled else 1.0 for score in judged])

    def mean(measure: Callable[[SequenceScore], Array | float]) -> Array:
        return np.average(np.array([measure(score) for score in judged], float), axis=0, weights=weights)

    success, precision = mean(lambda s: s.success), mean(lambda s: s.precision)
    norm, points = mean(lambda s: s.norm_precision), mean(lambda s: s.op(np.array([0.5, 0.75])))
    return Summary(
        success,
        precision,
        norm,
        auc=float(success.mean()),
        op50=float(points[0]),
        op75=float(points[1]),
        precision_20=float(precision[20]),
        norm_figure=judged[0].protocol.norm_figure(norm),
        average_overlap=float(mean(lambda s: s.average_overlap if s.valid.any() else 0.0)),
    )
