"""Data sets as people have them: hidden files, decimal commas, turned photographs, lists of pytracking, own readers."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.data.catalogue import open_source
from ebmtrack.data.checking import check
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.evaluate import evaluate
from ebmtrack.evaluation.jobs import Job, Task, is_done
from ebmtrack.evaluation.metrics import protocol, score_sequence
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.videos import got10k, lasot, otb, registry, trackingnet
from ebmtrack.videos.coco import CocoSource
from ebmtrack.videos.opening import open_dataset
from ebmtrack.videos.source import VideoSource
from ebmtrack.videos.synthetic import SyntheticSource
from ebmtrack.videos.text import read_boxes
from tests.support.evaluation_stub import StubFactory, make_sequences
from tests.support.trees import (
    coco_tree,
    exif_jpeg,
    got10k_tree,
    lasot_tree,
    material_tree,
    save_image,
    save_text,
    trackingnet_tree,
)

ROWS = "1,2,30,40\n" * 4


def frames_in(folder: Path, first: int, last: int) -> None:
    """Make empty files with the names of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, last + 1):
        (folder / f"{number:04d}.jpg").touch()


# --- OTB's Tiger1


@pytest.mark.parametrize("rows", [354, 349])
def test_tiger1_begins_at_frame_6(tmp_path: Path, rows: int) -> None:
    """Of 354 annotated frames pytracking leaves out the first 5; a file cut to 349 rows is used as it is."""
    save_text(tmp_path / "Tiger1" / "groundtruth_rect.txt", "".join(f"{i},2,30,40\n" for i in range(354 - rows, 354)))
    frames_in(tmp_path / "Tiger1" / "img", 1, 354)
    tiger = otb.find(tmp_path).load("Tiger1")
    paths = tiger.frame_paths()
    assert (len(tiger), len(paths), paths[0].name, paths[-1].name) == (349, 349, "0006.jpg", "0354.jpg")
    assert tiger.boxes_xywh[[0, -1], 0].tolist() == [5, 353]


def test_old_results_of_tiger1_are_not_finished(tmp_path: Path) -> None:
    """354 boxes were made before the first five frames were left out; 349 boxes are a result."""
    save_text(tmp_path / "Tiger1" / "groundtruth_rect.txt", "1,2,30,40\n" * 354)
    frames_in(tmp_path / "Tiger1" / "img", 1, 354)
    job = Job(otb.find(tmp_path), (), StubFactory(), tmp_path / "out", 0, 1, {"stub": {}})
    task = Task("stub", 0, "Tiger1")
    for count, done in ((354, False), (349, True)):
        write_result(job.folder(task), "Tiger1", Result(np.tile([1.0, 2, 30, 40], (count, 1))))
        assert is_done(job, task) is done


# --- hidden files


def test_hidden_files_are_no_targets(tmp_path: Path) -> None:
    """The `._name` files of macOS beside annotations, sequences, frames and pictures are seen by no reader."""
    hidden = b"\x00\x05\x16\x07 Mac OS X"
    tracking, laser = trackingnet_tree(tmp_path / "tn"), lasot_tree(tmp_path / "lasot")
    cutouts, backgrounds = material_tree(tmp_path / "pool")
    coco, got = coco_tree(tmp_path / "coco"), got10k_tree(tmp_path / "got")
    counts = [len(VideoSource(trackingnet.find(tracking))), len(lasot.find(laser, "all")), len(CocoSource(coco))]
    (laser / "cat" / "._cat-2").mkdir()
    for path in [*tracking.rglob("*.txt"), *tracking.rglob("*.jpg"), *cutouts.iterdir(), *backgrounds.iterdir(),
                 *coco.rglob("*.jpg"), *got.rglob("*.jpg")]:  # fmt: skip
        path.with_name(f"._{path.name}").write_bytes(hidden)
    for source in (VideoSource(trackingnet.find(tracking)), VideoSource(got10k.find(got, "train")), CocoSource(coco)):
        assert not list(source.faults(every_frame=True))
    after = [len(VideoSource(trackingnet.find(tracking))), len(lasot.find(laser, "all")), len(CocoSource(coco))]
    assert after == counts and [*map(len, SyntheticSource(cutouts, backgrounds).files)] == [24, 24]
    assert not list(SyntheticSource(cutouts, backgrounds).faults())


def test_hidden_files_are_no_frames_and_no_sequences(tmp_path: Path) -> None:
    """A folder whose only images are hidden has none; a hidden file of boxes is none."""
    frames_in(tmp_path / "bag" / "img", 1, 4)
    save_text(tmp_path / "bag" / "groundtruth_rect.txt", ROWS)
    frames_in(tmp_path / "._bag", 1, 4)
    save_text(tmp_path / "._bag" / "groundtruth_rect.txt", ROWS)
    (tmp_path / "bag" / "._0001.jpg").touch()
    (tmp_path / "bag" / "img" / "._0001.jpg").touch()
    found = open_dataset("folder", tmp_path)
    assert found.names == ("bag",) and len(found.load("bag").frame_paths()) == 4


# --- decimal commas


def test_decimal_commas_are_read_if_they_can_be_nothing_else(tmp_path: Path) -> None:
    """`69;48,5;26,1;39` has four numbers; where polygons cannot be, four fields with commas are four numbers, too."""
    path = tmp_path / "boxes.txt"
    path.write_text("69,5;48,0;26,1;39,0\n70;48,25;26;39\n")
    assert read_boxes(path).tolist() == [[69.5, 48, 26.1, 39], [70, 48.25, 26, 39]]
    path.write_text("69,5;48,0;26,1;39,0\n" * 2)
    assert read_boxes(path, (4,)).tolist() == [[69.5, 48, 26.1, 39]] * 2
    path.write_text("69,5\t48,0\t26,1\t39,0\t1\t2\t3,5\t4\n")
    assert read_boxes(path).tolist() == [[1, 2, 68.5, 46]]  # four corners


@pytest.mark.parametrize("row", ["69,5;48,0;26,1;39,0", "69,5 48,0 26,1 39,0", "69,5\t48,0\t26,1\t39,0"])
def test_rows_that_are_boxes_or_polygons_are_refused(tmp_path: Path, row: str) -> None:
    """Four numbers with decimal commas, or four corners: nobody can tell."""
    save_text(tmp_path / "bag" / "groundtruth.txt", f"{row}\n" * 2)
    frames_in(tmp_path / "bag", 1, 2)
    for name in ("folder", "vot"):
        with pytest.raises(DatasetError, match="groundtruth.txt, line 1: .*decimal commas or 8 whole numbers"):
            open_dataset(name, tmp_path).load("bag")


@pytest.mark.parametrize("row", ["1,2;30,40", "1,2, 30,40", "1.5,2.5;30,2.5;30,40;1.5,40", "1;2;30;40"])
def test_commas_between_numbers_stay_what_they_are(tmp_path: Path, row: str) -> None:
    """Pairs, blanks after commas, and corners with decimal points are unmistakable."""
    path = tmp_path / "boxes.txt"
    path.write_text(f"{row}\n")
    assert read_boxes(path)[0].tolist() in ([1, 2, 30, 40], [1.5, 2.5, 28.5, 37.5])


# --- rows without a target


@pytest.mark.parametrize("row", [[-1, -1, -1, -1], [0, 0, 0, 0], [5, 5, -3, 4], [np.nan] * 4])
def test_rows_without_a_target_do_not_count_in_our_protocol(row: list[float]) -> None:
    """A perfect tracker keeps the score that it has without these rows."""
    truth = np.tile([[10.0, 10, 20, 30]], (20, 1))
    found, truth[5:12] = truth.copy(), row
    score = score_sequence(found, truth, "ope")
    assert score.valid.sum() == 12 and score.success.mean() == pytest.approx(20 / 21)
    assert score_sequence(found, found, "ope").success.mean() == score.success.mean()


def test_the_check_counts_rows_without_a_target(tmp_path: Path) -> None:
    """Zero and negative sizes are named with their line, and are no damage."""
    save_text(tmp_path / "bag" / "groundtruth_rect.txt", "1,2,3,4\n-1,-1,-1,-1\n0,0,0,0\n1,2,-3,4\n")
    for number in range(4):
        save_image(tmp_path / "bag" / "img" / f"{number}.png")
    found = [finding for finding in check("folder", tmp_path) if "rows" in finding.text]
    assert [finding.kind for finding in found] == ["info"]
    assert "2 rows with a negative size (the first in line 2) and 1 row with a size of zero" in found[0].text


def test_the_check_of_a_box_outside_names_a_turned_picture(tmp_path: Path) -> None:
    """The box is inside of the 40 x 30 stored pixels."""
    save_text(tmp_path / "walk" / "groundtruth_rect.txt", "32,2,5,5\n")
    exif_jpeg(tmp_path / "walk" / "img" / "0.jpg", (40, 30), 8)
    found = [finding.text for finding in check("folder", tmp_path) if finding.kind == "damage"]
    assert len(found) == 1 and "which is 30 x 40; it is stored turned (EXIF orientation)" in found[0]


def test_the_check_of_a_box_outside_bears_damaged_exif(tmp_path: Path) -> None:
    from PIL import Image

    save_text(tmp_path / "walk" / "groundtruth_rect.txt", "52,2,5,5\n")
    (tmp_path / "walk" / "img").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "walk" / "img" / "0.webp", exif=b"Exif\0\0junkjunkjunk")
    found = [finding.text for finding in check("folder", tmp_path) if finding.kind == "damage"]
    assert len(found) == 1 and found[0].endswith("is outside of it, which is 40 x 30")


# --- COCO


def one_photograph(root: Path, size_wh: tuple[int, int], layout: str = "train2017", split: str = "train2017") -> None:
    """Write a COCO file with one photograph of the given size, whose left half is annotated."""
    width, height = size_wh
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, width / 2, height], "iscrowd": 0}],
    }
    save_text(root / "annotations" / f"instances_{split}.json", json.dumps(content))
    (root / layout).mkdir(parents=True, exist_ok=True)


def redness(image: np.ndarray) -> float:
    """Return the share of red pixels."""
    return float((image[..., 0] > 100).mean())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_annotated_as_they_are_stored(tmp_path: Path, orientation: int) -> None:
    """COCO's boxes ignore EXIF data, as pycocotools does: the left half is red, whatever these say."""
    one_photograph(tmp_path, (40, 30))
    exif_jpeg(tmp_path / "train2017" / "a.jpg", (40, 30), orientation)
    source = CocoSource(tmp_path)
    image, (x, y, w, h) = source.frame(0, 0), source.boxes_xywh(0)[0].astype(int)
    assert image.shape == (30, 40, 3) and source.frame_size_wh(0, 0) == (40, 30)
    assert redness(image[y : y + h, x : x + w]) > 0.9 and redness(image) < 0.6
    assert not list(source.faults(every_frame=True))


def test_photographs_annotated_as_they_are_shown_are_turned(tmp_path: Path) -> None:
    """A picture of 30 x 40 pixels that EXIF data turn to the annotated 40 x 30."""
    one_photograph(tmp_path, (40, 30))
    exif_jpeg(tmp_path / "train2017" / "a.jpg", (30, 40), 6)
    assert CocoSource(tmp_path).frame(0, 0).shape == (30, 40, 3)


def test_resized_photographs_are_refused_and_found(tmp_path: Path) -> None:
    """Training stops with both sizes, and the check that decodes every picture names the file."""
    one_photograph(tmp_path, (80, 60))
    exif_jpeg(tmp_path / "train2017" / "a.jpg", (40, 30), 1)
    with pytest.raises(DatasetError, match="a.jpg: 40 x 30 pixels, but it was annotated as 80 x 60"):
        CocoSource(tmp_path).frame(0, 0)
    lines = [finding.text for finding in check("coco", tmp_path, every_frame=True) if finding.kind == "damage"]
    assert len(lines) == 1 and "annotated as 80 x 60" in lines[0]


@pytest.mark.parametrize("split", ["train2014", "val2014", "train2017", "val2017"])
@pytest.mark.parametrize("layout", ["{}", "images/{}"])
def test_both_years_and_both_layouts_of_coco(tmp_path: Path, split: str, layout: str) -> None:
    """The official folders and pytracking's, named or by default the one that is there."""
    one_photograph(tmp_path, (40, 30), layout.format(split), split)
    save_image(tmp_path / layout.format(split) / "a.jpg")
    for source in (open_source("coco", tmp_path, split), open_source("coco", tmp_path)):
        assert source.frame(0, 0).shape == (30, 40, 3)
    with pytest.raises(ConfigError, match="no split 'test2017'"):
        open_source("coco", tmp_path, "test2017")


# --- GOT-10k's lists for VOT


def test_vottrain_and_votval_are_lists_of_the_users(tmp_path: Path) -> None:
    """Names, or numbers of lines from 0 as in pytracking's files; without the list the error says where to put it."""
    names = tuple(f"GOT-10k_Train_{number:06d}" for number in range(1, 6))
    got10k_tree(tmp_path / "train", names)
    with pytest.raises(DatasetError, match="its list of 7,086 sequences.*vottrain.txt or got10k_vot_train_split.txt"):
        open_source("got10k", tmp_path, "vottrain")
    save_text(tmp_path / "train" / "got10k_vot_train_split.txt", "0\n2\n4\n")
    save_text(tmp_path / "votval.txt", f"{names[1]}\n{names[3]}\n")
    chosen = [open_source("got10k", tmp_path, split) for split in ("vottrain", "votval")]
    assert [[s.target_name(i) for i in range(len(s))] for s in chosen] == [list(names[::2]), list(names[1::2])]
    save_text(tmp_path / "votval.txt", "7\n")
    with pytest.raises(DatasetError, match="votval.txt: number 7 is beyond the 5 sequences"):
        open_source("got10k", tmp_path, "votval")
    save_text(tmp_path / "votval.txt", "other\n")
    with pytest.raises(DatasetError, match="'other' is not in list.txt"):
        open_source("got10k", tmp_path, "votval")


# --- the registry


@pytest.mark.parametrize(
    "typed, training, benchmark",
    [("OTB100", "otb100", "otb100"), ("OTB-2015", "otb100", "otb100"), ("LaSOT", "lasot", "lasot"),
     ("NFS", "nfs30", "nfs30"), ("GOT-10k_test", "got10k_test", "got10k_test"),
     ("got10k", "got10k", "got10k_val"), ("GOT-10k", "got10k", "got10k_val"),
     ("UAV123", "uav123", "uav123"), ("Need for Speed", "nfs30", "nfs30"), ("COCO 2017", "coco", None)],
)  # fmt: skip
def test_names_that_people_type(typed: str, training: str, benchmark: str | None) -> None:
    """Case, `-`, `_`, blanks and usual names of folders do not matter; got10k is its validation set when evaluated."""
    assert registry.find_info(typed).name == training
    if benchmark is None:
        with pytest.raises(ConfigError, match="unknown data set"):
            registry.find_info(typed, benchmark=True)
    else:
        assert registry.find_info(typed, benchmark=True).name == benchmark


MINE = '''
    """A data set of one's own: <root>/clips/<name>.txt beside a folder of frames."""
    from functools import partial
    from pathlib import Path

    from ebmtrack.videos import DataSet, DataSetInfo, Frames, Sequence, register
    from ebmtrack.videos.text import read_boxes


    def find(root: Path) -> DataSet:
        paths = sorted((root / "clips").glob("*.txt"))
        return DataSet("mine_NUMBER", root, {path.stem: partial(load, path) for path in paths})


    def load(path: Path) -> Sequence:
        return Sequence(path.stem, "mine_NUMBER", read_boxes(path), Frames(path.with_suffix("")))


    register(DataSetInfo("mine_NUMBER", find, homes=("mineNUMBER",)))
'''


def count_in(dataset: bytes) -> int:
    """Return the number of boxes of a pickled data set's first sequence, in a process that knows nothing of it."""
    assert not any(name.startswith("ebmtrack_dataset_") for name in sys.modules)
    found = pickle.loads(dataset)
    return len(found.load(found.names[0]))


def test_a_data_set_of_a_file_outside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and one line: evaluated, trained on, found by its folder's name, sent to a process that is spawned."""
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(MINE.replace("NUMBER", "1")))
    root = tmp_path / "data" / "Mine-1"
    save_text(root / "clips" / "a.txt", ROWS)
    for number in range(4):
        save_image(root / "clips" / "a" / f"{number}.png")
    try:
        found = open_dataset(str(file), root)
        assert found.names == ("a",) and len(open_dataset("mine_1", tmp_path / "data").load("a")) == 4
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(count_in, (pickle.dumps(found),)) == 4
        source = open_source(str(file), root)
        assert len(source) == 1 and source.frame(0, 3).shape == (30, 40, 3) and source.visible(0).all()
        assert cli.main(["datasets", "check", str(file), str(root)]) == 0
        assert cli.main(["pack", str(file), str(root), str(tmp_path / "pack"), "--png"]) == 0
        assert open_source("pack", tmp_path / "pack").target_name(0) == "a"
        monkeypatch.setenv("EBMTRACK_DATA", str(tmp_path / "data"))
        assert open_source("mine_1").target_name(0) == "a"
    finally:
        registry._REGISTERED.pop("mine_1", None)


def test_files_that_register_nothing_are_refused(tmp_path: Path) -> None:
    """Each message names the file and says what to do."""
    for text, message in (
        ("x = 1\n", "registers no data set"),
        ("1 / 0\n", "ZeroDivisionError"),
        (None, "no such Python"),
    ):
        path = tmp_path / f"{len(message)}.py"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=rf"{path.name}: .*{message}"):
            registry.find_info(str(path))
    with pytest.raises(ConfigError, match="small letters"):
        registry.register(registry.DataSetInfo("My set"))
    with pytest.raises(ConfigError, match="there is one of that name"):
        registry.register(registry.DataSetInfo("otb100"))


def test_a_sequence_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it again gives the same object, in whichever spelling; a pickle carries no boxes."""
    for name in ("Bag", "book"):
        save_text(tmp_path / name / "groundtruth_rect.txt", ROWS)
        frames_in(tmp_path / name / "img", 1, 4)
    found = open_dataset("folder", tmp_path)
    assert found.load("bag") is found.load("Bag") is found.read("Bag")
    assert not pickle.loads(pickle.dumps(found))._read and len(pickle.loads(pickle.dumps(found)).load("book")) == 4


def test_any_benchmark_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of sequences is a training source; frames without a target are not used."""
    save_text(tmp_path / "bag" / "groundtruth_rect.txt", "1,2,3,4\n-1,-1,-1,-1\nnan,nan,nan,nan\n4,5,6,7\n")
    for number in range(4):
        save_image(tmp_path / "bag" / "img" / f"frame{number}.png", (10 * number, 0, 0))
    source = open_source("folder", tmp_path)
    assert source.visible(0).tolist() == [True, False, False, True] and source.frame(0, 3)[0, 0, 0] == 30
    with pytest.raises(DatasetError, match="frame 4 of 4"):
        source.frame(0, 4)
    assert cli.main(["datasets", "check", "FOLDER", str(tmp_path)]) == 0
    assert "1 of 1 sequences" in capsys.readouterr().out


# --- half a picture, and rows without a target, on the command line


def test_half_a_jpeg_is_named_by_check_and_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both read by the same door; eval names the frame in one line, without a traceback."""
    make_sequences(tmp_path / "data", 2)
    frame = tmp_path / "data" / "seq1" / "img" / "0003.jpg"
    frame.write_bytes(frame.read_bytes()[: frame.stat().st_size // 2])
    assert cli.main(["datasets", "check", "folder", str(tmp_path / "data"), "--every-frame"]) == 1
    assert f"DAMAGED  {frame}: not a readable image" in capsys.readouterr().out
    scores = evaluate(["stub"], "folder", tmp_path / "data", out=tmp_path / "out", workers=0, factory=StubFactory())
    said = capsys.readouterr().out
    assert [task.sequence for task in scores.failed] == ["seq1"] and scores.exit_code == 1
    assert f"{frame}: not a readable image" in said and "Traceback" not in said


@pytest.mark.parametrize("row", ["-1,-1,-1,-1", "0,0,0,0", "nan,nan,nan,nan", "NaN NaN NaN NaN", "5,5,-10,12"])
def test_rows_without_a_target_do_not_lower_a_perfect_tracker(tmp_path: Path, row: str) -> None:
    """A tracker that repeats the truth has 20 of 21 thresholds in `ope`, however "no target" is written."""
    root = make_sequences(tmp_path / "data", 1)
    path = root / "seq0" / "groundtruth_rect.txt"
    rows = path.read_text().split()
    path.write_text("\n".join([*rows[:3], row, row, *rows[5:]]) + "\n")
    sequence = open_dataset("folder", root).load("seq0")
    boxes = np.array([[5.0 + k, 6, 10, 12] for k in range(6)])
    score = score_sequence(boxes, sequence.boxes_xywh, protocol("ope"), visible=sequence.visible)
    assert score.denominator == 3 and score.success.mean() == pytest.approx(20 / 21)


# --- encodings and names


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_annotations_in_utf_16_are_refused_with_what_to_do(tmp_path: Path, encoding: str) -> None:
    """Notepad and PowerShell write them."""
    (tmp_path / "boxes.txt").write_bytes(ROWS.encode(encoding))
    with pytest.raises(DatasetError, match=r"boxes\.txt, line 1: .*UTF-8"):
        read_boxes(tmp_path / "boxes.txt")


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_sequence_whose_name_is_no_unicode_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results and the report could not spell it."""
    root = make_sequences(tmp_path / "data", 1)
    (root / "seq0").rename(root / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DatasetError, match="is no Unicode: rename its folder"):
        open_dataset("folder", root)


def test_names_of_sequences_with_marks_of_other_languages(tmp_path: Path) -> None:
    """Evaluated, reported with marks of HTML escaped, and exported."""
    root = make_sequences(tmp_path / "data", 1)
    names = ["<i>x&y", "Straße 日本", "a%d[1]", "-x", "x.txt"]
    for name in names:
        shutil.copytree(root / "seq0", root / name)
    shutil.rmtree(root / "seq0")
    out, page = tmp_path / "out", tmp_path / "r.html"
    assert evaluate(["stub"], "folder", root, out=out, workers=0, factory=StubFactory()).complete
    where = ["--dataset", "folder", "--root", str(root), "--results", str(out)]
    assert cli.main(["report", *where, "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<i>x&y" not in text and "&lt;i&gt;x&amp;y" in text
    assert len(list((tmp_path / "r_sequences").glob("*.html"))) == len(names)
    assert cli.main(["export-results", *where, "--layout", "pytracking", "--out", str(tmp_path / "ex")]) == 0
    assert {path.stem for path in (tmp_path / "ex").rglob("*.txt")} >= set(names) - {"x.txt"}
