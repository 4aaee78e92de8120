"""Key frames from files: what `ebmtrack track` and labelling tools write is tracked through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import write_picture
from ebmtrack.videos.labels import extent_xywh, read_labels
from ebmtrack.viewers.follow import track
from ebmtrack.viewers.key_files import is_key_file, read_given
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.results import FrameResult, ResultInfo, write_results
from ebmtrack.viewers.track_video import track as track_video
from ebmtrack.viewers.video_file import VideoWriter

SIZE_WH = (120, 80)
INFO = ResultInfo("film", 25.0, SIZE_WH)
FILES = ["k.csv", "k.json", "k.coco.json", "k.xml", "k.mot.txt", "k.mot", "k.yolo"]
WITH_NAMES = ["k.coco.json", "k.xml", "k.yolo"]


class Still:
    """A tracker of a target that does not move."""

    def init(self, image, box_xywh, seed=None):
        self.box = box_xywh

    def update(self, image):
        return type("Answer", (), dict(box_xywh=self.box, score=0.6, verdict="normal", found=True))()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A video of 40 frames."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    with VideoWriter(path, 25.0) as writer:
        for number in range(40):
            writer.write(np.full((80, 120, 3), number, np.uint8))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures that are called b3 to b8."""
    place = tmp_path_factory.mktemp("pictures")
    for number in range(3, 9):
        write_picture(place / f"b{number}.png", np.zeros((80, 120, 3), np.uint8))
    return place


def rows_of(target: int, frames: range) -> list[FrameResult]:
    """Return rows of a target that moves to the right; lost in frame 20."""
    return [
        FrameResult(k, target, (10.5 * target + k, 20.25, 30.0, 24.0), 0.9, "not_found" if k == 20 else "normal")
        for k in frames
    ]


def keys_of(path: Path, source: object) -> list[tuple]:
    """Return target, frame and box of the key frames of a file, in this order, to a hundredth of a pixel."""
    return sorted(
        (key.id, key.frame, *(round(value, 2) for value in key.box_xywh)) for key in read_given([path], source).keys
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("category", [None, {1: "cup", 3: "dog"}])
def test_what_track_writes_is_read_back(film: Path, tmp_path: Path, name: str, category: dict | None) -> None:
    """Every tenth row, without the one of a lost target; targets keep their numbers, and categories their names."""
    if name == "k.yolo" and category:
        category = {1: "cup", 2: "dog"}  # classes have no gap
    rows = rows_of(1, range(0, 40, 10)) + rows_of(2 if name == "k.yolo" and category else 3, range(5, 40, 10))
    write_results(tmp_path / name, rows, replace(INFO, category=category))
    assert keys_of(tmp_path / name, film) == [(row.id, row.frame, *row.box_xywh) for row in rows if row.found]
    assert read_given([tmp_path / name], film).names == (category if category and name in WITH_NAMES else {})


@pytest.mark.parametrize("name", FILES)
def test_a_video_is_tracked_through_the_key_frames_of_a_file(film: Path, tmp_path: Path, name: str) -> None:
    """From the command and from Python alike; given boxes are kept, and both targets are tracked between them."""
    rows = rows_of(1, range(0, 20, 10)) + rows_of(2, range(4, 20, 10))
    write_results(tmp_path / name, rows, INFO)
    result = track_video(film, Still, str(tmp_path / name), boxes=tmp_path / "out.csv", end="19")
    assert [(row.frame, row.id) for row in result.rows if row.verdict == "start"] == [(0, 1), (4, 2), (10, 1), (14, 2)]
    assert sorted({row.frame for row in result.rows if row.id == 2}) == list(range(4, 20))
    assert list(track(film, tmp_path / name, Still(), end=19)) == result.rows


def test_boxes_of_the_first_frame_keep_their_numbers(film: Path, tmp_path: Path) -> None:
    """The video is read once from front to end then; more boxes of the command are further targets."""
    write_results(tmp_path / "k.csv", rows_of(7, range(1)))
    assert {row.id for row in track(film, str(tmp_path / "k.csv"), Still(), end=3)} == {7}
    result = track_video(film, Still, [str(tmp_path / "k.csv"), "9:1,2,30,40", "2,2,9,9"], save=tmp_path / "o.avi")
    assert {row.id for row in result.rows} == {1, 7, 8}


def cvat_video(*boxes: str) -> str:
    """Return a file of CVAT with a track of boxes, which are given by their attributes."""
    box = '<box {} xtl="10" ytl="20" xbr="40" ybr="44.5"/>'
    return f'<annotations><track id="0" label="cup">{"".join(map(box.format, boxes))}</track></annotations>'


def test_of_a_track_of_cvat_key_frames_are_taken_alone(film: Path, tmp_path: Path) -> None:
    """Neither what CVAT has interpolated, nor what is outside."""
    flags = "frame='{}' keyframe='{}' outside='{}'"
    boxes = [flags.format(*values) for values in ((0, 1, 0), (1, 0, 0), (2, 0, 0), (8, 1, 0), (9, 1, 1))]
    (tmp_path / "k.xml").write_text(cvat_video(*boxes, "frame='12'"))
    given = read_given([tmp_path / "k.xml"], film)
    assert given.keys == [KeyFrame(frame, 1, (10, 20, 30, 24.5)) for frame in (0, 8, 12)] and given.names == {1: "cup"}


@pytest.mark.parametrize("turned, upright", [(90, (12.75, 17.25, 24.5, 30)), (-180, (10, 20, 30, 24.5))])
def test_a_box_that_is_turned_in_cvat_is_read_as_the_upright_box_around_it(
    film: Path, tmp_path: Path, turned: float, upright: tuple
) -> None:
    """CVAT gives the corners before it turns a box about its centre, in degrees."""
    (tmp_path / "k.xml").write_text(cvat_video(f"frame='2' rotation='{turned}'"))
    assert [key.box_xywh for key in read_given([tmp_path / "k.xml"], film).keys] == [pytest.approx(upright)]
    attributes = '{"track_id": %d, "rotation": ' + str(turned) + "}"
    (tmp_path / "k.json").write_text(coco_images("frame_000003.PNG", attributes=attributes))
    (tmp_path / "u.json").write_text(coco_images("frame_000003.PNG", attributes='{"track_id": %d}'))
    for turned_key, key in zip(*(read_given([tmp_path / name], film).keys for name in ("k.json", "u.json"))):
        assert turned_key.box_xywh == pytest.approx(extent_xywh(list(key.box_xywh), turned))


def test_the_extent_of_a_turned_box_is_that_of_its_corners() -> None:
    """Of four corners turned by a rotation matrix, for any angle; quarters of a turn change the sides exactly."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        x, y, w, h = box = rng.uniform(1, 50, 4).tolist()
        turned = rng.uniform(-400, 400)
        cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ np.array([[cos, sin], [-sin, cos]])
        corners += [x + w / 2, y + h / 2]
        assert np.allclose(extent_xywh(box, turned), [*corners.min(0), *np.ptp(corners, 0)], atol=1e-8)
    assert extent_xywh([10.0, 20.0, 40.0, 20.0], 270)[2:] == [20.0, 40.0]


def test_a_lost_row_needs_no_box(film: Path, tmp_path: Path) -> None:
    """Other programs leave the fields of a frame without the target empty."""
    (tmp_path / "k.csv").write_text("frame,id,x,y,w,h,verdict\n0,1,1,2,30,40,normal\n1,1,,,,,not_found\n")
    assert [key.frame for key in read_given([tmp_path / "k.csv"], film).keys] == [0]


def cvat_images(*names: str, labels: str = "ab") -> str:
    """Return CVAT for images, with a box of each label in each picture."""
    boxes = [f'<box label="{label}" xtl="{10 * k}" ytl="20" xbr="40" ybr="44"/>' for k, label in enumerate(labels)]
    images = [
        f'<image id="{k}" name="{name}" width="120" height="80">{"".join(boxes)}</image>'
        for k, name in enumerate(names)
    ]
    return f"<annotations>{''.join(images)}</annotations>"


def coco_images(*names: str, attributes: str = "{}") -> str:
    """Return COCO as CVAT exports it: images count from 1, and frames are in their names."""
    images = [{"id": k, "file_name": name, "width": 120, "height": 80} for k, name in enumerate(names, 1)]
    entries = [
        {"id": 2 * k + kind, "image_id": k, "category_id": kind, "bbox": [10 * (kind - 1), 20, 30, 24]}
        | {"attributes": json.loads(attributes % (kind - 1) if "%" in attributes else attributes)}
        for k in range(1, len(names) + 1)
        for kind in (1, 2)
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return json.dumps({"images": images, "annotations": entries, "categories": categories})


@pytest.mark.parametrize("name, write", [("k.xml", cvat_images), ("k.json", coco_images)])
def test_pictures_without_tracks_have_a_target_for_each_category(
    film: Path, folder: Path, tmp_path: Path, name: str, write
) -> None:
    """Their frames are those of their names: pictures of a folder, and the numbers in them in a video, from 0."""
    for source, pictures, frames in (
        (film, ("frame_000000.PNG", "frame_000030.PNG"), (0, 30)),
        (folder, ("c/b4.png", "c/b8.png"), (1, 5)),
    ):
        (tmp_path / name).write_text(write(*pictures))
        given = read_given([tmp_path / name], source)
        assert sorted((key.id, key.frame) for key in given.keys) == [(id, frame) for id in (1, 2) for frame in frames]
        assert given.names == {1: "a", 2: "b"} and given.keys[-1].box_xywh[0] == 10


SHAPES = '<polygon frame="1" keyframe="1" outside="0" points="1,2;3,4;5,6"/>'
LOST_ROWS = "frame,id,x,y,w,h,verdict\n0,1,10,20,30,24,normal\n3,2,10,20,30,24,not_found\n3,1,1,1,9,9,not_found\n"


@pytest.mark.parametrize(
    "name, text, left_out",
    [
        ("k.csv", LOST_ROWS, "target 2, without a box"),
        ("gt.txt", "1,1,10,20,30,24,1\n1,2,1,2,3,4,0\n1,3,1,2,3,4,0\n", "targets 2, 3, without a box"),
        (
            "k.xml",
            cvat_video("frame='0'").replace("</ann", '<track id="3" label="p"/></ann'),
            "target 4, without a box",
        ),
        (
            "k.xml",
            cvat_images("frame_000000").replace("</image>", "<points/><points/></image>"),
            "2 points (boxes alone are read)",
        ),
        (
            "k.json",
            json.dumps(
                json.loads(coco_images("frame_000000"))
                | {
                    "annotations": [
                        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]},
                        {
                            "id": 2,
                            "image_id": 1,
                            "category_id": 2,
                            "bbox": [1, 2, 30, 40],
                            "attributes": {"keyframe": False},
                        },
                        {"id": 3, "image_id": 1, "category_id": 2, "bbox": []},
                    ]
                }
            ),
            "1 annotation without bbox (boxes alone are read); target 2, without a box",
        ),
        (
            "k.xml",
            cvat_video("frame='0'").replace(
                "</annotations>", '<track id="1"><box frame="2" keyframe="0" outside="0"/></track></annotations>'
            ),
            "target 2, without a box",
        ),
        (
            "k.xml",
            cvat_video("frame='0'").replace("</annotations>", f'<track id="1">{2 * SHAPES}</track></annotations>'),
            "2 polygons (boxes alone are read)",
        ),
        ("k.xml", cvat_images("frame_000000").replace("</image>", "<mask/></image>"), "1 mask (boxes alone are read)"),
        (
            "k.xml",
            cvat_video("frame='0'").replace(
                "</annotations>",
                f'<track id="6"><box outside="1"/></track><track id="7">{SHAPES}</track></annotations>',
            ),
            "1 polygon (boxes alone are read); target 7, without a box",
        ),
    ],
)
def test_what_a_file_holds_besides_boxes_is_said(
    film: Path, tmp_path: Path, name: str, text: str, left_out: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.warns(UserWarning) as said:
        assert len({key.id for key in read_given([path], film).keys}) in (1, 2)
    assert [str(one.message) for one in said] == [f"{path}: left out: {left_out}"]


def test_a_file_of_polygons_alone_is_refused_with_their_number(film: Path, tmp_path: Path) -> None:
    (tmp_path / "k.xml").write_text(f'<annotations><track id="0">{3 * SHAPES}</track></annotations>')
    with pytest.raises(DatasetError, match=r"k.xml: holds no box; left out: 3 polygons \(boxes alone are read\)$"):
        read_given([tmp_path / "k.xml"], film)


def test_the_number_of_a_frame_is_not_one_of_the_hash_that_roboflow_adds(film: Path, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(coco_images("frame_000030_jpg.rf.1ab2c5.jpg"))
    assert [key.frame for key in read_given([tmp_path / "k.json"], film).keys] == [30, 30]


def test_boxes_of_a_picture_that_comes_twice_are_all_taken(film: Path, tmp_path: Path) -> None:
    """As in merged files of CVAT, in which each has the boxes of another label."""
    box = '<image name="frame_000003"><box label="{}" xtl="1" ytl="20" xbr="40" ybr="44"/></image>'
    (tmp_path / "k.xml").write_text(f"<annotations>{box.format('a')}{box.format('b')}</annotations>")
    assert [(key.id, key.frame) for key in read_given([tmp_path / "k.xml"], film).keys] == [(1, 3), (2, 3)]


@pytest.mark.parametrize("name, write", [("k.xml", cvat_images), ("k.json", coco_images)])
def test_pictures_of_one_name_in_two_folders_are_refused(folder: Path, tmp_path: Path, name: str, write) -> None:
    """Of two clips: at most one of them is tracked."""
    (tmp_path / name).write_text(write("one/b4.png", "other/b4.png"))
    with pytest.raises(DatasetError, match=r"image other/b4\.png: is of the same frame as one/b4\.png; rename both"):
        read_given([tmp_path / name], folder)


def test_targets_and_key_frames_in_coco_of_cvat(film: Path, tmp_path: Path) -> None:
    """They are in the attributes, and targets count from 0 there."""
    (tmp_path / "k.json").write_text(coco_images("frame_000003.PNG", attributes='{"track_id": %d, "keyframe": true}'))
    assert [(key.id, key.frame) for key in read_given([tmp_path / "k.json"], film).keys] == [(1, 3), (2, 3)]
    (tmp_path / "k.json").write_text(coco_images("frame_000003.PNG", attributes='{"track_id": %d, "keyframe": false}'))
    with pytest.raises(DatasetError, match=r"k\.json: holds no box"):
        read_given([tmp_path / "k.json"], film)


@pytest.mark.parametrize("place", ["data", "data/labels", "data/labels/train"])
@pytest.mark.parametrize(
    "file, text",
    [
        ("data.yaml", "path: .\nnames:\n  0: cup\n  1: 'a dog'  \nnc: 2\n"),
        ("data.yaml", 'nc: 2\nnames:  # all\n- cup\n- "a dog"\n'),
        ("data.yaml", "names: [cup, 'a dog']\n"),
        ("data.yaml", "names: ['cup]',\n        'a dog' ]  # [two]\nnc: 2\n"),
        ("data.yaml", 'names: {0: cup, 1: "a dog"}\n'),
        ("data.yaml", 'names:\n  0: "cup"\n  1: "a dog"  # "pet"\n'),
        ("classes.txt", "cup\na dog\n"),
    ],
)
def test_classes_of_yolo_are_named_by_the_file_beside_them(
    film: Path, tmp_path: Path, place: str, file: str, text: str
) -> None:
    labels = tmp_path / "data" / "labels" / "train" if place.endswith("train") else tmp_path / "data" / "labels"
    labels.mkdir(parents=True)
    (labels / "film_12.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "data" / file).write_text(text)
    given = read_given([tmp_path / place], film)
    assert given.keys == [KeyFrame(12, 2, (45, 20, 30, 40))] and given.names == {2: "a dog"}


@pytest.mark.parametrize("name", WITH_NAMES)
def test_what_the_targets_are_goes_into_the_results(film: Path, tmp_path: Path, name: str) -> None:
    """Unless the user says what they are."""
    write_results(
        tmp_path / name, rows_of(1, range(1)) + rows_of(2, range(1)), replace(INFO, category={1: "cup", 2: "dog"})
    )
    for category, names in ((None, {1: "cup", 2: "dog"}), ("pet", {1: "pet", 2: "pet"})):
        out = tmp_path / f"{category}.coco.json"
        one_by_one = [f"{tmp_path / name}", "20:1,2,30,40"]  # key frames: a Still follows one target at a time
        track_video(film, Still, one_by_one, boxes=out, category=category, end="21")
        assert read_given([out], film).names == names
    rows = list(track(film, tmp_path / name, Still(), end=3, direction="both"))
    write_results(tmp_path / "again.xml", rows)
    assert read_given([tmp_path / "again.xml"], film).names == {1: "cup", 2: "dog"}


HEAD = "frame,id,x,y,w,h\n"
SMALLER = '{"width": 60, "height": 40, "results": [{"frame": 1, "x": 4, "y": 3, "w": 20, "h": 10}]}'


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("k.csv", "", ": holds no box"),
        ("k.csv", HEAD, ": holds no box"),
        (
            "k.xml",
            cvat_video("frame='3'").replace("</ann", '<image name="0"><box label="a"/></image></ann'),
            ": has tracks and images, whose numbers would mix; give each a file of its own",
        ),
        ("k.xml", cvat_video("frame='3' outside='1'"), ": holds no box; left out: target 1, without a box"),
        (
            "k.zip",
            "",
            ": boxes are read from .csv, .json, .xml, .txt, .mot and folders of YOLO files; unpack archives, and give "
            "the folder that data.yaml is in",
        ),
        (
            "k.csv",
            f"{HEAD}0,1,2,3,40,40\n0,1,3,3,40,40\n",
            ", line 3: target 1 has two boxes in frame 0; give each target a number of its own",
        ),
        (
            "k.csv",
            f"{HEAD}0,1,2,3,0,40\n",
            ": target 1, frame 0: box (2, 3, 0, 40) must be at least one pixel and at most 1048576 pixels wide "
            "and high",
        ),
        (
            "k.csv",
            f"{HEAD}4,2,2,3,nan,40\n",
            ": target 2, frame 4: a box must be four finite numbers x, y, w, h, got [2.0, 3.0, nan, 40.0]",
        ),
        (
            "k.csv",
            f"{HEAD}4,2,200,3,10,40\n",
            ": target 2, frame 4: box (200, 3, 10, 40) is outside of the image, which is 120 x 80",
        ),
        (
            "k.csv",
            f"{HEAD}-1,1,2,3,4,40\n",
            ", line 2: target 1, frame -1: targets count from 1, and frames from 0",
        ),
        (
            "k.csv",
            f"{HEAD}1,0,2,3,4,40\n",
            ", line 2: target 0, frame 1: targets count from 1, and frames from 0",
        ),
        ("k.mot.txt", "0,1,2,3,40,40\n", ", line 1: frame 0: MOTChallenge counts frames from 1"),
        ("k.txt", "2,3,40,40\n", ", line 1: '2,3,40,40' is no row frame,id,x,y,w,h"),
        (
            "k.json",
            SMALLER,
            ": its boxes are for frames of 60 x 40 pixels, but those of FILM have 120 x 80: give the video that was "
            "labelled, or scale the boxes",
        ),
        (
            "k.xml",
            cvat_images("frame_000001", labels="aa"),
            ": image frame_000001: target 1 (a) has two boxes in frame 1; give each target a category of its own",
        ),
        (
            "k.xml",
            cvat_video("frame='3' rotation='nan'"),
            ": not labels as CVAT writes them (ValueError: a rotation of nan degrees); give a file of another "
            "layout the ending of that, and make a damaged one anew",
        ),
        (
            "k.xml",
            cvat_video("frame='3'", "frame='3'"),
            ": track 0: target 1 has two boxes in frame 3; give each target a number of its own",
        ),
        (
            "k.xml",
            cvat_images("walk"),
            ": image walk: no frame is called walk; rename it like its frame or by number, from 0",
        ),
        (
            "k.xml",
            cvat_video("frame='3'").replace("cup", "a&#10;b"),
            r": a category is a name that can be printed, such as person, not 'a\nb'",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused(film: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    """In the same words from the command and from Python, before anything is tracked or written."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((ConfigError, DatasetError)) as caught:
        track_video(film, Still, str(path), boxes=tmp_path / "out.csv", both=True)
    assert str(caught.value) == f"{path}{message.replace('FILM', str(film))}"
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises((ConfigError, DatasetError)) as caught:
        list(track(film, path, Still(), direction="both"))
    assert str(caught.value) == f"{path}{message.replace('FILM', str(film))}"


def test_a_frame_beyond_the_video_is_named_with_the_file(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "k.csv"
    path.write_text(f"{HEAD}0,1,2,3,40,40\n40,1,2,3,40,40\n")
    with pytest.raises(ConfigError) as caught:
        track_video(film, Still, str(path), boxes=tmp_path / "out.csv")
    assert str(caught.value) == (
        f"the box of target 1 in frame 40 of {path}: give a frame from 0 to 39, or another start or end of what is "
        "tracked"
    )
    assert not (tmp_path / "out.csv").exists()


def test_a_file_of_key_frames_is_not_written_over(film: Path, tmp_path: Path, monkeypatch) -> None:
    """Neither if it is named as the output, nor by the name that boxes have by default."""
    text = "1,1,2,3,40,40\n"
    (tmp_path / "film_boxes.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    named: dict[str, Any] = {"boxes": tmp_path / "film_boxes.txt", "layout": "mot"}
    for outputs in ({}, named):
        with pytest.raises(ConfigError, match=r"film_boxes\.txt holds the key frames that are given"):
            track_video(film, Still, "film_boxes.txt", **outputs)
    assert (tmp_path / "film_boxes.txt").read_text() == text


def test_files_that_are_not_there_are_named(film: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"k\.xml: no such file"):
        track_video(film, Still, str(tmp_path / "k.xml"))
    assert not any(map(is_key_file, ("1,2,3,4", "", (1, 2, 3, 4)))) and is_key_file(tmp_path)


def test_files_that_call_different_things_by_one_number_are_refused(film: Path, tmp_path: Path) -> None:
    """Labels of CVAT for images have numbers by their order in each file."""
    for name, labels in (("k", "ab"), ("same", "a"), ("other", "b")):
        (tmp_path / f"{name}.xml").write_text(cvat_images(f"frame_{len(name)}", labels=labels))
    given = read_given([tmp_path / "k.xml", tmp_path / "same.xml"], film)
    assert [(key.id, key.frame) for key in given.keys] == [(1, 1), (2, 1), (1, 4)] and given.names == {1: "a", 2: "b"}
    message = r"other\.xml: target 1 is b here, and a in a file before: number the targets alike"
    with pytest.raises(DatasetError, match=message):
        read_given([tmp_path / "k.xml", tmp_path / "other.xml"], film)


def test_a_stream_takes_boxes_in_pixels_alone(tmp_path: Path) -> None:
    """Its size is not known before its first frame is read."""
    images = [np.zeros((80, 120, 3), np.uint8)] * 3
    for name in ("k.csv", "k.yolo"):
        write_results(tmp_path / name, rows_of(2, range(1)), INFO)
    assert {row.id for row in track(iter(images), tmp_path / "k.csv", Still())} == {2}
    with pytest.raises(DatasetError, match="labels: boxes in parts of a frame are for recorded video: give boxes in"):
        list(track(iter(images), tmp_path / "k.yolo", Still()))
    assert len(list(track(images, tmp_path / "k.yolo", Still()))) == 3


def test_the_folder_above_those_of_yolo_is_told_apart(tmp_path):
    """As Ultralytics' data sets are laid out: labels/train holds the files."""
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "frame_000000.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DatasetError, match=r"labels: holds no box; .* such as labels/train"):
        read_labels(tmp_path / "labels", [], key_frames=True)
    assert read_labels(tmp_path / "labels" / "train", [], key_frames=True).tracks.keys() == {1}
