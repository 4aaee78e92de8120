"""Folders of training data: every verb finds the same kinds in them, and their parts share no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ebmtrack.commands import main as cli
from ebmtrack.data.pool import held_back_files, held_back_material, open_training_folder
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.folder import left_out
from ebmtrack.videos.source import Source
from ebmtrack.videos.synthetic import SyntheticSource
from tests.support.trees import coco_content, coco_tree, got10k_tree, save_cutout, save_image

CLIPS = ("cat", "dog", "owl")


def mixed_folder(root: Path, clips: tuple[str, ...] = CLIPS, cutouts: int = 5, backgrounds: int = 5) -> Path:
    """Return a folder of own sequences beside cut-outs and backgrounds whose names alone hold none back."""
    got10k_tree(root, clips)
    for number in range(cutouts):
        save_cutout(root / "cutouts" / f"object_{number}.png")
    for number in range(backgrounds):
        save_image(root / "backgrounds" / f"place_{number}.jpg", size_wh=(320, 240))
    assert not any(held_back_material(path.stem) for path in root.glob("*s/*_?.*"))
    return root


def files_of(source: Source) -> tuple[list[Path], list[Path]]:
    """Return the files of a source of compositions."""
    assert isinstance(source, SyntheticSource)
    return source.files


@pytest.mark.parametrize("count", [2, 5])
def test_of_few_cut_outs_and_backgrounds_some_are_held_back(tmp_path: Path, count: int) -> None:
    root = mixed_folder(tmp_path, CLIPS, count, count)
    opened = [open_training_folder(root, part) for part in ("train", "validation")]
    assert [[*kinds] for kinds in opened] == [["video", "synthetic"]] * 2
    for train, held in zip(*(files_of(kinds["synthetic"]) for kinds in opened)):
        assert len(train) == count - 1 and len(held) == 1 and not {*train} & {*held}
    assert all(kinds["synthetic"].frame(0, 0).ndim == 3 for kinds in opened)


def test_validation_does_without_compositions_over_a_single_background(tmp_path: Path) -> None:
    mixed_folder(tmp_path, backgrounds=1)
    assert {*open_training_folder(tmp_path, "validation")} == {"video"}
    train = open_training_folder(tmp_path, "train")
    assert {*train} == {"video", "synthetic"}
    assert [len(files) for files in files_of(train["synthetic"])] == [5, 1]  # no cut-out is lost to both parts


@pytest.mark.parametrize("count", range(4))
def test_files_that_are_all_held_back_by_name_leave_one_to_train_on(count: int) -> None:
    files = [path for path in (Path(f"{number}.png") for number in range(200)) if held_back_material(path.stem)][:count]
    assert len(files) == count and len(held_back_files(files)) == max(count - 1, 0)


def test_a_single_clip_is_held_back_beside_compositions(tmp_path: Path) -> None:
    """They are trained on, and a line says that the clip is not."""
    mixed_folder(tmp_path, ("cat",))
    with pytest.warns(UserWarning, match=f"{tmp_path}: all video is held back for validation, none is trained on"):
        assert {*open_training_folder(tmp_path)} == {"synthetic"}
    assert {*open_training_folder(tmp_path, "validation")} == {*open_training_folder(tmp_path, "all")}


def test_a_single_clip_alone_is_refused(tmp_path: Path) -> None:
    got10k_tree(tmp_path, ("cat",))
    with pytest.raises(ConfigError, match="training needs two sequences or more.*nothing is left for the part train"):
        open_training_folder(tmp_path)


def test_own_clips_are_trained_on_beside_photographs(tmp_path: Path) -> None:
    coco_tree(mixed_folder(tmp_path) / "coco")
    assert {*open_training_folder(tmp_path, "all")} == {"video", "stills", "synthetic"}


@pytest.mark.parametrize("place", ["coco/labels", "cutouts/labels"])
def test_labels_in_folders_of_other_kinds_make_no_clips_of_them(tmp_path: Path, place: str) -> None:
    """YOLO's files beside the photographs that they belong to."""
    coco_tree(tmp_path / "coco")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "photo_0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert {*open_training_folder(tmp_path, "all")} == {"stills"}


def test_got10k_needs_no_list(tmp_path: Path) -> None:
    """Clips that a user has put there, in got10k/train or in got10k itself, are trained on beside other kinds."""
    for place in ("got10k", "got10k/train"):
        root = tmp_path / place.replace("/", "-")
        mixed_folder(root, ())
        (got10k_tree(root / place, CLIPS) / "list.txt").unlink()
        (root / "list.txt").unlink()
        assert {*open_training_folder(root)} == {"video", "synthetic"}


def test_own_clips_beside_got10k_are_left_out_with_a_line(tmp_path: Path) -> None:
    got10k_tree(mixed_folder(tmp_path) / "got10k" / "train", ("a", "b"))
    with pytest.warns(UserWarning, match="own sequences beside got10k/ are left out; move them to got10k/train"):
        assert len(open_training_folder(tmp_path, "all")["video"]) == 2


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing to train on: .*; see docs/data.md"):
        open_training_folder(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        open_training_folder(tmp_path / "none")


def test_the_verbs_find_own_clips_beside_compositions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pack writes both kinds, datasets check counts both, cut-outs fills an empty folder that training would refuse."""
    root = mixed_folder(tmp_path / "data")
    argv = ["pack", "pool", str(root), str(tmp_path / "packs"), "--output", "64", "--clips", "2"]
    assert cli.main(argv) == 0
    assert {path.parent.name for path in tmp_path.glob("packs/*/pack.json")} == {"video", "synthetic"}
    assert cli.main(["datasets", "check", "pool", str(root)]) == 0
    out = capsys.readouterr().out
    assert "video: 3 targets" in out and "synthetic: 5 cut-outs, 5 backgrounds" in out
    for path in (root / "cutouts").iterdir():
        path.unlink()
    assert cli.main(["datasets", "check", "pool", str(root)]) == 1
    assert "cutouts: no image" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="cutouts: no image .* add some, or remove the folder"):
        open_training_folder(root)
    assert cli.main(["cut-outs", str(root), "--least-side", "4"]) == 0
    assert "cut-outs of" in capsys.readouterr().out


def test_damage_of_one_kind_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (coco_tree(mixed_folder(tmp_path) / "coco") / "annotations" / "instances_train2017.json").write_text("{")
    assert cli.main(["datasets", "check", "pool", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "DAMAGED" in out and "synthetic: 5 cut-outs" in out and "1 fault" in out


@pytest.mark.parametrize("what", ["pool", "folder"])
def test_a_first_box_outside_of_its_frame_is_damage(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In own clips as in a benchmark."""
    got10k_tree(tmp_path, CLIPS)
    assert cli.main(["datasets", "check", what, str(tmp_path)]) == 0
    (tmp_path / "cat" / "groundtruth.txt").write_text("300,300,10,12\n" * 5)
    assert cli.main(["datasets", "check", what, str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "cat/00000001.jpg: the first box (300, 300, 10, 12) is outside of it, which is 40 x 30" in out
    assert "1 fault" in out


def test_the_first_visible_frame_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got10k_tree(tmp_path, CLIPS)
    path = tmp_path / "cat" / "groundtruth.txt"
    path.write_text("nan,nan,nan,nan\n" + "\n".join(path.read_text().splitlines()[1:]) + "\n")
    (tmp_path / "cat" / "00000002.jpg").write_bytes(b"x")
    assert cli.main(["datasets", "check", "pool", str(tmp_path)]) == 1
    assert "cat/00000002.jpg: not a readable image" in capsys.readouterr().out


def test_photographs_without_a_box_to_train_on_are_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {**coco_content(), "annotations": []}
    path = coco_tree(mixed_folder(tmp_path) / "coco") / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"{tmp_path / 'coco'}: no box that can be trained on"):
        assert {*open_training_folder(tmp_path)} == {"video", "synthetic"}
    assert {*open_training_folder(tmp_path, "validation")} == {"video", "synthetic"}  # without a second line
    assert cli.main(["datasets", "check", "pool", str(tmp_path)]) == 1
    assert "coco: no box that can be trained on" in capsys.readouterr().out


def test_a_fault_in_an_own_clip_hides_no_other_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error where video is asked for."""
    coco_tree(mixed_folder(tmp_path) / "coco")
    (tmp_path / "cat" / "groundtruth.txt").unlink()
    for name in ("labels.csv", "labels.json"):
        (tmp_path / "cat" / name).write_text("")
    assert {*open_training_folder(tmp_path, "all", kinds=("stills", "synthetic"))} == {"stills", "synthetic"}
    with pytest.raises(DatasetError, match="labels.csv or labels.json. Keep one"):
        open_training_folder(tmp_path)
    assert cli.main(["datasets", "check", "pool", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "Keep one" in out and "stills: 1 target" in out and "synthetic: 5 cut-outs" in out


def test_own_clips_beside_got10k_are_no_matter_without_video(tmp_path: Path) -> None:
    got10k_tree(mixed_folder(tmp_path) / "got10k" / "train", ("a", "b"))
    assert {*open_training_folder(tmp_path, kinds=("synthetic",))} == {"synthetic"}  # a warning would be an error


def test_a_sequence_may_have_the_name_of_a_kind(tmp_path: Path) -> None:
    """If it is the folder itself that is given."""
    got10k_tree(tmp_path, ("coco",))
    assert len(open_training_folder(tmp_path / "coco", "all")["video"]) == 1


def test_a_kind_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind of training data 'vidoe'; did you mean 'video'"):
        open_training_folder(mixed_folder(tmp_path), kinds=("vidoe",))


def test_pictures_without_labels_are_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misnamed file of labels, beside own sequences; not the pictures of other kinds, nor those of a sequence."""
    coco_tree(mixed_folder(tmp_path) / "coco")
    (tmp_path / "cat" / "groundtruth.txt").rename(tmp_path / "cat" / "groundtruth.csv")
    line = f"{tmp_path / 'cat'}: has pictures but no labels"
    with pytest.warns(UserWarning, match=line) as caught:
        assert len(open_training_folder(tmp_path, "all")["video"]) == len(CLIPS) - 1
    assert len(caught) == 1
    open_training_folder(tmp_path, "validation")  # without a second line
    for what in ("pool", "folder"):
        assert cli.main(["datasets", "check", what, str(tmp_path)]) == 1
        assert f"incomplete  {line}" in capsys.readouterr().out
    (tmp_path / "dog" / "img").mkdir()
    save_image(tmp_path / "dog" / "img" / "1.jpg")
    assert left_out(tmp_path / "dog") == []
