"""The labelling window: what keys and the mouse do, and the whole of it on a virtual screen."""

from __future__ import annotations

import shutil
import signal
import sys

import numpy as np
import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.images import write_picture
from ebmtrack.live.labelling import LabelDesk, draw_key_frames
from ebmtrack.viewers import track_video, window
from ebmtrack.viewers.drawing import PALETTE, YELLOW
from ebmtrack.viewers.keyframes import KeyFrame
from ebmtrack.viewers.seekable import SeekableFrames
from tests.support import REPOSITORY
from tests.support.screen import Screen
from tests.unit.viewers.test_keyframes import Drifter

BOX = (10.0, 5.0, 20.0, 20.0)


@pytest.fixture
def folder(tmp_path):
    for number in range(30):
        image = np.full((48, 64, 3), number, np.uint8)
        image[20:30, 10 + number : 20 + number] = 200
        write_picture(tmp_path / "clip" / f"{number}.png", image)
    return tmp_path / "clip"


@pytest.fixture
def desk(folder):
    with SeekableFrames(folder) as frames:
        desk = LabelDesk(frames, Drifter)
        desk.picture()
        yield desk


def press(desk, *names):
    for name in names:
        desk.key(ord(name))


def drag(desk, box):
    desk.press(box[0], box[1])
    desk.move(box[0] + 1, box[1] + 1)
    desk.release(box[0] + box[2], box[1] + box[3])


def test_it_begins_paused_on_the_first_frame(desk):
    desk.tick()
    assert (desk.at, desk.playing, desk.keys) == (0, 0, ())
    press(desk, "\r")
    assert not desk.done  # without a box there is nothing to do


def test_keys_step_and_seek(desk):
    press(desk, ".", ".", ",")
    assert desk.at == 1
    press(desk, "]")
    assert desk.at == 26
    press(desk, "]")
    assert desk.at == 29
    press(desk, "[", "[")
    assert desk.at == 0
    desk.press(32, 50)  # the bar, below the picture of 48 rows
    assert desk.at in (14, 15)


def test_drawn_boxes_are_targets_and_play_follows_them(desk):
    drag(desk, BOX)
    drag(desk, (40.0, 5.0, 10.0, 10.0))
    assert [(key.frame, key.id) for key in desk.keys] == [(0, 1), (0, 2)] and desk.selected == 2
    press(desk, " ")
    for _ in range(5):
        desk.tick()
    press(desk, " ")
    assert desk.at == 5 and [row.box_xywh[0] for row in desk.results()] == [20.0, 50.0]
    press(desk, ",")
    assert [row.box_xywh[0] for row in desk.results()] == [18.0, 48.0]  # what is known is shown
    press(desk, "]")
    assert desk.results() == []


def test_playing_ends_with_the_video(desk):
    drag(desk, BOX)
    desk.go(28)
    press(desk, " ")
    for _ in range(5):
        desk.tick()
    assert (desk.at, desk.playing) == (29, 0)


def test_a_correction_is_a_key_frame_and_the_track_goes_on_from_it(desk):
    drag(desk, BOX)
    press(desk, " ")
    for _ in range(10):
        desk.tick()
    press(desk, " ", "r")
    drag(desk, (0.0, 0.0, 8.0, 8.0))
    assert desk.keys == (KeyFrame(0, 1, BOX), KeyFrame(10, 1, (0.0, 0.0, 8.0, 8.0)))
    press(desk, " ")
    desk.tick()
    assert desk.results()[0].box_xywh == (2.0, 0.0, 8.0, 8.0)
    press(desk, "u")
    assert desk.keys == (KeyFrame(0, 1, BOX),)
    desk.go(10)
    assert desk.results()[0].box_xywh[0] == 30.0  # the first track is there again


def test_unreadable_frames_are_passed_over_and_cannot_be_drawn_on(desk, monkeypatch):
    read = desk.frames.read
    monkeypatch.setattr(desk.frames, "read", lambda number: None if number == 1 else read(number))
    drag(desk, BOX)
    press(desk, " ")
    desk.tick()
    row = desk.results()[0]
    assert (desk.at, row.verdict, row.score, row.box_xywh) == (1, "unreadable", None, BOX)
    picture, _ = desk.picture()
    assert (picture[300:400, 300:330] == 0).all()  # in place of the frame, the box is drawn on black
    press(desk, " ", "r")
    drag(desk, (0.0, 0.0, 8.0, 8.0))
    assert len(desk.keys) == 1 and "cannot be read" in desk.notice
    press(desk, " ")
    desk.tick()
    assert desk.at == 2 and desk.results()[0].verdict == "normal"
    desk.picture()


def test_the_tracker_of_the_window_is_loaded_once(folder, tmp_path, monkeypatch):
    loads = []

    def draw(frames, load_tracker, start):
        load_tracker()
        return [KeyFrame(10, 1, BOX)]

    monkeypatch.setattr(track_video, "require_screen", lambda *_: None)
    monkeypatch.setattr("ebmtrack.live.labelling.draw_key_frames", draw)
    result = track_video.track(
        folder, lambda: loads.append(1) or Drifter(), backward=True, boxes=str(tmp_path / "b.csv")
    )
    assert loads == [1] and [row.frame for row in result.rows] == list(range(11))
    assert result.boxes_xywh == [row.box_xywh for row in result.rows] and result.boxes_xywh[10] == BOX


def test_undo_and_remove(desk):
    drag(desk, BOX)
    drag(desk, (40.0, 5.0, 10.0, 10.0))
    press(desk, "1", "x")
    assert [key.id for key in desk.keys] == [2] and desk.selected == 2
    press(desk, "u")
    assert [key.id for key in desk.keys] == [1, 2]
    press(desk, "u", "u", "u")
    assert desk.keys == () and desk.selected is None


def test_targets_are_tracked_backward_too(desk):
    desk.go(20)
    drag(desk, BOX)
    press(desk, "b")
    for _ in range(4):
        desk.tick()
    assert desk.at == 16 and desk.results()[0].box_xywh[0] == 2.0


def test_key_frames_can_be_gone_to(desk):
    for frame in (5, 20):
        desk.go(frame)
        drag(desk, BOX)
    press(desk, "k")
    assert desk.at == 5
    press(desk, "k", "l")
    assert desk.at == 20


def test_escape_leaves_what_was_begun_first(desk):
    drag(desk, BOX)
    press(desk, "r", chr(27))
    assert not desk.quit and not desk.again
    press(desk, chr(27))
    assert desk.quit


def test_the_bar_shows_key_frames(desk):
    drag(desk, BOX)
    desk.go(15)
    picture, zoom = desk.picture()
    assert zoom == 10.0 and picture.shape[1] == 640
    assert (picture[-7, 1] == PALETTE[0]).all() and (picture[-7, 330:332] == 255).all()


needs_screen = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None,
    reason="needs a virtual screen and a program that moves its mouse: Xvfb and xdotool",
)
SCRIPT = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
sys.path.insert(0, {str(REPOSITORY)!r})
from ebmtrack.commands import main as cli
from ebmtrack.commands.options import TrackerOptions
from tests.unit.viewers.test_keyframes import Drifter
TrackerOptions.load = lambda _: Drifter()
sys.exit(cli.main(["track", sys.argv[1], "--select", "--boxes", sys.argv[2]]))
"""


@needs_screen
def test_on_a_screen_boxes_are_drawn_corrected_and_tracked(folder, tmp_path):
    out = tmp_path / "b.csv"
    with Screen(sys.executable, "-c", SCRIPT, str(folder), str(out)) as screen:
        screen.wait_for_window()
        screen.drag((100, 200), (150, 250), (200, 300))
        screen.wait_for_picture(lambda shown: (abs(shown.astype(int) - PALETTE[0]).max(axis=2) < 30).sum() > 200)
        screen.key("bracketright")  # one key after the other: OpenCV keeps only the last of those that wait
        screen.wait_for_picture(lambda shown: (shown[350:400, 20:90] == 25).mean() > 0.9)
        screen.key("r")
        screen.wait_for_picture(lambda shown: (abs(shown.astype(int) - YELLOW).max(axis=2) < 30).sum() > 50)
        screen.drag((300, 200), (350, 250), (400, 300))
        screen.key("Return")
        code, said, errors = screen.end()
    assert code == 0, errors
    lines = out.read_text().splitlines()
    assert len(lines) == 31 and "key frames: --init 1@0:" in said and "--init 1@25:" in said
    assert lines[26].endswith(",,start") and float(lines[26].split(",")[2]) == pytest.approx(30, abs=0.5)


@needs_screen
def test_ctrl_c_ends_it(folder, tmp_path):
    with Screen(sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "b.csv")) as screen:
        screen.wait_for_window()
        screen.program.send_signal(signal.SIGINT)
        code, _, errors = screen.end()
    assert code == 130 and "Traceback" not in errors


def test_a_key_comes_after_the_mouse_that_was_moved_before_it(desk, monkeypatch):
    """Enter directly behind a drag, all of which one wait of the window library hands over: the box is there."""
    monkeypatch.setattr(window, "open_window", lambda *_: None)
    live = window.LiveWindow("clip", desk)

    def wait_key(_):
        drawn = (window.cv2.EVENT_LBUTTONDOWN, 10, 5), (window.cv2.EVENT_LBUTTONUP, 30, 25)
        live._mouse += drawn
        return ord("\r")

    monkeypatch.setattr(window.cv2, "waitKey", wait_key)
    assert live.listen() and desk.done and [key.box_xywh for key in desk.keys] == [(10.0, 5.0, 20.0, 20.0)]


def test_closing_the_window_ends_it(folder, monkeypatch):
    """The window counts as closed from its third picture on, as OpenCV then reports; a box was drawn before."""
    shown = []

    def listen(self, wait_ms):
        shown.append(wait_ms)
        if len(shown) == 1:
            drag(self._controls, BOX)
        return False

    monkeypatch.setattr(window, "open_window", lambda *_: None)
    monkeypatch.setattr(window.Window, "closed", property(lambda _: len(shown) > 2))
    monkeypatch.setattr(window.Window, "show", lambda *_: -1)
    monkeypatch.setattr(window.LiveWindow, "listen", listen)
    for name in ("setMouseCallback", "resizeWindow", "destroyWindow"):
        monkeypatch.setattr(window.cv2, name, lambda *_: None)
    with (
        SeekableFrames(folder) as frames,
        pytest.raises(ConfigError, match="left before Enter; .*--init 1@0:10,5,20,20"),
    ):
        draw_key_frames(frames, Drifter)
    assert len(shown) == 4
