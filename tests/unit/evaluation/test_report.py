"""Comparisons, plots and the page, on results that are easy to judge by hand."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import charts, comparison, film, metrics, page, plots, report
from ebmtrack.evaluation.foreign import read_boxes
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.videos import sequence as base
from ebmtrack.videos.opening import open_dataset
from ebmtrack.videos.sequence import Frames, Sequence
from tests.support.evaluation_stub import make_sequences

MADE_BY = {"params": {"candidates": 10}, "weights": "abc", "seed": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of six frames; `good` is right in two runs, `bad <b>&` is lost from frame 2 on in one.

    Lost means 100 pixels away. Under `ope` frames 1 to 5 count, so `bad` is right in one of five frames.
    """
    root = tmp_path_factory.mktemp("place")
    make_sequences(root / "data", 3)
    found = open_dataset("folder", root / "data")
    for name in found.names:
        truth, times = found.load(name).boxes_xywh, np.full(6, 0.02)
        lost = truth + np.where(np.arange(6) >= 2, 100, 0)[:, None] * [1, 0, 0, 0]
        for run in (0, 1):
            write_result(
                root / "out" / "folder" / f"good_00{run}",
                name,
                Result(truth, times, made_by=MADE_BY, stages_s={"crop": 0.02, "search": 0.08}),
            )
        write_result(root / "out" / "folder" / "bad <b>&_000", name, Result(lost, times, made_by=MADE_BY))
    (root / "out" / "folder" / "bad <b>&_000" / "seq9.error").write_text("Traceback: <script>alert(1)</script>")
    rows = {"seq0": {"auc": 0.5, "op50": 0.5, "fps": 30.0}, "seq1": {"auc": 0.3, "op50": 0.2, "fps": 60.0}}
    entry = {"mean": {"auc": 0.4, "fps": 40.0}, "sequences": rows}
    (root / "peers.json").write_text(json.dumps({"trackers": {"elsewhere": entry}}))
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts of pages empty: drawing them takes most of a page's time."""
    monkeypatch.setattr(charts, "_inline", lambda figure, title: "<svg></svg>")


@pytest.fixture(scope="module")
def compared(place: Path) -> comparison.Comparison:
    """Good, bad, and figures from elsewhere."""
    found = open_dataset("folder", place / "data")
    folders = comparison.discover(place / "out", "folder")
    order = {name: folders[name] for name in ("good", "bad <b>&")}
    return comparison.compare(found, order, peers=place / "peers.json")


def test_figures(compared: comparison.Comparison) -> None:
    """Right: 20/21. Lost after one of five frames: OP 1/5, AUC 20/105, precision 1/5. Elsewhere: its plain mean."""
    good, bad, other = compared.trackers
    assert good.mean("auc") == pytest.approx(20 / 21) and len(good.summaries) == 2
    assert bad.mean("auc") == pytest.approx(20 / 105) and bad.mean("op75") == pytest.approx(1 / 5)
    assert bad.mean("precision_20") == bad.mean("norm_precision") == pytest.approx(1 / 5)
    assert good.mean("fps") == pytest.approx(50)
    assert other.mean("auc") == pytest.approx(0.4) and other.mean("fps") == 40 and np.isnan(other.mean("op75"))
    assert compared.missing(other) == ("seq2",) and compared.missing(good) == ()
    differences = [compared.difference(tracker) for tracker in (bad, other)]
    assert [d and d.value for d in differences] == pytest.approx([20 / 21 - 20 / 105, 20 / 21 - 0.4])


@pytest.mark.parametrize("name", ["trackingnet", "ope"])
def test_normalised_precision_is_the_same_figure_above_and_below(place: Path, name: str) -> None:
    """A box that is a bit more than 3 of 10 pixels off in x from the second of six frames on.

    From the threshold 0.31 on all frames are hits, for 20 of the 51 thresholds, and below it the free first one only:
    the area under `trackingnet` is (31 / 6 + 20) / 51, and precision at 0.2 without the first frame 0. The mean of
    sequences that are alike is each one's figure.
    """
    found = open_dataset("folder", place / "data")
    for sequence in found.names:
        truth = found.load(sequence).boxes_xywh
        off = truth + np.where(np.arange(6) > 0, 3.0000001, 0)[:, None] * [1, 0, 0, 0]
        write_result(place / "norm" / "folder" / "p_000", sequence, Result(off, made_by=MADE_BY))
    tracker = comparison.compare(found, {"p": place / "norm" / "folder" / "p"}, protocol=name).trackers[0]
    expected = (31 / 6 + 20) / 51 if name == "trackingnet" else 0.0
    assert tracker.mean("norm_precision") == pytest.approx(expected, abs=1e-12)
    assert list(tracker.values("norm_precision").values()) == pytest.approx([expected] * 3, abs=1e-12)


def curve(tracker: comparison.TrackerScores) -> tuple[np.ndarray, np.ndarray]:
    """The success curve of a tracker that has boxes."""
    found = tracker.curve("success")
    assert found is not None
    return found


def test_curves_are_means_over_sequences(compared: comparison.Comparison) -> None:
    """The success curve of a perfect tracker is 1 and then 0; figures alone have no curve."""
    xs, ys = curve(compared.trackers[0])
    np.testing.assert_allclose(xs, metrics.OVERLAP_THRESHOLDS, atol=1e-12)
    np.testing.assert_array_equal(ys, [1.0] * 20 + [0.0])
    assert compared.trackers[2].curve("success") is None
    assert [t.label for t in plots.rank_trackers(compared, "success")] == ["good", "bad <b>&"]


def test_plots(compared: comparison.Comparison, tmp_path: Path) -> None:
    """Three kinds in SVG with CSV: the same bytes every time, the legend's best first, labels as text."""
    written = plots.save_plots(compared, tmp_path / "a", ("svg",))
    assert [p.name for p in written] == [
        "success.csv", "success.svg", "precision.csv", "precision.svg", "norm_precision.csv", "norm_precision.svg",
    ]  # fmt: skip
    text = (tmp_path / "a" / "success.svg").read_text()
    assert text.index("good [95.2]") < text.index("bad &lt;b&gt;&amp; [19.0]")
    plots.save_plots(compared, tmp_path / "b", ("svg",), ("success",))
    assert (tmp_path / "b" / "success.svg").read_text() == text
    table = np.genfromtxt(tmp_path / "a" / "success.csv", delimiter=",", skip_header=1)
    np.testing.assert_allclose(table[:, 1], curve(compared.trackers[0])[1], atol=1e-15)
    with pytest.raises(ConfigError, match="unknown format 'gif'"):
        plots.save_plots(compared, tmp_path, ("gif",))
    with pytest.raises(ConfigError, match="unknown plot"):
        plots.rank_trackers(compared, "recall")


class Checker(HTMLParser):
    """Whether tags close in order, and what the page would load."""

    VOID = {"meta", "img", "br", "wbr"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Remember tags that need an end, and addresses."""
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        """A tag that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        """Each end fits the last start."""
        assert self.open.pop() == tag


def test_the_page(place: Path, tmp_path: Path) -> None:
    """Well-formed, self-contained, with every section; names and tracebacks cannot inject anything."""
    options = report.ReportOptions(
        out=place / "out", peers=place / "peers.json", params_names=["good", "bad <b>&"], pages=False
    )
    text = report.report("folder", place / "data", tmp_path / "page.html", options).read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert all(v.startswith(("#", "data:")) for v in checker.loads)
    assert not re.search(r"url\(|@import|https?:|xmlns", text)
    for heading in (
        "Scores",
        "Curves",
        "Sequences",
        "Worst sequences of good",
        "Speed",
        "Failures",
        "Provenance",
        "Words",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "<b>&amp;" not in text and "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert '<th scope="row">crop</th><td data-v="4.0"' in text  # 0.02 s over five frames
    assert "elsewhere is partial: no result for seq2." in text
    assert text == report.report("folder", place / "data", tmp_path / "again.html", options).read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_worst_sequences_show_the_failure(place: Path) -> None:
    """With the bad tracker first: frames 1 (still right), 2, 3 (middle) and 5 of the stretch that is lost."""
    found = open_dataset("folder", place / "data")
    only = comparison.compare(found, {"bad": place / "out" / "folder" / "bad <b>&"})
    assert film.failures(only.trackers[0].runs[0]["seq0"]) == [(2, 5)]
    text = report.render(only)
    shown = re.findall(r"<figcaption>frame (\d+), overlap ([\d.]+)<", text)
    assert shown[:4] == [("1", "1.00"), ("2", "0.00"), ("3", "0.00"), ("5", "0.00")]
    assert len(shown) == 12


@pytest.mark.usefixtures("undrawn")
def test_without_a_failure_the_worst_frame_is_shown(place: Path) -> None:
    """The good tracker's overlap is 1 throughout: of the frames that count (1 to 5) the first has the smallest."""
    found = open_dataset("folder", place / "data")
    text = report.render(comparison.compare(found, {"good": place / "out" / "folder" / "good"}))
    assert re.findall(r"<figcaption>(.*?)<", text) == ["frame 1, overlap 1.00"] * 3


@pytest.mark.parametrize("boxes, expected", [
    ([[100, 60, 40, 30], [110, 60, 40, 30]], (45, 30, 205, 120)),  # 90 high, centre (125, 75)
    ([[100, 60, 4, 3]], (62, 39, 142, 84)),  # at least a quarter, 80 x 45, about (102, 61.5)
    ([[0, 0, 4, 3]], (0, 0, 80, 45)), ([[318, 178, 40, 30]], (160, 90, 320, 180)),  # moved inside
    ([[0, 0, 4, 3], [300, 0, 4, 3]], (0, 0, 320, 180)), ([], (0, 0, 320, 180)), ([[-1e5, 0, 2e5, 9]], (0, 0, 320, 180)),
])  # fmt: skip
def test_windows_of_thumbnails(boxes: list, expected: tuple) -> None:
    """Of an image of 320 x 180: around the boxes, three times their size, with the image's shape and inside it."""
    left, top, right, bottom = film.window(320, 180, np.array(boxes, float).reshape(-1, 4))
    assert (right - left) / (bottom - top) == pytest.approx(16 / 9, rel=0.03)
    assert (left, top, right, bottom) == expected


@pytest.mark.usefixtures("undrawn")
def test_partial_results_are_marked_and_never_the_best(place: Path, tmp_path: Path, capsys: Any) -> None:
    """A tracker with one easy sequence does not win; a run that lacks a sequence is named."""
    found = open_dataset("folder", place / "data")
    shutil.copytree(place / "out" / "folder", tmp_path / "folder")
    for name in ("seq0", "seq1"):
        (tmp_path / "folder" / "bad <b>&_000" / f"{name}.txt").unlink()
    (tmp_path / "folder" / "good_001" / "seq2.txt").unlink()
    one_is_perfect = tmp_path / "folder" / "bad <b>&_000" / "seq2.txt"
    one_is_perfect.with_suffix(".json").unlink()
    one_is_perfect.write_bytes((place / "out" / "folder" / "good_000" / "seq2.txt").read_bytes())
    compared = comparison.compare(found, comparison.discover(tmp_path, "folder"))
    plots.save_plots(compared, tmp_path, ("svg",), ("success",))
    figure = (tmp_path / "success.svg").read_text()
    assert figure.index("good [95.2]") < figure.index("bad &lt;b&gt;&amp; (1 of 3) [95.2]")
    text = report.render(compared)
    assert "bad &lt;b&gt;&amp; is partial: no result for seq0, seq1." in text
    assert "good is partial: fewer than 2 runs of seq2." in text
    assert "bad &lt;b&gt;&amp; (1 of 3)" in text and "good (" not in text
    report.report("folder", place / "data", tmp_path / "page.html", out=tmp_path, pages=False)
    said = capsys.readouterr().err
    assert "bad <b>& is partial: no result for seq0, seq1." in said and "good is partial: fewer than 2 runs" in said
    assert 'class="best"' not in text.split("<h2>Curves")[0]


def test_a_changed_result_is_refused(place: Path, tmp_path: Path) -> None:
    """Boxes that do not fit their marker's checksum do not get into a report."""
    shutil.copytree(place / "out" / "folder" / "good_000", tmp_path / "good_000")
    path = tmp_path / "good_000" / "seq1.txt"
    path.write_text(path.read_text().replace("6", "7", 1))
    found = open_dataset("folder", place / "data")
    with pytest.raises(ResultError, match="seq1.txt: changed since it was written"):
        comparison.compare(found, {"good": tmp_path / "good"})


BAD_ROWS = {"a row of NaN": ("5,6,10,12", "nan,nan,nan,nan"), "a box too many": ("5,6,10,12\n", "5,6,10,12\n" * 2),
            "words": ("5,6,10,12", "5,6,ten,12")}  # fmt: skip


def foreign(place: Path, folder: Path, runs: int = 1) -> Path:
    """Another tracker's results without a fault, as pytracking lays them out; the folder's name without the run."""
    for run in range(runs):
        (folder / f"theirs_{run:03d}").mkdir(parents=True)
        for name in ("seq0", "seq1", "seq2"):
            truth = place / "data" / name / "groundtruth_rect.txt"
            shutil.copy(truth, folder / f"theirs_{run:03d}" / f"{name}.txt")
    return folder / "theirs"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("fault", BAD_ROWS)
@pytest.mark.parametrize("runs", [1, 2])
def test_a_bad_file_of_another_tracker_is_left_out(
    fault: str, runs: int, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The page is made without that sequence of that tracker, and says why, as does the terminal."""
    theirs = foreign(place, tmp_path, runs)
    bad = tmp_path / f"theirs_00{runs - 1}" / "seq1.txt"
    bad.write_text(bad.read_text().replace(*BAD_ROWS[fault], 1))
    options = report.ReportOptions(out=place / "out", params_names=["good"], results={"theirs": theirs}, pages=False)
    text = report.report("folder", place / "data", tmp_path / "page.html", options).read_text()
    reason = f"theirs is partial: seq1 is left out ({bad}"
    assert reason in text and reason in capsys.readouterr().err
    assert "no result for seq1" not in text and "fewer than" not in text
    found = open_dataset("folder", place / "data")
    compared = comparison.compare(found, {"theirs": theirs})
    (tracker,) = compared.trackers
    assert compared.missing(tracker) == ("seq1",) and set(tracker.figures) == {"seq0", "seq2"}
    assert [set(run) for run in tracker.runs] == [{"seq0", "seq2"}] * runs
    assert tracker.mean("auc") == pytest.approx(20 / 21)


def test_another_tracker_of_which_nothing_is_left(place: Path, tmp_path: Path) -> None:
    """Results that are all bad are told with a reason, not shown as an empty row."""
    theirs = foreign(place, tmp_path)
    found = open_dataset("folder", place / "data")
    (tmp_path / "theirs_000" / "seq0.txt").write_text("1,2,3\n")
    with pytest.raises(ResultError, match=r"no results for any of the 1 sequences; .*seq0\.txt, line 1: 3 numbers"):
        comparison.compare(found, {"theirs": theirs}, sequences=["seq0"])


def test_a_bad_file_of_ours_is_an_error(place: Path, tmp_path: Path) -> None:
    """It tells of damage, with file and line; without its marker it is not finished, and missing."""
    shutil.copytree(place / "out" / "folder" / "good_000", tmp_path / "good_000")
    (tmp_path / "good_000" / "seq1.txt").write_text("1\t2\t3\t4\n1\t2\tx\t4\n")
    found = open_dataset("folder", place / "data")
    with pytest.raises(ResultError, match=r"good_000/seq1\.txt, line 2: 'x' is not a number"):
        comparison.compare(found, {"ours": tmp_path / "good"})
    (tmp_path / "good_000" / "seq1.json").unlink()
    compared = comparison.compare(found, {"ours": tmp_path / "good"})
    assert compared.missing(compared.trackers[0]) == ("seq1",)


@pytest.mark.usefixtures("undrawn")
def test_others_alone(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Other people's results or figures need none of ours beside them, which is said; it is an error where ours are
    asked for by name, or where there is nothing to show."""
    where = ["report", "--dataset", "folder", "--root", str(place / "data"), "--results", str(tmp_path / "none")]
    where += ["--page", str(tmp_path / "page.html")]
    others, peers = ["--others", "theirs", str(foreign(place, tmp_path))], ["--peers", str(place / "peers.json")]
    for wishes, first in ((others, "theirs"), (peers, "elsewhere"), ([*others, *peers], "theirs")):
        assert cli.main([*where, *wishes]) == 0
        assert f"<h1>{first} on the folder" in (tmp_path / "page.html").read_text()
        assert "the page shows the others alone" in capsys.readouterr().err
    for wishes in ([], [*others, "--params", "good"]):
        assert cli.main([*where, *wishes]) == 2
        error = capsys.readouterr().err
        assert "no results here; run `ebmtrack eval` first, or give --results FOLDER if eval had --out FOLDER" in error
    for verb in ("export-results --layout got10k", "study intervals"):
        assert cli.main([*verb.split(), *where[1:7]]) == 2
        assert "or give --results FOLDER if eval had --out FOLDER" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("always")
def test_peers_without_the_sequences_are_said_to_be_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    entries = {"ECO": {"sequences": {"zzz": {"auc": 0.7}}}, "near": {"sequences": {"seq0": {"auc": 0.5}}}}
    (tmp_path / "peers.json").write_text(json.dumps({"trackers": entries}))
    where = ["report", "--dataset", "folder", "--root", str(place / "data"), "--results", str(tmp_path / "none")]
    where += ["--page", str(tmp_path / "page.html"), "--peers", str(tmp_path / "peers.json"), "--no-pages"]
    assert cli.main(where) == 0
    error = capsys.readouterr().err
    assert "peers.json: ECO is left out" in error and "near is left out" not in error


def test_peers_of_another_protocol_are_said_to_be(place: Path, tmp_path: Path, undrawn: None, capsys: Any) -> None:
    where = ["report", "--dataset", "folder", "--root", str(place / "data"), "--results", str(place / "out")]
    where += ["--page", str(tmp_path / "page.html"), "--no-pages", "--peers", str(tmp_path / "p.json")]
    for said, is_noted in (("otb", True), ("ope", False), (None, False)):
        about = {} if said is None else {"protocol": said}
        (tmp_path / "p.json").write_text(
            json.dumps({**about, "trackers": {"x": {"sequences": {"seq0": {"auc": 0.5}}}}})
        )
        assert cli.main(where) == 0
        note = "x: its figures are of the protocol otb, not ope: they cannot be compared."
        assert (note in capsys.readouterr().err) == (note in (tmp_path / "page.html").read_text()) == is_noted


def test_errors_of_a_folder_with_any_name_are_found(tmp_path: Path) -> None:
    for name in ("a[1]_000", "a1_000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seq.error").write_text(name)
    assert comparison._errors(tmp_path / "a[1]") == {"seq (a[1]_000)": "a[1]_000"}


def test_peers_and_others_of_one_name_are_both_shown(place: Path, tmp_path: Path, undrawn: None) -> None:
    peers, page = place / "peers.json", tmp_path / "page.html"
    where = ["report", "--dataset", "folder", "--root", str(place / "data"), "--results", str(tmp_path / "none")]
    where += ["--page", str(page), "--no-pages", "--peers", str(peers)]
    assert cli.main([*where, "--others", "elsewhere", str(foreign(place, tmp_path))]) == 0
    text = page.read_text()
    assert "elsewhere (peers.json)" in text and text.count("elsewhere") > text.count("elsewhere (peers.json)")
    twice = {"x": {"sequences": {"seq0": {"auc": 0.5}}}, "x (p.json)": {"sequences": {"seq0": {"auc": 0.4}}}}
    (tmp_path / "p.json").write_text(json.dumps({"trackers": twice}))
    with pytest.raises(ConfigError, match=r"two trackers are called x \(p.json\)"):
        found = open_dataset("folder", place / "data")
        comparison.compare(found, {"x": place / "out" / "folder" / "good"}, peers=tmp_path / "p.json")


def test_others_of_our_names_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Their results would take the place of ours, or of each other's."""
    where = ["report", "--dataset", "folder", "--root", str(place / "data"), "--results", str(place / "out")]
    where += ["--page", str(tmp_path / "page.html"), "--others"]
    theirs = str(foreign(place, tmp_path))
    assert cli.main([*where, "good", theirs]) == 2
    assert "good is a set-up in " in capsys.readouterr().err
    for again in ("--others", "a"), ("a",):
        assert cli.main([*where, "a", str(tmp_path), *again, str(place)]) == 2
        assert "--others names a twice" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_results_of_another_sequence_of_that_name(place: Path, tmp_path: Path) -> None:
    """Ours begin with the box that the tracker was given; a folder with another first box is refused."""
    root = make_sequences(tmp_path, 1)
    path = root / "seq0" / "groundtruth_rect.txt"
    path.write_text(path.read_text().replace("5,6,", "5.5,6,", 1))
    with pytest.raises(ResultError, match="seq0.txt: made from another sequence"):
        comparison.compare(open_dataset("folder", root), {"good": place / "out" / "folder" / "good"})


def test_wishes_that_cannot_be_met(place: Path, tmp_path: Path) -> None:
    """Parameters without results, a negative number of sequences and a page that cannot be written are told."""
    for wish, error, what in (
        ({"params_names": ["none"]}, ResultError, "no results of 'none'; there are those of bad <b>&, good"),
        ({"worst": -3}, ConfigError, "worst -3"),
        ({}, ConfigError, "page.html: cannot be written"),
    ):
        page_path = tmp_path / "page.html" if wish else place / "peers.json" / "page.html"
        with pytest.raises(error, match=what):
            report.report("folder", place / "data", page_path, report.ReportOptions(out=place / "out", **wish))


@pytest.mark.usefixtures("undrawn")
def test_got10k_ranks_by_average_overlap(place: Path, tmp_path: Path) -> None:
    """Under got10k the figures are AO and SR over pooled frames. A tracker that is right in the five frames of a long
    sequence and lost in the two of a short one has AO 5/7, in the table as in its interval's middle."""
    root = make_sequences(tmp_path / "long", 1, frames=6)
    shutil.move(make_sequences(tmp_path / "short", 2, frames=3) / "seq1", root / "seq1")
    found = open_dataset("folder", root)
    for name, shift in (("seq0", 0), ("seq1", 100)):
        truth = found.load(name).boxes_xywh
        boxes = truth + (np.arange(len(truth)) > 0)[:, None] * [shift, 0, 0, 0]
        write_result(tmp_path / "ours_000", name, Result(boxes, made_by=MADE_BY))
    compared = comparison.compare(found, {"ours": tmp_path / "ours"}, protocol="got10k")
    assert compared.trackers[0].mean("average_overlap") == pytest.approx(5 / 7)
    interval = compared.interval(compared.trackers[0])
    assert interval is not None and interval.value == pytest.approx(5 / 7)
    assert compared.mean_over(compared.trackers[0], ["seq0", "seq1", "seq9"]) == pytest.approx(5 / 7)
    text = report.render(compared)
    for label in ("AO", "SR 0.50", "SR 0.75", "AO, 95 % interval"):
        assert f">{label}</button>" in text
    assert '<td data-v="0.714285' in text and "Precision 20 px" not in text
    assert [t.label for t in plots.rank_trackers(compared, "success")] == ["ours"]
    assert plots.figure_of(compared, "success") == "average_overlap"


@pytest.mark.usefixtures("undrawn")
def test_figures_without_auc(place: Path, tmp_path: Path) -> None:
    """A file of figures may lack the one by which trackers are ranked."""
    document = {"trackers": {"a": {"sequences": {"seq0": {"op50": 0.5}}}}}
    (tmp_path / "peers.json").write_text(json.dumps(document))
    found = open_dataset("folder", place / "data")
    (tmp_path / "attributes.csv").write_text("sequence,FM\nseq0,1\n")
    with_one = base.with_attributes(found, tmp_path / "attributes.csv")
    text = report.render(comparison.compare(with_one, {}, peers=tmp_path / "peers.json"))
    assert '<th scope="row">FM</th><td>–</td>' in text


def test_plots_and_exports_from_the_command_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`report --plots` writes the curves for a paper, `export-results` what others read, with fractions or without."""
    where = ["--dataset", "folder", "--root", str(place / "data"), "--results", str(place / "out")]
    page_and_plots = ["--page", str(tmp_path / "page.html"), "--plots", str(tmp_path / "plots")]
    assert cli.main(["report", *where, "--params", "good", "--sequences", "seq1", *page_and_plots]) == 0
    assert "1 sequence of" in (tmp_path / "page.html").read_text()
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert len(names) == 12 + 9 and {"success.pdf", "scores.csv", "sequences.json", "speed.tex"} <= names
    truth = open_dataset("folder", place / "data").load("seq1").boxes_xywh
    for layout, file in (("pytracking", "ebmtrack/good_001/seq1.txt"), ("got10k", "good/seq1/seq1_002.txt"),
                         ("got10k-otb", "good/seq1.txt")):  # fmt: skip
        out = ["--layout", layout, "--out", str(tmp_path / layout), "--params", "good"]
        assert cli.main(["export-results", *where, *out]) == 0
        np.testing.assert_array_equal(read_boxes(tmp_path / layout / file), truth)
    assert f"3 files of boxes are in {tmp_path / 'got10k-otb'}" in capsys.readouterr().out
    assert cli.main(["export-results", *where, *out[:2], "--out", str(tmp_path / "page.html"), "--integers"]) == 2
    assert "page.html: cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_provenance_of_figures(place: Path, tmp_path: Path) -> None:
    """Texts of the file of figures, such as their protocol, stand on the page once for all its trackers."""
    rows = {"sequences": {"seq0": {"auc": 0.5}}}
    document = {"protocol": "one <pass>", "trackers": {"a": rows, "b": rows}}
    (tmp_path / "peers.json").write_text(json.dumps(document))
    found = open_dataset("folder", place / "data")
    text = report.render(comparison.compare(found, {}, peers=tmp_path / "peers.json"))
    assert "<h3>a, b</h3><dl><dt>figures from</dt><dd>peers.json</dd><dt>protocol</dt><dd>one &lt;pass&gt;</dd>" in text


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_images(place: Path, tmp_path: Path) -> None:
    """Results outlive the data set's frames: the page is made and says what it lacks."""
    root = make_sequences(tmp_path / "data", 3)
    for name in ("seq0", "seq1", "seq2"):
        for frame in (root / name / "img").iterdir():
            frame.write_bytes(b"")
    found = open_dataset("folder", root)
    only = comparison.compare(found, {"bad": place / "out" / "folder" / "bad <b>&"})
    assert "No thumbnails" in report.render(only)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"trackers": {"a": {"sequences": {"b": {"auc": 1' + "0" * 400 + "}}}}}",
        '{"trackers": 3}',
        '{"trackers": {"a": {"sequences": {"b": 1}}}}',
    ],
)
def test_damaged_peers(tmp_path: Path, text: str) -> None:
    """Anything but the documented form is a ResultError with the file's name."""
    (tmp_path / "peers.json").write_text(text)
    with pytest.raises(ResultError, match=r"peers\.json"):
        comparison.read_peers(tmp_path / "peers.json")


def test_nothing_to_compare(place: Path, tmp_path: Path) -> None:
    """No folder, an empty folder, and results of other sequences are told apart."""
    found = open_dataset("folder", place / "data")
    with pytest.raises(ConfigError, match="nothing to compare"):
        comparison.compare(found, {})
    with pytest.raises(ResultError, match="no results here"):
        comparison.discover(tmp_path, "folder")
    (tmp_path / "other.txt").write_text("1,2,3,4\n")
    with pytest.raises(ResultError, match="no results for any of the 3 sequences"):
        comparison.compare(found, {"x": tmp_path})


def test_attributes() -> None:
    """Sequences are listed under each of their attributes."""
    boxes, frames = np.ones((2, 4)), Frames(Path("nowhere"))
    sequences = {
        name: Sequence(name, "uav123", boxes, frames, attributes=attributes)
        for name, attributes in (("a", ("OV", "SV")), ("b", ("SV",)), ("c", ()))
    }
    nowhere: Any = None
    table = comparison.Comparison(nowhere, metrics.PROTOCOLS["ope"], sequences, []).attributes()
    assert table == {"OV": ("a",), "SV": ("a", "b")}


def strokes(svg: str, color: int) -> list[str]:
    """The paths of a line, by its colour."""
    return re.findall(rf'<path d="([^"]*)"\s+(?:clip-path="[^"]*"\s+)?style="[^"]*stroke: var\(--c{color}\)', svg)


def moves(path: str) -> str:
    """The letters of a path's commands."""
    return re.sub(r"[^A-Za-z]", "", path)


def test_lines_have_gaps() -> None:
    """A frame that is not judged is no part of the line; the first line of a wide chart stands out."""
    lines = [charts.Line(name, i, np.arange(5.0), np.array([0, 1, np.nan, 1, 0])) for i, name in enumerate("ab")]
    svg = charts.overlaps(lines, 5, "walk")
    assert [moves(path) for color in (0, 1) for path in strokes(svg, color)] == ["MLML"] * 2
    assert re.search(r"--c1\); stroke-opacity: 0.7|--c1\)[^\"]*stroke-width: 1.1", svg)
    assert 'aria-label="walk"' in svg


def test_a_lone_value_is_seen() -> None:
    """A value between two gaps, or alone at an end, has a stroke of its own."""
    line = charts.Line("a", 0, np.arange(5.0), np.array([0.5, np.nan, 0.5, np.nan, 0.5]))
    assert "".join(moves(path) for path in strokes(charts.overlaps([line], 5, "walk"), 0)).count("ML") == 3


def test_charts_take_the_colours_of_the_page() -> None:
    """No colour of matplotlib is left where the page has a variable, no id, no address; equal input, equal text."""
    lines = [charts.Line(f"t{i}", i, np.linspace(0, 1, 21), np.linspace(1, 0, 21)) for i in range(9)]
    svg = charts.curves(lines, "x < 1", "y")
    assert svg == charts.curves(lines, "x < 1", "y") and "x &lt; 1" in svg
    assert not re.search(r"#[0-9a-f]{6}|\sid=|xmlns|https?:|font-family", svg)
    assert all(strokes(svg, color) for color in range(8)) and len(strokes(svg, 0)) == 2
    assert "stroke-dasharray" in svg  # the ninth has the colour of the first, dashed
    spokes = charts.radar(["IV", "SV", "OCC"], [charts.Line("a", 0, np.arange(3), np.array([0.1, 0.5, 0.9]))], "r")
    assert moves(strokes(spokes, 0)[0]) == "MLLL" and ">OCC<" in spokes


@pytest.mark.parametrize("count", [200, 1000, 997, 12345])
@pytest.mark.parametrize("step", [2, 3, 10, 30])
def test_a_line_through_regular_gaps(count: int, step: int) -> None:
    """Where every tenth frame is annotated, the line joins the annotated frames, at their places: there x and y agree.
    A longer stretch without annotation remains a gap."""
    ys = np.full(count, np.nan)
    ys[::step] = np.arange(count)[::step] / count
    xs, thinned = charts.thin(ys)
    assert len(xs) <= 300 and np.isfinite(thinned).all()
    np.testing.assert_allclose(thinned, xs / count, atol=1e-12)
    assert xs[0] < count / len(xs) and xs[-1] >= count - 2 * count / len(xs)
    ys[count // 3 : 2 * count // 3] = np.nan
    xs, thinned = charts.thin(ys)
    (path,) = strokes(charts.overlaps([charts.Line("a", 0, xs, thinned)], count, "walk"), 0)
    assert moves(path).replace("L", "") == "MM"


def test_frames_without_the_target_do_not_empty_the_line() -> None:
    """With every ninth of 3000 frames not judged, each stretch of ten has the mean of its others."""
    ys = np.full(3000, 0.7)
    ys[::9] = np.nan
    np.testing.assert_allclose(charts.thin(ys)[1], np.full(300, 0.7))


def test_a_legend_of_many_stands_beside_the_plot(compared: comparison.Comparison, tmp_path: Path) -> None:
    """Two trackers fit into the plot of 3.5 inches, five do not: that picture is wider."""
    plots.save_plots(compared, tmp_path / "few", ("svg",), ("success",))
    five = dataclasses.replace(compared, trackers=[compared.trackers[0]] * 5)
    plots.save_plots(five, tmp_path / "many", ("svg",), ("success",))
    texts = [(tmp_path / n / "success.svg").read_text() for n in ("few", "many")]
    widths = [re.findall(r'width="([\d.]+)pt"', text)[0] for text in texts]
    assert [float(width) for width in widths] == pytest.approx([3.5 * 72, 5.2 * 72])


@pytest.mark.parametrize("count", [0, 1, 300, 301, 2500])
def test_thinning_keeps_the_mean(count: int) -> None:
    """At most 300 points, between the first and the last frame, with nearly the mean of all."""
    ys = np.random.default_rng(0).uniform(size=count)
    xs, thinned = charts.thin(ys)
    assert len(xs) == len(thinned) == min(count, 300)
    if count:
        assert xs[0] >= 0 and xs[-1] <= count - 1
        assert thinned.mean() == pytest.approx(ys.mean(), abs=0.01)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("count", [3, 9])
def test_results_of_another_length_are_told_and_shown(
    count: int, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Under `pytracking` a result that is too short is padded and one that is too long is cut: the page, its pictures
    and the terminal say so, whichever tracker is the first, and the page is made."""
    theirs = foreign(place, tmp_path)
    for name in ("seq0", "seq1"):
        path = tmp_path / "theirs_000" / f"{name}.txt"
        rows = path.read_text().splitlines()
        path.write_text("\n".join((rows * 2)[:count]) + "\n")
    told = f"theirs: the number of boxes does not fit: seq0 ({count} for 6 frames), seq1 ({count} for 6 frames); "
    for ours in ("good", "none"):
        options = report.ReportOptions(
            out=place / "out" if ours == "good" else tmp_path / "none",
            params_names=["good"] if ours == "good" else [],
            results={"theirs": theirs},
            protocol="pytracking",
        )
        text = report.report("folder", place / "data", tmp_path / "page.html", options).read_text()
        assert told in text and told in capsys.readouterr().err
        pages = [path.read_text() for path in sorted((tmp_path / "page_sequences").iterdir())]
        assert len(pages) == 3 and all('<rect class="box truth"' in one for one in pages)
    found = open_dataset("folder", place / "data")
    compared = comparison.compare(found, {"theirs": theirs}, protocol="pytracking")
    shots = compared.shots("seq0", [2, 5], 320)
    labels = [[rectangle.label for rectangle in shot.rectangles] for shot in shots]
    assert labels == [["theirs", "annotation"], ["annotation"] if count == 3 else ["theirs", "annotation"]]


def test_pages_of_sequences(place: Path, tmp_path: Path) -> None:
    """Each is well-formed, links back, names the failure's frames and shows every tracker's box in its colour."""
    options = report.ReportOptions(out=place / "out", params_names=["bad <b>&", "good"])
    text = report.report("folder", place / "data", tmp_path / "a page.html", options).read_text()
    folder = tmp_path / "a page_sequences"
    assert sorted(path.name for path in folder.iterdir()) == [f"00{i}-seq{i}.html" for i in range(3)]
    assert '<a href="a%20page_sequences/001-seq1.html">seq1</a>' in text
    one = (folder / "001-seq1.html").read_text()
    checker = Checker()
    checker.feed(one)
    assert not checker.open and "../a%20page.html" in checker.loads
    assert "<h2>1 failure of bad &lt;b&gt;&amp;</h2>" in one and "<h3>Frames 2 to 5</h3>" in one
    assert re.findall(r"<figcaption>frame (\d+)", one) == ["1", "2", "3", "5"]
    second = one.split("</figure>")[1]
    boxes = re.findall(r'class="box (\w+)" x="([\d.]+)"', second)
    assert boxes == [("c1", "7.0"), ("c0", "107.0"), ("truth", "7.0")]


@pytest.mark.usefixtures("undrawn")
def test_the_first_screen(place: Path, compared: comparison.Comparison) -> None:
    """The headline figures come before everything else; notes are folded into one line."""
    text = report.render(compared)
    body = text[text.index("<body>") :]
    assert body.index("<b>AUC 95.2</b>") < body.index("<details") < body.index("<table")
    assert body.count('<details class="warn">') == 1
    assert "<summary>elsewhere is partial: no result for seq2.</summary>" in body
    assert '<a href="#s0">Scores</a>' in body and page.breakable("a_<b>") == "a_<wbr>&lt;b&gt;"
    assert report._summary(["one", "two"]) == "2 notes: one" and report._summary(["word " * 40]).endswith("word …")


def test_attributes_have_curves_and_a_radar(place: Path, tmp_path: Path) -> None:
    """Three attributes make a radar; each has a success curve, and the abbreviations are explained."""
    (tmp_path / "attributes.csv").write_text("sequence,FM,OCC,mine\nseq0,1,0,1\nseq1,1,1,0\n")
    found = base.with_attributes(open_dataset("folder", place / "data"), tmp_path / "attributes.csv")
    compared = comparison.compare(found, {"bad": place / "out" / "folder" / "bad <b>&"})
    text = report.render(compared)
    assert 'aria-label="AUC by attribute"' in text and "<h3>FM <small>fast motion</small></h3>" in text
    assert "<dt>OCC</dt><dd>occlusion</dd>" in text and "<h3>mine</h3>" in text
    (bad,) = compared.trackers
    np.testing.assert_allclose(curve(bad.restrict_to(["seq0"]))[1], curve(bad)[1], atol=1e-15)


@pytest.mark.usefixtures("undrawn")
def test_shared_cores_are_noted(place: Path, tmp_path: Path) -> None:
    """Frames/s that were measured beside other workers are called so."""
    found = open_dataset("folder", place / "data")
    for name in found.names:
        boxes = found.load(name).boxes_xywh
        write_result(tmp_path / "p_000", name, Result(boxes, np.full(6, 0.02), workers=4, stages_s={"crop": 0.1}))
    compared = comparison.compare(found, {"p": tmp_path / "p"})
    assert compared.trackers[0].stages_s == {"crop": pytest.approx(0.3)}
    assert "cores that several workers shared (p: 4 workers)" in report.render(compared)
    assert "shared" not in report.render(comparison.compare(found, {"good": place / "out" / "folder" / "good"}))
