"""Result files: round trips, other toolkits' layouts and spellings, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmtrack.errors import ResultError
from ebmtrack.evaluation import foreign, results
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.videos import spelling

BOXES = np.array([[1.25, 2, 30, 40.5], [1e-17, -3.1, 30, 40], [102.9999999, 2, 1 / 3, 40]])


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 4), min_size=1, max_size=20))
@settings(max_examples=30)
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


def test_nothing_is_left_of_an_attempt_that_was_killed(tmp_path: Path) -> None:
    """It had written times and intervals; the next attempt has none."""
    numbers = np.full(len(BOXES), 0.5)
    first = Result(
        BOXES + 1, numbers, numbers, {}, {"crop": 1.0}, sureness=np.full((len(BOXES), results.SURENESS), 0.5)
    )
    results.write_result(tmp_path, "walk", first)
    (tmp_path / "walk.json").unlink()
    results.write_result(tmp_path, "walk", Result(BOXES))
    read = results.read_result(tmp_path, "walk")
    assert not (len(read.times_s) or len(read.scores) or len(read.sureness) or read.stages_s)


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
    np.testing.assert_array_equal(foreign.read_boxes(tmp_path / "a.txt"), expected)


@pytest.mark.parametrize("text, what", [
    ("", "is empty"), ("1,2,3\n", "line 1: 3 numbers"), ("1,2,3,4\n1,2,3,4,5\n", "line 2: 5 numbers"),
    ("1,2,3,4\n1,2,3,four\n", "line 2: 'four' is not a number"), ("1,2,3,4\n1,2,3,\xff\n", "line 2: .* not a number"),
])  # fmt: skip
def test_damaged_files_name_file_and_line(tmp_path: Path, text: str, what: str) -> None:
    """Only ResultError, and it says where."""
    (tmp_path / "walk.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ResultError, match=f"walk.txt.*{what}"):
        foreign.read_boxes(tmp_path / "walk.txt")
    with pytest.raises(ResultError, match="no such file"):
        foreign.read_boxes(tmp_path / "other.txt")
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ResultError, match="large.txt: larger than 16 MB"):
        foreign.read_boxes(tmp_path / "large.txt")


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
        folder = foreign.find_results(tmp_path / name)
        assert (folder.label, folder.run_numbers("CAR4"), len(folder.files)) == (name, tuple(range(runs)), 1)
        assert folder.read("Car4", runs - 1).boxes_xywh.shape == (2, 4)
    for name in ("ours", "flat", "toolkit"):
        assert foreign.find_results(tmp_path / name).read("car4").frames_per_s == 2.0
    with pytest.raises(ResultError, match="no result of 'Car4', run 3"):
        foreign.find_results(tmp_path / "numbered").read("Car4", 3)
    with pytest.raises(ResultError, match="no result files"):
        foreign.find_results(tmp_path / "nothing")


def test_names_that_differ_in_spelling_only(tmp_path: Path) -> None:
    """`Car-1` and `car_1` are two sequences where both have results, and one where a toolkit spells it in its way."""
    for name, x in (("Car-1", 1), ("car_1", 2)):
        (tmp_path / f"{name}.txt").write_text(f"{x},2,3,4\n")
    found = foreign.find_results(tmp_path)
    assert [found.run_numbers(name) for name in ("Car-1", "car_1")] == [(0,), (0,)]
    assert [found.read(name).boxes_xywh[0, 0] for name in ("Car-1", "car_1")] == [1, 2]
    (tmp_path / "Car-1.txt").unlink()
    assert foreign.find_results(tmp_path).read("Car-1").boxes_xywh[0, 0] == 2


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
    found = foreign.find_results(tmp_path / "p", names=OUR_NAMES)
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
    found = foreign.find_results(tmp_path, names=("video_001", "video_003", "lap_time"))
    assert [found.run_numbers(name) for name in ("video_001", "video_003", "video")] == [(0,), (0,), ()]
    found = foreign.find_results(tmp_path, names=("video", "clip"))
    assert [found.run_numbers(name) for name in ("video", "clip", "clip_001")] == [(0, 2), (0,), (0,)]
    assert foreign.find_results(tmp_path).run_numbers("lap_time") == (0,)  # no boxes of `lap` lie beside it
    (tmp_path / "lap.txt").write_text("1,2,3,4\n")
    assert foreign.find_results(tmp_path).run_numbers("lap_time") == ()


def test_a_lost_run_moves_no_other(tmp_path: Path) -> None:
    """Run 2 is run 2, in our folders and in numbered files, whatever is missing before it."""
    for run in (0, 2):
        write_result(tmp_path / f"p_00{run}", "both", Result(BOXES + run))
    write_result(tmp_path / "p_002", "last", Result(BOXES + 2))
    found = foreign.find_results(tmp_path / "p")
    assert found.run_numbers("both") == (0, 2) and found.run_numbers("last") == (2,)
    np.testing.assert_array_equal(found.read("last").boxes_xywh, BOXES + 2)
    with pytest.raises(ResultError, match="no result of 'both', run 1"):
        found.read("both", 1)


def test_two_files_of_one_run(tmp_path: Path) -> None:
    """Two spellings of a name that is neither of them: which is meant cannot be known."""
    for name in ("Car-1", "car_1"):
        (tmp_path / f"{name}.txt").write_text("1,2,3,4\n")
    with pytest.raises(ResultError, match=r"Car-1\.txt and .*car_1\.txt: both hold run 0 of 'CAR_1'"):
        foreign.find_results(tmp_path).read("CAR_1")


def test_names_that_would_share_a_file() -> None:
    """The times of `lap` and the boxes of `lap_time` have one name, so one data set cannot have both."""
    results.check_names(["lap", "lap_times", "run_time"])
    with pytest.raises(ResultError, match="sequences 'lap' and 'lap_time' would share a file"):
        results.check_names(["lap_time", "lap"])
