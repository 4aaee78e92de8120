"""Benchmarks as they lie on people's disks, with all their oddities, built from names and numbers alone."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.data.checking import check_benchmark
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos import got10k, lasot, nfs, otb, uav, vot
from ebmtrack.videos.opening import describe_datasets, find_datasets, locate, open_dataset
from ebmtrack.videos.registry import benchmarks
from ebmtrack.videos.sequence import Frames
from ebmtrack.videos.text import read_boxes
from ebmtrack.viewers.picture_frames import FolderFrames
from tests.support import SEQUENCES

SHARED = SEQUENCES


def touch_frames(folder: Path, first: int, last: int, digits: int = 4) -> None:
    """Empty files with the names of frames; readers list them and do not open them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, last + 1):
        (folder / f"{number:0{digits}d}.jpg").touch()


def write_boxes(path: Path, count: int, separator: str = ",", first: float = 1) -> None:
    """Rows x, y, w, h in which x counts the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{v:g}" for v in (first + i, 2, 30, 40)) + "\n" for i in range(count)))


@pytest.fixture(scope="module")
def otb_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of OTB-100: boxes for every entry, frames for the odd ones."""
    root = tmp_path_factory.mktemp("otb")
    for index, name in enumerate(otb.NAMES["otb100"]):
        folder, file = root / name, "groundtruth_rect.txt"
        if name[:-2] in ("Jogging", "Skating2"):
            folder, file = root / name[:-2], f"groundtruth_rect.{name[-1]}.txt"
        if name == "Human4":
            file = "groundtruth_rect.2.txt"
            folder.mkdir()
            (folder / "groundtruth_rect.1.txt").touch()
        first, last = otb.RANGES.get(name, (1, 5))
        write_boxes(folder / file, last - first + 1, ",\t "[index % 3], first=100 * (file[-5] == "2"))
        if name in otb.RANGES or name in ("Board", "Human4", "Jogging_1", "Skating2_2"):
            extra = 0 if name.startswith("BlurCar") else 20
            start = first if name.startswith("BlurCar") else 1
            touch_frames(folder / "img", start, last + extra * (name in otb.RANGES), 5 if name == "Board" else 4)
    return root


def test_otb_counts(otb_root: Path) -> None:
    """OTB-100 has 100 entries, OTB-50 50, OTB-2013 51 (50 videos, Jogging twice)."""
    for name, count in (("otb100", 100), ("otb50", 50), ("otb2013", 51)):
        found = open_dataset(name, otb_root)
        assert len(found) == found.expected == count and not found.missing
        assert len({found.load(n).name for n in found.select()}) == count


@pytest.mark.parametrize("name, first, count", [
    ("David", 300, 471), ("BlurCar1", 247, 742), ("BlurCar3", 3, 357), ("BlurCar4", 18, 380),
    ("Football1", 1, 74), ("Freeman3", 1, 460), ("Freeman4", 1, 283), ("Diving", 1, 215), ("Board", 1, 5),
])  # fmt: skip
def test_otb_ranges(otb_root: Path, name: str, first: int, count: int) -> None:
    """Eight entries use part of their frames; counts follow from the ranges, last - first + 1."""
    paths = open_dataset("otb100", otb_root).load(name).frame_paths()
    assert (int(paths[0].stem), len(paths)) == (first, count)


def test_otb_renumbered_copy(tmp_path: Path) -> None:
    """A copy of David that holds just the 471 frames, numbered from 1, is used as it is; one frame less is
    refused."""
    write_boxes(tmp_path / "David" / "groundtruth_rect.txt", 471)
    touch_frames(tmp_path / "David" / "img", 1, 471)
    david = open_dataset("otb100", tmp_path).load("david")
    assert len(david.frame_paths()) == 471
    (tmp_path / "David" / "img" / "0400.jpg").unlink()
    with pytest.raises(DatasetError, match="frame 400 is missing"):
        david.frame_paths()


def test_otb_two_targets_and_variants_of_names(otb_root: Path) -> None:
    """Jogging and Skating2 have an entry per target; other toolkits' spellings find them."""
    found = open_dataset("otb100", otb_root)
    assert found.load("Jogging_1").boxes_xywh[0, 0] == 0 and found.load("Jogging_2").boxes_xywh[0, 0] == 100
    for spelling in ("Jogging-2", "jogging.2", "JOGGING_2"):
        assert found.resolve(spelling) == "Jogging_2"
    assert found.load("human4_2").boxes_xywh[0, 0] == 100  # from groundtruth_rect.2.txt
    with pytest.raises(DatasetError, match="no sequence 'Jogging'"):
        found.resolve("Jogging")


def test_missing_sequences_are_named(tmp_path: Path) -> None:
    """Without Deer the data set says so by name, and the rest is usable on request."""
    for name in otb.NAMES["otb50"]:
        if name != "Deer":
            write_boxes(tmp_path / "OTB-50" / name.lower() / "groundtruth_rect.txt", 3)
    found = open_dataset("otb50", tmp_path)
    with pytest.raises(DatasetError, match="1 of 50 sequences are missing: Deer"):
        found.select()
    assert len(found.select(allow_missing=True)) == 49
    with pytest.raises(DatasetError, match="'Deer' is not under"):
        found.load("deer")
    assert "missing: Deer" in describe_datasets(tmp_path)


def write_small_benchmarks(root: Path) -> None:
    """One sequence of two frames of each benchmark whose list of names we do not have."""
    for folder in ("DTB70/Animal1", "Temple-color-128/Ball_ce1"):
        touch_frames(root / folder / "img", 1, 2)
    write_boxes(root / "DTB70" / "Animal1" / "groundtruth_rect.txt", 2)
    write_boxes(root / "Temple-color-128" / "Ball_ce1" / "Ball_ce1_gt.txt", 2)
    (root / "Temple-color-128" / "Ball_ce1" / "Ball_ce1_frames.txt").write_text("1,2")
    touch_frames(root / "TEST" / "frames" / "abc_1", 0, 1, 1)
    write_boxes(root / "TEST" / "anno" / "abc_1.txt", 2)


@pytest.mark.parametrize("name, size", [("dtb70", 70), ("tcolor128", 128), ("trackingnet", 511)])
def test_what_is_missing_is_counted_where_names_are_not_known(name: str, size: int, tmp_path: Path) -> None:
    """One sequence of a benchmark is not the benchmark: selecting all says how many lack, `check` calls it damage."""
    write_small_benchmarks(tmp_path)
    found = open_dataset(name, tmp_path)
    lacking = f"{size - 1} of {size} sequences are missing"
    assert found.shortfall() == lacking and len(found.select(allow_missing=True)) == 1
    with pytest.raises(DatasetError, match=f"{lacking}. Add them"):
        found.select()
    assert found.select(found.names) == found.names
    findings = list(check_benchmark(name, tmp_path))
    assert [finding.kind for finding in findings if lacking in finding.text] == ["incomplete"]
    assert not any(dataclasses.replace(found, expected=count).shortfall() for count in (None, 0, 1))


def test_names_that_are_known_are_told_of_those_missing(tmp_path: Path) -> None:
    """TrackingNet's sequences with boxes and no frames have a name, the others that lack have none."""
    write_small_benchmarks(tmp_path)
    write_boxes(tmp_path / "TEST" / "anno" / "xyz_0.txt", 1)
    found = open_dataset("trackingnet", tmp_path)
    assert found.shortfall() == "510 of 511 sequences are missing, among them xyz_0"
    many = dataclasses.replace(found, loaders={}, missing=tuple("abcd"), expected=None)
    assert many.shortfall() == "4 of 4 sequences are missing: a, b, c, d"
    assert many.shortfall(2) == "4 of 4 sequences are missing: a, b and 2 more"


def test_hidden_files_are_no_sequences(tmp_path: Path) -> None:
    """macOS puts a binary `._name` beside every file on a foreign disk; data sets are read as if it were not there."""
    write_small_benchmarks(tmp_path)
    write_boxes(tmp_path / "VOT" / "bag" / "groundtruth.txt", 2)
    (tmp_path / "VOT" / "bag" / "occlusion.tag").write_text("0\n1\n")
    touch_frames(tmp_path / "VOT" / "bag" / "color", 1, 2)
    places = {"dtb70": "DTB70", "tcolor128": "Temple-color-128", "trackingnet": "", "vot": "VOT", "folder": "VOT"}
    before = {name: open_dataset(name, tmp_path / place) for name, place in places.items()}
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for place in ("DTB70/.Trash", "VOT/.Trash"):
        write_boxes(tmp_path / place / "groundtruth.txt", 2)
    write_boxes(tmp_path / "Temple-color-128" / ".Trash" / "Ball_gt.txt", 2)
    for name, place in places.items():
        found = open_dataset(name, tmp_path / place)
        assert (found.names, found.missing) == (before[name].names, before[name].missing)
        for sequence in map(found.load, found.names):
            assert len(sequence.frame_paths()) == 2 and sequence.attributes == ("occlusion",) * (name == "vot")


def test_uav(tmp_path: Path) -> None:
    """123 and 20 entries; parts of one video, NaN rows, attributes."""
    for version in ("uav123", "uav20l"):
        for name in uav.NAMES[version]:
            write_boxes(tmp_path / "anno" / version.upper() / f"{name}.txt", 3)
            video = uav.RANGES[name][0] if version == "uav123" else name
            (tmp_path / "data_seq" / "UAV123" / video).mkdir(parents=True, exist_ok=True)
    annotation = tmp_path / "anno" / "UAV123" / "bird1_2.txt"
    rows = ["5,5,10,10"] * 703
    rows[7] = "NaN,NaN,NaN,NaN"
    annotation.write_text("\n".join(rows))
    (annotation.parent / "att").mkdir()
    (annotation.parent / "att" / "bird1_2.txt").write_text("1,0,0,0,0,0,1,0,0,0,0,0\n")
    touch_frames(tmp_path / "data_seq" / "UAV123" / "bird1", 770, 1500, 6)
    for version, count in (("uav123", 123), ("uav20l", 20)):
        found = open_dataset(version, tmp_path)
        assert len(found) == found.expected == count
    bird = open_dataset("uav123", tmp_path).load("uav_bird1_2")
    paths = bird.frame_paths()
    assert (paths[0].name, paths[-1].name, len(paths)) == ("000775.jpg", "001477.jpg", 703)
    assert np.isnan(bird.boxes_xywh[7]).all() and bird.visible is not None and bird.visible.sum() == 702
    assert bird.attributes == ("SV", "OV") and bird.rule == "uav"


@pytest.mark.parametrize("fps", [30, 240])
def test_nfs(tmp_path: Path, fps: int) -> None:
    """100 sequences; rows are two corners, the 30 Hz folders come with eight boxes per frame,
    and may miss those of one frame."""
    for name in nfs.NAMES:
        folder = tmp_path / name / str(fps) / name
        touch_frames(folder, 1, 20, 5)
        per_frame = 8 if fps == 30 else 1
        count = 19 * per_frame if name == "yoyo" else 20 * per_frame
        rows = [f'0 {10 + i} 20 {40 + i} 60 {i} 0 0 0 "some thing"' for i in range(count)]
        folder.with_suffix(".txt").write_text("\n".join(rows))
    found = open_dataset(f"nfs{fps}", tmp_path)
    assert len(found) == found.expected == 100
    bee = found.load("nfs_bee")
    step = 8 if fps == 30 else 1
    np.testing.assert_array_equal(bee.boxes_xywh, [[10 + step * i, 20, 30, 40] for i in range(20)])
    assert len(found.load("yoyo").frame_paths()) == 19


def test_nfs_in_the_other_layout(tmp_path: Path) -> None:
    """`sequences/` and `anno/` with rows of x, y, w, h; lengths that fit neither one nor eight per frame are
    refused."""
    touch_frames(tmp_path / "sequences" / "bee", 1, 4, 5)
    write_boxes(tmp_path / "anno" / "nfs_bee.txt", 32, "\t")
    found = open_dataset("nfs30", tmp_path)
    np.testing.assert_array_equal(found.load("bee").boxes_xywh[:, 0], [1, 9, 17, 25])
    write_boxes(tmp_path / "anno" / "nfs_bee.txt", 9, "\t")
    with pytest.raises(DatasetError, match="9 boxes for 4 frames"):
        open_dataset("nfs30", tmp_path).load("bee")


def test_lasot(tmp_path: Path) -> None:
    """280 and 150 sequences, with or without folders of classes; absent frames are the two flags together."""
    for version, split in (("lasot", "test"), ("lasot_ext", "extension")):
        for index, name in enumerate(lasot.NAMES[split]):
            folder = tmp_path / version / (name.rsplit("-", 1)[0] if index % 2 else "") / name
            write_boxes(folder / "groundtruth.txt", 4)
            (folder / "full_occlusion.txt").write_text("0,1,0,0\n")
            (folder / "out_of_view.txt").write_text("0\n0\n0\n1\n")
        found = open_dataset(version, tmp_path / version)
        assert len(found) == found.expected == {"lasot": 280, "lasot_ext": 150}[version]
    sequence = open_dataset("lasot", tmp_path).load("zebra-17")
    np.testing.assert_array_equal(sequence.visible, [True, False, True, False])
    (tmp_path / "lasot" / "zebra" / "zebra-17" / "out_of_view.txt").write_text("0,0,2,0")
    with pytest.raises(DatasetError, match="out_of_view.txt, line 1: label 3 is 2, not one of 0..1"):
        open_dataset("lasot", tmp_path / "lasot").load("zebra-17")


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", ".", "a\\b", "a\tb", "n" * 201])
def test_lists_do_not_lead_outside(name: str, tmp_path: Path) -> None:
    """A list names folders of the data set; anything else is refused with its line."""
    write_boxes(tmp_path / "root" / "bag" / "groundtruth.txt", 2)
    write_boxes(tmp_path / "elsewhere" / "groundtruth.txt", 2)
    (tmp_path / "root" / "list.txt").write_text(f"bag\n\nbag\n{name}\n")
    for reader in (vot.find, got10k.find):
        with pytest.raises(DatasetError, match=r"list\.txt, line 4: .* cannot be the name of a sequence's folder"):
            reader(tmp_path / "root")
    (tmp_path / "root" / "list.txt").write_text("bag\n\nbag\n")
    assert vot.find(tmp_path / "root").names == ("bag",)


@pytest.mark.parametrize("dataset, sequence, file, count", [
    ("otb100", "Jogging_1", "anno/att/jogging-1.txt", 11), ("otb100", "Jogging_1", "att/Jogging.1.txt", 11),
    ("uav123", "bike1", "anno/UAV123/att/bike1.txt", 12), ("lasot", "zebra-17", "annos/att/zebra-17.txt", 14),
    ("lasot", "zebra-17", "att/Zebra_17.txt", 14), ("tcolor128", "Jogging_1", "Jogging_1/Jogging_1_att.txt", 11),
])  # fmt: skip
def test_attribute_files(dataset: str, sequence: str, file: str, count: int, tmp_path: Path) -> None:
    """Where toolkits keep attributes, in their spellings: the first and the last name of the reader's order are
    flagged; a flag too many is refused."""
    for path in ("Jogging_1/groundtruth_rect.txt", "anno/UAV123/bike1.txt", "zebra-17/groundtruth.txt",
                 "Jogging_1/Jogging_1_gt.txt"):  # fmt: skip
        write_boxes(tmp_path / path, 2)
    (tmp_path / "Jogging_1" / "Jogging_1_frames.txt").write_text("1,2")
    (tmp_path / "data_seq" / "UAV123" / "bike1").mkdir(parents=True)
    for flags in ("full_occlusion.txt", "out_of_view.txt"):
        (tmp_path / "zebra-17" / flags).write_text("0,0")
    names = {"otb100": otb, "tcolor128": otb, "uav123": uav, "lasot": lasot}[dataset].ATTRIBUTES
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(",".join(["1", *["0"] * (count - 2), "1"]))
    assert open_dataset(dataset, tmp_path).load(sequence).attributes == (names[0], names[-1])
    (tmp_path / file).write_text("0\n" * (count + 1))
    with pytest.raises(
        DatasetError, match=rf"{Path(file).name}, line {count + 1}: {count + 1} labels for {count} attributes"
    ):
        open_dataset(dataset, tmp_path).load(sequence)


def test_a_table_of_attributes(tmp_path: Path) -> None:
    """`attributes.csv` gives attributes to any data set; sequences that it does not name keep their own."""
    for name in ("bag", "book", "Red_Car"):
        write_boxes(tmp_path / name / "groundtruth_rect.txt", 2)
        touch_frames(tmp_path / name / "img", 1, 2)
    (tmp_path / "attributes.csv").write_text("sequence, OCC, night\r\nbag,1,1\nred-car,0,1\n")
    found = open_dataset("folder", tmp_path)
    assert {name: found.load(name).attributes for name in found.names} == {
        "Red_Car": ("night",), "bag": ("OCC", "night"), "book": ()
    }  # fmt: skip
    assert pickle.loads(pickle.dumps(found)).load("bag").attributes == ("OCC", "night")  # workers receive it so


@pytest.mark.parametrize("text, what", [
    ("", "line 1: expected a head"), ("sequence\nbag\n", "line 1: expected a head"),
    ("sequence,a,a\n", "line 1: expected a head"), ("sequence,a,\n", "line 1: expected a head"),
    ("sequence,a,b\nbag,1\n", "line 2: expected a name and 2 flags"),
    ("sequence,a\nbag,2\n", "line 2: expected a name and 1 flags"),
    ("sequence,a\nbag,1\nbag,0\n", "line 3: 'bag' is listed twice"),
    ("sequence,a\nbags,1\n", "'bags' is no sequence of folder; it has bag"),
])  # fmt: skip
def test_bad_tables_of_attributes(text: str, what: str, tmp_path: Path) -> None:
    """Typing errors do not pass unnoticed."""
    write_boxes(tmp_path / "bag" / "groundtruth_rect.txt", 2)
    (tmp_path / "attributes.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"attributes\.csv.*{what}"):
        open_dataset("folder", tmp_path)


def test_got10k_and_trackingnet(tmp_path: Path) -> None:
    """Names come from the list; cover and size are read; of test sequences only the first box is known."""
    val = tmp_path / "GOT-10k" / "val"
    folder = val / "GOT-10k_Val_000001"
    write_boxes(folder / "groundtruth.txt", 3)
    touch_frames(folder, 1, 3, 8)
    (folder / "cover.label").write_text("8\n0\n5\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (1920, 1080)\n")
    (val / "list.txt").write_text("GOT-10k_Val_000001\nGOT-10k_Val_000002\n")
    found = open_dataset("got10k_val", tmp_path)
    assert found.missing == ("GOT-10k_Val_000002",) and found.expected == 180
    sequence = found.load("GOT-10k_Val_000001")
    assert sequence.visible is not None and sequence.size_wh == (1920, 1080)
    assert np.array_equal(sequence.visible, [True, False, True])
    touch_frames(tmp_path / "TEST" / "frames" / "abc_1", 0, 11, 1)
    write_boxes(tmp_path / "TEST" / "anno" / "abc_1.txt", 1)
    sequence = open_dataset("trackingnet", tmp_path).load("abc_1")
    assert [int(p.stem) for p in sequence.frame_paths()] == list(range(12))
    assert np.isnan(sequence.boxes_xywh[1:]).all() and len(sequence) == 12


def test_tcolor_and_dtb(tmp_path: Path) -> None:
    """TColor-128 has its first and last frame in a file; DTB70 is plain."""
    folder = tmp_path / "Temple-color-128" / "Ball_ce1"
    write_boxes(folder / "Ball_ce1_gt.txt", 3)
    (folder / "Ball_ce1_frames.txt").write_text("11,13")
    touch_frames(folder / "img", 1, 20)
    sequence = open_dataset("tcolor128", tmp_path).load("Ball_ce1")
    assert [p.name for p in sequence.frame_paths()] == ["0011.jpg", "0012.jpg", "0013.jpg"]
    (folder / "Ball_ce1_frames.txt").write_text("11,14")
    with pytest.raises(DatasetError, match="3 boxes for the frames 11 to 14"):
        open_dataset("tcolor128", tmp_path).load("Ball_ce1")
    write_boxes(tmp_path / "DTB70" / "Animal1" / "groundtruth_rect.txt", 2)
    touch_frames(tmp_path / "DTB70" / "Animal1" / "img", 0, 1, 5)
    assert len(open_dataset("dtb70", tmp_path).load("animal1").frame_paths()) == 2


def test_vot(tmp_path: Path) -> None:
    """Boxes, polygons and masks: the mask of 4 x 3 pixels below has its inside at columns 1 to 2 of rows 0
    and 1."""
    folder = tmp_path / "bag"
    folder.mkdir()
    mask = "m10,20,4,3,1,2,2,2,5"
    (folder / "groundtruth.txt").write_text(f"1,2,3,4\n1,1,5,1,5,4,1,4\n{mask}\nm1,1,2,2,4\n")
    (folder / "occlusion.tag").write_text("0\n0\n1\n0\n")
    (tmp_path / "list.txt").write_text("bag\nbook\n")
    touch_frames(folder / "color", 1, 4, 8)
    found = open_dataset("vot", tmp_path)
    assert found.missing == ("book",)
    sequence = found.load("bag")
    np.testing.assert_array_equal(sequence.boxes_xywh[:3], [[1, 2, 3, 4], [1, 1, 4, 3], [11, 20, 2, 2]])
    assert np.isnan(sequence.boxes_xywh[3]).all()
    assert sequence.attributes == ("occlusion",) and len(sequence.frame_paths()) == 4
    (folder / "groundtruth.txt").write_text("1,2,3,4\nm1e300,-1e300,8192,8192,0,67108864\n")  # a byte per pixel: 64 MB
    np.testing.assert_array_equal(vot.load(folder).boxes_xywh[1], [1e300, -1e300, 8192, 8192])
    (folder / "groundtruth.txt").write_text("1,2,3,4\nm0,0,2,2,9\n")
    with pytest.raises(DatasetError, match="groundtruth.txt, line 2: runs do not fit"):
        vot.load(folder)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_of_random_masks(seed: int, tmp_path: Path) -> None:
    """The box of a run-length coded mask is that of its pixels, painted one by one."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 9, 2)
    mask = rng.uniform(size=(height, width)) < rng.choice([0.02, 0.2, 0.9])
    runs, value, flat = [0], False, mask.ravel()
    for pixel in flat[: np.flatnonzero(flat).max(initial=-1) + 1]:
        if pixel != value:
            runs, value = [*runs, 0], pixel
        runs[-1] += 1
    (tmp_path / "a.txt").write_text(f"1,2,3,4\nm-3,7,{width},{height},{','.join(map(str, runs))}\n")
    box = vot.read_regions(tmp_path / "a.txt")[1]
    if not mask.any():
        assert np.isnan(box).all()
        return
    rows, columns = np.nonzero(mask)
    expected = [columns.min() - 3, rows.min() + 7, np.ptp(columns) + 1, np.ptp(rows) + 1]
    np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize("name", ["folder", "dtb70"])
def test_the_folder_of_a_sequence_has_a_name_from_within(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--root .` in a sequence's own folder, and `..` in the folder of its images, name it as from outside; a link has
    its own name."""
    write_boxes(tmp_path / "car" / "groundtruth.txt", 2)
    touch_frames(tmp_path / "car" / "img", 1, 2)
    (tmp_path / "link").symlink_to("car")
    for here, root in (("car", "."), ("car/img", ".."), (".", "car"), (".", "link")):
        expected = "link" if root == "link" else "car"
        monkeypatch.chdir(tmp_path / here)
        found = open_dataset(name, root)
        assert found.names == (expected,)
        assert found.load(expected).name == expected and len(found.load(expected).frame_paths()) == 2


def test_folder_of_one_sequence_and_frames_beside_the_boxes(tmp_path: Path) -> None:
    """The root may be a sequence itself, and images may lie beside the annotation; numbers order them, not
    names."""
    write_boxes(tmp_path / "groundtruth.txt", 11)
    for number in range(1, 12):
        (tmp_path / f"frame{number}.PNG").touch()
    sequence = open_dataset("folder", tmp_path).load(tmp_path.name)
    assert [p.name for p in sequence.frame_paths()][8:] == ["frame9.PNG", "frame10.PNG", "frame11.PNG"]


@pytest.mark.parametrize("pattern", ["frame{}_640x480.jpg", "{}_cam0.jpg", "cam2-{}.jpg", "10.00.{}.500.jpg"])
def test_frames_have_one_order_everywhere(pattern: str, tmp_path: Path) -> None:
    """Whichever number in the name counts the frames, the benchmarks take them in the order in which `ebmtrack track`
    does: the natural one."""
    names = [pattern.format(number) for number in (1, 2, 9, 10, 11, 100)]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [path.name for path in Frames(tmp_path).paths()] == names
    assert Frames(tmp_path).paths() == FolderFrames(tmp_path).paths


def test_a_range_of_frames_with_one_number_twice(tmp_path: Path) -> None:
    """The last number tells frames of a range apart; where it does not, both images are named."""
    for number in range(1, 4):
        (tmp_path / f"{number}_cam0.jpg").touch()
    with pytest.raises(DatasetError, match=r"1_cam0\.jpg and 2_cam0\.jpg both have the number 0"):
        Frames(tmp_path, 1, 3).paths(3)
    touch_frames(tmp_path / "img", 1, 3)
    for name in ("cover.png", "title.png"):  # without a number: no frames of a range
        (tmp_path / "img" / name).touch()
    assert [path.stem for path in Frames(tmp_path / "img", 2, 3).paths(2)] == ["0002", "0003"]


@pytest.mark.parametrize("numbers, whole", [
    (range(10), True), (range(1, 11), True), (range(2, 12), False),
    ([*range(1, 6), *range(7, 12)], False), ([*range(5), *range(6, 11)], False),
])  # fmt: skip
def test_a_gap_is_no_renumbering(numbers: list[int], whole: bool, tmp_path: Path) -> None:
    """Ten images for the range 21 to 30 are a renumbered copy where they count on from 0 or 1. With a number left out
    a frame was lost, and the boxes after it would be one frame off."""
    for number in numbers:
        (tmp_path / f"{number:04d}.jpg").touch()
    if whole:
        assert [int(path.stem) for path in Frames(tmp_path, 21, 30).paths(10)] == list(numbers)
    else:
        for first in (1, 21):
            with pytest.raises(DatasetError, match=r"frame \d+ is missing"):
                Frames(tmp_path, first, first + 9).paths(10)


@pytest.mark.parametrize("text, what", [
    ("", "is empty"),
    ("1,2,3\n", "line 1: 3 numbers, expected 4 or 8: '1,2,3'; a row is x,y,w,h$"),
    ("1,2,3,4\n1,2,3\n", "line 2: 3 numbers, expected 4"),
    ("1,2,3,4\n\n1,2,3,4\n", "line 2: 0 numbers, .*; a frame without the target has nan,nan,nan,nan$"),
    ("1,2,3,4\n1,2,x,4\n", "line 2: 'x' is not a number; a row is x,y,w,h$"),
    ("1,2,3,4\n1,2,inf,4\n", "line 2: an infinite number"),
    ("1,2,3,1_0\n", "'1_0' is not a number"),
    ("1,2,3,4\0\n", "null bytes"),
])  # fmt: skip
def test_bad_annotations_name_file_and_line(tmp_path: Path, text: str, what: str) -> None:
    """Each fault is a DatasetError that says what is wrong, and where."""
    path = tmp_path / "groundtruth_rect.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=f"groundtruth_rect.txt.*{what}"):
        read_boxes(path)


@pytest.mark.parametrize("row", ["1,2,0,4", "NaN,NaN,NaN,NaN", "1,2,-3,4"])
def test_a_first_box_that_starts_no_tracker_is_named(tmp_path: Path, row: str) -> None:
    """The sequence can be read, as training does, but not loaded for tracking."""
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "groundtruth_rect.txt").write_text(f"{row}\n1,2,3,4\n")
    touch_frames(tmp_path / "bag", 1, 2)
    found = open_dataset("folder", tmp_path)
    assert found.read("bag").usable.tolist() == [False, True]
    with pytest.raises(DatasetError, match="bag/groundtruth_rect.txt, line 1: .* no box to start from"):
        found.load("bag")


def test_separators_and_line_ends(tmp_path: Path) -> None:
    """Commas, tabs, blanks, a byte order mark and Windows line ends, mixed in one file."""
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"\xef\xbb\xbf1,2,3,4\r\n5\t6\t7\t8\r\n 9 10, 11,  12 \r\n\r\n")
    np.testing.assert_array_equal(read_boxes(path), [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])


def test_names_and_roots_that_do_not_exist(tmp_path: Path) -> None:
    """An unknown data set is a ConfigError with the known ones; an empty or missing root a DatasetError."""
    with pytest.raises(ConfigError, match="otb100"):
        open_dataset("otv100", tmp_path)
    for root in (tmp_path, tmp_path / "nowhere"):
        for name in benchmarks():
            with pytest.raises(DatasetError):
                open_dataset(name, root).select()
    with pytest.raises(DatasetError, match="no images"):
        Frames(tmp_path).paths()
    assert "no known data set" in describe_datasets(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the development sequences are not at {SHARED}")
def test_real_sequences() -> None:
    """The twelve development sequences: frames and boxes agree, and images can be read."""
    from ebmtrack.images import read_rgb

    found = open_dataset("folder", SHARED)
    assert len(found) == 12
    for name in found.names:
        sequence = found.load(name)
        image = read_rgb(sequence.frame_paths()[0])
        assert (sequence.boxes_xywh[0, :2] + sequence.boxes_xywh[0, 2:] <= image.shape[1::-1]).all()


def test_a_data_set_is_found_below_the_configured_folder(tmp_path, monkeypatch):
    """A root given wins; else EBMTRACK_DATA is searched; without either, the message names both."""
    monkeypatch.delenv("EBMTRACK_DATA", raising=False)
    assert locate("otb100", tmp_path) == tmp_path
    with pytest.raises(ConfigError, match=r"--root.*EBMTRACK_DATA"):
        locate("otb100", None)
    monkeypatch.setenv("EBMTRACK_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="otb100"):
        locate("otb100", None)
    place = tmp_path / "OTB100" / "Deer"
    (place / "img").mkdir(parents=True)
    (place / "groundtruth_rect.txt").write_text("1,2,3,4\n")
    (place / "img" / "0001.jpg").write_bytes(b"x")
    assert locate("otb100", None) == tmp_path / "OTB100"


def test_the_check_decodes_frames_and_looks_at_the_first_box(tmp_path: Path) -> None:
    """First and last frame, or all; a first box outside of its frame."""
    import cv2

    from ebmtrack.data.checking import check

    for name, box in (("good", "3,4,5,6"), ("middle", "3,4,5,6"), ("last", "3,4,5,6"), ("outside", "90,4,5,6")):
        (tmp_path / name / "img").mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(tmp_path / name / f"img/{number}.png"), np.zeros((20, 30, 3), np.uint8))
        (tmp_path / name / "groundtruth_rect.txt").write_text(f"{box}\n" * 3)
    (tmp_path / "middle/img/1.png").write_text("x")
    (tmp_path / "last/img/2.png").write_text("x")

    def damaged(every_frame: bool) -> list[str]:
        return [finding.text for finding in check("folder", tmp_path, every_frame) if finding.kind == "damage"]

    last, outside = damaged(False)
    assert "last/img/2.png: not a readable image" in last
    assert "outside/img/0.png: the first box (90, 4, 5, 6) is outside of it, which is 30 x 20" in outside
    assert len(damaged(True)) == 3 and any("middle/img/1.png" in text for text in damaged(True))


@pytest.mark.parametrize(
    "layout, name, home",
    [
        ("{}/groundtruth_rect.txt", "dtb70", "DTB70"),
        ("{}/groundtruth.txt", "vot", "vot-2019"),
        ("{0}/{0}_gt.txt", "tcolor128", "Temple-color-128"),
    ],
)
def test_a_benchmark_whose_names_are_not_known_is_in_a_folder_called_like_it(layout, name, home, tmp_path) -> None:
    """Own sequences in its layout are `folder`, if that reads them."""
    for place in ("mine", home):
        for sequence in ("walk", "street"):
            write_boxes(tmp_path / place / layout.format(sequence), 2)
    is_folder = layout.startswith("{}")
    rows = [(row.name, row.count, row.root) for row in find_datasets(tmp_path / "mine")]
    assert rows == [("folder", 2, tmp_path / "mine")] * is_folder
    for root in (tmp_path, tmp_path / home):
        assert [(row.name, row.root) for row in find_datasets(root)] == [(name, tmp_path / home)]


@pytest.mark.parametrize("layout, known, name", [
    ("TEST/anno/{}.txt", "0-6LB4FqxoE_0", "trackingnet"), ("{}/groundtruth.txt", "GOT-10k_Val_000001", "got10k_val"),
])  # fmt: skip
def test_a_layout_without_a_known_name_is_no_benchmark(layout: str, known: str, name: str, tmp_path: Path) -> None:
    """Own sequences in a benchmark's layout are `folder`; with one of the benchmark's names they are listed as it."""
    for own in ("walk", "street"):
        write_boxes(tmp_path / layout.format(own), 2)
        touch_frames(tmp_path / "TEST" / "frames" / own, 0, 1, 1)
    (tmp_path / "list.txt").write_text("walk\nstreet\n")
    is_folder = layout.startswith("{}")
    rows = [(row.name, row.count, row.root) for row in find_datasets(tmp_path)]
    assert rows == [("folder", 2, tmp_path)] * is_folder
    write_boxes(tmp_path / layout.format(known), 2)
    touch_frames(tmp_path / "TEST" / "frames" / known, 0, 1, 1)
    (tmp_path / "list.txt").write_text(f"walk\nstreet\n{known}\n")
    found = {row.name: row.count for row in find_datasets(tmp_path)}
    assert found[name] == 3 and "folder" not in found


def test_own_sequences_are_listed_beside_benchmarks(tmp_path: Path) -> None:
    """A benchmark in a folder of its own does not hide them."""
    write_boxes(tmp_path / "walk" / "groundtruth_rect.txt", 2)
    write_boxes(tmp_path / "OTB100" / "Deer" / "groundtruth_rect.txt", 2)
    found = {row.name: (row.count, row.root) for row in find_datasets(tmp_path)}
    assert found["otb100"] == (1, tmp_path / "OTB100") and found["folder"] == (1, tmp_path) and "dtb70" not in found
    assert f"folder           1 of 1     {tmp_path}\n" in describe_datasets(tmp_path)
