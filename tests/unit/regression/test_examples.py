"""Readers of labelled images on miniature trees of the real layouts, and the drawn stand-ins."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.errors import DatasetError
from ebmtrack.images import write_picture
from ebmtrack.regression.examples import LAYOUTS, read_biwi, read_csv, read_utkface, splits_of
from ebmtrack.regression.synthetic import DRAWINGS, draw_examples
from ebmtrack.regression.training import RegressionSettings, open_examples


def picture(path, value: int, side: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, np.full((side, side, 3), value, np.uint8))


def write_csv(path, rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def csv_tree(folder):
    """Return labels.csv with two numbers for each of three images, one of which is for tests."""
    for i in range(3):
        picture(folder / "pictures" / f"{i}.png", 50 * i)
    rows = [
        ("image", "width", "height", "split"),
        *((f"pictures/{i}.png", i, -i, "train" if i else "test") for i in range(3)),
    ]
    write_csv(folder / "labels.csv", rows)
    return folder / "labels.csv"


def test_csv_files(tmp_path):
    """Paths are relative to the file; split chooses rows; images are scaled."""
    path = csv_tree(tmp_path)
    examples = read_csv(path, 8, "train")
    assert examples.targets == ("width", "height") and examples.labels.tolist() == [[1, -1], [2, -2]]
    assert examples.images.shape == (2, 8, 8, 3) and examples.images[:, 0, 0, 0].tolist() == [50, 100]
    assert len(read_csv(path, 8)) == 3


@pytest.mark.parametrize(
    "rows, match",
    [
        ([("image", "age"), ("pictures/0.png", "old")], "line 2: age is 'old'"),
        ([("image", "age"), ("pictures/0.png", "nan")], "line 2: age is .nan., expected a number"),
        ([("image", "age"), ("nowhere.png", "3")], "nowhere.png"),
        ([("image", "age")], "no rows"),
        ([("image",), ("pictures/0.png",)], "one to three columns"),
        ([("age", "image"), ("3", "pictures/0.png"), ("4",)], "wrong.csv, line 3: names no image"),
        (
            [("image", "age"), ("pictures/0.png", "3", "5")],
            r"line 2: .* has 3 fields for 2 columns; write decimal points",
        ),
        ([("image", "yaw", "yaw"), ("pictures/0.png", "3", "5")], "line 1: two columns are called 'yaw'"),
        ([("image", "age"), ("pictures/0.png", "3" * 200_000)], "wrong.csv, line 2: .*is no row of a CSV file"),
    ],
)
def test_wrong_csv_files_are_refused(tmp_path, rows, match):
    csv_tree(tmp_path)
    write_csv(tmp_path / "wrong.csv", rows)
    with pytest.raises(DatasetError, match=match):
        read_csv(tmp_path / "wrong.csv", 8)


@pytest.mark.parametrize(
    "content, match",
    [
        ('image,age\npictures/0.png,3\n\npictures/1.png,"4\n', "t.csv, line 4: .*is no row of a CSV file"),
        ("image,\xe4lder\npictures/0.png,3\n".encode("latin-1"), "t.csv, line 1: not in UTF-8"),
    ],
)
def test_csv_files_that_are_no_csv_or_no_text_are_refused(tmp_path, content, match):
    csv_tree(tmp_path)
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=match):
        read_csv(tmp_path / "t.csv", 8)


@pytest.mark.parametrize("word", ["validation", "val", "Valid", " dev"])
def test_a_csv_file_may_name_its_validation_rows(tmp_path, word):
    """They validate, and all rows for training train; before, they were dropped in silence."""
    csv_tree(tmp_path)
    rows = [(f"pictures/{i % 3}.png", i, part) for i, part in enumerate(("train", "train", word, "test"))]
    write_csv(tmp_path / "parts.csv", [("image", "age", "split"), *rows])
    assert splits_of(tmp_path / "parts.csv") == {"train", "validation", "test"}
    settings = RegressionSettings(out=tmp_path / "run", data=tmp_path / "parts.csv", image_size=8)
    assert [part.labels.ravel().tolist() for part in open_examples(settings)] == [[0, 1], [2], [3]]


def test_a_row_of_commas_is_no_blank_line(tmp_path):
    csv_tree(tmp_path)
    (tmp_path / "t.csv").write_text("image,age\npictures/0.png,1\n  \n,\n")
    with pytest.raises(DatasetError, match="t.csv, line 4: age is ''"):
        read_csv(tmp_path / "t.csv", 8)


def test_rows_without_one_to_test_on_are_refused_and_blank_lines_are_none(tmp_path):
    csv_tree(tmp_path)
    (tmp_path / "parts.csv").write_text("image,age,split\n\npictures/0.png,1,train\n   \npictures/1.png,2,val\n")
    with pytest.raises(DatasetError, match="no rows with split 'test': give some, or leave the column split out"):
        open_examples(RegressionSettings(out=tmp_path / "run", data=tmp_path / "parts.csv", image_size=8))


@pytest.mark.parametrize("word", ["training set", "fold2", ""])
def test_other_words_for_a_split_are_refused(tmp_path, word):
    csv_tree(tmp_path)
    rows = [("image", "age", "split"), ("pictures/0.png", 1, "train"), ("pictures/1.png", 2, word)]
    write_csv(tmp_path / "parts.csv", rows)
    with pytest.raises(DatasetError, match=f"parts.csv, line 3: split is '{word}', expected train, validation or test"):
        open_examples(RegressionSettings(out=tmp_path / "run", data=tmp_path / "parts.csv", image_size=8))


def test_utkface(tmp_path):
    """The ages are in the names, 21 to 60 alone; coral-cnn's lists, whose labels are age - 21, come first."""
    for name in ("9_0_0_1.jpg", "21_0_0_2.jpg", "60_1_2_3.jpg.chip.jpg", "61_1_1_4.jpg"):
        picture(tmp_path / name, 90)
    (tmp_path / "._21_0_0_2.jpg").write_bytes(b"\0\5\x16\7")  # of macOS
    assert read_utkface(tmp_path, 8).labels.tolist() == [[21], [60]]
    write_csv(tmp_path / "utk_test.csv", [("", "file", "label"), (0, "60_1_2_3.jpg.chip.jpg", 39)])
    assert read_utkface(tmp_path, 8, "test").labels.tolist() == [[60]]
    with pytest.raises(DatasetError, match="no file .*utk_train.csv"):
        read_utkface(tmp_path, 8, "train")
    picture(tmp_path / "old_1.jpg", 3)
    with pytest.raises(DatasetError, match="old_1.jpg"):
        read_utkface(tmp_path, 8)


def biwi_tree(folder, number: int = 3) -> None:
    images = np.zeros((number, 64, 64, 3), np.uint8)
    images[..., 0] = 200  # blue, as OpenCV orders it
    for part in ("train", "test"):
        np.savez(folder / f"BIWI_{part}.npz", image=images, pose=np.arange(3.0 * number).reshape(number, 3))


def test_biwi(tmp_path):
    """BGR becomes RGB; the three angles keep their order."""
    biwi_tree(tmp_path)
    examples = read_biwi(tmp_path, 64, "test")
    assert examples.images[0, 0, 0].tolist() == [0, 0, 200]
    assert examples.targets == ("yaw", "pitch", "roll") and examples.labels[1].tolist() == [3, 4, 5]
    np.savez(tmp_path / "BIWI_test.npz", image=np.zeros((2, 64, 64, 3)), pose=np.full((2, 3), 500.0))
    with pytest.raises(DatasetError, match="row 0 has an angle of 500"):
        read_biwi(tmp_path, 64, "test")
    np.savez(tmp_path / "BIWI_test.npz", image=np.zeros((2, 64, 64, 3)))
    with pytest.raises(DatasetError, match="no array 'pose'"):
        read_biwi(tmp_path, 64, "test")
    (tmp_path / "BIWI_test.npz").write_bytes((tmp_path / "BIWI_train.npz").read_bytes()[:200])
    with pytest.raises(DatasetError, match="BIWI_test.npz: cannot be read"):
        read_biwi(tmp_path, 64, "test")
    (tmp_path / "BIWI_test.npz").write_text("a text")
    with pytest.raises(DatasetError, match=r"BIWI_test.npz: cannot be read \(it holds something else than arrays\)"):
        read_biwi(tmp_path, 64, "test")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_columns_of_a_csv_file_are_separated_by_commas(separator, tmp_path):
    (tmp_path / "a.csv").write_text(f"image{separator}age\na.png{separator}3\n")
    with pytest.raises(DatasetError, match="a.csv, line 1: columns are separated by commas, such as image,age, not by"):
        read_csv(tmp_path / "a.csv", 20)


def test_hdf5_files_of_ccgan(tmp_path):
    """Grey channels are repeated; ages above 60 are left out."""
    h5py = pytest.importorskip("h5py", reason="CcGAN's files are HDF5")
    with h5py.File(tmp_path / "Cell200_64x64.h5", "w") as file:
        file["IMGs_grey"], file["CellCounts"] = np.full((2, 1, 64, 64), 7, np.uint8), np.array([1.0, 200.0])
    with h5py.File(tmp_path / "UTKFace_64x64.h5", "w") as file:
        file["images"], file["labels"] = np.zeros((2, 3, 64, 64), np.uint8), np.array([60, 61])
    cells = LAYOUTS["cell200"](tmp_path, 64, "all")
    assert cells.images[1, 3, 3].tolist() == [7, 7, 7] and cells.labels.tolist() == [[1], [200]]
    assert LAYOUTS["utkface-h5"](tmp_path, 64, "all").labels.tolist() == [[60]]


def test_datasets_check(tmp_path, capsys):
    """Counts and ranges; damage is exit code 1."""
    biwi_tree(tmp_path)
    assert cli.main(["datasets", "check", "BIWI", str(tmp_path)]) == 0  # as people type it
    assert "biwi test: 3 images, yaw 0 to 6" in capsys.readouterr().out
    (tmp_path / "BIWI_test.npz").unlink()
    assert cli.main(["datasets", "check", "biwi", str(tmp_path)]) == 1
    assert "DAMAGED" in capsys.readouterr().out


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawn_images_are_reproducible_and_depend_on_their_numbers(name):
    one, other = draw_examples(name, 4, 32, 1), draw_examples(name, 4, 32, 1)
    assert np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)
    assert one.images.shape == (4, 32, 32, 3) and one.images.std() > 5
    assert not np.array_equal(one.labels, draw_examples(name, 4, 32, 2).labels)


def test_more_cells_are_brighter():
    cells = draw_examples("cells", 40, 32, 0)
    brightness = cells.images.mean(axis=(1, 2, 3))
    assert np.corrcoef(brightness, cells.labels[:, 0])[0, 1] > 0.9


def test_split_parts_are_disjoint_and_complete():
    examples = draw_examples("age", 10, 8, 0)
    parts = examples.split((0.5, 0.2, 0.3), seed=1)
    assert [len(part) for part in parts] == [5, 2, 3]
    assert sorted(np.concatenate([p.labels[:, 0] for p in parts])) == sorted(examples.labels[:, 0])
    with pytest.raises(DatasetError, match="2 examples are too few"):
        parts[1].split((0.8, 0.1, 0.1))


@pytest.mark.parametrize("row, what", [("a.png,nan", "size is 'nan', expected a number"), ("none.png,1", "none.png")])
def test_a_bad_row_of_a_csv_file_is_named_by_its_line(tmp_path, row, what):
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "t.csv").write_text(f"image,size\na.png,1\n{row}\n")
    with pytest.raises(DatasetError, match=rf"t\.csv, line 3: .*{what}"):
        read_csv(tmp_path / "t.csv", 8)


def test_a_csv_file_that_is_not_there_is_an_error_of_the_data(tmp_path):
    with pytest.raises(DatasetError, match="no file .*t.csv"):
        splits_of(tmp_path / "t.csv")
