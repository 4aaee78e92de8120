"""Result files: round trips, other toolkits' layouts and spellings, and damaged files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.evaluation import results
from ebmtrack.evaluation.export import export_stored
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.videos import spelling
from ebmtrack.videos.opening import open_dataset
from ebmtrack.videos.sequence import DataSet

BOXES = np.array([[1.25, 2, 30, 40.5], [1e-17, -3.1, 30, 40], [102.9999999, 2, 1 / 3, 40]])


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 4), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_every_digit_survives(boxes: list) -> None:
    """Writing and reading gives the same float64 numbers, to the last bit."""
    text = results.format_boxes(np.array(boxes))
    again = np.array([[float(v) for v in line.split("\t")] for line in text.splitlines()])
    np.testing.assert_array_equal(again, np.array(boxes))


def test_round_trip(tmp_path: Path) -> None:
    """Boxes and scores come back exactly, times to a microsecond, and the marker with them."""
    written = Result(
        BOXES,
        np.array([0.5, 0.01, 0.02]),
        np.array([1.0, 0.7, 1 / 3]),
        {"seed": 3},
        {"crop": 0.5, "search region": 1.25},
    )
    results.write_result(tmp_path, "walk", written)
    read = results.read_result(tmp_path, "walk")
    np.testing.assert_array_equal(read.boxes_xywh, BOXES)
    np.testing.assert_array_equal(read.scores, written.scores)
    np.testing.assert_allclose(read.times_s, written.times_s, atol=1e-6)
    assert read.stages_s == written.stages_s
    assert read.made_by == {"seed": 3} and read.frames_per_s == pytest.approx(2 / 0.03)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "walk.json", "walk.txt", "walk_object_presence_scores.txt", "walk_stages.txt", "walk_time.txt"
    ]  # fmt: skip


def test_a_marker_vouches_for_the_boxes(tmp_path: Path) -> None:
    """One changed digit, a missing or a damaged marker: the sequence counts as not done."""
    results.write_result(tmp_path, "walk", Result(BOXES))
    text = (tmp_path / "walk.txt").read_text()
    (tmp_path / "walk.txt").write_text(text.replace("30", "31", 1))
    assert results.read_marker(tmp_path, "walk") is None
    with pytest.raises(ResultError, match="walk.txt: missing, unfinished or changed"):
        results.read_result(tmp_path, "walk")
    (tmp_path / "walk.txt").write_text(text)
    assert results.read_marker(tmp_path, "walk") is not None
    for damage in ("", "[]", "{", '{"sha256": 1}', "null"):
        (tmp_path / "walk.json").write_text(damage)
        assert results.read_marker(tmp_path, "walk") is None


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), np.zeros((2, 3)), np.array([[0, 0, np.nan, 1.0]])])
def test_nothing_is_written_for_boxes_that_are_none(tmp_path: Path, boxes: np.ndarray) -> None:
    """The error comes before any file."""
    with pytest.raises(ResultError):
        results.write_result(tmp_path, "walk", Result(boxes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text, expected", [
    ("10\t20\t30\t40\n11\t21\t31\t41\n", [[10, 20, 30, 40], [11, 21, 31, 41]]),  # pytracking
    ("10.000,20.500,30.000,40.000\n", [[10, 20.5, 30, 40]]),  # got10k
    ("10.0000,20.0000,30.0000,40.0000\n", [[10, 20, 30, 40]]),  # pysot
    ("10 20 30 40\r\n", [[10, 20, 30, 40]]),  # OTB's text files
    ("1,1,5,1,5,4,1,4\n", [[1, 1, 4, 3]]),  # polygons
    ("1\n10,20,30,40\n2\n0\n1\n5,6,7,8\n",
     [[0, 0, 0, 0], [10, 20, 30, 40], [10, 20, 30, 40], [10, 20, 30, 40], [10, 20, 30, 40], [5, 6, 7, 8]]),  # VOT
])  # fmt: skip
def test_other_toolkits_files(tmp_path: Path, text: str, expected: list) -> None:
    """The same reader takes them all."""
    (tmp_path / "a.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(results.read_boxes(tmp_path / "a.txt"), expected)


@pytest.mark.parametrize("text, what", [
    ("", "is empty"), ("1,2,3\n", "line 1: 3 numbers"), ("1,2,3,4\n1,2,3,4,5\n", "line 2: 5 numbers"),
    ("1,2,3,4\n1,2,3,four\n", "line 2: 'four' is not a number"), ("1,2,3,4\n1,2,3,\xff\n", "line 2: .* not a number"),
])  # fmt: skip
def test_damaged_files_name_file_and_line(tmp_path: Path, text: str, what: str) -> None:
    """Only ResultError, and it says where."""
    (tmp_path / "walk.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ResultError, match=f"walk.txt.*{what}"):
        results.read_boxes(tmp_path / "walk.txt")
    with pytest.raises(ResultError, match="no such file"):
        results.read_boxes(tmp_path / "other.txt")
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ResultError, match="large.txt: larger than 16 MB"):
        results.read_boxes(tmp_path / "large.txt")


@pytest.mark.parametrize("name, key", [
    ("Jogging-1", "jogging_1"), ("Jogging.1", "jogging_1"), ("jogging_1", "jogging_1"), ("uav_bike1", "bike1"),
    ("nfs_Skiing_red", "skiing_red"), ("Human4_2", "human4"), ("Human4", "human4"), ("airplane-15", "airplane_15"),
])  # fmt: skip
def test_spellings_of_names(name: str, key: str) -> None:
    """What toolkits vary does not matter."""
    assert spelling.canonical(name) == key


def test_layouts_are_found(tmp_path: Path) -> None:
    """Runs in folders of their own, in numbered files, in a folder per sequence, and VOT's baseline."""
    for file in (
        "ours_000/Car4.txt", "ours_000/Car4_time.txt", "ours_001/Car4.txt",
        "flat/uav_car4.txt", "flat/times/uav_car4_time.txt",
        "toolkit/car4/car4_001.txt", "toolkit/car4/car4_002.txt", "toolkit/car4/car4_time.txt",
        "numbered/Car4_001.txt", "numbered/Car4_002.txt", "numbered/Car4_003.txt",
        "vot/baseline/car4/car4_001.txt",
    ):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("0.25\n0.5\n" if "time" in file else "1,2,3,4\n5,6,7,8\n")
    for name, runs in (("ours", 2), ("flat", 1), ("toolkit", 2), ("numbered", 3), ("vot", 1)):
        folder = results.find_results(tmp_path / name)
        assert (folder.label, folder.run_numbers("CAR4"), len(folder.files)) == (name, tuple(range(runs)), 1)
        assert folder.read("Car4", runs - 1).boxes_xywh.shape == (2, 4)
    for name in ("ours", "flat", "toolkit"):
        assert results.find_results(tmp_path / name).read("car4").frames_per_s == 2.0
    with pytest.raises(ResultError, match="no result of 'Car4', run 3"):
        results.find_results(tmp_path / "numbered").read("Car4", 3)
    with pytest.raises(ResultError, match="no result files"):
        results.find_results(tmp_path / "nothing")


def test_names_that_differ_in_spelling_only(tmp_path: Path) -> None:
    """`Car-1` and `car_1` are two sequences where both have results, and one where a toolkit spells it in its way."""
    for name, x in (("Car-1", 1), ("car_1", 2)):
        (tmp_path / f"{name}.txt").write_text(f"{x},2,3,4\n")
    found = results.find_results(tmp_path)
    assert [found.run_numbers(name) for name in ("Car-1", "car_1")] == [(0,), (0,)]
    assert [found.read(name).boxes_xywh[0, 0] for name in ("Car-1", "car_1")] == [1, 2]
    (tmp_path / "Car-1.txt").unlink()
    assert results.find_results(tmp_path).read("Car-1").boxes_xywh[0, 0] == 2


OUR_NAMES = ("video_001", "video_002", "clip", "clip_001", "lap_time", "walk_stages", "Car-1", "car_1")


@pytest.mark.parametrize("absent", [*OUR_NAMES, None])
def test_in_our_folders_the_stem_is_the_name(tmp_path: Path, absent: str | None) -> None:
    """Names that look like numbered runs, times or other spellings are read back as they were written, in two runs,
    whichever of them is not there; and one without a marker is not done."""
    written = [name for name in OUR_NAMES if name != absent]
    for run in (0, 1):
        for index, name in enumerate(written):
            boxes = np.array([[index, run, 3, 4.0]])
            write_result(tmp_path / f"p_00{run}", name, Result(boxes, np.array([index + 1.0])))
    if absent is not None:
        (tmp_path / "p_000" / f"{absent}.txt").write_text("1,2,3,4\n")
    found = results.find_results(tmp_path / "p", names=OUR_NAMES)
    for index, name in enumerate(written):
        assert found.run_numbers(name) == (0, 1)
        for run in (0, 1):
            read = found.read(name, run)
            assert [*read.boxes_xywh[0, :2], *read.times_s] == [index, run, index + 1]
    assert absent is None or found.run_numbers(absent) == ()


def test_names_of_the_data_set_go_before_numbers(tmp_path: Path) -> None:
    """In somebody else's folder `video_001` is a sequence where the data set has one of that name, else a run."""
    for name in ("video_001", "video_003", "lap_time", "clip", "clip_001"):
        (tmp_path / f"{name}.txt").write_text("1,2,3,4\n")
    found = results.find_results(tmp_path, names=("video_001", "video_003", "lap_time"))
    assert [found.run_numbers(name) for name in ("video_001", "video_003", "video")] == [(0,), (0,), ()]
    found = results.find_results(tmp_path, names=("video", "clip"))
    assert [found.run_numbers(name) for name in ("video", "clip", "clip_001")] == [(0, 2), (0,), (0,)]
    assert results.find_results(tmp_path).run_numbers("lap_time") == (0,)  # no boxes of `lap` lie beside it
    (tmp_path / "lap.txt").write_text("1,2,3,4\n")
    assert results.find_results(tmp_path).run_numbers("lap_time") == ()


def test_a_lost_run_moves_no_other(tmp_path: Path) -> None:
    """Run 2 is run 2, in our folders and in numbered files, whatever is missing before it."""
    for run in (0, 2):
        write_result(tmp_path / f"p_00{run}", "both", Result(BOXES + run))
    write_result(tmp_path / "p_002", "last", Result(BOXES + 2))
    found = results.find_results(tmp_path / "p")
    assert found.run_numbers("both") == (0, 2) and found.run_numbers("last") == (2,)
    np.testing.assert_array_equal(found.read("last").boxes_xywh, BOXES + 2)
    with pytest.raises(ResultError, match="no result of 'both', run 1"):
        found.read("both", 1)
    written = results.export({"last": {2: found.read("last", 2)}}, tmp_path / "toolkit", "got10k")
    assert [path.name for path in written] == ["last_003.txt"]
    assert results.find_results(tmp_path / "toolkit" / "ebmtrack").run_numbers("last") == (2,)


def test_two_files_of_one_run(tmp_path: Path) -> None:
    """Two spellings of a name that is neither of them: which is meant cannot be known."""
    for name in ("Car-1", "car_1"):
        (tmp_path / f"{name}.txt").write_text("1,2,3,4\n")
    with pytest.raises(ResultError, match=r"Car-1\.txt and .*car_1\.txt: both hold run 0 of 'CAR_1'"):
        results.find_results(tmp_path).read("CAR_1")


def test_names_that_would_share_a_file() -> None:
    """The times of `lap` and the boxes of `lap_time` have one name, so one data set cannot have both."""
    results.check_names(["lap", "lap_times", "run_time"])
    with pytest.raises(ResultError, match="sequences 'lap' and 'lap_time' would share a file"):
        results.check_names(["lap_time", "lap"])


@pytest.mark.parametrize("layout", ["pytracking", "got10k", "got10k-otb"])
def test_exports_are_found_and_read(tmp_path: Path, layout: str) -> None:
    """What is exported is read back with every digit, or truncated towards zero where integers are asked for."""
    runs = {0: Result(BOXES, np.array([0.5, 0.25, 0.25])), 1: Result(BOXES + 1, np.array([0.5, 0.5, 0.5]))}
    results.export({"walk": runs}, tmp_path, layout)
    folder = tmp_path / "ebmtrack" / "default" if layout == "pytracking" else tmp_path / "ebmtrack"
    found = results.find_results(folder)
    assert found.run_numbers("walk") == ((0,) if layout == "got10k-otb" else (0, 1))
    np.testing.assert_array_equal(found.read("walk").boxes_xywh, BOXES)
    assert found.read("walk").frames_per_s == pytest.approx(4.0)
    results.export({"walk": runs}, tmp_path / "integers", layout, integers=True)
    path = next((tmp_path / "integers").rglob("walk*.txt"))
    first = results.read_boxes(path if "time" not in path.name else path.parent / "walk.txt")
    np.testing.assert_array_equal(first, np.trunc(first))
    with pytest.raises(ConfigError, match="unknown layout"):
        results.export({}, tmp_path, "csv")
    assert results.export({}, tmp_path, layout) == []


def test_the_got10k_package_reads_our_export(tmp_path: Path) -> None:
    """An ExperimentOTB of the toolkit reports from our files what our `otb` protocol says, to 1e-12."""
    otb = pytest.importorskip("got10k.experiments.otb")
    from ebmtrack.evaluation import metrics

    rng = np.random.default_rng(0)
    scores, exported, names = [], {}, ["Bird2", "Jogging.1", "Jogging.2"]
    annotations = {}
    for name in names:
        anno = np.concatenate([rng.uniform(5, 90, (9, 2)), rng.uniform(9, 40, (9, 2))], axis=1).round(2)
        pred = np.abs(anno + rng.normal(0, 5, anno.shape)).round(3)
        annotations[name], exported[name] = anno, {0: Result(pred, np.full(9, 0.02))}
        scores.append(metrics.score_sequence(pred, anno, "otb"))
    results.export(exported, tmp_path / "results" / "OTB2015", "got10k-otb", tracker="ours")
    performance = _toolkit_report(otb.ExperimentOTB, annotations, tmp_path)["ours"]["overall"]
    ours = metrics.summarise(scores)
    np.testing.assert_allclose(performance["success_curve"], ours.success, rtol=0, atol=1e-12)
    np.testing.assert_allclose(performance["precision_curve"], ours.precision, rtol=0, atol=1e-12)
    assert performance["success_score"] == pytest.approx(ours.auc, abs=1e-12)
    assert performance["precision_score"] == pytest.approx(ours.precision_20, abs=1e-12)
    assert performance["speed_fps"] == pytest.approx(50)


OTB_TARGETS = {"Basketball": [""], "Jogging": [".1", ".2"], "Human4": [".2"], "Skating2": [".1", ".2"]}


def test_the_got10k_package_finds_every_sequence_of_otb(tmp_path: Path) -> None:
    """Its own data set on the same folder, with Jogging's two targets, takes `ebmtrack export`'s files: a perfect
    tracker has a precision of 1 there in every sequence, and in our names the files are the same again."""
    otb, toolkit = pytest.importorskip("got10k.experiments.otb"), pytest.importorskip("got10k.datasets")
    found, root = _otb_with_results(tmp_path), tmp_path / "data"
    experiment = object.__new__(otb.ExperimentOTB)
    experiment.dataset = toolkit.OTB(str(root), 2015, download=False)
    experiment.result_dir, experiment.report_dir = str(tmp_path / "got10k-otb"), str(tmp_path / "report")
    experiment.nbins_iou, experiment.nbins_ce, experiment.plot_curves = 21, 51, lambda names: None
    export_stored("otb100", root, "got10k-otb", tmp_path / "got10k-otb", out=tmp_path / "out", stream=io.StringIO())
    by_sequence = experiment.report(["p"])["p"]["seq_wise"]
    assert {spelling.canonical(name) for name in by_sequence} == {spelling.canonical(name) for name in found.names}
    assert {"Jogging.1", "Jogging.2", "Human4"} < set(by_sequence)
    assert {row["precision_curve"][0] for row in by_sequence.values()} == {1.0}


@pytest.mark.parametrize("layout, names", [
    ("pytracking", ["Basketball", "Human4_2", "Jogging_1", "Jogging_2", "Skating2_1", "Skating2_2"]),
    ("got10k-otb", ["Basketball", "Human4", "Jogging.1", "Jogging.2", "Skating2.1", "Skating2.2"]),
])  # fmt: skip
def test_names_of_a_layout_are_read_back(tmp_path: Path, layout: str, names: list[str]) -> None:
    """What is exported under a toolkit's names is found under ours."""
    found, printed = _otb_with_results(tmp_path), io.StringIO()
    written = export_stored("otb100", tmp_path / "data", layout, tmp_path, out=tmp_path / "out", stream=printed)
    assert sorted(path.stem for path in written) == names
    again = results.find_results(tmp_path / ("ebmtrack/p" if layout == "pytracking" else "p"), names=found.names)
    for name in found.names:
        np.testing.assert_array_equal(again.read(name).boxes_xywh, found.load(name).boxes_xywh)
    assert "p, run 0: no result of 94 of 100 sequences: Biker, " in printed.getvalue()


def test_prefixes_are_read_back() -> None:
    """`canonical` undoes `name_in`, for every layout and data set that has names of its own."""
    for layout, dataset in [*spelling.NAMES, *spelling.PREFIXES]:
        for name in ("Jogging_1", "Skating2_2", "Human4", "bike1"):
            assert spelling.canonical(spelling.name_in(layout, dataset, name)) == spelling.canonical(name)
    assert spelling.name_in("pytracking", "uav123", "bike1") == "uav_bike1"
    assert spelling.name_in("pytracking", "folder", "Human4") == "Human4"


def _otb_with_results(folder: Path) -> DataSet:
    """Four videos of OTB with six targets in `data`, and the results of a perfect tracker `p` in `out`."""
    for index, (video, targets) in enumerate(OTB_TARGETS.items()):
        (folder / "data" / video / "img").mkdir(parents=True)
        for frame in range(3):
            (folder / "data" / video / "img" / f"{frame + 1:04d}.jpg").touch()
        for target in targets:
            rows = [f"{10 * index + frame + len(target)},1{target[1:]},20,30\n" for frame in range(3)]
            (folder / "data" / video / f"groundtruth_rect{target}.txt").write_text("".join(rows))
    (folder / "data" / "Human4" / "groundtruth_rect.1.txt").touch()  # the benchmark's own is empty
    found = open_dataset("otb100", folder / "data")
    for name in found.names:
        write_result(folder / "out" / "otb100" / "p_000", name, Result(found.load(name).boxes_xywh))
    return found


def _toolkit_report(experiment_class: type, annotations: dict[str, np.ndarray], folder: Path) -> dict:
    """The toolkit's report on stored results, with a data set made of annotations alone and no plots."""

    class Annotated(list):
        seq_names = list(annotations)

    experiment = object.__new__(experiment_class)
    experiment.dataset = Annotated((None, anno) for anno in annotations.values())
    experiment.result_dir, experiment.report_dir = str(folder / "results" / "OTB2015"), str(folder / "report")
    experiment.nbins_iou, experiment.nbins_ce = 21, 51
    experiment.plot_curves = lambda names: None
    return experiment.report(["ours"])
