"""Sources of targets: miniature trees of each data set, damaged files, laws of the compositions."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ebmtrack.data.catalogue import open_source
from ebmtrack.data.pool import STILLS, held_back, held_back_material, open_training_folder, video_weights
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos import got10k
from ebmtrack.videos.coco import CocoSource
from ebmtrack.videos.compose import (
    Layer,
    alpha_box_xywh,
    blend,
    clean_cutout,
    motion_kernel,
    shown_frac,
    warped_layer,
)
from ebmtrack.videos.image_store import ImageStore, LimitedCache
from ebmtrack.videos.source import Selection, Source
from ebmtrack.videos.synthetic import SyntheticSource
from tests.support.trees import (
    RED,
    coco_content,
    coco_tree,
    got10k_source,
    got10k_tree,
    lasot_source,
    lasot_tree,
    material_tree,
    save_cutout,
    save_image,
    save_text,
    trackingnet_source,
    trackingnet_tree,
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return material_tree(tmp_path_factory.mktemp("material"))


# --- base


def test_images_come_as_read_only_rgb(tmp_path: Path) -> None:
    """A file written as red has its largest value in the first channel, within JPEG's rounding."""
    save_image(tmp_path / "red.jpg")
    image = ImageStore(1000, 10_000).rgb(tmp_path / "red.jpg")
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.abs(image.astype(int) - RED).max() <= 4
    with pytest.raises(ValueError):
        image[0, 0, 0] = 1


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:15], lambda data: b"text" * 9])
def test_damaged_images_are_named(tmp_path: Path, damage) -> None:
    save_image(tmp_path / "red.jpg")
    (tmp_path / "red.jpg").write_bytes(damage((tmp_path / "red.jpg").read_bytes()))
    with pytest.raises(DatasetError, match="red.jpg"):
        ImageStore().rgb(tmp_path / "red.jpg")


def test_a_cutout_without_alpha_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "plain.png")
    with pytest.raises(DatasetError, match="plain.png.*alpha"):
        ImageStore().rgba(tmp_path / "plain.png")


def test_cache_keeps_the_last_used_within_its_limit() -> None:
    """Limit 10, three values of 4: the third drops the least recently used, the second once the first was
    asked for again."""
    made = []
    cache = LimitedCache(10)

    def value(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key

        return cache.get(key, make, lambda _: 4)

    assert [value(key) for key in "abacab"] == list("abacab")
    assert made == ["a", "b", "c", "b"]
    assert cache.get("big", lambda: "big", lambda _: 11) == "big" and value("b") == "b" and made[-1] == "b"
    assert pickle.loads(pickle.dumps(cache)).get("a", lambda: "new", lambda _: 1) == "new"


class Names(Source):
    """Targets that are only names and numbers of visible frames."""

    name, is_video = "names", True

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = list(counts.items())

    def __len__(self) -> int:
        return len(self.counts)

    def target_name(self, index: int) -> str:
        return self.counts[index][0]

    def boxes_xywh(self, index: int) -> np.ndarray:
        return np.ones((self.counts[index][1], 4))

    def visible(self, index: int) -> np.ndarray:
        return np.ones(self.counts[index][1], bool)

    def frame(self, index: int, frame: int) -> np.ndarray:
        return np.full((1, 1, 3), index, np.uint8)


def test_selections_compose() -> None:
    """A subset of a weighted subset addresses the same targets and carries their weights."""
    source = Names({"a": 1, "b": 2, "c": 3, "d": 4})
    chosen = source.subset(lambda name: name != "a").with_weights(np.array([5.0, 6.0, 7.0])).subset("bd".__contains__)
    assert [chosen.target_name(i) for i in range(len(chosen))] == ["b", "d"]
    assert chosen.weights().tolist() == [5.0, 7.0]
    assert chosen.frame(1, 0)[0, 0, 0] == 3 and len(chosen.boxes_xywh(0)) == 2 and len(chosen.visible(1)) == 4
    assert len(source.subset(lambda name: False)) == 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, np.nan], [1.0, -1.0]])
def test_weights_that_cannot_be_drawn_from_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="names"):
        Selection(Names({"a": 1, "b": 1}), [0, 1], np.array(weights))


# --- video


def test_got10k_reads_boxes_and_labels(tmp_path: Path) -> None:
    """Of five frames the second is absent, the third has no width, the fourth no box."""
    source = got10k_source(got10k_tree(tmp_path))
    assert len(source) == 2 and source.is_video and source.target_name(1) == "GOT-10k_Train_000002"
    assert source.boxes_xywh(0)[1].tolist() == [4.5, 4, 10.25, 12]
    assert source.visible(0).tolist() == [True, False, False, False, True]
    assert source.frame(1, 4).shape == (30, 40, 3)
    source.check()


def test_got10k_covered_frames_are_not_visible(tmp_path: Path) -> None:
    got10k_tree(tmp_path)
    save_text(tmp_path / "GOT-10k_Train_000001" / "cover.label", "2\n8\n8\n8\n0\n")
    assert got10k_source(tmp_path).visible(0).tolist() == [True, False, False, False, False]  # 0 is covered
    assert not got10k_source(tmp_path, least_cover=3).visible(0).any()


def test_got10k_test_split_has_one_box_and_no_labels(tmp_path: Path) -> None:
    save_text(tmp_path / "list.txt", "GOT-10k_Test_000001")
    save_text(tmp_path / "GOT-10k_Test_000001" / "groundtruth.txt", "1.0,2.0,3.0,4.0\n")
    source = got10k_source(tmp_path)
    assert source.boxes_xywh(0).tolist() == [[1, 2, 3, 4]] and source.visible(0).tolist() == [True]


def test_got10k_excludes_sequences_by_name_or_file(tmp_path: Path) -> None:
    got10k_tree(tmp_path / "train")
    save_text(tmp_path / "exclude.txt", "GOT-10k_Train_000001\n")
    by_name = got10k_source(tmp_path / "train", exclude=["GOT-10k_Train_000001"])
    by_file = open_source("got10k", tmp_path, exclude=tmp_path / "exclude.txt")
    assert by_name.target_name(0) == by_file.target_name(0) == "GOT-10k_Train_000002"
    assert len(by_name) == len(by_file) == 1


def test_lasot_splits_and_marks(tmp_path: Path) -> None:
    """Training is what the published test set does not name, by number; occluded and unseen frames do not count."""
    root = lasot_tree(tmp_path)
    source = lasot_source(root)
    assert [source.target_name(i) for i in range(len(source))] == ["cat-2", "cat-10"]
    assert source.visible(0).tolist() == [True, False, False, False, False]
    assert [lasot_source(root, "test").target_name(0), len(lasot_source(root, "all"))] == ["dog-1", 3]
    source.check()
    with pytest.raises(ConfigError, match="train, test, extension, all"):
        lasot_source(root, "val")


def test_trackingnet_reads_frames_unpacked_and_zipped(tmp_path: Path) -> None:
    """The same frame comes from frames/<name>/ and from zips/<name>.zip, with or without a folder inside."""
    root = trackingnet_tree(tmp_path)
    unpacked = trackingnet_source(root, sets="0-1")
    assert [unpacked.target_name(i) for i in range(3)] == ["ab_1", "cd_2", "ef_3"]
    assert unpacked.visible(2).tolist() == [True, True, False, False, True]
    expected = [unpacked.frame(i, 3).copy() for i in range(3)]
    for number, name, inside in ((0, "ab_1", ""), (1, "ef_3", "ef_3/")):
        folder = root / f"TRAIN_{number}"
        (folder / "zips").mkdir()
        with zipfile.ZipFile(folder / "zips" / f"{name}.zip", "w") as archive:
            for path in (folder / "frames" / name).iterdir():
                archive.write(path, inside + path.name)
                path.unlink()
        (folder / "frames" / name).rmdir()
    zipped = trackingnet_source(root, sets="0-1")
    for index, frame in enumerate(expected):
        assert np.array_equal(zipped.frame(index, 3), frame)
    (root / "TRAIN_1" / "zips" / "ef_3.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="ef_3.zip"):
        trackingnet_source(root, sets="1").frame(0, 0)


@pytest.mark.parametrize("frame", [-1, 5])
def test_frames_that_do_not_exist_are_named(tmp_path: Path, frame: int) -> None:
    with pytest.raises(DatasetError, match=f"frame {frame} of 5"):
        got10k_source(got10k_tree(tmp_path)).frame(0, frame)


def test_got10k_without_a_list_is_its_folders(tmp_path: Path) -> None:
    """As for VOT; the lists of VOT's splits may be numbers of its lines, and need it."""
    root, names = got10k_tree(tmp_path / "got"), ("GOT-10k_Train_000001", "GOT-10k_Train_000002")
    (root / "list.txt").unlink()
    (root / "notes").mkdir()
    assert got10k.find(root, "train").names == names
    save_text(root / "vottrain.txt", "1\n")
    with pytest.raises(DatasetError, match="list.txt: missing, and the split 'vottrain' is a part of it"):
        got10k.find(root, "vottrain")
    with pytest.raises(DatasetError, match="notes: no list.txt and no NAME/groundtruth.txt"):
        got10k.find(root / "notes", "train")


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    for kind in (got10k_source, lasot_source, trackingnet_source, CocoSource):
        with pytest.raises(DatasetError, match="nowhere"):
            kind(tmp_path / "nowhere")
    root = got10k_tree(tmp_path)
    (root / "GOT-10k_Train_000001" / "groundtruth.txt").unlink()
    with pytest.raises(DatasetError, match="groundtruth.txt"):
        got10k_source(root).visible(0)
    save_text(root / "list.txt", "GOT-10k_Train_000001\n../elsewhere\n")
    with pytest.raises(DatasetError, match="list.txt, line 2"):
        got10k_source(root)


# --- photographs


def test_coco_has_every_box_that_is_no_crowd_and_has_area(tmp_path: Path) -> None:
    """Of eight boxes two crowds, one without height and one beside the photograph are left out, as in pytracking."""
    content = coco_content()
    content["annotations"] += [
        {"id": 20 + i, "image_id": 1, "category_id": 3, "bbox": box, "iscrowd": 0}
        for i, box in enumerate([[3, 3, 9, 0], [50, 5, 9, 9]])
    ]
    content["annotations"].append(content["annotations"][0] | {"id": 30, "iscrowd": "1"})
    content["annotations"][0]["iscrowd"] = "0"  # some programs write texts
    coco_tree(tmp_path)
    save_text(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    source = CocoSource(tmp_path)
    names = [source.target_name(i) for i in range(len(source))]
    assert names == ["web_set_1#10", "web_set_1#12", "web_set_2#13", "web_set_1#14"]


def test_the_small_pools_photographs_leave_out_tiny_and_filling_boxes(tmp_path: Path) -> None:
    """Of five boxes the crowd, the 4 pixel one, the whole image, and a box clipped to 10 are left out."""
    source = CocoSource(coco_tree(tmp_path), **STILLS)
    assert [source.target_name(i) for i in range(len(source))] == ["web_set_1#10"]
    assert source.boxes_xywh(0).tolist() == [[5, 6, 20, 15]] and source.visible(0).tolist() == [True]
    assert not source.is_video and source.category(0) == "cat"
    assert source.frame(0, 0).shape == (30, 40, 3)
    clipped = CocoSource(tmp_path, least_side=8, largest_frac=2.0)
    names = [clipped.target_name(i) for i in range(len(clipped))]
    assert names == ["web_set_1#10", "web_set_2#13", "web_set_1#14"]
    assert clipped.boxes_xywh(2).tolist() == [[30, 10, 10, 15.5]]
    with pytest.raises(DatasetError, match="frame 0 only"):
        source.frame(0, 1)


@pytest.mark.parametrize("attributes", [None, ["any"], {"rotation": None}, {"rotation": 0.0}, {"rotation": 90}])
def test_a_photographs_box_that_cvat_has_turned_is_the_upright_box_around_it(
    tmp_path: Path, attributes: object
) -> None:
    """The box [5, 6, 20, 15] of the first annotation; attributes of other programs say nothing of angles."""
    content = coco_content()
    content["annotations"][0]["attributes"] = attributes
    coco_tree(tmp_path)
    save_text(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    is_turned = isinstance(attributes, dict) and attributes["rotation"] == 90
    expected = [7.5, 3.5, 15, 20] if is_turned else [5, 6, 20, 15]
    assert CocoSource(tmp_path, **STILLS).boxes_xywh(0).tolist() == [expected]


@pytest.mark.parametrize(
    "key, number, field, value",
    [
        ("annotations", 3, "bbox", [1, 2, 3]),
        ("annotations", 2, "bbox", [1, 2, "3", 4]),
        ("annotations", 4, "bbox", [1, 2, 1e300, 4]),
        ("annotations", 2, "attributes", {"rotation": "a lot"}),
        ("annotations", 2, "attributes", {"rotation": float("inf")}),
        ("annotations", 1, "image_id", 77),
        ("annotations", 1, "category_id", None),
        ("images", 1, "file_name", "../../secret.jpg"),
        ("images", 0, "width", 0),
        ("categories", 0, "name", 5),
    ],
)
def test_coco_faults_are_found_by_line(tmp_path: Path, key: str, number: int, field: str, value: object) -> None:
    """The file is written with one entry a line after its head, so the entry's line can be counted."""
    content = coco_content()
    content[key][number][field] = value
    lines = ["{"]
    for name, entries in content.items():
        lines.append(f'"{name}": [')
        lines.extend(json.dumps(entry) + "," * (i < len(entries) - 1) for i, entry in enumerate(entries))
        lines.append("]" + "," * (name != "categories"))
    expected = lines.index(f'"{key}": [') + 2 + number
    coco_tree(tmp_path)
    save_text(tmp_path / "annotations" / "instances_train2017.json", "\n".join([*lines, "}"]))
    message = rf"instances_train2017.json, line {expected}: {key}\[{number}\]: {field} "
    if key == "categories":  # the only one, so that no box is left
        with pytest.raises(DatasetError, match=message):
            CocoSource(tmp_path)
        return
    with pytest.warns(UserWarning, match=message):
        source = CocoSource(tmp_path)
    assert len(source) > 0 and next(source.faults()).startswith(str(tmp_path / "annotations"))


def test_coco_images_that_share_an_id_are_left_out(tmp_path: Path) -> None:
    """In merged files nobody can know whose the boxes are; an image that is listed twice alike is one."""
    content, path = coco_content(), tmp_path / "annotations" / "instances_train2017.json"
    coco_tree(tmp_path)
    usual = len(CocoSource(tmp_path))
    save_text(path, json.dumps(content | {"images": [*content["images"], content["images"][0]]}))
    assert len(CocoSource(tmp_path)) == usual
    twin = content["images"][0] | {"file_name": "other.jpg"}
    save_text(path, json.dumps(content | {"images": [*content["images"], twin]}))
    with pytest.warns(UserWarning, match=r"images\[0\]: id 1 is that of another entry, too"):
        source = CocoSource(tmp_path)
    assert {source.target_name(i).partition("#")[0] for i in range(len(source))} == {"web_set_2"}


def test_a_coco_file_without_a_usable_box_is_refused(tmp_path: Path) -> None:
    """The error is that of the first entry."""
    content = coco_content() | {"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, "x", 4]}]}
    coco_tree(tmp_path)
    save_text(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    with pytest.raises(DatasetError, match=r"line 1: annotations\[0\]: bbox is"):
        CocoSource(tmp_path)


# --- a thousand broken files


def broken(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` cut, doubled, overwritten, or with strange bytes put in."""
    place = int(rng.integers(len(data) + 1))
    junk = [
        b"\x00",
        b"\xff\xfe",
        b"x",
        b"-",
        b"1e999",
        b",,",
        b"\n",
        b"]",
        b'"',
        b"9" * 30,
        b"_",
        "²".encode(),
    ]
    piece = junk[rng.integers(len(junk))]
    choices = [
        data[:place],
        data + data[:place],
        data[:place] + piece + data[place:],
        data[:place] + piece + data[place + len(piece) :],
        data[:place] + data[place + int(rng.integers(1, 9)) :],
    ]
    return choices[rng.integers(len(choices))]


def read_all(source: Source) -> None:
    for index in range(len(source)):
        boxes, visible = source.boxes_xywh(index), source.visible(index)
        assert len(boxes) == len(visible) and np.isfinite(boxes[visible]).all()
        assert (boxes[visible][:, 2:] >= 1).all()


BREAKABLE: list[tuple[Callable[[Path], Path], Callable[[Path], Source], str]] = [
    (got10k_tree, got10k_source, "GOT-10k_Train_000001/groundtruth.txt"),
    (got10k_tree, got10k_source, "GOT-10k_Train_000001/absence.label"),
    (got10k_tree, got10k_source, "GOT-10k_Train_000001/cover.label"),
    (got10k_tree, got10k_source, "list.txt"),
    (lasot_tree, lasot_source, "cat/cat-2/groundtruth.txt"),
    (lasot_tree, lasot_source, "cat/cat-2/full_occlusion.txt"),
    (trackingnet_tree, lambda root: trackingnet_source(root, sets="0"), "TRAIN_0/anno/ab_1.txt"),
    (coco_tree, CocoSource, "annotations/instances_train2017.json"),
    (coco_tree, CocoSource, "annotations/instances_train2017.json"),
]


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("number", range(len(BREAKABLE)))
def test_broken_annotations_give_dataset_errors_with_a_line(tmp_path: Path, number: int) -> None:
    """A hundred variants each: read with sane values, or a DatasetError that names the file and a line."""
    tree, opened, name = BREAKABLE[number]
    root, rng = tree(tmp_path), np.random.default_rng(number)
    data, refused = (root / name).read_bytes(), 0
    for _ in range(100):
        (root / name).write_bytes(broken(data, rng))
        try:
            read_all(opened(root))
        except DatasetError as error:
            refused += 1
            assert re.search(r"(txt|label|json), line [0-9]+: |no sequence", str(error))
    assert refused >= 10


# --- compositions


def solid_layer(width: int, height: int, x: int, y: int, value: float = 255.0) -> Layer:
    """An opaque rectangle with two clear pixels around it."""
    pixels = np.zeros((height + 4, width + 4, 4), np.float32)
    pixels[2:-2, 2:-2] = (value, value, value, 1)
    return Layer(pixels, x - 2, y - 2)


def box_of(layer: Layer) -> np.ndarray:
    """Return the box of a layer that shows something."""
    box = alpha_box_xywh(layer)
    assert box is not None
    return box


def test_box_of_a_hard_mask_is_the_mask_box() -> None:
    """Columns 7..16 and rows -3..1 give x = 7, w = 10, y = -3, h = 5."""
    assert np.allclose(box_of(solid_layer(10, 5, 7, -3)), [7, -3, 10, 5])
    assert alpha_box_xywh(Layer(np.zeros((4, 4, 4), np.float32), 0, 0)) is None
    full = Layer(np.ones((4, 6, 4), np.float32), 1, 2)
    assert np.allclose(box_of(full), [1, 2, 6, 4])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.25, 0.0), (0.5, -0.75), (13.1, -40.3)])
@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.7, 0.8)])
def test_boxes_follow_the_transform(shift: tuple[float, float], stretch: tuple[float, float]) -> None:
    """A w x h rectangle under diag(a, b) with its middle at c has sides a w and b h and its middle at c;
    pixel centres are whole numbers, so a box x, w has its middle at x + (w - 1) / 2. Where
    a step of the frame is a step and a quarter of the cut-out, an edge is known to a fifth of a pixel."""
    cutout = np.zeros((36, 46, 4), np.float32)
    cutout[3:-3, 3:-3] = (255, 255, 255, 1)
    centre = np.array([50.0, 60.0]) + shift
    x, y, w, h = box_of(warped_layer(cutout, np.diag(stretch), centre))
    assert np.allclose([w, h], [40 * stretch[0], 30 * stretch[1]], atol=0.2)
    assert np.allclose([x + (w - 1) / 2, y + (h - 1) / 2], centre, atol=0.2)


def test_a_quarter_turn_swaps_the_sides() -> None:
    cutout = np.zeros((36, 46, 4), np.float32)
    cutout[3:-3, 3:-3] = 1
    box = box_of(warped_layer(cutout, np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([20.0, 20.0])))
    assert np.allclose(box[2:], [30, 40], atol=0.1)


def test_half_a_cover_shows_half() -> None:
    target = solid_layer(20, 10, 5, 5)
    assert shown_frac(target, [], 100, 100) == 1.0
    assert shown_frac(target, [solid_layer(10, 10, 5, 5)], 100, 100) == pytest.approx(0.5)
    assert shown_frac(target, [solid_layer(10, 10, 5, 5)] * 2, 100, 100) == pytest.approx(0.5)
    assert shown_frac(target, [], 15, 100) == pytest.approx(0.5)
    assert shown_frac(solid_layer(20, 10, 200, 5), [], 100, 100) == 0.0


def test_blending_draws_inside_only() -> None:
    """An opaque layer replaces its pixels, a clear one changes none, one outside is ignored."""
    frame = np.full((20, 30, 3), 7, np.uint8)
    blend(frame, solid_layer(10, 10, 25, 15, 99.0))
    assert (frame[15:, 25:] == 99).all() and (frame[:15] == 7).all() and (frame[:, :25] == 7).all()
    before = frame.copy()
    blend(frame, solid_layer(10, 10, 300, 15))
    blend(frame, Layer(np.zeros((9, 9, 4), np.float32), 3, 3))
    assert np.array_equal(frame, before)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5708, 3.0])
def test_motion_kernel_is_centred(angle: float) -> None:
    """Weights sum to one and are the same on both sides, so that a blur moves no box."""
    kernel = motion_kernel(7.0, angle)
    assert kernel.sum() == pytest.approx(1.0) and np.allclose(kernel, kernel[::-1, ::-1])


def test_cutouts_are_cleaned_of_specks() -> None:
    """A 20 x 30 block with a 2 x 2 speck (0.7 %) keeps the block only; colour is premultiplied."""
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[10:30, 10:40] = (200, 100, 50, 255)
    rgba[50:52, 50:52] = 255
    cutout = clean_cutout(rgba)
    assert cutout is not None
    assert (cutout[..., 3] > 0.5).sum() == 600 and max(cutout.shape[:2]) <= 32
    assert cutout[10, 10].tolist() == [200, 100, 50, 1]
    assert clean_cutout(np.zeros((9, 9, 4), np.uint8)) is None


def test_cut_outs_for_occluders_are_straight_bytes(material: tuple[Path, Path]) -> None:
    """The solid part of a drawn cut-out is opaque (alpha 255) and has the colours of its file."""
    source = SyntheticSource(*material)
    cutout = source.draw_cutout(np.random.default_rng(0))
    assert cutout.dtype == np.uint8 and cutout.shape[2] == 4 and cutout[..., 3].max() == 255
    solid = cutout[cutout[..., 3] == 255][:, :3]
    pictures = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(material[0].iterdir())]
    files = [picture for picture in pictures if picture is not None]
    colours = [np.median(file[file[..., 3] == 255][:, 2::-1], axis=0) for file in files]
    assert min(np.abs(np.median(solid, axis=0) - colour).max() for colour in colours) <= 2
    assert source.draw_photograph(np.random.default_rng(0)).dtype == np.uint8


def test_clips_follow_from_seed_and_index_alone(material: tuple[Path, Path]) -> None:
    """The same clip from another object, asked for in another order, is equal to the bit; others differ."""
    first, second = SyntheticSource(*material, seed=3), SyntheticSource(*material, seed=3)
    for index in (5, 900, 0):
        second.frame(index, 1)
    for index in (0, 5):
        assert np.array_equal(first.boxes_xywh(index), second.boxes_xywh(index))
        assert np.array_equal(first.frame(index, 4), second.frame(index, 4))
    assert not np.array_equal(first.boxes_xywh(0), first.boxes_xywh(5))
    assert not np.array_equal(SyntheticSource(*material, seed=4).boxes_xywh(0), first.boxes_xywh(0))
    assert first.target_name(7) == "synthetic-3-7" and len(first) == 100_000


def test_boxes_bound_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White blocks alone on black: the pixels brighter than half the brightest have the annotated box, to 1.5
    pixels a side (soft edges, grey offset)."""
    save_cutout(tmp_path / "cutouts" / "block_0.png")
    save_image(tmp_path / "backgrounds" / "black.png", (0, 0, 0), (320, 240))
    monkeypatch.setattr(SyntheticSource, "_others", lambda *_: ([], []))
    source = SyntheticSource(tmp_path / "cutouts", tmp_path / "backgrounds", clip_length=3)
    for index in range(25):
        for number, box in enumerate(source.boxes_xywh(index)):
            image = source.frame(index, number).max(axis=2).astype(float)
            mask = image > (image.max() + image.min()) / 2
            columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert source.visible(index)[number]
            assert np.abs(np.array([*box[:2], *(box[:2] + box[2:])]) - drawn).max() <= 1.5


def test_clips_move_and_hide_targets_sometimes(material: tuple[Path, Path]) -> None:
    """Over 150 clips: some targets move more than their size, some frames are hidden, most are not, and all
    boxes lie in their frames."""
    source = SyntheticSource(*material)
    shown, moved = [], []
    for index in range(150):
        boxes, size = source.boxes_xywh(index), np.array(source.clip(index).size_wh)
        shown.append(source.visible(index).mean())
        moved.append(np.linalg.norm(boxes[-1, :2] - boxes[0, :2]) / np.sqrt(boxes[0, 2] * boxes[0, 3]))
        assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= size).all()
    assert 0.9 < np.mean(shown) < 1.0
    assert np.mean(np.array(moved) > 1) > 0.1 and np.median(moved) < 1.5


def test_compositions_refuse_what_they_cannot_use(tmp_path: Path, material: tuple[Path, Path]) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        SyntheticSource(tmp_path / "nowhere", material[1])
    with pytest.raises(DatasetError, match="no image"):
        SyntheticSource(tmp_path, material[1])
    with pytest.raises(ConfigError, match="0 frames"):
        SyntheticSource(*material, clip_length=0)
    with pytest.raises(DatasetError, match="clip 7 of 5"):
        SyntheticSource(*material, length=5).boxes_xywh(7)
    with pytest.raises(DatasetError, match="frame 6 of 6"):
        SyntheticSource(*material).frame(0, 6)
    assert cv2.imwrite(str(tmp_path / "clear.png"), np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(DatasetError, match="no solid"):
        SyntheticSource(tmp_path, material[1]).boxes_xywh(0)


# --- the pool


def test_held_back_names() -> None:
    assert held_back("DAVIS_libby") and held_back("web_elephant_12#3") and held_back("web_potsb_1#2")
    assert not held_back("DAVIS_camel") and not held_back("web_bsds_1#2") and not held_back("coco_000009#1")
    assert held_back_material("davis_goat_12") and held_back_material("davis_bmx-trees_0")
    assert not held_back_material("davis_cows_0")
    part = np.mean([held_back_material(f"caltech_watch_image_{i:04d}") for i in range(3000)])
    assert 0.05 < part < 0.085  # one in fifteen is 0.067, deviation 0.0046


def test_video_weights_cap_plain_pavement() -> None:
    """FODA has nine in ten of the sequences, but its share is 0.06 against 0.26 of DAVIS, the only other
    family here; inside a family, four times the frames weigh twice."""
    weights = video_weights(Names({"DAVIS_a": 25, "DAVIS_b": 100} | {f"FODA_{i}": 8 for i in range(18)}))
    assert weights[1] == pytest.approx(2 * weights[0])
    assert weights[2:].sum() / weights.sum() == pytest.approx(0.06 / 0.32)


def test_of_own_clips_beside_own_photographs_some_are_held_back(tmp_path: Path) -> None:
    """The pool's list of names is for the pool: own clips that have such names are treated as any others."""
    got10k_tree(tmp_path / "got10k" / "train", ("HEN_1", "THERMAL_2", "ROVER_3"))
    content = coco_content()
    content["annotations"][1]["iscrowd"] = 0
    coco_tree(tmp_path / "coco")
    save_text(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(content))
    train, held, both = (open_training_folder(tmp_path, part) for part in ("train", "validation", "all"))
    assert [len(train[kind]) for kind in ("video", "stills")] == [2, 1]
    assert [len(held[kind]) for kind in ("video", "stills")] == [1, 1]
    for kind in ("video", "stills"):
        names = [{part[kind].target_name(i) for i in range(len(part[kind]))} for part in (train, held, both)]
        assert not names[0] & names[1] and names[0] | names[1] == names[2]


def test_pool_parts_are_disjoint(tmp_path: Path) -> None:
    """Training and validation together are everything, and share no sequence and no photograph."""
    got10k_tree(tmp_path / "got10k" / "train", ("DAVIS_libby", "DAVIS_camel", "FODA_x_1"))
    content = coco_content()
    content["images"][1]["file_name"] = "web_elephant_2.jpg"
    content["annotations"][1]["iscrowd"] = 0
    coco_tree(tmp_path / "coco")
    save_text(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(content))
    material_tree(tmp_path)
    opened = {part: open_training_folder(tmp_path, part) for part in ("train", "validation", "all")}
    names = {
        part: [{pool[kind].target_name(i) for i in range(len(pool[kind]))} for kind in ("video", "stills")]
        for part, pool in opened.items()
    }
    assert names["train"] == [{"DAVIS_camel", "FODA_x_1"}, {"web_set_1#10"}]
    assert names["validation"] == [{"DAVIS_libby"}, {"web_elephant_2#11"}]
    assert names["all"] == [names["train"][i] | names["validation"][i] for i in range(2)]
    assert opened["train"]["synthetic"].frame(0, 0).ndim == 3
    with pytest.raises(ConfigError, match="train, validation, all"):
        open_training_folder(tmp_path, "test")
