"""Fits of intervals and lost-probabilities: known coefficients come back, and sequences count alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.errors import ResultError
from ebmtrack.evaluation.reliability import LEVELS, by_sequence, join
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.studies.intervals import Frames, calibrate, fit, fit_logistic, fit_scale, judge_fit, read_frames
from ebmtrack.videos.opening import open_dataset
from tests.support.evaluation_stub import make_sequences
from tests.unit.evaluation.test_reliability import rows

SCALE, LOST = np.array([1.0, 1.2, -0.05, -0.7]), np.array([1.0, -6.0])


def frames(name: str, number: int, seed: int) -> Frames:
    """Return frames whose errors and losses follow SCALE and LOST."""
    rng = np.random.default_rng(seed)
    features = np.stack([rng.normal(-3, 0.3, (number, 4)), rng.normal(10, 4, (number, 4))], axis=2)
    scores = rng.uniform(0, 1, number)
    features = np.concatenate([features, np.tile(scores[:, None, None], (1, 4, 1))], axis=2)
    errors = np.exp(SCALE[0] + features @ SCALE[1:]) * rng.standard_t(2, (number, 4))
    lost = rng.uniform(size=number) < 1 / (1 + np.exp(-LOST[0] - LOST[1] * scores))
    return Frames(name, errors, features, np.full((number, 2), 50.0), scores, lost)


def test_known_coefficients_come_back() -> None:
    """Of many frames, up to chance; and the fit is where the likelihood's gradient vanishes."""
    scale, lost = fit([frames("one_1", 20_000, 0)])
    assert scale == pytest.approx(SCALE, abs=0.1) and scale[2] == pytest.approx(SCALE[2], abs=0.005)
    assert lost == pytest.approx(LOST, abs=0.5)


def test_a_feature_that_does_not_vary_has_no_weight() -> None:
    """Nothing is divided by zero, and outcomes of one kind alone leave finite numbers."""
    errors = np.random.default_rng(0).standard_t(2, 5000)
    scale = fit_scale(errors, np.ones((5000, 1)), np.ones(5000))
    assert np.isfinite(scale).all() and scale.sum() == pytest.approx(0, abs=0.1)
    assert np.isfinite(fit_logistic(np.linspace(0, 1, 50), np.zeros(50), np.ones(50))).all()


def test_sequences_count_alike() -> None:
    """The same frames twice, as of two runs, change nothing; a short sequence weighs as much as a long one."""
    short, long = frames("a_1", 50, 1), frames("b_1", 400, 2)
    once, twice = fit([short, long]), fit([short, long, short, long, long])
    for a, b in zip(once, twice):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)
    wide = dataclasses.replace(short, errors=10 * short.errors)
    assert fit([wide, long])[0][0] > fit([short, long])[0][0]
    kept = dataclasses.replace(short, errors=short.errors[:25], features=short.features[:25])
    often_lost = dataclasses.replace(kept, scores=np.tile(short.scores, 10), lost=np.tile(short.lost, 10))
    for a, b in zip(fit([kept, long]), fit([often_lost, long])):
        assert a == pytest.approx(b, rel=1e-6)  # fewer errors than scores: the sequence weighs as much as before


def lost_throughout(name: str, seed: int) -> Frames:
    """Return frames of a sequence whose target is lost in each of them."""
    part = frames(name, 60, seed)
    none = {name: getattr(part, name)[:0] for name in ("errors", "features", "size_wh")}
    return dataclasses.replace(part, **none, lost=np.ones(60, bool))


def test_sequences_that_are_lost_throughout_count() -> None:
    """They count for the lost-probability and change nothing of the intervals; alone they are too few."""
    parts = [frames(f"ab{'cd'[k % 2]}_{k}", 60, k) for k in range(12)]
    lost = [lost_throughout(f"z_{k}", 50 + k) for k in range(6)]
    found, without = calibrate([*parts, *lost]), calibrate(parts)
    assert found.interval_scale == without.interval_scale
    assert np.dot(found.lost_logit, (1, 0.5)) > np.dot(without.lost_logit, (1, 0.5))  # at a middling score
    whole = join(found.held_out)
    assert len(found.held_out) == 18 and len(whole.said) == 18 * 60 and whole.lost.sum() >= 6 * 60
    with pytest.raises(ResultError, match="11 sequences"):
        calibrate([*parts[1:], *lost])
    with pytest.raises(ResultError, match="one kind"):
        calibrate([*(dataclasses.replace(part, sequence=f"a_{k}") for k, part in enumerate(parts)), *lost], True)


@pytest.mark.parametrize("by_source", [False, True])
def test_held_out_coverage(by_source: bool) -> None:
    """Frames that follow the model are in the intervals as often as these say, on sequences that were held out."""
    parts = [frames(f"{'abcd'[k % 4]}_{k}", 150, k) for k in range(24)]
    found = calibrate(parts, by_source)
    shares = [by_sequence(found.held_out, level) for level in LEVELS]
    assert shares == pytest.approx(LEVELS, abs=0.03) and len(found.held_out) == 24
    assert join(found.held_out).calibration_error < 0.03
    assert f"interval_scale={found.interval_scale}" in str(found) and "Brier" in str(found)
    whole = join(judge_fit(part, np.array(found.interval_scale), np.array(found.lost_logit)) for part in parts)
    assert whole.coverage(0.9) == pytest.approx(0.9, abs=0.02)


def test_too_few_sequences_are_refused() -> None:
    """Eleven sequences, or twelve of one kind that would all be held out together."""
    with pytest.raises(ResultError, match="11 sequences"):
        calibrate([frames(f"a_{k}", 9, k) for k in range(11)])
    with pytest.raises(ResultError, match="one kind"):
        calibrate([frames(f"a_{k}", 9, k) for k in range(12)], by_source=True)


def test_from_stored_results(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Results of two runs over twelve sequences give coefficients on the command line; without intervals an error."""
    make_sequences(tmp_path / "data", 12)
    found, rng = open_dataset("folder", tmp_path / "data"), np.random.default_rng(0)
    for name in found.names:
        truth = found.load(name).boxes_xywh
        for run in (0, 1):
            boxes = truth + np.array([1, 0, 0, 0]) * (np.arange(len(truth)) > 0)[:, None]
            said = rows(truth, rng.normal(0, 1, (len(truth) - 1, 4)))
            result = Result(boxes, scores=np.full(len(truth), 0.8), sureness=said)
            write_result(tmp_path / "out" / "folder" / f"mine_00{run}", name, result)
            write_result(tmp_path / "out" / "folder" / f"plain_00{run}", name, Result(truth))
    parts = read_frames("folder", tmp_path / "data", tmp_path / "out" / "folder" / "mine")
    assert len(parts) == 24 and parts[0].errors.shape == (5, 4)
    assert parts[0].errors[:, [0, 2]] == pytest.approx(-1 / 10) and (parts[0].errors[:, [1, 3]] == 0).all()
    options = ["study", "intervals", "--dataset", "folder", "--root", str(tmp_path / "data")]
    options += ["--results", str(tmp_path / "out"), "--params"]
    assert cli.main([*options, "mine"]) == 0
    assert "interval_scale=(" in capsys.readouterr().out
    assert cli.main([*options, "plain"]) != 0
    assert "eval --intervals" in capsys.readouterr().err
