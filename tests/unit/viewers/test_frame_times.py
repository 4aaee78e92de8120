"""Times as users give them: the frame that is shown at a time, by time stamps, in files of any kind."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ebmtrack
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.viewers import frames as video_frames
from ebmtrack.viewers.frame_times import FrameTimes
from ebmtrack.viewers.frames import AvFrames, open_frames
from ebmtrack.viewers.seekable import SeekableFrames
from ebmtrack.viewers.track_video import track as track_video
from tests.unit.viewers.test_keyframes import BOX, Drifter
from tests.unit.viewers.test_save import film

# frames 0 to 19 every 40 ms, then every 120 ms, as of a phone whose camera slows down in the dark
SLOWING_S = [0.04 * number for number in range(20)] + [0.76 + 0.12 * number for number in range(1, 21)]


@pytest.fixture(scope="module")
def slowing(tmp_path_factory):
    """A film of variable rate: at 1.5 s, frame 25 is shown, at 2 s frame 30 is shown next (at 2.08 s)."""
    return film(tmp_path_factory.mktemp("film") / "slowing.mp4", SLOWING_S)


@given(
    fps=st.sampled_from([10.0, 12.5, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0, 120.0]),
    time_ms=st.integers(0, 20_000),
    digits=st.sampled_from([3, 6, 12]),
    first_s=st.sampled_from([0.0, 1.4]),
)
def test_at_a_constant_rate_a_time_is_the_nearest_frame(fps, time_ms, digits, first_s):
    """As by the frame rate alone, also for stamps that are rounded and do not begin at 0."""
    stamps_s = [round(first_s + number / fps, digits) for number in range(int(20.5 * fps) + 2)]
    assert FrameTimes("v", fps, lambda: stamps_s).frame_at(time_ms / 1000) == round(time_ms / 1000 * fps)


@given(
    gaps_ms=st.lists(st.integers(1, 5000), min_size=1, max_size=40),
    fps=st.floats(0.1, 240.0),
    fraction=st.floats(0.0, 1.0),
)
def test_at_a_variable_rate_it_is_shown_then_or_within_half_a_frame(gaps_ms, fps, fraction):
    """It is never an earlier frame, nor one after the next."""
    stamps_s = np.cumsum([0, *gaps_ms]) / 1000
    time_s = fraction * stamps_s[-1]
    number = FrameTimes("v", fps, stamps_s.tolist).frame_at(time_s)
    shown = np.flatnonzero(stamps_s <= time_s)[-1]
    assert number == shown or (number == shown + 1 and stamps_s[number] - time_s <= 0.5 / fps + 0.001)


def test_time_stamps_are_read_as_far_as_need_be():
    given_s = []

    def stamps():
        for number in range(1000):
            given_s.append(number / 10)
            yield number / 10

    times = FrameTimes("v", 5.0, stamps)
    assert not given_s and times.frame_at(2.0) == 20 and given_s[-1] == 2.2
    assert times.frame_at(1.0) == 10 and given_s[-1] == 2.2 and times.frame_at(3.0) == 30


@pytest.mark.parametrize("stamps_s", [None, []])
def test_without_time_stamps_times_are_counted_by_the_frame_rate(stamps_s, caplog):
    times = FrameTimes("v", 25.0, lambda: stamps_s)
    assert [times.frame_at(time_s) for time_s in (0.0, 1.0, 3.5)] == [0, 25, 88]
    note = "v has no time stamps: times are counted at 25 frames/s"
    assert caplog.messages == ([note] if stamps_s is None else [])


def test_after_the_last_frame_numbers_go_on():
    times = FrameTimes("v", 25.0, lambda: [0.0, 0.1, 0.2])
    assert [times.frame_at(time_s) for time_s in (0.2, 0.29, 0.3, 0.55)] == [2, 2, 3, 5]
    assert FrameTimes("v", 25.0, lambda: [7.0]).frame_at(1.0) == 25


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("reader", [open_frames, AvFrames])
def test_both_readers_give_the_frame_that_is_shown(tmp_path, kind, reader):
    """MPEG-TS begins after 0; this AVI announces 1000 frames/s."""
    codec = "mpeg4" if kind == "avi" else "libx264"
    with reader(film(tmp_path / f"in.{kind}", SLOWING_S, codec=codec)) as frames:
        assert [frames.times.frame_at(time_s) for time_s in (0.0, 0.5, 0.76, 1.5, 3.2)] == [0, 12, 19, 25, 39]
        assert len(list(frames)) == 40  # reading goes on from where it was


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("reader", [open_frames, AvFrames])
def test_in_files_of_constant_rate_a_time_is_the_frame_that_it_was(tmp_path, kind, reader):
    with reader(film(tmp_path / f"in.{kind}", [number / 25 for number in range(60)])) as frames:
        times_s = [number / 100 for number in range(237)]
        assert [frames.times.frame_at(time_s) for time_s in times_s] == [round(25 * time_s) for time_s in times_s]


def test_a_frame_that_cannot_be_read_counts(slowing, monkeypatch):
    """As in reading: the numbers of those after it stay."""
    calls, grab = iter(range(1000)), video_frames._grab

    def grab_most(capture):
        empty = grab(capture)
        return None if next(calls) in (5, 6) else empty

    monkeypatch.setattr(video_frames, "_grab", grab_most)
    with open_frames(slowing) as frames:
        assert [frames.times.frame_at(time_s) for time_s in (0.1, 0.6, 1.5)] == [2, 15, 25]


def test_the_frames_of_an_animation_have_their_own_times(tmp_path):
    if not hasattr(cv2, "imwriteanimation"):
        pytest.skip("this OpenCV writes no animations")
    animation = cv2.Animation()
    animation.frames = [np.full((20, 30, 3), 40 * number, np.uint8) for number in range(4)]
    animation.durations = [100, 100, 2000, 100]
    assert cv2.imwriteanimation(os.fspath(tmp_path / "a.webp"), animation)
    with open_frames(tmp_path / "a.webp") as frames:
        assert [frames.times.frame_at(time_s) for time_s in (0.0, 0.1, 1.5, 2.25)] == [0, 1, 2, 3]
        assert [frames.moment_s for _ in frames] == pytest.approx([0, 0.1, 0.2, 2.2])


def test_track_takes_the_frames_that_are_shown(slowing, tmp_path):
    """The same from Python, on the command line, and for frames that are read in any order."""
    rows = list(ebmtrack.track(slowing, {"1.5s": BOX}, Drifter(), end="2.0s"))
    assert [row.frame for row in rows] == [25, 26, 27, 28, 29]
    assert list(ebmtrack.track(slowing, BOX, Drifter(), start="1.5s", end="2.0s")) == rows
    line = dict(boxes=tmp_path / "b.csv", end="2.0s")
    for init, start in [("1.5s:10,5,8,6", None), ("10,5,8,6", "1.5s")]:
        found = track_video(slowing, Drifter, init, start=start, **line)
        assert [row.frame for row in found.rows] == [25, 26, 27, 28, 29]
    both = list(ebmtrack.track(slowing, {"1.5s": BOX}, Drifter(), start="0.76s", direction="both"))
    assert [row.frame for row in both] == list(range(19, 40)) and both[6].verdict == "start"
    backward = list(ebmtrack.track(slowing, BOX, Drifter(), start="0.76s", end="1.5s", direction="backward"))
    assert [row.frame for row in backward] == list(range(19, 26)) and backward[-1].verdict == "start"
    with SeekableFrames(slowing) as recorded:
        assert recorded.times.frame_at(1.5) == 25 and recorded.shown_s(25) == pytest.approx(25 / recorded.fps)
        recorded.read(25)
        assert recorded.shown_s(25) == pytest.approx(1.48) and recorded.times.frame_at(recorded.shown_s(25)) == 25


@pytest.mark.parametrize("announced", [40, 140])
@pytest.mark.parametrize("end", ["3.5s", "60"])
def test_an_end_after_the_last_frame_is_the_last_frame(slowing, monkeypatch, tmp_path, announced, end):
    """In all directions, and in files that announce more frames than they hold, as MKV of variable rate does."""
    made = video_frames.VideoFrames.__init__

    def announcing(self, *args, **options):
        made(self, *args, **options)
        self.length = announced

    monkeypatch.setattr(video_frames.VideoFrames, "__init__", announcing)
    monkeypatch.setattr(video_frames.VideoFrames, "_expected_length", lambda self: 40)
    for direction in ("forward", "backward", "both"):
        box = "10:10,5,8,6" if direction == "both" else "10,5,8,6"
        options = {} if direction == "forward" else {direction: True}
        found = track_video(slowing, Drifter, box, end=end, boxes=tmp_path / "b.csv", **options)
        start = {"forward": 0, "backward": 39, "both": 10}[direction]
        assert [row.frame for row in found.rows] == list(range(40)) and not found.unreadable
        assert found.rows[start].verdict == "start"
        keys = {10: BOX} if direction == "both" else BOX
        rows = list(ebmtrack.track(slowing, keys, Drifter(), end=end, direction=direction))
        assert [row.frame for row in rows] == list(range(40)) and rows[start].verdict == "start"


def test_boxes_of_one_target_in_the_last_frame_are_refused(slowing, tmp_path):
    """One is there by its number, the other because it has no frame."""
    with pytest.raises(ConfigError, match="target 1 has two boxes in one frame"):
        track_video(slowing, Drifter, ["10,5,8,6", "39:10,5,8,6"], backward=True, boxes=tmp_path / "b.csv")


def test_a_time_after_the_last_frame_is_refused(slowing):
    with pytest.raises(DatasetError, match="ends after 40 frames, before frame 41"):
        next(ebmtrack.track(slowing, BOX, Drifter(), start="3.42s"))
