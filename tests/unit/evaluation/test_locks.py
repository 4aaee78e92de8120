"""Claims on tasks: one owner, followed when its process ends, also under the rules of Windows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ebmtrack.evaluation import locks


def names(folder: Path) -> list[str]:
    """Files of claims."""
    return sorted(path.name for path in (folder / ".claims").iterdir())


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    """A name that is claimed is refused until it is released; another name is free."""
    first = locks.claim(tmp_path, "car.1")
    assert first is not None and locks.claim(tmp_path, "car.1") is None
    assert locks.claim(tmp_path, "car") is not None
    first.release()
    assert locks.claim(tmp_path, "car.1") is not None


def test_a_killed_owner_is_followed_at_once(tmp_path: Path) -> None:
    """kill -9 releases its claims, those of other processes stay."""
    code = (
        "import sys; from pathlib import Path; from ebmtrack.evaluation import locks;"
        f"lock = locks.claim(Path({str(tmp_path)!r}), 'walk'); print(lock is not None, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "True\n" and locks.claim(tmp_path, "walk") is None
    locks.sweep(tmp_path)
    assert names(tmp_path) == ["walk.lock"]
    owner.kill()
    owner.communicate()
    assert locks.claim(tmp_path, "walk") is not None


def test_sweeping_keeps_what_is_held(tmp_path: Path) -> None:
    """Files that nobody holds go."""
    held, free = locks.claim(tmp_path, "held"), locks.claim(tmp_path, "free")
    assert held is not None and free is not None
    free.release()
    locks.sweep(tmp_path)
    assert names(tmp_path) == ["held.lock"]
    held.release()
    locks.sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_claim_on_a_file_that_was_swept_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that is gone excludes nobody, so it must not pass for a claim."""
    acquire = locks.FileLock.acquire

    def acquire_and_lose(self: locks.FileLock, **options: Any) -> object:
        answer = acquire(self, **options)
        Path(self.lock_file).unlink()
        return answer

    monkeypatch.setattr(locks.FileLock, "acquire", acquire_and_lose)
    assert locks.claim(tmp_path, "walk") is None


def test_runners_see_each_other(tmp_path: Path) -> None:
    """Each sees the other and not itself; the file of a runner that died counts for nothing."""
    folders = [tmp_path / "a", tmp_path / "b"]
    with locks.show_runner(folders) as first:
        assert not locks.has_other_runner(folders[0], first)
        (folders[0] / ".claims" / "runner-dead.lock").touch()
        assert not locks.has_other_runner(folders[0], first)
        with locks.show_runner(folders[:1]) as second:
            assert locks.has_other_runner(folders[0], first) and locks.has_other_runner(folders[0], second)
            assert not locks.has_other_runner(folders[1], first)
    assert names(folders[0]) == names(folders[1]) == []


def test_the_time_of_a_disk(tmp_path: Path) -> None:
    """By the clock that stamps files; nothing is left."""
    disk_time = locks.disk_time(tmp_path)
    (tmp_path / "a").touch()
    assert disk_time == pytest.approx((tmp_path / "a").stat().st_mtime, abs=5)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_rules_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There times of descriptors cannot be set, signal 0 is Ctrl-C, and open files cannot be removed."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"not on Windows: {arguments}")

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "the file is used by another process", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(Path, "unlink", unlink)
    locks.disk_time(tmp_path)
    with locks.show_runner([tmp_path]) as mine:
        assert locks.claim(tmp_path, "car") is not None
        assert not locks.has_other_runner(tmp_path, mine)
    with locks.show_runner([tmp_path]) as mine:
        assert not locks.has_other_runner(tmp_path, mine)  # the file of the first is left, without an owner
