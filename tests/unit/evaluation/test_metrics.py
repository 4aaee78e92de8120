"""Scores against two other toolkits' numbers, and what perfect, wrong and odd results must score."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmtrack.errors import ConfigError, DatasetError, ResultError
from ebmtrack.evaluation import intervals, metrics
from tests.support import DATA

PYTRACKING = np.load(DATA / "metrics_pytracking.npz")
GOT10K = np.load(DATA / "metrics_got10k.npz")
CASES = json.loads(str(PYTRACKING["cases.json"]))
TRUTH = np.array([[10.0, 20, 30, 40], [12, 21, 30, 40], [14, 22, 31, 41], [16, 23, 32, 42], [18, 24, 33, 43]])


@pytest.mark.parametrize("denominator", ["all", "valid"])
@pytest.mark.parametrize("case", range(24))
def test_pytracking_golden(case: int, denominator: str) -> None:
    """Curves that pytracking computed for random trajectories; 1e-12 allows for the order of a sum, no
    more."""
    chosen = metrics.protocol("pytracking", rule=CASES[case]["dataset"], denominator=denominator)
    visible = PYTRACKING[f"{case}/visible"].astype(bool) if CASES[case]["has_visible"] else None
    score = metrics.score_sequence(PYTRACKING[f"{case}/pred"], PYTRACKING[f"{case}/anno"], chosen, visible=visible)
    key = f"{case}/pytracking_excl{int(denominator == 'valid')}"
    for name, ours in (
        ("success", score.success),
        ("precision", score.precision),
        ("norm_precision", score.norm_precision),
        ("avg_overlap", score.average_overlap),
    ):
        np.testing.assert_allclose(ours, PYTRACKING[f"{key}/{name}"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(score.valid, PYTRACKING[f"{key}/valid"])


@pytest.mark.parametrize("case", range(12))
def test_got10k_golden(case: int) -> None:
    """OTB-style curves with 21 and 51 bins and GOT-10k's AO and SR with boxes clipped to 320 x 240, from
    got10k 0.1.3."""
    pred, anno = GOT10K[f"{case}/pred"], GOT10K[f"{case}/anno"]
    otb = metrics.score_sequence(pred, anno, "otb")
    np.testing.assert_allclose(otb.success, GOT10K[f"{case}/otb_success_21"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(otb.precision, GOT10K[f"{case}/otb_precision_51"], rtol=0, atol=1e-12)
    score = metrics.score_sequence(pred, anno, "got10k", size_wh=(320, 240))
    expected = GOT10K[f"{case}/got10k_iou_bounded_320x240"]
    np.testing.assert_allclose(score.overlap[1:], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(score.success, GOT10K[f"{case}/got10k_success_101"], rtol=0, atol=1e-12)
    assert score.average_overlap == pytest.approx(float(GOT10K[f"{case}/got10k_ao"]), abs=1e-12)
    sr = [float(GOT10K[f"{case}/got10k_sr50"]), float(GOT10K[f"{case}/got10k_sr75"])]
    np.testing.assert_allclose(score.op(np.array([0.5, 0.75])), sr, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_got10k_package_on_random_trajectories(seed: int) -> None:
    """New trajectories, half of them whole numbers so that overlaps meet thresholds: the toolkit's own
    functions agree."""
    toolkit = pytest.importorskip("got10k.utils.metrics")
    rng = np.random.default_rng(seed)
    anno = np.concatenate([rng.uniform(-20, 250, (60, 2)), rng.uniform(1, 90, (60, 2))], axis=1)
    pred = np.abs(anno + rng.normal(0, rng.uniform(0.1, 20), anno.shape))
    if seed % 2:
        anno, pred = np.rint(anno), np.rint(pred) + [0, 0, 1, 1]
    anno[:, 2:] = np.maximum(anno[:, 2:], 1)
    pred[0] = anno[0]
    score = metrics.score_sequence(pred, anno, "otb")
    np.testing.assert_allclose(score.overlap, toolkit.rect_iou(pred, anno), rtol=0, atol=1e-12)
    np.testing.assert_allclose(score.center, toolkit.center_error(pred, anno), rtol=0, atol=1e-12)
    overlap = toolkit.rect_iou(pred, anno)
    curve = (overlap[:, None] > np.linspace(0, 1, 21)).mean(axis=0)
    np.testing.assert_allclose(score.success, curve, rtol=0, atol=1e-12)
    clipped = metrics.score_sequence(pred, anno, "got10k", size_wh=(320, 240))
    expected = toolkit.rect_iou(pred[1:].copy(), anno[1:].copy(), bound=(320, 240))
    np.testing.assert_allclose(clipped.overlap[1:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_got10k_package_where_frames_are_missing(seed: int) -> None:
    """NaN rows, absent targets and empty results: the toolkit's experiments give the same curves."""
    experiments = pytest.importorskip("got10k.experiments")
    toolkit = pytest.importorskip("got10k.utils.metrics")
    rng = np.random.default_rng(seed)
    anno = np.rint(np.concatenate([rng.uniform(-30, 300, (50, 2)), rng.uniform(1, 90, (50, 2))], axis=1))
    pred = np.rint(anno + rng.normal(0, 5, anno.shape))
    pred[:, 2:] = np.maximum(pred[:, 2:], 0)
    pred[rng.uniform(size=50) < 0.1, 2:] = 0
    cover = rng.integers(0, 3, 50)
    score = metrics.score_sequence(pred, anno, "got10k", visible=cover > 0, size_wh=(320, 240))
    seen = np.flatnonzero(cover[1:] > 0) + 1
    overlap = toolkit.rect_iou(pred[seen], anno[seen], bound=(320, 240))
    expected = (overlap[:, None] > np.linspace(0, 1, 101)).mean(axis=0)
    np.testing.assert_allclose(score.success, expected, rtol=0, atol=1e-12)
    assert score.average_overlap == pytest.approx(overlap.mean(), abs=1e-12)
    anno[1:][rng.uniform(size=49) < 0.2] = np.nan
    known, experiment = ~np.isnan(anno).any(axis=1), object.__new__(experiments.ExperimentOTB)
    experiment.nbins_iou, experiment.nbins_ce = 21, 51
    pred[0] = anno[0]
    success, precision = experiment._calc_curves(*experiment._calc_metrics(pred[known], anno[known]))
    score = metrics.score_sequence(pred, anno, "otb")
    np.testing.assert_allclose(score.success, success, rtol=0, atol=1e-12)
    np.testing.assert_allclose(score.precision, precision, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", metrics.PROTOCOLS)
def test_a_perfect_tracker(name: str) -> None:
    """Overlap 1 exceeds every threshold but the last, which is 1 itself: 20/21, or 100/101 with 101
    thresholds."""
    summary = metrics.summarise([metrics.score_sequence(TRUTH, TRUTH, name, visible=np.ones(5, bool))])
    assert summary.auc == pytest.approx(100 / 101 if name == "got10k" else 20 / 21, abs=1e-12)
    assert (summary.op50, summary.op75, summary.average_overlap) == (1.0, 1.0, 1.0)
    assert summary.precision_20 == summary.norm_precision[20] == summary.norm_figure == 1.0


@pytest.mark.parametrize("name", metrics.PROTOCOLS)
def test_an_all_wrong_tracker(name: str) -> None:
    """Boxes far away score 0 except in the first frame, which is given: 1/5 of the frames where that one
    counts."""
    score = metrics.score_sequence(TRUTH + [900, 900, 0, 0], TRUTH, name, visible=np.ones(5, bool))
    free = 0.0 if metrics.PROTOCOLS[name].skip_first else 1 / 5
    assert score.op(0.5)[0] == pytest.approx(free)
    assert score.precision[50] == pytest.approx(free)


def test_a_constant_tracker() -> None:
    """Two frames of a 10 x 10 target that moves 5 to the right while the box stays: overlap 50 / 150 = 1/3.

    1/3 exceeds 0, 0.05 .. 0.3, seven of 21 thresholds; the centre is 5 pixels, half a width, off.
    """
    anno = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10]])
    score = metrics.score_sequence(anno[[0, 0]], anno, "ope")
    assert score.average_overlap == pytest.approx(1 / 3, abs=1e-15)
    assert metrics.summarise([score]).auc == pytest.approx(7 / 21, abs=1e-15)
    np.testing.assert_array_equal(score.precision, np.arange(51) >= 5)
    np.testing.assert_array_equal(score.norm_precision, np.arange(51) >= 50)


def test_a_sequence_of_one_frame() -> None:
    """The given frame is all there is: 20/21 where it counts, NaN and left out of the mean where it does
    not."""
    counted = metrics.score_sequence(TRUTH[:1], TRUTH[:1], "otb")
    assert metrics.summarise([counted]).auc == pytest.approx(20 / 21)
    single = metrics.score_sequence(TRUTH[:1], TRUTH[:1], "ope")
    assert np.isnan(single.success).all() and np.isnan(single.average_overlap)
    whole = metrics.score_sequence(TRUTH, TRUTH, "ope")
    assert metrics.summarise([single, whole]).auc == metrics.summarise([whole]).auc
    with pytest.raises(ResultError, match="no sequence"):
        metrics.summarise([single])


@pytest.mark.parametrize(
    "name, unknown",
    [(name, np.nan) for name in metrics.PROTOCOLS if name != "pytracking"]
    + [(name, 0.0) for name in ("ope", "lasot", "trackingnet")],
)
def test_where_only_the_start_is_known(name: str, unknown: float) -> None:
    """Test sets whose truth is kept back have the first box alone: its free hit is no score of 95.2 %."""
    anno = TRUTH.copy()
    anno[1:] = unknown
    score = metrics.score_sequence(TRUTH, anno, name, visible=np.ones(5, bool))
    assert score.denominator == 0 and np.isnan(score.success).all()
    anno[3] = TRUTH[3]
    assert metrics.score_sequence(TRUTH, anno, name).denominator == (1 if metrics.PROTOCOLS[name].skip_first else 2)


@pytest.mark.parametrize("name", metrics.PROTOCOLS)
@pytest.mark.parametrize("value, what", [(np.nan, "not a number"), (np.inf, "infinite"), (-1.0, "negative")])
def test_boxes_that_are_none_name_file_and_frame(name: str, value: float, what: str) -> None:
    """A width of NaN, infinity or -1 in frame 3 is refused, and the message says where."""
    pred = TRUTH.copy()
    pred[3, 2] = value
    with pytest.raises(ResultError, match=f"walk.txt, frame 3 .*{what}"):
        metrics.score_sequence(pred, TRUTH, name, visible=np.ones(5, bool), where="walk.txt")


@pytest.mark.parametrize("name", metrics.PROTOCOLS)
def test_empty_boxes(name: str) -> None:
    """A box of zero width repeats the one before it under pytracking and lasot, and misses elsewhere."""
    pred = TRUTH.copy()
    pred[2, 2] = 0
    score = metrics.score_sequence(pred, TRUTH, name, visible=np.ones(5, bool))
    repeats = name in ("pytracking", "lasot")
    expected = metrics.iou(TRUTH[1:2], TRUTH[2:3])[0] if repeats else 0.0
    assert score.overlap[2] == pytest.approx(expected, abs=1e-12)


def test_lengths() -> None:
    """A short result is padded by pytracking (two misses in five), refused by its lasot rule and by the
    others."""
    short = metrics.score_sequence(TRUTH[:3], TRUTH, "pytracking")
    assert short.op(0.5)[0] == pytest.approx(3 / 5)
    assert metrics.score_sequence(np.concatenate([TRUTH, TRUTH]), TRUTH, "pytracking").op(0.5)[0] == 1.0
    with pytest.raises(ResultError, match="3 boxes for 5 frames"):
        lasot = metrics.protocol("pytracking", rule="lasot")
        metrics.score_sequence(TRUTH[:3], TRUTH, lasot, visible=np.ones(5, bool))
    with pytest.raises(ResultError, match="3 boxes for 5 frames"):
        metrics.score_sequence(TRUTH[:3], TRUTH, "otb")


def test_annotations_that_cannot_be_used() -> None:
    """NaN rows are UAV123's business only under pytracking, and skipped frames elsewhere; infinity is always
    refused."""
    anno = TRUTH.copy()
    anno[2] = np.nan
    with pytest.raises(DatasetError, match="frame 2"):
        metrics.score_sequence(TRUTH, anno, "pytracking")
    uav = metrics.score_sequence(TRUTH, anno, metrics.protocol("pytracking", rule="uav"))
    assert uav.op(0.5)[0] == pytest.approx(4 / 5)  # the frame counts in the denominator
    assert uav.precision[20] == 1.0  # and is a hit for the centre, as pytracking has it
    assert metrics.score_sequence(TRUTH, anno, "otb").op(0.5)[0] == 1.0
    with pytest.raises(DatasetError, match="frame 2"):
        metrics.score_sequence(TRUTH, np.where(np.isnan(anno), np.inf, anno), "otb")
    with pytest.raises(DatasetError, match="visibility"):
        metrics.score_sequence(TRUTH, TRUTH, metrics.protocol("pytracking", rule="lasot"))


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.zeros(4), np.zeros((3, 5)), [["a"] * 4], None])
def test_shapes_that_are_no_boxes(bad: Any) -> None:
    """Anything but rows of four numbers is a ResultError on the result's side and a DatasetError on the
    truth's."""
    with pytest.raises(ResultError):
        metrics.score_sequence(bad, TRUTH)
    with pytest.raises(DatasetError):
        metrics.score_sequence(TRUTH, bad)


def test_unknown_names() -> None:
    """Names that do not exist are refused with the ones that do."""
    with pytest.raises(ConfigError, match="otb"):
        metrics.protocol("vot")
    with pytest.raises(ConfigError, match="uav"):
        metrics.protocol("pytracking", rule="nfs")


def test_got10k_pools_frames_and_the_others_average_sequences() -> None:
    """Four good frames and one bad: pooled 4/5, the mean over sequences (1 + 0) / 2."""
    far = TRUTH[:2] + [900, 900, 0, 0]
    for name, expected in (("got10k", 4 / 5), ("ope", 1 / 2)):
        scores = [metrics.score_sequence(TRUTH, TRUTH, name), metrics.score_sequence(far, TRUTH[:2], name)]
        assert metrics.summarise(scores).op50 == pytest.approx(expected)
    with pytest.raises(ConfigError, match="different protocols"):
        metrics.summarise([metrics.score_sequence(TRUTH, TRUTH, name) for name in ("otb", "ope")])


@given(st.integers(0, 10_000))
@settings(max_examples=60)
def test_laws_of_curves(seed: int) -> None:
    """Success falls and precision rises with the threshold; overlap is symmetric, and moving both boxes
    changes nothing."""
    rng = np.random.default_rng(seed)
    anno = np.concatenate([rng.uniform(1, 99, (9, 2)), rng.uniform(1, 99, (9, 2))], axis=1)
    pred = np.abs(anno + rng.normal(0, 10, anno.shape))
    score = metrics.score_sequence(pred, anno, "otb")
    assert (np.diff(score.success) <= 0).all() and (np.diff(score.precision) >= 0).all()
    np.testing.assert_allclose(metrics.iou(pred, anno), metrics.iou(anno, pred), atol=1e-12)
    moved = metrics.score_sequence(pred + [64, 32, 0, 0], anno + [64, 32, 0, 0], "otb")
    np.testing.assert_allclose(moved.overlap, score.overlap, atol=1e-9)


def test_intervals() -> None:
    """The normal interval of the mean of 400 numbers, mean +- 1.96 s / 20, is what the bootstrap must come
    near."""
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    interval = intervals.bootstrap(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert intervals.bootstrap(values) == interval


def test_weighted_intervals() -> None:
    """Weights 1 and 3 of 0 and 1: mean 3/4; equal weights change nothing; a draw of one sequence alone gives 0 or 1."""
    interval = intervals.bootstrap(np.array([0.0, 1.0]), weights=np.array([1.0, 3.0]))
    assert (interval.low, interval.value, interval.high) == (0.0, 0.75, 1.0)
    values = np.random.default_rng(0).uniform(size=30)
    same = intervals.bootstrap(values, weights=np.full(30, 7.0))
    assert same.low == pytest.approx(intervals.bootstrap(values).low, abs=1e-12)
    pairs = intervals.paired_difference({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}, weights={"a": 1.0, "b": 3.0})
    assert pairs.value == 0.75


def test_names_of_protocols() -> None:
    """Both denominators of pytracking have a name, and a protocol's title leads back to it."""
    assert metrics.protocol("pytracking:valid").denominator == "valid"
    for name in (*metrics.PROTOCOLS, "pytracking:valid"):
        assert metrics.protocol(metrics.protocol(name).title) == metrics.protocol(name)
        assert metrics.protocol(name).title == name
    with pytest.raises(ConfigError, match="denominator"):
        metrics.protocol("pytracking:some")


def test_paired_difference_is_narrower_than_its_parts() -> None:
    """A tracker that is 0.01 better in every sequence: the pairs say so exactly although sequences differ
    widely."""
    first = {str(i): i / 100 + 0.01 for i in range(100)}
    second = {str(i): i / 100 for i in range(100)} | {"only here": 0.0}
    interval = intervals.paired_difference(first, second)
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.01, 0.01, 0.01))
    with pytest.raises(ResultError, match="no values"):
        intervals.paired_difference(first, {})


def test_over_runs() -> None:
    """Mean 2 and sample deviation 1 of 1, 2, 3; one run has no spread."""
    assert intervals.over_runs([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert np.isnan(intervals.over_runs([1.0])[1])


def test_overall_speed() -> None:
    """100 frames at 100 per second and 100 at 25 take 1 + 4 seconds: 40 frames/s, not the mean of 62.5."""
    assert intervals.overall_speed({"a": 100, "b": 25, "c": float("nan")}, {"a": 100, "b": 100, "c": 9}) == 40
    assert np.isnan(intervals.overall_speed({}, {}))


def test_empty_boxes_around_a_frame_without_truth() -> None:
    """Under pytracking's `uav` rule an empty box repeats the box before it, but not in a frame whose truth is NaN: the
    empty box there is what the next empty box repeats, which is a miss."""
    truth = np.array([[10.0, 10, 20, 20]] * 4)
    truth[2] = np.nan
    boxes = np.array([[10.0, 10, 20, 20], [10, 10, 20, 20], [0, 0, 0, 0], [0, 0, 0, 0]])
    score = metrics.score_sequence(boxes, truth, metrics.protocol("pytracking", rule="uav"))
    np.testing.assert_array_equal(score.overlap, [1, 1, -1, 0])


@pytest.mark.parametrize(
    "protocol, figure", [(metrics.Protocol("a"), 0.2), (metrics.Protocol("b", norm_headline="area"), 0.25)]
)
def test_normalised_precision_is_quoted_at_a_fifth_or_as_the_area(protocol, figure):
    """Of a curve whose value at each threshold, 0 to 0.5, is the threshold."""
    assert protocol.norm_figure(np.linspace(0, 0.5, 51)) == pytest.approx(figure)
