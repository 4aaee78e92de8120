"""What is said of certainty beside what is true: coverage, calibration error, and their place in results and pages."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ebmtrack.errors import ResultError
from ebmtrack.evaluation import comparison, jobs, metrics, report, scoring
from ebmtrack.evaluation.evaluate import EvaluateOptions, ParamsFactory, evaluate
from ebmtrack.evaluation.reliability import LEVELS, Reliability, by_sequence, join, measure, row_of, rows_of_run
from ebmtrack.evaluation.results import SIDE_FILES, SURENESS, Result, read_result, write_result
from ebmtrack.tracking.step import TrackResult
from ebmtrack.tracking.uncertainty import BoxDensity
from ebmtrack.videos.opening import open_dataset
from tests.support.evaluation_stub import StubFactory, Walker, make_sequences


def answer(box_xyxy: np.ndarray, scale: float, lost: float | None = 0.1, offset: float = 0.0) -> TrackResult:
    """Return an answer whose intervals have a scale around a box."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    density = BoxDensity(box_xyxy, box_xyxy + offset, np.ones(4), np.full(4, scale), 3.0, 0.5)
    return TrackResult((x0, y0, x1 - x0, y1 - y0), 0.9, "normal", (0, 0, 9, 9), np.zeros((1, 1)), density, lost)


def rows(truth_xywh: np.ndarray, error: np.ndarray, lost: float | None = 0.1) -> np.ndarray:
    """Return rows of intervals of scale 2 whose middles are off by `error` (N - 1, 4)."""
    xyxy = np.concatenate([truth_xywh[:, :2], truth_xywh[:, :2] + truth_xywh[:, 2:]], axis=1)[1:]
    return rows_of_run([row_of(answer(box, 2.0, lost)) for box in xyxy + error])


def score(truth: np.ndarray, overlap: np.ndarray) -> metrics.SequenceScore:
    """Return a score with given overlaps."""
    zeros, there = np.zeros(len(truth)), np.ones(len(truth), bool)
    return metrics.SequenceScore(overlap, zeros, zeros, there, len(truth), metrics.protocol("ope"))


def test_intervals_of_the_right_distribution_hold_what_they_say() -> None:
    """Errors of Student's t distribution with the intervals' scale: coverage is the level, at every level."""
    rng, truth = np.random.default_rng(0), np.tile([50.0, 60, 40, 30], (4001, 1))
    said = measure(rows(truth, 2 * rng.standard_t(2, (4000, 4))), truth, score(truth, np.ones(4001)))
    assert [said.coverage(level) for level in LEVELS] == pytest.approx(LEVELS, abs=0.01)
    assert said.width(0.5) == pytest.approx(4 * 0.8165, abs=1e-3)
    assert said.figures()["frames"] == 4000


def test_lost_targets_and_frames_without_intervals_do_not_count() -> None:
    """Of frames 1 to 4 one is lost and one has no intervals; the lost one counts for the lost-probability alone."""
    truth = np.tile([50.0, 60, 40, 30], (5, 1))
    table = rows(truth, np.zeros((4, 4)))
    table[2, 1:] = np.nan
    said = measure(table, truth, score(truth, np.array([1, 1, 1, 0.1, 1])))
    assert said.distance.shape == (2, 4) and said.lost.tolist() == [False, False, True, False]
    assert not len(measure(table[:3], truth, score(truth, np.ones(5))).distance)  # of another video


def test_calibration() -> None:
    """Said in the right share of frames: no error, and a Brier score that no constant beats."""
    said = np.repeat([0.05, 0.35], 200)
    lost = np.concatenate([np.arange(200) < 10, np.arange(200) < 70])
    one = Reliability(np.zeros((0, 4)), np.zeros((0, 4)), said, lost)
    assert one.calibration_error == pytest.approx(0) and [b.frames for b in one.bins()] == [200, 200]
    assert one.brier[0] == pytest.approx((0.05 * 0.95 + 0.35 * 0.65) / 2) and one.brier[0] < one.brier[1]
    wrong = Reliability(one.distance, one.scale_xyxy, said, ~lost)
    assert wrong.calibration_error > 0.5 and wrong.brier[0] > wrong.brier[1]


def test_nothing_is_known_of_nothing() -> None:
    """Without a frame every figure is NaN, and a tracker that says nothing has no rows."""
    empty = join(())
    assert np.isnan([empty.coverage(0.9), empty.width(0.9), empty.calibration_error, *empty.brier]).all()
    assert empty.bins() == [] and rows_of_run([row_of(object())]).shape == (0, SURENESS)


def test_sequences_count_alike() -> None:
    """A long sequence that is right and a short one that is wrong."""
    parts = [Reliability(np.full((n, 4), d), np.ones((n, 4)), np.zeros(0), np.zeros(0)) for n, d in ((9, 0.1), (1, 99))]
    assert by_sequence(parts, 0.9) == 0.5 and join(parts).coverage(0.9) == 0.9


def test_bins_have_edges_of_their_own() -> None:
    """Every probability is in its bin, 1 in the last one, and the table's labels are the edges."""
    said = np.linspace(0, 1, 41)
    one = Reliability(np.zeros((0, 4)), np.zeros((0, 4)), said, said > 0.5)
    assert [b.low for b in one.bins()] == pytest.approx(np.arange(10) / 10)
    assert [b.high for b in one.bins()] == pytest.approx(np.arange(1, 11) / 10)
    assert all(b.low - 1e-9 <= b.said <= b.high for b in one.bins()) and sum(b.frames for b in one.bins()) == 41
    full = Reliability(one.distance, one.scale_xyxy, np.ones(5), np.ones(5, bool))
    tracker: Any = SimpleNamespace(label="t", reliability=[full])
    table = report.report_tables.lost(SimpleNamespace(trackers=[tracker]))  # type: ignore[arg-type]
    assert [row[0].text for row in table.rows] == ["t", "t, 90 to 100 %"]


def test_a_run_that_never_finds_the_target_has_lost_probabilities() -> None:
    """If intervals were asked for; else a tracker that says nothing of sides has no rows."""
    never: Any = SimpleNamespace(density=None, lost_probability=0.7)
    assert not len(rows_of_run([row_of(never)] * 4)) and rows_of_run([row_of(never)] * 4, asked=True).shape == (5, 19)
    truth = np.tile([50.0, 60, 40, 30], (5, 1))
    said = measure(rows_of_run([row_of(never)] * 4, asked=True), truth, score(truth, np.array([1, 0, 0, 0, 0])))
    assert said.is_known and said.lost.all() and len(said.said) == 4 and not len(said.distance)
    assert said.figures()["levels"] == {} and not join(()).is_known and np.isnan(by_sequence([said], 0.9))


def test_results_keep_the_rows(tmp_path: Path) -> None:
    """Written and read, NaN included."""
    truth = np.tile([50.0, 60, 40, 30], (3, 1))
    table = rows(truth, np.zeros((2, 4)), lost=None)
    write_result(tmp_path, "car", Result(truth, sureness=table))
    np.testing.assert_allclose(read_result(tmp_path, "car").sureness, table, rtol=1e-6)
    assert "_intervals" in SIDE_FILES
    (tmp_path / "car_intervals.txt").unlink()
    assert not len(read_result(tmp_path, "car").sureness)


@pytest.mark.parametrize(
    "column, value, message",
    [
        (0, 7.5, "line 3: a lost-probability"),
        (0, -0.1, "line 3: a lost-probability"),
        (5, 0.0, "line 3: a scale"),
        (8, -1.0, "line 3: a scale"),
        (6, np.inf, "line 3: "),
        (None, 0.0, "2 rows for 3 boxes"),
    ],
)
def test_impossible_rows_are_refused(tmp_path: Path, column: int | None, value: float, message: str) -> None:
    """File, line and what is wrong, in one line; a file of another length as well."""
    truth = np.tile([50.0, 60, 40, 30], (3, 1))
    table = rows(truth, np.zeros((2, 4)))
    if column is not None:
        table[2, column] = value
    write_result(tmp_path, "car", Result(truth, sureness=table[: 2 if column is None else 3]))
    with pytest.raises(ResultError, match=f"car_intervals.txt.*{message}") as caught:
        read_result(tmp_path, "car")
    assert "\n" not in str(caught.value)


def test_sequences_without_intervals_and_lost_ones(tmp_path: Path) -> None:
    """A target that is lost throughout counts for the lost-probability; a sequence without rows is told."""
    make_sequences(tmp_path / "data", 3)
    found = open_dataset("folder", tmp_path / "data")
    for name, kind in zip(found.names, ("found", "lost", "none")):
        truth = found.load(name).boxes_xywh
        boxes = truth + np.array([500.0, 0, 0, 0]) * (np.arange(len(truth)) > 0)[:, None] * (kind == "lost")
        said = rows(truth, np.zeros((len(truth) - 1, 4)), lost=0.8)
        write_result(
            tmp_path / "folder" / "sure_000", name, Result(boxes, sureness=said[: len(said) * (kind != "none")])
        )
    both = comparison.compare(found, {"sure": tmp_path / "folder" / "sure"})
    whole = join(both.trackers[0].reliability)
    assert len(whole.said) == 10 and whole.lost.mean() == 0.5 and len(whole.distance) == 5
    assert "sure has intervals of 2 of 3 sequences." in report.render(both)
    job = jobs.Job(found, tuple(jobs.Task("sure", 0, n) for n in found.names), StubFactory(), tmp_path, 0, 1, {})
    evaluation, stream = scoring.collect(job, metrics.protocol("ope"), {}), io.StringIO()
    scoring.print_table(evaluation, stream)
    assert "intervals of 2 of 3 sequences and runs, 5 frames" in stream.getvalue()
    assert "lost-probability, 10 frames, 50.0 % lost" in stream.getvalue()


def test_a_page_has_a_section_only_with_intervals(tmp_path: Path) -> None:
    """One tracker with intervals, one without: the section shows the one; without it there is no section."""
    make_sequences(tmp_path / "data", 2)
    found = open_dataset("folder", tmp_path / "data")
    for name in found.names:
        truth = found.load(name).boxes_xywh
        said = rows(truth, np.zeros((len(truth) - 1, 4)))
        write_result(tmp_path / "sure_000", name, Result(truth, sureness=said))
        write_result(tmp_path / "plain_000", name, Result(truth))
    both = comparison.compare(found, {"sure": tmp_path / "sure", "plain": tmp_path / "plain"})
    text = report.render(both)
    assert "<h2>Certainty</h2>" in text and "<h3>Intervals</h3>" in text
    assert [row[0].text for row in report.report_tables.coverage(both).rows] == ["sure"]
    assert report.report_tables.coverage(both).rows[0][1].text == "100.0"
    assert "Certainty" not in report.render(comparison.compare(found, {"plain": tmp_path / "plain"}))


class SureFactory(StubFactory):
    """Trackers that say how sure they are."""

    def __call__(self, params: str, device: str) -> Walker:
        """Return a walker whose answers have densities."""
        tracker = super().__call__(params, device)
        update = tracker.update

        def with_density(image: np.ndarray) -> Any:
            x, y, w, h = update(image).box_xywh
            return answer(np.array([x, y, x + w, y + h]), 2.0)

        tracker.update = with_density  # type: ignore[method-assign]
        return tracker


def test_eval_prints_and_returns_what_intervals_hold(tmp_path: Path) -> None:
    """The table has a line for coverage and one for the lost-probability, and JSON has the figures."""
    make_sequences(tmp_path / "data", 2)
    stream = io.StringIO()
    options = EvaluateOptions(out=tmp_path / "out", workers=0, device="cpu")
    found = evaluate(["stub"], "folder", tmp_path / "data", options, factory=SureFactory(), stream=stream)
    assert "hold the true side" in stream.getvalue() and "Brier" in stream.getvalue()
    trackers: Any = found.as_json()["trackers"]
    entry = trackers["stub"]["intervals"]
    assert set(entry["levels"]) == {"0.5", "0.8", "0.9", "0.95"} and entry["lost_probability"]["frames"] > 0


def test_intervals_are_off_by_default() -> None:
    """The option asks for samples where the set-up asks for none, and results without it are other results."""
    facts: list[Any] = [ParamsFactory(None, on).describe("dimp18_nce_plus") for on in (False, True)]
    assert [one["params"]["interval_samples"] for one in facts] == [0, 32]
