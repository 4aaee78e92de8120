"""The index cache changes nothing but time: the same answers and errors with it, without it, changed, damaged."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebmtrack.errors import DatasetError
from ebmtrack.videos import coco, index_cache, source
from ebmtrack.videos.coco import CocoSource
from ebmtrack.videos.source import Source
from tests.support.trees import (
    coco_content,
    coco_tree,
    got10k_source,
    got10k_tree,
    lasot_source,
    lasot_tree,
    save_text,
    trackingnet_source,
    trackingnet_tree,
)

TREES: list[tuple[Callable[[Path], Path], Callable[[Path], Source], str, bytes]] = [
    (got10k_tree, got10k_source, "GOT-10k_Train_000001/groundtruth.txt", b"3,4,"),
    (got10k_tree, got10k_source, "GOT-10k_Train_000002/absence.label", b"1"),
    (lasot_tree, lasot_source, "cat/cat-2/out_of_view.txt", b"1"),
    (trackingnet_tree, lambda root: trackingnet_source(root, sets="0-1"), "TRAIN_1/anno/ef_3.txt", b"3,4,"),
    (coco_tree, CocoSource, "annotations/instances_train2017.json", b"20"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for which files count as settled at once."""
    monkeypatch.setenv("EBMTRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "SETTLED_NS", -(10**18))
    return tmp_path / "cache" / "index"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list:
    """What is parsed: one entry for a sequence, or for a COCO file."""
    seen: list = []

    def counted(reader, files, read):
        return index_cache.annotation_index(reader, files, lambda i: seen.append(i) or read(i))

    original = coco._read_columns
    monkeypatch.setattr(source, "annotation_index", counted)

    def counted_columns(*args):
        seen.append("coco")
        return original(*args)

    monkeypatch.setattr(coco, "_read_columns", counted_columns)
    return seen


def content(source: Source) -> list:
    """Everything a source says without its frames, errors included."""

    def answer(call, index):
        try:
            return call(index).tolist()
        except DatasetError as error:
            return str(error)

    return [
        (source.target_name(i), repr(answer(source.boxes_xywh, i)), answer(source.visible, i))
        for i in range(len(source))
    ]


@pytest.mark.parametrize("number", range(len(TREES)))
def test_the_second_opening_parses_nothing_and_says_the_same(tmp_path: Path, reads: list, number: int) -> None:
    tree, opened, *_ = TREES[number]
    root = tree(tmp_path / "data")
    first = content(opened(root))
    assert reads
    reads.clear()
    again = opened(root)
    assert content(again) == first == content(pickle.loads(pickle.dumps(again))) and not reads


@pytest.mark.parametrize("number", range(len(TREES)))
def test_a_changed_file_is_read_again_and_alone(tmp_path: Path, reads: list, number: int) -> None:
    """A file with the same length and the time of its change set back still has another time in its directory entry."""
    tree, opened, name, old = TREES[number]
    root = tree(tmp_path / "data")
    first, path = content(opened(root)), root / name
    times, data = os.stat(path), path.read_bytes()
    changed = data.replace(old, {b"3,4,": b"3,9,", b"1": b"0", b"20": b"21"}[old], 1)
    reads.clear()
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    while os.stat(path).st_ctime_ns == times.st_ctime_ns:  # the clocks of some systems have steps of 10 ms
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(root)
    assert len(changed) == len(data) and len(reads) == 1
    index_cache.cache_dir().rename(tmp_path / "gone")
    assert content(after) == content(opened(root)) != first


def test_errors_are_the_same_and_are_not_kept(tmp_path: Path, reads: list) -> None:
    """A damaged sequence does not keep others from the cache; repaired, it is read."""
    root = got10k_tree(tmp_path / "data")
    label = root / "GOT-10k_Train_000001" / "cover.label"
    save_text(label, "8\nx\n")
    first = content(got10k_source(root))
    assert "cover.label, line" in first[0][2] and first[1][2][0] is True
    reads.clear()
    assert content(got10k_source(root)) == first and set(reads) == {0}
    save_text(label, "8\n8\n8\n8\n8\n")
    repaired = content(got10k_source(root))
    reads.clear()
    assert content(got10k_source(root)) == repaired and repaired[0][2][0] is True and not reads
    label.unlink()
    assert content(got10k_source(root)) == repaired and reads == [0]


def test_other_sequences_and_rules_have_their_own_index(tmp_path: Path) -> None:
    root = coco_tree(tmp_path / "data")
    assert [len(CocoSource(root, least_side=side)) for side in (12.0, 1.0, 12.0)] == [2, 4, 2]
    tree = got10k_tree(tmp_path / "got")
    for _ in range(2):
        assert [len(got10k_source(tree, exclude=names)) for names in ((), ["GOT-10k_Train_000001"])] == [2, 1]


def test_other_code_is_another_version(tmp_path: Path, reads: list, monkeypatch: pytest.MonkeyPatch) -> None:
    root = got10k_tree(tmp_path / "data")
    got10k_source(root)
    monkeypatch.setattr(index_cache, "code_digest", lambda module: "new")
    reads.clear()
    got10k_source(root)
    assert reads == [0, 1] and len(list((tmp_path / "cache" / "index").iterdir())) == 1


def test_code_of_each_reader_is_told_apart() -> None:
    names = ("got10k", "lasot", "trackingnet", "coco")
    assert len({index_cache.code_digest(f"ebmtrack.videos.{name}") for name in names}) == 4


@pytest.mark.parametrize("tree, opened", [(got10k_tree, got10k_source), (coco_tree, CocoSource)])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, reads: list, tree, opened) -> None:
    """45 variants, cut and overwritten: the answers stay the same, and the cache is whole again afterwards."""
    root, rng = tree(tmp_path / "data"), np.random.default_rng(0)
    first = content(opened(root))
    (file,) = cache.iterdir()
    data = file.read_bytes()
    for trial in range(45):
        place = int(rng.integers(len(data)))
        broken = data[:place] if trial % 3 == 0 else data[:place] + bytes([data[place] ^ 85]) + data[place + 1 :]
        file.write_bytes(broken)
        reads.clear()
        assert content(opened(root)) == first and reads
        reads.clear()
        assert content(opened(root)) == first and not reads
    file.write_bytes(b"")
    assert content(opened(root)) == first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the cache directory should be: no directory can be made there, whoever asks."""
    (tmp_path / "file").write_text("")
    root = got10k_tree(tmp_path / "data")
    first = content(got10k_source(root))
    monkeypatch.setenv("EBMTRACK_CACHE", str(tmp_path / "file" / "cache"))
    assert content(got10k_source(root)) == content(got10k_source(root)) == first
    assert not index_cache.store(("a",), (), {})


def test_files_that_were_just_written_are_not_kept(
    tmp_path: Path, cache: Path, reads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two seconds of a change a second one could go unseen; here within an hour, which no test takes."""
    settled_ns = 3600 * 10**9
    monkeypatch.setattr(index_cache, "SETTLED_NS", settled_ns)
    root = got10k_tree(tmp_path / "data")
    for tree, opened in ((got10k_tree, got10k_source), (coco_tree, CocoSource)):
        opened(tree(tmp_path / "data"))
    assert not cache.exists() or not list(cache.iterdir())
    future = np.array([time.time_ns() + settled_ns + 10**9])
    stamps = np.array([index_cache.stamp(root / "GOT-10k_Train_000001" / "groundtruth.txt")])
    assert index_cache.is_settled(stamps, future[0]).all() and not index_cache.is_settled(stamps, time.time_ns()).any()
    assert index_cache.is_settled(np.array(index_cache.MISSING), 1 + settled_ns)


def test_the_directory_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EBMTRACK_CACHE", "~/x")
    assert index_cache.cache_dir() == Path.home() / "x"
    monkeypatch.delenv("EBMTRACK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert index_cache.cache_dir() == tmp_path / "ebmtrack"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, place in (("linux", ".cache/ebmtrack"), ("darwin", "Library/Caches/ebmtrack")):
        monkeypatch.setattr(index_cache.sys, "platform", platform)
        assert index_cache.cache_dir() == Path.home() / place


def test_coco_names_survive_the_cache(tmp_path: Path) -> None:
    """File names and categories with quotes, accents and surrogates, ids beyond 64 bits."""
    root, data = coco_tree(tmp_path / "data"), coco_content()
    data["annotations"][0]["id"] = 10**30
    data["categories"][0]["name"] = 'c\udc80"ät'
    save_text(root / "annotations" / "instances_train2017.json", json.dumps(data))
    first, second = CocoSource(root), CocoSource(root)
    assert first.target_name(0) == second.target_name(0) == f"web_set_1#{10**30}"
    assert first.category(0) == second.category(0) == 'c\udc80"ät'
