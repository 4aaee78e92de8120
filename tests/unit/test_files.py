"""Files appear whole or not at all, with ordinary permissions; numbers in their names count as numbers."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from ebmtrack import errors
from ebmtrack.files import natural_key, replacing, write_bytes, write_text


def test_write_and_replace(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "één\n")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_the_umask_is_not_touched(tmp_path, monkeypatch):
    """It is one for all threads: files that another one makes meanwhile would be open to everybody."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
    write_text(tmp_path / "a", "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_into_and_stays_one(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    write_text(path, "1,2,3,4\n")
    reader.join(10)
    assert got == [b"1,2,3,4\n"] and stat.S_ISFIFO(path.stat().st_mode)


def test_the_error_for_a_missing_package_names_its_extra():
    error = errors.missing_extra("av", "writing H.264")
    assert isinstance(error, errors.EbmtrackError) and "ebmtrack[video]" in str(error) and "'av'" in str(error)


def test_numbers_in_names_count_as_numbers():
    names = ["f10.png", "f9.png", "f1.png", "a100b2.png", "a100b10.png", "7.png", "F2.png"]
    assert sorted(names, key=natural_key) == [
        "7.png", "a100b2.png", "a100b10.png", "f1.png", "F2.png", "f9.png", "f10.png",
    ]  # fmt: skip


def test_files_are_synced_as_windows_wants_it(tmp_path, monkeypatch):
    """There only a file that is open for writing can be synced."""
    fcntl, synced = pytest.importorskip("fcntl"), []

    def fsync(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            synced.append(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "x")
    assert len(synced) == 1 and (tmp_path / "a.txt").read_text() == "x"
