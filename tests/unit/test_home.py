"""Paths that begin with ~, from Python: each is in the home folder, and no folder called ~ is made."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

import ebmtrack
from ebmtrack.errors import CheckpointError, DatasetError
from ebmtrack.files import expand_home, write_text
from ebmtrack.images import read_rgb, write_picture
from ebmtrack.tracking.params import load_params
from ebmtrack.videos import open_dataset
from ebmtrack.videos.text import read_text
from ebmtrack.viewers.frames import open_frames
from ebmtrack.viewers.results import FrameResult, write_results
from ebmtrack.viewers.video_file import VideoWriter

IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder; the current folder is another one, which stays empty."""
    (tmp_path / "me").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "me"
    assert not os.listdir()


def test_only_a_beginning_that_is_a_home_folder_is_replaced(home):
    assert expand_home("~/a b.csv") == expand_home(Path("~") / "a b.csv") == home / "a b.csv"
    assert [str(expand_home(path)) for path in ("a/~", "~nobody.mp4")] == ["a/~", "~nobody.mp4"]


def test_files_are_written_and_read_there(home):
    write_text("~/new/a.txt", "1")
    assert (home / "new" / "a.txt").is_file() and read_text("~/new/a.txt") == "1"
    write_picture("~/p.png", IMAGE)
    assert (read_rgb("~/p.png") == IMAGE).all()
    rows = [FrameResult(0, 1, (1.0, 2.0, 3.0, 4.0))]
    assert write_results("~/r.csv", rows) == [home / "r.csv"] and (home / "r.csv").is_file()
    assert write_results("~/r.txt", rows) == [home / "r.txt"]
    with VideoWriter("~/v.avi") as writer:
        writer.write(IMAGE)
    assert writer.path == home / "v.avi" and (home / "v.avi").is_file()
    with open_frames("~/v.avi") as frames:
        assert len(list(frames)) == 1


def test_a_tracker_is_saved_and_loaded_there(home):
    tracker = ebmtrack.Tracker.from_pretrained("lite_nce_plus")
    tracker.init(IMAGE, (40, 30, 30, 30))
    tracker.save_state("~/s.npz")
    assert (home / "s.npz").is_file()
    tracker.load_state("~/s.npz")


def test_set_ups_networks_and_data_sets_are_looked_for_there(home):
    write_text("~/mine.py", "from ebmtrack.tracker_params.lite_nce_plus import parameters\n")
    assert load_params("~/mine.py") == load_params("lite_nce_plus")
    with pytest.raises(CheckpointError, match=re.escape(str(home / "none.safetensors"))):
        ebmtrack.Tracker.from_pretrained(weights="~/none.safetensors")
    with pytest.raises(DatasetError, match=re.escape(str(home / "none"))):
        open_dataset("otb100", "~/none")
    (home / "data").mkdir()
    with pytest.raises(DatasetError, match=re.escape(str(home / "data"))):
        open_dataset("folder", "~/data")
