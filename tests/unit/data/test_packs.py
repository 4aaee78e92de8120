"""Packs: what comes out is what went in, whoever reads it, whatever interrupts the writing, whatever is damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.data import packing as packs
from ebmtrack.data.crops import crop_window
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.packing import cut_crop, target_window, write_pack
from ebmtrack.data.store import PackedSource, open_packs
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.source import Source
from tests.support import REPOSITORY

SMALL = PackSettings(context=4.0, output=48, png=True, shard_frames=12)


class Moving(Source):
    """Smooth random pictures of 120 x 90 in which boxes wander, some frames not visible; any index at any time.

    Who reads target `hangs_at` waits for ever.
    """

    name, is_video = "moving", True

    def __init__(self, count: int = 5, frames: int = 7, hangs_at: int = -1) -> None:
        self.count, self.frames, self.hangs_at = count, frames, hangs_at
        self.broken: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.count

    def target_name(self, index: int) -> str:
        return f"möwe-{index}"

    def boxes_xywh(self, index: int) -> np.ndarray:
        rng = np.random.default_rng(index)
        sizes = rng.uniform(4, 40, 2) * rng.uniform(0.9, 1.1, (self.frames, 2))
        centres = rng.uniform(0, 1, (self.frames, 2)) * [120, 90]
        return np.concatenate([centres - sizes / 2, sizes], axis=1)

    def visible(self, index: int) -> np.ndarray:
        return np.arange(self.frames) % 3 != index % 3

    def frame(self, index: int, frame: int) -> np.ndarray:
        if self.broken == (index, frame):
            raise DatasetError("x.jpg: not a readable image")
        if index == self.hangs_at:
            threading.Event().wait()
        y, x = np.mgrid[:90, :120]
        waves = [np.sin(x / (12 + k + index) + y / (14 + frame) + k) for k in range(3)]
        return np.round(127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)

    def weights(self) -> np.ndarray:
        return np.arange(1.0, self.count + 1)


class Noisy(Moving):
    """White noise: PNG crops of several thousand bytes, which LMDB gives pages of their own."""

    def frame(self, index: int, frame: int) -> np.ndarray:
        return np.random.default_rng((index, frame)).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pack") / "moving"
    write_pack(Moving(), root, SMALL)
    return root


def crops_of(source: PackedSource) -> dict[tuple[int, int], bytes]:
    return {(int(t), int(f)): source.frame(t, f).tobytes() for t, f in zip(*source.stored_frames())}


def test_what_a_pack_holds(pack: Path) -> None:
    """Names, weights, numbers of frames and visibility are the source's; boxes of other frames are NaN."""
    source, original = PackedSource(pack), Moving()
    assert len(source) == 5 and source.is_video and source.name == "moving" and source.cut_at == 2.0
    assert source.weights().tolist() == original.weights().tolist()
    for index in range(5):
        assert source.target_name(index) == original.target_name(index)
        assert np.array_equal(source.visible(index), original.visible(index))
        assert np.array_equal(np.isfinite(source.boxes_xywh(index)).all(axis=1), original.visible(index))
    facts = json.loads((pack / "pack.json").read_text())
    assert facts["settings"]["context"] == 4.0 and facts["targets"] == 5 and facts["left_out"] == []
    assert facts["frames"] == sum(original.visible(i).sum() for i in range(5)) == len(source.stored_frames()[0])
    assert len(facts["shards"]) > 1 and sorted(p.name for p in pack.iterdir()) == sorted(
        ["pack.json", *(each["name"] for each in facts["shards"])]
    )


def test_crops_are_the_pictures_around_their_targets(pack: Path) -> None:
    """PNG, so exact: a window of 4 sizes of at most 48 pixels is a piece of the picture, and its box is the box moved
    by the piece's corner. A larger one is scaled down: the box, taken back, is the source's to float32's rounding."""
    source, original, whole = PackedSource(pack), Moving(), 0
    for target, frame in zip(*source.stored_frames()):
        box, window = original.boxes_xywh(target)[frame], source.windows_xywh(target)[frame]
        x, y, w, h = window
        crop, crop_box = source.frame(target, frame), source.boxes_xywh(target)[frame]
        if 4 * np.sqrt(box[2] * box[3]) <= 47.5:
            whole += 1
            assert np.array_equal(crop, original.frame(target, frame)[y : y + h, x : x + w])
        assert not crop.flags.writeable and max(crop.shape) <= 48
        scale = np.array(crop.shape[1::-1]) / [w, h]
        back = np.concatenate([crop_box[:2] / scale + [x, y], crop_box[2:] / scale])
        np.testing.assert_allclose(back, box, atol=1e-4)
    assert whole > 3


@pytest.mark.parametrize("box", [[50.3, 40.1, 10.0, 14.0], [2.0, 3.0, 10.0, 12.0], [30.0, 30.0, 60.0, 40.0]])
def test_a_crop_is_centred_and_ends_with_the_picture(box: list[float]) -> None:
    """The window's middle is the box's to half a pixel; it is 4 sqrt(w h) wide; what lies outside is cut off."""
    window = target_window(np.array(box), 4.0)
    assert window[2] == window[3] == round(4 * np.sqrt(box[2] * box[3]))
    middle = window[:2] + window[2:] / 2
    assert np.abs(middle - (np.array(box[:2]) + np.array(box[2:]) / 2)).max() <= 0.5
    crop, scene = cut_crop(Moving().frame(0, 0), window, 48)
    assert (scene[:2] >= 0).all() and (scene[:2] + scene[2:] <= [120, 90]).all()
    low, high = np.maximum(window[:2], 0), np.minimum(window[:2] + window[2:], [120, 90])
    assert scene.tolist() == [*low, *(high - low)]
    assert max(crop.shape[:2]) == min(48, round(max(scene[2:]) * min(1, 48 / window[2])))


def test_scaling_down_moves_nothing() -> None:
    """On a picture whose grey rises by 2 a pixel, pixel i of a crop scaled by s shows 2 (x + (i + 1/2) / s - 1/2) for a
    scene that begins at x: to 0.5, the rounding of one pixel, plus 0.1 where cells end inside pixels."""
    ramp = np.repeat(np.tile((2 * np.arange(120, dtype=np.uint8)), (90, 1))[..., None], 3, axis=2)
    for box in ([30.7, 20.5, 20.8, 41.6], [5.0, 30.0, 26.0, 25.0], [90.0, 1.0, 29.0, 20.0]):
        crop, scene = cut_crop(ramp, target_window(np.array(box), 4.0), 48)
        scale = crop.shape[1] / scene[2]
        expected = 2 * (scene[0] + (np.arange(crop.shape[1]) + 0.5) / scale - 0.5)
        assert scale < 0.7 and np.abs(crop.mean(axis=(0, 2)) - expected).max() < 0.6


def test_a_search_region_is_the_same_from_a_pack(pack: Path) -> None:
    """PNG at the picture's own scale: a training crop half as wide as the window is the same, to
    one grey level where float32 rounds a box."""
    source, original, same = PackedSource(pack), Moving(), 0
    for target, frame in zip(*source.stored_frames()):
        pieces, box = [], original.boxes_xywh(target)[frame]
        size = 2 * np.sqrt(box[2] * box[3])
        if 2 * size > 47.5 or (box[:2] + box[2:] / 2 < size).any() or (box[:2] + box[2:] / 2 + size > [120, 90]).any():
            continue
        for each in (source, original):
            box = each.boxes_xywh(target)[frame]
            window = (*(box[:2] + box[2:] / 2 - size / 2), size, size)
            pieces.append(crop_window(each.frame(target, frame), window, 24))
        same += 1
        assert np.abs(pieces[0].astype(int) - pieces[1]).max() <= 1
    assert same > 1


def test_sizes_are_known_without_decoding(pack: Path) -> None:
    source = PackedSource(pack)
    for target, frame in zip(*source.stored_frames()):
        assert source.frame_size_wh(int(target), int(frame)) == source.frame(target, frame).shape[1::-1]


def test_jpeg_is_near_and_smaller(tmp_path: Path, pack: Path) -> None:
    write_pack(Moving(), tmp_path / "jpeg", PackSettings(context=4.0, output=48, quality=95))
    source, exact = PackedSource(tmp_path / "jpeg"), PackedSource(pack)
    places = [(int(t), int(f)) for t, f in zip(*exact.stored_frames())]
    difference = [np.abs(source.frame(*place).astype(int) - exact.frame(*place)).mean() for place in places]
    assert 0 < np.mean(difference) < 3


def test_at_most_some_frames_evenly_spread(tmp_path: Path) -> None:
    """Of 14 visible frames in 21 the first, the last and the one in the middle."""
    write_pack(Moving(2, 21), tmp_path / "few", PackSettings(4.0, 48, most_frames=3))
    source = PackedSource(tmp_path / "few")
    for index in range(2):
        visible = np.flatnonzero(Moving(2, 21).visible(index))
        assert (
            np.flatnonzero(source.visible(index)).tolist() == visible[[0, round((len(visible) - 1) / 2), -1]].tolist()
        )


def test_a_pack_knows_that_its_source_was_cut(tmp_path: Path) -> None:
    """The lesser of its own context and its source's counts."""
    source = Moving()
    source.cut_at = 1.5
    write_pack(source, tmp_path / "narrow", SMALL)
    assert PackedSource(tmp_path / "narrow").cut_at == 1.5
    source.cut_at = 9.0
    write_pack(source, tmp_path / "wide", SMALL)
    assert PackedSource(tmp_path / "wide").cut_at == 2.0


def test_packs_of_a_folder_open_by_its_folders_names(tmp_path: Path, pack: Path) -> None:
    write_pack(Moving(2), tmp_path / "a", SMALL)
    write_pack(Moving(3), tmp_path / "b", SMALL)
    assert {name: len(found) for name, found in open_packs(tmp_path).items()} == {"a": 2, "b": 3}
    assert list(open_packs(pack)) == ["moving"]
    with pytest.raises(DatasetError, match="no pack"):
        open_packs(tmp_path / "a" / "nowhere")


def test_some_frames_and_some_targets(tmp_path: Path) -> None:
    """every=2 keeps the first, third, ... visible frame; frames keep their numbers; targets=3 the first three."""
    write_pack(Moving(), tmp_path / "few", PackSettings(4.0, 48, every=2, targets=3))
    source = PackedSource(tmp_path / "few")
    assert len(source) == 3
    for index in range(3):
        expected = np.flatnonzero(Moving().visible(index))[::2]
        assert np.flatnonzero(source.visible(index)).tolist() == expected.tolist()
        assert len(source.boxes_xywh(index)) == 7
    with pytest.raises(DatasetError, match="no frame 2"):
        source.frame(2, 2)


def test_a_selection_of_a_pack_and_a_pack_of_a_selection(tmp_path: Path, pack: Path) -> None:
    """Packing some targets and choosing some of a pack are the same."""
    write_pack(Moving().subset(lambda name: name[-1] in "13"), tmp_path / "some", SMALL)
    first, second = PackedSource(tmp_path / "some"), PackedSource(pack).subset(lambda name: name[-1] in "13")
    assert len(first) == len(second) == 2 and first.weights().tolist() == second.weights().tolist() == [2, 4]
    for index in range(2):
        for frame in np.flatnonzero(first.visible(index)).tolist():
            assert np.array_equal(first.frame(index, frame), second.frame(index, frame))


# --- several readers


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_the_same(pack: Path, method: str) -> None:
    """A source that was already read from goes to two processes, forked or pickled; the parent reads on."""
    source = PackedSource(pack)
    before = crops_of(source)
    if method == "fork":
        pid = os.fork()
        if pid == 0:
            os._exit(0 if crops_of(source) == before and crops_of(PackedSource(pack)) == before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(read_digest, (source,)) == digest(before)
    assert crops_of(source) == before == crops_of(pickle.loads(pickle.dumps(source)))


def digest(crops: dict) -> str:
    import hashlib

    return hashlib.sha256(repr(sorted(crops.items())).encode()).hexdigest()


def read_digest(source: PackedSource) -> str:
    return digest(crops_of(source))


def test_a_pack_opens_twice_and_after_it_was_replaced(tmp_path: Path) -> None:
    """The one who holds the old pack is told; its index does not fit the new one."""
    write_pack(Moving(2), tmp_path / "a", SMALL)
    write_pack(Moving(3), tmp_path / "b", SMALL)
    first, again = PackedSource(tmp_path / "a"), PackedSource(tmp_path / "a")
    assert np.array_equal(first.frame(0, 1), again.frame(0, 1))
    for path in (tmp_path / "b").iterdir():
        os.replace(path, tmp_path / "a" / path.name)
    assert len(PackedSource(tmp_path / "a")) == 3
    with pytest.raises(DatasetError, match="again"):
        again.frame(0, 1)


# --- interruption


def test_packing_twice_changes_nothing_and_another_pack_is_refused(tmp_path: Path) -> None:
    facts = write_pack(Moving(), tmp_path / "p", SMALL)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "p").iterdir()}
    assert write_pack(Moving(), tmp_path / "p", SMALL) == facts
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "p").iterdir()} == times
    with pytest.raises(ConfigError, match="other settings"):
        write_pack(Moving(), tmp_path / "p", PackSettings(context=5.0))
    with pytest.raises(ConfigError, match="other settings"):
        write_pack(Moving(frames=8), tmp_path / "p", SMALL)
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        write_pack(Moving(), tmp_path / "q", SMALL)


def test_killed_packing_goes_on_and_ends_the_same(tmp_path: Path, pack: Path) -> None:
    """kill -9 when the first shard is finished: what is there is no pack, says so, and is not written again."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.unit.data.test_packs as t;"
        "t.write_pack(t.Moving(hangs_at=4), sys.argv[2], t.SMALL, threads=1)"
    )
    command = [sys.executable, "-c", code, str(REPOSITORY), str(tmp_path / "p")]
    with subprocess.Popen(command) as process:
        while not list((tmp_path / "p").glob("shard-00000.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DatasetError, match="half-written"):
        PackedSource(tmp_path / "p")
    before = (tmp_path / "p" / "shard-00000.lmdb").stat()
    write_pack(Moving(), tmp_path / "p", SMALL)
    after = (tmp_path / "p" / "shard-00000.lmdb").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert crops_of(PackedSource(tmp_path / "p")) == crops_of(PackedSource(pack))
    assert {p.name for p in (tmp_path / "p").iterdir()} == {p.name for p in pack.iterdir()}


def test_a_lock_that_was_removed_excludes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, its owner ends and removes it, and another packer makes a new one."""
    fcntl = pytest.importorskip("fcntl")
    lock, flock = tmp_path / "p" / "packing.lock", fcntl.flock

    def late(file, how) -> None:
        lock.rename(tmp_path / "removed")
        lock.touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ConfigError, match="another process is packing"):
        write_pack(Moving(), tmp_path / "p", SMALL)
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["packing.lock"]


def test_a_kill_between_any_two_files_leaves_nothing_behind(tmp_path: Path, pack: Path) -> None:
    """Just after the folder was made, with a half-written note; and just before the notes were removed."""
    place = tmp_path / "p"
    place.mkdir()
    (place / ".packing-a1b2.json").write_text("{")
    write_pack(Moving(), place, SMALL)
    for name in (".shard-00000-x.lmdb", ".pack-x.json", "packing.json", "shard-00000.json"):
        (place / name).write_text("{")
    assert len(PackedSource(place)) == 5
    write_pack(Moving(), place, SMALL)
    assert {p.name for p in place.iterdir()} == {p.name for p in pack.iterdir()}


def test_two_packers_do_not_share_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    source = Moving(2)

    def frame(index: int, number: int) -> np.ndarray:
        with pytest.raises(ConfigError, match="another process"):
            write_pack(Moving(2), tmp_path / "p", SMALL)
        return Moving.frame(source, index, number)

    vars(source)["frame"] = frame
    write_pack(source, tmp_path / "p", SMALL)
    assert len(PackedSource(tmp_path / "p")) == 2


def test_damaged_sources_stop_packing_or_are_named(tmp_path: Path) -> None:
    source = Moving(3)
    source.broken = (1, 2)
    with pytest.raises(DatasetError, match="x.jpg"):
        write_pack(source, tmp_path / "p", SMALL)
    with pytest.raises(DatasetError, match="half-written"):
        PackedSource(tmp_path / "p")
    facts = write_pack(source, tmp_path / "q", PackSettings(4.0, 48, skip_damaged=True))
    assert facts["left_out"] == ["x.jpg: not a readable image"]
    assert facts["frames"] == len(PackedSource(tmp_path / "q").stored_frames()[0])
    assert not PackedSource(tmp_path / "q").visible(1)[2]


def test_a_full_disk_is_told_and_what_was_finished_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space after the first shard: a ConfigError, no temporary file, and the next try needs that shard no more."""
    written: list[Path] = []
    write_records = packs._write_records

    def full(path: Path, batches) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write_records(path, batches)

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="No space left.*make room"):
        patch.setattr(packs, "_write_records", full)
        write_pack(Moving(), tmp_path / "p", SMALL)
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        "packing.json",
        "shard-00000.json",
        "shard-00000.lmdb",
    ]
    write_pack(Moving(), tmp_path / "p", SMALL)
    assert len(PackedSource(tmp_path / "p")) == 5


@pytest.mark.parametrize("wrong", [{"context": 0.5}, {"output": 8}, {"quality": 0}, {"every": 0}, {"targets": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        PackSettings(**wrong)


def test_nothing_visible_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no visible frame"):
        write_pack(Moving(0), tmp_path / "p")


# --- damage


@pytest.mark.parametrize("name", ["pack.json", "shard-00000.lmdb"])
def test_missing_and_cut_files_are_named(tmp_path: Path, name: str) -> None:
    write_pack(Moving(), tmp_path / "p", SMALL)
    data = (tmp_path / "p" / name).read_bytes()
    for cut in (data[: len(data) // 2], data[:10], b"", data + b" 1"):
        (tmp_path / "p" / name).write_bytes(cut)
        with pytest.raises(DatasetError, match=name):
            PackedSource(tmp_path / "p")
    (tmp_path / "p" / name).unlink()
    with pytest.raises(DatasetError, match=name):
        PackedSource(tmp_path / "p")
    with pytest.raises(DatasetError, match="no pack"):
        PackedSource(tmp_path / "nowhere")


def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    """100 copies with a few bytes changed: comparing checksums names the file before LMDB sees it."""
    write_pack(Noisy(), tmp_path / "p", SMALL)
    path = tmp_path / "p" / "shard-00001.lmdb"
    data, expected = path.read_bytes(), crops_of(PackedSource(tmp_path / "p", verify=True))
    rng = np.random.default_rng(0)
    for trial in range(100):
        broken = bytearray(data)
        for _ in range(1 + trial % 3):
            broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match="shard-00001.lmdb: cut short or damaged"):
            PackedSource(tmp_path / "p", verify=True)
    path.write_bytes(data)
    assert crops_of(PackedSource(tmp_path / "p", verify=True)) == expected


def test_damage_of_a_crop_names_the_key(tmp_path: Path) -> None:
    """A byte of a crop changed after opening: the reader names path and key, and the check finds it."""
    write_pack(Noisy(), tmp_path / "p", SMALL)
    source, path = PackedSource(tmp_path / "p"), tmp_path / "p" / "shard-00000.lmdb"
    data = path.read_bytes()
    opened = source._shards[0]._opened
    assert opened is not None
    with opened.env.begin() as transaction:
        record = bytes(transaction.get(b"00000000/00000001") or b"")
    start = data.index(record[:64])
    with open(path, "r+b") as file:
        file.seek(start + 1000)
        file.write(b"\x55" * 30)
    with pytest.raises(DatasetError, match=r"shard-00000.lmdb, key '00000000/00000001'.*damaged"):
        source.frame(0, 1)
    assert len(list(source.faults())) == 1


def test_broken_facts_are_dataset_errors(tmp_path: Path) -> None:
    """200 variants of pack.json, cut, doubled and overwritten, and fields of wrong kinds: DatasetError, or the same
    crops."""
    write_pack(Moving(2), tmp_path / "p", SMALL)
    path, rng, refused = tmp_path / "p" / "pack.json", np.random.default_rng(0), 0
    data, expected = path.read_bytes(), crops_of(PackedSource(tmp_path / "p"))
    junk = [b"9", b"-", b'"', b"null", b"[]", b"{}", b"\xff", b"1e999", b"0", b",", b":", b"]"]
    for _ in range(200):
        place, piece = int(rng.integers(len(data))), junk[rng.integers(len(junk))]
        keep = int(rng.integers(3))
        path.write_bytes(data[:place] + piece + data[place + keep * len(piece) :])
        try:
            assert crops_of(PackedSource(tmp_path / "p")).keys() == expected.keys()
        except DatasetError as error:
            refused += 1
            assert str(tmp_path / "p") in str(error)
    assert refused > 100
