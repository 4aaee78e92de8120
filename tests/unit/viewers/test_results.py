"""Files of results: each kind is read back by its own rules; spans of frames; results from Python."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import write_picture
from ebmtrack.tracking.step import TrackResult
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.tracking.uncertainty import BoxDensity
from ebmtrack.videos.yolo import class_names
from ebmtrack.viewers.follow import checked_span, frame_number, track
from ebmtrack.viewers.outputs import checked_outputs
from ebmtrack.viewers.results import (
    COLUMNS,
    INTERVAL_COLUMNS,
    WRITERS,
    FrameResult,
    ResultInfo,
    check_interval,
    layout_of,
    write_results,
)
from ebmtrack.viewers.track_video import track as track_video
from ebmtrack.viewers.video_file import VideoWriter

ROWS = [
    FrameResult(0, 1, (10.0, 20.0, 30.0, 40.0)),
    FrameResult(0, 2, (50.5, 20.0, 10.0, 10.0)),
    FrameResult(1, 1, (11.25, 20.0, 30.0, 40.0), 0.75, "normal"),
    FrameResult(1, 2, (50.5, 20.0, 10.0, 10.0), 0.1, "not_found"),
]
INFO = ResultInfo("walk.mp4", 25.0, (200, 100), "ebm18_small", 1)


def test_csv_has_a_header_and_says_what_is_lost(tmp_path):
    write_results(tmp_path / "r.csv", reversed(ROWS), INFO)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS == ("frame", "id", "x", "y", "w", "h", "score", "verdict")
    assert rows[0] == dict(frame="0", id="1", x="10.0", y="20.0", w="30.0", h="40.0", score="", verdict="start")
    assert [row["verdict"] for row in rows] == ["start", "start", "normal", "not_found"]


def test_json_has_metadata(tmp_path):
    write_results(tmp_path / "r.json", ROWS, INFO)
    read = json.loads((tmp_path / "r.json").read_text())
    head = {name: read[name] for name in ("source", "fps", "width", "height", "network", "seed")}
    assert head == dict(source="walk.mp4", fps=25.0, width=200, height=100, network="ebm18_small", seed=1)
    assert read["results"] == [row.to_dict() for row in ROWS]


@pytest.mark.parametrize("name", ["r.json", "r.coco.json", "r.csv", "r.mot.txt"])
def test_a_score_that_is_no_number_is_left_out(name, tmp_path):
    """JSON knows no NaN; programs that read it strictly would refuse the whole file."""
    texts = []
    for score in (math.nan, None):
        write_results(tmp_path / name, [FrameResult(0, 1, (1.0, 2.0, 3.0, 4.0), score, "normal")], INFO)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] and "nan" not in texts[0].lower()


@pytest.mark.parametrize("weights, noted", [(None, False), ("ebm18_small", False), ("ebm_lite", True)])
def test_intervals_of_another_network_are_said_not_to_be_calibrated(tmp_path, capsys, weights, noted):
    for number in range(2):
        scene = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        write_picture(tmp_path / "frames" / f"{number}.png", scene)

    def load() -> Tracker:
        return Tracker.from_pretrained(weights=weights, device="cpu")

    track_video(str(tmp_path / "frames"), load, "60,40,40,30", boxes=tmp_path / "b.csv", interval=0.9)
    assert ("calibrated with the set-up's own network" in capsys.readouterr().out) == noted


def test_csv_and_json_hold_intervals_if_asked(tmp_path):
    """Two ends for each side, around x, y, x + w, y + h; empty where the tracker says nothing."""
    density = BoxDensity(np.array([10.0, 20, 40, 60]), np.zeros(4), np.ones(4), np.array([1.0, 2, 3, 4]), 5.0, 0.5)
    rows = [ROWS[0], FrameResult(1, 1, (10.0, 20.0, 30.0, 40.0), 0.9, "normal", density, 0.25)]
    info = ResultInfo("walk.mp4", 25.0, (200, 100), "ebm18_small", 1, 0.8)
    write_results(tmp_path / "r.csv", rows, info)
    first, second = csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text()))
    assert tuple(first) == COLUMNS + INTERVAL_COLUMNS and {first[name] for name in INTERVAL_COLUMNS} == {""}
    ends = [float(second[name]) for name in INTERVAL_COLUMNS[:8]]
    assert ends == pytest.approx(density.interval(0.8).reshape(-1), abs=1e-3)
    assert second["right_low"] < "40" < second["right_high"] and second["lost_probability"] == "0.25"
    write_results(tmp_path / "r.json", rows, info)
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["interval"] == 0.8 and read["results"][0]["left_low"] is None
    assert read["results"][1]["bottom_high"] == pytest.approx(ends[7])
    unread = rows[1].as_unreadable(2)
    assert unread.density is None and unread.lost_probability is None and unread.box_xywh == rows[1].box_xywh


@pytest.mark.parametrize(
    "options, message",
    [
        ({"interval": 90.0, "boxes": "r.csv"}, "above 0 and below 1"),
        ({"interval": 0.9, "boxes": "r.txt"}, "--boxes OUT.csv or OUT.json"),
        ({"interval": 0.9}, "--boxes OUT.csv or OUT.json"),
    ],
)
def test_intervals_that_cannot_be_written_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        track_video("walk.mp4", lambda: None, "1,2,3,4", **options)


@pytest.mark.parametrize(
    "boxes, layout, noted", [("r.txt", None, True), ("r.csv", "mot", True), ("r.csv", None, False), (None, None, False)]
)
def test_drawn_intervals_that_a_file_cannot_hold_are_pointed_out(boxes, layout, noted, capsys):
    check_interval(0.9, boxes, layout, True)
    assert capsys.readouterr().out.startswith("note: r.") == noted


def test_mot_counts_from_one_and_leaves_lost_targets_out(tmp_path):
    write_results(tmp_path / "r.mot.txt", ROWS, INFO)
    lines = [[float(value) for value in line.split(",")] for line in (tmp_path / "r.mot.txt").read_text().split()]
    assert [line[:6] for line in lines] == [[1, 1, 11, 21, 30, 40], [1, 2, 51.5, 21, 10, 10], [2, 1, 12.25, 21, 30, 40]]
    assert all(len(line) == 10 for line in lines)


def test_coco_video_links_images_tracks_and_annotations(tmp_path):
    write_results(tmp_path / "r.coco.json", ROWS, INFO)
    read = json.loads((tmp_path / "r.coco.json").read_text())
    assert {image["id"] for image in read["images"]} == {one["image_id"] for one in read["annotations"]} == {0, 1}
    assert [track["id"] for track in read["tracks"]] == [1, 2] and len(read["annotations"]) == 3
    assert read["annotations"][2]["bbox"] == [11.25, 20.0, 30.0, 40.0]


def test_cvat_marks_lost_frames_as_outside(tmp_path):
    write_results(tmp_path / "r.xml", ROWS, INFO)
    tracks = ElementTree.parse(tmp_path / "r.xml").getroot().findall("track")
    assert [[box.get("outside") for box in track] for track in tracks] == [["0", "0"], ["0", "1"]]
    assert tracks[0][1].get("xtl") == "11.250" and tracks[0][1].get("xbr") == "41.250"


def test_coco_and_cvat_name_what_the_targets_are(folder, tmp_path):
    """By the command, and `target` without a word."""
    for category in ("target", "person"):
        for name in ("r.coco.json", "r.xml"):
            options = {} if category == "target" else {"category": category}
            track_video(folder, Counter, "0,0,9,9", boxes=tmp_path / name, **options)
        assert json.loads((tmp_path / "r.coco.json").read_text())["categories"] == [{"id": 1, "name": category}]
        assert [one.get("label") for one in ElementTree.parse(tmp_path / "r.xml").iter("track")] == [category]


@pytest.mark.parametrize("category", ["", " ", "a\x01b", "a\nb", "a\udcffb", 3, {1: "a", 2: " "}])
def test_a_category_is_a_name(folder, tmp_path, category):
    """XML cannot hold control characters, nor files what is no Unicode: refused before tracking."""
    with pytest.raises(ConfigError, match="a category is a name that can be printed"):
        ResultInfo(category=category)
    with pytest.raises(ConfigError, match="a category is a name that can be printed"):
        track_video(folder, lambda: pytest.fail("loaded"), "0,0,9,9", boxes=tmp_path / "r.xml", category=category)


def test_yolo_is_a_file_a_frame_in_parts_of_the_frame(tmp_path):
    write_results(tmp_path / "labels", ROWS, INFO, layout="yolo")
    lines = (tmp_path / "labels" / "frame_000000.txt").read_text().splitlines()
    assert lines == ["0 0.125000 0.400000 0.150000 0.400000", "1 0.277500 0.250000 0.050000 0.100000"]
    assert len((tmp_path / "labels" / "frame_000001.txt").read_text().splitlines()) == 1
    for layout in ("yolo", "coco"):
        with pytest.raises(ConfigError, match=f"{layout} needs the size of a frame"):
            write_results(tmp_path / "more", ROWS, layout=layout)


@pytest.mark.parametrize(
    "category, classes, names",
    [
        (None, "01", ["target 1", "target 2"]),
        ("person", "00", ["person"]),
        ({2: "dog", 1: "person"}, "01", ["person", "dog"]),
        ({2: "dog"}, "01", ["target", "dog"]),
        ({1: 'an "odd" one: # é', 2: "b"}, "01", ['an "odd" one: # é', "b"]),
    ],
)
def test_classes_of_yolo_are_categories_which_data_yaml_names(tmp_path, category, classes, names):
    """As Ultralytics lays out a data set: data.yaml beside images/ and labels/; without categories by target."""
    write_results(tmp_path / "r.yolo", ROWS, replace(INFO, category=category))
    assert {path.name for path in (tmp_path / "r.yolo").iterdir()} == {"labels", "data.yaml"}
    lines = (tmp_path / "r.yolo" / "labels" / "frame_000000.txt").read_text().splitlines()
    assert "".join(line[0] for line in lines) == classes
    head, _, entries = (tmp_path / "r.yolo" / "data.yaml").read_text().partition("names:\n")
    assert head == "train: images\nval: images\n"
    assert entries == "".join(f"  {k}: {json.dumps(name, ensure_ascii=False)}\n" for k, name in enumerate(names))
    assert class_names(tmp_path / "r.yolo" / "labels") == dict(enumerate(names))


def test_targets_may_be_of_several_categories(tmp_path):
    """COCO has a category for each, to which annotations and tracks point, and CVAT a label."""
    info = replace(INFO, category={1: "person", 2: "dog"})
    write_results(tmp_path / "r.coco.json", ROWS, info)
    read = json.loads((tmp_path / "r.coco.json").read_text())
    assert read["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    assert [(track["id"], track["category_id"]) for track in read["tracks"]] == [(1, 1), (2, 2)]
    assert all(entry["category_id"] == entry["track_id"] for entry in read["annotations"])
    write_results(tmp_path / "r.xml", ROWS, info)
    assert [one.get("label") for one in ElementTree.parse(tmp_path / "r.xml").iter("track")] == ["person", "dog"]


def test_yolo_labels_do_not_mix_with_those_that_are_there(tmp_path):
    """The same frames are written anew; labels of others stay, and are refused before tracking and when writing."""
    for _ in range(2):
        write_results(tmp_path / "r.yolo", ROWS, INFO)
    before = {path.name: path.read_text() for path in (tmp_path / "r.yolo").rglob("*.*")}
    with pytest.raises(ConfigError, match="r.yolo holds labels already, such as frame_000001.txt: move them"):
        write_results(tmp_path / "r.yolo", ROWS[:1], INFO)
    for layout in ("yolo", None):
        with pytest.raises(ConfigError, match="r.yolo holds labels already"):
            checked_outputs("walk.mp4", tmp_path / "r.yolo", None, layout)
    assert {path.name: path.read_text() for path in (tmp_path / "r.yolo").rglob("*.*")} == before
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "frame_000000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ConfigError, match="flat holds labels already, such as frame_000000.txt"):
        write_results(tmp_path / "flat", ROWS, INFO, "yolo")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    for write in (
        lambda path: write_results(path, ROWS, INFO, "yolo"),
        lambda path: checked_outputs(0, path, None, "yolo"),
    ):
        with pytest.raises(ConfigError, match="data.yaml is there already and may name other classes: move it or name"):
            write(tmp_path / "labels")
    assert not (tmp_path / "labels").exists() and (tmp_path / "data.yaml").read_text() == "names: [cat]\n"
    (tmp_path / "empty").mkdir()
    assert checked_outputs("walk.mp4", tmp_path / "empty", None, "yolo") == (tmp_path / "empty", None)


def test_the_bare_four_columns_hold_one_target_a_file(tmp_path):
    paths = write_results(tmp_path / "r.dat", ROWS, INFO, layout="pytracking")
    assert [path.name for path in paths] == ["r_1.dat", "r_2.dat"]
    assert paths[0].read_text() == "10.000,20.000,30.000,40.000\n11.250,20.000,30.000,40.000\n"


@pytest.mark.parametrize(
    "name, layout",
    [("a.csv", "csv"), ("a.JSON", "json"), ("a.coco.json", "coco"), ("a.xml", "cvat"), ("a.txt", "pytracking")],
)
def test_the_ending_says_what_kind(name, layout):
    assert layout_of(name) == layout and layout_of(name, "mot") == "mot"
    with pytest.raises(ConfigError, match="no layout 'tsv' of results; there are csv, json"):
        layout_of(name, "tsv")


@pytest.mark.parametrize("name", ["a.foo", "a", "a.mp4", "a.csv.gz"])
def test_unknown_endings_are_refused_unless_the_layout_is_named(name):
    assert layout_of(name, "csv") == "csv"
    with pytest.raises(ConfigError, match=r"boxes end in one of \.csv \.json \.coco\.json .*unless --layout") as caught:
        layout_of(name)
    endings = re.findall(r"(?<= )\.[.a-z]+", str(caught.value).partition("one of")[2])
    assert {layout_of(f"boxes{ending}") for ending in endings} == {*WRITERS, "pytracking", "yolo"}


def test_a_folder_of_yolo_is_written_again(tmp_path):
    """The ending .yolo says what the folder holds, as --layout does."""
    for name, layout in (("a.yolo", None), ("labels", "yolo")):
        (tmp_path / name).mkdir()
        assert checked_outputs("walk.mp4", tmp_path / name, None, layout)[0] == tmp_path / name
    with pytest.raises(ConfigError, match="is a folder; give a file name for the boxes, or --layout yolo"):
        checked_outputs("walk.mp4", tmp_path / "labels", None)


def test_answers_of_a_loop_of_ones_own_are_written(tmp_path):
    """The box of the first frame and what update() returned: frames count from 0, the target is 1."""
    found = TrackResult((11.25, 20.0, 30.0, 40.0), 0.75, "normal", (0.0, 0.0, 9.0, 9.0), np.zeros((3, 3)))
    lost = TrackResult((11.25, 20.0, 30.0, 40.0), 0.1, "not_found", (0.0, 0.0, 9.0, 9.0), np.zeros((3, 3)))
    write_results(tmp_path / "r.csv", iter([np.array([10, 20, 30, 40]), found, lost]))
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == [
        "0,1,10.0,20.0,30.0,40.0,,start",
        "1,1,11.25,20.0,30.0,40.0,0.75,normal",
        "2,1,11.25,20.0,30.0,40.0,0.1,not_found",
    ]
    write_results(tmp_path / "r.csv", [found])
    assert "\n0,1,11.25," in (tmp_path / "r.csv").read_text()


@pytest.mark.parametrize(
    "row", [{0: "a TrackResult"}, {1: 1, 2: 2, 3: 3, 4: 4}, None, "1234", (1, 2, 3), np.zeros((2, 4))]
)
def test_a_row_that_is_no_result_is_told_what_to_be(row, tmp_path):
    with pytest.raises(ConfigError, match=r"row 1 of the results is a .*FrameResult.of_answer\(frame, id, answer\)"):
        write_results(tmp_path / "r.csv", [ROWS[0], row])
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize("name", ["b.csv", "b.mot", "b.xml", "b.yolo"])
def test_ids_below_one_are_refused(tmp_path, name):
    """MultiTracker counts from 0: YOLO got the class -1, and MOTChallenge the id 0, which it does not know."""
    rows = [FrameResult(0, 1, (1.0, 2.0, 3.0, 4.0)), FrameResult(0, 0, (1.0, 2.0, 3.0, 4.0))]
    with pytest.raises(ConfigError, match="row 1 of the results has the id 0: ids count from 1"):
        write_results(tmp_path / name, rows, ResultInfo(size_wh=(60, 40)))
    assert list(tmp_path.iterdir()) == []


def frame_at_25(time_s):
    """The frame at a time, at 25 frames/s."""
    return round(25 * time_s)


@pytest.mark.parametrize(
    "text, number", [("90", 90), ("3.5s", 88), ("1:02", 1550), ("1:02.52", 1563), ("0:01:02", 1550)]
)
def test_frames_are_given_as_numbers_or_times(text, number):
    """At 25 frames/s: 3.5 s are 87.5 frames, 1:02.52 are 62.52 s."""
    assert frame_number(text, frame_at_25, "--start") == number


@pytest.mark.parametrize(
    "start, end, every",
    [("x", None, 1), ("3.5", None, 1), (9, 8, 1), (0, None, 0), ("-1", None, 1), (0, None, 1.5)]
    + [("9" * 400 + unit, None, 1) for unit in ("", "s", ":00", ":00:00")],
)
def test_spans_without_a_frame_are_refused(start, end, every):
    with pytest.raises(ConfigError, match="--(start|end|every)"):
        checked_span(start, end, every, frame_at_25)


SPANS = [(0, None, 1), (3, 8, 2), (3, 9, 2), (0, 0, 1), (5, 500, 7), (40, None, 3)]


@pytest.mark.parametrize("start, end, every", SPANS)
def test_the_frames_of_a_span_are_those_that_it_has(start, end, every):
    span = checked_span(start, end, every, frame_at_25)
    assert span.count(20) == sum(map(span.has, range(20)))
    assert span.count(None) == (None if end is None else sum(map(span.has, range(end + 1))))


class Counter:
    """A tracker whose box moves right by one pixel with each update."""

    def init(self, image, box_xywh):
        self.box_xywh, self.first = list(box_xywh), int(image[0, 0, 0])

    def update(self, image):
        self.box_xywh[0] += 1
        verdict = "not_found" if self.box_xywh[0] == 3 else "normal"
        values = dict(box_xywh=tuple(self.box_xywh), score=0.5, verdict=verdict, found=verdict == "normal")
        return type("Answer", (), values)()


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        write_picture(tmp_path / "frames" / f"{number}.png", np.full((40, 60, 3), number, np.uint8))
    return tmp_path / "frames"


def test_from_python_results_come_frame_by_frame(folder):
    rows = list(track(folder, (0, 0, 9, 9), Counter()))
    assert [row.frame for row in rows] == list(range(12)) and rows[0].verdict == "start"
    assert rows[3].to_dict() == dict(zip(COLUMNS, (3, 1, 3.0, 0.0, 9.0, 9.0, 0.5, "not_found")))
    assert not rows[3].found and rows[4].found


def test_a_span_of_frames_is_tracked(folder, tmp_path):
    """Every third frame from 2 to 9: 2, 5, 8; the target is learned in frame 2."""
    tracker = Counter()
    rows = list(track(folder, (0, 0, 9, 9), tracker, start=2, end=9, every=3))
    assert [row.frame for row in rows] == [2, 5, 8] and tracker.first == 2
    track_video(folder, Counter, "0,0,9,9", boxes=tmp_path / "b.csv", start="2", end="9", every=3)
    assert [line.split(",")[0] for line in (tmp_path / "b.csv").read_text().split()] == ["frame", "2", "5", "8"]
    with pytest.raises(DatasetError, match="ends after 12 frames, before frame 50"):
        list(track(folder, (0, 0, 9, 9), Counter(), start=50))


@pytest.fixture
def clip(tmp_path):
    """A video of 12 frames, 64 x 48, 25 frames/s."""
    with VideoWriter(tmp_path / "walk.mp4", 25.0) as writer:
        for number in range(12):
            writer.write(np.full((48, 64, 3), 9 * number, np.uint8))
    return tmp_path / "walk.mp4"


FACTS = dict(source="walk.mp4", fps=25.0, width=64, height=48, network="my_network", seed=7)


def known_tracker():
    """Return a tracker that says its network and seed."""
    tracker = Counter()
    tracker.network, tracker.params = "my_network", type("Params", (), {"seed": 7})()
    return tracker


@pytest.mark.parametrize("boxes", [(0, 0, 9, 9), {0: (0, 0, 9, 9), 6: (6, 0, 9, 9)}], ids=["forward", "key frames"])
@pytest.mark.parametrize("part", [iter, list, lambda rows: list(rows)[3:9]], ids=["iterator", "list", "slice"])
def test_rows_of_track_are_written_with_what_they_know(clip, tmp_path, boxes, part):
    write_results(tmp_path / "r.json", part(track(clip, boxes, known_tracker())))
    read = json.loads((tmp_path / "r.json").read_text())
    assert {name: read[name] for name in FACTS} == FACTS


def test_rows_of_track_are_written_in_every_layout(clip, tmp_path):
    rows = list(track(clip, (0, 0, 9, 9), known_tracker()))
    for layout in (*WRITERS, "pytracking", "yolo"):
        assert write_results(tmp_path / layout, rows, layout=layout)
    video = {"id": 1, "name": "walk.mp4", "fps": 25.0, "width": 64, "height": 48}
    assert json.loads((tmp_path / "coco").read_text())["videos"] == [video]
    assert (tmp_path / "yolo" / "labels" / "frame_000000.txt").read_text() == "0 0.070312 0.093750 0.140625 0.187500\n"


def test_what_is_not_known_is_null_or_left_out(folder, tmp_path):
    """A folder has no frame rate, this tracker no network and no seed; rows of one's own have no origin at all."""
    write_results(tmp_path / "r.json", track(folder, (0, 0, 9, 9), Counter()))
    read = json.loads((tmp_path / "r.json").read_text())
    unknown = dict.fromkeys(FACTS)
    assert {name: read[name] for name in FACTS} == unknown | dict(source="frames", width=60, height=40)
    write_results(tmp_path / "r.json", ROWS)
    read = json.loads((tmp_path / "r.json").read_text())
    assert {name: read[name] for name in FACTS} == unknown
    write_results(tmp_path / "r.coco.json", ROWS, ResultInfo(size_wh=(200, 100)))
    read = json.loads((tmp_path / "r.coco.json").read_text())
    assert read["videos"] == [{"id": 1, "width": 200, "height": 100}] and read["images"][0]["file_name"] == "000000.jpg"


def test_rows_of_several_origins_keep_what_they_share(clip, folder, tmp_path):
    other = known_tracker()
    other.params.seed = 8
    rows = [*track(clip, (0, 0, 9, 9), known_tracker()), *track(clip, (0, 0, 9, 9), other)]
    write_results(tmp_path / "r.json", rows)
    read = json.loads((tmp_path / "r.json").read_text())
    assert {name: read[name] for name in FACTS} == FACTS | {"seed": None}
    with pytest.raises(ConfigError, match="coco needs the size of a frame"):
        write_results(tmp_path / "r.coco.json", [*rows, *track(folder, (0, 0, 9, 9), other)])
    write_results(tmp_path / "r.json", rows, INFO)
    assert json.loads((tmp_path / "r.json").read_text())["source"] == "walk.mp4" == INFO.source


@pytest.mark.parametrize("name", ["r.coco.json", "r.yolo"])
def test_a_size_that_is_not_known_is_asked_for_before_the_work(tmp_path, name):
    """The message names the argument and the import."""
    later = iter(ROWS)
    advice = r"info=ResultInfo\(size_wh=.*`from ebmtrack.viewers.results import ResultInfo`"
    with pytest.raises(ConfigError, match=advice):
        write_results(tmp_path / name, later)
    assert list(later) == ROWS[1:]


def test_no_rows_are_a_file_without_rows(tmp_path):
    write_results(tmp_path / "r.json", [])
    assert json.loads((tmp_path / "r.json").read_text())["results"] == []


def test_boxes_that_are_none_are_refused(folder):
    with pytest.raises(ConfigError, match="four numbers"):
        list(track(folder, (1, 2, 3), Counter()))


def test_the_package_offers_track():
    """`ebmtrack.track` is the generator of viewers/follow.py, also in dir(ebmtrack)."""
    import ebmtrack
    from ebmtrack.viewers import follow

    assert ebmtrack.track is follow.track and "track" in dir(ebmtrack)
