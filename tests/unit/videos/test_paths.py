"""Where data sets lie: who wins, what is said where nobody says, what a wrong file gets; sources opened by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.data.catalogue import open_source
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.packing import write_pack
from ebmtrack.data.store import PackedSource
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos import paths, registry
from ebmtrack.videos.opening import locate
from ebmtrack.videos.paths import Place, data_path, describe_paths, place_of, said_place
from tests.support.trees import (
    coco_tree,
    got10k_tree,
    lasot_tree,
    material_tree,
    save_image,
    save_text,
    trackingnet_tree,
)


def found(place: Place | None) -> Place:
    """Return a place that must be known."""
    assert place is not None
    return place


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file of paths that EBMTRACK_PATHS names."""
    path = tmp_path / "settings" / "my.toml"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.setenv("EBMTRACK_PATHS", str(path))
    return path


def test_variable_before_file_before_usual_name(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three is asked where the ones before it are silent; who says is told."""
    for name in ("a", "b", "root/LaSOT-Benchmark"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"Set EBMTRACK_LASOT=FOLDER, or write lasot = \"FOLDER\" in .*my.toml"):
        data_path("lasot")
    monkeypatch.setenv("EBMTRACK_DATA", str(tmp_path / "root"))
    assert data_path("lasot") == tmp_path / "root" / "LaSOT-Benchmark"
    with pytest.raises(ConfigError, match="where is coco.*nothing with its name.*EBMTRACK_DATA"):
        data_path("coco")
    file.write_text(f'lasot = "{tmp_path}/a"\n')
    assert data_path("lasot") == tmp_path / "a" and found(place_of("lasot")).said_by == str(file)
    monkeypatch.setenv("EBMTRACK_LASOT", str(tmp_path / "b"))
    assert data_path("lasot") == tmp_path / "b" and found(place_of("lasot")).said_by == "EBMTRACK_LASOT"
    monkeypatch.setenv("EBMTRACK_LASOT", "")
    assert data_path("lasot") == tmp_path / "a"


def test_paths_in_the_file_start_at_the_file_or_at_home(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "coco" is beside the file; ~ is the home folder; `data` is a folder of data sets."""
    file.write_text('coco = "coco"\ngot10k = "~/got"\ndata = "../all"\n')
    coco, got = found(place_of("coco")), found(place_of("got10k"))
    assert coco.path == file.parent / "coco" and got.path == Path.home() / "got"
    (file.parents[1] / "all" / "OTB_2015").mkdir(parents=True)
    assert data_path("otb100").resolve() == (file.parents[1] / "all" / "OTB_2015").resolve()
    with pytest.raises(ConfigError, match="coco.*does not exist, but .*my.toml says so"):
        data_path("coco")


def test_splits_share_their_data_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBMTRACK_GOT10K", "/x")
    assert found(said_place("got10k_val")).path == Path("/x")
    file.write_text('got10k_val = "/y"')
    assert found(said_place("got10k_val")).path == Path("/y") and found(said_place("got10k_test")).path == Path("/x")


@pytest.mark.parametrize(
    "text, message",
    [
        ("lasot = '/a'\nlassot = '/b'\n", "line 2: unknown data set 'lassot'; did you mean 'lasot'"),
        ("\n\ncoco = 5\n", "line 3: coco must be a folder in quotes"),
        ("coco = ''\n", "line 1: coco must be"),
        ("[coco]\ntrain = '/a'\n", "line 1: coco must be"),
        ("coco = /data\n", "not a TOML file.*line 1"),
        ("coco = '/a'\ncoco = '/b'\n", "not a TOML file"),
        ('lasot = "C:\\Users\\me"\n', r"not a TOML file: .*line 1.*single quotes, such as lasot = 'D:\\data"),
        (
            'coco = "/a"\nlasot = "D:\\new\\tracking"\n',
            r"line 2: lasot = 'D:\\new.* control character; .*single quotes",
        ),
        ("x = " + "[" * 5000, "not a TOML file"),
        ("\x00", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_told_by_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        data_path("coco")
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_read(file: Path) -> None:
    file.write_bytes(b"coco = '\xff'")
    with pytest.raises(ConfigError, match="my.toml: not a TOML file"):
        data_path("coco")
    file.unlink()
    with pytest.raises(ConfigError, match="my.toml: no such file, but EBMTRACK_PATHS names it"):
        data_path("coco")


def test_the_file_is_looked_for_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBMTRACK_PATHS")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert paths.settings_file() == Path.home() / ".config" / "ebmtrack" / "paths.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert paths.settings_file() == tmp_path / "ebmtrack" / "paths.toml" and paths.read_settings() == {}
    save_text(paths.settings_file(), f"coco = '{tmp_path}'")
    assert data_path("coco") == tmp_path


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'gott10k'; did you mean 'got10k'"):
        data_path("gott10k")
    with pytest.raises(ConfigError, match="known are lasot, got10k"):
        data_path("imagenet")


def test_every_benchmark_can_be_configured() -> None:
    assert set(registry.benchmarks()) - {"folder"} <= set(paths.homes())
    assert {info.inside for info in registry.datasets().values() if info.inside} <= set(paths.homes())


def test_benchmarks_fall_back_on_the_same_settings(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root given wins; then variable and file; a place that is said but not there is an error, not a search."""
    file.write_text(f"otb100 = '{tmp_path}'")
    assert locate("otb100", "/other") == Path("/other") and locate("otb50", None) == tmp_path
    monkeypatch.setenv("EBMTRACK_OTB100", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="gone does not exist, but EBMTRACK_OTB100"):
        locate("otb100", None)


def test_paths_are_shown(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("EBMTRACK_LASOT", str(tmp_path))
    file.write_text("coco = '/nowhere/coco'\n")
    assert cli.main(["paths"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["lasot"].split()[1:] == [str(tmp_path), "there", "by", "EBMTRACK_LASOT"]
    assert lines["coco"].split()[1:] == ["/nowhere/coco", "MISSING", "by", str(file)]
    assert lines["got10k"].split()[1:] == ["-", "not", "set", "EBMTRACK_GOT10K"]
    assert "settings file: " + str(file) in describe_paths()


# --- sources by name


def test_sources_open_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBMTRACK_LASOT", str(lasot_tree(tmp_path / "lasot")))
    assert len(open_source("lasot")) == 2 and len(open_source("lasot", split="all")) == 3
    root = got10k_tree(tmp_path / "got" / "val").parent
    assert len(open_source("got10k", root, "val")) == len(open_source("got10k", root / "val")) == 2
    save_text(tmp_path / "out.txt", "GOT-10k_Train_000001\n")
    assert len(open_source("got10k", root, "val", tmp_path / "out.txt")) == 1
    tracking = trackingnet_tree(tmp_path / "tn")
    assert [len(open_source("trackingnet", tracking, sets)) for sets in (None, "0", "0-1", "1,0")] == [3, 2, 3, 3]
    assert len(open_source("coco", coco_tree(tmp_path / "coco"))) == 4
    material_tree(tmp_path / "pool")
    assert open_source("synthetic", tmp_path / "pool").name == "synthetic"


@pytest.mark.parametrize(
    "name, split, message",
    [
        ("otb100", "train", "cannot be trained on by splits"),
        ("got10k", "vot", "no split 'vot'"),
        ("trackingnet", "x", "0-3"),
        ("trackingnet", "3-1", "0 to 11"),
        ("trackingnet", "12", "0 to 11"),
        ("lasot", "val", "no split"),
    ],
)
def test_wrong_names_and_splits(tmp_path: Path, name: str, split: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(name, tmp_path, split)


def test_wrong_combinations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no sequences to leave out"):
        open_source("coco", tmp_path, exclude="x")
    with pytest.raises(ConfigError, match="folder of the pack"):
        open_source("pack")
    for name in [name for name, info in registry.datasets().items() if info.training or info.open_targets]:
        with pytest.raises(DatasetError, match="nowhere"):
            open_source(name, tmp_path / "nowhere")
        with pytest.raises(DatasetError):
            open_source(name, tmp_path)


# --- datasets check


def checked(capsys, *argv: object) -> tuple[int, str]:
    """Exit code and printed lines of `ebmtrack datasets check`."""
    code = cli.main(["datasets", "check", *map(str, argv)])
    return code, capsys.readouterr().out


def test_whole_trees_have_no_fault(tmp_path: Path, capsys) -> None:
    """Counts of the miniature trees: five frames a sequence; see test_sources for which are visible."""
    code, out = checked(capsys, "lasot", lasot_tree(tmp_path / "lasot"))
    assert code == 0 and "2 sequences to train on, 1 to test on" in out
    assert "lasot: 3 targets, 15 frames, the target visible in 3" in out and "no fault found" in out
    got10k_tree(tmp_path / "got" / "train")
    got10k_tree(tmp_path / "got" / "val")
    code, out = checked(capsys, "got10k", tmp_path / "got")
    assert code == 0 and "got10k train: 2 targets, 10 frames, the target visible in 4" in out and "val: 2" in out
    assert "got10k train: 2 sequences, 9335 were published" in out
    code, out = checked(capsys, "trackingnet", trackingnet_tree(tmp_path / "tn"), "--every-frame")
    assert code == 0 and "10 of 12 sets are not there" in out and "trackingnet 1: 1 target, 5 frames" in out
    code, out = checked(capsys, "coco", coco_tree(tmp_path / "coco"))
    assert code == 0 and "coco train2017: 4 targets" in out


def test_the_folder_to_check_is_path_or_root(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--root` is the folder itself, or one that holds the data set's; without either the line says what to type."""
    monkeypatch.delenv("EBMTRACK_DATA", raising=False)
    lasot_tree(tmp_path / "data" / "LaSOT")
    got10k_tree(tmp_path / "own")
    for name, root, words in (("lasot", "data", "3 targets"), ("lasot", "data/LaSOT", "3 targets"),
                              ("folder", "own", "folder benchmark: 2 of 2")):  # fmt: skip
        code, out = checked(capsys, name, "--root", tmp_path / root)
        assert code == 0 and words in out
    assert checked(capsys, "utkface", "--root", tmp_path)[0] == 1
    save_image(tmp_path / "21_0_0_2017.jpg")
    (tmp_path / "utkface").write_text("a file, no folder")
    assert checked(capsys, "utkface", "--root", tmp_path)[0] == 0
    save_image(tmp_path / "UTK-Face" / "21_0_0_2017.jpg")
    assert checked(capsys, "utkface", "--root", tmp_path)[0] == 0
    assert cli.main(["datasets", "check", "folder"]) == 2
    assert capsys.readouterr().err == "ebmtrack: error: which folder? ebmtrack datasets check folder PATH\n"
    assert cli.main(["datasets", "check", "folder", "a", "--root", "b"]) == 2
    assert "the folder is given twice: leave out PATH or --root" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["eval", "report", "export-results --layout got10k", "study intervals"])
def test_a_folder_of_sequences_needs_root(verb: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBMTRACK_DATA", raising=False)
    assert cli.main([*verb.split(), "--dataset", "folder"]) == 2
    assert capsys.readouterr().err == "ebmtrack: error: --dataset folder needs --root FOLDER\n"


def test_the_help_of_datasets_lists_folder(capsys) -> None:
    assert cli.main(["datasets", "--help"]) == 0
    assert "folder (any directory of sequences)" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    "name, inside, file, row",
    [
        ("pool", "got10k/train", "cover.label", "2"),
        ("pool", "", "groundtruth.txt", "1,1,0,0"),
        ("got10k", "train", "absence.label", "1"),
    ],
)
def test_a_target_that_is_never_visible_is_a_fault(tmp_path: Path, capsys, name, inside, file, row) -> None:
    root = got10k_tree(tmp_path / inside)
    assert checked(capsys, name, tmp_path)[0] == 0
    save_text(root / "GOT-10k_Train_000002" / file, f"{row}\n" * 5)
    code, out = checked(capsys, name, tmp_path)
    assert code == 1 and "1 fault" in out and "GOT-10k_Train_000002: visible in none of its frames" in out


def test_damage_and_gaps_are_told_and_give_code_1(tmp_path: Path, capsys) -> None:
    root = got10k_tree(tmp_path / "got")
    (root / "GOT-10k_Train_000001" / "00000003.jpg").unlink()
    save_text(root / "GOT-10k_Train_000002" / "cover.label", "8\nx\n8\n8\n8\n")
    save_text(root / "list.txt", "GOT-10k_Train_000001\nGOT-10k_Train_000002\nGOT-10k_Train_000007\n")
    code, out = checked(capsys, "got10k", root)
    assert code == 1 and "3 faults" in out
    assert "1 sequences that list.txt names are missing: GOT-10k_Train_000007" in out
    assert "00000003.jpg: missing" in out and "cover.label, line 2" in out
    tree = lasot_tree(tmp_path / "lasot")
    shutil.rmtree(tree / "cat" / "cat-2" / "img")
    code, out = checked(capsys, "lasot", tree)
    assert code == 1 and "cat-2/img: the folder of frames" in out
    code, out = checked(capsys, "coco", tmp_path / "got")
    assert code == 1 and "train2017: no such folder of photographs" in out
    assert checked(capsys, "trackingnet", tmp_path / "got")[0] == checked(capsys, "lasot", tmp_path / "none")[0] == 1


def test_every_frame_finds_what_two_frames_do_not(tmp_path: Path, capsys) -> None:
    root = trackingnet_tree(tmp_path)
    (root / "TRAIN_0" / "frames" / "ab_1" / "2.jpg").write_bytes(b"\xff\xd8 no")
    assert checked(capsys, "trackingnet", root)[0] == 0
    code, out = checked(capsys, "trackingnet", root, "--every-frame")
    assert code == 1 and "2.jpg: not a readable image" in out


def test_missing_photographs_are_counted(tmp_path: Path, capsys) -> None:
    root = coco_tree(tmp_path)
    (root / "train2017" / "web_set_1.jpg").unlink()
    code, out = checked(capsys, "coco", root)
    assert code == 1 and "web_set_1.jpg: missing" in out


def test_packs_and_benchmarks_are_checked(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pack(open_source("got10k", got10k_tree(tmp_path / "got")), tmp_path / "pack", PackSettings(png=True))
    assert checked(capsys, "pack", tmp_path / "pack")[0] == 0
    shard = PackedSource(tmp_path / "pack").facts["shards"][0]
    place = tmp_path / "otb" / "Deer"
    (place / "img").mkdir(parents=True)
    save_text(place / "groundtruth_rect.txt", "1,2,3,4\n")
    assert cv2.imwrite(str(place / "img" / "0001.jpg"), np.zeros((9, 9, 3), np.uint8))
    code, out = checked(capsys, "folder", tmp_path / "otb")
    assert code == 0 and "folder benchmark: 1 of 1 sequences, 1 frames" in out
    monkeypatch.setenv("EBMTRACK_OTB100", str(tmp_path / "otb"))
    code, out = checked(capsys, "otb100")
    assert code == 1 and "benchmark: 1 of 100 sequences" in out and "99 of 100 sequences are missing: " in out
    path = tmp_path / "pack" / shard["name"]
    path.write_bytes(path.read_bytes()[:-1])
    code, out = checked(capsys, "pack", tmp_path / "pack")
    assert code == 1 and "shard-00000.lmdb: cut short or damaged" in out


def test_the_small_pool_and_compositions_are_checked(tmp_path: Path, capsys) -> None:
    got10k_tree(tmp_path / "got10k" / "train")
    coco_tree(tmp_path / "coco")
    cutouts, backgrounds = material_tree(tmp_path)
    code, out = checked(capsys, "pool", tmp_path)
    assert code == 0 and "video: 2 targets" in out and "stills: 1 target" in out
    assert "synthetic: 24 cut-outs, 24 backgrounds" in out
    sorted(cutouts.iterdir())[3].write_bytes(b"no")
    sorted(backgrounds.iterdir())[0].write_bytes(b"")
    code, out = checked(capsys, "synthetic", tmp_path)
    assert code == 1 and "2 faults" in out


def test_unknown_data_sets_are_code_2(capsys) -> None:
    assert cli.main(["datasets", "check", "imagenet", "/x"]) == cli.main(["datasets", "check"]) == 2
    assert cli.main(["datasets", "check", "pack"]) == 2
    assert "unknown data set 'imagenet'" in capsys.readouterr().err


# --- pack


def test_the_verb_packs(tmp_path: Path, capsys) -> None:
    root = got10k_tree(tmp_path / "got")
    argv = ["pack", "got10k", str(root), str(tmp_path / "out"), "--context", "4", "--output", "64", "--every", "2"]
    assert cli.main(argv) == 0 and cli.main(argv) == 0
    assert "2 crops of 2 targets" in capsys.readouterr().out
    source = PackedSource(tmp_path / "out")
    assert source.facts["origin"]["path"] == str(root) and source.facts["settings"]["context"] == 4
    assert cli.main([*argv, "--context", "5"]) == 2 and "remove" in capsys.readouterr().err
