"""Labels beside frames: what `ebmtrack track` and labelling tools write is evaluated and trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ebmtrack.data.pool import open_training_folder
from ebmtrack.errors import DatasetError
from ebmtrack.evaluation.evaluate import evaluate
from ebmtrack.videos.labels import FILES, find_labels, read_labels
from ebmtrack.videos.opening import open_dataset
from ebmtrack.viewers.results import FrameResult, ResultInfo, write_results
from tests.support.evaluation_stub import StubFactory
from tests.support.trees import exif_jpeg, save_image

SIZE_WH = (80, 60)
INFO = ResultInfo("walk", 25.0, SIZE_WH, "", None)


def clip(place: Path, count: int = 6) -> Path:
    """Write frames; return the sequence's folder."""
    for frame in range(count):
        save_image(place / "img" / f"{frame + 1:04d}.jpg", size_wh=SIZE_WH)
    return place


def rows_of(target: int, frames: range, lost: tuple[int, ...] = ()) -> list[FrameResult]:
    """Return rows of a target that moves to the right."""
    return [
        FrameResult(k, target, (5.0 * target + k, 10.5, 20.0, 15.0), 0.9, "not_found" if k in lost else "normal")
        for k in frames
    ]


@pytest.mark.parametrize("name", [*(name for name in FILES if name != "gt/gt.txt"), "labels"])
def test_what_track_writes_is_read_back(tmp_path: Path, name: str) -> None:
    """Two targets, one lost in a frame, one that begins in the third: sequences with NaN, from their first frame on."""
    place = clip(tmp_path / "walk")
    rows = rows_of(1, range(6), lost=(4,)) + rows_of(2, range(2, 6))
    write_results(place / name, rows, INFO, "yolo" if name == "labels" else None)
    found = open_dataset("folder", tmp_path)
    assert found.names == ("walk#1", "walk#2")
    first, second = (found.load(each) for each in found.names)
    expected = np.array([[5.0 + k, 10.5, 20, 15] for k in range(6)])
    expected[4] = np.nan
    np.testing.assert_allclose(first.boxes_xywh, expected, atol=1e-3)
    np.testing.assert_allclose(second.boxes_xywh[:, 0], [12, 13, 14, 15], atol=1e-3)
    assert [path.name for path in second.frame_paths()] == ["0003.jpg", "0004.jpg", "0005.jpg", "0006.jpg"]
    assert first.usable.tolist() == [True, True, True, True, False, True]


def test_labels_are_evaluated(tmp_path: Path) -> None:
    """A single target is a sequence of its folder's name."""
    write_results(clip(tmp_path / "data" / "walk") / "labels.csv", rows_of(1, range(6)), INFO)
    scores = evaluate(["stub"], "folder", tmp_path / "data", out=tmp_path / "out", workers=0, factory=StubFactory())
    assert scores.complete and list(scores.scores["stub"][0]) == ["walk"]


def test_labels_are_trained_on_and_clips_are_held_back_whole(tmp_path: Path) -> None:
    """Of two clips with two targets each, both targets of one are for validation."""
    for name, file in (("a", "labels.xml"), ("b", "labels.mot.txt")):
        write_results(clip(tmp_path / name) / file, rows_of(1, range(6)) + rows_of(2, range(6)), INFO)
    parts = [open_training_folder(tmp_path, part)["video"] for part in ("train", "validation")]
    names = [[part.target_name(index) for index in range(len(part))] for part in parts]
    assert sorted(names) == [["a#1", "a#2"], ["b#1", "b#2"]]
    assert parts[0].frame(0, 0).shape == (60, 80, 3) and parts[0].visible(0).all()


def test_motchallenge_as_it_is_published(tmp_path: Path) -> None:
    """img1/ and gt/gt.txt, whose rows with a flag of 0 are to be ignored."""
    for frame in range(3):
        save_image(tmp_path / "MOT17-02" / "img1" / f"{frame + 1:06d}.jpg", size_wh=SIZE_WH)
    (tmp_path / "MOT17-02" / "gt").mkdir()
    text = "1,7,11,21,30,40,1,1,1\n2,7,12,21,30,40,1,1,0.9\n1,8,1,1,5,5,0,8,1\n"
    (tmp_path / "MOT17-02" / "gt" / "gt.txt").write_text(text)
    sequence = open_dataset("folder", tmp_path).load("MOT17-02")
    assert sequence.boxes_xywh[:2].tolist() == [[10, 20, 30, 40], [11, 20, 30, 40]] and np.isnan(
        sequence.boxes_xywh[2, 0]
    )


def test_yolo_labels_of_other_tools_have_the_names_of_the_frames(tmp_path: Path) -> None:
    """Not the numbers in them."""
    place = tmp_path / "walk"
    for name in ("b7", "b8", "b9"):
        save_image(place / "images" / f"{name}.jpg", size_wh=SIZE_WH)
    (place / "labels").mkdir()
    (place / "labels" / "b8.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    sequence = open_dataset("folder", tmp_path).read("walk")
    assert sequence.skip == 1 and sequence.boxes_xywh[0].tolist() == [30, 15, 20, 30]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("start", [0, 3])
def test_yolo_labels_of_track_count_from_zero_whatever_the_frames_are_called(
    tmp_path: Path, first: int, start: int
) -> None:
    """Frames of ffmpeg (from 1) have names like ours, one further on; files of macOS and LabelImg are no labels."""
    place = tmp_path / "walk"
    for frame in range(6):
        save_image(place / "img" / f"frame_{first + frame:06d}.jpg", size_wh=SIZE_WH)
    write_results(place / "labels", rows_of(1, range(start, 6)), INFO, "yolo")
    (place / "labels" / "._frame_000000.txt").write_bytes(b"\0\5\x16\7")
    (place / "labels" / "classes.txt").write_text("target\n")
    sequence = open_dataset("folder", tmp_path).read("walk")
    assert sequence.skip == start
    np.testing.assert_allclose(sequence.boxes_xywh[:, 0], [5.0 + k for k in range(start, 6)], atol=1e-3)


def test_yolo_labels_of_every_second_frame_beside_names_like_ours_are_refused(tmp_path: Path) -> None:
    """Nobody can know whether frame_000002 is the second picture, which has this name, or the third."""
    for name in range(0, 10, 2):
        save_image(tmp_path / "walk" / "img" / f"frame_{name:06d}.jpg", size_wh=SIZE_WH)
    write_results(tmp_path / "walk" / "labels", rows_of(1, range(0, 5, 2)), INFO, "yolo")
    with pytest.raises(DatasetError, match=r"frame_000002\.txt: is it frame 1, .* or frame 2 as .*another layout"):
        open_dataset("folder", tmp_path).read("walk")


@pytest.mark.parametrize(
    "row, what",
    [
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6", "a polygon"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6", "a polygon"),
        ("0 20 20 10 10", "a box in pixels"),
        ("0 0.5 0.5 0.25 0.5 0.9 7", ""),
        ("0 0.5 0.5 0.25 0.5 0.9", ""),
    ],
)
def test_yolo_rows_are_boxes_in_parts_of_the_frame(tmp_path: Path, row: str, what: str) -> None:
    """A tracker's rows go on with confidence and id; polygons and pixels would be boxes elsewhere."""
    place = clip(tmp_path / "walk")
    (place / "labels").mkdir()
    (place / "labels" / "0001.txt").write_text(row)
    if what:
        with pytest.raises(DatasetError, match=rf"0001.txt, line 1: .* looks like {what}"):
            open_dataset("folder", tmp_path)
    else:
        assert open_dataset("folder", tmp_path).load("walk").boxes_xywh[0].tolist() == [30, 15, 20, 30]


@pytest.mark.parametrize(
    "change, what",
    [
        ({"bbox": [1, 2, 3]}, "not labels as"),
        ({"bbox": [1, 2, 3, 4, 5]}, "not labels as"),
        ({"track_id": 1.5, "bbox": [1, 2, 3, 4]}, "not labels as .*1.5 is no whole number"),
        ({"frame_id": 0.5}, "not labels as .*0.5 is no whole number"),
        ({"id": 0}, "two images have the id 0"),
        ({"video_id": 2}, "has images of 2 videos"),
    ],
)
def test_coco_video_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict, what: str) -> None:
    """Boxes are four numbers, images of merged files may have one id, and frames of other videos are others."""
    write_results(clip(tmp_path / "walk") / "labels.coco.json", rows_of(1, range(2)), INFO)
    content = json.loads((tmp_path / "walk" / "labels.coco.json").read_text())
    content["annotations" if "bbox" in change else "images"][1] |= change
    (tmp_path / "walk" / "labels.coco.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"labels.coco.json: {what}"):
        open_dataset("folder", tmp_path).load("walk")


def test_labels_of_our_own_are_read_however_large_and_an_image_that_is_listed_twice(tmp_path: Path) -> None:
    rows = [FrameResult(0, 1, (-60.0, 5.0, 200.0, 20.0), 0.9, "normal")]
    write_results(clip(tmp_path / "wide") / "labels", rows, INFO, "yolo")
    write_results(clip(tmp_path / "twice") / "labels.coco.json", rows_of(1, range(2)), INFO)
    content = json.loads((tmp_path / "twice" / "labels.coco.json").read_text())
    content["images"].append(content["images"][0])
    (tmp_path / "twice" / "labels.coco.json").write_text(json.dumps(content))
    found = open_dataset("folder", tmp_path)
    assert found.load("wide").boxes_xywh[0].tolist() == pytest.approx([-60, 5, 200, 20], abs=1e-3)
    assert len(found.load("twice")) >= 2


@pytest.mark.parametrize("names", [range(0, 60, 10), (0, 1, 3, 4, 5)])
def test_yolo_labels_whose_numbers_no_frame_can_have_go_by_names(tmp_path: Path, names: range) -> None:
    for name in names:
        save_image(tmp_path / "walk" / "img" / f"frame_{name:06d}.jpg", size_wh=SIZE_WH)
    write_results(tmp_path / "walk" / "labels", rows_of(1, names), INFO, "yolo")
    boxes = open_dataset("folder", tmp_path).read("walk").boxes_xywh
    np.testing.assert_allclose(boxes[:, 0], [5.0 + k for k in names], atol=1e-3)


def test_pictures_without_tracks_have_a_target_for_each_category(tmp_path: Path) -> None:
    """CVAT for images: frames have the names of the pictures. COCO without track ids may be photographs."""
    box = '<box label="{}" xtl="4" ytl="3" xbr="24" ybr="13"/>'
    image = f'<image id="9" name="0002.jpg" width="80" height="60">{box.format("cup")}{box.format("dog")}</image>'
    (clip(tmp_path / "cvat") / "labels.xml").write_text(f"<annotations>{image}</annotations>")
    images: list[dict[str, Any]] = [{"id": 7, "file_name": "0002.jpg", "width": 80, "height": 60}]
    entries = [{"id": k, "image_id": 7, "category_id": k, "bbox": [4, 3, 20, 10]} for k in (4, 5)]
    content = {"images": images, "annotations": entries, "categories": [{"id": 4, "name": "a"}, {"id": 5, "name": "b"}]}
    found = open_dataset("folder", tmp_path)
    assert found.names == ("cvat#1", "cvat#2")
    for name in found.names:
        sequence = found.read(name)
        assert sequence.skip == 1 and sequence.boxes_xywh[0].tolist() == [4, 3, 20, 10]
    (clip(tmp_path / "coco") / "labels.coco.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="annotation 4 has no track_id: photographs go to FOLDER/coco"):
        open_dataset("folder", tmp_path)
    images.append({"id": 8, "file_name": "0003.jpg", "frame_id": 2})
    (tmp_path / "coco" / "labels.coco.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="image 7 has no frame_id, and others have one; give it to all"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    "names, what",
    [
        (("0001", "0009"), "0009.txt: no frame is called 0009; remove it or rename it like its frame"),
        (("a_1", "b_1"), "b_1.txt: is of the same frame as a_1.txt; rename both"),
        (("notes",), "notes.txt: no frame is called notes"),
        (("clip_9",), "target 1, frame 9: .*there are 6 frames"),
    ],
)
def test_yolo_labels_without_a_frame_are_named(tmp_path: Path, names: tuple[str, ...], what: str) -> None:
    folder = clip(tmp_path / "walk") / "labels"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(DatasetError, match=what):
        open_dataset("folder", tmp_path).read("walk")


def test_folders_with_files_of_macos_alone_hold_no_labels(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "._frame_000000.txt").write_bytes(b"\0\5\x16\7")
    assert find_labels(tmp_path) is None


@pytest.mark.parametrize(
    "name, text, what",
    [
        ("labels.csv", 'frame,id,x,y,w,h\n0,1,2,3,4,5\n\n1,1,"2,3,4,5\n' + "2,1,2,3,4,5\n" * 9, "line 4: .*is no row"),
        ("labels.csv", 'frame,id,x,y,w,h,verdict\n0,1,2,3,4,5,"normal\n1,1,2,3,4,5,normal"\n', "line 2: .*is no row"),
        ("labels.csv", f"frame,id,x,y,w,h\n0,1,{'2' * 200_000},3,4,5\n", "line 2: .*is no row"),
        (
            "labels.csv",
            "frame,id,x,y,w\n0,1,2,3,4\n",
            "no column h in its .*'frame,id,x,y,w'; write frame,id",
        ),
        ("labels.csv", "Frame,ID,X, y,w,h\n0,1,2,3,4,5\n", "no column frame, x, y in its .*, in small letters without"),
        (
            "labels.csv",
            "frame;x;y;w;h\n0;2;3;4;5\n",
            "no column frame, x, y, w, h in its .*'frame;x.* there$",
        ),
        ("labels.csv", "frame,id,x,y,w,h\n0,1,2,3\n", "line 2: too short, without 'w'; it needs frame,id,x,y,w,h"),
        ("labels.csv", "frame,id,x,y,w,h\n0,1,2,3,four,5\n", "line 2: not a number"),
        ("labels.csv", "frame,id,x,y,w,h\n99,1,2,3,4,5\n", "target 1, frame 99: .*there are 6 frames"),
        ("labels.csv", "frame,id,x,y,w,h\n0,1,2,3,4,5\n0,1,2,3,4,5\n", "target 1 has two boxes in frame 0"),
        ("labels.csv", "frame,id,x,y,w,h\n", "holds no box"),
        ("labels.mot.txt", "1,1,2\n", "line 1: '1,1,2' is no row"),
        ("labels.json", '{"results": [{"frame": 0}]}', "not labels as .*KeyError"),
        ("labels.json", "[1, 2]", "not labels as"),
        (
            "labels.json",
            '{"images": [], "annotations": [{"id": 3, "bbox": [1, 2, 3, 4]}]}',
            "annotation 3 has no track_id",
        ),
        ("labels.xml", "<annotations><track id='0'><box frame='0'/></track></annotations>", "not labels as .*xtl"),
        ("labels.json", "[" * 100000, "not labels as .*RecursionError"),
        ("labels.xml", "<annotations>", "not labels as CVAT writes them .*ParseError.*make a damaged one anew"),
        ("labels/0001.txt", "0 0.5 0.5\n", "0001.txt, line 1: .* is no row class"),
        ("labels/0001.txt", "0 .5 .5 .1 .1\n0 .6 .6 .1 .1\n", "two boxes in frame 0; give each target a category"),
        ("labels/0001.txt", "inf .5 .5 .1 .1\n", "0001.txt, line 1: .* is no row class"),
        ("labels/0001.txt", "nan .5 .5 .1 .1\n", "0001.txt, line 1: .* is no row class"),
        ("labels.mot.txt", "inf,1,2,3,4,5\n", "line 1: .* is no row frame,id"),
        ("labels.mot.txt", "10.5,1,2,3,4,5\n", "line 1: .* is no row frame,id"),
        ("labels.mot.txt", "1,20.5,3,4,50,60,7,8\n", "line 1: .* is no row frame,id"),
        ("labels/0001.txt", "0.7 .5 .5 .1 .1\n", "0001.txt, line 1: .* is no row class"),
        ("labels.json", '{"results": [{"frame": 1.5, "x": 1, "y": 2, "w": 3, "h": 4}]}', "1.5 is no whole number"),
        ("labels.json", '{"results": [{"frame": 1e400, "x": 1, "y": 2, "w": 3, "h": 4}]}', "not labels as .*Overflow"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, name: str, text: str, what: str) -> None:
    """The file, the line or entry, and what is wrong."""
    path = clip(tmp_path / "walk") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(DatasetError, match=what):
        open_dataset("folder", tmp_path).read("walk")


DECLARED = {
    "labels.json": '{{"width": {w}, "height": {h}, "results": [{{"frame": 1, "x": 4, "y": 3, "w": 20, "h": 10}}]}}',
    "labels.coco.json": '{{"images": [{{"id": 7, "frame_id": 1, "width": {w}, "height": {h}}}], "annotations": '
    '[{{"id": 1, "image_id": 7, "track_id": 1, "bbox": [4, 3, 20, 10]}}]}}',
    "labels.xml": "<annotations><meta><task><original_size><width>{w}</width><height>{h}</height></original_size>"
    "</task></meta><track id='0'><box frame='1' outside='0' xtl='4' ytl='3' xbr='24' ybr='13'/></track></annotations>",
    "gt/gt.txt": "2,1,5,4,20,10,1,1,1\n",
}


@pytest.mark.parametrize("name", DECLARED)
def test_labels_of_frames_of_another_size_are_refused(tmp_path: Path, name: str) -> None:
    """Their boxes would be elsewhere; of the right size, the box is where it was drawn."""
    place = clip(tmp_path / "walk")
    (place / name).parent.mkdir(exist_ok=True)
    for width, height in (SIZE_WH, (2 * SIZE_WH[0], 2 * SIZE_WH[1])):
        (place / name).write_text(DECLARED[name].format(w=width, h=height))
        if name == "gt/gt.txt":
            (place / "seqinfo.ini").write_text(f"[Sequence]\nseqLength=6\nimWidth={width}\nimHeight = {height}\n")
        found = open_dataset("folder", tmp_path)
        if (width, height) == SIZE_WH:
            assert found.read("walk").boxes_xywh[0].tolist() == [4, 3, 20, 10]
        else:
            with pytest.raises(DatasetError, match=r"000[12].jpg: 80 x 60 pixels, but it was annotated as 160 x 120"):
                found.read("walk")


@pytest.mark.parametrize("name", ["labels.json", "labels.coco.json", "labels.xml"])
@pytest.mark.parametrize("orientation", [6, 8])
def test_labels_of_the_stored_pixels_of_turned_pictures_are_refused_with_the_reason(
    tmp_path: Path, name: str, orientation: int
) -> None:
    """And taken if they are of the picture as it is shown."""
    for frame in range(6):
        exif_jpeg(tmp_path / "walk" / "img" / f"{frame}.jpg", SIZE_WH, orientation)
    (tmp_path / "walk" / name).write_text(DECLARED[name].format(w=80, h=60))
    with pytest.raises(DatasetError, match=r"60 x 80 .* as 80 x 60, .* \(EXIF orientation\) .*exiftool"):
        open_dataset("folder", tmp_path).read("walk")
    (tmp_path / "walk" / name).write_text(DECLARED[name].format(w=60, h=80))
    assert len(open_dataset("folder", tmp_path).read("walk").boxes_xywh)


@pytest.mark.parametrize(
    "name, w, h", [("labels.json", "1e400", 60), ("labels.json", "NaN", 60), ("labels.xml", "", 1)]
)
def test_a_size_that_no_picture_has_says_nothing(tmp_path: Path, name: str, w: str, h: int) -> None:
    place = clip(tmp_path / "walk")
    (place / name).write_text(DECLARED[name].format(w=w, h=h))
    assert open_dataset("folder", tmp_path).read("walk").boxes_xywh[0].tolist() == [4, 3, 20, 10]


@pytest.mark.parametrize(
    "content",
    [
        b"[Sequence]\rimWidth=9\rimHeight=9",
        b"name=\xe9\n imwidth = 9\n IMHEIGHT=9.0\n",
        b"\xef\xbb\xbfimWidth=9 ; pixels\nimHeight=9# too\n",
        "imWidth=9\r\nimHeight=9\r\n".encode("utf-16"),
    ],
)
def test_spellings_of_seqinfo(tmp_path: Path, content: bytes) -> None:
    """Of any case, indent, end of line and encoding."""
    place = clip(tmp_path / "walk")
    (place / "gt").mkdir()
    (place / "gt" / "gt.txt").write_text(DECLARED["gt/gt.txt"])
    (place / "seqinfo.ini").write_bytes(content)
    with pytest.raises(DatasetError, match=r"80 x 60 pixels, but it was annotated as 9 x 9, .*seqinfo\.ini"):
        open_dataset("folder", tmp_path).read("walk")


def test_coco_video_is_refused_if_a_later_frame_has_another_size(tmp_path: Path) -> None:
    """And taken if the frames change their size as the file says."""
    place = clip(tmp_path / "walk")
    images = [{"id": k, "frame_id": k, "width": 40 if k > 3 else 80, "height": 60} for k in range(6)]
    box = {"id": 1, "image_id": 0, "track_id": 1, "bbox": [4, 3, 20, 10]}
    (place / "labels.coco.json").write_text(json.dumps({"images": images, "annotations": [box]}))
    with pytest.raises(DatasetError, match="0005.jpg: 80 x 60 pixels, but it was annotated as 40 x 60"):
        open_dataset("folder", tmp_path).read("walk")
    for number in (5, 6):
        save_image(place / "img" / f"{number:04d}.jpg", size_wh=(40, 60))
    assert open_dataset("folder", tmp_path).read("walk").boxes_xywh[0].tolist() == [4, 3, 20, 10]


def test_yolo_labels_decode_no_frame(tmp_path: Path, monkeypatch) -> None:
    """Their boxes are parts of frames, whose sizes are in the files' headers."""
    write_results(clip(tmp_path / "walk") / "labels", rows_of(1, range(6)), INFO, "yolo")
    monkeypatch.setattr(cv2, "imdecode", None)
    assert len(open_dataset("folder", tmp_path).read("walk").boxes_xywh) == 6


def test_yolo_boxes_are_parts_of_their_own_frame(tmp_path: Path) -> None:
    for number, side in enumerate((100, 200)):
        save_image(tmp_path / "walk" / f"{number}.jpg", size_wh=(side, side))
        (tmp_path / "walk" / "labels").mkdir(exist_ok=True)
        (tmp_path / "walk" / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    boxes = open_dataset("folder", tmp_path).read("walk").boxes_xywh
    np.testing.assert_allclose(boxes, [[40, 40, 20, 20], [80, 80, 40, 40]])


def test_two_files_of_labels_are_one_too_many(tmp_path: Path) -> None:
    """Nobody can know which is right."""
    for name in ("labels.csv", "labels.xml"):
        write_results(clip(tmp_path) / name, rows_of(1, range(6)), INFO)
    with pytest.raises(DatasetError, match="labels.csv or labels.xml. Keep one"):
        find_labels(tmp_path)
    (tmp_path / "labels.xml").unlink()
    assert list(read_labels(tmp_path / "labels.csv", []).tracks) == [1]
